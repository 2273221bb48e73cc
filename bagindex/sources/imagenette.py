"""Imagenette: photographs of ten of ImageNet's classes, which fast.ai publishes. It is fetched where it is not here.

Labels are wnids, so that models of ImageNet's classes know them. The archive is decompressed once, and read where it
lies.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from bagindex import fetching
from bagindex.download import DownloadError, drop, part_of
from bagindex.errors import DiskError, SettingsError, SourceError
from bagindex.observer import BuildObserver
from bagindex.sources import Entry, Reader
from bagindex.sources.archives import TarSource
from bagindex.sources.datasets import datasets_folder

PUBLISHED = "https://s3.amazonaws.com/fast-ai-imageclas"
SPLITS = ("val", "train")


@dataclass(frozen=True)
class _Archive:
    """An archive of one size of the pictures, and its MD5, as torchvision has it."""

    stem: str
    md5: str


ARCHIVES = {
    "imagenette": _Archive("imagenette2-320", "3df6f0d01a2c9592104656642f5e78a3"),
    "imagenette-160": _Archive("imagenette2-160", "e793b78cc4c9e9a4ccc0c1155377a412"),
    "imagenette-full": _Archive("imagenette2", "fe2fc210e6bb7c5664d602c3cd71e612"),
}
"""By name; the shorter side has 320 pixels, 160, or as many as in ImageNet."""


@dataclass(frozen=True)
class ImagenetteSource:
    """One split: the pictures below `prefix` of an archive; `entries` are called `WNID/FILE`."""

    name: str
    location: str
    entries: Sequence[Entry]
    archive: TarSource
    prefix: bytes
    kind: str = "imagenette"

    def reader(self) -> Reader:
        """What reads the pictures, without the list of them."""
        return replace(self, entries=())

    def read(self, entry: Entry) -> bytes:
        """A picture; see `TarSource.read`."""
        return self.archive.read(replace(entry, path=self.prefix + entry.path))


def open_imagenette(name: str, split: str | None, data: Path | None, observer: BuildObserver) -> ImagenetteSource:
    """List a split, fetching the archive where it is not here. One process does at a time; others wait.

    Args:
        name: one of `ARCHIVES`.
        split: `val` or `train`; by default `val`.
        data: the folder where the archive is, or is to be; by default see `bagindex.sources.datasets`.
        observer: hears of the download.

    Raises:
        SettingsError: there is no such split.
        SourceError: the archive cannot be fetched, or is another. The text says which file to bring.
        DiskError: it cannot be kept.
    """
    split = split or SPLITS[0]
    if split not in SPLITS:
        raise SettingsError(f"{name} has no split {split!r}: --split takes {' or '.join(SPLITS)}")
    archive = ARCHIVES[name]
    folder = datasets_folder() if data is None else data
    path = folder / f"{archive.stem}.tar"
    if not path.is_file():
        with _disk_errors(folder), fetching.alone(path, observer.note):
            if not path.is_file():
                _make(archive, folder, path, observer)
    tar = TarSource(path)
    prefix = f"{archive.stem}/{split}/".encode()
    picture = re.compile(re.escape(prefix) + rb"(n\d{8})/[^/]+")
    entries = [
        replace(entry, path=entry.path.removeprefix(prefix), label=found[1].decode())
        for entry in tar.entries
        if (found := picture.fullmatch(entry.path))
    ]
    if not entries:
        raise SourceError(f"{path} has no {split} pictures: remove it, it is fetched again")
    return ImagenetteSource(f"{name}-{split}", tar.location, entries, tar, prefix)


def _make(archive: _Archive, folder: Path, path: Path, observer: BuildObserver) -> None:
    packed = folder / f"{archive.stem}.tgz"
    brought = packed.is_file()
    if brought and (md5 := _md5(packed)) != archive.md5:
        raise SourceError(f"{packed} has the MD5 {md5}, not {archive.md5}: fetch it again")
    if not brought:
        _fetch(archive, packed, observer)
    observer.note(f"decompressing {packed.name}")
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with gzip.open(packed) as source, temporary.open("wb") as file:
            shutil.copyfileobj(source, file, 2**20)
        fetching.keep(temporary, path)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise SourceError(f"cannot decompress {packed} ({error}): remove it, it is fetched again") from None
    finally:
        temporary.unlink(missing_ok=True)
    if not brought:
        packed.unlink()
    drop(part_of(packed))


def _fetch(archive: _Archive, packed: Path, observer: BuildObserver) -> None:
    url = f"{fetching.mirror('BAGINDEX_DATASETS_URL', PUBLISHED)}/{packed.name}"
    bring = f"bring {packed.name} (its MD5 is {archive.md5}) from {url} and put it at {packed}"
    try:
        fetching.fetch(url, packed, _md5, archive.md5.__eq__, partial(observer.fetched, packed.name), observer.note)
    except DownloadError as failure:
        again = "the same command goes on later, or " if failure.passing else ""
        raise SourceError(f"cannot fetch {packed.name}{fetching.proxy_text(url)}: {failure}; {again}{bring}") from None
    except fetching.RefusedError as refused:
        raise SourceError(f"what {url} gives is refused: its MD5 is {refused.digest}; {bring}") from None


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


@contextmanager
def _disk_errors(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise DiskError(
            f"cannot keep data sets in {folder}: {error.strerror or error}; mend that, or say with --data or "
            "BAGINDEX_DATASETS where else"
        ) from None
