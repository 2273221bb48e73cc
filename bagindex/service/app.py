"""The application: routes, errors, and what stands before them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI

from bagindex import __version__
from bagindex.service import page, problems, shapes
from bagindex.service.asking import Service
from bagindex.service.edge import Edge
from bagindex.service.routes import accounts, figures, health, listing, maps, patches, session, sql

_ABOUT = """Which local image evidence does a BagNet decide on? Questions about an index of every patch that it saw.

`index` chooses one of several indexes, `model` one of several models. Tables come as JSON or, with
`Accept: application/vnd.apache.arrow.stream`, as Arrow; pictures by the path's ending or by `Accept`.
Errors are problem details (RFC 9457)."""


def create_app(service: Service) -> FastAPI:
    """The application that answers for a service."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        warming = asyncio.create_task(service.warm())
        yield
        warming.cancel()
        service.close()

    # FastAPI's own pages for the documentation are loaded from another site.
    app = FastAPI(
        title="bagindex",
        version=__version__,
        description=_ABOUT,
        docs_url=None,
        redoc_url=None,
        openapi_url="/openapi.json",
        lifespan=lifespan,
        redirect_slashes=False,
    )
    # An image's picture before the image: the latter's path fits both.
    for topic in (health, session, patches, listing, maps, accounts, figures, sql):
        topic.register(app, service)
    shown = page.Page()
    page.register(app, shown)
    problems.install(app, service.texts, shown.nowhere)
    app.openapi = lambda: openapi(app)  # type: ignore[method-assign]
    app.add_middleware(
        Edge,
        access=service.settings.access,
        metrics=service.metrics,
        texts=service.texts,
        most=service.settings.requests,
        uploads=service.settings.uploads,
    )
    return app


def openapi(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an application."""
    if app.openapi_schema is None:
        found = FastAPI.openapi(app)
        schemas = found["components"]["schemas"]
        described = shapes.Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas.update(described.pop("$defs", {}))
        schemas["Problem"] = described
        # FastAPI writes its own form of these errors, which no route gives.
        for name in ("HTTPValidationError", "ValidationError"):
            schemas.pop(name, None)
        _name_problems(found)
        app.openapi_schema = found
    return app.openapi_schema


def _name_problems(document: dict[str, Any]) -> None:
    """Say once what a problem of each status is, and refer to it in each route."""
    named: dict[str, Any] = {}
    for path in document["paths"].values():
        for operation in path.values():
            for status, answer in operation["responses"].items():
                if problems.MEDIA_TYPE in answer.get("content", {}):
                    name = f"Problem{status}"
                    named[name] = answer
                    operation["responses"][status] = {"$ref": f"#/components/responses/{name}"}
    document["components"]["responses"] = dict(sorted(named.items()))
