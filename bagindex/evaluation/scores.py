"""How well attributions agree with the truth. Pure; each score is of an image, and higher is better.

What is compared are n numbers of each image, in cells or boxes: see `bagindex.evaluation.truth`. Ties are fair: of
equal numbers each has the mean rank, and the same part in the strongest.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bagindex.experiments.correlation import pearson_by_row

Values = NDArray[np.floating]
"""Numbers of N images, [N, n]."""


def rank_correlation(found: Values, truth: Values) -> NDArray[np.float64]:
    """Spearman's correlation of each image's numbers, from −1 to 1, float64 [N]. Chance is 0, and so much have
    attributions that are all equal, for they know nothing.
    """
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    correlated = pearson_by_row(rankdata(found, axis=1), rankdata(truth, axis=1))
    return np.nan_to_num(correlated, nan=0.0)


def strongest(values: Values, k: int) -> NDArray[np.float64]:
    """Whether each number is among the k largest of its image, 0 or 1, and a share where others are equal to the k-th,
    float64 [N, n]: they sum up to k.
    """
    least = -np.partition(-values, k - 1, axis=1)[:, k - 1 : k]
    above, equal = values > least, values == least
    room = k - above.sum(axis=1, keepdims=True)
    shared: NDArray[np.float64] = above + equal * (room / equal.sum(axis=1, keepdims=True))
    return shared


def overlap(found: Values, truth: Values, k: int) -> NDArray[np.float64]:
    """The share of the truth's k strongest that is among the k strongest, from 0 to 1, float64 [N]. Chance is k / n."""
    shared: NDArray[np.float64] = (strongest(found, k) * strongest(truth, k)).sum(axis=1) / k
    return shared


def pointing(found: Values, truth: Values, k: int) -> NDArray[np.float64]:
    """Whether the strongest is among the truth's k strongest, 0 or 1, float64 [N]. Chance is k / n."""
    hit: NDArray[np.float64] = (strongest(found, 1) * strongest(truth, k)).sum(axis=1)
    return hit


def mass(found: Values, truth: Values, k: int) -> NDArray[np.float64]:
    """The share of what speaks for the class that lies in the truth's k strongest, from 0 to 1, float64 [N]. Where
    nothing speaks for it, and of equal numbers, it is chance, k / n; the truth's own is less than 1.
    """
    positive = np.clip(found.astype(np.float64), 0, None)
    total = positive.sum(axis=1)
    inside = (positive * strongest(truth, k)).sum(axis=1)
    chance = k / found.shape[1]
    share: NDArray[np.float64] = np.divide(inside, total, out=np.full(len(found), chance), where=total > 0)
    return share
