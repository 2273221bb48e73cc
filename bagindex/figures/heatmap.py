"""The paper's Figure 2: an image, and where in it the evidence for each class is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.figures import maps
from bagindex.figures.style import FAINT, INK, SMALL, TEXT, new_figure
from bagindex.figures.text import fits

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 6.75
"""Inches between the margins of a page."""
_LARGEST = 2.1
_ROW = 5
_MARGIN = 0.06
MOST_PANELS = 60
"""Maps in one figure; a larger one would have more pixels than matplotlib draws."""


@dataclass(frozen=True)
class Overlay:
    """How the maps of a figure lie on the input, and how they are drawn.

    Attributes:
        shape: height and width of the input in pixels.
        first: y and x of the upper left corner of the first value's square in the input.
        step: side of each value's square in pixels.
        pixels: the input, uint8 [height, width, RGB]; None: it is not shown.
        beneath: `image`, `edges` or `none`.
        alpha: strength of the colours, 0 to 1.
    """

    shape: tuple[int, int]
    first: tuple[float, float]
    step: int
    pixels: NDArray[np.uint8] | None
    beneath: str
    alpha: float

    def draw(self, values: NDArray[np.float32], limit: float) -> NDArray[np.uint8]:
        """See `bagindex.figures.maps.overlay`."""
        return maps.overlay(values, limit, self.shape, self.first, self.step, self.pixels, self.beneath, self.alpha)


@dataclass(frozen=True)
class Panel:
    """A map: what stands above it in two lines, its values, float [rows, cols], and the logit of its darkest colour."""

    title: str
    subtitle: str
    values: NDArray[np.float32]
    limit: float


def heatmap_figure(
    panels: Sequence[Panel], overlay: Overlay, header: str, caption: tuple[str, str], shared: bool
) -> Figure:
    """The image and the maps, in rows.

    Args:
        panels: the maps.
        overlay: how they are drawn.
        header: stands above all.
        caption: two lines above the image.
        shared: whether all maps have one colour scale, drawn once.
    """
    pictured = int(overlay.pixels is not None)
    count = len(panels) + pictured
    rows = 1 if count <= _ROW else -(-count // (_ROW + 1))
    cols = -(-count // rows)
    side = min(_LARGEST, (_WIDTH - (cols - 1) * maps.GUTTER) / cols)
    width, height = maps.panel_size(overlay.shape, side)
    # Narrow panels leave room, which their titles need.
    column = max(width, 0.7 * side)
    bar_width = max(width, min(column, 0.9))
    titles = 2 * maps.LINE + 0.06
    bar = 0.04 + maps.BAR + maps.TICKS
    # What stands above the image has another form than the classes' names, and may be smaller where they have no room.
    caption_size = TEXT if fits(caption[0], column, TEXT) else SMALL
    step = titles + height + (0.08 if shared else bar + 0.06)
    top = _MARGIN + maps.LINE + 0.08
    total_width = 2 * _MARGIN + cols * column + (cols - 1) * maps.GUTTER
    total_height = top + rows * step + (bar if shared else 0) + _MARGIN
    figure = new_figure(total_width, total_height)
    maps.write(figure, _MARGIN, _MARGIN, header, total_width - 2 * _MARGIN, FAINT)
    for place in range(count):
        row, col = divmod(place, cols)
        x, y = _MARGIN + col * (column + maps.GUTTER), top + row * step
        panel = panels[place - pictured] if place >= pictured else None
        title, subtitle = caption if panel is None else (panel.title, panel.subtitle)
        maps.write(figure, x, y, title, column, INK, caption_size if panel is None else TEXT)
        maps.write(figure, x, y + maps.LINE + 0.01, subtitle, column, FAINT)
        axes = maps.place(figure, x, y + titles, width, height)
        if panel is None:
            if overlay.pixels is not None:
                maps.show(axes, overlay.pixels, overlay.shape, smooth=True)
            continue
        maps.show(axes, overlay.draw(panel.values, panel.limit), overlay.shape)
        if not shared:
            maps.colour_bar(figure, x, y + titles + height + 0.04, bar_width, panel.limit)
    if shared:
        x = _MARGIN + (cols - 1) * (column + maps.GUTTER)
        maps.colour_bar(figure, x, top + rows * step + 0.02, bar_width, panels[0].limit)
    return figure
