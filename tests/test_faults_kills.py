"""SIGKILL at random moments."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import kills, native, sabotage
from faults.forks import Conditions, Ended, server
from faults.steps import Life

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
STEPS = ("first", "fill")


def test_nothing_is_lost_or_made_again(tmp_path: Path) -> None:
    outcome = kills.torch_free(tmp_path, 14, 7, STEPS, images=30)
    assert outcome.problems == []
    assert outcome.trials == 14
    assert sum(outcome.counts[f"killed in {step}"] for step in STEPS) == 14


def folder(path: Path) -> Path:
    """A new folder."""
    path.mkdir()
    return path


def test_shards_that_are_written_in_place_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(step: str, life: Life, conditions: Conditions) -> Ended:
        return server().under(conditions, sabotage.in_place, step, life)

    monkeypatch.setattr(kills, "attempt", careless)
    found = (kills.torch_free(folder(tmp_path / str(seed)), 8, seed, ("first",), images=20) for seed in range(8))
    assert any(outcome.problems for outcome in found)  # the moments are random, and few; the first seed mostly does
