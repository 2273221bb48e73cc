"""What a logit or a margin is made of: the photograph, a map, the strongest patches, and words as bars."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.figures import maps
from bagindex.figures.style import AGAINST, FAINT, FOR, INK, RULE, TEXT, new_figure
from bagindex.figures.text import wrap
from bagindex.geometry import Box
from bagindex.text import share_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH = 6.75
_MARGIN = 0.06
_PANEL = 1.95
_BETWEEN = 0.06
_LARGEST = 0.6
_BAR = 0.3
"""Of a word's patches; its bar has the middle of the row."""
_BAR_STEP = 0.36
_NAMES = 1.0
_NUMBERS = 1.0


@dataclass(frozen=True)
class Bar:
    """A word: its contribution, and the pixels of some of its patches, uint8 [q, q, RGB] each."""

    name: str
    patches: int
    contribution: float
    share: float | None
    crops: Sequence[NDArray[np.uint8]]


@dataclass(frozen=True)
class WhyPicture:
    """What the picture shows.

    Attributes:
        header, caption: stand above all, and above the photograph.
        title, total: what is accounted for, in words and as a number.
        unit: what the map's values are.
        values: the patches' values, float [rows, cols]; `first` and `step` say where they lie, see `maps.overlay`.
        pixels: the model's input, uint8 [height, width, RGB], or None.
        shape: its height and width.
        sides: for `for` and `against`, each shown patch's box, contribution and share; `headings` stand above them.
        crops: the pixels of these, uint8 [q, q, RGB] each; none where there are no pixels.
        bars: words, and the others in one.
        said: words below.
    """

    header: str
    caption: tuple[str, str]
    title: str
    total: float
    unit: str
    values: NDArray[np.float32]
    first: tuple[float, float]
    step: int
    pixels: NDArray[np.uint8] | None
    shape: tuple[int, int]
    sides: Mapping[str, Sequence[tuple[Box, float, float | None]]]
    crops: Mapping[str, Sequence[NDArray[np.uint8]]]
    headings: tuple[str, str]
    bars: Sequence[Bar]
    said: str


def why_figure(shown: WhyPicture) -> Figure:
    """The picture."""
    width, height = maps.panel_size(shown.shape, _PANEL)
    titles = 2 * maps.LINE + 0.06
    head = _MARGIN + maps.LINE + 0.08
    right = _MARGIN + 2 * (_PANEL + maps.GUTTER)
    room = _WIDTH + _MARGIN - right
    patch, per_row, step = _patch_rows(shown, room)
    lines = {side: -(-len(parts) // per_row) for side, parts in shown.sides.items()}
    strips = sum(maps.LINE + 0.05 + count * step for count in lines.values()) if shown.pixels is not None else 0.0
    top = head + titles
    body = max(height + 0.06 + maps.LINE + maps.BAR + maps.TICKS, strips - titles)
    text = wrap(shown.said, _WIDTH)
    bars = (maps.LINE + 0.08 + (len(shown.bars) + 1) * _BAR_STEP) if shown.bars else 0.0
    total_height = top + body + 0.1 + bars + len(text) * maps.LINE + 2 * _MARGIN
    figure = new_figure(_WIDTH + 2 * _MARGIN, total_height)
    maps.write(figure, _MARGIN, _MARGIN, shown.header, _WIDTH, FAINT)
    _panels(figure, shown, head, titles, width, height)
    if shown.pixels is not None:
        y = head
        for side, colour, heading in zip(("for", "against"), (FOR, AGAINST), shown.headings, strict=True):
            maps.write(figure, right, y, heading, room, colour, TEXT)
            y += maps.LINE + 0.05
            for number, (_, contribution, share) in enumerate(shown.sides[side]):
                row, col = divmod(number, per_row)
                x, upper = right + col * (patch + _BETWEEN), y + row * step
                crop = maps.place(figure, x, upper, patch, patch)
                crop.imshow(shown.crops[side][number], extent=(0, 1, 1, 0), aspect="auto")
                maps.tag(crop, 0, 0, number + 1, colour)
                maps.write(figure, x, upper + patch + 0.02, maps.number(contribution, 3), patch + _BETWEEN, INK)
                maps.write(figure, x, upper + patch + 0.02 + maps.LINE, share_text(share), patch + _BETWEEN, FAINT)
            y += lines[side] * step
    y = top + body + 0.1
    if shown.bars:
        _bars(figure, shown, y)
        y += bars
    for number, line in enumerate(text):
        maps.write(figure, _MARGIN, y + number * maps.LINE, line, _WIDTH + _MARGIN, INK)
    return figure


def _patch_rows(shown: WhyPicture, room: float) -> tuple[float, int, float]:
    """Side of a patch, patches in a row, and the height of a row with its two lines."""
    most = max([1, *(len(parts) for parts in shown.sides.values())])
    lines = -(-most // 5)
    per_row = max(3, -(-most // lines))
    patch = min((room - (per_row - 1) * _BETWEEN) / per_row, _LARGEST)
    return patch, per_row, patch + 2 * maps.LINE + 0.06


def _panels(figure: Figure, shown: WhyPicture, y: float, titles: float, width: float, height: float) -> None:
    for place, (title, subtitle) in enumerate((shown.caption, (shown.title, maps.number(shown.total, 3)))):
        x = _MARGIN + place * (_PANEL + maps.GUTTER)
        maps.write(figure, x, y, title, _PANEL, INK, TEXT)
        maps.write(figure, x, y + maps.LINE + 0.01, subtitle, _PANEL, FAINT)
    left = _MARGIN + _PANEL + maps.GUTTER
    if shown.pixels is not None:
        axes = maps.place(figure, _MARGIN, y + titles, width, height)
        maps.show(axes, shown.pixels, shown.shape, smooth=True)
    axes = maps.place(figure, left, y + titles, width, height)
    limit = float(maps.colour_limits(shown.values[None])[0])
    beneath = "none" if shown.pixels is None else "edges"
    picture = maps.overlay(shown.values, limit, shown.shape, shown.first, shown.step, shown.pixels, beneath)
    maps.show(axes, picture, shown.shape)
    for side, colour in (("for", FOR), ("against", AGAINST)):
        maps.outline(axes, [box for box, _, _ in shown.sides[side]], colour)
    below = y + titles + height + 0.06
    maps.write(figure, left, below, shown.unit, _PANEL, FAINT)
    maps.colour_bar(figure, left, below + maps.LINE + 0.02, max(width, 0.9), limit)


def _bars(figure: Figure, shown: WhyPicture, top: float) -> None:
    """Each bar begins where the one above it ends, so that the last one ends at the total."""
    from matplotlib.patches import Rectangle

    maps.write(
        figure, _MARGIN, top, "words: each bar goes on from the one above, and the last ends at the total", _WIDTH
    )
    top += maps.LINE + 0.08
    most = max([1, *(len(bar.crops) for bar in shown.bars)]) if shown.pixels is not None else 0
    patches = most * (_BAR + 0.04)
    left = _MARGIN + _NAMES + patches + 0.1
    width = _WIDTH + _MARGIN - _NUMBERS - left
    ends = np.cumsum([0.0, *(bar.contribution for bar in shown.bars)])
    low, high = float(min(ends.min(), 0)), float(max(ends.max(), 0))
    span = (high - low) or 1.0
    rows = len(shown.bars) + 1
    axes = maps.place(figure, left, top, width, rows * _BAR_STEP)
    axes.set_xlim(low - 0.02 * span, high + 0.02 * span)
    axes.set_ylim(rows, 0)
    for spine in axes.spines.values():
        spine.set_visible(False)
    axes.axvline(0, color=RULE, linewidth=0.8)
    for number, bar in enumerate(shown.bars):
        begin, end = float(ends[number]), float(ends[number + 1])
        colour = FAINT if bar.name.startswith("other") else FOR if end >= begin else AGAINST
        axes.add_patch(Rectangle((min(begin, end), number + 0.2), abs(end - begin), 0.5, color=colour, linewidth=0))
        axes.plot([end, end], [number + 0.2, number + 1.2], color=RULE, linewidth=0.5)
    axes.add_patch(
        Rectangle((min(0.0, float(ends[-1])), rows - 0.8), abs(float(ends[-1])), 0.5, color=INK, linewidth=0)
    )
    for number, bar in enumerate([*shown.bars, Bar("total", 0, shown.total, 1.0 if shown.total else None, [])]):
        y = top + number * _BAR_STEP
        maps.write(figure, _MARGIN, y + 0.04, bar.name, _NAMES - 0.05, INK)
        if bar.patches:
            count = f"{bar.patches} {'patch' if bar.patches == 1 else 'patches'}"
            maps.write(figure, _MARGIN, y + 0.04 + maps.LINE, count, _NAMES - 0.05, FAINT)
        for place, pixels in enumerate(bar.crops):
            crop = maps.place(figure, _MARGIN + _NAMES + place * (_BAR + 0.04), y + 0.02, _BAR, _BAR)
            crop.imshow(pixels, extent=(0, 1, 1, 0), aspect="auto")
        maps.write(figure, left + width + 0.08, y + 0.1, maps.number(bar.contribution, 3), _NUMBERS / 2, INK)
        maps.write(figure, left + width + 0.56, y + 0.1, share_text(bar.share), _NUMBERS / 2, FAINT)
