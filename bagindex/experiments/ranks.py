"""Where the label stands among all classes, and accuracy from it. Pure numpy.

Of classes with the same score as the label, none comes first by right: whatever their order, right is what share of the
orders makes it so. Binarised evidence has such ties in most images; sorted by class id, they would decide the accuracy.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


class Ranks:
    """Counts the classes that come before the label, and those beside it, one class at a time, so that the scores of
    all classes need not be there at once.

    Args:
        scores: the label's score, float64 [..., N].
        labels: the label of each of N images, int64 [N].
    """

    def __init__(self, scores: NDArray[np.float64], labels: NDArray[np.int64]) -> None:
        self._scores = scores
        self._labels = labels
        self.before = np.zeros(scores.shape, np.int32)
        """Classes with a higher score than the label, int32 [..., N]."""
        self.tied = np.zeros(scores.shape, np.int32)
        """Other classes with the same score, int32 [..., N]."""

    def add(self, class_id: int, scores: NDArray[np.float64]) -> None:
        """Count a class, by its scores, float64 [..., N]."""
        self.before += scores > self._scores
        self.tied += (scores == self._scores) & (self._labels != class_id)

    def right(self, k: int) -> NDArray[np.float64]:
        """How sure it is, 0 to 1, that the label is among the first k classes, float64 [..., N]."""
        return ((k - self.before) / (self.tied + 1)).clip(0, 1)


def ranks_of(scores: NDArray[np.floating], labels: NDArray[np.int64]) -> Ranks:
    """The ranks of labels int64 [N] among scores [N, C]."""
    found = Ranks(scores[np.arange(len(labels)), labels].astype(np.float64), labels)
    for class_id in range(scores.shape[1]):
        found.add(class_id, scores[:, class_id].astype(np.float64))
    return found
