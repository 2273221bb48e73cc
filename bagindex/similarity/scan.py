"""Nearest patches without an index: every feature that may be in the answer is looked at."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numpy.typing import NDArray

from bagindex.arrays import to_float32
from bagindex.geometry import patch_ids
from bagindex.stored import StoredFeatures
from bagindex_schemas.derived import Metric

_ROWS = 256
"""Features widened at a time: they fit into a core's cache."""
_SLACK = 4e-6
"""More than the rounding of float32 in a cosine, or in a squared distance relative to the squared lengths."""
_IMAGES = 64
"""Images after which progress is told."""


class Scan:
    """How near all patches of some images are to a query, in float32.

    Args:
        features: all features.
        places: of the images to look at, ascending.
        query: float16 [D].
        metric: what is nearest.
        progress: hears how many of how many images are done.
    """

    def __init__(
        self,
        features: StoredFeatures,
        places: Sequence[int] | NDArray[np.int64],
        query: NDArray[np.float16],
        metric: Metric,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        chosen = np.asarray(places, np.int64)
        self._ids = patch_ids(features.record.grid, features.image_ids[chosen])
        self._nearness = np.empty(len(self._ids), np.float32)
        wide = query.astype(np.float32)
        size = features.patches
        length = float(np.sqrt((wide.astype(np.float64) ** 2).sum()))
        largest = 0.0

        def look(start: int) -> float:
            scratch = np.empty((_ROWS, len(wide)), np.float32)
            most = 0.0
            for i in range(start, min(start + _IMAGES, len(chosen))):
                found = self._nearness[i * size : (i + 1) * size]
                stored = features.of_image(int(chosen[i]))
                for row in range(0, size, _ROWS):
                    part = stored[row : row + _ROWS]
                    values = to_float32(part, scratch[: len(part)])
                    squares = np.einsum("ij,ij->i", values, values)
                    products = values @ wide
                    if metric == "cosine":
                        lengths = np.sqrt(squares) * np.float32(length)
                        found[row : row + _ROWS] = products / np.where(lengths > 0, lengths, 1)
                    else:
                        found[row : row + _ROWS] = 2 * products - squares
                    most = max(most, float(squares.max()))
            return most

        with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
            starts = range(0, len(chosen), _IMAGES)
            for done, most in enumerate(pool.map(look, starts), start=1):
                largest = max(largest, most)
                progress(min(done * _IMAGES, len(chosen)), len(chosen))
        self._slack = _SLACK if metric == "cosine" else _SLACK * (largest + length * largest**0.5)

    def __len__(self) -> int:
        """How many patches were looked at."""
        return len(self._ids)

    def nearest(self, count: int) -> NDArray[np.int64]:
        """Ids of patches among which the `count` nearest are for certain: ties within rounding come along."""
        if count >= len(self._ids):
            return self._ids
        least = np.partition(self._nearness, len(self._ids) - count)[len(self._ids) - count]
        nearest: NDArray[np.int64] = self._ids[self._nearness >= least - 2 * self._slack]
        return nearest
