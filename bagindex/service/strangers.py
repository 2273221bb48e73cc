"""SQL of whoever asks: each index has a sandbox, which is started when the first query comes."""

from __future__ import annotations

import importlib
import threading
from typing import Any

from bagindex.service.pools import IndexPool
from bagindex.service.problems import Problem
from bagindex.service.settings import Settings


class Strangers:
    """The sandboxes of all indexes. A sandbox notices by itself when its index has another catalog."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._sandboxes: dict[str, Any] = {}

    def __len__(self) -> int:
        """How many are open."""
        return len(self._sandboxes)

    def run(self, index: IndexPool, query: str, explain: bool) -> Any:
        """Run a query; see `bagindex.sandbox.pool.SqlPool.run`.

        Raises:
            Problem: SQL is off.
            QueryError: it is refused, or fails.
        """
        return self._sandbox(index).run(query, explain=explain)

    def check_condition(self, index: IndexPool, text: str) -> None:
        """Try a condition where it can do no harm, since the index's own connection has no bounds.

        Raises:
            Problem: SQL is off.
            QueryError: it is refused, or fails.
        """
        self._sandbox(index).check_condition(text)

    def close(self) -> None:
        """Close all, at once."""
        with self._lock:
            sandboxes, self._sandboxes = list(self._sandboxes.values()), {}
        for each in sandboxes:
            each.close()

    def _sandbox(self, index: IndexPool) -> Any:
        if not self._settings.sql:
            raise Problem(403, "sql-off", "SQL is not answered here: start the service with --sql")
        with self._lock:
            if index.name not in self._sandboxes:
                pool = _load()
                settings = self._settings
                made = pool.SqlPool(
                    index.path, workers=settings.sql_workers, queue=settings.sql_queue, limits=pool.Limits()
                )
                self._sandboxes[index.name] = made
            return self._sandboxes[index.name]


def _load() -> Any:
    try:
        return importlib.import_module("bagindex.sandbox.pool")
    except ModuleNotFoundError:
        raise Problem(501, "no-sandbox", "this version of bagindex has no sandbox for SQL") from None
