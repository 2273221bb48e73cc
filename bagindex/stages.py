"""What runs beside what in the pipeline, with bounded queues between."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from types import TracebackType
from typing import TypeVar

from bagindex.profile import Clock

_Item = TypeVar("_Item")
_Result = TypeVar("_Result")
_AHEAD = 3
"""Calls that wait for the stage's thread: enough to bridge a slow write, little memory."""


class Stage:
    """A thread that makes calls one after the other; a full queue holds up who puts more into it.

    Use as a context manager: leaving it waits until all calls are made; leaving it with an error drops those that wait.
    What a call raises is raised again by the next `put`, `finish`, or on leaving; the calls after it are not made.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._calls: queue.Queue[tuple[Callable[[], object], int] | None] = queue.Queue(_AHEAD)
        self._error: BaseException | None = None
        self._dropped = False
        self._thread = threading.Thread(target=self._work, name=clock.stage, daemon=True)
        self._thread.start()

    def put(self, call: Callable[[], object], images: int = 0) -> None:
        """Have a call made, which deals with so many images."""
        self._raise()
        self._calls.put((call, images))

    def finish(self) -> None:
        """Wait until all calls are made; no more may follow."""
        if self._thread.is_alive():
            self._calls.put(None)
            self._thread.join()
        self._raise()

    def __enter__(self) -> Stage:
        """The stage itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Finish, or drop what waits."""
        self._dropped = error is not None
        if self._dropped and self._thread.is_alive():
            self._calls.put(None)
            self._thread.join()
        elif not self._dropped:
            self.finish()

    def _work(self) -> None:
        while (item := self._calls.get()) is not None:
            # After an error the queue is emptied, so that nobody waits for room in it.
            if self._error is None and not self._dropped:
                call, images = item
                try:
                    with self._clock.busy(images):
                        call()
                except BaseException as error:  # raised again in the thread that puts
                    self._error = error

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def in_order(
    pool: Executor, function: Callable[[_Item], _Result], items: Iterable[_Item], ahead: int
) -> Iterator[_Result]:
    """The function's results, in order; at most `ahead` items are taken before their turn."""
    waiting: deque[Future[_Result]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(function, item))
            if len(waiting) >= ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
