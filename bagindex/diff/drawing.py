"""Images that two models predict otherwise: as a sheet, and on a page."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.experiments import drawing
from bagindex.figures.page import data_uri, document, escape

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure

    from bagindex.diff.result import Diff

_ROWS = 50
"""Rows of a longer table that stand on the page."""


@dataclass(frozen=True, eq=False)
class FlippedImage:
    """An image that flips, as it is drawn.

    Attributes:
        kind: in which way.
        pictures: the input (where it is kept), and either model's evidence for its own prediction over it, uint8
            [height, width, RGB] each.
        lines: what stands below each picture.
    """

    kind: str
    pictures: tuple[NDArray[np.uint8], ...]
    lines: tuple[tuple[str, ...], ...]


def flips_figure(images: Sequence[FlippedImage]) -> Figure:
    """A row for each image: the picture, and what speaks for either prediction."""
    heads = ["image", "a: evidence for what it predicts", "b: evidence for what it predicts"][
        -len(images[0].pictures) :
    ]
    rows = [
        [drawing.Captioned(picture, lines) for picture, lines in zip(each.pictures, each.lines, strict=True)]
        for each in images
    ]
    return drawing.gallery(heads, rows, width=2.2 * len(heads))


def page(diff: Diff) -> str:
    """All of a comparison on one page, without a script and with nothing from elsewhere."""
    shown = [("Some of the images that flip", _shown(diff.drawn()))] if len(diff) else []
    sections = [
        ("Summary", _table(diff.columns, diff.table_rows())),
        ("Settings that differ", _table_of(diff.settings)),
        *shown,
        ("Evidence by class", _table_of(diff.evidence)),
        ("Images that flip", _table_of(diff.flips)),
    ]
    parts = [f'<section class="part">\n<h2>{escape(name)}</h2>\n{body}</section>\n' for name, body in sections]
    return document(diff.title, f"<h1>{escape(diff.title)}</h1>\n<p>{escape(diff.words)}</p>\n{''.join(parts)}")


def _table_of(table: pa.Table) -> str:
    return _table(table.column_names, table.to_pylist())


def _shown(images: Sequence[FlippedImage]) -> str:
    items = []
    for each in images:
        for picture, lines in zip(each.pictures, each.lines, strict=True):
            about = escape(", ".join(lines))
            items.append(f'<img alt="{about}" title="{about}" src="{data_uri(picture, "jpeg")}" width="224">\n')
        said = escape("; ".join(" · ".join(lines) for lines in each.lines))
        items.append(f"<p>{said}</p>\n")
    return "".join(items)


def _table(columns: Sequence[str], rows: Sequence[dict[str, object]]) -> str:
    head = "".join(f"<th>{escape(each)}</th>" for each in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{_cell(row[name])}</td>" for name in columns) + "</tr>\n" for row in rows[:_ROWS]
    )
    more = f'<p class="faint">{_ROWS} of {len(rows):,} rows; .json has all</p>\n' if len(rows) > _ROWS else ""
    return f'<div class="wide"><table class="numbers-of">\n<tr>{head}</tr>\n{body}</table></div>\n{more}'


def _cell(value: object) -> str:
    return "" if value is None else escape(f"{value:.4g}" if isinstance(value, float) else value)
