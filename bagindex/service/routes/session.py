"""Signing in with a browser, whose pictures cannot send a header: a cookie says the same."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from starlette.responses import Response

from bagindex.service import shapes
from bagindex.service.asking import Service
from bagindex.service.parameters import described
from bagindex.service.routes.adding import API


def register(app: FastAPI, service: Service) -> None:
    """Add the routes."""
    access = service.settings.access

    async def sign_in(given: shapes.SessionToken) -> Response:
        """Sign in: a cookie that is as good as the header with the token.

        Where no token is needed, nothing is checked and no cookie is set.
        """
        access.check_given(given.token)
        cookie = access.cookie
        return _answer({} if cookie is None else {"Set-Cookie": f"{cookie[0]}={cookie[1]}; {_ATTRIBUTES}"})

    async def sign_out() -> Response:
        """Take the cookie back."""
        cookie = access.cookie
        return _answer({} if cookie is None else {"Set-Cookie": f"{cookie[0]}=; {_ATTRIBUTES}; Max-Age=0"})

    for method, endpoint in (("POST", sign_in), ("DELETE", sign_out)):
        failures = (408, 413, 415) if method == "POST" else ()
        answers: dict[int | str, dict[str, Any]] = described(json=False, failures=failures)
        del answers[200]
        summary, _, description = (endpoint.__doc__ or "").partition("\n")
        app.add_api_route(
            f"{API}/session",
            endpoint,
            methods=[method],
            status_code=204,
            response_class=Response,
            response_model=None,
            operation_id=endpoint.__name__,
            responses={204: {"description": "Done."}, **answers},
            summary=summary.rstrip("."),
            description=description.strip(),
            tags=["session"],
        )


# Whether the request came over https is not known here, so that Secure would shut out who comes without.
_ATTRIBUTES = "Path=/; HttpOnly; SameSite=Strict"


def _answer(headers: dict[str, str]) -> Response:
    return Response(status_code=204, headers=headers)
