"""Pictures that a program gives: one after the other, or again by their names.

What comes one after the other is written down first, in a tar archive under `BAGINDEX_CACHE`, so that a build that was
stopped goes on although the program cannot give it again. The archive is removed when its build is finished.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import BinaryIO

import numpy as np
import platformdirs
from PIL import Image

from bagindex.durable import publish, replace_file
from bagindex.errors import BagindexError, DiskError, LabelError, SettingsError, SourceError
from bagindex.images import Rejected, upright
from bagindex.sources import Entry, Reader, Source, left_out, place_hash
from bagindex.sources.archives import TarSource
from bagindex.text import first_line
from bagindex_schemas.rejects import RejectCode

_KIND = "items"
_REMARK_SECONDS = 10


@dataclass(frozen=True)
class Items:
    """Pictures that a program has by name, and gives as often as it is asked. Nothing is written down.

    Attributes:
        listed: the name and label of each; names are relative paths, a label is a class's name, or None.
        give: a picture by its name: the bytes of a file, a PIL image, or an array uint8 [height, width, RGB] or
            [height, width]. It is called from several threads. Raises `KeyError` where there is none; whatever else it
            raises costs that picture alone, too.
        name: a short name of them all, from which an index's default name is made.
    """

    listed: Iterable[tuple[str, str | None]]
    give: Callable[[str], object]
    name: str = _KIND
    entries: Sequence[Entry] = field(init=False, repr=False)

    kind = _KIND

    def __post_init__(self) -> None:
        """List them."""
        labels: dict[bytes, str | None] = {}
        for name, label in self.listed:
            labels[_path(name, labels)] = _label(label)
        if not labels:
            raise SourceError("there are no items: give names and labels")
        object.__setattr__(self, "listed", ())
        object.__setattr__(self, "entries", [Entry(path, None, labels[path]) for path in sorted(labels)])

    @property
    def location(self) -> str:
        """Hash of the name."""
        return place_hash(self.name)

    def reader(self) -> Reader:
        """What gives them."""
        return _Giving(self.give)

    def read(self, entry: Entry) -> bytes:
        """The picture's file; raises `Rejected` where there is none."""
        return self.reader().read(entry)


@dataclass(frozen=True)
class _Giving:
    give: Callable[[str], object]

    def read(self, entry: Entry) -> bytes:
        name = os.fsdecode(entry.path)
        try:
            given = self.give(name)
        except KeyError as error:
            raise Rejected(RejectCode.MISSING, f"not there: {_said(error)}") from None
        except (BagindexError, Rejected, MemoryError):
            raise
        except Exception as error:  # the program's own code raises whatever it likes
            raise Rejected(RejectCode.IO_ERROR, f"could not be given: {_said(error)}") from None
        return _file(given, name)


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error)}"


@dataclass(frozen=True)
class SpooledItems:
    """Pictures that a program has given, as they were written down."""

    entries: Sequence[Entry]
    archive: TarSource
    name: str = _KIND
    kind: str = _KIND

    @property
    def location(self) -> str:
        """Hash of the archive's path, which is the index's."""
        return self.archive.location

    def reader(self) -> Reader:
        """The archive."""
        return self.archive

    def read(self, entry: Entry) -> bytes:
        """The picture's file."""
        return self.archive.read(entry)

    def remove(self) -> None:
        """Remove the archive: nothing of it is needed any more."""
        self.archive.path.unlink(missing_ok=True)
        _told(self.archive.path).unlink(missing_ok=True)


@contextmanager
def until_done(source: Source, finished: bool = True) -> Iterator[None]:
    """While a build works with a source: what was written down of it is removed once the build has finished, or where
    the items themselves are wrong, so that the program can give others.

    Args:
        source: any source.
        finished: whether the build has finished where this ends well.
    """
    try:
        yield
    except (LabelError, SettingsError, SourceError):
        _remove(source)
        raise
    if finished:
        _remove(source)


def _remove(source: Source) -> None:
    if isinstance(source, SpooledItems):
        source.remove()


def spool_path(place: str) -> Path:
    """Where the items of the index at a place are written down."""
    cache = Path(os.environ.get("BAGINDEX_CACHE") or platformdirs.user_cache_path("bagindex"))
    return cache / _KIND / f"{place_hash(place)}.tar"


def open_items(
    given: Iterable[tuple[str, object, object]], path: Path, anew: bool, note: Callable[[str], None]
) -> SpooledItems:
    """Write down what a program gives, or take up what was written down for a build that was not finished.

    Args:
        given: the name, picture and label of each item; see `Items` for what they may be.
        path: where the archive is to be.
        anew: forget what was written down before.
        note: hears how far it is.

    Raises:
        SourceError: there are no items, or one is not as it should be.
        DiskError: the archive cannot be written.
    """
    if path.is_file() and _told(path).is_file() and not anew:
        note(f"going on with the items that were given before, {path}; --restart takes new ones")
    else:
        _write(given, path, note)
    archive = TarSource(path)
    told = json.loads(_told(path).read_bytes())
    rejected = {name: Rejected(RejectCode(code), message) for name, (code, message) in told["rejected"].items()}
    names = [os.fsdecode(entry.path) for entry in archive.entries]
    entries = [
        replace(entry, label=told["labels"].get(name), rejected=rejected.get(name, entry.rejected))
        for name, entry in zip(names, archive.entries, strict=True)
    ]
    return SpooledItems(entries, archive)


def _write(given: Iterable[tuple[str, object, object]], path: Path, note: Callable[[str], None]) -> None:
    part = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("wb") as file:
                told = _pack(given, file, note)
                file.flush()
                os.fsync(file.fileno())
            replace_file(_told(path), json.dumps(told).encode())
            publish(part, path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise DiskError(
            f"cannot write items down in {path.parent}: {error.strerror or error}; mend that, or set BAGINDEX_CACHE to "
            "another folder"
        ) from None


def _pack(given: Iterable[tuple[str, object, object]], file: BinaryIO, note: Callable[[str], None]) -> object:
    """Write a tar archive of the pictures. Returns what is not in it."""
    labels: dict[bytes, str | None] = {}
    rejected: dict[str, tuple[str, str]] = {}
    said = time.monotonic()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, picture, label in _checked(given):
            labels[_path(name, labels)] = _label(label)
            try:
                data = _file(picture, name)
            except Rejected as error:
                data, rejected[name] = b"", (error.code, error.message)
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
            if time.monotonic() - said > _REMARK_SECONDS:
                said = time.monotonic()
                note(f"{len(labels):,} items are written down")
    if not labels:
        raise SourceError("there are no items: give names, pictures and labels")
    named = {os.fsdecode(name): label for name, label in labels.items() if label is not None}
    return {"labels": named, "rejected": rejected}


def _told(path: Path) -> Path:
    """The file beside the archive that says what is not in a tar's headers."""
    return path.with_suffix(".json")


def _checked(given: Iterable[tuple[str, object, object]]) -> Iterator[tuple[str, object, object]]:
    taken = iter(given)
    for place in itertools.count():
        try:
            item = next(taken)
        except StopIteration:
            return
        except OSError as error:  # the program's own, and none of the disk that items are written to
            raise SourceError(f"item {place} cannot be had: {error}") from error
        if not isinstance(item, tuple) or len(item) != 3:
            raise SourceError(f"item {place} is {type(item).__name__}: give (name, picture, label)")
        yield item


def _path(name: object, known: Mapping[bytes, object]) -> bytes:
    if not isinstance(name, str) or not name or "\0" in name:
        raise SourceError(f"an item cannot be called {name!r}: give a relative path")
    path = os.fsencode(name)
    if os.path.normpath(path) != path or path.startswith((b"/", b"..")) or any(map(left_out, path.split(b"/"))):
        raise SourceError(f"an item cannot be called {name!r}: give a relative path without hidden parts")
    if path in known:
        raise SourceError(f"two items are called {name!r}: give each a name of its own")
    return path


def _label(label: object) -> str | None:
    if label is None or isinstance(label, str):
        return label or None
    if isinstance(label, int | np.integer) and not isinstance(label, bool):
        return str(label)
    raise SourceError(f"an item's label is a class's name, its number or None, not {type(label).__name__}")


def _file(given: object, name: str) -> bytes:
    """A picture as a file: bytes as they are, others as PPM, which is the same everywhere."""
    if isinstance(given, bytes | bytearray | memoryview):
        return bytes(given)
    if isinstance(given, np.ndarray):
        if given.dtype != np.uint8 or given.ndim not in (2, 3) or (given.ndim == 3 and given.shape[2] != 3):
            raise SourceError(
                f"the item {name!r}: an array is uint8 [height, width, RGB] or [height, width], not {given.dtype} "
                f"{list(given.shape)}"
            )
        given = Image.fromarray(given)
    if not isinstance(given, Image.Image):
        raise SourceError(f"the item {name!r} is {type(given).__name__}: give bytes, a PIL image or an array")
    data = io.BytesIO()
    try:
        upright(given).save(data, "PPM")
    except Rejected:
        raise
    except Exception as error:  # decoders, which PIL may only start now, raise whatever they like
        raise Rejected(RejectCode.DAMAGED, first_line(error)) from None
    return data.getvalue()
