"""Connections: so many at a time, and none is held by a client that does nothing with it."""

from __future__ import annotations

import asyncio
import resource
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

MOST = 4096
"""Connections at a time."""
_PATIENCE = 15.0
"""After so many seconds a connection is looked at: twice the same, and it is closed."""
_FULL = b"HTTP/1.1 503 Service Unavailable\r\nRetry-After: 2\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"


class Connection(H11Protocol):
    """uvicorn's, which by itself waits for ever for a request whose head does not come, and for who takes no answer.

    (How long a body may take is said in `edge`, and how long a question in `work`.)
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._look_again: asyncio.TimerHandle | None = None
        self._seen: tuple[object, int] | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if self.limit_concurrency is not None and len(self.connections) >= self.limit_concurrency:
            transport.write(_FULL)
            transport.close()
            return
        self._look()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
        super().connection_lost(exc)

    def _look(self) -> None:
        unsent = self.transport.get_write_buffer_size()
        answering = self.cycle is not None and not self.cycle.response_complete
        # Bytes of a head do not count: they may come one by one.
        now = self.cycle, unsent
        if now == self._seen and (unsent or not answering):
            self.transport.abort()
            return
        self._seen = now
        self._look_again = self.loop.call_later(_PATIENCE, self._look)


def most_connections() -> int:
    """How many connections there may be, with half of the files that the process may open left for the indexes.

    That number is raised as far as the system lets anyone raise it: on many it is 1024 or fewer at first.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * MOST if hard == resource.RLIM_INFINITY else min(2 * MOST, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return MOST if soft == resource.RLIM_INFINITY else min(MOST, soft // 2)
