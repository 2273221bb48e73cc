"""Which classes are hard for which network: the paper's Figure 7, from predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.errors import QueryError
from bagindex.experiments import drawing
from bagindex.experiments.accuracy import right
from bagindex.experiments.against import predictions
from bagindex.experiments.correlation import pearson
from bagindex.experiments.experiment import Labelled, Outcome, Setting
from bagindex.experiments.indexed import indexed, of_images
from bagindex.experiments.predicted import Predicted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bagindex_schemas.records import ClassRecord

_TOPS = ("top5", "top1")


@dataclass(frozen=True, eq=False)
class ClassAccuracy:
    """A network's accuracy on each class.

    Attributes:
        name: the network's.
        top1, top5: share of the class's images that are right, float64 [C]; NaN where the class has none, or where five
            classes are not known.
    """

    name: str
    top1: NDArray[np.float64]
    top5: NDArray[np.float64]


def by_class(predicted: Predicted, labels: NDArray[np.int64], classes: int) -> ClassAccuracy:
    """A network's accuracy on each class, from its predictions for images with labels int64 [N]."""
    images = np.bincount(labels, minlength=classes)
    first, five = right(predicted, labels, classes)

    def share(which: NDArray[np.bool_]) -> NDArray[np.float64]:
        with np.errstate(invalid="ignore"):
            return np.bincount(labels, which, classes) / images

    return ClassAccuracy(predicted.name, share(first), np.full(classes, np.nan) if five is None else share(five))


def run(setting: Setting) -> Outcome:
    """Compare all pairs of the chosen models and the networks.

    Raises:
        QueryError: there are not two, or no image has a label.
        BagindexError: see `bagindex.experiments.against.predictions`.
    """
    labelled = setting.labelled()
    own = [indexed(setting, record) for record in setting.records]
    others = predictions(setting) if setting.against or setting.predictions else ()
    every = [of_images(each, labelled.image_ids) for each in (*own, *others)]
    if len(every) < 2:
        raise QueryError(
            "errors are compared between models, and here is one: give --against NAME or NAME=FILE, --predictions "
            "FILE, or add another BagNet to the index"
        )
    found = [by_class(each, labelled.labels, len(setting.classes)) for each in every]
    return Outcome(
        experiment="errors",
        title=f"Accuracy of each class, of {', '.join(each.name for each in every)}, on {len(labelled):,} images",
        tables={
            "errors": _pairs(found),
            "classes": _classes(found, setting.classes, labelled),
        },
        figures={"errors": _figure(found, "top5"), "top1": _figure(found, "top1")},
        beside=(),
        remarks=(
            "Figure 7 is a scatter plot: there is no figure of the paper's to stand beside these.",
            *(f"{each.name}: {each.origin}." for each in others),
        ),
    )


def _pairs(found: Sequence[ClassAccuracy]) -> pa.Table:
    rows = []
    for a, b in combinations(found, 2):
        row: dict[str, object] = {"a": a.name, "b": b.name}
        for top in _TOPS:
            x, y = getattr(a, top), getattr(b, top)
            there = np.isfinite(x) & np.isfinite(y)
            row |= {
                f"{top}_classes": int(there.sum()),
                f"{top}_pearson": _pearson(x[there], y[there]),
                f"{top}_difference": float(np.abs(x[there] - y[there]).mean()) if there.any() else None,
            }
        rows.append(row)
    return pa.Table.from_pylist(rows)


def _pearson(x: NDArray[np.float64], y: NDArray[np.float64]) -> float | None:
    """None where one is as accurate on every class, which correlates with nothing."""
    found = pearson(x, y) if len(x) else np.nan
    return found if np.isfinite(found) else None


def _classes(found: Sequence[ClassAccuracy], classes: Sequence[ClassRecord], labelled: Labelled) -> pa.Table:
    images = np.bincount(labelled.labels, minlength=len(classes))
    rows = []
    for record in classes:
        if not images[record.class_id]:
            continue
        row: dict[str, object] = {
            "class_id": record.class_id,
            "class": record.name,
            "images": int(images[record.class_id]),
        }
        for each in found:
            row |= {f"{top} {each.name}": float(getattr(each, top)[record.class_id]) for top in _TOPS}
        rows.append(row)
    return pa.Table.from_pylist(rows)


def _figure(found: Sequence[ClassAccuracy], top: str) -> Figure:
    """A scatter plot for each pair: a point for each class."""
    title = f"{'top-5' if top == 'top5' else 'top-1'} accuracy of each class (%)"
    with drawing.pairs([each.name for each in found], title) as (figure, panels):
        for (row, col), axes in panels.items():
            x, y = 100 * getattr(found[col], top), 100 * getattr(found[row], top)
            axes.plot((0, 100), (0, 100), color=drawing.PAPERS, linewidth=0.6)
            axes.scatter(x, y, s=9, color=drawing.FIRST, alpha=0.6, linewidths=0)
            axes.set_xlim(-4, 104)
            axes.set_ylim(-4, 104)
            axes.set_aspect("equal")
    return figure
