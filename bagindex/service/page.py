"""The web page: its files, as they lie in `web/`, under addresses that change when any of them does."""

from __future__ import annotations

import gzip
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template

from fastapi import FastAPI, Request
from starlette.responses import Response

from bagindex.service.pictures import keeping, known, unchanged
from bagindex.service.problems import Problem

PLACES = ("/", "/class", "/confusions", "/words", "/map", "/sql", "/picture")
"""All of them are one document, which draws what the address asks for."""
_TYPES = {
    "css": "text/css; charset=utf-8",
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}


@dataclass(frozen=True)
class _File:
    """A file of the page.

    Attributes:
        kind: its media type.
        data: what is in it.
        packed: the same under gzip.
    """

    kind: str
    data: bytes
    packed: bytes

    @classmethod
    def of(cls, name: str, data: bytes) -> _File:
        return cls(_TYPES[name.rsplit(".", 1)[-1]], data, gzip.compress(data, 9, mtime=0))

    def response(self, request: Request, headers: dict[str, str], status: int = 200) -> Response:
        sent = {"Vary": "Accept-Encoding", **headers}
        if "gzip" in request.headers.get("accept-encoding", ""):
            return Response(self.packed, status, {"Content-Encoding": "gzip", **sent}, self.kind)
        return Response(self.data, status, sent, self.kind)


class Page:
    """The page's files.

    Attributes:
        version: a digest of all of them, which stands in their addresses.
        document: what is sent for every place.
        files: all others, by their paths.
    """

    def __init__(self) -> None:
        contents = dict(_read(files("bagindex.service").joinpath("web"), ""))
        frame = contents.pop("index.html").decode()
        self.version = hashlib.sha256(
            b"".join(contents[name] for name in sorted(contents)) + frame.encode()
        ).hexdigest()[:16]
        base = f"/web/{self.version}"
        # All modules are asked for at once: found one by one through their imports, they take as many round trips as
        # these are deep.
        modules = [name for name in sorted(contents) if name.endswith(".js") and name != "theme.js"]
        preloads = "\n".join(f'<link rel="modulepreload" href="{base}/{name}">' for name in modules)
        self.document = _File.of("index.html", Template(frame).substitute(base=base, preloads=preloads).encode())
        self.files = {name: _File.of(name, data) for name, data in contents.items()}

    def nowhere(self, request: Request) -> Response | None:
        """What a person is shown at an address that nothing has; None for programs, which are told in JSON."""
        person = request.method == "GET" and "text/html" in request.headers.get("accept", "")
        if not person or request.url.path.startswith(("/api/", "/web/")):
            return None
        return self.document.response(request, {"Cache-Control": "no-store"}, 404)


def _read(folder: Traversable, before: str) -> list[tuple[str, bytes]]:
    found: list[tuple[str, bytes]] = []
    for each in folder.iterdir():
        if each.is_dir():
            found += _read(each, f"{before}{each.name}/")
        elif each.name.rsplit(".", 1)[-1] in _TYPES:
            found.append((before + each.name, each.read_bytes()))
    return found


def register(app: FastAPI, page: Page) -> None:
    """Add the routes."""

    async def document(request: Request) -> Response:
        """The page."""
        etag, headers = f'"{page.version}"', {"Cache-Control": "private, no-cache"}
        if known(request.headers.get("if-none-match"), etag):
            return unchanged(etag, headers)
        return page.document.response(request, {"ETag": etag, **headers})

    async def file(request: Request, version: str, name: str) -> Response:
        """A file of the page."""
        found = page.files.get(name)
        if found is None:
            raise Problem(404, "not-found", "there is no such file")
        return found.response(request, keeping(page.version, version))

    for place in PLACES:
        app.add_api_route(place, document, include_in_schema=False)
    app.add_api_route("/web/{version}/{name:path}", file, include_in_schema=False)
