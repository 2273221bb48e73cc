"""Parquet files that have pictures in a column, as data sets are published today.

Listing reads the footers and the labels. A picture is read with its row group's rows before it, a few at a time: files
are taken in order, and a row that comes after the one before costs nothing more.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections import OrderedDict, deque
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bagindex.sources import Entry
from bagindex.sources.columns import Asked, Columns, find_columns, label_texts, pictures_of
from bagindex.sources.files import Found, stamp
from bagindex.sources.rows import RowFile, RowReader, RowSource, readable, row_path

_BATCH_BYTES = 2**23
_BATCH_ROWS = 256
_KEPT_BYTES = 2**26
_KEPT_ROWS = 64
"""What was read last stays, so much of it and so many rows at least: workers read side by side."""
_OPEN = 4
"""Row groups that are being read at a time."""


class ParquetReader(RowReader):
    """Reads rows of Parquet files. One thread reads at a time."""

    def __init__(self, files: Mapping[bytes, RowFile]) -> None:
        super().__init__(files)
        self._groups: OrderedDict[tuple[bytes, int], _Group] = OrderedDict()
        self._reading = threading.Lock()

    def value(self, name: bytes, file: RowFile, row: int) -> bytes | None:
        """The bytes in a row; None where there are none."""
        with self._reading:
            return self._value(name, file, row)

    def _value(self, name: bytes, file: RowFile, row: int) -> bytes | None:
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
    def open(cls, file: RowFile, row: int) -> _Group:
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
            values = pictures_of(batch, self._columns)
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

    def _drop(self) -> None:
        sizes = [values.nbytes for _, values in self._kept]
        kept, rows = sum(sizes), self._next - self._kept[0][0]
        while kept > _KEPT_BYTES and rows - len(self._kept[0][1]) >= _KEPT_ROWS:
            _, values = self._kept.popleft()
            kept, rows = kept - values.nbytes, rows - len(values)


def open_parquet(found: Found, asked: Asked) -> RowSource:
    """List the rows of Parquet files.

    Args:
        found: the files.
        asked: their columns; by default the only one of pictures, or the one called `image`, and the only one of
            classes, or the one called `label`.

    Raises:
        SourceError: a file cannot be read, has no rows, or not the columns.
        LabelError: a label means nothing.
    """
    files: dict[bytes, RowFile] = {}
    entries: list[Entry] = []
    for name, path in found.files.items():
        before = stamp(path)
        with readable(path, "Parquet"), _open(path) as opened:
            columns = find_columns(opened.schema_arrow, asked, path)
            version = _version(path, before[0])
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
