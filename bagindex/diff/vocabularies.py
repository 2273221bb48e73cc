"""How alike the visual words of two models are, where both were made of the same features."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagindex import derived
from bagindex.diff.matching import Side
from bagindex.errors import BagindexError
from bagindex.words.vocabulary import Vocabulary
from bagindex_schemas.derived import WordsRecord

_BLOCK = 4096
"""Images whose words are looked at a time."""


@dataclass(frozen=True)
class WordsCompared:
    """Visual words of two models.

    Attributes:
        why: why they cannot be compared; nothing where they can.
        count_a, count_b: how many words there are.
        same: the share of patches whose words are each other's counterparts; None where they cannot be compared. Words
            are paired so that this is as large as it can be.
    """

    why: str
    count_a: int | None = None
    count_b: int | None = None
    same: float | None = None

    def __str__(self) -> str:
        """For people."""
        if self.why:
            return f"Visual words are not compared: {self.why}."
        share = 0.0 if self.same is None else 100 * self.same
        return f"Visual words, {self.count_a} and {self.count_b}: {share:.1f} % of the patches are the same word."


def compare_words(a: Side, b: Side) -> WordsCompared:
    """Compare the words of two models."""
    made = []
    for side in (a, b):
        found = derived.sound(side.catalog.directory, side.record.name, derived.WORDS, WordsRecord)
        if found is None or side.record.name not in side.catalog.words:
            return WordsCompared(f"{side.name} has none of all its images")
        made.append(found[1])
    if made[0].features_sha256 != made[1].features_sha256:
        return WordsCompared("they are made of other features")
    try:
        one, other = (side.index._words_of(side.record) for side in (a, b))
    except BagindexError as error:
        return WordsCompared(str(error))
    return WordsCompared("", one.count, other.count, counterparts(one, other))


def counterparts(one: Vocabulary, other: Vocabulary) -> float:
    """The share of patches whose words are counterparts, each word paired with one of the other's at most."""
    from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]

    table = contingency(one.of_patches, other.of_patches, one.count, other.count)
    rows, cols = linear_sum_assignment(table, maximize=True)
    return float(table[rows, cols].sum() / max(1, table.sum()))


def contingency(a: NDArray[np.int32], b: NDArray[np.int32], count_a: int, count_b: int) -> NDArray[np.int64]:
    """How many patches are each word of one and each word of the other, int64 [count_a, count_b], from the words of
    the same patches, [N, P] each.
    """
    table = np.zeros(count_a * count_b, np.int64)
    for start in range(0, len(a), _BLOCK):
        some = slice(start, start + _BLOCK)
        table += np.bincount((a[some].astype(np.int64) * count_b + b[some]).ravel(), minlength=len(table))
    return table.reshape(count_a, count_b)
