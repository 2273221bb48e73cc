"""Parquet files that have pictures in a column, as data sets are published today.

Listing reads the footers and the labels. A picture is read with its row group's rows before it, a few at a time, or a
page of the file: rows are taken in order, and one that comes after the one before costs nothing more.
"""

from __future__ import annotations

import hashlib
import os
import threading
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bagindex.sources import Entry
from bagindex.sources.columns import Asked, Columns, find_columns, label_texts, pictures_of
from bagindex.sources.files import Found, stamp
from bagindex.sources.rows import RowFile, RowReader, RowSource, readable, row_path

if TYPE_CHECKING:
    from bagindex.remote.ranges import RemoteFile

_BATCH_BYTES = 2**23
_BATCH_ROWS = 256
_KEPT_BYTES = 2**26
_KEPT_ROWS = 64
"""What was read last stays, so much of it and so many rows at least: workers read side by side."""
_READ = 2**20
_READ_REMOTE = 2**23
"""Bytes that are read at a time, from a disk and from a store."""
_OPEN = 4
"""Files, and places in row groups, that are being read at a time."""


class ParquetReader(RowReader["Path | RemoteFile"]):
    """Reads rows of Parquet files. One thread reads at a time."""

    def __init__(self, files: Mapping[bytes, RowFile[Path | RemoteFile]]) -> None:
        super().__init__(files)
        self._opened: OrderedDict[bytes, _Opened] = OrderedDict()
        self._cursors: list[_Cursor] = []
        self._reading = threading.Lock()

    def value(self, name: bytes, file: RowFile[Path | RemoteFile], row: int) -> bytes | None:
        """The bytes in a row; None where there are none."""
        with self._reading:
            return self._value(name, file, row)

    def _value(self, name: bytes, file: RowFile[Path | RemoteFile], row: int) -> bytes | None:
        if name not in self._opened:
            self._opened[name] = _Opened(_open(file.path))
            if len(self._opened) > _OPEN:
                self._opened.popitem(last=False)
        opened = self._opened[name]
        group = opened.group_of(row)
        # Of several that can go on to the row, the nearest: workers far apart do not send each other back.
        near = [each for each in self._cursors if each.opened is opened and each.group == group and each.reaches(row)]
        cursor = max(near, key=lambda each: each.next, default=None) or _Cursor(opened, group, file.columns)
        if near:
            self._cursors.remove(cursor)  # which does not come back where reading fails
        value = cursor.at(row)
        self._cursors = [*self._cursors, cursor][-_OPEN:]
        return value


class _Opened:
    """An open file, and the first row of each of its row groups."""

    def __init__(self, file: pq.ParquetFile) -> None:
        self.file = file
        groups = range(file.num_row_groups)
        self.firsts = [0, *accumulate(file.metadata.row_group(number).num_rows for number in groups)]

    def group_of(self, row: int) -> int:
        """The row group that has a row; raises IndexError where there is none."""
        if row >= self.firsts[-1]:
            raise IndexError(f"there is no row {row}")
        return bisect_right(self.firsts, row) - 1


class _Cursor:
    """A row group that is read forwards; `next` is the first row that was not read."""

    def __init__(self, opened: _Opened, number: int, columns: Columns) -> None:
        group = opened.file.metadata.row_group(number)
        self.opened, self.group, self.next = opened, number, opened.firsts[number]
        self._columns = columns
        size = sum(
            column.total_uncompressed_size
            for column in map(group.column, range(group.num_columns))
            if column.path_in_schema == columns.bytes
        )
        rows = max(1, min(_BATCH_ROWS, _BATCH_BYTES * group.num_rows // max(1, size)))
        self._kept: deque[tuple[int, Any]] = deque()
        self._batches: Iterator[pa.RecordBatch] = opened.file.iter_batches(
            rows, row_groups=[number], columns=[columns.bytes], use_threads=False
        )

    def reaches(self, row: int) -> bool:
        """Whether a row is kept, or is still to come."""
        return row >= (self._kept[0][0] if self._kept else self.next)

    def at(self, row: int) -> bytes | None:
        """The bytes in a row; None where there are none."""
        while row >= self.next:
            batch = next(self._batches, None)
            if batch is None:
                raise IndexError("it ends early")
            values = pictures_of(batch, self._columns)
            self._kept.append((self.next, values))
            self.next += len(values)
            self._drop()
        first, values = next(each for each in reversed(self._kept) if each[0] <= row)
        value: bytes | None = values[row - first].as_py()
        return value

    def _drop(self) -> None:
        sizes = [values.nbytes for _, values in self._kept]
        kept, rows = sum(sizes), self.next - self._kept[0][0]
        while kept > _KEPT_BYTES and rows - len(self._kept[0][1]) >= _KEPT_ROWS:
            _, values = self._kept.popleft()
            kept, rows = kept - values.nbytes, rows - len(values)


def open_parquet(found: Found[Path | RemoteFile], asked: Asked) -> RowSource:
    """List the rows of Parquet files.

    Args:
        found: the files.
        asked: their columns; by default the only one of pictures, or the one called `image`, and the only one of
            classes, or the one called `label`.

    Raises:
        SourceError: a file cannot be read, has no rows, or not the columns.
        LabelError: a label means nothing.
    """
    files: dict[bytes, RowFile[Path | RemoteFile]] = {}
    entries: list[Entry] = []
    for name, path in found.files.items():
        before = stamp(path) if isinstance(path, Path) else None
        with readable(path, "Parquet"), _open(path) as opened:
            columns = find_columns(opened.schema_arrow, asked, path)
            version = _version(path)
            table = opened.read(columns.wanted) if columns.wanted else None
            count = opened.metadata.num_rows
        files[name] = RowFile(path, before, columns)
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
    return RowSource.of("parquet", found, entries, ParquetReader(files))


def _open(file: Path | RemoteFile) -> pq.ParquetFile:
    # Not the whole of a column at once: a row group may be larger than memory.
    if isinstance(file, Path):
        return pq.ParquetFile(file, pre_buffer=False, buffer_size=_READ)
    return pq.ParquetFile(pa.PythonFile(file.open(), mode="r"), pre_buffer=False, buffer_size=_READ_REMOTE)


def _version(path: Path | RemoteFile) -> str:
    """Of all rows of a file: its footer says where each part of it lies and how long it is."""
    with path.open("rb") if isinstance(path, Path) else path.open() as file:
        end = file.seek(-8, os.SEEK_END)
        footer = int.from_bytes(file.read(4), "little")
        file.seek(end - footer)
        return f"{end + 8}-{hashlib.sha256(file.read(footer)).hexdigest()[:16]}"
