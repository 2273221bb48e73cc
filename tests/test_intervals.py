"""Intervals of shares, of their differences, and of means."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import norm

from bagindex.intervals import Paired, bootstrap


def test_a_bootstrapped_mean_is_as_sure_as_its_standard_error() -> None:
    values = np.random.default_rng(1).normal([0, 5], [1, 3], (400, 2))
    low, high = bootstrap(values, 0)
    half = norm.ppf(0.975) * values.std(axis=0) / np.sqrt(len(values))
    np.testing.assert_allclose(high - low, 2 * half, rtol=0.12)
    np.testing.assert_allclose((low + high) / 2, values.mean(axis=0), atol=0.2 * half.max())
    np.testing.assert_array_equal(bootstrap(values, 0), [low, high])
    assert bootstrap(np.full((3, 1), 0.25), 0).tolist() == [[0.25], [0.25]]


def test_only_images_on_which_one_alone_is_right_count() -> None:
    found = Paired(images=100, right_a=70, right_b=78, lost=2, won=10)
    assert found.change == pytest.approx(0.08)
    # Agresti and Min: 8 / 102 ± 1.96 · √(13 − 64 / 102) / 102.
    assert found.interval == pytest.approx((0.01082, 0.14604), abs=2e-4)
    # Two-sided, of 12 fair throws: 2 · (1 + 12 + 66) / 4096.
    assert found.p_value == pytest.approx(2 * 79 / 4096)


def test_models_that_are_right_alike_are_not_told_apart() -> None:
    found = Paired(images=5, right_a=3, right_b=3, lost=0, won=0)
    assert (found.change, found.p_value) == (0, 1)
    low, high = found.interval
    assert low == pytest.approx(-high)
    assert 0.2 < high < 0.5


def test_an_interval_covers_the_change_in_most_of_many_trials() -> None:
    generator = np.random.default_rng(4)
    covered = 0
    for _ in range(500):
        both, won, lost, neither = generator.multinomial(60, [0.5, 0.2, 0.1, 0.2]).tolist()
        low, high = Paired(60, both + lost, both + won, lost, won).interval
        covered += low <= 0.1 <= high
        assert both + won + lost + neither == 60
    assert 0.92 < covered / 500 < 0.99
