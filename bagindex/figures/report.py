"""A report on a class as a page in one file."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.figures import maps, page
from bagindex.figures.page import escape
from bagindex.figures.style import DIVERGING, FAINT, INK, PAPER, RIGHT, RULE, WRONG, new_figure, style, to_bytes
from bagindex.text import logit_text

if TYPE_CHECKING:
    from bagindex.report import Confusion, Distribution, ModelReport, Report, ReportImage
    from bagindex_schemas.records import Grid

_MOST_CONFUSIONS = 10
_MANY = 1000
"""Patches, from which on the rare ones show on a logarithmic scale."""
_COLOURS = {INK: "var(--ink)", FAINT: "var(--faint)", RULE: "var(--rule)", RIGHT: "var(--right)", WRONG: "var(--wrong)"}


def render(report: Report) -> str:
    """The page."""
    name = escape(report.class_.name)
    wnid = f" ({escape(report.class_.wnid)})" if report.class_.wnid else ""
    labelled = "" if report.labelled == report.images else f", {report.labelled:,} of them labelled"
    head = (
        f'<h1>{name}</h1>\n<p class="faint">Class {report.class_.class_id}{wnid} of {escape(report.index)}, which has '
        f"{report.images:,} images{labelled}.</p>\n"
    )
    if report.pixels:
        rows, details = page.figure3(report.figure3, report.figure3.pictures())
        intro = (
            '<h3>Patches with most evidence</h3>\n<p class="faint">One of an image; with the logit, and in wrong '
            "images their label. Each leads to its image.</p>\n"
        )
        figure = intro + rows
    else:
        figure, details = _none("This index keeps no pixels (--no-pixels): patches and images cannot be shown."), ""
    pictures = report.pictures()
    several = len(report.models) > 1
    parts = [_model(report, model, pictures, several) for model in report.models]
    return page.document(f"{report.class_.name} · {report.index}", "".join([head, figure, *parts, details]))


def plot(distribution: Distribution, label: str, name: str, rare: bool) -> str:
    """Shares of right and of wrong images as SVG within a page, in the page's own colours.

    Args:
        distribution: what is plotted.
        label: what its numbers are.
        name: what makes ids unique on the page.
        rare: use a logarithmic scale, since what is rare matters.
    """
    from matplotlib.ticker import FuncFormatter, NullLocator

    with style():
        figure = new_figure(4.6, 2.1)
        axes = figure.add_axes((0.1, 0.2, 0.89, 0.69))
        for counts, colour, text in (
            (distribution.wrong, WRONG, "images of others"),
            (distribution.right, RIGHT, "images of the class"),
        ):
            if not counts.sum():
                continue
            share = counts / counts.sum()
            axes.stairs(share, distribution.edges, fill=True, color=colour, alpha=0.22)
            axes.stairs(share, distribution.edges, color=colour, linewidth=1.2, label=f"{text} ({counts.sum():,})")
        axes.axvline(0, color=RULE, linewidth=0.8, zorder=0)
        axes.set_yscale("log" if rare else "linear")
        axes.yaxis.set_major_formatter(FuncFormatter(lambda share, _: f"{100 * share:g} %"))
        axes.yaxis.set_minor_locator(NullLocator())
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)
        axes.grid(axis="y", color=RULE, linewidth=0.4)
        axes.set_axisbelow(True)
        axes.set_xlabel(label)
        axes.legend(
            frameon=False,
            fontsize=7,
            loc="lower right",
            bbox_to_anchor=(1, 1),
            borderaxespad=0.1,
            ncols=2,
            reverse=True,
        )
        text = to_bytes(figure, "svg").decode()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    text = re.sub(r'(\bid="|href="#|url\(#)', rf"\g<1>{name}-", text)
    text = text.replace(f"fill: {PAPER}", "fill: none")
    for colour, variable in _COLOURS.items():
        text = text.replace(colour, variable)
    return f'<div class="plot" role="img" aria-label="{escape(label)}">{text}</div>\n'


def _model(report: Report, model: ModelReport, pictures: Mapping[int, NDArray[np.uint8]], several: bool) -> str:
    title = f"<h2>{escape(model.model)}</h2>\n" if several else ""
    if not report.labelled:
        body = _none("No image of this index has a label: none is right or wrong. Give labels with bagindex relabel.")
    else:
        body = _numbers(model) + _confusions(report, model) + _plots(report, model) + _images(report, model, pictures)
    return f'<section class="part">\n{title}{body}</section>\n'


def _numbers(model: ModelReport) -> str:
    accuracy = f"{100 * model.recognised / model.images:.1f} %" if model.images else "–"
    precision = f"{100 * model.recognised / model.predicted:.1f} %" if model.predicted else "–"
    blocks = [
        (f"{model.images:,}", "images of the class"),
        (accuracy, f"of them recognised ({model.recognised:,})"),
        (f"{model.predicted:,}", "images predicted as it"),
        (precision, "of those rightly"),
    ]
    return (
        '<div class="numbers">' + "".join(f"<div><b>{number}</b>{text}</div>" for number, text in blocks) + "</div>\n"
    )


def _confusions(report: Report, model: ModelReport) -> str:
    name = escape(report.class_.name)
    sides = [
        (f"Images of {name} are taken for", "right", model.taken_for),
        (f"Taken for {name} are images of", "wrong", model.mistaken),
    ]
    most = max([1, *(each.images for _, _, found in sides for each in found)])
    tables = (f"<div>\n<h3>{title}</h3>\n{_table(found, mark, most)}</div>\n" for title, mark, found in sides)
    return f'<div class="pair">\n{"".join(tables)}</div>\n'


def _table(found: Sequence[Confusion], mark: str, most: int) -> str:
    rows = "".join(
        f'<tr><td>{escape(each.class_name)}</td><td>{each.images:,}</td><td class="{mark}">'
        f'<span class="bar" style="width:{100 * each.images / most:.1f}%"></span></td></tr>\n'
        for each in found[:_MOST_CONFUSIONS]
    )
    rest = found[_MOST_CONFUSIONS:]
    if rest:
        rows += (
            f"<tr><td>{len(rest):,} other classes</td><td>{sum(each.images for each in rest):,}</td><td></td></tr>\n"
        )
    return f"<table>\n{rows}</table>\n" if rows else _none("none")


def _plots(report: Report, model: ModelReport) -> str:
    name = escape(report.class_.name)
    sides = [
        ("Evidence of patches", model.patches, "a patch's logit for the class", "p"),
        ("Evidence of whole images", model.logits, "an image's logit for the class: the mean of its patches'", "m"),
    ]
    parts = []
    for title, distribution, label, letter in sides:
        if distribution is not None:
            number = [each.model for each in report.models].index(model.model)
            rare = letter == "p" and distribution.right.sum() + distribution.wrong.sum() >= _MANY
            drawn = plot(distribution, label, f"{letter}{number}", rare)
        else:
            drawn = _none("This index keeps no evidence of patches: build it with --keep evidence.")
        parts.append(f"<div>\n<h3>{title} for {name}</h3>\n{drawn}</div>\n")
    return f'<div class="pair">\n{"".join(parts)}</div>\n'


def _images(report: Report, model: ModelReport, pictures: Mapping[int, NDArray[np.uint8]]) -> str:
    if not report.pixels:
        return ""
    name = escape(report.class_.name)
    found = [each.evidence for each in model.shown if each.evidence is not None]
    most = float(maps.colour_limits(np.stack(found), shared=True)[0]) if found else 1.0
    groups = [
        (f"Most typical images of {name}: highest logit", "right", model.typical, "no image of this class"),
        (f"Least typical images of {name}: lowest logit", "right", model.untypical, "no image of this class"),
        (f"Images of other classes with most evidence for {name}", "wrong", model.wrong, "no image of another class"),
    ]
    nothing = _none("This index keeps no evidence of patches: heatmaps need --keep evidence.")
    parts = [_scale(most) if found else nothing]
    for title, mark, images, missing in groups:
        shown = "".join(_image(each, pictures[each.image_id], model.grid, most) for each in images)
        grid = f'<div class="images {mark}">\n{shown}</div>\n' if images else _none(missing)
        parts.append(f"<h3>{title}</h3>\n{grid}")
    return f"<h3>Images and where their evidence lies</h3>\n{''.join(parts)}"


def _image(image: ReportImage, pixels: NDArray[np.uint8], grid: Grid, most: float) -> str:
    about = escape(f"image {image.image_id}, {image.label_name}")
    shown = f'<img alt="{about}" src="{page.data_uri(pixels, "jpeg")}">'
    if image.evidence is not None:
        drawn = maps.overlay(
            image.evidence,
            most,
            (pixels.shape[0], pixels.shape[1]),
            (grid.border, grid.border),
            grid.stride,
            pixels,
            "edges",
        )
        heat = page.data_uri(drawn, "jpeg")
        shown += f'<img alt="evidence in {about}" src="{heat}">'
    return (
        f"<figure><div>{shown}</div><figcaption><b>{escape(image.label_name)}</b>, predicted "
        f"<b>{escape(image.predicted_name)}</b>, logit {logit_text(image.logit)}<br>"
        f"{image.image_id} · {escape(image.path)}</figcaption></figure>\n"
    )


def _scale(most: float) -> str:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    stops = ", ".join(to_hex(colormaps[DIVERGING](place / 10)) for place in range(11))
    return (
        f'<p class="scale">≤ −{most:.1f} <i style="background:linear-gradient(90deg, {stops})"></i> ≥ {most:.1f}</p>\n'
        '<p class="faint">A patch\'s logit for the class, where its centre is: red speaks for it, blue against.</p>\n'
    )


def _none(text: str) -> str:
    return f'<p class="none">{escape(text)}</p>\n'
