"""Where labelled images come from. This says what a source is; each kind has a module of its own here.

A source lists its entries once, in the order of their paths' bytes; an entry's place in that list is its image_id.
Labels are the source's own class names here; `bagindex.labels` turns them into the model's classes, or refuses.

- `opening`: opens what is given; `kinds`: which kind it is. `files`: those that hold the pictures, and their splits.
- `folders`: folders of pictures; `bagindex.remote.source`: the same in an object store.
- `imagenet`, `archives`: ImageNet as people have it, one tar archive.
- `parquet`, `arrow`: pictures in tables, as Hugging Face's data sets are published and saved; `rows`: what they have in
  common, `columns`: where in a table.
- `webdataset`: shards of tar archives. `crops`: boxes of pictures.
- `torchvision`, `imagenette`: data sets by their names. `items`: what a program gives.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from bagindex.images import Rejected
from bagindex.text import path_text
from bagindex_schemas.records import SourceRecord
from bagindex_schemas.rejects import RejectCode

MAX_BYTES = 2**31
"""Larger files are not read: they would fill the memory, and the largest picture that is taken is half as large."""
_CLUTTER = frozenset({b"Thumbs.db", b"desktop.ini"})


@dataclass(frozen=True)
class Entry:
    """A file of a source.

    Attributes:
        path: its name in the source.
        size: its bytes; None where they are not known before it is read.
        label: its class, by the source's own name.
        rejected: why it cannot be read, where the listing knows that already.
        version: where the size is not known, a text that changes with the content instead.
    """

    path: bytes
    size: int | None
    label: str | None = None
    rejected: Rejected | None = None
    version: str = ""

    @property
    def text(self) -> str:
        """The path as text; bytes that are not UTF-8 show as `\\xNN`."""
        return path_text(self.path)


class Reader(Protocol):
    """Reads files that a source has listed."""

    def read(self, entry: Entry) -> bytes:
        """The file's bytes; raises `Rejected` when they cannot be had."""


class Source(Reader, Protocol):
    """Labelled image files."""

    @property
    def kind(self) -> str:
        """What sort of source it is; part of the index's identity."""

    @property
    def name(self) -> str:
        """A short name for people, from which an index's default name is made."""

    @property
    def location(self) -> str:
        """A hash of the place, so that a second source of the same name is told apart."""

    @property
    def entries(self) -> Sequence[Entry]:
        """All files, in the order of image_id."""

    def reader(self) -> Reader:
        """What reads the files and does not have the list of them, which may be long: for other processes."""


@dataclass(frozen=True)
class ListedSource:
    """What a listing has found, and what reads it. See `Source`.

    Attributes:
        files: reads the entries; it does not have the list of them.
        label_columns: names of what may be labels, where the listing says so.
    """

    kind: str
    name: str
    location: str
    entries: Sequence[Entry]
    files: Reader
    label_columns: Sequence[str] = ()

    def reader(self) -> Reader:
        """What reads the entries, without the list of them."""
        return self.files

    def read(self, entry: Entry) -> bytes:
        """An entry's bytes; raises `Rejected` when they cannot be had."""
        return self.files.read(entry)


def describe(source: Source, listed: int | None = None) -> SourceRecord:
    """What an index remembers of a source; `fingerprint` covers every path, size (or version) and label.

    `listed` is the number of files of the whole source, where `source` is a part of it.
    """
    digest = hashlib.sha256()
    for entry in source.entries:
        label = "" if entry.label is None else "=" + entry.label
        code = entry.rejected.code if entry.rejected else ""
        size = f"?{entry.version}" if entry.size is None else str(entry.size)
        line = (len(entry.path), entry.path, size.encode(), label.encode(), code.encode())
        digest.update(b"%d:%s\0%s\0%s\0%s\n" % line)
    return SourceRecord(
        kind=source.kind,
        name=source.name,
        location=source.location,
        fingerprint=digest.hexdigest(),
        files=len(source.entries),
        listed=len(source.entries) if listed is None else listed,
    )


def changed(before: int, now: int) -> Rejected:
    """A file is not what was listed, which is what an index remembers of its source."""
    return Rejected(
        RejectCode.CHANGED,
        f"has changed since it was listed ({before:,} bytes then, {now:,} now): `bagindex update` takes it up",
    )


def left_out(name: bytes) -> bool:
    """Whether a file or folder of that name is none of a source's."""
    return name.startswith(b".") or name in _CLUTTER


def bounds_reading(source: Reader) -> bool:
    """Whether a source sees to it by itself that reading comes to an end."""
    return bool(getattr(source, "bounded", False))


def label_columns(source: Source) -> Sequence[str]:
    """What `--label-column` may name in a source, where it is a table or archives."""
    found: Sequence[str] = getattr(source, "label_columns", ())
    return found


def place_hash(place: str | os.PathLike[str]) -> str:
    """What `location` says of a place."""
    return hashlib.sha256(os.fsencode(place)).hexdigest()[:16]


def source_name(name: str, parent: str) -> str:
    """A short name for a source in a folder of that name, below a parent."""
    generic = {"val", "validation", "valid", "train", "test", "images", "imgs", "pictures", "photos", "data"}
    name = name or "root"
    if name.lower() in generic and parent:
        name = f"{parent}-{name}"
    return path_text(os.fsencode(name))
