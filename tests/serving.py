"""A service that runs in this process, on a free port."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import uvicorn

from bagindex import Index
from bagindex.service.asking import Service
from bagindex.service.server import address_of, bind, configure
from bagindex.service.settings import Settings

API = "/api/v1"


@dataclass
class Running:
    """A service that runs: its client speaks to it over a socket."""

    service: Service
    client: httpx.Client
    address: str

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """GET below the API."""
        return self.client.get(API + path, params=parameters or None)

    def json(self, path: str, **parameters: Any) -> Any:
        """GET below the API, which must answer in JSON."""
        answer = self.get(path, **parameters)
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"] == "application/json"
        return answer.json()

    def arrow(self, path: str, **parameters: Any) -> pa.Table:
        """GET below the API, which must answer in Arrow."""
        accept = {"Accept": "application/vnd.apache.arrow.stream"}
        answer = self.client.get(API + path, params=parameters, headers=accept)
        assert answer.status_code == 200, answer.text
        return pa.ipc.open_stream(answer.content).read_all()

    def problem(self, path: str, status: int, code: str, **parameters: Any) -> dict[str, Any]:
        """GET below the API, which must be a problem."""
        return check_problem(self.get(path, **parameters), status, code)


def check_problem(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The answer is a problem, and tells nothing that it should not."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, Any] = answer.json()
    assert (found["status"], found["code"]) == (status, code), found
    assert found["request_id"] == answer.headers["x-request-id"]
    assert "Traceback" not in answer.text
    return found


@contextmanager
def running(
    indexes: Sequence[str | Path | Index], settings: Settings | None = None, **options: int
) -> Iterator[Running]:
    """Serve some indexes in a thread of this process."""
    paths = [each.path if isinstance(each, Index) else each for each in indexes]
    settings = settings or Settings()
    service = Service(paths, settings)
    bound = bind("127.0.0.1", 0)
    server = uvicorn.Server(configure(service, **options))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [bound]})
    thread.start()
    try:
        while not server.started:
            assert thread.is_alive()
            time.sleep(0.01)
        address = address_of(bound, "127.0.0.1").rstrip("/")
        with httpx.Client(base_url=address, timeout=60) as client:
            yield Running(service, client, address)
    finally:
        server.should_exit = True
        thread.join(60)
        bound.close()
