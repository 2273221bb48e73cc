"""Features of some patches, drawn evenly from all of a model's."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bagindex.stored import StoredFeatures


def draw(
    features: StoredFeatures, most: int, rng: np.random.Generator, progress: Callable[[int, int], None]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw up to `most` patches without repetition.

    Returns:
        Which of all N · P patches, in the order in which they are stored, int64 [m], ascending; and their features,
        each of length 1, float32 [m, D].
    """
    import torch

    size = features.record.feature_size
    chosen = np.arange(features.count)
    if most < features.count:
        chosen = np.sort(rng.choice(features.count, most, replace=False, shuffle=False))
    sample = np.empty((len(chosen), size), np.float32)
    places, cells = np.divmod(chosen, features.patches)
    present, begins = np.unique(places, return_index=True)
    ends = [*begins[1:].tolist(), len(chosen)]
    for done, (place, begin, end) in enumerate(zip(present.tolist(), begins.tolist(), ends, strict=True), start=1):
        rows = torch.from_numpy(features.of_image(place)[cells[begin:end]]).float()
        sample[begin:end] = torch.nn.functional.normalize(rows, dim=1).numpy()
        progress(done, len(present))
    return chosen, sample
