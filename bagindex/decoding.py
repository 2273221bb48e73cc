"""Reading and decoding pictures beside the model's work, such that no picture can hold up the build."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from dataclasses import dataclass, field

from bagindex.images import Picture, Rejected, read_picture
from bagindex.profile import Clock, Profile
from bagindex.sources import Entry, Source
from bagindex_schemas.records import RejectCode, Transform

_AHEAD = 4
"""Pictures decoded ahead for each worker: enough to bridge the model's batches, little memory."""
_LOOK = 0.5
"""Seconds between two looks at whether a decoder is over its time."""


def default_workers() -> int:
    """How many decode unless that is said: one for each core, at most 16."""
    return min(16, os.cpu_count() or 1)


@dataclass
class _Job:
    entry: Entry
    future: Future[Picture | Rejected] = field(default_factory=Future)
    started: float | None = None


@dataclass(frozen=True)
class Decoder:
    """Decodes in `workers` threads: Pillow lets go of the interpreter while it works.

    A picture that takes longer than `timeout` seconds is rejected. Its thread, which cannot be stopped, is left to
    itself and another one takes its place; daemon threads do not keep the process alive.
    """

    workers: int
    timeout: float = 60.0
    profile: Profile = field(default_factory=Profile, compare=False)

    def decode(
        self, source: Source, entries: Sequence[Entry], transform: Transform
    ) -> Iterator[tuple[Entry, Picture | Rejected]]:
        """Read and decode entries, in order, a bounded number ahead."""
        todo: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        decoding = self.profile.clock("decode", self.workers)
        reading = self.profile.clock("read", self.workers, shares=decoding)

        def work() -> None:
            while (job := todo.get()) is not None:
                job.started = time.monotonic()
                try:
                    job.future.set_result(_decode(source, job.entry, transform, reading, decoding))
                except BaseException as error:  # raised again where the result is waited for
                    job.future.set_exception(error)
                if time.monotonic() - job.started > self.timeout:
                    return  # given up, and replaced

        def start() -> None:
            threading.Thread(target=work, name="decoder", daemon=True).start()

        for _ in range(self.workers):
            start()
        waiting: deque[_Job] = deque()
        try:
            for entry in entries:
                job = _Job(entry)
                waiting.append(job)
                todo.put(job)
                if len(waiting) > self.workers * _AHEAD:
                    first = waiting.popleft()
                    yield first.entry, self._result(first, start)
            while waiting:
                first = waiting.popleft()
                yield first.entry, self._result(first, start)
        finally:
            for _ in range(self.workers):
                todo.put(None)

    def _result(self, job: _Job, replace: Callable[[], None]) -> Picture | Rejected:
        while True:
            try:
                return job.future.result(timeout=min(_LOOK, self.timeout))
            except FutureTimeoutError:
                if job.future.done():
                    raise  # the decoder's own
                if job.started is not None and time.monotonic() - job.started > self.timeout:
                    replace()
                    return Rejected(RejectCode.DECODER_TIMEOUT, f"not decoded within {self.timeout:g} seconds")


def _decode(source: Source, entry: Entry, transform: Transform, reading: Clock, decoding: Clock) -> Picture | Rejected:
    if entry.rejected is not None:
        return entry.rejected
    try:
        with reading.busy(1):
            data = source.read(entry)
        with decoding.busy(1):
            return read_picture(data, transform)
    except Rejected as rejected:
        return rejected
    except MemoryError:
        return Rejected(RejectCode.TOO_LARGE, "does not fit into memory")
