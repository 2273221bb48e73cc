"""How alike a BagNet's logits are to another network's: the paper's Figure 1C."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.errors import QueryError
from bagindex.experiments import drawing, paper
from bagindex.experiments.against import predictions
from bagindex.experiments.comparing import why_not
from bagindex.experiments.experiment import Beside, Outcome, Setting
from bagindex.experiments.indexed import indexed
from bagindex.experiments.predicted import Predicted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bagindex_schemas.records import ModelRecord

_ROWS = 4096
"""Images whose logits are in float64 at a time."""
_ENDS = (5, 95)
"""Per cent of the images whose correlation is lower."""
_POINTS = 500_000
"""Logits that are drawn; of more, evenly spread ones."""


@dataclass(frozen=True, eq=False)
class Correlation:
    """How alike a model's logits are to a network's.

    Attributes:
        record: the model.
        network: the network's name.
        published: whether it has the weights of the paper's time.
        overall: Pearson's correlation over all logits of all images.
        images: of each image's logits, float64 [N]; NaN where one of both has the same logit for all classes.
    """

    record: ModelRecord
    network: str
    published: bool
    overall: float
    images: NDArray[np.float64]

    @property
    def mean(self) -> float:
        """The mean over the images that have one; NaN where none has."""
        there = self.images[np.isfinite(self.images)]
        return float(there.mean()) if len(there) else float("nan")


def pearson(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """Pearson's correlation over all values of two arrays [N, …] of one shape; NaN where one is constant."""
    sums = np.zeros(3)
    means = a.mean(dtype=np.float64), b.mean(dtype=np.float64)
    for start in range(0, len(a), _ROWS):
        x, y = (
            each[start : start + _ROWS].astype(np.float64).ravel() - mean
            for each, mean in zip((a, b), means, strict=True)
        )
        sums += x @ y, x @ x, y @ y
    return _ratio(sums[0], sums[1], sums[2]).item()


def pearson_by_row(a: NDArray[np.floating], b: NDArray[np.floating]) -> NDArray[np.float64]:
    """Pearson's correlation of each row of two arrays [N, C], float64 [N]; NaN where one is constant."""
    found = np.empty(len(a))
    for start in range(0, len(a), _ROWS):
        rows = slice(start, start + _ROWS)
        x, y = (each[rows].astype(np.float64) for each in (a, b))
        x, y = (each - each.mean(axis=1, keepdims=True) for each in (x, y))
        found[rows] = _ratio((x * y).sum(axis=1), (x * x).sum(axis=1), (y * y).sum(axis=1))
    return found


def _ratio(xy: NDArray[np.float64], xx: NDArray[np.float64], yy: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio: NDArray[np.float64] = np.asarray(xy / np.sqrt(xx * yy))
    return ratio.clip(-1, 1)


def run(setting: Setting) -> Outcome:
    """Correlate each chosen model's stored logits with each network's.

    Raises:
        QueryError: there are no logits to compare with.
        BagindexError: see `bagindex.experiments.against.predictions`.
    """
    others = [each for each in predictions(setting) if each.logits is not None]
    if not others:
        raise QueryError("a correlation is of logits: give --predictions a file that has them, or --against a network")
    own = {record.name: indexed(setting, record) for record in setting.records}
    found = [correlate(record, own[record.name], other) for record in setting.records for other in others]
    largest, names = own[setting.record.name], ", ".join(each.name for each in others)
    return Outcome(
        experiment="correlation",
        title=f"Correlation of logits with {names}, on {len(largest.image_ids):,} images",
        tables={"correlation": pa.Table.from_pylist([_row(each) for each in found])},
        figures={
            "correlation": _by_size(found),
            "logits": _scatter(largest, others[0]),
        },
        beside=tuple(line for each in found for line in _beside(setting, each)),
        remarks=(
            "Whether the paper's is over all logits or image by image is not known here: both are measured.",
            *(
                f"In {alike:,} images {each.record.name} or {each.network} has the same logit for all classes, which "
                "correlates with nothing."
                for each in found
                if (alike := int(np.isnan(each.images).sum()))
            ),
            *(f"{each.name}: {each.origin}." for each in others),
        ),
    )


def correlate(record: ModelRecord, own: Predicted, other: Predicted) -> Correlation:
    """Correlate two networks' logits for the same images."""
    if own.logits is None or other.logits is None:
        raise ValueError("predictions without logits")
    return Correlation(
        record=record,
        network=other.name,
        published=other.published,
        overall=pearson(own.logits, other.logits),
        images=pearson_by_row(own.logits, other.logits),
    )


def _row(found: Correlation) -> dict[str, object]:
    known = found.images[np.isfinite(found.images)]
    low, median, high = np.percentile(known, (_ENDS[0], 50, _ENDS[1])) if len(known) else (np.nan,) * 3
    return {
        "model": found.record.name,
        "receptive_field": found.record.grid.receptive_field,
        "network": found.network,
        "images": len(found.images),
        "pearson_all": found.overall,
        "pearson_image_mean": found.mean,
        "pearson_image_median": float(median),
        "pearson_image_5": float(low),
        "pearson_image_95": float(high),
    }


def _beside(setting: Setting, found: Correlation) -> list[Beside]:
    papers, other = None, f"the paper's is with {paper.CORRELATION_WITH}"
    if found.network == paper.CORRELATION_WITH:
        papers = paper.CORRELATION.get(found.record.grid.receptive_field)
        other = "" if found.published else f"other weights of {found.network} than torchvision's first"
    why = why_not(setting, found.record, other)
    return [
        Beside(
            f"correlation with {found.network}, {name} ({found.record.name})",
            papers,
            paper.CORRELATION_AT,
            ours,
            not why,
            why,
        )
        for name, ours in (("all logits", found.overall), ("mean of images", found.mean))
    ]


def _by_size(found: Sequence[Correlation]) -> Figure:
    with drawing.plot("patch size (pixels)", "correlation of logits") as (figure, axes):
        names = list(dict.fromkeys(each.network for each in found))
        for colour, name in zip(drawing.colours(len(names)), names, strict=True):
            mine = [each for each in found if each.network == name]
            sizes = [each.record.grid.receptive_field for each in mine]
            drawing.line(axes, sizes, [each.overall for each in mine], colour, f"{name}, all logits")
            drawing.line(axes, sizes, [each.mean for each in mine], colour, f"{name}, mean of images", dashed=True)
        drawing.papers(axes, paper.CORRELATION, f"{paper.CORRELATION_WITH}, the paper's")
        drawing.patch_sizes(axes, [*(each.record.grid.receptive_field for each in found), *paper.PATCH_SIZES])
        axes.set_ylim(min(0, *(each.overall for each in found), *(each.mean for each in found)), 1)
        drawing.legend(axes)
    return figure


def _scatter(own: Predicted, other: Predicted) -> Figure:
    from matplotlib.colors import LogNorm

    with drawing.plot(f"logits of {other.name}", f"logits of {own.name}") as (figure, axes):
        if own.logits is not None and other.logits is not None:
            step = 1 + own.logits.size // _POINTS
            x, y = other.logits.ravel()[::step], own.logits.ravel()[::step]
            axes.hexbin(x, y, gridsize=60, norm=LogNorm(vmin=0.3), cmap="Greys", mincnt=1, linewidths=0)
    return figure
