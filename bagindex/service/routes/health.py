"""What watches over the service asks."""

from __future__ import annotations

from fastapi import FastAPI
from starlette.responses import Response

from bagindex.service import metrics, shapes
from bagindex.service.answers import as_json
from bagindex.service.asking import Service
from bagindex.service.problems import Problem


def register(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    async def healthz() -> Response:
        """Whether the service runs."""
        return as_json({"status": "ok"})

    async def readyz() -> Response:
        """Whether all indexes can be asked."""
        ready = service.ready()
        if not all(ready.values()):
            raise Problem(503, "not-ready", "an index cannot be asked", {"Retry-After": "5"}, indexes=dict(ready))
        return as_json({"status": "ok", "indexes": dict(ready)})

    async def numbers() -> Response:
        """The service's numbers, for Prometheus."""
        return Response(service.metrics.text(), media_type=metrics.MEDIA_TYPE)

    app.add_api_route("/healthz", healthz, response_model=shapes.Health, operation_id="healthz", tags=["health"])
    app.add_api_route("/readyz", readyz, response_model=shapes.Health, operation_id="readyz", tags=["health"])
    app.add_api_route("/metrics", numbers, include_in_schema=False)
