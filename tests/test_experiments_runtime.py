"""How batches are timed, by a clock that the test winds, and of which networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagindex import Index
from bagindex.experiments import paper, runtime
from bagindex.experiments.runtime import Timing, time_batches


class Clock:
    """Each batch takes the next of some seconds; the last one's again when they are over."""

    def __init__(self, *seconds: float) -> None:
        self.now, self.seconds = 0.0, list(seconds)

    def __call__(self) -> float:
        return self.now

    def step(self) -> None:
        self.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]


def timed(*seconds: float) -> tuple[float, ...]:
    clock = Clock(*seconds)
    return time_batches(clock.step, clock)


def test_the_first_batch_is_not_counted_and_the_median_is() -> None:
    found = timed(100, 4, 1, 8)
    assert found == (4, 1, 8)
    assert Timing("n", "", 64, found).rate == 16


def test_quick_batches_are_timed_often_and_slow_ones_not_for_ever() -> None:
    assert len(timed(0.001)) == 50
    assert len(timed(1.0)) == 10
    assert len(timed(4.0)) == 3
    assert len(timed(45.0)) == 2
    assert len(timed(70.0)) == 1


def test_models_of_an_index_are_timed_beside_resnet50(
    planted_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paper, "RUNTIME_BATCH", 2)
    monkeypatch.setattr(runtime, "_ENOUGH", 0)
    (outcome,) = planted_index.reproduce("runtime", tmp_path, device="cpu").outcomes
    ours, resnet = outcome.tables["runtime"].to_pylist()
    assert [(row["network"], row["batch"], row["batches"]) for row in (ours, resnet)] == [
        ("bagnet33", 2, 3),
        ("resnet50", 2, 3),
    ]
    assert resnet["form"] == "resnet50 with random weights"
    assert ours["slowest"] <= ours["images_per_second"] <= ours["fastest"]
    assert [(each.paper, each.comparable) for each in outcome.beside] == [(155, False), (570, False), (3.68, False)]
    assert outcome.beside[2].ours == resnet["images_per_second"] / ours["images_per_second"]
    assert all("timed on another machine" in each.why for each in outcome.beside)
    assert ["0.25 times as wide" in each.why for each in outcome.beside] == [True, False, True]
    assert outcome.settings["precision"] == "fp32"
    assert outcome.settings["device_name"] in outcome.title
