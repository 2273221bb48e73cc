"""An object store for tests: moto's server in a process of its own, behind a proxy that can misbehave."""

from __future__ import annotations

import http.client
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest

from bagindex import Index
from benchmarks import moto_server

_NEVER = 60.0
_ERRORS = {
    "slow down": (503, "SlowDown", "Please reduce your request rate."),
    "error": (500, "InternalError", "We encountered an internal error. Please try again."),
    "denied": (403, "AccessDenied", "Access Denied"),
    "elsewhere": (400, "AuthorizationHeaderMalformed", "the region 'us-east-1' is wrong; expecting 'eu-west-3'"),
}


@dataclass
class Fault:
    """What happens to the next so many requests that match.

    `kind`: one of `_ERRORS`; `refused`: the connection is closed without an answer; `cut`: in the middle of the
    answer; `lost`: the request is carried out, and its answer does not come; `hangs`: there is never an answer.
    """

    kind: str
    times: int = 1
    method: str = ""
    path: str = ""

    def matches(self, method: str, path: str) -> bool:
        """Whether a request is meant."""
        return self.times > 0 and self.method in ("", method) and re.search(self.path, path) is not None


@dataclass
class Store:
    """A store that is reached through a proxy.

    Attributes:
        address: the proxy's.
        requests: each as (method, path), with the query.
        sent: bytes of content that the store has sent.
        faults: what the proxy does.
    """

    address: str
    bucket: str
    behind: str
    requests: list[tuple[str, str]] = field(default_factory=list)
    sent: int = 0
    faults: list[Fault] = field(default_factory=list)

    def url(self, name: str) -> str:
        """A place in the test's bucket."""
        return f"s3://{self.bucket}/{name}"

    def fail(self, kind: str, times: int = 1, method: str = "", path: str = "") -> Fault:
        """Misbehave."""
        fault = Fault(kind, times, method, path)
        self.faults.append(fault)
        return fault

    def client(self) -> Any:
        """A file system that goes around the proxy."""
        import fsspec

        return fsspec.filesystem(
            "s3", endpoint_url=self.behind, key="a", secret="b", skip_instance_cache=True, use_listings_cache=False
        )

    def upload(self, folder: Path, name: str) -> str:
        """Put a folder's files; its URL."""
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != "LOCK"]
        places = [f"{self.bucket}/{name}/{path.relative_to(folder).as_posix()}" for path in files]
        self.client().put(list(map(str, files)), places)
        return self.url(name)


@pytest.fixture(scope="session")
def _moto() -> Iterator[str]:
    """The address of moto's server."""
    if find_spec("moto") is None or find_spec("flask") is None or find_spec("s3fs") is None:
        pytest.skip("moto's server or s3fs is not installed: pip install '.[test]'")
    with moto_server.running() as address:
        yield address


@pytest.fixture(scope="session")
def planted_in_store(planted_words: Index, _moto: str) -> str:
    """The URL of the planted pictures' index with words, in a bucket of its own. Not to be changed."""
    around = Store("", "planted", _moto)
    around.client().mkdir(around.bucket)
    return around.upload(planted_words.path, "planted")


@pytest.fixture
def memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The URL of an empty place, and a cache of its own. It is in a store that is this process's memory, or below the
    URL that BAGINDEX_TEST_STORE has, to try another.
    """
    monkeypatch.setenv("BAGINDEX_CACHE", str(tmp_path / "cache"))
    return f"{os.environ.get('BAGINDEX_TEST_STORE', 'memory:/')}/bucket-{time.monotonic_ns()}/index"


@pytest.fixture
def store(_moto: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Store]:
    """An empty bucket of a store that this test's processes use, and a cache of their own."""
    for name, value in {**moto_server.ENVIRONMENT, "BAGINDEX_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_CONFIG_FILE"):
        monkeypatch.delenv(name, raising=False)
    found = Store("", f"bucket-{time.monotonic_ns()}", _moto)
    found.client().mkdir(found.bucket)
    server = _Proxy(found)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", found.address)
    yield found
    server.over.set()
    server.shutdown()
    server.server_close()


class _Proxy(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, store: Store) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.store = store
        self.over = threading.Event()
        self.counting = threading.Lock()
        self.one_at_a_time = threading.Lock()
        store.address = f"http://127.0.0.1:{self.server_port}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients hang up when they are done."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Proxy

    def _pass_on(self) -> None:
        store = self.server.store
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        with self.server.counting:
            store.requests.append((self.command, self.path))
            fault = next((each for each in store.faults if each.matches(self.command, self.path)), None)
            if fault is not None:
                fault.times -= 1
        kind = fault.kind if fault else ""
        if kind == "hangs":
            self.server.over.wait(_NEVER)
        if kind in ("hangs", "refused"):
            self.close_connection = True
        elif kind in _ERRORS:
            status, code, message = _ERRORS[kind]
            self._answer(status, {"Content-Type": "application/xml"}, _error(code, message))
        else:
            status, headers, content = self._ask(body)
            if kind == "lost":
                self.close_connection = True
            else:
                self._answer(status, headers, content, cut=kind == "cut")

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = _pass_on  # noqa: N815

    def _ask(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        # moto looks at a condition and then puts; S3 does both at once.
        conditional = "If-None-Match" in self.headers or (self.command == "PUT" and "If-Match" in self.headers)
        with self.server.one_at_a_time if conditional else nullcontext():
            return self._send(body)

    def _send(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.server.store.behind.removeprefix("http://"), timeout=30)
        try:
            headers = {name: value for name, value in self.headers.items() if name.lower() != "connection"}
            connection.request(self.command, self.path, body, headers)
            answer = connection.getresponse()
            return answer.status, dict(answer.getheaders()), answer.read()
        finally:
            connection.close()

    def _answer(self, status: int, headers: dict[str, str], content: bytes, cut: bool = False) -> None:
        self.send_response_only(status)
        left_out = ("connection", "transfer-encoding", "content-length")
        for name, value in headers.items():
            if name.lower() not in left_out:
                self.send_header(name, value)
        length = headers.get("Content-Length", headers.get("content-length")) if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(content[: len(content) // 2] if cut else content)
        with self.server.counting:
            self.server.store.sent += len(content) if self.command == "GET" and "?list-type" not in self.path else 0
        if cut:
            self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""


def _error(code: str, message: str) -> bytes:
    return f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{escape(message)}</Message></Error>".encode()
