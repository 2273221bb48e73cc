"""The outermost part of the service: each request gets an id, is checked, limited, measured, and its answer secured."""

from __future__ import annotations

import asyncio
import re
import secrets
import time
from typing import TYPE_CHECKING, Any

from bagindex.service import problems
from bagindex.service.access import UPLOAD, Access, too_large
from bagindex.service.problems import LOG, Problem, Texts

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from bagindex.service.metrics import Metrics

_BODY_SECONDS = 30.0
"""So long may a body take to come."""
POLICY = (
    "default-src 'none'; img-src 'self' data: blob:; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""For whatever is no page of a figure."""
PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; frame-ancestors 'none'; sandbox"
"""For pages and drawings that have everything in themselves: whatever is in them, nothing runs."""
_ALWAYS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"x-frame-options", b"DENY"),
)
_REQUEST_ID = re.compile(rb"[A-Za-z0-9_.-]{1,64}")


class Edge:
    """Wraps the application.

    Args:
        app: the application.
        access: who may ask.
        metrics: hears of every request.
        texts: makes texts of errors fit to be sent.
        most: requests under way at a time; more are refused.
        uploads: of these, how many may have a picture with them.
    """

    def __init__(self, app: ASGIApp, access: Access, metrics: Metrics, texts: Texts, most: int, uploads: int) -> None:
        self._app = app
        self._access = access
        self._metrics = metrics
        self._texts = texts
        self._most = most
        self._uploads_most = uploads
        self._under_way = 0
        self._uploads = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        method = scope["method"]
        given = next((value for key, value in scope["headers"] if key == b"x-request-id"), b"")
        request_id = given if _REQUEST_ID.fullmatch(given) else secrets.token_hex(8).encode()
        scope["request_id"] = request_id.decode()
        answer = _Answer(send, request_id, method == "HEAD")
        self._under_way += 1
        self._metrics.began()
        try:
            await self._answer(scope, receive, answer, method)
        finally:
            self._under_way -= 1
            route = getattr(scope.get("route"), "path", "none")
            self._metrics.ended(
                method if method in _METHODS else "other", route, answer.status, time.perf_counter() - began
            )

    async def _answer(self, scope: Scope, receive: Receive, answer: _Answer, method: str) -> None:
        try:
            limit = self._access.check(method, scope["path"], scope["headers"])
            if self._under_way > self._most and scope["path"] not in ("/healthz", "/readyz", "/metrics"):
                raise problems.busy("too many requests are under way")
            if method == "HEAD":
                scope["method"] = "GET"
            if limit < UPLOAD:
                await self._app(scope, _Body(receive, limit), answer.send)
                return
            # Each holds its picture in memory, while it waits too.
            if self._uploads >= self._uploads_most:
                raise problems.busy("too many pictures are sent at a time", 2)
            self._uploads += 1
            try:
                await self._app(scope, _Body(receive, limit), answer.send)
            finally:
                self._uploads -= 1
        except Exception as error:
            found = problems.of_error(error, self._texts)
            if found.status == 500:
                LOG.error("request %s: %s", scope["request_id"], scope["path"], exc_info=error)
            if not answer.began:
                await problems.response(found, scope["request_id"])(scope, receive, answer.send)


_METHODS = frozenset({"GET", "HEAD", "POST", "OPTIONS", "PUT", "DELETE", "PATCH"})


class _Answer:
    """What is sent, with the headers that every answer has."""

    def __init__(self, send: Send, request_id: bytes, headless: bool) -> None:
        self._send = send
        self._request_id = request_id
        self._no_body = headless
        self.status = 499
        """499: the client went away before it was answered."""
        self.began = False

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.began, self.status = True, message["status"]
            headers: list[Any] = list(message.get("headers", ()))
            names = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in _ALWAYS if name not in names]
            if b"content-security-policy" not in names:
                headers.append((b"content-security-policy", POLICY.encode()))
            if b"cache-control" not in names:
                headers.append((b"cache-control", b"no-store"))
            headers.append((b"x-request-id", self._request_id))
            message = {**message, "headers": headers}
        elif self._no_body and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)


class _Body:
    """A request's body, which may not be too large nor too slow."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive = receive
        self._limit = limit
        self._had = 0
        self._whole = False
        self._until = time.monotonic() + _BODY_SECONDS

    async def __call__(self) -> Message:
        if self._whole:  # what comes now is that the client goes away, which may take its time
            return await self._receive()
        try:
            message = await asyncio.wait_for(self._receive(), max(0.0, self._until - time.monotonic()))
        except TimeoutError:
            raise Problem(408, "too-slow", "the body did not come", {"Connection": "close"}) from None
        if message["type"] == "http.request":
            self._had += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._had > self._limit:
                raise too_large(self._limit)
        return message
