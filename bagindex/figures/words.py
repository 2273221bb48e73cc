"""Visual words as a figure: a row for each, with its typical patches, how often it is seen, and what it says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.errors import OutputError
from bagindex.figures import page
from bagindex.figures.figure3 import common_side, enlarge
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
from bagindex.figures.text import fits, printable, shorten, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARGIN, _GAP, _ROW_GAP = 24, 12, 30
_TEXT_WIDTH, _AFTER = 540, 30
_SIDEWORD, _BARS, _NUMBER = 96, 150, 110
"""Across the contributions: their side, the bars, the number."""
_TILE, _BORDER = 132, 5
_LINE, _TITLE_LINE, _BAR = 34, 48, 16
_MOST_SIDE = 2**16 - 1
_SIDES = ("right", "wrong")
_LEGEND = (
    "Typical patches: those nearest to the word's centroid, each of another image. Beside classes: mean evidence of "
    "the word's patches, above that of all patches."
)
_CONTRIBUTION = "Bars: share of the images' patches × mean evidence, which sums to the mean logit."


@dataclass(frozen=True)
class Row:
    """A word.

    Attributes:
        name, count: lines of text.
        says: classes and numbers, which are not broken over lines.
        tiles: typical patches, uint8 [q, q, RGB] each; `about` says which.
        parts: what it contributes in right images and in wrong ones, None where there are none; no bars without.
    """

    name: str
    count: str
    says: Sequence[str]
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
        bars = (_SIDEWORD + _BARS + _NUMBER + _AFTER) * has_bars
        return cls(common_side(fields, _TILE) + 2 * _BORDER, places, bars)

    @property
    def strip(self) -> int:
        """Where the patches begin."""
        return _MARGIN + _TEXT_WIDTH + _AFTER + self.bars

    @property
    def width(self) -> int:
        return self.strip + self.places * (self.side + _GAP) - _GAP + _MARGIN

    def height(self, row: Row) -> int:
        return max(self.side if row.tiles else 0, len(_lines(row)) * _LINE) + _ROW_GAP


def to_png(title: str, totals: str, rows: Sequence[Row], dpi: int = DPI) -> bytes:
    """The rows as one picture, below a title and, if there is one, a line of totals.

    Raises:
        OutputError: it is larger than a picture can be.
    """
    with style():
        layout = _Layout.of(rows)
        room = (layout.width - 2 * _MARGIN) / DPI
        legend = " ".join(
            filter(None, (totals and f"{totals[0].upper()}{totals[1:]}.", _LEGEND, totals and _CONTRIBUTION))
        )
        lines = wrap(printable(legend), room, SMALL)
        head = _MARGIN + _TITLE_LINE + len(lines) * _LINE + _ROW_GAP
        height = head + sum(map(layout.height, rows)) + _MARGIN - _ROW_GAP // 2
        if height > _MOST_SIDE:
            raise OutputError("this picture would be too tall: ask for fewer words")
        # A hundredth of a pixel more, since half a pixel less than a whole number would be cut to one pixel less.
        figure = new_figure((layout.width + 0.01) / DPI, (height + 0.01) / DPI)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        # Bold letters are wider than the fonts' metrics for plain ones say.
        axes.text(_MARGIN, _MARGIN, shorten(printable(title), 0.85 * room, TITLE), size=TITLE, weight="bold", va="top")
        for place, line in enumerate(lines):
            y = _MARGIN + _TITLE_LINE + (place + 0.5) * _LINE
            axes.text(_MARGIN, y, line, size=SMALL, color=FAINT, va="center")
        listed = [part for row in rows if row.tiles for part in row.parts or () if part is not None]
        scale = min([0.0, *listed]), max([0.0, *listed])
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
    widest = _Layout(_TILE + 2 * _BORDER, 8, _SIDEWORD + _BARS + _NUMBER + _AFTER).width
    return max(1, min(DPI, int(DPI * width / widest)))


def to_html(title: str, totals: str, rows: Sequence[Row]) -> str:
    """The rows as a page in one file."""
    most = max((abs(part) for row in rows if row.tiles for part in row.parts or () if part is not None), default=0.0)
    sections = []
    for row in rows:
        items = "".join(
            f'<li class="place"><span class="patch"><img alt="{page.escape(about)}" title="{page.escape(about)}" '
            f'src="{page.data_uri(tile)}"></span></li>\n'
            for tile, about in zip(row.tiles, row.about, strict=True)
        )
        says = ", ".join(f"<span>{page.escape(each)}</span>" for each in row.says)
        sections.append(
            f'<section class="class">\n<div><h2>{page.escape(row.name)}</h2><p class="faint">{page.escape(row.count)}'
            f"</p><p>{says}</p>{_bars_html(row, most)}</div>\n"
            + (f'<ul class="strip">\n{items}</ul>\n' if items else "")
            + "</section>\n"
        )
    texts = (totals and f"{totals[0].upper()}{totals[1:]}.", _LEGEND, totals and _CONTRIBUTION)
    about = "".join(f"<p>{page.escape(text)}</p>\n" for text in texts if text)
    body = f'<h1>{page.escape(title)}</h1>\n{about}<div class="words">\n{"".join(sections)}</div>\n'
    return page.document(title, body)


def _bars_html(row: Row, most: float) -> str:
    """Contributions of right and wrong images, with bars for a single word; those that are negative are hollow."""
    lines = []
    for part, word in zip(row.parts or (), _SIDES, strict=False):
        if part is None:
            continue
        width = 100 * abs(part) / most if row.tiles and most else 0.0
        sign = " minus" if part < 0 else ""
        bar = f'<span class="bar{sign}" style="width:{width:.1f}%"></span>' if row.tiles else ""
        lines.append(f'<tr class="{word}"><td>{word}</td><td>{number(part, 3)}</td><td>{bar}</td></tr>')
    return f"<table>{''.join(lines)}</table>" if lines else ""


def _lines(row: Row) -> list[tuple[str, float, str]]:
    """Lines of text that fit, with their sizes and colours."""
    width = _TEXT_WIDTH / DPI
    texts = [(row.name, TEXT, INK), (row.count, SMALL, FAINT)]
    lines: list[str] = []
    for place, each in enumerate(row.says, start=1):
        text = printable(each) + "," * (place < len(row.says))
        if lines and fits(f"{lines[-1]} {text}", width, SMALL):
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    texts += [(line, SMALL, INK) for line in lines]
    return [(shorten(printable(text), width, size), size, ink) for text, size, ink in texts]


def _draw(axes: Axes, row: Row, layout: _Layout, top: int, scale: tuple[float, float]) -> None:
    lines = _lines(row)
    middle = top + (layout.height(row) - _ROW_GAP) / 2
    for place, (text, size, ink) in enumerate(lines):
        y = middle + (place - (len(lines) - 1) / 2) * _LINE
        axes.text(_MARGIN, y, text, size=size, color=ink, weight="bold" if size == TEXT else "normal", va="center")
    if row.parts is not None:
        _contributions(axes, row, middle, scale)
    left = layout.strip
    for tile in row.tiles:
        frame = enlarge(tile, layout.side, RULE)
        extent = (left, left + layout.side, top + layout.side, top)
        axes.imshow(frame, extent=extent, interpolation="none", aspect="auto", resample=False)
        left += layout.side + _GAP


def _contributions(axes: Axes, row: Row, middle: float, scale: tuple[float, float]) -> None:
    """A line for right images and one for wrong ones: a bar, for a single word, and the number."""
    from matplotlib.patches import Rectangle

    left = _MARGIN + _TEXT_WIDTH + _AFTER
    least, most = scale
    unit = _BARS / (most - least) if most > least else 0.0
    zero = left + _SIDEWORD - least * unit
    sides = zip(row.parts or (), _SIDES, (RIGHT, WRONG), (-0.5, 0.5), strict=False)
    for part, word, colour, place in sides:
        if part is None:
            continue
        y = middle + place * _LINE * 1.1
        axes.text(left, y, word, size=SMALL, color=colour, va="center")
        if row.tiles:
            axes.add_patch(Rectangle((zero, y - _BAR / 2), part * unit, _BAR, color=colour, linewidth=0))
        right = left + _SIDEWORD + _BARS + _NUMBER
        axes.text(right, y, number(part, 3), size=SMALL, color=INK, ha="right", va="center")
    if row.tiles:
        axes.plot([zero, zero], [middle - 1.1 * _LINE, middle + 1.1 * _LINE], color=FAINT, linewidth=0.5)
