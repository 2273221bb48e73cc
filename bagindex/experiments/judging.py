"""What is right of logits that were just computed; of stored predictions, SQL says it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bagindex.experiments.experiment import Setting


def labels_of(setting: Setting, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """The label of each image, −1 where it has none, int64 [N]."""
    rows = setting.columns("SELECT image_id, coalesce(label, -1) AS label FROM images ORDER BY image_id")
    found: NDArray[np.int64] = np.asarray(rows["label"], np.int64)[np.searchsorted(rows["image_id"], image_ids)]
    return found


def right(logits: NDArray[np.float32], labels: NDArray[np.int64], among: int) -> float | None:
    """The share of labelled images whose label is among the first classes; None where no image has a label.

    Args:
        logits: float32 [N, C].
        labels: int64 [N], −1 where there is none.
        among: how many classes count.
    """
    known = labels >= 0
    if not known.any():
        return None
    first = np.argsort(-logits[known], axis=1, kind="stable")[:, :among]
    return float((first == labels[known, None]).any(axis=1).mean())
