"""Vectors laid out in two dimensions, those near each other that are alike: t-SNE, by openTSNE.

Features of 2048 dimensions are turned into their 50 principal components first, from the first two of which the layout
begins: it keeps what is large of how they lie, and does not depend on chance.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from bagindex.errors import SettingsError

COMPONENTS = 50
ITERATIONS = 250, 500
"""With and without early exaggeration, as openTSNE has it."""
LEAST = 5
"""Points of a map at least."""
_EXACT = 20_000
"""Up to so many points, the nearest neighbours are looked for among all."""
_EVERY = 10
"""Iterations between two reports of progress."""


def check_installed() -> None:
    """See whether openTSNE is there, before features are read for it.

    Raises:
        SettingsError: it is not.
    """
    try:
        import openTSNE  # noqa: F401
    except ImportError:
        raise SettingsError("a map of patches needs openTSNE: pip install 'bagindex[maps]'") from None


def components(vectors: NDArray[np.float32], count: int = COMPONENTS) -> NDArray[np.float64]:
    """The first principal components of n vectors [n, D], float64 [n, up to count]. Of each, the largest weight is
    positive, so that the same vectors give the same.
    """
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, axes = np.linalg.eigh(centred.T @ centred)
    chosen = axes[:, ::-1][:, :count]
    chosen = chosen * np.sign(chosen[np.abs(chosen).argmax(axis=0), np.arange(chosen.shape[1])])
    found: NDArray[np.float64] = centred @ chosen
    return found


def embed(
    vectors: NDArray[np.float32],
    perplexity: float,
    seed: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> NDArray[np.float32]:
    """Lay out n vectors [n, D]: float32 [n, 2], each axis about 0.

    Args:
        vectors: at least `LEAST`.
        perplexity: of how many neighbours each takes account, about; with few vectors, of no more than a third of them.
        seed: of what openTSNE draws.
        progress: hears how many of how many iterations are done.

    Raises:
        SettingsError: openTSNE is not installed.
    """
    check_installed()
    import openTSNE

    total, done = sum(ITERATIONS), 0

    def heard(_iteration: int, _error: float, _embedding: object) -> None:
        nonlocal done
        done = min(done + _EVERY, total)
        progress(done, total)

    reduced = components(vectors)
    first = reduced[:, :2]
    if first.shape[1] < 2:  # vectors of one dimension
        first = np.concatenate([first, np.zeros_like(first)], axis=1)
    spread = first[:, 0].std() or 1.0
    laid = openTSNE.TSNE(
        perplexity=min(perplexity, (len(vectors) - 1) / 3),
        initialization=first / spread * 1e-4,
        early_exaggeration_iter=ITERATIONS[0],
        n_iter=ITERATIONS[1],
        neighbors="exact" if len(vectors) <= _EXACT else "auto",
        n_jobs=1,  # several threads add up in an order of their own
        random_state=seed,
        callbacks=heard,
        callbacks_every_iters=_EVERY,
    ).fit(reduced)
    progress(total, total)
    places = np.asarray(laid, np.float32)
    found: NDArray[np.float32] = places - places.mean(axis=0)
    return found
