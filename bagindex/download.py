"""One attempt to get a file over HTTP, going on where the last one broke off.

A download grows in `FILE.part`; `FILE.part.etag` says of which version it is, so that a broken one goes on (RFC 9110,
13.1.5 and 14.2).
"""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from http.client import HTTPException, HTTPMessage, HTTPResponse, InvalidURL
from importlib.metadata import version
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import Request, build_opener

from bagindex.text import bytes_text

Progress = Callable[[int, int | None], None]
"""Hears how many bytes there are, and how many there will be (None where the server does not say)."""

_TIMEOUT = 30.0
_CHUNK = 1 << 18
_PASSING_STATUS = {408, 425, 429, 500, 502, 503, 504}


class DownloadError(Exception):
    """An attempt failed. `passing`: another may not; None: it may not if the server has answered before."""

    def __init__(self, text: object, passing: bool | None) -> None:
        super().__init__(" ".join(str(text).split()))
        self.passing = passing


def receive(url: str, part: Path, progress: Progress) -> bool:
    """Get what is missing of a file. Returns whether what was there is a part of it now."""
    start, etag = size(part), _etag_file(part)
    request = Request(url, headers={"User-Agent": f"bagindex/{version('bagindex')}"})
    if start:
        request.add_header("Range", f"bytes={start}-")
        if etag.is_file():
            request.add_header("If-Range", etag.read_text("latin-1"))
    response = _open(request)
    if response is None:
        return True
    with response:
        if response.status != 206:
            start = 0
        elif not (response.headers["Content-Range"] or "").startswith(f"bytes {start}-"):
            drop(part)
            raise DownloadError("the server sent another part than was asked for", passing=True)
        done, total = start, None if response.length is None else start + response.length
        with part.open("ab" if start else "wb") as file:
            if not start:
                etag.unlink(missing_ok=True)
                if validator := _validator(response.headers):
                    etag.write_text(validator, "latin-1")
            progress(done, total)
            while chunk := _read(response):
                file.write(chunk)
                done += len(chunk)
                progress(done, total)
    if total is not None and done != total:
        raise DownloadError(f"the connection broke after {bytes_text(done)} of {bytes_text(total)}", passing=True)
    return start > 0


def _open(request: Request) -> HTTPResponse | None:
    """The beginning of an answer; None where there is nothing beyond what is here."""
    try:
        # An opener of our own: urllib's global one keeps the proxies that were set when it was first used.
        response: HTTPResponse = build_opener().open(request, timeout=_TIMEOUT)
    except HTTPError as error:
        error.close()
        if error.code == 416 and request.has_header("Range"):
            return None
        raise DownloadError(f"HTTP {error.code} {error.reason}", passing=error.code in _PASSING_STATUS) from None
    except (InvalidURL, ValueError) as error:
        raise DownloadError(error, passing=False) from None
    except (OSError, HTTPException) as error:
        raise _failure(error) from None
    return response


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, HTTPException) as error:
        raise DownloadError(f"the connection broke: {_failure(error)}", passing=True) from None


def _failure(error: Exception) -> DownloadError:
    reason = error.reason if isinstance(error, URLError) else error
    if isinstance(reason, TimeoutError):
        return DownloadError(f"no answer for {_TIMEOUT:g} s", passing=True)
    if isinstance(reason, socket.gaierror):
        return DownloadError(f"the host is not found: {reason.strerror}", passing=None)
    if isinstance(reason, ssl.SSLCertVerificationError):
        return DownloadError(f"its TLS certificate is not to be trusted: {reason.verify_message}", passing=False)
    text = (isinstance(reason, OSError) and reason.strerror) or str(reason) or type(reason).__name__
    return DownloadError(text, passing=True if isinstance(reason, ConnectionResetError | HTTPException) else None)


def _validator(headers: HTTPMessage) -> str | None:
    """What If-Range can name: a weak ETag is none."""
    etag = headers["ETag"] or ""
    text = etag if etag.startswith('"') else headers["Last-Modified"]
    return text if text and text.isprintable() else None


def part_of(path: Path) -> Path:
    """Where a download grows until it is whole."""
    return path.with_name(f"{path.name}.part")


def _etag_file(part: Path) -> Path:
    return part.with_name(f"{part.name}.etag")


def drop(part: Path) -> None:
    """Forget what there is of a download."""
    part.unlink(missing_ok=True)
    _etag_file(part).unlink(missing_ok=True)


def size(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0
