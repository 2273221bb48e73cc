"""Workers that run strangers' queries, and who waits for them."""

from __future__ import annotations

import itertools
import threading
import time
import weakref
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import Any

from bagindex import home
from bagindex.choosing import Met
from bagindex.errors import BagindexError, QueryError
from bagindex.sandbox import gate, state
from bagindex.sandbox.process import Answer, Limits, LostError, Process, StartError, TimeLimitError
from bagindex.sandbox.state import State
from bagindex.stages import cores

__all__ = ["Answer", "BusyError", "Limits", "SqlPool", "TimeLimitError"]

_MOST_THREADS = 4
_STARTS = 5
_PATIENCE = 10.0
"""Seconds that a query may wait for a process, beside one query's time."""


class BusyError(BagindexError):
    """Too many queries wait already: ask again in a few seconds."""


class SqlPool:
    """Processes that run queries about an index; safe to use from several threads.

    They are started ahead, and each that was killed is replaced while others work. When the index has a new catalog,
    the next query gets a new process. Close the pool, or use it in `with`.

    Args:
        path: the index's folder.
        workers: how many queries run at the same time.
        queue: how many may wait for them.
        limits: what each may take.
    """

    def __init__(self, path: Path, *, workers: int = 2, queue: int = 16, limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._directory = home.at(path)
        self._queue = queue
        self._threads = max(1, min(_MOST_THREADS, cores() // workers))
        self._longest_wait = _PATIENCE + self.limits.seconds
        self._state: State | None = None
        self._reading = threading.Lock()
        self._change = threading.Condition()
        self._idle: list[Process | None] = []
        self._line: deque[object] = deque()
        self._closed = False
        self._starters: set[threading.Thread] = set()
        self._processes: set[Process] = set()
        self._kill = weakref.finalize(self, _kill_all, self._processes)
        for _ in range(workers):
            self._start_behind()

    def run(self, sql: str, *, explain: bool = False) -> Answer:
        """Run one query that reads, or with `explain` say how it would be run.

        Raises:
            RefusedError: it has a part that is not allowed.
            QueryError: it is no SQL, or fails.
            TimeLimitError: it takes too long.
            BusyError: too many wait, or the pool is closed.
            BagindexError: the index cannot be read.
        """
        gate.check_text(sql, self.limits.sql)
        return self._ask({"sql": sql, "explain": explain})[0]

    def images_where(self, condition: str, model: str) -> Met:
        """Find the images of which an SQL condition holds, for `Index.top_patches` and others to have as `where`.

        They would run the text without bounds of time and memory, and that it is harmless once says nothing of the
        next time: it may toss a coin or look at the clock.

        Args:
            condition: on the columns of `images`, `predicted`, `predicted_name` and `probability`.
            model: whose predictions.

        Raises:
            RefusedError, QueryError, TimeLimitError, BusyError, BagindexError: as `run`.
        """
        gate.check_text(condition, gate.LONGEST_CONDITION)
        found, now = self._ask({"condition": condition, "model": model})
        return Met.of(condition, found.table.column(0).to_numpy(), now.catalog.name)

    def close(self) -> None:
        """End all processes, those at work too."""
        with self._change:
            self._closed = True
            self._change.notify_all()
        for thread in list(self._starters):
            thread.join()
        self._kill()

    def __enter__(self) -> SqlPool:
        """The pool itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    @property
    def processes(self) -> tuple[Process, ...]:
        """Those that there are now."""
        return tuple(self._processes)

    def _ask(self, request: dict[str, Any]) -> tuple[Answer, State]:
        """The answer, and the state of the index that it is of."""
        for _ in range(_STARTS - 1):
            process = self._take()
            try:
                return self._answer(process, request), process.state
            except (gate.RefusedError, TimeLimitError):
                raise
            except QueryError:
                # What it looked at may have gone elsewhere, or away, with the state that it knew.
                if self._fresh() is process.state:
                    raise
        process = self._take()
        return self._answer(process, request), process.state

    def _answer(self, process: Process, request: dict[str, Any]) -> Answer:
        try:
            return process.ask(request)
        except LostError:
            if self._closed:
                raise BusyError("the index is being closed") from None
            raise QueryError(
                "the query broke the process that ran it: it needs more memory than it may take, or more than DuckDB "
                "bears; ask about fewer rows"
            ) from None
        finally:
            if process.spent:
                self._drop(process)
                self._start_behind()
            else:
                self._give(process)

    def _take(self) -> Process:
        """A process for the index's present state."""
        slot = self._wait()
        try:
            now = self._fresh()
            if slot is not None:
                if slot.state is now and slot.lives:
                    return slot
                self._drop(slot)
                slot = None
            return self._start(now)
        except BaseException:
            self._give(slot)
            raise

    def _wait(self) -> Process | None:
        until = time.monotonic() + self._longest_wait
        with self._change:
            if len(self._line) - len(self._idle) >= self._queue:
                raise BusyError(f"{len(self._line)} queries wait already: ask again in a few seconds")
            # In turn: who has just had an answer and asks again would else be faster than those who wait.
            turn = object()
            self._line.append(turn)
            try:
                while not (self._idle and self._line[0] is turn) and not self._closed:
                    if not self._change.wait(until - time.monotonic()):
                        raise BusyError("no worker became free: ask again in a few seconds")
                if self._closed:
                    raise BusyError("the index is being closed")
                return self._idle.pop()
            finally:
                self._line.remove(turn)
                self._change.notify_all()

    def _give(self, process: Process | None) -> None:
        with self._change:
            self._idle.append(process)
            self._change.notify_all()

    def _fresh(self) -> State:
        with self._reading:
            if self._state is None or self._state.stamp != state.stamp(self._directory):
                self._state = state.read(self._directory)
            return self._state

    def _start(self, now: State) -> Process:
        for attempt in itertools.count(1):
            try:
                process = Process(now, self.limits, self._threads)
                break
            except StartError:
                # The catalog may have been replaced by the next but one in between, and again; otherwise once more is
                # enough.
                before, now = now, self._fresh()
                if attempt == _STARTS or (attempt > 1 and now is before):
                    raise
        with self._change:
            self._processes.add(process)
            closed = self._closed
        if closed:
            self._drop(process)
            raise BusyError("the index is being closed")
        return process

    def _drop(self, process: Process) -> None:
        with self._change:
            self._processes.discard(process)
        process.kill()

    def _start_behind(self) -> None:
        thread = threading.Thread(target=self._started, daemon=True, name="bagindex-sandbox")
        with self._change:
            if self._closed:
                return
            self._starters.add(thread)
        thread.start()

    def _started(self) -> None:
        process = None
        try:
            with suppress(BagindexError, OSError):  # who needs it next tries again, and hears why not
                process = self._start(self._fresh())
        finally:
            self._give(process)
            with self._change:
                self._starters.discard(threading.current_thread())


def _kill_all(processes: set[Process]) -> None:
    while processes:
        processes.pop().kill()
