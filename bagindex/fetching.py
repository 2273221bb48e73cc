"""Files that are fetched once: tried again, known by their digests, by one process at a time.

A download gets its name when it is what it should be: what has the name is whole.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

from bagindex.download import DownloadError, Progress, drop, part_of, receive, size
from bagindex.durable import fsync_folder
from bagindex.errors import SettingsError

Note = Callable[[str], None]
"""Hears what a person should know."""
_BACK_OFF = (1.0, 2.0, 4.0)  # seconds before the second, third … attempt


class RefusedError(Exception):
    """What came is not what it should be; `digest` is what it has."""

    def __init__(self, digest: str) -> None:
        super().__init__(digest)
        self.digest = digest


def fetch(
    url: str,
    path: Path,
    digest: Callable[[Path], str],
    accepts: Callable[[str], bool],
    progress: Progress,
    note: Note,
) -> None:
    """Get a file over HTTP, going on with what is there of it. The caller holds its lock; see `alone`.

    Args:
        url: where it is.
        path: where it goes.
        digest: of a file.
        accepts: whether a file of that digest is the one.
        progress: hears of the download; goes back where it has to begin anew.
        note: hears of further attempts.

    Raises:
        DownloadError: it cannot be had; `passing` says whether it may be later.
        RefusedError: another file came.
    """
    part, delays, answered = part_of(path), iter(_BACK_OFF), False
    while True:
        before = size(part)
        try:
            continued = receive(url, part, progress)
        except DownloadError as failure:
            answered = answered or size(part) != before
            passing = answered if failure.passing is None else failure.passing
            delay = next(delays, None) if passing else None
            if delay is None:
                raise DownloadError(failure, passing) from None
            note(f"{failure}; trying again in {delay:g} s")
            time.sleep(delay)
            continue
        found = digest(part)
        if accepts(found):
            keep(part, path)
            return drop(part)
        drop(part)
        if not continued:
            raise RefusedError(found)
        note(f"what was there of {path.name} does not fit what came now: beginning anew")


def keep(finished: Path, path: Path) -> None:
    """Give a finished file its name, so that it outlives a power cut."""
    with finished.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(finished, path)
    fsync_folder(path.parent)


@contextmanager
def alone(path: Path, note: Note) -> Iterator[None]:
    """Hold the lock of a file that is fetched; it dies with the process."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path.with_name(f"{path.name}.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            note(f"another process is fetching {path.name}: waiting for it")
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def mirror(variable: str, folder: str) -> str:
    """The folder that an environment variable names, a mirror, else the one that files are published in; without a
    slash at the end.

    Raises:
        SettingsError: it is no address of a web folder.
    """
    url = os.environ.get(variable) or folder
    if not re.fullmatch(r"https?://([\w.-]+|\[[\da-fA-F:]+\])(:\d{1,5})?(/[^\s?#]*)?", url):
        raise SettingsError(f"{variable} must be http://HOST/FOLDER or https://HOST/FOLDER")
    return url.rstrip("/")


def proxy_text(url: str) -> str:
    """Through which proxy a URL is asked, for people, without its user and password; nothing where there is none."""
    parts = urlsplit(url)
    proxy = None if proxy_bypass(parts.netloc) else getproxies().get(parts.scheme)
    return f" through the proxy {re.sub(r'.*(@|//)', '', proxy.rstrip('/'))}" if proxy else ""


def ignore(*_: object) -> None:
    """Hears of everything and does nothing."""
