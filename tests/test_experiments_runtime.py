"""How batches are timed, by a clock that the test winds."""

from __future__ import annotations

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
