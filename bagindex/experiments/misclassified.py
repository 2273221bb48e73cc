"""Images that a BagNet and another network both get wrong, explained: the paper's Figure 4."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.errors import BagindexError
from bagindex.experiments.against import predictions
from bagindex.experiments.experiment import Outcome, Setting
from bagindex.experiments.indexed import indexed, of_images
from bagindex.experiments.predicted import Predicted
from bagindex.maps import softmax

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bagindex.explanations import Explanation

_SHOWN = 4
"""Images that are explained: as many as the paper's figure has room for."""


def both_wrong(labels: NDArray[np.int64], a: NDArray[np.integer], b: NDArray[np.integer]) -> NDArray[np.int64]:
    """Places of the images that two networks both predict as another class than their label; all arrays [N]."""
    found: NDArray[np.int64] = np.flatnonzero((labels != a) & (labels != b))
    return found


def surest(
    places: NDArray[np.int64], probability: NDArray[np.floating], pairs: Sequence[tuple[int, int]], count: int
) -> list[int]:
    """Some places, the surest first, of which no two have the same pair while there are others.

    Args:
        places: int64 [n], among N images.
        probability: of what is predicted, [N].
        pairs: label and prediction of each of the N images.
        count: how many.
    """
    first: dict[tuple[int, int], int] = {}
    rest: list[int] = []
    for place in places[np.argsort(-probability[places], kind="stable")].tolist():
        if pairs[place] in first:
            rest.append(place)
        else:
            first[pairs[place]] = place
    return [*first.values(), *rest][:count]


def run(setting: Setting) -> Outcome:
    """Find them, and explain the surest.

    Raises:
        QueryError: there is nothing to compare with, or no image has a label.
        BagindexError: see `bagindex.experiments.against.predictions`.
    """
    labelled = setting.labelled()
    own = of_images(indexed(setting, setting.record), labelled.image_ids)
    other = of_images(predictions(setting)[0], labelled.image_ids)
    places = both_wrong(labelled.labels, own.predicted, other.predicted)
    probabilities = _probabilities(own), _probabilities(other)
    pairs = list(zip(labelled.labels.tolist(), own.predicted.tolist(), strict=True))
    rows = _rows(setting, labelled.labels, own, other, places, probabilities)
    chosen = surest(places, probabilities[0], pairs, _SHOWN)
    explanations, remark = _explain(setting, [int(labelled.image_ids[place]) for place in chosen])
    return Outcome(
        experiment="misclassified",
        title=f"Images that {own.name} and {other.name} both get wrong",
        tables={
            "misclassified": pa.Table.from_pylist(rows, schema=_schema()),
            "overlap": _overlap(labelled.labels, own, other),
        },
        figures={"misclassified": _figure(explanations)} if explanations else {},
        beside=(),
        remarks=(
            f"{len(places):,} of {len(labelled):,} images are wrong by both. The surest of each label and "
            "prediction are explained, as `bagindex explain` does it: their label beside what is predicted.",
            *remark,
            f"{other.name}: {other.origin}.",
        ),
    )


def _probabilities(predicted: Predicted) -> NDArray[np.float64]:
    """Of what is predicted, float64 [N]; NaN where logits are not known."""
    if predicted.logits is None:
        return np.full(len(predicted.predicted), np.nan)
    return np.array([softmax(row).max() for row in predicted.logits])


def _explain(setting: Setting, image_ids: Sequence[int]) -> tuple[list[Explanation], tuple[str, ...]]:
    try:
        return [setting.index.explain(each, model=setting.record.name, device=setting.device) for each in image_ids], ()
    except BagindexError as error:
        return [], (f"They cannot be explained: {error}.",)


def _schema() -> pa.Schema:
    return pa.schema(
        [
            ("image_id", pa.int64()),
            ("path", pa.string()),
            ("label", pa.string()),
            ("predicted", pa.string()),
            ("probability", pa.float64()),
            ("network", pa.string()),
            ("network_predicted", pa.string()),
            ("network_probability", pa.float64()),
        ]
    )


def _rows(
    setting: Setting,
    labels: NDArray[np.int64],
    own: Predicted,
    other: Predicted,
    places: NDArray[np.int64],
    probabilities: tuple[NDArray[np.float64], NDArray[np.float64]],
) -> list[dict[str, object]]:
    """A row for each image that both get wrong, those that the BagNet is surest of first."""
    paths = setting.columns(f"SELECT image_id, path FROM images WHERE {setting.chosen}")
    path_of = dict(zip(paths["image_id"].tolist(), paths["path"].tolist(), strict=True))
    names = [each.name for each in setting.classes]

    def known(value: float) -> float | None:
        return value if np.isfinite(value) else None

    return [
        {
            "image_id": (image_id := int(own.image_ids[place])),
            "path": path_of[image_id],
            "label": names[int(labels[place])],
            "predicted": names[int(own.predicted[place])],
            "probability": known(float(probabilities[0][place])),
            "network": other.name,
            "network_predicted": names[int(other.predicted[place])],
            "network_probability": known(float(probabilities[1][place])),
        }
        for place in places[np.argsort(-probabilities[0][places], kind="stable")].tolist()
    ]


def _overlap(labels: NDArray[np.int64], own: Predicted, other: Predicted) -> pa.Table:
    """How many images each gets wrong, both do, both would if they did independently, and both in the same way."""
    a, b = own.predicted != labels, other.predicted != labels
    row = {
        "model": own.name,
        "network": other.name,
        "images": len(labels),
        "model_wrong": int(a.sum()),
        "network_wrong": int(b.sum()),
        "both_wrong": int((a & b).sum()),
        "both_wrong_if_independent": float(a.mean() * b.sum()),
        "same_class": int((a & b & (own.predicted == other.predicted)).sum()),
    }
    return pa.Table.from_pylist([row])


def _figure(explanations: Sequence[Explanation]) -> Figure:
    from bagindex.figures.explain import explain_figure
    from bagindex.figures.style import style

    with style():
        return explain_figure([each.block() for each in explanations])
