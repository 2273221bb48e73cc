"""A map as a figure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.figures import maps
from bagindex.figures.style import DIVERGING, FAINT, SMALL, new_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bagindex.patch_maps.result import PatchMap, Point

COLOURS = (
    *("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"),
    *("#7f3c8d", "#a5aa29", "#8c564b", "#607d8b"),
)
"""Of the classes that most points speak for; the first six are Okabe and Ito's."""
OTHERS = "#b4b4bb"
_SIDE, _MARGIN = 6.2, 0.08


def palette(points: Sequence[Point]) -> dict[str, str]:
    """A colour for each of the classes that most points speak for; the rest are `OTHERS`."""
    counts = Counter(each.class_ for each in points)
    ranked = sorted(counts, key=lambda name: (-counts[name], name))
    return dict(zip(ranked, COLOURS, strict=False))


def limit_of(points: Sequence[Point]) -> float:
    """The logit at which colours end."""
    return float(maps.colour_limits(np.array([[each.logit for each in points]], np.float32))[0])


def map_figure(found: PatchMap) -> Figure:
    """A map's points, coloured by the class that each speaks most for, or by its evidence for the one asked about."""
    top = _MARGIN + maps.LINE + 0.1
    below = 0.3 if found.asked is not None else maps.LINE * -(-len(palette(found.points)) // 5) + 0.2
    figure = new_figure(_SIDE + 2 * _MARGIN, top + _SIDE + below)
    maps.write(figure, _MARGIN, _MARGIN, found.title, _SIDE, FAINT)
    axes = maps.place(figure, _MARGIN, top, _SIDE, _SIDE)
    places: NDArray[np.floating] = np.array([[each.x, each.y] for each in found.points])
    size = max(3.0, min(30.0, 8000 / len(places)))
    axes.set_aspect("equal", adjustable="datalim")
    if found.asked is not None:
        limit = limit_of(found.points)
        order = np.argsort([abs(each.logit) for each in found.points])  # what says most lies on top
        values = np.array([each.logit for each in found.points])[order]
        axes.scatter(
            places[order, 0],
            places[order, 1],
            s=size,
            c=values,
            cmap=DIVERGING,
            vmin=-limit,
            vmax=limit,
            linewidths=0.2,
            edgecolors=FAINT,
        )
        maps.colour_bar(figure, _MARGIN, top + _SIDE + 0.05, 1.2, limit)
        return figure
    colours = palette(found.points)
    for name in (*colours, None):
        mine = [each.class_ == name if name else each.class_ not in colours for each in found.points]
        if any(mine):
            axes.scatter(
                places[mine, 0],
                places[mine, 1],
                s=size,
                c=colours[name] if name else OTHERS,
                label=name or "others",
                linewidths=0,
            )
    figure.legend(*axes.get_legend_handles_labels(), loc="lower center", ncols=5, frameon=False, fontsize=SMALL)
    return figure
