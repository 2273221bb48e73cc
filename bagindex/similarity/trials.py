"""How many of the nearest patches an index finds, tried on patches that it was not trained on."""

from __future__ import annotations

import time
from threading import Lock

import numpy as np
from numpy.typing import NDArray

from bagindex.similarity.ann import Neighbours
from bagindex_schemas.derived import Probing

NEAREST = 10
"""Of a patch, so many of its nearest are looked for."""
_RECALL = 0.998
"""What is aimed at, on the queries; on others it may come out a little lower."""


class Truth:
    """The exactly nearest patches of some patches, other than themselves, found as blocks of features pass by."""

    def __init__(self, ids: NDArray[np.int64], queries: NDArray[np.float32]) -> None:
        self._own = ids
        self._queries = queries
        self._lock = Lock()
        self._near = np.full((len(ids), NEAREST), -np.inf, np.float32)
        self.ids = np.full((len(ids), NEAREST), -1, np.int64)

    def look(self, ids: NDArray[np.int64], block: NDArray[np.float32]) -> None:
        """Look through a block; several threads may."""
        # -|x - q|² is 2xq - |x|² and the same |q|² for all.
        near = 2 * (self._queries @ block.T) - np.einsum("ij,ij->i", block, block)
        near[ids == self._own[:, None]] = -np.inf
        with self._lock:
            least = self._near.min(axis=1, keepdims=True)
            for i in np.flatnonzero((near > least).any(axis=1)):
                values = np.concatenate([self._near[i], near[i]])
                best = np.argpartition(-values, NEAREST - 1)[:NEAREST]
                self.ids[i] = np.concatenate([self.ids[i], ids])[best]
                self._near[i] = values[best]

    def recall(self, query: int, found: NDArray[np.int64]) -> float:
        """Share of a query's nearest that are among some patches."""
        truth = self.ids[query][self.ids[query] >= 0]
        return float(np.isin(truth, found).mean()) if len(truth) else 1.0

    def without_own(self, query: int, found: NDArray[np.int64]) -> NDArray[np.int64]:
        others: NDArray[np.int64] = found[found != self._own[query]]
        return others


def tried(index: Neighbours, queries: NDArray[np.float32], truth: Truth, most: int) -> tuple[Probing, ...]:
    """Look farther until enough is found: with more lists first, then with more candidates."""
    trials: list[Probing] = []
    probes = [count for count in (8, 16, 32, 64, 128, 256) if count < index.lists] + [index.lists]
    for probe in probes:
        found, times = [], []
        for query in queries:
            started = time.perf_counter()
            found.append(index.search(query, most + 1, probe))
            times.append(time.perf_counter() - started)
        own = [truth.without_own(i, each) for i, each in enumerate(found)]
        wanted = [count for count in (20, 40, 100, 200) if count < most] + [most]
        measured = [
            Probing(
                probes=probe,
                candidates=candidates,
                recall=round(float(np.mean([truth.recall(i, each[:candidates]) for i, each in enumerate(own)])), 4),
                milliseconds=round(1000 * float(np.median(times)), 3),
            )
            for candidates in wanted
        ]
        enough = next((each for each in measured if each.recall >= _RECALL), None)
        trials.append(enough or measured[-1])
        if enough:
            break
    if not enough:
        trials.append(max(trials, key=lambda each: each.recall))
    return tuple(trials)
