"""Parquet files that have pictures in a column, as data sets are published today.

Listing reads the footers and the labels. A picture is read with its row group's rows before it, a few at a time: files
are taken in order, and a row that comes after the one before costs nothing more.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bagindex.arrays import UNREADABLE
from bagindex.errors import SourceError
from bagindex.images import Rejected
from bagindex.sources import Entry, Reader
from bagindex.sources.columns import Columns, find_columns, label_texts, parse_row, row_path
from bagindex.sources.files import Found, Stamp, changed_file, stamp
from bagindex.text import first_line
from bagindex_schemas.rejects import RejectCode

_BATCH_BYTES = 2**23
_BATCH_ROWS = 256
_KEPT_BYTES = 2**26
_KEPT_ROWS = 64
"""What was read last stays, so much of it and so many rows at least: workers read side by side."""
_OPEN = 4
"""Row groups that are being read at a time."""


@dataclass(frozen=True)
class _File:
    path: Path
    stamp: Stamp
    columns: Columns


class ParquetReader:
    """Reads rows of files by their paths. Safe to use from several threads, one of which reads at a time.

    Args:
        files: by their paths in the source.
    """

    def __init__(self, files: Mapping[bytes, _File]) -> None:
        self._files = files
        self._groups: OrderedDict[tuple[bytes, int], _Group] = OrderedDict()
        self._reading = threading.Lock()

    def __reduce__(self) -> tuple[type[ParquetReader], tuple[Mapping[bytes, _File]]]:
        """For other processes, which open the files anew."""
        return ParquetReader, (self._files,)

    def read(self, entry: Entry) -> bytes:
        """A row's picture.

        Raises:
            Rejected: it is empty, or cannot be read.
            SourceError: the file is another than when it was listed.
        """
        name, row = parse_row(entry.path)
        file = self._files.get(name)
        if file is None:
            raise Rejected(RejectCode.MISSING, "not there")
        if stamp(file.path) != file.stamp:
            raise changed_file(file.path)
        try:
            with self._reading:
                value = self._value(name, file, row)
        except UNREADABLE as error:
            # Parquet's own errors say nothing of a file that was replaced under them.
            if stamp(file.path) != file.stamp:
                raise changed_file(file.path) from None
            raise Rejected(RejectCode.DAMAGED, f"its row group cannot be read: {first_line(error)}") from None
        if value is None:
            raise Rejected(RejectCode.MISSING, "the row has no bytes of a picture")
        return value

    def _value(self, name: bytes, file: _File, row: int) -> bytes | None:
        for key, group in reversed(self._groups.items()):
            if key[0] == name and group.first <= row < group.end:
                self._groups.move_to_end(key)
                break
        else:
            group = _Group.open(file, row)
            self._groups[name, group.first] = group
            if len(self._groups) > _OPEN:
                self._groups.popitem(last=False)
        try:
            return group.at(row)
        except BaseException:  # what has failed does not go on
            del self._groups[name, group.first]
            raise


class _Group:
    """One row group, read forwards; `first` and `end` are its rows in the file."""

    def __init__(self, file: pq.ParquetFile, number: int, first: int, columns: Columns) -> None:
        group = file.metadata.row_group(number)
        self.first, self.end = first, first + group.num_rows
        self._file, self._number, self._columns = file, number, columns
        size = sum(
            column.total_uncompressed_size
            for column in map(group.column, range(group.num_columns))
            if column.path_in_schema == columns.bytes
        )
        self._rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * group.num_rows // max(1, size)))
        self._begin()

    @classmethod
    def open(cls, file: _File, row: int) -> _Group:
        """The row group that has a row.

        Raises:
            UNREADABLE: the file cannot be read, or has no such row.
        """
        opened = _open(file.path)
        first = 0
        for number in range(opened.num_row_groups):
            end = first + opened.metadata.row_group(number).num_rows
            if row < end:
                return cls(opened, number, first, file.columns)
            first = end
        raise IndexError(f"there is no row {row}")

    def at(self, row: int) -> bytes | None:
        """The bytes in a row; None where there are none."""
        if row < (self._kept[0][0] if self._kept else self._next):
            self._begin()
        while row >= self._next:
            batch = next(self._batches, None)
            if batch is None:
                raise IndexError("it ends early")
            values = self._bytes(batch)
            self._kept.append((self._next, values))
            self._next += len(values)
            self._drop()
        first, values = next(each for each in reversed(self._kept) if each[0] <= row)
        value: bytes | None = values[row - first].as_py()
        return value

    def _begin(self) -> None:
        self._next = self.first
        self._kept: deque[tuple[int, Any]] = deque()
        self._batches: Iterator[pa.RecordBatch] = self._file.iter_batches(
            self._rows, row_groups=[self._number], columns=[self._columns.bytes], use_threads=False
        )

    def _bytes(self, batch: pa.RecordBatch) -> Any:
        column = batch.column(0)
        # Flattened, a struct that is null has fields that are.
        return column.flatten()[0] if self._columns.nested else column

    def _drop(self) -> None:
        sizes = [values.nbytes for _, values in self._kept]
        kept, rows = sum(sizes), self._next - self._kept[0][0]
        while kept > _KEPT_BYTES and rows - len(self._kept[0][1]) >= _KEPT_ROWS:
            _, values = self._kept.popleft()
            kept, rows = kept - values.nbytes, rows - len(values)


@dataclass(frozen=True)
class ParquetSource:
    """The rows of some files; `entries` are called `FILE/ROW`, and by their original names where there are any."""

    name: str
    location: str
    entries: Sequence[Entry]
    rows: ParquetReader
    kind: str = "parquet"

    def reader(self) -> Reader:
        """What reads the files."""
        return self.rows

    def read(self, entry: Entry) -> bytes:
        """A row's picture; see `ParquetReader.read`."""
        return self.rows.read(entry)


def open_parquet(found: Found, image: str | None, label: str | None) -> ParquetSource:
    """List the rows of Parquet files.

    Args:
        found: the files.
        image: the column of the pictures; by default the only one, or the one called `image`.
        label: the column of their labels; by default the only one of classes, or the one called `label`.

    Raises:
        SourceError: a file cannot be read, has no rows, or not the columns.
        LabelError: a label means nothing.
    """
    files: dict[bytes, _File] = {}
    entries: list[Entry] = []
    for name, path in found.files.items():
        before = stamp(path)
        with _readable(path), _open(path) as opened:
            columns = find_columns(opened.schema_arrow, image, label, path)
            version = _version(path, before[0])
            table = opened.read(columns.wanted) if columns.wanted else None
            count = opened.metadata.num_rows
        files[name] = _File(path, before, columns)
        labels: list[str | None] = [None] * count
        originals: list[str | None] = [None] * count
        if table is not None and columns.label:
            labels = label_texts(columns, table.column(columns.label).to_pylist(), path)
        if table is not None and columns.named:
            originals = pc.struct_field(table.column(columns.image), "path").to_pylist()
        entries += [
            Entry(row_path(name, row, original), None, text, version=version)
            for row, (text, original) in enumerate(zip(labels, originals, strict=True))
        ]
    if not entries:
        raise SourceError(f"no rows in {found.place}: give Parquet files of pictures")
    entries.sort(key=lambda entry: entry.path)
    return ParquetSource(found.name, found.location, entries, ParquetReader(files))


def _open(path: Path) -> pq.ParquetFile:
    # Not the whole of a column at once: a row group may be larger than memory.
    return pq.ParquetFile(path, pre_buffer=False, buffer_size=2**20)


def _version(path: Path, size: int) -> str:
    """Of all rows of a file: its footer says where each part of it lies and how long it is."""
    with path.open("rb") as file:
        file.seek(-8, os.SEEK_END)
        footer = int.from_bytes(file.read(4), "little")
        file.seek(-8 - footer, os.SEEK_END)
        return f"{size}-{hashlib.sha256(file.read(footer)).hexdigest()[:16]}"


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    try:
        yield
    except UNREADABLE as error:
        raise SourceError(f"{path} is damaged, or no Parquet file: {first_line(error)}") from None
