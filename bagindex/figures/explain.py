"""The paper's Figure 4: two classes side by side, what speaks for each in an image, and what decides between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.figures import maps
from bagindex.figures.heatmap import Overlay
from bagindex.figures.style import FAINT, INK, TEXT, new_figure
from bagindex.figures.text import wrap
from bagindex.geometry import Box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 6.75
_MARGIN = 0.06
_BETWEEN = 0.06
_BLOCKS = 0.22


@dataclass(frozen=True)
class Side:
    """One map of an explanation and the patches that are shown below it.

    Attributes:
        title, subtitle: what stands above it.
        values: logits, or differences of logits, float [rows, cols].
        boxes: the patches' boxes in the input.
        crops: their pixels, uint8 [q, q, RGB] each; none where there are no pixels.
        numbers: what stands under each patch.
    """

    title: str
    subtitle: str
    values: NDArray[np.float32]
    boxes: Sequence[Box]
    crops: Sequence[NDArray[np.uint8]]
    numbers: Sequence[str]


@dataclass(frozen=True)
class Block:
    """One image of the figure: what stands above it, its maps, what is said below it, and how the maps are drawn.

    All maps have one colour scale, which ends at `limit`; `caption` are lines beside its colour bar.
    """

    header: str
    caption: tuple[str, str]
    sides: Sequence[Side]
    limit: float
    words: str
    overlay: Overlay
    most_patches: int


def explain_figure(blocks: Sequence[Block]) -> Figure:
    """The blocks, one below the other."""
    lines = [wrap(block.words, _WIDTH) for block in blocks]
    heights = [_layout(block).height + len(text) * maps.LINE for block, text in zip(blocks, lines, strict=True)]
    total = 2 * _MARGIN + sum(heights) + (len(blocks) - 1) * _BLOCKS
    figure = new_figure(_WIDTH + 2 * _MARGIN, total)
    top = _MARGIN
    for block, text, height in zip(blocks, lines, heights, strict=True):
        _draw(figure, block, text, top)
        top += height + _BLOCKS
    return figure


@dataclass(frozen=True)
class _Layout:
    """Inches: of a column, of the map in it, of each patch below it, and of the whole block without its words."""

    column: float
    width: float
    panel: float
    patch: float
    per_row: int
    height: float


_TITLES = 2 * maps.LINE + 0.06
_HEAD = maps.LINE + 0.08


def _layout(block: Block) -> _Layout:
    count = len(block.sides) + 1
    column = (_WIDTH - (count - 1) * maps.GUTTER) / count
    overlay = block.overlay
    width, panel = maps.panel_size(overlay.shape, column)
    lines = max(1, -(-block.most_patches // 4))
    per_row = max(3, -(-block.most_patches // lines))
    patch = (column - (per_row - 1) * _BETWEEN) / per_row
    rows = -(-block.most_patches // per_row)
    shown = rows * (patch + maps.LINE + 0.03) if overlay.pixels is not None else 0.0
    bar = 2 * maps.LINE + maps.BAR + maps.TICKS
    # The colour bar is below the image, or stands where the image would be.
    below = max(shown, bar) if overlay.pixels is not None else max(0.0, bar - panel)
    return _Layout(column, width, panel, patch, per_row, _HEAD + _TITLES + panel + 0.08 + below + 0.04)


def _draw(figure: Figure, block: Block, words: Sequence[str], top: float) -> None:
    layout, overlay = _layout(block), block.overlay
    maps.write(figure, _MARGIN, top, block.header, _WIDTH, FAINT)
    y = top + _HEAD
    below = y + _TITLES + layout.panel + 0.08
    for place in range(len(block.sides) + 1):
        x = _MARGIN + place * (layout.column + maps.GUTTER)
        if place == 0:
            _first_column(figure, block, layout, x, y)
            continue
        side = block.sides[place - 1]
        maps.write(figure, x, y, side.title, layout.column, INK, TEXT)
        maps.write(figure, x, y + maps.LINE + 0.01, side.subtitle, layout.column, FAINT)
        axes = maps.place(figure, x, y + _TITLES, layout.width, layout.panel)
        maps.show(axes, overlay.draw(side.values, block.limit), overlay.shape)
        maps.outline(axes, side.boxes)
        if overlay.pixels is None:
            continue
        for number, (pixels, text) in enumerate(zip(side.crops, side.numbers, strict=True)):
            row, col = divmod(number, layout.per_row)
            left = x + col * (layout.patch + _BETWEEN)
            upper = below + row * (layout.patch + maps.LINE + 0.03)
            crop = maps.place(figure, left, upper, layout.patch, layout.patch)
            crop.imshow(pixels, extent=(0, 1, 1, 0), aspect="auto")
            maps.tag(crop, 0, 0, number + 1)
            maps.write(figure, left, upper + layout.patch + 0.02, text, layout.patch + _BETWEEN, FAINT)
    for number, line in enumerate(words):
        maps.write(figure, _MARGIN, top + layout.height + number * maps.LINE, line, _WIDTH + _MARGIN, INK)


def _first_column(figure: Figure, block: Block, layout: _Layout, x: float, y: float) -> None:
    """The image, and the colour bar of all maps."""
    overlay = block.overlay
    below = y + _TITLES
    title, subtitle = block.caption
    maps.write(figure, x, y, title, layout.column, INK, TEXT)
    maps.write(figure, x, y + maps.LINE + 0.01, subtitle, layout.column, FAINT)
    if overlay.pixels is not None:
        axes = maps.place(figure, x, below, layout.width, layout.panel)
        maps.show(axes, overlay.pixels, overlay.shape, smooth=True)
        below += layout.panel + 0.08
    maps.write(figure, x, below, "colours: patch logits", layout.column, FAINT)
    maps.colour_bar(figure, x, below + maps.LINE + 0.04, max(layout.width, 0.9), block.limit)
