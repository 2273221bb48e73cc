"""What watches over the service asks, and where everything else is."""

from __future__ import annotations

import html

from fastapi import FastAPI
from starlette.responses import Response

from bagindex.service import metrics, shapes
from bagindex.service.answers import as_json
from bagindex.service.asking import Service
from bagindex.service.problems import Problem

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>bagindex</title></head><body>
<h1>bagindex</h1>
<p>Served: {names}.</p>
<p>The API is at <code>/api/v1</code>, and described in <a href="/openapi.json">/openapi.json</a> (OpenAPI 3.1).
Begin with <a href="/api/v1/indexes">/api/v1/indexes</a> or <a href="/api/v1/classes{one}">/api/v1/classes</a>.</p>
</body></html>
"""


def register(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    async def root() -> Response:
        """Where the API is."""
        names = ", ".join(html.escape(name) for name in service.pools)
        one = "" if len(service.pools) == 1 else f"?index={html.escape(next(iter(service.pools)))}"
        return Response(_PAGE.format(names=names, one=one), media_type="text/html; charset=utf-8")

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

    app.add_api_route("/", root, include_in_schema=False)
    app.add_api_route("/healthz", healthz, response_model=shapes.Health, operation_id="healthz", tags=["health"])
    app.add_api_route("/readyz", readyz, response_model=shapes.Health, operation_id="readyz", tags=["health"])
    app.add_api_route("/metrics", numbers, include_in_schema=False)
