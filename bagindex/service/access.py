"""Who may ask, from where, and how much: what is checked of a request before any route sees it."""

from __future__ import annotations

import hmac
import ipaddress
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from bagindex.service.problems import Problem

Headers = Sequence[tuple[bytes, bytes]]

UPLOAD = 20_000_000
"""Bytes of a picture that may be sent."""
UPLOAD_PIXELS = 40_000_000
"""Pixels that it may have."""
UPLOAD_SECONDS = 20.0
"""How long it may take to be decoded."""
_FORM = 100_000
"""Bytes that a form may have around the picture."""
_TEXT = 200_000
"""Bytes of a body that is text."""
_SESSION = "/api/v1/session"
"""Where the token is shown for a cookie."""
_GUARDED = frozenset({"/metrics", "/openapi.json"})
"""What else needs a token, beside all under `/api/`. The rest is asked by what watches over the service, which has no
token, or it is the page's own files, which are the same for everyone."""
_LOCAL = frozenset({"localhost", "127.0.0.1", "::1"})
_HOST = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([A-Za-z0-9_.-]+))(?::(\d{1,5}))?")


def is_loopback(host: str) -> bool:
    """Whether an address is of this machine only."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def split_host(value: str) -> str | None:
    """The name or address in a Host header, in small letters; None where it is none."""
    match = _HOST.fullmatch(value)
    if match is None:
        return None
    if match[1] is not None:
        try:
            return str(ipaddress.IPv6Address(match[1]))
        except ValueError:
            return None
    return match[2].lower().rstrip(".")


@dataclass(frozen=True)
class Access:
    """The rules.

    Attributes:
        host: the address that is listened on.
        hosts: further names under which the service may be asked.
        token: what every request must show; None: nothing.
    """

    host: str = "127.0.0.1"
    hosts: frozenset[str] = frozenset()
    token: str | None = None

    def check(self, method: str, path: str, headers: Headers) -> int:
        """Check a request's head; how many bytes its body may have.

        Raises:
            Problem: the request is refused.
        """
        host = self._check_host(_values(headers, b"host"))
        if self.token is not None and _is_guarded(path) and not self._has_cookie(headers):
            self._check_token(_values(headers, b"authorization"))
        if method not in ("GET", "HEAD", "OPTIONS"):
            _check_origin(host, headers)
        elif path.startswith("/api/"):
            _check_embedding(headers)
        if method != "POST":
            return _TEXT
        limit = _check_type(path, _values(headers, b"content-type"))
        length = _values(headers, b"content-length")
        if length and int(length[0]) > limit:
            raise too_large(limit)
        return limit

    def _check_host(self, values: Sequence[str]) -> str:
        # A page of another site can make a browser ask this machine under a name of its own (DNS rebinding): only
        # names that are known are answered.
        host = split_host(values[0]) if len(values) == 1 else None
        if host is None:
            raise Problem(400, "bad-host", "a request has one Host header, with a name or an address")
        if host in self.hosts or host == _plain(self.host):
            return values[0].lower()
        if host in _LOCAL and (is_loopback(self.host) or self._everywhere):
            return values[0].lower()
        if self._everywhere and _is_address(host):  # an address cannot be rebound
            return values[0].lower()
        raise Problem(421, "unknown-host", "the service does not go by that name: start it with --allow-host NAME")

    @property
    def _everywhere(self) -> bool:
        return self.host in ("0.0.0.0", "::", "")

    def _check_token(self, values: Sequence[str]) -> None:
        scheme, _, given = values[0].partition(" ") if len(values) == 1 else ("", "", "")
        wanted = (self.token or "").encode()
        if scheme.lower() != "bearer" or not hmac.compare_digest(given.strip().encode("utf-8", "replace"), wanted):
            raise _unauthorized()

    def check_given(self, token: str) -> None:
        """Check a token that is shown for a cookie; where none is needed, any will do.

        Raises:
            Problem: it is another one.
        """
        if self.token is not None and not hmac.compare_digest(token.encode("utf-8", "replace"), self.token.encode()):
            raise _unauthorized()

    @cached_property
    def cookie(self) -> tuple[str, str] | None:
        """Name and value of the cookie that is as good as the token; None where there is no token.

        Cookies do not know ports: the name is the token's, so that two services of one machine leave each other's
        alone. The value does not tell the token, which may be in use elsewhere.
        """
        if self.token is None:
            return None
        name, value = (hmac.new(self.token.encode(), what, "sha256").hexdigest() for what in (b"cookie", b"session"))
        return f"bagindex-{name[:16]}", value

    def _has_cookie(self, headers: Headers) -> bool:
        if self.cookie is None:
            return False
        name, value = self.cookie
        pairs = [pair.strip().partition("=") for each in _values(headers, b"cookie") for pair in each.split(";")]
        given = [text.encode() for key, _, text in pairs if key == name]
        return any(hmac.compare_digest(each, value.encode()) for each in given)


def _unauthorized() -> Problem:
    return Problem(
        401,
        "unauthorized",
        "send the header `Authorization: Bearer TOKEN` with the token that the service was started with",
        {"WWW-Authenticate": 'Bearer realm="bagindex"'},
    )


def _is_guarded(path: str) -> bool:
    return path in _GUARDED or (path.startswith("/api/") and path != _SESSION)


def too_large(limit: int) -> Problem:
    """The body is larger than is taken."""
    return Problem(413, "too-large", f"the body has more than {limit:,} bytes", {"Connection": "close"})


def _check_origin(host: str, headers: Headers) -> None:
    """Refuse what another site's page makes a browser send."""
    refused = Problem(403, "foreign-origin", "requests of pages of other sites are refused")
    site = _values(headers, b"sec-fetch-site")
    if any(each.lower() not in ("same-origin", "none") for each in site):
        raise refused
    if any(each.lower() not in (f"http://{host}", f"https://{host}") for each in _values(headers, b"origin")):
        raise refused


def _check_embedding(headers: Headers) -> None:
    """Refuse what a page of another site embeds: it could not read the answer, but make the service work. A link may
    be followed from anywhere.
    """
    foreign = any(each.lower() not in ("same-origin", "none") for each in _values(headers, b"sec-fetch-site"))
    followed = [each.lower() for each in _values(headers, b"sec-fetch-dest")] == ["document"]
    if foreign and not followed:
        raise Problem(403, "foreign-origin", "requests of pages of other sites are refused")


def _check_type(path: str, values: Sequence[str]) -> int:
    """How many bytes a body may have, by its type.

    Raises:
        Problem: no route takes that type.
    """
    text = path.endswith("/sql") or path == _SESSION
    wanted = "application/json" if text else "multipart/form-data"
    given = values[0].split(";")[0].strip().lower() if len(values) == 1 else ""
    if given != wanted:
        raise Problem(415, "unsupported-type", f"the body must be {wanted}", {"Accept-Post": wanted})
    return _TEXT if text else UPLOAD + _FORM


def _values(headers: Headers, name: bytes) -> list[str]:
    return [value.decode("latin-1") for key, value in headers if key == name]


def _plain(host: str) -> str:
    """A name in small letters, or an address in its shortest form."""
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        return host.lower()


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
