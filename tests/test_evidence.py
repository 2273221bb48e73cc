"""Rounding and reductions against plain arithmetic; in numpy, and in torch where the model runs."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bagindex import reduction
from bagindex.compute import PatchOutput
from bagindex.errors import EvidenceRangeError
from bagindex.evidence import Evidence, reduce, rounding_error

Reduce = Callable[[np.ndarray, np.ndarray], Evidence]


def in_numpy(features: np.ndarray, logits: np.ndarray) -> Evidence:
    return reduce(PatchOutput(features, logits))


def in_torch(features: np.ndarray, logits: np.ndarray) -> Evidence:
    return reduction.reduce(torch.from_numpy(features), torch.from_numpy(logits))


def rounding_of_means(logits: np.ndarray, means: np.ndarray) -> np.ndarray:
    """By how much means over patches, which are summed in float64 and rounded to float32, may be off, float64 [C].

    Args:
        logits: float32 [P, C].
        means: float [C].
    """
    sums = np.abs(logits.astype(np.float64)).sum(axis=0)
    return np.finfo(np.float64).eps * sums + np.spacing(np.abs(means).astype(np.float32))


both = pytest.mark.parametrize("reduce_", [in_numpy, in_torch])
logit_arrays = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 4), st.integers(1, 12), st.integers(1, 8)),
    elements=st.one_of(st.integers(-3, 3), st.floats(-1000, 1000, width=32)),
)


@both
@given(logits=logit_arrays)
def test_reduce(reduce_: Reduce, logits: np.ndarray) -> None:
    found = reduce_(logits, logits)
    np.testing.assert_array_equal(found.features, logits.astype(np.float16))
    np.testing.assert_array_equal(found.evidence, logits.astype(np.float16))
    for n, image in enumerate(logits):
        means = [math.fsum(image[:, c].tolist()) / len(image) for c in range(image.shape[1])]
        assert (np.abs(found.logits[n] - means) <= rounding_of_means(image, np.array(means))).all()
        order = sorted(range(image.shape[1]), key=lambda c: (-found.logits[n, c], c))
        assert found.top[n].tolist() == order[:5]
        exponentials = np.exp(np.float64(found.logits[n]) - found.logits[n].max())
        assert found.probability[n] == pytest.approx(exponentials.max() / exponentials.sum(), rel=1e-6)
        for c in range(image.shape[1]):
            rounded = [float(np.float16(v)) for v in image[:, c]]
            assert found.max_logit[n, c] == max(rounded)
            assert found.max_cell[n, c] == rounded.index(max(rounded))


@given(logits=logit_arrays)
def test_both_reductions_give_the_same(logits: np.ndarray) -> None:
    for name, values in vars(in_numpy(logits, logits)).items():
        other = getattr(in_torch(logits, logits), name)
        assert values.dtype == other.dtype, name
        if name == "logits":  # sums in another order
            apart = np.abs(values.astype(np.float64) - other)
            assert (apart <= 2 * np.stack([rounding_of_means(*each) for each in zip(logits, other, strict=True)])).all()
        elif name not in ("top", "probability"):  # which follow from them
            np.testing.assert_array_equal(values, other, name)


@given(values=hnp.arrays(np.float32, 20, elements=st.floats(-65504, 65504, width=32)))
def test_rounding_error_bounds_the_rounding(values: np.ndarray) -> None:
    rounded = values.astype(np.float16)
    assert (np.abs(rounded.astype(np.float64) - values) <= rounding_error(rounded)).all()


@both
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 65505.0, -70000.0])
def test_values_that_cannot_be_stored(reduce_: Reduce, bad: float) -> None:
    good = np.zeros((1, 2, 3), np.float32)
    wrong = good.copy()
    wrong[0, 1, 2] = bad
    with pytest.raises(EvidenceRangeError, match="logit"):
        reduce_(good, wrong)
    with pytest.raises(EvidenceRangeError, match="feature"):
        reduce_(wrong, good)
