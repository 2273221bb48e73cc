"""Evidence clipped and binarised (the paper's appendix A.1): is it the amount of evidence that counts, or that there is
some? From stored evidence alone.

With *clipped* evidence an image's score for a class is the mean over its patches of max(logit, t): what speaks against
the class does not count beyond t. With *binarised* evidence it is the share of its patches whose logit is above t.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.accounts.sums import exact
from bagindex.experiments import drawing, paper
from bagindex.experiments.accuracy import TOP
from bagindex.experiments.comparing import why_not
from bagindex.experiments.experiment import Beside, Labelled, Outcome, Setting
from bagindex.experiments.ranks import Ranks
from bagindex.intervals import wilson
from bagindex.plan import spread

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bagindex.stored import StoredEvidence
    from bagindex_schemas.records import ModelRecord

KINDS = ("clipped", "binarised")
THRESHOLDS = 33
_ENDS = (0.5, 99.9)
"""Per cent of all evidence below which the lowest and the highest threshold are."""
_SAMPLE = 64
"""Classes, and images, whose evidence says where these are."""
_IMAGES = 256
"""Worked on at a time, so that their evidence for a class stays in the processor's caches."""
_WHERE = "A.1, Fig. A.4"


@dataclass(frozen=True, eq=False)
class Thresholded:
    """A model's accuracy by threshold.

    Attributes:
        model: its name.
        thresholds: float64 [T]; the first is −∞, of which clipped evidence is the evidence as it is.
        images: how many labelled images.
        top1, top5: images that are right, float64 [2, T]: clipped, binarised. Ties count in part; see `ranks`.
        tied: images in which another class has the label's score, int64 [2, T].
    """

    model: str
    thresholds: NDArray[np.float64]
    images: int
    top1: NDArray[np.float64]
    top5: NDArray[np.float64]
    tied: NDArray[np.int64]

    def best(self, kind: int) -> int:
        """Which of the finite thresholds has the highest top-5 accuracy, the first of equal ones."""
        return 1 + int(self.top5[kind, 1:].argmax())


def scores(evidence: NDArray[np.float16], thresholds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Sums of clipped evidence, and counts of what is above the threshold: float64 [2, T, N].

    Sums are exact where thresholds are float16 numbers, as evidence is, so that equal ones are seen to be equal.

    Args:
        evidence: of N images' patches for a class, [N, P].
        thresholds: [T], ascending; −∞ leaves the evidence as it is, and all of it is above.
    """
    steps, found = len(thresholds) + 1, np.empty((len(KINDS), len(thresholds), len(evidence)))
    levels = _levels(thresholds)
    for start in range(0, len(evidence), _IMAGES):
        part = np.ascontiguousarray(evidence[start : start + _IMAGES])
        cells = (levels[part.view(np.uint16)] + steps * np.arange(len(part))[:, None]).ravel()
        counts = np.bincount(cells, minlength=steps * len(part)).reshape(-1, steps)
        sums = np.bincount(cells, exact(part).ravel(), steps * len(part)).reshape(-1, steps)
        above, sum_above = (each[:, :0:-1].cumsum(axis=1)[:, ::-1].T for each in (counts, sums))
        below = part.shape[1] - above
        clipped = np.where(below > 0, thresholds[:, None], 0) * below
        found[:, :, start : start + len(part)] = sum_above + clipped, above
    return found


def _levels(thresholds: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many of some thresholds each float16 number is above, by its bits, int64 [65536]: there are no others, and to
    look it up is many times faster than to compare.
    """
    numbers = exact(np.arange(2**16, dtype=np.uint16).view(np.float16))
    return np.searchsorted(thresholds, numbers, side="left").astype(np.int64)


def run(setting: Setting) -> Outcome:
    """Threshold each chosen model's evidence.

    Raises:
        NotKeptError: the index keeps no evidence of one.
        QueryError: no image has a label.
    """
    labelled = setting.labelled()
    found = [_threshold(setting, record, labelled) for record in setting.records]
    tables = [_table(each) for each in found]
    return Outcome(
        experiment="thresholding",
        title=f"Evidence clipped and binarised, on {len(labelled):,} images of {setting.catalog.manifest.source.name}",
        tables={"thresholding": pa.concat_tables(tables)},
        figures={"thresholding": _figure(found)},
        beside=tuple(
            each
            for result, record in zip(found, setting.records, strict=True)
            for each in _beside(result, record, why_not(setting, record))
        ),
        remarks=(
            "Where other classes have the label's score, an image counts in part: by the share of their orders in "
            "which the label is among the first.",
        ),
    )


def by_threshold(
    setting: Setting, evidence: StoredEvidence, labelled: Labelled, thresholds: NDArray[np.float64]
) -> Ranks:
    """The ranks of the labels, [2, T, N], by thresholded evidence. All evidence is read twice at most, a class at a
    time.
    """
    places, classes = evidence.places(labelled.image_ids), len(setting.classes)
    own = np.empty((len(KINDS), len(thresholds), len(labelled)))
    for class_id in np.unique(labelled.labels).tolist():
        mine = labelled.labels == class_id
        own[:, :, mine] = scores(evidence.of_class(class_id)[places[mine]], thresholds)
    ranks = Ranks(own, labelled.labels)
    for class_id in range(classes):
        ranks.add(class_id, scores(evidence.of_class(class_id)[places], thresholds))
        setting.progress(f"{evidence.record.name}: thresholding evidence", class_id + 1, classes)
    return ranks


def choose_thresholds(evidence: StoredEvidence, classes: int) -> NDArray[np.float64]:
    """−∞, and float16 numbers at equal distances over what evidence there is, zero among them: float64 [T]."""
    images = spread(len(evidence.image_ids), _SAMPLE)
    sample = [evidence.of_image(place, list(spread(classes, _SAMPLE))) for place in images]
    low, high = np.percentile(np.stack(sample).astype(np.float32), _ENDS)
    rounded = np.linspace(low, high, THRESHOLDS).astype(np.float16)
    return np.concatenate([[-np.inf], np.unique([*rounded, np.float16(0)]).astype(np.float64)])


def _threshold(setting: Setting, record: ModelRecord, labelled: Labelled) -> Thresholded:
    evidence = setting.evidence(record)
    thresholds = choose_thresholds(evidence, len(setting.classes))
    ranks = by_threshold(setting, evidence, labelled, thresholds)
    return Thresholded(
        model=record.name,
        thresholds=thresholds,
        images=len(labelled),
        top1=ranks.right(1).sum(axis=-1),
        top5=ranks.right(TOP).sum(axis=-1),
        tied=(ranks.tied > 0).sum(axis=-1),
    )


def _table(found: Thresholded) -> pa.Table:
    rows = []
    for kind, name in enumerate(KINDS):
        # Of binarised evidence at −∞ all is 1, and nothing to be told.
        for place in range(kind, len(found.thresholds)):
            threshold, right = float(found.thresholds[place]), float(found.top5[kind, place])
            low, high = wilson(right, found.images)
            rows.append(
                {
                    "model": found.model,
                    "kind": name,
                    "threshold": threshold if np.isfinite(threshold) else None,
                    "images": found.images,
                    "top1": float(found.top1[kind, place]) / found.images,
                    "top5": right / found.images,
                    "top5_low": low,
                    "top5_high": high,
                    "tied_images": int(found.tied[kind, place]),
                }
            )
    return pa.Table.from_pylist(rows)


def _beside(found: Thresholded, record: ModelRecord, why: str) -> list[Beside]:
    size = record.grid.receptive_field
    rows = [
        Beside(
            f"top-5, evidence as it is ({found.model})",
            paper.TOP5.get(size),
            paper.TOP5_AT,
            _as_it_is(found),
            not why,
            why,
            "%",
        )
    ]
    for kind, name in enumerate(KINDS):
        place = found.best(kind)
        at = f"{found.thresholds[place]:.3g}".replace("-", "−")
        share = 100 * float(found.top5[kind, place]) / found.images
        rows.append(Beside(f"best top-5, {name} at {at} ({found.model})", None, _WHERE, share, not why, why, "%"))
    return rows


def _as_it_is(found: Thresholded) -> float:
    return 100 * float(found.top5[0, 0]) / found.images


def _figure(found: list[Thresholded]) -> Figure:
    with drawing.panels(len(KINDS), "threshold t", "top-5 accuracy (%)") as (figure, all_axes):
        for kind, axes in enumerate(all_axes):
            axes.set_title(("clipped below t", "binarised at t")[kind])
            for colour, each in zip(drawing.colours(len(found)), found, strict=True):
                x, y = each.thresholds[1:], 100 * each.top5[kind, 1:] / each.images
                ends = np.array([wilson(right, each.images) for right in each.top5[kind, 1:].tolist()])
                axes.fill_between(x, 100 * ends[:, 0], 100 * ends[:, 1], color=colour, alpha=0.15, linewidth=0)
                axes.plot(x, y, color=colour, linewidth=1.2, label=each.model)
                # One line in the legend says it of all models.
                name = None if each is not found[0] else "as it is"
                axes.axhline(_as_it_is(each), color=colour, linewidth=0.8, linestyle=drawing.DASHES, label=name)
            drawing.legend(axes)
    return figure
