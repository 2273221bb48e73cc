"""Rows of patches in groups, with a few lines of text before each row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.figures import maps
from bagindex.figures.style import FAINT, INK, RULE, TEXT, new_figure
from bagindex.figures.text import inches

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 6.75
_MARGIN = 0.06
_NAMES, _LEAST_NAMES = 1.5, 0.8
_BETWEEN = 0.06
_LARGEST = 0.8
_ROWS = 0.14


@dataclass(frozen=True)
class Tile:
    """A patch, uint8 [q, q, RGB], and what stands under it."""

    pixels: NDArray[np.uint8]
    caption: str


@dataclass(frozen=True)
class Group:
    """Patches that belong together, and what stands above them."""

    heading: str
    tiles: Sequence[Tile]


@dataclass(frozen=True)
class Row:
    """Lines of text, the first of them larger, and groups."""

    lines: tuple[str, ...]
    groups: Sequence[Group]


def strips_figure(title: str, rows: Sequence[Row], each: int, groups: int) -> Figure:
    """The rows, one below the other, with room for `groups` groups of `each` patches."""
    widest = max((inches(line, TEXT) for row in rows for line in row.lines), default=0.0)
    names = min(max(widest * 1.05, _LEAST_NAMES), _NAMES) + 0.1
    room = _WIDTH - names - (groups - 1) * maps.GUTTER
    side = min(_LARGEST, room / groups / each - _BETWEEN)
    group = each * (side + _BETWEEN) - _BETWEEN
    headed = any(group.heading for row in rows for group in row.groups)
    captioned = any(tile.caption for row in rows for group in row.groups for tile in group.tiles)
    above, under = (maps.LINE + 0.03 if headed else 0.0), (maps.LINE + 0.03 if captioned else 0.0)
    heights = [max(above + side + under, (len(row.lines) + 0.2) * maps.LINE) for row in rows]
    top = _MARGIN + maps.LINE + 0.12
    # No wider than what is in it.
    width = min(_WIDTH, max(names + groups * group + (groups - 1) * maps.GUTTER, inches(title, TEXT)))
    figure = new_figure(width + 2 * _MARGIN, top + sum(heights) + len(rows) * _ROWS + _MARGIN)
    maps.write(figure, _MARGIN, _MARGIN, title, width, FAINT)
    for number, (row, height) in enumerate(zip(rows, heights, strict=True)):
        if number:
            _rule(figure, top - _ROWS / 2)
        for place, line in enumerate(row.lines):
            size = {"size": TEXT} if place == 0 else {}
            maps.write(figure, _MARGIN, top + place * maps.LINE, line, names - 0.06, FAINT if place else INK, **size)
        for place, found in enumerate(row.groups):
            left = _MARGIN + names + place * (group + maps.GUTTER)
            maps.write(figure, left, top, found.heading, group, INK)
            for turn, tile in enumerate(found.tiles):
                x = left + turn * (side + _BETWEEN)
                axes = maps.place(figure, x, top + above, side, side)
                axes.imshow(tile.pixels, extent=(0, 1, 1, 0), aspect="auto")
                maps.write(figure, x, top + above + side + 0.02, tile.caption, side + _BETWEEN, FAINT)
        top += height + _ROWS
    return figure


def _rule(figure: Figure, top: float) -> None:
    from matplotlib.lines import Line2D

    width, height = figure.get_size_inches()
    y = 1 - top / height
    line = Line2D(
        [_MARGIN / width, 1 - _MARGIN / width], [y, y], color=RULE, linewidth=0.5, transform=figure.transFigure
    )
    figure.add_artist(line)
