"""A photograph without the few patches that its prediction hangs on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.figures import maps
from bagindex.figures.style import FAINT, INK, TEXT, new_figure
from bagindex.figures.text import wrap
from bagindex.geometry import Box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 6.75
_MARGIN = 0.06
_GREY = 0.82
"""What is no longer seen, of white."""


@dataclass(frozen=True)
class FlipPicture:
    """What the picture shows.

    Attributes:
        header: stands above all.
        captions: two lines above the photograph, the map and what remains.
        values: differences of logits, float [rows, cols].
        border, step: where they lie; see `bagindex.figures.maps.overlay`.
        removed, remaining: boxes of patches.
        pixels: the model's input, uint8 [height, width, RGB], or None.
        shape: its height and width.
        said: words below.
    """

    header: str
    captions: tuple[tuple[str, str], tuple[str, str], tuple[str, str]]
    values: NDArray[np.float32]
    border: float
    step: int
    removed: Sequence[Box]
    remaining: Sequence[Box]
    pixels: NDArray[np.uint8] | None
    shape: tuple[int, int]
    said: str


def flip_figure(shown: FlipPicture) -> Figure:
    """The picture."""
    side = (_WIDTH - 2 * maps.GUTTER) / 3
    width, height = maps.panel_size(shown.shape, side)
    titles = 2 * maps.LINE + 0.06
    top = _MARGIN + maps.LINE + 0.08
    text = wrap(shown.said, _WIDTH)
    below = top + titles + height + 0.04 + maps.BAR + maps.TICKS + 0.06
    figure = new_figure(_WIDTH + 2 * _MARGIN, below + len(text) * maps.LINE + _MARGIN)
    maps.write(figure, _MARGIN, _MARGIN, shown.header, _WIDTH, FAINT)
    limit = float(maps.colour_limits(shown.values[None])[0])
    for place, (title, subtitle) in enumerate(shown.captions):
        x = _MARGIN + place * (side + maps.GUTTER)
        maps.write(figure, x, top, title, side, INK, TEXT)
        maps.write(figure, x, top + maps.LINE + 0.01, subtitle, side, FAINT)
        if place != 1 and shown.pixels is None:
            continue
        axes = maps.place(figure, x, top + titles, width, height)
        if place == 1:
            beneath = "none" if shown.pixels is None else "edges"
            first = shown.border, shown.border
            maps.show(
                axes,
                maps.overlay(shown.values, limit, shown.shape, first, shown.step, shown.pixels, beneath),
                shown.shape,
            )
            maps.colour_bar(figure, x, top + titles + height + 0.04, max(width, 0.9), limit)
        elif shown.pixels is not None:
            picture = shown.pixels if place == 0 else unseen_greyed(shown.pixels, shown.removed, shown.remaining)
            maps.show(axes, picture, shown.shape, smooth=True)
        if place:
            maps.outline(axes, shown.removed, ranks=False)
    for number, line in enumerate(text):
        maps.write(figure, _MARGIN, below + number * maps.LINE, line, _WIDTH + _MARGIN, INK)
    return figure


def unseen_greyed(pixels: NDArray[np.uint8], removed: Sequence[Box], remaining: Sequence[Box]) -> NDArray[np.uint8]:
    """A picture in which the pixels that only removed patches saw are light grey, uint8 [height, width, RGB]."""
    gone, kept = (np.zeros(pixels.shape[:2], bool) for _ in range(2))
    for boxes, mask in ((removed, gone), (remaining, kept)):
        for x0, y0, x1, y1 in boxes:
            mask[y0:y1, x0:x1] = True
    picture = np.array(pixels)
    unseen = gone & ~kept
    grey = pixels[unseen].mean(axis=-1, keepdims=True)
    picture[unseen] = np.rint(255 * _GREY + (1 - _GREY) * 0.6 * grey).astype(np.uint8)
    return picture
