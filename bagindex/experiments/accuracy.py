"""Accuracy by the size of patches: the paper's Figure 1B, from the stored predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.errors import QueryError
from bagindex.experiments import drawing, paper
from bagindex.experiments.comparing import why_not
from bagindex.experiments.experiment import Beside, Outcome, Setting
from bagindex.intervals import wilson

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bagindex.experiments.predicted import Predicted

TOP = 5


@dataclass(frozen=True)
class Accuracy:
    """How often a model is right.

    Attributes:
        model: its name.
        receptive_field: pixels of a patch's side; None of a network that sees the whole image.
        images: labelled images.
        top1, top5: in how many of them the label is the predicted class; among the five most likely. None where only
            what is predicted is known.
    """

    model: str
    receptive_field: int | None
    images: int
    top1: int
    top5: int | None


def run(setting: Setting) -> Outcome:
    """Count what is right, of the chosen models and of networks to compare with, if there are any.

    Raises:
        QueryError: no image has a label.
        BagindexError: see `bagindex.experiments.against.predictions`.
    """
    own, others = count(setting), _others(setting)
    classes = len(setting.classes)
    chance = min(100.0, 100 * TOP / classes)
    return Outcome(
        experiment="accuracy",
        title=f"Accuracy on {own[0].images:,} images of {setting.catalog.manifest.source.name}",
        tables={"accuracy": _table([*own, *others])},
        figures={"accuracy": _figure(own, others)},
        beside=tuple(
            Beside(
                f"top-5 accuracy, patches of {each.receptive_field} pixels ({each.model})",
                paper.TOP5.get(record.grid.receptive_field),
                paper.TOP5_AT,
                _percent(each.top5, each.images),
                not (why := why_not(setting, record)),
                why,
                "%",
            )
            for each, record in zip(own, setting.records, strict=True)
        ),
        remarks=(f"By chance, top-5 is right in {chance:.3g} % of the images: there are {classes:,} classes.",),
    )


def count(setting: Setting) -> list[Accuracy]:
    """How often each chosen model is right.

    Raises:
        QueryError: no image has a label.
    """
    rows = setting.columns(
        f"""SELECT model, count(*) AS images, count(*) FILTER (correct) AS top1,
            count(*) FILTER (list_contains(top5, label)) AS top5
        FROM predictions WHERE label IS NOT NULL AND {setting.chosen} GROUP BY model"""
    )
    numbers = {
        str(model): (int(images), int(top1), int(top5))
        for model, images, top1, top5 in zip(rows["model"], rows["images"], rows["top1"], rows["top5"], strict=True)
    }
    if not numbers:
        raise QueryError("no image of this index has a label, so none is right: `bagindex relabel` gives them labels")
    return [Accuracy(each.name, each.grid.receptive_field, *numbers[each.name]) for each in setting.records]


def right(
    predicted: Predicted, labels: NDArray[np.int64], classes: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_] | None]:
    """Which images are right by the first class and by the first five, bool [N] each, from what is predicted for images
    with labels int64 [N]; None where five classes are not known.
    """
    top1, known = predicted.predicted == labels, predicted.top5.shape[1] >= min(TOP, classes)
    return top1, (predicted.top5 == labels[:, None]).any(axis=1) if known else None


def _others(setting: Setting) -> list[Accuracy]:
    if not setting.against and not setting.predictions:
        return []
    # They run on torch, which takes seconds to come; the stored predictions do without.
    from bagindex.experiments.against import predictions
    from bagindex.experiments.indexed import of_images

    labelled, found = setting.labelled(), []
    for each in predictions(setting):
        top1, top5 = right(of_images(each, labelled.image_ids), labelled.labels, len(setting.classes))
        found.append(
            Accuracy(each.name, None, len(labelled), int(top1.sum()), None if top5 is None else int(top5.sum()))
        )
    return found


def _percent(right: int | None, of: int) -> float | None:
    return None if right is None else 100 * right / of


def _table(found: Sequence[Accuracy]) -> pa.Table:
    rows = []
    for each in found:
        row: dict[str, object] = {
            "model": each.model,
            "receptive_field": each.receptive_field,
            "images": each.images,
        }
        for name, right in (("top1", each.top1), ("top5", each.top5)):
            low, high = (None, None) if right is None else wilson(right, each.images)
            share = None if right is None else right / each.images
            row |= {f"{name}_right": right, name: share, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pa.Table.from_pylist(rows)


def _figure(own: Sequence[Accuracy], others: Sequence[Accuracy]) -> Figure:
    sizes = [each.receptive_field or 0 for each in own]
    with drawing.plot("patch size (pixels)", "accuracy (%)") as (figure, axes):
        for name, colour, counts in (
            ("top-5", drawing.FIRST, [each.top5 or 0 for each in own]),
            ("top-1", drawing.SECOND, [each.top1 for each in own]),
        ):
            shares = [100 * n / each.images for n, each in zip(counts, own, strict=True)]
            ends = [wilson(n, each.images) for n, each in zip(counts, own, strict=True)]
            drawing.points(axes, sizes, shares, [(100 * low, 100 * high) for low, high in ends], colour, name)
        for each, colour in zip(others, drawing.colours(2 + len(others))[2:], strict=True):
            share = _percent(each.top5, each.images)
            if share is not None:
                drawing.level(axes, share, colour, f"{each.model}, top-5")
        drawing.papers(axes, paper.TOP5, "top-5, the paper's")
        drawing.patch_sizes(axes, [*sizes, *paper.PATCH_SIZES])
        axes.set_ylim(0, 100)
        drawing.legend(axes)
    return figure
