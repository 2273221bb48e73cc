"""Pages in one file, without a script and with nothing from elsewhere: Figure 3 as HTML.

A patch links to its image, which stands hidden in the same page until it is the target of the page's address; so the
keyboard's Tab and Enter, the mouse, and the browser's back button all work.
"""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bagindex.figures.text import printable
from bagindex.text import logit_text

if TYPE_CHECKING:
    from bagindex.figure3 import Figure3, Subrow
    from bagindex.results import Patch

_QUALITY = 90


def document(title: str, body: str) -> str:
    """A page; `body` is HTML."""
    style = (files("bagindex.figures") / "page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n{body}\n</body>\n</html>\n"
    )


def escape(text: object) -> str:
    """A text as HTML shows it, between tags and in attributes."""
    return html.escape(printable(str(text)))


def legend(k: int) -> str:
    """What Figure 3 shows, in two sentences."""
    return (
        f"<h1>The patches with most evidence</h1>\n<p>For each class, the {k} images whose strongest patch speaks most "
        'for it: <span class="right"><span class="key">in images of the class</span></span>, and <span class="wrong">'
        '<span class="key">in images of other classes</span></span>, with their label. The number is the patch\'s '
        "logit for the class. Each patch leads to its image.</p>\n"
    )


def figure3(figure: Figure3, pictures: Mapping[int, NDArray[np.uint8]]) -> tuple[str, str]:
    """The rows of Figure 3, and what its patches lead to, to be put at the end of the page."""
    rows, details, number = [], [], 0
    total = sum(len(subrow.patches) for subrow in figure)
    for record in figure.classes:
        columns = []
        for model in figure.models:
            strips = []
            for right in (True, False):
                subrow = figure.subrow(record, model, right)
                strips.append(_strip(subrow, pictures, number))
                for patch in subrow.patches:
                    number += 1
                    details.append(_detail(patch, right, pictures[patch.image_id], number, total))
            columns.append(f'<div>\n<p class="model">{escape(model)}</p>\n{"".join(strips)}</div>\n')
        rows.append(
            f'<section class="class">\n<h2>{escape(record.name)}</h2>\n'
            f'<div class="columns">\n{"".join(columns)}</div>\n</section>\n'
        )
    images = dict.fromkeys(patch.image_id for subrow in figure for patch in subrow.patches)
    inputs = "".join(_definition(image_id, pictures[image_id]) for image_id in images)
    return (
        f'<div class="rows" style="--models:{len(figure.models)};--k:{figure.k}">\n{"".join(rows)}</div>\n',
        f'<svg width="0" height="0" style="position:absolute" aria-hidden="true"><defs>\n{inputs}</defs></svg>\n'
        + "".join(details),
    )


def data_uri(pixels: NDArray[np.uint8], kind: str = "png") -> str:
    """A picture, uint8 [height, width, RGB], inside a page: lossless as `png`, small as `jpeg`."""
    data = io.BytesIO()
    picture = Image.fromarray(pixels)
    if kind == "png":
        picture.save(data, "PNG", optimize=True)
    else:
        picture.save(data, "JPEG", quality=_QUALITY, subsampling=0)
    return f"data:image/{kind};base64,{base64.b64encode(data.getvalue()).decode()}"


def facts(pairs: Sequence[tuple[str, object]]) -> str:
    """Names and values, beside each other."""
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in pairs) + "</dl>"


def _strip(subrow: Subrow, pictures: Mapping[int, NDArray[np.uint8]], number: int) -> str:
    from bagindex.figure3 import caption

    mark, word = ("right", "right class") if subrow.right else ("wrong", "wrong class")
    items = []
    for place, patch in enumerate(subrow.patches, start=number + 1):
        *names, logit = caption(patch)
        about = escape(f"{patch.class_}: patch of image {patch.image_id} ({patch.label_name}), logit {logit}")
        lines = "".join(f"<b>{escape(name)}</b>" for name in names) + f"<span>{logit}</span>"
        items.append(
            f'<li class="place"><a class="patch" id="f{place}" href="#p{place}" title="{about}">'
            f'<img alt="{about}" src="{data_uri(subrow.crop(pictures, patch))}">{lines}</a></li>\n'
        )
    if subrow.remark:
        items.append(f'<li class="none">{escape(subrow.remark)}</li>\n')
    return f'<ul class="strip {mark}">\n<li class="word">{word}</li>\n{"".join(items)}</ul>\n'


def _definition(image_id: int, pixels: NDArray[np.uint8]) -> str:
    height, width = pixels.shape[:2]
    return f'<image id="i{image_id}" width="{width}" height="{height}" href="{data_uri(pixels, "jpeg")}"/>\n'


def _detail(patch: Patch, right: bool, pixels: NDArray[np.uint8], number: int, total: int) -> str:

    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = patch.box
    frame = f'x="{x0 - 2}" y="{y0 - 2}" width="{x1 - x0 + 4}" height="{y1 - y0 + 4}"'
    where = "images of the class" if right else "images of other classes"
    pairs = [
        ("logit", logit_text(patch.logit)),
        ("rank", f"{patch.rank} in {where}"),
        ("label", patch.label_name or "none"),
        ("predicted", patch.predicted_name),
        ("path", patch.path),
        ("image id", patch.image_id),
        ("patch id", patch.patch_id),
        ("row, column", f"{patch.row}, {patch.col}"),
        ("box", ", ".join(str(edge) for edge in patch.box)),
        ("source box", ", ".join(f"{edge:.1f}" for edge in patch.source_box)),
        ("model", patch.model),
    ]
    steps = [("previous", number - 1)] * (number > 1) + [("next", number + 1)] * (number < total)
    links = "".join(f'<a href="#p{place}">{word}</a>' for word, place in steps)
    return (
        f'<section class="detail {"right" if right else "wrong"}" id="p{number}" role="dialog" '
        f'aria-labelledby="h{number}"><a class="veil" href="#f{number}" tabindex="-1" aria-hidden="true"></a>\n'
        f'<div class="card"><svg viewBox="-4 -4 {width + 8} {height + 8}" role="img" '
        f'aria-label="the model\'s input and the patch\'s box"><use class="pixels" href="#i{patch.image_id}"/>'
        f'<rect class="halo" {frame}/><rect class="box" {frame}/></svg>\n'
        f'<div><h2 id="h{number}">{escape(patch.class_)}</h2>{facts(pairs)}'
        f'<nav><a href="#f{number}">close</a>{links}</nav></div></div></section>\n'
    )
