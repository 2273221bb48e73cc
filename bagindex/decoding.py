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
from dataclasses import dataclass, field, replace

from bagindex.decoders import pool
from bagindex.images import Picture, Rejected
from bagindex.profile import Profile
from bagindex.sources import Entry, Reader, bounds_reading
from bagindex_schemas.records import Transform
from bagindex_schemas.rejects import RejectCode

_AHEAD = 4
"""Pictures decoded ahead for each worker: enough to bridge the model's batches, little memory."""
_LOOK = 0.5
"""Seconds between two looks at whether a file is read for too long."""


def default_workers() -> int:
    """How many decode unless that is said: one for each core, at most 16."""
    return min(16, os.cpu_count() or 1)


@dataclass
class _Job:
    """A file to be read and decoded. Until it is read its future is pending, and can be cancelled."""

    entry: Entry
    future: Future[Picture | Rejected] = field(default_factory=Future)
    started: float | None = None


@dataclass(frozen=True)
class Decoder:
    """Reads in `workers` threads, each of which has a process decode what it has read; see `bagindex.decoders`.

    A picture that takes longer than `timeout` seconds to be decoded, or to be read where the source does not see to
    that itself, is rejected. A thread that does not come back from reading cannot be stopped: it is left to itself and
    another one takes its place. Threads are daemons, which do not keep the process alive.
    """

    workers: int
    timeout: float = pool.DEFAULT_SECONDS
    profile: Profile = field(default_factory=Profile, compare=False)

    def decode(
        self, source: Reader, entries: Sequence[Entry], transform: Transform
    ) -> Iterator[tuple[Entry, Picture | Rejected]]:
        """Read and decode entries, in order, a bounded number ahead. They come back with the sizes that were read.

        Raises:
            DecoderError: no process can be started.
        """
        todo: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # A network that is down for a while must not cost pictures.
        timeout = float("inf") if bounds_reading(source) else self.timeout
        over = threading.Event()
        decoding = self.profile.clock("decode", self.workers)
        reading = self.profile.clock("read", self.workers, shares=decoding)

        def read(entry: Entry) -> bytes | BaseException:
            try:
                with reading.busy(1):
                    return source.read(entry)
            except BaseException as error:
                return error

        def decode(data: bytes | BaseException) -> Picture | Rejected:
            try:
                if isinstance(data, BaseException):
                    raise data
                with decoding.busy(1):
                    return pool.decode(data, transform, self.timeout)
            except Rejected as rejected:
                return rejected
            except MemoryError:
                return Rejected(RejectCode.TOO_LARGE, "does not fit into memory")

        def work() -> None:
            while (job := todo.get()) is not None and not over.is_set():
                job.started = time.monotonic()
                data = job.entry.rejected or read(job.entry)
                if job.entry.size is None and isinstance(data, bytes):
                    job.entry = replace(job.entry, size=len(data))
                if not job.future.set_running_or_notify_cancel():
                    return  # given up, and replaced
                try:
                    job.future.set_result(decode(data))
                except BaseException as error:  # raised again where the result is waited for
                    job.future.set_exception(error)

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
                    yield first.entry, self._result(first, start, timeout)
            while waiting:
                first = waiting.popleft()
                yield first.entry, self._result(first, start, timeout)
        finally:
            over.set()
            for _ in range(self.workers):
                todo.put(None)

    def _result(self, job: _Job, start: Callable[[], None], timeout: float) -> Picture | Rejected:
        while True:
            try:
                return job.future.result(timeout=min(_LOOK, timeout))
            except FutureTimeoutError:
                if job.future.done():
                    raise  # the reader's own
                late = job.started is not None and time.monotonic() - job.started > timeout
                if late and job.future.cancel():
                    start()
                    return Rejected(RejectCode.DECODER_TIMEOUT, f"not read within {timeout:g} seconds")
