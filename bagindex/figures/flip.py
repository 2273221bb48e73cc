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
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH = 6.75
_MARGIN = 0.06
_GREY = 0.85
"""What is no longer seen, of white."""
_OUTLINED = 12
"""Of more removed patches than this, the border of all is drawn, not each."""


@dataclass(frozen=True)
class FlipPicture:
    """What the picture shows.

    Attributes:
        header: stands above all.
        captions: two lines above the photograph, the map and what remains.
        values: differences of logits, float [rows, cols].
        gone: which of them are removed, bool [rows, cols].
        border, step: where they lie; see `bagindex.figures.maps.overlay`.
        removed, remaining: boxes of patches.
        pixels: the model's input, uint8 [height, width, RGB], or None.
        shape: its height and width.
        said: words below.
    """

    header: str
    captions: tuple[tuple[str, str], tuple[str, str], tuple[str, str]]
    values: NDArray[np.float32]
    gone: NDArray[np.bool_]
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
            picture = shown.pixels if place == 0 else faded(shown.pixels, shown.removed, shown.remaining)
            maps.show(axes, picture, shown.shape, smooth=True)
        if place == 1:
            _contour(axes, shown.gone, shown.border, shown.border, shown.step)
        elif place == 2 and len(shown.removed) <= _OUTLINED:
            maps.outline(axes, shown.removed)
        elif place == 2:
            _contour(axes, coverage(shown.shape, shown.removed) > 0, 0, 0, 1)
    for number, line in enumerate(text):
        maps.write(figure, _MARGIN, below + number * maps.LINE, line, _WIDTH + _MARGIN, INK)
    return figure


def coverage(shape: tuple[int, int], boxes: Sequence[Box]) -> NDArray[np.int32]:
    """How many boxes each pixel is in, int32 [height, width]."""
    counts = np.zeros(shape, np.int32)
    for x0, y0, x1, y1 in boxes:
        counts[y0:y1, x0:x1] += 1
    return counts


def faded(pixels: NDArray[np.uint8], removed: Sequence[Box], remaining: Sequence[Box]) -> NDArray[np.uint8]:
    """A picture whose pixels fade to grey as far as the patches that see them are removed: those that only removed
    patches saw are all grey, others in part. uint8 [height, width, RGB].
    """
    gone, kept = (coverage((pixels.shape[0], pixels.shape[1]), boxes) for boxes in (removed, remaining))
    share = (gone / np.maximum(gone + kept, 1))[..., None]
    grey = 255 * _GREY + (1 - _GREY) * pixels.mean(axis=-1, keepdims=True)
    picture: NDArray[np.uint8] = np.rint(pixels * (1 - share) + grey * share).astype(np.uint8)
    return picture


def _contour(axes: Axes, mask: NDArray[np.bool_], left: float, top: float, step: float) -> None:
    """The border of a region: squares of side `step` from (`left`, `top`) on that are True, bool [rows, cols]."""
    from matplotlib.collections import LineCollection

    padded = np.pad(mask, 1)
    rows, cols = np.nonzero(padded[1:, :] != padded[:-1, :])
    lines = [((col - 1, row), (col, row)) for row, col in zip(rows.tolist(), cols.tolist(), strict=True)]
    rows, cols = np.nonzero(padded[:, 1:] != padded[:, :-1])
    lines += [((col, row - 1), (col, row)) for row, col in zip(rows.tolist(), cols.tolist(), strict=True)]
    placed = [[(left + x * step, top + y * step) for x, y in line] for line in lines]
    for width, colour in ((1.8, "white"), (0.8, INK)):
        axes.add_collection(LineCollection(placed, linewidths=width, colors=colour, capstyle="projecting"))
