"""What goes wrong, as problem details (RFC 9457): a code, a text that says what to do, never a path or a traceback."""

from __future__ import annotations

import logging
import re
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from bagindex import errors
from bagindex.output import to_json_value

MEDIA_TYPE = "application/problem+json"
LOG = logging.getLogger("bagindex.service")

_STATUS: Sequence[tuple[type[errors.BagindexError], int, str]] = (
    (errors.UnknownClassError, 404, "unknown-class"),
    (errors.UnknownImageError, 404, "unknown-image"),
    (errors.UnknownPatchError, 404, "unknown-patch"),
    (errors.UnknownModelError, 404, "unknown-model"),
    (errors.NotKeptError, 409, "not-kept"),
    (errors.PictureSizeError, 413, "too-large"),
    (errors.QueryError, 422, "cannot-answer"),
    (errors.SettingsError, 422, "bad-parameters"),
    (errors.OutputError, 422, "cannot-draw"),
    (errors.IndexNotFoundError, 404, "unknown-index"),
    (errors.IncompleteIndexError, 409, "incomplete-index"),
    (errors.OutdatedError, 409, "outdated-index"),
    (errors.NewerIndexError, 409, "newer-index"),
    (errors.DamagedIndexError, 500, "damaged-index"),
    (errors.StoreError, 503, "store-unavailable"),
)
# Texts of errors name the command line's options.
_OPTIONS = {
    **{"--any": "images=any", "--at": "at", "--alpha": "alpha", "--beneath": "beneath", "--box": "box", "-k": "k"},
    **{"--image": "image", "--metric": "metric", "--model": "model", "--per-image": "per_image", "--vs": "vs"},
    **{"--offset": "offset", "--where": "where"},
}
# A whole command is left as it is.
_OPTION = re.compile(r"`[^`]*`|(?<![\w-])(?:" + "|".join(sorted(_OPTIONS, key=len, reverse=True)) + r")(?![\w-])")
_ABSOLUTE = re.compile(r"(?<![\w./:])/(?!/)[^\s'\"`,;:()<>|]+")


class Problem(HTTPException):
    """An answer that is a problem. (Other exceptions FastAPI swallows while a body is read.)"""

    def __init__(
        self, status: int, code: str, detail: str, headers: Mapping[str, str] | None = None, **more: object
    ) -> None:
        super().__init__(status, detail, dict(headers or {}))
        self.status = status
        self.code = code
        self.more = more


def busy(what: str, seconds: int = 1) -> Problem:
    """The service has as much to do as it takes on."""
    return Problem(503, "busy", f"{what}: try again in a moment", {"Retry-After": str(seconds)})


class Texts:
    """Makes the texts of errors fit to be sent: without the server's paths, with the service's names of options.

    Args:
        roots: folders of indexes by name.
        urls: the names of indexes by where else they are.
    """

    def __init__(self, roots: Mapping[str, Path], urls: Mapping[str, str] | None = None) -> None:
        places = dict(urls or {}) | {str(path): name for name, each in roots.items() for path in (each, each.resolve())}
        here = {str(path): "…" for path in (Path.cwd(), Path.home(), Path(tempfile.gettempdir()), Path(sys.prefix))}
        known = {path: text for path, text in {**here, **places}.items() if len(path) > 1}
        # The longest first: a root may lie in the working folder.
        self._known = sorted(known.items(), key=lambda pair: -len(pair[0]))

    def clean(self, text: str) -> str:
        """The text without absolute paths."""
        for path, name in self._known:
            text = text.replace(path, name)
        text = _ABSOLUTE.sub("…", text)
        return _OPTION.sub(lambda match: _OPTIONS.get(match[0], match[0]), text)


def of_error(error: Exception, texts: Texts) -> Problem:
    """The problem that an error is; of an error that is a bug, nothing is told."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, errors.BagindexError):
        # The sandbox's errors are known by name: it is imported only where SQL is asked.
        name = type(error).__name__
        if name in ("BusyError", "StartError"):
            return busy(texts.clean(str(error)))
        if name in ("RefusedError", "TimeLimitError"):
            return Problem(422, "refused" if name == "RefusedError" else "time-limit", texts.clean(str(error)))
        for kind, status, code in _STATUS:
            if isinstance(error, kind):
                return Problem(status, code, texts.clean(str(error)))
    if isinstance(error, MemoryError):
        return Problem(503, "out-of-memory", "the server has not enough memory for this", {"Retry-After": "5"})
    return Problem(500, "internal", "this is a bug of bagindex: the server's log has it under this request id")


def response(problem: Problem, request_id: str) -> Response:
    """The problem as it is sent."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": HTTPStatus(problem.status).phrase,
        "status": problem.status,
        "code": problem.code,
        "detail": problem.detail,
        "request_id": request_id,
        **problem.more,
    }
    data = to_json_value(body).encode("utf-8", "backslashreplace")
    return Response(data, problem.status, {**(problem.headers or {}), "Cache-Control": "no-store"}, MEDIA_TYPE)


def install(app: FastAPI, texts: Texts, nowhere: Callable[[Request], Response | None]) -> None:
    """Answer every error with a problem; at an address that nothing has, `nowhere` may have another answer."""

    async def on_error(request: Request, error: Exception) -> Response:
        found = of_error(error, texts)
        request_id = str(request.scope.get("request_id", ""))
        if found.status == 500:
            LOG.error("request %s: %s", request_id, request.url.path, exc_info=error)
        return response(found, request_id)

    async def on_http(request: Request, error: Exception) -> Response:
        raised = error if isinstance(error, HTTPException) else HTTPException(500)
        status = raised.status_code
        if status == 404 and (shown := nowhere(request)) is not None:
            return shown
        code = {404: "no-such-route", 405: "method-not-allowed", 413: "too-large"}.get(status, "bad-request")
        detail = "/openapi.json lists the routes" if status == 404 else texts.clean(str(raised.detail))
        found = Problem(status, code, detail, raised.headers)
        return response(found, str(request.scope.get("request_id", "")))

    async def on_validation(request: Request, error: Exception) -> Response:
        wrong = error.errors() if isinstance(error, RequestValidationError) else []
        listed = [{"where": ".".join(map(str, each["loc"])), "message": str(each["msg"])} for each in wrong]
        said = "; ".join(f"{each['where']}: {each['message']}" for each in listed)
        found = Problem(422, "bad-parameters", texts.clean(said), errors=listed)
        return response(found, str(request.scope.get("request_id", "")))

    app.add_exception_handler(Problem, on_error)
    app.add_exception_handler(errors.BagindexError, on_error)
    app.add_exception_handler(RequestValidationError, on_validation)
    app.add_exception_handler(HTTPException, on_http)
