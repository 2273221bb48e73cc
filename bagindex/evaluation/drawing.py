"""What the benchmark found, as figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.evaluation.results import EVIDENCE, SHARES, Evaluation, Scored
from bagindex.experiments import drawing
from bagindex.figures.maps import colour_limits, number, overlay
from bagindex.figures.style import FAINT, INK, SMALL, new_figure, style
from bagindex.intervals import bootstrap
from bagindex.plan import spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EXAMPLES = 6
_PICTURE = 1.0
"""Inches of a picture's side."""
_BAR = 0.2
_MARKS = "os^vDP*X<>"


def ranking(found: Evaluation) -> Figure:
    """Rank correlations in cells and in boxes with their intervals, the best method at the top, what is known above."""
    best = sorted(found.methods, key=lambda each: -float(each.values["rank"].mean()))
    rows = [*found.known, *best]
    names = 1.9
    height = 0.75 + _BAR * len(rows)
    with style():
        figure = new_figure(5.2, height)
        axes = figure.add_axes((names / 5.2, 0.45 / height, 1 - (names + 0.15) / 5.2, 1 - 0.75 / height))
        drawing.frame(axes)
        for name, colour, marker in (("rank", drawing.FIRST, "o"), ("box_rank", drawing.SECOND, "s")):
            means = [float(each.values[name].mean()) for each in rows]
            low, high = np.array([bootstrap(each.values[name], found.seed) for each in rows]).T
            ends = np.abs(np.stack([means - low, high - means]))
            label = "in cells" if name == "rank" else "in patches' boxes"
            y = np.arange(len(rows)) + (-0.13 if name == "rank" else 0.13)
            axes.errorbar(
                means, y, xerr=ends, color=colour, marker=marker, markersize=3.5, linestyle="", capsize=2, label=label
            )
        axes.axvline(0, color=FAINT, linewidth=0.8)
        axes.axhline(len(found.known) - 0.5, color=FAINT, linewidth=0.6, linestyle=drawing.DASHES)
        axes.set_yticks(range(len(rows)), [each.name for each in rows])
        axes.tick_params(axis="y", labelsize=SMALL, labelcolor=INK)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.set_xlabel("Spearman's rank correlation with the true contributions")
        figure.legend(frameon=False, fontsize=SMALL, ncols=2, loc="upper right", bbox_to_anchor=(0.99, 1.0))
    return figure


def curves(found: Evaluation) -> Figure:
    """How many of the truly strongest cells are among a method's strongest, by how many count."""
    shown = [each for each in found.scored if each.name != EVIDENCE]
    right, width, height = 1.75, 3.4, max(2.7, 0.8 + 0.14 * len(shown))
    with style():
        figure = new_figure(width + right, height)
        axes = figure.add_axes(
            (0.55 / (width + right), 0.5 / height, (width - 0.6) / (width + right), 1 - 0.65 / height)
        )
        drawing.frame(axes)
        x = [100 * share for share in SHARES]
        colours = iter(drawing.colours(len(found.methods)))
        for place, each in enumerate(shown):
            known = each.method is None
            axes.plot(
                x,
                100 * each.curve.mean(axis=0),
                color=FAINT if known else next(colours),
                marker=_MARKS[place % len(_MARKS)],
                markersize=3,
                linewidth=1,
                linestyle=drawing.DASHES if known else "solid",
                label=each.name,
            )
        axes.plot(x, x, color=INK, linewidth=0.8, linestyle=(0, (1, 2)), label="chance")
        axes.set_xlabel("strongest cells that count (%)")
        axes.set_ylabel("of them found (%)")
        axes.set_ylim(0, 100)
        axes.legend(frameon=False, fontsize=SMALL, loc="upper left", bbox_to_anchor=(1.01, 1.03), borderaxespad=0)
    return figure


def examples(
    found: Evaluation, pixels: Mapping[int, NDArray[np.uint8]], names: Mapping[int, str], stride: int
) -> Figure:
    """Some images, what is true of them, and what the methods say, in cells of so many pixels.

    Args:
        found: the evaluation.
        pixels: inputs of the images that `example_images` names, uint8 [height, width, RGB].
        names: of classes.
        stride: pixels of a cell's side.
    """
    shown = [found[EVIDENCE], *found.methods]
    rows = []
    for place in example_places(found):
        image_id, class_id = int(found.image_ids[place]), int(found.classes[place])
        picture = pixels[image_id]
        row = [drawing.Captioned(picture, (names[class_id], f"image {image_id}"))]
        for each in shown:
            row.append(drawing.Captioned(_map(each, place, picture, stride), _said(each, place)))
        rows.append(row)
    heads = ["image", *(each.name for each in shown)]
    return drawing.gallery(heads, rows, width=_PICTURE * len(heads))


def example_places(found: Evaluation) -> list[int]:
    """Places of the images that `examples` shows: a few, evenly spread."""
    return list(spread(len(found.image_ids), _EXAMPLES))


def _map(each: Scored, place: int, picture: NDArray[np.uint8], stride: int) -> NDArray[np.uint8]:
    values = each.cells[place].astype(np.float32)
    (limit,) = colour_limits(values[None])
    return overlay(values, float(limit), picture.shape[:2], (0, 0), stride, picture, "edges")


def _said(each: Scored, place: int) -> tuple[str, ...]:
    return () if each.method is None else (f"ρ {number(float(each.values['rank'][place]))}",)
