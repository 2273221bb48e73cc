"""How a route is added: once for each form of its answer, described for OpenAPI."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.responses import Response

from bagindex.service.answers import ARROW, JSON, PICTURES, accepted
from bagindex.service.parameters import described

API = "/api/v1"


def add(
    app: FastAPI,
    path: str,
    endpoint: Callable[..., Any],
    shape: type[BaseModel] | None,
    *,
    kinds: Sequence[str] = (),
    arrow: bool = False,
    types: Sequence[str] = (),
    post: bool = False,
    failures: tuple[int, ...] = (),
) -> None:
    """Add a route, and one for each kind of picture under the same path with the picture's ending.

    Args:
        app: the application.
        path: below `API`.
        endpoint: answers; the docstring's first line is the summary.
        shape: of the JSON; None where the answer is a picture only.
        kinds: the endings of the pictures that it gives.
        arrow: whether it gives Arrow.
        types: further media types that it gives.
        post: whether it takes a body.
        failures: statuses beyond those that any route may have.
    """
    summary, _, description = (endpoint.__doc__ or "").partition("\n")
    failures = (*failures, 408, 413, 415) if post else failures
    name = endpoint.__name__
    common: dict[str, Any] = {
        "methods": ["POST" if post else "GET"],
        "summary": summary.rstrip("."),
        "description": description.strip(),
        "tags": [path.strip("/").split("/")[0].split(".")[0]],
    }
    if shape is not None:
        app.add_api_route(
            API + path,
            endpoint,
            response_model=shape,
            operation_id=name,
            responses=described(
                *kinds, example=examples().get(name), types=[ARROW] * arrow + [*types], failures=failures
            ),
            **common,
        )
    elif not path.endswith(tuple(f".{kind}" for kind in kinds)):
        app.add_api_route(
            API + path,
            endpoint,
            response_model=None,
            response_class=Response,
            operation_id=name,
            responses=described(*kinds, json=False, failures=failures),
            **common,
        )
    for kind in kinds:
        has_ending = path.endswith(f".{kind}")
        if shape is not None and post:
            continue  # what is sent comes back as the Accept header says
        app.add_api_route(
            API + path if has_ending else f"{API}{path}.{kind}",
            endpoint,
            response_model=None,
            response_class=Response,
            operation_id=f"{name}_{kind}",
            responses=described(kind, json=False, failures=failures),
            **common,
        )


def kind_of(request: Request, kinds: Sequence[str] = (), *, json_too: bool = True, arrow: bool = False) -> str:
    """What is answered with: `JSON`, `ARROW` or the ending of a picture, by the path's ending or what is accepted.

    Raises:
        Problem: the request accepts none of them.
    """
    ending = request.url.path.rpartition(".")[2]
    if ending in kinds:
        return ending
    offers = [JSON] * json_too + [ARROW] * arrow + [PICTURES[kind] for kind in kinds]
    found = accepted(request, offers)
    return next((kind for kind in kinds if PICTURES[kind] == found), found)


@cache
def examples() -> dict[str, Any]:
    """Answers of the demo's index, shortened, by the names of the routes."""
    text = (files("bagindex_schemas") / "examples.json").read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found
