"""SQL of whoever asks: each index has a sandbox, which is started when the first query comes."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from bagindex.choosing import Met
from bagindex.service.pools import IndexPool
from bagindex.service.problems import Problem
from bagindex.service.settings import Settings

if TYPE_CHECKING:
    from bagindex.sandbox.pool import Answer, SqlPool


class Strangers:
    """The sandboxes of all indexes. A sandbox notices by itself when its index has another catalog."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._sandboxes: dict[str, SqlPool] = {}

    def __len__(self) -> int:
        """How many are open."""
        return len(self._sandboxes)

    def run(self, index: IndexPool, query: str, explain: bool) -> Answer:
        """Run a query; see `bagindex.sandbox.pool.SqlPool.run`.

        Raises:
            Problem: SQL is off.
            QueryError: it is refused, or fails.
        """
        return self._sandbox(index).run(query, explain=explain)

    def images_where(self, index: IndexPool, condition: str, model: str) -> Met:
        """Find the images of which a condition holds where it can do no harm; see `SqlPool.images_where`.

        Raises:
            Problem: SQL is off.
            QueryError: it is refused, or fails.
        """
        return self._sandbox(index).images_where(condition, model)

    def close(self) -> None:
        """Close all, at once."""
        with self._lock:
            sandboxes, self._sandboxes = list(self._sandboxes.values()), {}
        for each in sandboxes:
            each.close()

    def _sandbox(self, index: IndexPool) -> SqlPool:
        from bagindex.sandbox.pool import SqlPool

        if not self._settings.sql:
            raise Problem(403, "sql-off", "SQL is not answered here: start the service with --sql")
        with self._lock:
            if index.name not in self._sandboxes:
                settings = self._settings
                self._sandboxes[index.name] = SqlPool(
                    index.path, workers=settings.sql_workers, queue=settings.sql_queue
                )
            return self._sandboxes[index.name]
