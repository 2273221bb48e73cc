"""What the plots of experiments have in common."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.figures import maps
from bagindex.figures.style import FAINT, INK, PAPER, RIGHT, RULE, SMALL, TEXT, TITLE, WRONG, new_figure, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FIRST, SECOND = RIGHT, WRONG
"""Colours of two curves, apart for colour-blind eyes; the paper's figures are `PAPERS`."""
CURVES = (FIRST, SECOND, "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
"""Colours of more of them: Okabe and Ito's."""
PAPERS = FAINT
DASHES = (0, (4, 3))
WIDTH, HEIGHT = 3.6, 2.7
"""Inches of a plot."""


@contextmanager
def plot(
    x_label: str, y_label: str, width: float = WIDTH, height: float = HEIGHT, left: float = 0.62
) -> Iterator[tuple[Figure, Axes]]:
    """An empty plot of so many inches, `left` of them for what stands at the axis, to be drawn into inside."""
    with style():
        figure = new_figure(width, height)
        axes = figure.add_axes((left / width, 0.5 / height, 1 - (left + 0.18) / width, 1 - 0.65 / height))
        frame(axes)
        axes.set_xlabel(x_label)
        axes.set_ylabel(y_label)
        yield figure, axes


@contextmanager
def panels(
    count: int, x_label: str, y_label: str, width: float = WIDTH, height: float = HEIGHT, right: float = 0.2
) -> Iterator[tuple[Figure, list[Axes]]]:
    """Plots of so many inches each, beside each other, with the same scales, and so many inches left on the right."""
    with style():
        figure = new_figure(right + width * count, height)
        share = width / (right + width * count)
        found: list[Axes] = []
        for place in range(count):
            box = ((place + 0.62 / width) * share, 0.5 / height, (1 - 0.8 / width) * share, 1 - 0.8 / height)
            axes = figure.add_axes(box, sharex=found[0] if found else None, sharey=found[0] if found else None)
            frame(axes)
            axes.set_xlabel(x_label)
            found.append(axes)
        found[0].set_ylabel(y_label)
        yield figure, found


@contextmanager
def pairs(names: Sequence[str], title: str) -> Iterator[tuple[Figure, dict[tuple[int, int], Axes]]]:
    """A square plot for each pair of things, below a title: by row and column, which are places among the names."""
    count = len(names) - 1
    side = max(1.5, 2.6 / count)
    left, below, above = 0.7, 0.5, 0.3
    with style():
        figure = new_figure(left + side * count + 0.1, below + side * count + above)
        width, height = figure.get_size_inches()
        found = {}
        for row in range(1, len(names)):
            for col in range(row):
                x, y = left + side * col, below + side * (count - row)
                axes = figure.add_axes((x / width, y / height, (side - 0.2) / width, (side - 0.2) / height))
                frame(axes)
                axes.tick_params(labelbottom=row == count, labelleft=col == 0)
                if row == count:
                    axes.set_xlabel(names[col])
                if col == 0:
                    axes.set_ylabel(names[row])
                found[row, col] = axes
        figure.text(0.1 / width, 1 - 0.1 / height, title, va="top", fontsize=TITLE)
        yield figure, found


def colours(count: int) -> list[str]:
    """Colours of so many curves; beyond those that are apart for most eyes, they come again."""
    return [CURVES[place % len(CURVES)] for place in range(count)]


def frame(axes: Axes) -> None:
    """Faint lines behind a plot."""
    axes.grid(color=RULE, linewidth=0.4)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)


def points(
    axes: Axes,
    x: Sequence[float],
    y: Sequence[float],
    ends: Sequence[tuple[float, float]],
    colour: str,
    label: str,
) -> None:
    """Measured values with their intervals, joined by a line."""
    below = [value - low for value, (low, _) in zip(y, ends, strict=True)]
    above = [high - value for value, (_, high) in zip(y, ends, strict=True)]
    axes.errorbar(
        x, y, yerr=[below, above], color=colour, marker="o", markersize=4, linewidth=1, capsize=2, label=label
    )


def line(axes: Axes, x: Sequence[float], y: Sequence[float], colour: str, label: str, *, dashed: bool = False) -> None:
    """Measured values, joined by a line."""
    axes.plot(
        x,
        y,
        color=colour,
        marker="o",
        markersize=4,
        markerfacecolor=PAPER if dashed else colour,
        linewidth=1,
        linestyle=DASHES if dashed else "solid",
        label=label,
    )


def level(axes: Axes, value: float, colour: str, label: str) -> None:
    """A value that does not depend on what the plot runs over."""
    axes.axhline(value, color=colour, linewidth=0.9, linestyle=DASHES, label=label)


def patch_sizes(axes: Axes, sizes: Iterable[int]) -> None:
    """A logarithmic axis of patches' sides in pixels, with a tick at each."""
    ticks = sorted(set(sizes))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(each) for each in ticks])
    axes.minorticks_off()
    axes.set_xlim(ticks[0] / 1.25, ticks[-1] * 1.25)


def logarithmic(axes: Axes) -> None:
    """A logarithmic axis of values, with numbers that need no mathematics to be set."""
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")


def papers(axes: Axes, values: Mapping[int, float], label: str) -> None:
    """The paper's values, as hollow marks."""
    axes.plot(
        list(values),
        list(values.values()),
        linestyle="",
        marker="D",
        markersize=4.5,
        markerfacecolor="none",
        markeredgecolor=PAPERS,
        label=label,
    )


def legend(axes: Axes) -> None:
    """What the marks are, where there is most room."""
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles, names, frameon=False, fontsize=SMALL, ncols=1 if len(names) <= 4 else 2)


def legend_beside(axes: Axes) -> None:
    """The same to the right of a plot, where curves leave no room."""
    axes.legend(frameon=False, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1.02, 1.03))


@dataclass(frozen=True)
class Captioned:
    """A picture, uint8 [height, width, RGB], and the lines below it."""

    pixels: NDArray[np.uint8]
    lines: tuple[str, ...] = ()


def gallery(heads: Sequence[str], rows: Sequence[Sequence[Captioned]], width: float = 6.75) -> Figure:
    """Rows of pictures of one size, with a line above each column; so many inches wide."""
    gap = 0.08
    side = (width - gap) / len(heads) - gap
    shape = rows[0][0].pixels.shape
    tall = side * shape[0] / shape[1]
    below = maps.LINE * max(len(each.lines) for row in rows for each in row) + 0.04
    with style():
        top = gap + maps.LINE + 0.04
        figure = new_figure(width, top + len(rows) * (tall + below + gap))
        for column, head in enumerate(heads):
            maps.write(figure, gap + column * (side + gap), gap, head, side, INK)
        for row in rows:
            for column, each in enumerate(row):
                left = gap + column * (side + gap)
                axes = maps.place(figure, left, top, side, tall)
                axes.imshow(each.pixels, extent=(0, 1, 1, 0), aspect="auto")
                for number, line in enumerate(each.lines):
                    maps.write(figure, left, top + tall + 0.03 + number * maps.LINE, line, side, FAINT)
            top += tall + below + gap
    return figure


def columns(content: Mapping[str, Sequence[tuple[str, Sequence[str]]]], width: float = 2.5) -> Figure:
    """Boxes below each other, with a name and lines of text in each, and an arrow from each to the next; a column, of
    so many inches, for each key.
    """
    gap, pad = 0.16, 0.05
    from matplotlib.patches import Rectangle

    with style():
        tall = max(
            sum((len(lines) + 1) * maps.LINE + 2 * pad + gap for _, lines in boxes) for boxes in content.values()
        )
        figure = new_figure(gap + len(content) * (width + gap), 2 * gap + maps.LINE + tall)
        for place, (head, boxes) in enumerate(content.items()):
            left, top = gap + place * (width + gap), gap
            maps.write(figure, left, top, head, width, INK, size=TEXT)
            top += maps.LINE + 0.06
            for number, (name, lines) in enumerate(boxes):
                high = (len(lines) + 1) * maps.LINE + 2 * pad
                axes = maps.place(figure, left, top, width, high)
                axes.add_patch(Rectangle((0, 0), 1, 1, fill=False, edgecolor=FAINT, linewidth=0.8))
                maps.write(figure, left + pad, top + pad, name, width - 2 * pad, INK)
                for turn, line in enumerate(lines, start=1):
                    maps.write(figure, left + pad, top + pad + turn * maps.LINE, line, width - 2 * pad, FAINT)
                top += high
                if number + 1 < len(boxes):
                    arrow = maps.place(figure, left, top, width, gap)
                    arrow.set_axis_off()
                    arrow.annotate("", (0.5, 0), (0.5, 1), arrowprops={"arrowstyle": "->", "color": FAINT})
                top += gap
    return figure
