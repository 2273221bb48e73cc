"""How near two features are: what an index for nearest neighbours compares, and what the answers are ranked by.

Answers are ranked by numbers computed in float64 from the stored float16 features, equal ones by patch_id, so that
every path to an answer ranks alike.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from bagindex.arrays import to_float32
from bagindex_schemas.derived import Metric


def prepare(features: NDArray[np.float32], metric: Metric) -> NDArray[np.float32]:
    """Features as FAISS takes them, float32 [n, D], in place: by the cosine, they are scaled to length 1, so that the
    order of distances is that of cosines. A feature of zeros stays.
    """
    if metric == "cosine":
        norms = np.sqrt(np.einsum("ij,ij->i", features, features))
        features /= np.where(norms > 0, norms, 1)[:, None]
    return features


def compare(features: NDArray[np.float16], query: NDArray[np.float16]) -> tuple[NDArray[np.float64], ...]:
    """Cosines and Euclidean distances of n features, float16 [n, D], to one, float16 [D]; float64 [n] each.

    The cosine with a feature of zeros is 0.
    """
    these, one = to_float32(features).astype(np.float64), to_float32(query).astype(np.float64)
    lengths = np.sqrt((these**2).sum(axis=1) * (one**2).sum())
    cosines = (these @ one) / np.where(lengths > 0, lengths, 1)
    return cosines.clip(-1, 1), np.sqrt(((these - one) ** 2).sum(axis=1))


def ranked(
    patch_ids: NDArray[np.int64], features: NDArray[np.float16], query: NDArray[np.float16], metric: Metric
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.float64]]:
    """Patches from the nearest on: their ids, cosines and distances, [n] each."""
    cosines, distances = compare(features, query)
    order = np.lexsort((patch_ids, -cosines if metric == "cosine" else distances))
    return patch_ids[order], cosines[order], distances[order]
