"""Addresses of object stores, and where their mirrors lie."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from bagindex.errors import SettingsError

_URL = re.compile(r"(?P<protocol>[a-z][a-z0-9+.-]*)://(?P<path>.*)", re.IGNORECASE | re.DOTALL)
_PLAIN = re.compile(r"[^\x00-\x1f\x7f?#*\[\]\\]+")
PROTOCOL = "bagindex://"
"""With this before its path, DuckDB reads a mirror's file through the mirror."""
MIRRORED = "mirror.json"
"""The file beside a mirror's folder that says what it mirrors."""
EXTRAS = {
    **dict.fromkeys(("s3", "s3a"), "s3"),
    **dict.fromkeys(("gs", "gcs"), "gs"),
    **dict.fromkeys(("az", "abfs", "abfss"), "az"),
}
"""The extra of bagindex that brings what speaks each protocol."""


@dataclass(frozen=True)
class Place:
    """A place in an object store: `path` begins with the bucket or container."""

    protocol: str
    path: str

    def __str__(self) -> str:
        """Its URL."""
        return f"{self.protocol}://{self.path}"

    @property
    def bucket(self) -> str:
        """The bucket or container."""
        return self.path.partition("/")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def digest(self) -> str:
        """A name for it that any disk takes."""
        return hashlib.sha256(str(self).encode()).hexdigest()[:16]


def is_url(text: str | os.PathLike[str]) -> bool:
    """Whether this is the address of an object store and no path; `file://` is a path."""
    found = _URL.fullmatch(os.fspath(text))
    return found is not None and found["protocol"].lower() != "file"


def parse(url: str | os.PathLike[str]) -> Place:
    """The place that a URL names.

    Raises:
        SettingsError: it is no such URL.
    """
    text = os.fspath(url)
    found = _URL.fullmatch(text)
    parts = found["path"].rstrip("/").split("/") if found else [""]
    if found is None or not parts[0] or {"", ".", ".."} & set(parts) or not _PLAIN.fullmatch("/".join(parts)):
        raise SettingsError(
            f"{text!r} is no place in an object store: give PROTOCOL://BUCKET/PATH, like s3://bucket/index"
        )
    return Place(found["protocol"].lower(), "/".join(parts))


def local_path(text: str | os.PathLike[str]) -> str:
    """A path, also where it is written as `file:///…`."""
    plain = os.fspath(text)
    return plain[len("file://") :] if plain.lower().startswith("file://") else plain


def cache_folder(kind: str = "remote") -> Path:
    """`BAGINDEX_CACHE`, else the platform's folder for caches: where mirrors lie, each under the digest of its URL.

    Args:
        kind: of what; `archives` is where unpacked indexes lie.
    """
    return Path(os.environ.get("BAGINDEX_CACHE") or platformdirs.user_cache_path("bagindex")) / kind
