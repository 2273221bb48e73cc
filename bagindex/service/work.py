"""Work in threads: so many at a time, so many waiting, and no more."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from bagindex.service.problems import busy

_Result = TypeVar("_Result")
_PATIENCE = 10.0
"""Seconds that work may wait for a thread."""


class Workers:
    """A bounded pool of threads with a bounded queue.

    Args:
        name: what the work is called.
        threads: how many run at a time.
        queue: how many more may wait.
    """

    def __init__(self, name: str, threads: int, queue: int) -> None:
        self.name = name
        self.threads = threads
        self._most = threads + queue
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix=f"bagindex-{name}")
        self._lock = threading.Lock()
        self._taken = 0

    @property
    def taken(self) -> int:
        """How many run or wait."""
        return self._taken

    async def run(self, work: Callable[[], _Result]) -> _Result:
        """Do it in a thread.

        Raises:
            Problem: as many wait as may, or it would have had to wait for too long.
        """
        with self._lock:
            if self._taken >= self._most:
                raise busy("the service has as much to do as it takes on", 2)
            self._taken += 1
        try:
            future = self._pool.submit(work)
        except RuntimeError:
            self._done()
            raise busy("the service is stopping") from None
        # Of a client that goes away the work is done to its end, once it has begun: the place is free when the thread
        # is. What has not begun in time is dropped: who asked for it may have gone long since.
        future.add_done_callback(lambda _: self._done())
        answer = asyncio.wrap_future(future)
        await asyncio.wait({answer}, timeout=_PATIENCE)
        if not answer.done() and future.cancel():
            raise busy("the service has more to do than it can in time", int(_PATIENCE))
        return await answer

    def close(self) -> None:
        """Take nothing more on; what waits is dropped, what runs goes on."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _done(self) -> None:
        with self._lock:
            self._taken -= 1
