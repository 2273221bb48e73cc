"""Where a build's time goes."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class StageTime:
    """One stage of the pipeline: its threads' seconds at work and waiting, and what it dealt with.

    `waiting` is None where another stage has the same threads.
    """

    stage: str
    threads: int
    busy: float
    waiting: float | None
    images: int

    @property
    def rate(self) -> float | None:
        """Images per second if the stage never had to wait; None where nothing was measured."""
        return self.images * self.threads / self.busy if self.images and self.busy else None


class Clock:
    """Adds up one stage's time, from any thread."""

    def __init__(self, stage: str, threads: int, shares: Clock | None) -> None:
        self.stage = stage
        self.threads = threads
        self.shares = shares
        self.seconds = 0.0
        self.images = 0
        self._lock = threading.Lock()

    @contextmanager
    def busy(self, images: int = 0) -> Iterator[None]:
        """A thread of the stage is at work, on so many images that no other call counts."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.add(time.perf_counter() - started, images)

    def add(self, seconds: float, images: int = 0) -> None:
        """A thread was at work for so long."""
        with self._lock:
            self.seconds += seconds
            self.images += images


@dataclass(frozen=True)
class Spent:
    """What a clock has measured in another process; `shares` is a stage's name."""

    stage: str
    threads: int
    shares: str | None
    seconds: float
    images: int


_ORDER = ("compare", "read", "decode", "run", "write", "commit")
"""First words of the stages' names, as a picture goes through them."""


class Profile:
    """The clocks of a build."""

    def __init__(self) -> None:
        self._clocks: dict[str, Clock] = {}
        self._started = time.perf_counter()

    def begin(self) -> None:
        """The work begins now."""
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """Since the work began."""
        return time.perf_counter() - self._started

    def clock(self, stage: str, threads: int = 1, shares: Clock | None = None) -> Clock:
        """The clock of a stage; `shares`: that of the stage whose threads do this one's work too."""
        return self._clocks.setdefault(stage, Clock(stage, threads, shares))

    def take(self) -> list[Spent]:
        """What was measured since the last time; the clocks begin anew."""
        clocks, self._clocks = self._clocks, {}
        return [
            Spent(each.stage, each.threads, each.shares.stage if each.shares else None, each.seconds, each.images)
            for each in clocks.values()
        ]

    def merge(self, spent: Iterable[Spent], processes: int) -> None:
        """Add what was measured in one of so many processes that do the same."""
        found = {each.stage: each for each in spent}

        def clock(each: Spent) -> Clock:
            shares = clock(found[each.shares]) if each.shares else None
            return self.clock(each.stage, each.threads * processes, shares)

        for each in found.values():
            clock(each).add(each.seconds, each.images)

    def times(self, seconds: float) -> tuple[StageTime, ...]:
        """What was measured in a build that took so long; stages in the order of the work."""
        clocks = sorted(self._clocks.values(), key=lambda each: _place(each.stage))
        found = []
        for clock in clocks:
            busy = clock.seconds + sum(other.seconds for other in clocks if other.shares is clock)
            waiting = None if clock.shares else max(0.0, clock.threads * seconds - busy)
            found.append(StageTime(clock.stage, clock.threads, clock.seconds, waiting, clock.images))
        return tuple(found)


def _place(stage: str) -> int:
    first = stage.split()[0]
    return _ORDER.index(first) if first in _ORDER else len(_ORDER)
