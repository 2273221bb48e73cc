"""Who may ask the service, and how it starts and ends."""

from __future__ import annotations

import json
import os
import re
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
import webbrowser
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from bagindex import Index
from bagindex.errors import SettingsError
from bagindex.service import connections, edge, server
from bagindex.service.access import Access, is_loopback, split_host
from bagindex.service.asking import Service
from bagindex.service.problems import Problem
from bagindex.service.settings import Settings
from serving import API, Running, check_problem, running
from wordy import worded_index

TOKEN = "a-token-of-this-test-only"
ALWAYS = {
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "x-frame-options": "DENY",
}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of three pictures."""
    folder = tmp_path_factory.mktemp("small") / "i"
    worded_index(folder, np.random.default_rng(1).normal(size=(3, 6, 3)), ["cat", "dog", None]).close()
    return folder


@pytest.fixture(scope="module")
def service(small: Path) -> Iterator[Running]:
    """Served as by default."""
    with running([small]) as found:
        yield found


@pytest.fixture(scope="module")
def guarded(small: Path) -> Iterator[Running]:
    """Served as elsewhere than on loopback, with a token."""
    access = Access(host="0.0.0.0", hosts=frozenset({"bags.example.org"}), token=TOKEN)
    with running([small], Settings(access=access)) as found:
        yield found


def test_a_token(guarded: Running) -> None:
    ask = guarded.client.get
    for headers in (
        {},
        {"Authorization": "Bearer wrong"},
        {"Authorization": f"Basic {TOKEN}"},
        {"Authorization": TOKEN},
        {"Authorization": f"Bearer {TOKEN}x"},
        {"Authorization": "Bearer \xff"},
    ):
        raw = {name: value.encode("latin-1") for name, value in headers.items()}
        for path in (API + "/indexes", "/metrics", "/openapi.json", API + "/patches/1.png", API + "/x", "/%61pi/v1/x"):
            answer = ask(path, headers=raw)
            check_problem(answer, 401, "unauthorized")
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert TOKEN not in answer.text
    for scheme in ("Bearer", "bearer"):
        assert ask(API + "/indexes", headers={"Authorization": f"{scheme} {TOKEN}"}).status_code == 200
    assert ask(API + f"/indexes?token={TOKEN}").status_code == 401
    assert ask(API + "/indexes", headers={"Cookie": f"token={TOKEN}"}).status_code == 401
    for path in ("/healthz", "/readyz", "/"):
        assert ask(path).status_code == 200
    # The page's files are the same for everyone, and nobody's secret.
    assert guarded.service.pools.keys() & set(re.findall(r"\w+", ask("/").text)) == set()
    assert ask("/nothing").status_code == 404


def sign_in(service: Running, token: str, **headers: str) -> httpx.Response:
    return httpx.post(f"{service.address}{API}/session", json={"token": token}, headers=headers)


def test_signing_in_with_a_browser(guarded: Running, small: Path) -> None:
    answer = sign_in(guarded, TOKEN)
    assert (answer.status_code, answer.content) == (204, b"")
    cookie, *attributes = answer.headers["set-cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "Path=/", "SameSite=Strict"]
    assert TOKEN not in answer.headers["set-cookie"]
    name, value = cookie.split("=")

    def ask(given: str, path: str = API + "/images/1.png", **headers: str) -> int:
        return httpx.get(guarded.address + path, headers={"Cookie": given, **headers}).status_code

    assert ask(cookie) == 200
    assert ask(f"other=1;{cookie} ; {name}x=2") == 200
    assert [ask(cookie, path) for path in ("/metrics", "/openapi.json", API + "/indexes")] == [200] * 3
    for wrong in ("", name, f"{name}=", f"{name}={TOKEN}", f"{name}={value}x", f"{name}={value[:-1]}", f"x={value}"):
        assert ask(wrong) == 401
    odd = {"Cookie": f"{name}=ü".encode("latin-1")}
    assert httpx.get(guarded.address + API + "/indexes", headers=odd).status_code == 401  # type: ignore[arg-type]
    # What a page of another site embeds is refused as ever; so is one of another port, which gets the cookie too.
    assert ask(cookie, **{"Sec-Fetch-Site": "cross-site"}) == 403
    assert ask(cookie, **{"Sec-Fetch-Site": "same-site"}) == 403
    assert ask(cookie, **{"Sec-Fetch-Site": "same-origin"}) == 200
    foreign = {"Origin": "http://localhost:1", "Cookie": cookie}
    body: dict[str, Any] = {"files": {"picture": b"x"}, "headers": foreign}
    check_problem(httpx.post(f"{guarded.address}{API}/why", **body), 403, "foreign-origin")
    check_problem(sign_in(guarded, TOKEN, Origin="http://localhost:1"), 403, "foreign-origin")
    for token in ("wrong", "", TOKEN + "x", TOKEN[:-1], "größer"):
        content = json.dumps({"token": token})
        kind = {"Content-Type": "application/json"}
        refused = httpx.post(f"{guarded.address}{API}/session", content=content, headers=kind)
        check_problem(refused, 401, "unauthorized")
        assert refused.headers["www-authenticate"].startswith("Bearer")
        assert "set-cookie" not in refused.headers
    check_problem(httpx.post(f"{guarded.address}{API}/session", json={}), 422, "bad-parameters")
    check_problem(httpx.post(f"{guarded.address}{API}/session", files={"token": b"x"}), 415, "unsupported-type")
    out = httpx.delete(f"{guarded.address}{API}/session", headers={"Cookie": cookie})
    assert out.status_code == 204
    assert out.headers["set-cookie"].startswith(f"{name}=; ")
    assert "Max-Age=0" in out.headers["set-cookie"]
    with running([small], Settings(access=Access(token="another-token-of-this-test"))) as other:
        theirs = sign_in(other, "another-token-of-this-test").headers["set-cookie"].split("=")[0]
        assert theirs != name
        assert httpx.get(f"{other.address}{API}/indexes", headers={"Cookie": cookie}).status_code == 401


def test_signing_in_where_no_token_is_needed(service: Running) -> None:
    for answer in (sign_in(service, "anything"), service.client.delete(API + "/session")):
        assert answer.status_code == 204
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("localhost:1234", 200),
        ("LOCALHOST.", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:8400", 200),
        ("[0:0::1]", 200),
        ("evil.example", 421),
        ("localhost.evil.example", 421),
        ("192.168.1.5", 421),
        ("[::2]", 421),
        ("[::1", 400),
        ("::1", 400),
        ("", 400),
        ("localhost:port", 400),
        ("localhost/x", 400),
        ("user@localhost", 400),
    ],
)
def test_names_of_the_service(service: Running, host: str, status: int) -> None:
    answer = service.client.get("/healthz", headers={"Host": host})
    assert answer.status_code == status
    if status != 200:
        check_problem(answer, status, "bad-host" if status == 400 else "unknown-host")


def test_names_of_a_service_for_all(guarded: Running) -> None:
    for host, status in (
        ("bags.example.org", 200),
        ("Bags.example.org:8400", 200),
        ("10.1.2.3", 200),
        ("[fe80::1]", 200),
    ):
        assert guarded.client.get("/healthz", headers={"Host": host}).status_code == status
    assert guarded.client.get("/healthz", headers={"Host": "other.example.org"}).status_code == 421


def connected(service: Running) -> socket.socket:
    """A connection to it."""
    host, port = service.address.removeprefix("http://").split(":")
    return socket.create_connection((host, int(port)), timeout=10)


def raw(service: Running, *lines: str) -> str:
    """The first line of the answer to a request that is written by hand."""
    with connected(service) as connection:
        connection.sendall("\r\n".join([*lines, "Connection: close", "", ""]).encode("latin-1"))
        return connection.makefile("rb").readline().decode()


def test_requests_that_no_client_sends(service: Running) -> None:
    assert " 400 " in raw(service, "GET /healthz HTTP/1.0")
    assert " 400 " in raw(service, "GET /healthz HTTP/1.1", "Host: localhost", "Host: evil.example")
    assert " 400 " in raw(service, "nonsense")
    assert " 404 " in raw(service, "GET /../../etc/passwd HTTP/1.1", "Host: localhost")
    assert " 404 " in raw(service, f"GET {API}/patches/..%2f..%2fetc%2fpasswd.png HTTP/1.1", "Host: localhost")
    assert " 405 " in raw(service, f"DELETE {API}/images HTTP/1.1", "Host: localhost")
    assert " 400 " in raw(service, f"POST {API}/sql HTTP/1.1", "Host: localhost", "Content-Length: x")


@pytest.mark.parametrize(
    ("headers", "allowed"),
    [
        ({}, True),
        ({"Origin": "{self}"}, True),
        ({"Sec-Fetch-Site": "same-origin", "Origin": "{self}"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "{self}.evil.example"}, False),
        ({"Origin": "http://localhost:1"}, False),
        ({"Origin": "file://"}, False),
        ({"Origin": "http://[bad"}, False),
        ({"Origin": "{self}?"}, False),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "{self}"}, False),
    ],
)
def test_pages_of_other_sites(service: Running, headers: dict[str, str], allowed: bool) -> None:
    sent = {name: value.replace("{self}", service.address) for name, value in headers.items()}
    answer = service.client.post(API + "/sql", json={"sql": "SELECT 1"}, headers=sent)
    if allowed:
        assert answer.status_code == 200, answer.text
    else:
        check_problem(answer, 403, "foreign-origin")
    assert "access-control-allow-origin" not in answer.headers
    # A page of another site cannot read an answer, and may not make the service work; a link may be followed.
    embedded = "cross-site" in sent.get("Sec-Fetch-Site", "") or "same-site" in sent.get("Sec-Fetch-Site", "")
    asked = service.client.get(API + "/indexes", headers=sent)
    assert (asked.status_code, "access-control-allow-origin" in asked.headers) == (403 if embedded else 200, False)
    followed = service.client.get(API + "/indexes", headers={**sent, "Sec-Fetch-Dest": "document"})
    assert followed.status_code == 200
    assert service.client.options(API + "/sql", headers=sent).status_code == (403 if embedded else 405)


def test_headers_that_every_answer_has(service: Running, guarded: Running) -> None:
    answers = [
        service.client.get("/"),
        service.get("/indexes"),
        service.get("/images/1.png"),
        service.get("/nothing"),
        service.get("/images/99"),
        service.get("/top-patches"),
        service.client.get("/healthz", headers={"Host": "evil.example"}),
        service.client.post(API + "/sql", content=b""),
        service.client.get(API + "/images/1.png", headers={"If-None-Match": "*"}),
        guarded.get("/indexes"),
    ]
    assert [each.status_code for each in answers] == [200, 200, 200, 404, 404, 422, 421, 415, 304, 401]
    for answer in answers:
        assert ALWAYS.items() <= dict(answer.headers).items()
        assert answer.headers["content-security-policy"].startswith("default-src 'none'")
        assert answer.headers["x-request-id"]
        assert "server" not in answer.headers


def test_request_ids(service: Running) -> None:
    def answered(given: str) -> str:
        return str(service.client.get("/healthz", headers={"X-Request-ID": given}).headers["x-request-id"])

    assert answered("abc-1.2_3") == "abc-1.2_3"
    assert answered("a b") != "a b"
    assert answered("x" * 65) != "x" * 65
    assert len({answered("") for _ in range(5)}) == 5


def test_more_requests_than_are_taken(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(Index, "flip", lambda *_, **__: gate.wait(20))
    with running([small], Settings(threads=1, queue=0, requests=2)) as service:
        waiting = threading.Thread(target=lambda: httpx.get(service.address + API + "/flip?image=0", timeout=30))
        waiting.start()
        while "bagindex_questions_waiting 1.0" not in service.client.get("/metrics").text:
            time.sleep(0.01)
        refused = service.get("/images/1")
        check_problem(refused, 503, "busy")
        assert int(refused.headers["retry-after"]) >= 1
        assert service.client.get("/healthz").status_code == 200
        gate.set()
        waiting.join()
        assert service.get("/images/1").status_code == 200


def test_more_pictures_than_are_taken(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = threading.Event()
    monkeypatch.setattr(Index, "flip", lambda *_, **__: gate.wait(20))
    with running([small], Settings(uploads=1)) as service:
        files = {"picture": ("a.png", b"x")}
        waiting = threading.Thread(target=lambda: httpx.post(service.address + API + "/flip", files=files, timeout=30))
        waiting.start()
        while "bagindex_slow_questions_waiting 1.0" not in service.client.get("/metrics").text:
            time.sleep(0.01)
        check_problem(service.client.post(API + "/flip", files=files), 503, "busy")
        assert service.get("/images/1").status_code == 200
        gate.set()
        waiting.join()


def test_a_body_that_does_not_come(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(edge, "_BODY_SECONDS", 0.2)
    lines = [f"POST {API}/sql HTTP/1.1", "Host: localhost", "Content-Type: application/json", "Content-Length: 10"]
    assert " 408 " in raw(service, *lines)


@pytest.mark.parametrize("sent", [b"", b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX: "])
def test_a_head_that_does_not_come(service: Running, monkeypatch: pytest.MonkeyPatch, sent: bytes) -> None:
    monkeypatch.setattr(connections, "_PATIENCE", 0.3)
    with connected(service) as new, connected(service) as used:
        used.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert used.recv(9) == b"HTTP/1.1 "
        for each in (new, used):
            each.sendall(sent)
        began = time.monotonic()
        while time.monotonic() < began + 0.2:  # one byte at a time is no head
            time.sleep(0.05)
            with suppress(OSError):
                new.sendall(b"x" if sent else b"")
        for each in (new, used):
            with suppress(ConnectionResetError):
                while each.recv(10_000):
                    pass
        assert time.monotonic() - began < 5


def test_an_answer_that_is_not_taken(service: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_PATIENCE", 0.3)
    request = b"GET /openapi.json HTTP/1.1\r\nHost: localhost\r\n\r\n"
    before = _open_files()
    with connected(service) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(0.1)
        with suppress(TimeoutError, ConnectionResetError, BrokenPipeError):
            for _ in range(1000):
                connection.sendall(request * 100)
        began = time.monotonic()
        while _open_files() > before + 1:  # our end of it
            assert time.monotonic() - began < 10
            time.sleep(0.05)
    assert service.client.get("/healthz").status_code == 200


def _open_files() -> int:
    return len(os.listdir("/dev/fd"))


def test_an_answer_that_takes_its_time(small: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "_PATIENCE", 0.1)
    monkeypatch.setattr(Index, "tables", lambda _: time.sleep(1) or {})
    with running([small]) as service:
        assert service.get("/tables").status_code == 200


def test_more_connections_than_are_taken(small: Path) -> None:
    with running([small], connections=4) as service, connected(service), connected(service), connected(service):
        with connected(service) as refused:
            answer = refused.makefile("rb").read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b"\r\nRetry-After: " in answer


def test_more_connections_than_there_are_files_for(small: Path, processes: list[Process]) -> None:
    process = Process(small, files=200)
    processes.append(process)
    place = process.address.removeprefix("http://").split(":")
    held = [socket.create_connection((place[0], int(place[1])), timeout=10) for _ in range(300)]
    assert httpx.get(process.address + "/healthz", timeout=10).status_code == 503
    for each in held:
        each.close()
    while httpx.get(process.address + API + "/images/1", timeout=10).status_code == 503:
        time.sleep(0.05)
    assert httpx.get(process.address + API + "/images/1", timeout=10).status_code == 200
    assert process.end(signal.SIGTERM)[:3] == (0, "", "")


def test_files_are_left_for_the_indexes(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = [(256, 100_000)]
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits[-1])
    monkeypatch.setattr(resource, "setrlimit", lambda _, wanted: limits.append(wanted))
    assert connections.most_connections() == 4096
    assert limits[-1] == (8192, 100_000)
    limits.append((256, 600))
    assert connections.most_connections() == 300
    assert limits[-1] == (600, 600)
    limits.append((resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    assert connections.most_connections() == 4096


# How it starts.


def test_hosts() -> None:
    assert [is_loopback(each) for each in ("127.0.0.1", "127.9.9.9", "::1", "localhost", "LocalHost")] == [True] * 5
    assert not any(map(is_loopback, ("0.0.0.0", "::", "10.0.0.1", "example.org", "")))
    assert split_host("[::1]:80") == "::1"
    assert split_host("Example.org.") == "example.org"
    assert split_host("a b") is None


def test_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    local, made = server.settings_for("127.0.0.1")
    assert (local.access.token, local.sql, made) == (None, True, False)
    assert server.settings_for("localhost", sql=False)[0].sql is False
    everywhere, made = server.settings_for("0.0.0.0")
    assert made
    assert len(everywhere.access.token or "") >= 40
    assert everywhere.sql is False
    assert server.settings_for("0.0.0.0", sql=True)[0].sql is True
    assert server.settings_for("0.0.0.0")[0].access.token != everywhere.access.token
    assert server.settings_for("0.0.0.0", token=TOKEN) == (server.settings_for("0.0.0.0", token=TOKEN)[0], False)
    for token in ("short", "", "with a space in the middle", "größer als sechzehn Zeichen"):
        with pytest.raises(SettingsError, match="token"):
            server.settings_for("127.0.0.1", token=token)


def test_root_serves_this_machine_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    assert server.settings_for("::1")[0].access.host == "::1"
    with pytest.raises(SettingsError, match="--allow-root"):
        server.settings_for("0.0.0.0")
    assert server.settings_for("0.0.0.0", allow_root=True)[1]


def test_a_port_that_is_taken(run, small: Path) -> None:  # type: ignore[no-untyped-def]
    with server.bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        result = run("serve", "-i", small, "--port", port)
    assert result.status == 1
    assert result.err.startswith(f"bagindex: cannot listen on port {port} of 127.0.0.1")
    assert "--port" in result.err
    assert run("serve", "-i", small, "--host", "no.such.host.invalid", "--allow-root").err.startswith(
        "bagindex: no.such"
    )
    assert "there is no index" in run("serve", "-i", "nothing", "--port", 0).err


@pytest.mark.parametrize("terminal", [True, False])
def test_the_browser_is_told_the_token(
    run,
    small: Path,
    monkeypatch: pytest.MonkeyPatch,
    terminal: bool,  # type: ignore[no-untyped-def]
) -> None:
    opened: list[str] = []
    service = Service([small], Settings())

    def serve(*_: object, announce: Callable[[str, Service], None], **__: object) -> None:
        monkeypatch.setattr(sys.stderr, "isatty", lambda: terminal)
        announce("http://127.0.0.1:1/", service)
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and getattr(thread, "_target", None) is webbrowser.open:
                thread.join()

    monkeypatch.setattr(server, "serve", serve)
    monkeypatch.setattr(webbrowser, "open", opened.append)
    result = run("serve", "-i", small, "--open", "--token", "sixteen/and+more#of?it")
    address = "http://127.0.0.1:1/#token=sixteen%2Fand%2Bmore%23of%3Fit"
    # A token that was given is shown to a person, and gets into no log.
    assert result.err == (f"bagindex: in a browser: {address}\n" if terminal else "")
    assert "token" not in result.out
    run("serve", "-i", small, "--open")
    service.close()
    assert opened == [address, "http://127.0.0.1:1/"]


def test_access_to_ipv6() -> None:
    headers = [(b"host", b"[::1]:8400")]
    assert Access(host="::1").check("GET", "/", headers) > 0
    assert Access(host="FE80:0::1").check("GET", "/", [(b"host", b"[fe80::1]:8400")]) > 0
    assert server.address_of(_Bound(), "::1") == "http://[::1]:8400/"  # type: ignore[arg-type]
    assert server.address_of(_Bound(), "0.0.0.0") == "http://127.0.0.1:8400/"  # type: ignore[arg-type]
    with pytest.raises(Problem):
        Access(host="::1").check("GET", "/", [(b"host", b"[::2]:8400")])


class _Bound:
    def getsockname(self) -> tuple[str, int]:
        return "::1", 8400


# A process of its own.

_SLOW = """
import sys, time
from bagindex import Index
import bagindex_cli
flip = Index.flip
def slow(*arguments, **options):
    print("asked", file=sys.stderr, flush=True)
    time.sleep(SECONDS)
    return flip(*arguments, **options)
Index.flip = slow
sys.argv = ["bagindex", "serve", *sys.argv[1:]]
bagindex_cli.main()
"""


class Process:
    """`bagindex serve` as a process."""

    def __init__(self, index: Path, *options: str, seconds: float = 0.0, files: int | None = None) -> None:
        code = _SLOW.replace("SECONDS", str(seconds))
        if files is not None:
            code = f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, ({files}, {files}))\n{code}"
        command = [sys.executable, "-c", code, "-i", str(index), "--port", "0", *options]
        # Not in a group of its own: what ends the tests ends it.
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        self.line = self.process.stdout.readline()
        if not self.line:
            raise AssertionError(self.process.communicate()[1])
        self.address = self.line.split()[-1].rstrip("/")

    def end(self, sent: int) -> tuple[int, str, str, float]:
        """Send a signal; exit status, what was printed since, and the seconds it took."""
        began = time.perf_counter()
        self.process.send_signal(sent)
        out, err = self.process.communicate(timeout=60)
        return self.process.returncode, out, err, time.perf_counter() - began


@pytest.fixture
def processes() -> Iterator[list[Process]]:
    """Processes that do not outlive the test."""
    started: list[Process] = []
    yield started
    for each in started:
        if each.process.poll() is None:
            each.process.kill()
            each.process.communicate()


def test_sigterm_finishes_what_is_under_way(small: Path, processes: list[Process]) -> None:
    process = Process(small, seconds=1.5)
    processes.append(process)
    assert process.line.startswith(f"serving {small.name} at http://127.0.0.1:")
    found: list[Any] = []
    client = threading.Thread(
        target=lambda: found.append(httpx.get(process.address + API + "/flip?image=0", timeout=30))
    )
    client.start()
    assert process.process.stderr is not None
    assert process.process.stderr.readline() == "asked\n"
    status, out, err, _ = process.end(signal.SIGTERM)
    client.join()
    assert (status, out, err) == (0, "", "")
    assert found[0].status_code == 200
    with pytest.raises(httpx.ConnectError):
        httpx.get(process.address + "/healthz")


def test_ctrl_c_ends_quickly(small: Path, processes: list[Process]) -> None:
    process = Process(small, seconds=30)
    processes.append(process)

    def ask() -> None:
        with pytest.raises(httpx.HTTPError):
            httpx.get(process.address + API + "/flip?image=0", timeout=60).raise_for_status()

    client = threading.Thread(target=ask)
    client.start()
    assert process.process.stderr is not None
    process.process.stderr.readline()
    status, out, err, seconds = process.end(signal.SIGINT)
    client.join()
    assert status == 130
    assert "Traceback" not in out + err
    assert seconds < 10


def test_a_token_is_printed_once(small: Path, processes: list[Process]) -> None:
    process = Process(small, "--host", "0.0.0.0", "--allow-root", "--allow-host", "bags.example.org")
    processes.append(process)
    assert process.process.stderr is not None
    token = process.process.stderr.readline().split()[-1]
    assert process.process.stderr.readline() == f"bagindex: in a browser: {process.address}/#token={token}\n"
    assert httpx.get(process.address + API + "/indexes").status_code == 401
    headers = {"Authorization": f"Bearer {token}"}
    assert httpx.get(process.address + API + "/indexes", headers=headers).status_code == 200
    refused = httpx.post(process.address + API + "/sql", json={"sql": "SELECT 1"}, headers=headers)
    check_problem(refused, 403, "sql-off")
    status, out, err, _ = process.end(signal.SIGTERM)
    assert (status, out, err) == (0, "", "")
