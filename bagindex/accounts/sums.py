"""The arithmetic of all accounts: exact sums of stored evidence, and which class they predict. Pure numpy.

A BagNet's logit for a class is the mean of its patches' logits, so what a patch contributes to it is its logit divided
by their number, and what a word contributes is the sum over its patches: no attribution heuristic, but terms of a sum.
Sums are kept undivided, in float64, in which they are exact in any order (see `bagindex.stored.StoredEvidence`); only
what is shown is divided.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bagindex.arrays import to_float32


def exact(evidence: NDArray[np.floating]) -> NDArray[np.float64]:
    """Stored evidence as float64, of the same shape."""
    if evidence.dtype == np.float16:
        return to_float32(np.ascontiguousarray(evidence, np.float16)).astype(np.float64)
    return evidence.astype(np.float64)


def word_sums(values: NDArray[np.float64], words: NDArray[np.int32], count: int) -> NDArray[np.float64]:
    """The sum of each word's values, float64 [count], from values and words of the patches, both of one shape."""
    return np.bincount(words.ravel(), values.ravel(), count).astype(np.float64)


def predicted(sums: NDArray[np.float64]) -> NDArray[np.int64]:
    """The classes with the largest sums, the first of equal ones: int64 [n] from float64 [n, C]."""
    found: NDArray[np.int64] = sums.argmax(axis=-1).astype(np.int64)
    return found


def beats(margin: NDArray[np.float64], class_id: int, other: int) -> NDArray[np.bool_]:
    """Whether a class is predicted rather than another: the argmax rule for two.

    Args:
        margin: its sums minus the other's, float64 of any shape.
        class_id, other: the two; of equal sums the smaller id is predicted.
    """
    won: NDArray[np.bool_] = margin >= 0 if class_id < other else margin > 0
    return won


def share(part: float, whole: float) -> float | None:
    """A part of a sum, of 1; None where the sum is 0."""
    return part / whole if whole else None
