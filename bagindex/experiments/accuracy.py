"""Accuracy by the size of patches: the paper's Figure 1B, from the stored predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt
from typing import TYPE_CHECKING

import pyarrow as pa

from bagindex.errors import QueryError
from bagindex.experiments import drawing, paper
from bagindex.experiments.comparing import why_not
from bagindex.experiments.experiment import Beside, Outcome, Setting

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOP = 5
_QUANTILE = 1.959963984540054
"""Of the normal distribution, beyond which on either side 2.5 % lie."""


@dataclass(frozen=True)
class Accuracy:
    """How often a model is right.

    Attributes:
        model: its name.
        receptive_field: pixels of a patch's side.
        images: labelled images.
        top1, top5: in how many of them the label is the predicted class; among the five most likely.
    """

    model: str
    receptive_field: int
    images: int
    top1: int
    top5: int


def wilson(right: float, of: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a share, `right` out of `of` > 0."""
    share, z = right / of, _QUANTILE
    middle = share + z * z / (2 * of)
    half = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    # At the ends the interval is closed, and rounding would take it beyond.
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


def run(setting: Setting) -> Outcome:
    """Count what is right.

    Raises:
        QueryError: no image has a label.
    """
    found = count(setting)
    few = len(setting.classes) <= TOP
    remarks = [f"The index has {len(setting.classes)} classes, so that top-5 is always right."] if few else []
    return Outcome(
        experiment="accuracy",
        title=f"Accuracy on {found[0].images:,} images of {setting.catalog.manifest.source.name}",
        tables={"accuracy": _table(found)},
        figures={"accuracy": _figure(found)},
        beside=tuple(
            Beside(
                f"top-5 accuracy, patches of {each.receptive_field} pixels ({each.model})",
                paper.TOP5.get(each.receptive_field),
                paper.TOP5_AT,
                100 * each.top5 / each.images,
                not (why := why_not(setting, record)),
                why,
                "%",
            )
            for each, record in zip(found, setting.records, strict=True)
        ),
        remarks=tuple(remarks),
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


def _table(found: Sequence[Accuracy]) -> pa.Table:
    rows = []
    for each in found:
        row: dict[str, object] = {
            "model": each.model,
            "receptive_field": each.receptive_field,
            "images": each.images,
        }
        for name, right in (("top1", each.top1), ("top5", each.top5)):
            low, high = wilson(right, each.images)
            row |= {f"{name}_right": right, name: right / each.images, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pa.Table.from_pylist(rows)


def _figure(found: Sequence[Accuracy]) -> Figure:
    sizes = [each.receptive_field for each in found]
    with drawing.plot(
        "patch size (pixels)",
        "accuracy (%)",
    ) as (figure, axes):
        for name, colour, right in (
            ("top-5", drawing.FIRST, [each.top5 for each in found]),
            ("top-1", drawing.SECOND, [each.top1 for each in found]),
        ):
            shares = [100 * n / each.images for n, each in zip(right, found, strict=True)]
            ends = [wilson(n, each.images) for n, each in zip(right, found, strict=True)]
            drawing.points(axes, sizes, shares, [(100 * low, 100 * high) for low, high in ends], colour, name)
        drawing.papers(axes, paper.TOP5, "top-5, the paper's")
        drawing.patch_sizes(axes, [*sizes, *paper.PATCH_SIZES])
        axes.set_ylim(0, 100)
        drawing.legend(axes)
    return figure
