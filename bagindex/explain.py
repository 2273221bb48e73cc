"""Two classes in one image: which patches speak for each, and how few of them decide (the paper's Figure 4)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from bagindex.errors import QueryError, UnknownClassError
from bagindex.explanations import ExplainingPatch, Explanation
from bagindex.geometry import patch_box, to_source
from bagindex.heatmaps import how_drawn
from bagindex.maps import ImageEvidence, softmax, strongest
from bagindex_schemas.records import ClassRecord

MOST_PATCHES = 25
"""Shown for each class: more cannot be told apart in a picture."""


def two_classes(
    find: Callable[[str | int], ClassRecord], which: str | Sequence[str | int]
) -> tuple[ClassRecord, ClassRecord]:
    """The two classes that are meant by a pair, or by a text with a comma between their names.

    Raises:
        QueryError: they are not two, or the text can mean several pairs: names may have commas too.
        UnknownClassError: one of them is none.
    """
    if not isinstance(which, str):
        if len(which) != 2:
            raise QueryError(f"an explanation compares two classes, not {len(which)}")
        return find(which[0]), find(which[1])
    parts = which.split(",")
    pairs = [(",".join(parts[:cut]).strip(), ",".join(parts[cut:]).strip()) for cut in range(1, len(parts))]
    if not pairs:
        raise QueryError("--vs takes two classes with a comma between, as in --vs dress,skirt")
    found = []
    for first, second in pairs:
        try:
            found.append((find(first), find(second)))
        except UnknownClassError:
            if len(pairs) == 1:
                raise
    if len(found) != 1:
        raise QueryError(f"--vs {which!r} names {len(found) or 'no'} pairs of classes: give their ids or wnids")
    return found[0]


def default_pair(evidence: ImageEvidence) -> tuple[ClassRecord, ClassRecord]:
    """The two classes that an explanation is about by default: the label and the predicted class; where these are one,
    or there is no label, the predicted class and the one that comes next.

    Raises:
        QueryError: the model has one class.
    """
    predicted, label = evidence.predicted, evidence.subject.label
    if label is not None and label != predicted:
        return label, predicted
    order = np.argsort(-evidence.logits, kind="stable")
    if order.size < 2:
        raise QueryError("an explanation compares two classes, and this model has one: ask for a heatmap")
    return predicted, evidence.classes[int(order[1])]


def make_explanation(
    evidence: ImageEvidence,
    classes: tuple[ClassRecord, ClassRecord] | None = None,
    *,
    patches: int = 3,
    overlap: bool = False,
    beneath: str | None = None,
    alpha: float = 1.0,
) -> Explanation:
    """Compare two classes in an image.

    Args:
        evidence: of the image.
        classes: by default those of `default_pair`.
        patches: how many to show for each class, and of those that decide.
        overlap: whether these may share pixels.
        beneath, alpha: see `bagindex.heatmaps.how_drawn`.

    Raises:
        QueryError: the classes are the same, or evidence must be computed and the index keeps no pixels.
        SettingsError: see `bagindex.heatmaps.how_drawn`.
    """
    if not 1 <= patches <= MOST_PATCHES:
        raise QueryError(f"an explanation shows 1 to {MOST_PATCHES} patches for each class")
    first, second = classes or default_pair(evidence)
    if first == second:
        raise QueryError(f"an explanation compares two classes, and both are {first.name!r}")
    ids = [first.class_id, second.class_id]
    values, grid, subject = evidence.patches(ids), evidence.record.grid, evidence.subject
    means = values.mean(axis=(1, 2), dtype=np.float64)
    winner, loser = (0, 1) if means[0] >= means[1] else (1, 0)
    difference = (values[winner] - values[loser]).astype(np.float64)
    margin = float(difference.mean())

    def chosen(speaks_for: str, ranked: NDArray[np.floating]) -> tuple[ExplainingPatch, ...]:
        found = []
        for rank, (row, col) in enumerate(strongest(ranked, grid, patches, overlap), start=1):
            box = patch_box(grid, row, col)
            cell = row * grid.cols + col
            found.append(
                ExplainingPatch(
                    speaks_for=speaks_for,
                    rank=rank,
                    row=row,
                    col=col,
                    patch_id=subject.patch_id(grid, cell),
                    box=box,
                    source_box=to_source(box, subject.placement),
                    logits=(float(values[0, row, col]), float(values[1, row, col])),
                    share=float(difference[row, col] / grid.patches / margin) if margin else None,
                )
            )
        return tuple(found)

    return Explanation(
        image=subject,
        model=evidence.record.name,
        grid=grid,
        predicted=evidence.predicted,
        classes=(first, second),
        values=values,
        logits=(float(evidence.logits[ids[0]]), float(evidence.logits[ids[1]])),
        probabilities=tuple(float(each) for each in softmax(evidence.logits)[ids]),  # type: ignore[arg-type]
        winner=winner,
        loser=loser,
        margin=margin,
        half=patches_for(difference, 0.5),
        whole=patches_for(difference, 1.0),
        for_winner=float(difference.clip(min=0).mean()),
        for_loser=float((-difference).clip(min=0).mean()),
        speaking=(chosen(first.name, values[0]), chosen(second.name, values[1])),
        deciding=chosen(f"{(first, second)[winner].name} − {(first, second)[loser].name}", difference),
        pixels=evidence.pixels,
        shape=evidence.shape,
        beneath=how_drawn(beneath, alpha, evidence.pixels),
        alpha=alpha,
    )


def patches_for(difference: NDArray[np.float64], part: float) -> int | None:
    """How many values, largest first, add up to `part` of the sum of all; None where that is not above zero."""
    total = float(difference.sum())
    if total <= 0:
        return None
    sums = np.cumsum(np.sort(difference, axis=None)[::-1])
    # The sum of all, in another order, may be a little larger than the total.
    return int(np.argmax(sums >= part * total * (1 - 1e-12))) + 1
