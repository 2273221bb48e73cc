"""Rows of tables as a source's files: what Parquet files and Arrow files have in common."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self

from bagindex.arrays import UNREADABLE
from bagindex.errors import SourceError
from bagindex.images import Rejected
from bagindex.sources import Entry, Reader
from bagindex.sources.columns import Columns
from bagindex.sources.files import File, Found, Stamp, changed_file, stamp
from bagindex.text import first_line
from bagindex_schemas.rejects import RejectCode

_DIGITS = 6
"""A row's number in a path has so many digits, so that rows are in order; larger ones have more."""


@dataclass(frozen=True)
class RowFile(Generic[File]):
    """A file of rows as it was listed, and its columns. A remote one needs no stamp: other bytes are not read of it."""

    path: File
    stamp: Stamp | None
    columns: Columns


class RowReader(ABC, Generic[File]):
    """Reads rows of files by the rows' paths. Safe to use from several threads.

    Args:
        files: by their paths in the source.
    """

    def __init__(self, files: Mapping[bytes, RowFile[File]]) -> None:
        self._files = files

    @property
    def bounded(self) -> bool:
        """Whether reading comes to an end by itself, as it does where the files are in a store."""
        return not all(isinstance(file.path, Path) for file in self._files.values())

    @property
    def label_columns(self) -> list[str]:
        """The columns of any file that may be of labels."""
        return list(dict.fromkeys(name for file in self._files.values() for name in file.columns.possible))

    def __reduce__(self) -> tuple[type[Self], tuple[Mapping[bytes, RowFile[File]]]]:
        """For other processes, which open the files anew."""
        return type(self), (self._files,)

    def read(self, entry: Entry) -> bytes:
        """A row's picture.

        Raises:
            Rejected: it is empty, or cannot be read.
            SourceError: the file is another than when it was listed.
        """
        name, _, row = entry.path.rpartition(b"/")
        file = self._files.get(name)
        if file is None:
            raise Rejected(RejectCode.MISSING, "not there")
        _check_unchanged(file)
        try:
            value = self.value(name, file, int(row.partition(b"-")[0]))
        except UNREADABLE as error:
            _check_unchanged(file)  # the formats' own errors say nothing of a file that was replaced under them
            raise Rejected(RejectCode.DAMAGED, f"the rows there cannot be read: {first_line(error)}") from None
        if value is None:
            raise Rejected(RejectCode.MISSING, "the row has no bytes of a picture")
        return value

    @abstractmethod
    def value(self, name: bytes, file: RowFile[File], row: int) -> bytes | None:
        """The bytes in a row; None where there are none. Raises UNREADABLE where they cannot be read."""


@dataclass(frozen=True)
class RowSource:
    """The rows of some files; `entries` are called `FILE/ROW`, and by their original names where there are any."""

    kind: str
    name: str
    location: str
    entries: Sequence[Entry]
    rows: RowReader[Any]

    @classmethod
    def of(cls, kind: str, found: Found[object], entries: Iterable[Entry], rows: RowReader[Any]) -> RowSource:
        """The rows of the files that were found.

        Raises:
            SourceError: there are none.
        """
        listed = sorted(entries, key=lambda entry: entry.path)
        if not listed:
            raise SourceError(f"no rows in {found.place}: give a data set of pictures")
        return cls(kind, found.name, found.location, listed, rows)

    @property
    def bounded(self) -> bool:
        """See `RowReader.bounded`."""
        return self.rows.bounded

    @property
    def label_columns(self) -> list[str]:
        """See `RowReader.label_columns`."""
        return self.rows.label_columns

    def reader(self) -> Reader:
        """What reads the files."""
        return self.rows

    def read(self, entry: Entry) -> bytes:
        """A row's picture; see `RowReader.read`."""
        return self.rows.read(entry)


def row_path(file: bytes, row: int, original: str | None) -> bytes:
    """What a row is called: its file and number, and the name that the picture had before."""
    name = os.path.basename(original) if original else ""
    return b"%s/%0*d%s" % (file, _DIGITS, row, b"-" + os.fsencode(name) if name else b"")


@contextmanager
def readable(path: object, what: str) -> Iterator[None]:
    """What reading a damaged file raises, as an error to act on."""
    try:
        yield
    except UNREADABLE as error:
        raise SourceError(f"{path} is damaged, or no {what} file: {first_line(error)}") from None


def _check_unchanged(file: RowFile[object]) -> None:
    if isinstance(file.path, Path) and stamp(file.path) != file.stamp:
        raise changed_file(file.path)
