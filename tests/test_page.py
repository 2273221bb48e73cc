"""The web page as the service gives it out, without a browser."""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import httpx
import numpy as np
import pytest

from bagindex.service.edge import POLICY
from bagindex.service.page import PLACES, Page
from serving import Running, check_problem, running
from wordy import worded_index

WEB = Path(__file__).resolve().parent.parent / "bagindex" / "service" / "web"
FILES = sorted(path.relative_to(WEB).as_posix() for path in WEB.rglob("*") if path.is_file())
TYPES = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
FOR_EVER = "private, max-age=31536000, immutable"


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A small index."""
    folder = tmp_path_factory.mktemp("page") / "i"
    worded_index(folder, np.random.default_rng(1).normal(size=(3, 6, 3)), ["cat", "dog", None]).close()
    with running([folder]) as found:
        yield found


@pytest.fixture(scope="module")
def version(service: Running) -> str:
    """The version that stands in the addresses."""
    (found,) = set(re.findall(r"/web/([0-9a-f]+)/", service.client.get("/").text))
    return found


def plainly(service: Running, path: str, **headers: str) -> httpx.Response:
    """GET without gzip, unless it is asked for."""
    return service.client.get(path, headers={"Accept-Encoding": "identity", **headers})


@pytest.mark.parametrize("name", [name for name in FILES if name != "index.html"])
def test_each_file_is_served_as_what_it_is(service: Running, version: str, name: str) -> None:
    data = (WEB / name).read_bytes()
    answer = plainly(service, f"/web/{version}/{name}")
    assert (answer.status_code, answer.content) == (200, data)
    assert answer.headers["content-type"] == TYPES[name.rsplit(".", 1)[-1]]
    assert answer.headers["cache-control"] == FOR_EVER
    assert answer.headers["vary"] == "Accept-Encoding"
    assert "content-encoding" not in answer.headers
    packed = service.client.get(f"/web/{version}/{name}", headers={"Accept-Encoding": "br, gzip"})
    assert packed.headers["content-encoding"] == "gzip"
    assert packed.content == data
    assert int(packed.headers["content-length"]) < max(len(data), 400)
    # Under an address of another version it may be another one tomorrow.
    other = plainly(service, f"/web/{'0' * 16}/{name}")
    assert (other.status_code, other.content) == (200, data)
    assert other.headers["cache-control"] == "private, no-cache"


@pytest.mark.parametrize("place", PLACES)
def test_every_place_is_the_document(service: Running, version: str, place: str) -> None:
    answer = plainly(service, place + "?class=fish")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["cache-control"] == "private, no-cache"
    assert answer.headers["content-security-policy"] == POLICY
    assert answer.text == plainly(service, "/").text
    packed = service.client.get(place, headers={"Accept-Encoding": "gzip"})
    assert (packed.headers["content-encoding"], packed.text) == ("gzip", answer.text)
    etag = answer.headers["etag"]
    again = plainly(service, place, **{"If-None-Match": etag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
    assert plainly(service, place, **{"If-None-Match": '"other"'}).content == answer.content
    head = service.client.head(place, headers={"Accept-Encoding": "identity"})
    assert (head.status_code, head.content) == (200, b"")


def test_no_style_and_no_script_runs_but_the_pages_own() -> None:
    rules = dict(each.split(maxsplit=1) for each in POLICY.split("; "))
    assert rules["default-src"] == "'none'"
    assert {rules[each] for each in ("script-src", "style-src", "connect-src")} == {"'self'"}
    assert rules["img-src"] == "'self' data: blob:"
    assert {rules[each] for each in ("base-uri", "frame-ancestors")} == {"'none'"}
    document = (WEB / "index.html").read_text()
    assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\bon\w+=|\bstyle=", document)


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/web/{version}/nothing.js", "not-found"),
        ("/web/{version}/index.html", "not-found"),
        ("/web/{version}/", "not-found"),
        ("/web/{version}/..%2fpage.py", "not-found"),
        ("/web/{version}/%2e%2e/page.py", "not-found"),
        ("/web/{version}//etc/passwd", "not-found"),
        ("/web/page.py", "no-such-route"),
        ("/classes", "no-such-route"),
    ],
)
def test_there_is_nothing_else(service: Running, version: str, path: str, code: str) -> None:
    found = check_problem(plainly(service, path.format(version=version)), 404, code)
    assert "passwd" not in str(found)


def test_the_document_names_the_files_that_there_are(service: Running, version: str) -> None:
    document = plainly(service, "/").text
    named = re.findall(r'(?:href|src)="([^"]+)"', document)
    of_web = [each.removeprefix(f"/web/{version}/") for each in named if each.startswith("/web/")]
    assert set(of_web) == set(FILES) - {"index.html"}
    assert set(named) - {f"/web/{version}/{each}" for each in of_web} == {"/api/v1/indexes", "/openapi.json"}
    modules = {name for name in FILES if name.endswith(".js") and name != "theme.js"}
    assert set(re.findall(r'rel="modulepreload" href="[^"]*?/web/\w+/([^"]+)"', document)) == modules


def test_the_version_is_that_of_the_contents(version: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from bagindex.service import page

    assert Page().version == version
    read = page._read

    def changed(*given: object) -> list[tuple[str, bytes]]:
        return [(name, data + b" " if name.endswith("theme.js") else data) for name, data in read(*given)]  # type: ignore[arg-type]

    monkeypatch.setattr(page, "_read", changed)
    assert Page().version != version


def test_packed_files_are_the_same() -> None:
    for name, each in Page().files.items():
        assert gzip.decompress(each.packed) == each.data == (WEB / name).read_bytes()


@pytest.mark.parametrize("name", [name for name in FILES if name.endswith(".js")])
def test_a_module_imports_what_there_is_and_nothing_from_elsewhere(name: str) -> None:
    text = re.sub(r"/\*.*?\*/", "", (WEB / name).read_text(), flags=re.DOTALL)
    imported = re.findall(r"""\b(?:from|import)\s*\(?\s*["']([^"']+)["']""", text)
    for each in imported:
        assert each.startswith(("./", "../")), each
        place = PurePosixPath(name).parent
        parts: list[str] = list(place.parts)
        for part in PurePosixPath(each).parts:
            if part == "..":
                parts.pop()
            elif part != ".":
                parts.append(part)
        assert "/".join(parts) in FILES, each


@pytest.mark.parametrize("name", FILES)
def test_a_file_makes_no_markup_of_texts_and_asks_nobody_else(name: str) -> None:
    text = (WEB / name).read_text()
    if PurePosixPath(name).name != "preact.js":  # the library can; what uses it does not
        assert not re.search(r"innerHTML|outerHTML|dangerouslySetInnerHTML|insertAdjacentHTML|document\.write", text)
    assert not re.search(r"\beval\(|new Function\(", text)
    others = set(re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}[^\s\"'`)]*", re.sub(r"(?m)^\s*//.*$", "", text)))
    assert {each for each in others if not each.endswith(_NAMESPACES)} == set()


_NAMESPACES = ("//www.w3.org/2000/svg", "//www.w3.org/1999/xhtml", "//www.w3.org/1998/Math/MathML")
