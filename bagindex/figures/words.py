"""Visual words as a figure: a row for each, with its typical patches, how often it is seen, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.errors import OutputError
from bagindex.figures import page
from bagindex.figures.figure3 import common_side, enlarge, printable
from bagindex.figures.maps import number
from bagindex.figures.style import (
    DPI,
    FAINT,
    INK,
    RIGHT,
    RULE,
    SMALL,
    TEXT,
    TITLE,
    WRONG,
    new_figure,
    style,
    to_bytes,
)
from bagindex.figures.text import shorten, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARGIN, _GAP, _ROW_GAP = 24, 12, 34
_TEXT_WIDTH, _BARS_WIDTH, _AFTER = 520, 330, 40
_TILE = 150
_LINE, _TITLE_LINE = 36, 46
_MOST_SIDE = 2**16 - 1


@dataclass(frozen=True)
class Row:
    """A word.

    Attributes:
        name, count, says: lines of text.
        tiles: typical patches, uint8 [q, q, RGB] each; `about` says which.
        parts: what it contributes in right images and in wrong ones, None where there are none; no bars without.
    """

    name: str
    count: str
    says: str
    tiles: Sequence[NDArray[np.uint8]]
    about: Sequence[str]
    parts: tuple[float | None, ...] | None = None


@dataclass(frozen=True)
class _Layout:
    """Pixels of a print."""

    side: int
    places: int
    bars: int

    @classmethod
    def of(cls, rows: Sequence[Row]) -> _Layout:
        fields = {tile.shape[0] for row in rows for tile in row.tiles}
        places = max([1, *(len(row.tiles) for row in rows)])
        has_bars = any(row.parts is not None for row in rows)
        return cls(common_side(fields, _TILE) if fields else _TILE, places, (_BARS_WIDTH + _AFTER) * has_bars)

    @property
    def strip(self) -> int:
        """Where the patches begin."""
        return _MARGIN + _TEXT_WIDTH + _AFTER + self.bars

    @property
    def width(self) -> int:
        return self.strip + self.places * (self.side + _GAP) - _GAP + _MARGIN

    def height(self, row: Row) -> int:
        return max(self.side if row.tiles else 0, (2 if not row.says else 3) * _LINE) + _ROW_GAP


def to_png(title: str, rows: Sequence[Row], dpi: int = DPI) -> bytes:
    """The rows as one picture.

    Raises:
        OutputError: it is larger than a picture can be.
    """
    with style():
        layout = _Layout.of(rows)
        lines = wrap(printable(title), (layout.width - 2 * _MARGIN) / DPI, TITLE)
        head = _MARGIN + len(lines) * _TITLE_LINE + _ROW_GAP
        height = head + sum(map(layout.height, rows)) + _MARGIN - _ROW_GAP // 2
        if height > _MOST_SIDE:
            raise OutputError("this picture would be too tall: ask for fewer words")
        # A hundredth of a pixel more, since half a pixel less than a whole number would be cut to one pixel less.
        figure = new_figure((layout.width + 0.01) / DPI, (height + 0.01) / DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.text(_MARGIN, _MARGIN, "\n".join(lines), size=TITLE, weight="bold", va="top", linespacing=1.2)
        scale = max([abs(part) for row in rows for part in row.parts or () if part is not None], default=0.0) or 1.0
        top = head
        for each in rows:
            axes.plot([_MARGIN, layout.width - _MARGIN], [top - _ROW_GAP / 2] * 2, color=RULE, linewidth=0.4)
            _draw(axes, each, layout, top, scale)
            top += layout.height(each)
        axes.set_xlim(0, layout.width + 0.01)
        axes.set_ylim(height + 0.01, 0)
        return to_bytes(figure, "png", dpi)


def dpi_for(width: int) -> int:
    """Dots an inch at which the widest figure is no wider than so many pixels."""
    widest = _Layout(_TILE, 8, _BARS_WIDTH + _AFTER).width
    return max(1, min(DPI, int(DPI * width / widest)))


def to_html(title: str, rows: Sequence[Row]) -> str:
    """The rows as a page in one file."""
    sections = []
    for row in rows:
        pairs = [
            (f"contribution, {side} class", number(part, 4))
            for side, part in zip(("right", "wrong"), row.parts or (), strict=False)
            if part is not None
        ]
        items = "".join(
            f'<li class="place"><span class="patch"><img alt="{page.escape(about)}" title="{page.escape(about)}" '
            f'src="{page.data_uri(tile)}"></span></li>\n'
            for tile, about in zip(row.tiles, row.about, strict=True)
        )
        says = f"<p>{page.escape(row.says)}</p>" if row.says else ""
        sections.append(
            f'<section class="class">\n<div><h2>{page.escape(row.name)}</h2><p class="faint">{page.escape(row.count)}'
            f'</p>{says}{page.facts(pairs) if pairs else ""}</div>\n<ul class="strip">\n{items}</ul>\n</section>\n'
        )
    body = (
        f"<h1>{page.escape(title)}</h1>\n<p>Each word with the patches nearest to its centroid, each of another image, "
        "and the classes for which its mean evidence is most above that of all patches.</p>\n"
        f'<div style="--k:8;--mark:var(--rule)">\n{"".join(sections)}</div>\n'
    )
    return page.document(title, body)


def _draw(axes: Axes, row: Row, layout: _Layout, top: int, scale: float) -> None:
    lines = [(row.name, TEXT, INK), (row.count, SMALL, FAINT), *([(row.says, SMALL, INK)] if row.says else [])]
    inner = layout.height(row) - _ROW_GAP
    y = top + (inner - len(lines) * _LINE) / 2
    for text, size, ink in lines:
        weight = "bold" if size == TEXT else "normal"
        shown = shorten(printable(text), _TEXT_WIDTH / DPI, size)
        axes.text(_MARGIN, y + _LINE / 2, shown, size=size, color=ink, weight=weight, va="center")
        y += _LINE
    if row.parts is not None:
        _bars(axes, row.parts, _MARGIN + _TEXT_WIDTH + _AFTER, top + inner / 2, scale)
    left = layout.strip
    for tile in row.tiles:
        frame = enlarge(tile, layout.side, RULE)
        extent = (left, left + layout.side, top + layout.side, top)
        axes.imshow(frame, extent=extent, interpolation="none", aspect="auto", resample=False)
        left += layout.side + _GAP


def _bars(axes: Axes, parts: Sequence[float | None], left: float, middle: float, scale: float) -> None:
    """Contributions as bars from a zero in the middle, right images above wrong ones, each with its number."""
    from matplotlib.patches import Rectangle

    zero, room = left + _BARS_WIDTH / 2, _BARS_WIDTH / 2
    for place, (part, colour) in enumerate(zip(parts, (RIGHT, WRONG), strict=True)):
        if part is None:
            continue
        y = middle + (place - 1) * 2 * _LINE / 1.5
        axes.add_patch(Rectangle((zero, y + 26), room * part / scale, 14, color=colour, linewidth=0))
        word = ("right", "wrong")[place]
        axes.text(left, y + 13, word, size=SMALL, color=colour, va="center")
        axes.text(left + _BARS_WIDTH, y + 13, number(part, 3), size=SMALL, color=INK, ha="right", va="center")
    axes.plot([zero, zero], [middle - 48, middle + 48], color=FAINT, linewidth=0.5)
