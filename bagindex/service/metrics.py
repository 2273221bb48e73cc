"""What Prometheus is told: requests, their times, and how much there is to do."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST

MEDIA_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The numbers of one service; two in a process have their own.

    Args:
        gauges: what is read when it is asked for: a description and a function, by name.
    """

    def __init__(self, gauges: Mapping[str, tuple[str, Callable[[], float]]]) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "bagindex_requests", "Requests by route and status.", ["method", "route", "status"], registry=self._registry
        )
        self._seconds = Histogram(
            "bagindex_request_seconds",
            "Time to answer, by route.",
            ["route"],
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._in_flight = Gauge("bagindex_requests_in_flight", "Requests under way.", registry=self._registry)
        self.sql = Counter(
            "bagindex_sql_queries", "SQL queries by how they ended.", ["outcome"], registry=self._registry
        )
        self.sql_running = Gauge("bagindex_sql_in_flight", "SQL queries that run or wait.", registry=self._registry)
        for name, (description, read) in gauges.items():
            Gauge(name, description, registry=self._registry).set_function(read)

    def began(self) -> None:
        """A request came."""
        self._in_flight.inc()

    def ended(self, method: str, route: str, status: int, seconds: float) -> None:
        """It was answered."""
        self._in_flight.dec()
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All numbers in Prometheus' text format."""
        return generate_latest(self._registry)
