"""The official weights' way into the cache, on a local server that does what servers do."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import random
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from bagindex import download, fetching, official
from bagindex.errors import SettingsError, WeightsError
from bagindex.official import State
from bagindex.registry import ARCHITECTURES, NETWORKS
from bagindex_cli import weights

DATA = random.Random(9).randbytes(300_000)
OTHER = random.Random(10).randbytes(310_000)
SHA256 = hashlib.sha256(DATA).hexdigest()
OTHER_SHA256 = hashlib.sha256(OTHER).hexdigest()
FILE = f"bagnet8-{SHA256[:8]}.pth.tar"


class Server(ThreadingHTTPServer):
    """Serves `data` under every path, or does what the next of `script` says."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.data = DATA
        self.etag: str | None = '"1"'
        self.dated = False
        self.ranges = True
        self.sized = True
        self.script: list[Callable[[Handler], None]] = []
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.asked = threading.Event()
        self.release = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def sent(self, name: str) -> list[str | None]:
        """A header of each request."""
        return [headers.get(name) for _, headers in self.requests]


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.server.asked.set()
        (self.server.script.pop(0) if self.server.script else whole)(self)

    def do_CONNECT(self) -> None:
        self.server.requests.append((self.path, dict(self.headers)))
        self.send_error(407)

    def begin(self) -> bytes:
        """Send the headers. Returns the body that they announce."""
        start = 0
        if self.server.ranges and (wanted := self.headers["Range"]):
            start = int(wanted.removeprefix("bytes=").removesuffix("-"))
            if self.headers["If-Range"] not in (None, self.server.etag, "yesterday" if self.server.dated else None):
                start = 0
        body, size = self.server.data[start:], len(self.server.data)
        if start and not body:
            self.send_error(416)
            return b""
        self.send_response(206 if start else 200)
        if start:
            self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
        if self.server.etag:
            self.send_header("ETag", self.server.etag)
        if self.server.dated:
            self.send_header("Last-Modified", "yesterday")
        if self.server.sized:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        return body

    def log_message(self, *_: object) -> None:
        pass


def whole(handler: Handler) -> None:
    handler.wfile.write(handler.begin())


def cut(handler: Handler) -> None:
    """Promise all of it, send half, close."""
    body = handler.begin()
    handler.wfile.write(body[: len(body) // 2])


def stall(handler: Handler) -> None:
    """Send half; the rest when the test says so, if the other side still wants it."""
    body = handler.begin()
    handler.wfile.write(body[: len(body) // 2])
    handler.server.release.wait(10)
    try:
        handler.wfile.write(body[len(body) // 2 :])
    except OSError:
        handler.close_connection = True


def answer(status: int) -> Callable[[Handler], None]:
    return lambda handler: handler.send_error(status)


def elsewhere(handler: Handler) -> None:
    """Send another part than was asked for."""
    handler.send_response(206)
    handler.send_header("Content-Range", "bytes 7-8/9")
    handler.end_headers()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as serving:
        thread = threading.Thread(target=serving.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield serving
        serving.release.set()
        serving.shutdown()
        thread.join()


@pytest.fixture
def folder(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache; the server has bagnet9's official weights."""
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    monkeypatch.setenv("BAGINDEX_WEIGHTS", str(tmp_path / "cache" / "weights"))
    monkeypatch.setenv("BAGINDEX_WEIGHTS_URL", f"{server.url}/raw/")
    monkeypatch.setitem(ARCHITECTURES, "bagnet9", dataclasses.replace(ARCHITECTURES["bagnet9"], weights_file=FILE))
    monkeypatch.setattr(fetching, "_BACK_OFF", (0, 0, 0))
    return tmp_path / "cache" / "weights"


def kept(folder: Path) -> list[str]:
    """What is in the cache, but for the lock."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def begin(folder: Path, data: bytes, etag: str | None) -> None:
    """Leave what a download leaves that was broken off."""
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").write_bytes(data)
    if etag is not None:
        (folder / f"{FILE}.part.etag").write_text(etag)


def test_a_whole_download(folder: Path, server: Server) -> None:
    seen: list[tuple[int, int | None]] = []
    path = official.fetch("bagnet9", progress=lambda done, total: seen.append((done, total)))
    assert path == folder / FILE
    assert path.read_bytes() == DATA
    assert kept(folder) == [FILE]
    assert [name for name, _ in server.requests] == [f"/raw/{FILE}"]
    assert (server.sent("User-Agent")[0] or "").startswith("bagindex/")
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert (seen[0], seen[-1]) == ((0, len(DATA)), (len(DATA), len(DATA)))
    assert official.fetch("bagnet9") == path
    assert len(server.requests) == 1


def test_the_size_is_not_said(folder: Path, server: Server) -> None:
    server.sized = False
    seen: list[tuple[int, int | None]] = []
    official.fetch("bagnet9", progress=lambda done, total: seen.append((done, total)))
    assert (folder / FILE).read_bytes() == DATA
    assert seen[-1] == (len(DATA), None)


@pytest.mark.parametrize(("etag", "dated", "named"), [('"1"', False, '"1"'), ('W/"1"', True, "yesterday")])
def test_it_goes_on_after_a_cut(folder: Path, server: Server, etag: str, dated: bool, named: str) -> None:
    server.etag, server.dated = etag, dated
    server.script = [cut, cut]
    seen: list[int] = []
    notes: list[str] = []
    official.fetch("bagnet9", progress=lambda done, total: seen.append(done), note=notes.append)
    assert (folder / FILE).read_bytes() == DATA
    assert server.sent("Range") == [None, "bytes=150000-", "bytes=225000-"]
    assert server.sent("If-Range") == [None, named, named]
    assert seen == sorted(seen)
    assert seen[-1] == len(DATA)
    assert notes[0] == "the connection broke after 150 kB of 300 kB; trying again in 0 s"
    assert kept(folder) == [FILE]


def test_a_later_command_goes_on(folder: Path, server: Server) -> None:
    server.script = [cut] * 4
    with pytest.raises(WeightsError, match=r"the connection broke after 281 kB of 300 kB; the same command goes on"):
        official.fetch("bagnet9")
    assert len(server.requests) == 4
    assert kept(folder) == [f"{FILE}.part", f"{FILE}.part.etag"]
    official.fetch("bagnet9")
    assert server.sent("Range")[-1] == "bytes=281250-"
    assert (folder / FILE).read_bytes() == DATA


def test_without_ranges(folder: Path, server: Server) -> None:
    server.ranges = False
    server.script = [cut]
    seen: list[int] = []
    official.fetch("bagnet9", progress=lambda done, total: seen.append(done))
    assert server.sent("Range") == [None, "bytes=150000-"]
    assert (folder / FILE).read_bytes() == DATA
    assert seen.count(0) == 2


def test_the_etag_changed(folder: Path, server: Server) -> None:
    begin(folder, OTHER[:1000], '"0"')
    official.fetch("bagnet9")
    assert server.sent("If-Range") == ['"0"']
    assert (folder / FILE).read_bytes() == DATA


@pytest.mark.parametrize("etag", ['"1"', None])
@pytest.mark.parametrize("left", [OTHER[:1000], OTHER[: len(DATA)], OTHER])
def test_what_was_left_does_not_fit(folder: Path, server: Server, left: bytes, etag: str | None) -> None:
    begin(folder, left, etag)
    notes: list[str] = []
    official.fetch("bagnet9", note=notes.append)
    assert (folder / FILE).read_bytes() == DATA
    assert server.sent("Range") == [f"bytes={len(left)}-", None]
    assert notes == [f"what was there of {FILE} does not fit what came now: beginning anew"]


def test_killed_before_the_rename(folder: Path, server: Server) -> None:
    begin(folder, DATA, '"1"')
    official.fetch("bagnet9")
    assert (folder / FILE).read_bytes() == DATA
    assert len(server.requests) == 1
    assert kept(folder) == [FILE]


def test_another_part_than_asked_for(folder: Path, server: Server) -> None:
    begin(folder, DATA[:1000], '"1"')
    server.script = [elsewhere]
    official.fetch("bagnet9")
    assert server.sent("Range") == ["bytes=1000-", None]
    assert (folder / FILE).read_bytes() == DATA


def test_a_wrong_hash(folder: Path, server: Server) -> None:
    server.data = OTHER
    with pytest.raises(WeightsError) as caught:
        official.fetch("bagnet9")
    text = str(caught.value)
    assert f"its SHA-256 should begin with {SHA256[:8]}, but is {OTHER_SHA256};" in text
    assert f"--allow-hash {OTHER_SHA256} if you know better" in text
    assert kept(folder) == []
    assert len(server.requests) == 1
    with pytest.raises(WeightsError, match="is refused"):
        official.fetch("bagnet9", allow_hash="0" * 64)
    assert kept(folder) == []
    path = official.fetch("bagnet9", allow_hash=OTHER_SHA256[:8].upper())
    assert path.read_bytes() == OTHER
    assert len(server.requests) == 3
    # It is accepted by whom says so, each time.
    assert official.fetch("bagnet9", allow_hash=OTHER_SHA256) == path
    with pytest.raises(WeightsError, match=rf"{FILE} is refused: .* is {OTHER_SHA256}; remove the file to fetch"):
        official.fetch("bagnet9")
    assert official.status()[0].state is State.OTHER
    assert official.is_official(path)
    assert len(server.requests) == 3


@pytest.mark.parametrize("allowed", ["", "abc", "1234567", "x" * 64, "0" * 65])
def test_bad_hashes(folder: Path, allowed: str) -> None:
    with pytest.raises(SettingsError, match="--allow-hash takes a SHA-256"):
        official.fetch("bagnet9", allow_hash=allowed)


def bring_text(server: Server, folder: Path) -> str:
    return (
        f"bring {FILE} (its SHA-256 begins with {SHA256[:8]}) from {server.url}/raw/{FILE} and run "
        f"`bagindex weights install {FILE}`, which puts it at {folder / FILE}"
    )


@pytest.mark.parametrize(("status", "reason"), [(404, "Not Found"), (403, "Forbidden"), (410, "Gone")])
def test_a_dead_link(folder: Path, server: Server, status: int, reason: str) -> None:
    server.script = [answer(status)]
    with pytest.raises(WeightsError) as caught:
        official.fetch("bagnet9")
    assert (
        str(caught.value)
        == f"cannot fetch the weights of bagnet9: HTTP {status} {reason}; {bring_text(server, folder)}"
    )
    assert len(server.requests) == 1


def test_a_server_in_trouble(folder: Path, server: Server) -> None:
    server.script = [answer(503), answer(429)]
    notes: list[str] = []
    official.fetch("bagnet9", note=notes.append)
    assert notes == [
        f"HTTP {text}; trying again in 0 s" for text in ("503 Service Unavailable", "429 Too Many Requests")
    ]
    (folder / FILE).unlink()
    server.script = [answer(500)] * 9
    with pytest.raises(WeightsError, match="HTTP 500 Internal Server Error; the same command goes on later, or bring"):
        official.fetch("bagnet9")
    assert len(server.requests) == 7


def test_no_answer(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_TIMEOUT", 0.1)
    server.script = [lambda handler: handler.server.release.wait(10) and None, stall]
    notes: list[str] = []
    official.fetch("bagnet9", note=notes.append)
    assert notes == [
        "no answer for 0.1 s; trying again in 0 s",
        "the connection broke: no answer for 0.1 s; trying again in 0 s",
    ]
    assert (folder / FILE).read_bytes() == DATA


def test_nobody_there(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as closed:
        pass

    def resolve(host: str, *_: object) -> object:
        # A true resolver may take its time to say so.
        if host == "nowhere.invalid":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return getaddrinfo(host, *_)

    getaddrinfo = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    cases = [
        (closed.url, "Connection refused"),
        ("http://nowhere.invalid", r"the host is not found: Name or service not known"),
        (server.url.replace("http:", "https:"), r"\[SSL.*"),  # no TLS is spoken there
    ]
    for url, reason in cases:
        monkeypatch.setenv("BAGINDEX_WEIGHTS_URL", url)
        with pytest.raises(WeightsError) as caught:
            official.fetch("bagnet9")
        found = re.escape(f"{url}/{FILE} and run `bagindex weights install {FILE}`")
        assert re.fullmatch(rf"cannot fetch the weights of bagnet9: {reason}; bring .*{found}.*", str(caught.value))


@pytest.mark.parametrize(
    "url", ["file:///etc", "weights", "http://", "https://host:port/", "http://a/b?c=d", "http://a b"]
)
def test_bad_mirrors(folder: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("BAGINDEX_WEIGHTS_URL", url)
    with pytest.raises(SettingsError, match="BAGINDEX_WEIGHTS_URL must be"):
        official.fetch("bagnet9")


def test_a_proxy(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAGINDEX_WEIGHTS_URL", "http://weights.invalid/raw")
    monkeypatch.setenv("http_proxy", server.url)
    server.script = [cut]
    official.fetch("bagnet9")
    assert [name for name, _ in server.requests] == [f"http://weights.invalid/raw/{FILE}"] * 2
    assert server.sent("Range") == [None, "bytes=150000-"]
    assert (folder / FILE).read_bytes() == DATA


def test_a_proxy_that_refuses(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BAGINDEX_WEIGHTS_URL", "https://weights.invalid/raw")
    monkeypatch.setenv("https_proxy", server.url.replace("//", "//me:secret@"))
    with pytest.raises(WeightsError) as caught:
        official.fetch("bagnet9")
    assert [name for name, _ in server.requests] == ["weights.invalid:443"]
    text = (
        f"bagnet9 through the proxy 127.0.0.1:{server.server_port}: Tunnel connection failed: 407 Proxy Authentication"
    )
    assert text in str(caught.value)
    assert "secret" not in str(caught.value)


def test_no_proxy_for_some(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    with Server() as closed:
        monkeypatch.setenv("http_proxy", f"{closed.url}/")
    with pytest.raises(WeightsError, match=f"through the proxy 127.0.0.1:{closed.server_port}: Connection refused; b"):
        official.fetch("bagnet9")
    monkeypatch.setenv("no_proxy", "localhost,127.0.0.1")
    assert official.fetch("bagnet9").read_bytes() == DATA


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_full_disk(folder: Path, server: Server) -> None:
    folder.mkdir(parents=True)
    (folder / f"{FILE}.part").symlink_to("/dev/full")
    with pytest.raises(WeightsError, match=rf"cannot keep weights in {folder}: No space left on device; .*BAGINDEX_W"):
        official.fetch("bagnet9")
    assert len(server.requests) == 1
    (folder / f"{FILE}.part").unlink()
    brought, copy = folder.parent / "brought", folder / f"{FILE}.copy"
    brought.write_bytes(DATA)
    copy.symlink_to("/dev/full")
    with pytest.raises(WeightsError, match="No space left on device"):
        official.install(brought)
    assert not copy.is_symlink()
    assert not (folder / FILE).exists()


def test_a_folder_that_cannot_be(folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.write_text("a file")
    brought = folder.parent.with_name("brought")
    brought.write_bytes(DATA)
    for action in (lambda: official.fetch("bagnet9"), lambda: official.install(brought)):
        with pytest.raises(WeightsError, match=f"cannot keep weights in {folder}: Not a directory"):
            action()
    assert not server.requests


FETCH = f"""
import dataclasses, sys
from bagindex import fetching, official
from bagindex.registry import ARCHITECTURES, NETWORKS
ARCHITECTURES["bagnet9"] = dataclasses.replace(ARCHITECTURES["bagnet9"], weights_file={FILE!r})
print(official.fetch("bagnet9", note=lambda text: print(text, flush=True)))
"""


def start_fetch() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", FETCH], stdout=subprocess.PIPE, text=True)


def test_two_processes_download_once(folder: Path, server: Server) -> None:
    server.script = [stall]
    with start_fetch() as first, start_fetch() as second:
        assert server.asked.wait(10)
        waiting = f"another process is fetching {FILE}: waiting for it\n"
        told = []

        def read(process: subprocess.Popen[str]) -> None:
            assert process.stdout is not None
            for line in process.stdout:
                told.append(line)
                server.release.set()  # only the second says anything before the file is there

        readers = [threading.Thread(target=read, args=(process,)) for process in (first, second)]
        for reader in readers:
            reader.start()
        for reader in readers:
            reader.join()
    assert first.returncode == second.returncode == 0
    assert sorted(told) == sorted([waiting, f"{folder / FILE}\n", f"{folder / FILE}\n"])
    assert len(server.requests) == 1
    assert (folder / FILE).read_bytes() == DATA


def test_killed_in_the_middle(folder: Path, server: Server) -> None:
    server.script = [stall]
    part = folder / f"{FILE}.part"
    with start_fetch() as process:
        assert server.asked.wait(10)
        while not part.exists() or part.stat().st_size < 100_000:
            assert process.poll() is None
        process.kill()
        process.communicate()
    assert kept(folder) == [f"{FILE}.part", f"{FILE}.part.etag"]
    size = part.stat().st_size
    assert official.fetch("bagnet9").read_bytes() == DATA
    assert server.sent("Range") == [None, f"bytes={size}-"]


def test_install(folder: Path, server: Server, tmp_path: Path) -> None:
    begin(folder, DATA[:9], None)
    brought = tmp_path / "Download (1)"
    brought.write_bytes(DATA)
    found = official.install(brought)
    assert (found.model, found.path, found.bytes, found.state) == ("bagnet9", folder / FILE, len(DATA), State.HERE)
    assert found.path.read_bytes() == brought.read_bytes() == DATA
    assert kept(folder) == [FILE]
    assert official.install(found.path) == official.install(brought) == found
    assert official.fetch("bagnet9") == found.path
    assert not server.requests


def test_install_another_file(folder: Path, tmp_path: Path) -> None:
    brought = tmp_path / "other"
    brought.write_bytes(OTHER)
    for allowed in (None, "0" * 8, OTHER_SHA256):  # even if allowed: whose it is, nothing says
        with pytest.raises(WeightsError) as caught:
            official.install(brought, allow_hash=allowed)
        assert f"{brought} has the SHA-256 {OTHER_SHA256}, which is none" in str(caught.value)
        assert f"{FILE} ({SHA256[:8]}…), bagnet16-105524de.pth.tar (105524de…)" in str(caught.value)
    named = brought.rename(tmp_path / FILE)
    with pytest.raises(WeightsError, match=f"and --allow-hash {OTHER_SHA256}"):
        official.install(named)
    assert not folder.exists()
    assert official.install(named, allow_hash=OTHER_SHA256).path.read_bytes() == OTHER
    assert official.fetch("bagnet9", allow_hash=OTHER_SHA256) == folder / FILE


def test_install_what_is_no_file(folder: Path, tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing"):
        with pytest.raises(WeightsError, match=f"no file at {path}"):
            official.install(path)


def test_status(folder: Path, server: Server, tmp_path: Path) -> None:
    assert [(found.model, found.state, found.bytes) for found in official.status()] == [
        (name, State.ABSENT, None)
        for name in ("bagnet9", "bagnet17", "bagnet33", "vgg16", "resnet50", "resnet152", "densenet169")
    ]
    official.fetch("bagnet9")
    first, _, third, *_ = official.status()
    assert dataclasses.astuple(first) == (
        *("bagnet9", FILE, f"{server.url}/raw/{FILE}"),
        *(folder / FILE, len(DATA), State.HERE),
    )
    assert third.file == "bagnet32-2ddd53ed.pth.tar"
    (tmp_path / "mine").write_bytes(DATA)
    (tmp_path / "other").write_bytes(OTHER)
    assert official.is_official(tmp_path / "mine")
    assert not official.is_official(tmp_path / "other")


def test_places(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BAGINDEX_WEIGHTS")
    monkeypatch.delenv("BAGINDEX_WEIGHTS_URL")
    monkeypatch.setenv("XDG_CACHE_HOME", "/somewhere")
    assert official.weights_folder().name == "weights"
    assert official.weights_folder().parent.name == "bagindex"
    assert official.status()[2].url == (
        "https://bitbucket.org/wielandbrendel/bag-of-feature-pretrained-models/raw/"
        "249e8fa82c0913623a807d9d35eeab9da7dcc2a8/bagnet32-2ddd53ed.pth.tar"
    )
    with pytest.raises(SettingsError, match="no model 'nothing': choose from bagnet9, bagnet17, bagnet33"):
        official.fetch("nothing")
    with pytest.raises(SettingsError, match="no model 'bagnet8': did you mean 'bagnet9' or"):
        official.fetch("bagnet8")


def test_networks_to_compare_with_come_the_same_way(
    folder: Path, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(WeightsError, match=r"vgg16-397923af\.pth gives is refused: .* begin with 397923af"):
        official.fetch("vgg16")
    monkeypatch.setitem(NETWORKS, "vgg16", f"vgg16-{SHA256[:8]}.pth")
    path = official.fetch("vgg16")
    assert (path, path.read_bytes()) == (folder / f"vgg16-{SHA256[:8]}.pth", DATA)
    assert official.is_official(path)
    path.unlink()
    monkeypatch.setitem(ARCHITECTURES, "bagnet9", dataclasses.replace(ARCHITECTURES["bagnet9"], weights_file="a-0.pth"))
    (tmp_path / "brought").write_bytes(DATA)
    assert official.install(tmp_path / "brought").path == path
    monkeypatch.delenv("BAGINDEX_WEIGHTS_URL")
    assert official.status()[3].url == f"https://download.pytorch.org/models/{path.name}"


def test_torch_is_not_imported() -> None:
    program = "import sys; from bagindex import official; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, env=dict(os.environ))


@pytest.fixture
def app() -> typer.Typer:
    made = typer.Typer()
    weights.register(made)
    return made


def test_commands(app: typer.Typer, folder: Path, server: Server, tmp_path: Path) -> None:
    runner = CliRunner()
    listed = runner.invoke(app, ["weights"])
    assert listed.exit_code == 0
    assert listed.stdout.count("not here") == 7
    assert f"published at {server.url}/raw/" in listed.stdout
    assert runner.invoke(app, ["weights", "list"]).stdout == listed.stdout

    fetched = runner.invoke(app, ["weights", "fetch", "bagnet9"])
    assert fetched.stdout == f"bagnet9: {folder / FILE}\n"
    assert fetched.stderr.splitlines()[-1] == "bagindex: fetching the weights of bagnet9: 300 kB of 300 kB"
    (folder / FILE).unlink()
    brought = tmp_path / "brought"
    brought.write_bytes(DATA)
    assert runner.invoke(app, ["weights", "install", str(brought)]).stdout == f"bagnet9: {folder / FILE}\n"
    for words in (["--format", "json"], ["list", "--format", "json"]):
        row = json.loads(runner.invoke(app, ["weights", *words]).stdout)[0]
        assert row == {
            "model": "bagnet9",
            "file": FILE,
            "state": "here",
            "size": len(DATA),
            "path": str(folder / FILE),
            "url": f"{server.url}/raw/{FILE}",
        }
    assert " 300 kB " in runner.invoke(app, ["weights"]).stdout


def test_commands_all_at_once(app: typer.Typer, folder: Path, server: Server) -> None:
    failed = CliRunner().invoke(app, ["weights", "fetch"])
    assert (folder / FILE).read_bytes() == DATA
    assert isinstance(failed.exception, WeightsError)
    assert "105524de" in str(failed.exception)


def test_a_hash_is_one_files(app: typer.Typer, folder: Path) -> None:
    runner = CliRunner()
    for models in ([], ["bagnet9", "bagnet17"]):
        refused = runner.invoke(app, ["weights", "fetch", *models, "--allow-hash", SHA256])
        assert refused.exit_code == 2
        assert "name one MODEL" in refused.stderr
    misplaced = runner.invoke(app, ["weights", "--format", "csv", "list"])
    assert (misplaced.exit_code, "give it after" in misplaced.stderr) == (2, True)


def test_a_bar_on_a_terminal(app: typer.Typer, folder: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "160")
    server.script = [cut]
    fetched = CliRunner().invoke(app, ["weights", "fetch", "bagnet9"])
    assert fetched.exit_code == 0
    assert "fetching the weights of bagnet9" in fetched.stderr
    assert "bagindex: the connection broke after 150 kB of 300 kB; trying again in 0 s" in fetched.stderr
    assert "━" in fetched.stderr


def test_every_command_has_help(app: typer.Typer) -> None:
    group = typer.main.get_command(app).commands["weights"]  # type: ignore[attr-defined]
    assert set(group.commands) == {"list", "fetch", "install"}
    for command in (group, *group.commands.values()):
        assert command.help
        assert all(getattr(parameter, "help", None) for parameter in command.params)
