"""Parquet files whose last column is an array of float16, written at the speed of the disk.

pyarrow goes through such a column value by value. But its row groups are all of one shape: pyarrow writes one of them,
the *mould*, and for all others only the values differ. So a row group is the pages of the small columns as pyarrow
encodes them, what stands before the values in the mould (page header and levels), and the values as they lie in
memory; and the footer is pyarrow's, with the row groups entered. The bytes are those of a file that pyarrow wrote.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagindex import thrift
from bagindex.arrays import ONE_PAGE
from bagindex_schemas.records import FileRecord

SYNC_EVERY = 32_000_000
"""Bytes after which they are brought to the disk: else a shard's gigabytes pile up in memory, for one long fsync."""

_MAGIC = b"PAR1"
_synchronise = os.fdatasync if hasattr(os, "fdatasync") else os.fsync  # macOS has no fdatasync


class _FileMetaData:
    """Field ids, here and below, as `parquet.thrift` numbers them.

    `KNOWN` are those whose values are replaced here or hold for any row group; another one might be an offset.
    """

    NUM_ROWS = 3
    ROW_GROUPS = 4


class _RowGroup:
    COLUMNS = 1
    TOTAL_BYTE_SIZE = 2
    NUM_ROWS = 3
    FILE_OFFSET = 5
    TOTAL_COMPRESSED_SIZE = 6
    ORDINAL = 7
    KNOWN = frozenset({1, 2, 3, 5, 6, 7})


class _ColumnChunk:
    FILE_OFFSET = 2
    META_DATA = 3
    KNOWN = frozenset({2, 3})


class _ColumnMetaData:
    TOTAL_UNCOMPRESSED_SIZE = 6
    TOTAL_COMPRESSED_SIZE = 7
    DATA_PAGE_OFFSET = 9
    DICTIONARY_PAGE_OFFSET = 11
    STATISTICS = 12
    KNOWN = frozenset({1, 2, 3, 4, 5, 6, 7, 9, 11, 12, 13, 16})


class _PageHeader:
    UNCOMPRESSED_PAGE_SIZE = 2
    COMPRESSED_PAGE_SIZE = 3
    DATA_PAGE_HEADER = 5


class _DataPageHeader:
    STATISTICS = 5


@dataclass(frozen=True)
class Encoding:
    """How a column is written.

    Attributes:
        name: Parquet's name for it, or `DICTIONARY`.
        compression: a codec's name, or `none`.
        statistics: whether minimum and maximum stand in the footer.
    """

    name: str
    compression: str = "none"
    statistics: bool = True


_ARRAY = Encoding("PLAIN", statistics=False)


@dataclass(frozen=True)
class Chunk:
    """A column of one row group, encoded; it may be appended to several.

    Attributes:
        column: its name.
        rows: how many.
        pages: its bytes in the file (of an array: those before its values).
        entry: its place in the footer, a `ColumnChunk`, as if the chunk were the file's first.
    """

    column: str
    rows: int
    pages: bytes
    entry: thrift.Struct

    def at(self, offset: int) -> thrift.Struct:
        """Its entry in the footer when it stands at a byte offset of the file."""
        metadata = self.entry[_ColumnChunk.META_DATA]
        places = {_ColumnMetaData.DICTIONARY_PAGE_OFFSET, _ColumnMetaData.DATA_PAGE_OFFSET} & metadata.fields.keys()
        # A chunk without rows has no data page; pyarrow then leaves the offset at 0.
        moved = {place: metadata[place] - len(_MAGIC) + offset for place in places if metadata[place]}
        return self.entry.replaced({_ColumnChunk.META_DATA: metadata.replaced(moved)})


@dataclass(frozen=True)
class WrittenFile:
    """A finished file.

    Attributes:
        record: its size and SHA-256.
        offsets: the byte offset of each row group's values.
    """

    record: FileRecord
    offsets: tuple[int, ...]


class ArrayFile:
    """A Parquet file that is written a row group at a time: a context manager, which closes the file.

    Args:
        path: the file; one that is there is overwritten.
        schema: its columns, none nullable. The last one is the array, float16 or fixed-size lists of float16, which is
            written PLAIN, uncompressed and without statistics.
        encodings: for each other column.
    """

    def __init__(self, path: Path, schema: pa.Schema, encodings: Mapping[str, Encoding]) -> None:
        *small, self._array = schema
        if [field.name for field in small] != list(encodings) or any(field.nullable for field in schema):
            raise ValueError(f"{path}: an encoding for each column but the last, in order, none of them nullable")
        self._path = path
        self._fields = {field.name: field for field in small}
        self._encodings = encodings
        self._width = (self._array.type.list_size,) if pa.types.is_fixed_size_list(self._array.type) else ()
        self._array_moulds: dict[int, _Mould] = {}
        self._constants: dict[tuple[str, int], Chunk] = {}
        self._footer = _footer(_parquet(schema))
        self._row_groups: list[bytes] = []
        self._rows = 0
        self._offsets: list[int] = []
        self._position = 0
        self._synchronised = 0
        self._digest = hashlib.sha256()
        self._file = path.open("wb", buffering=0)
        try:
            self._write(_MAGIC)
        except OSError:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the file, finished or not; may be called again."""
        self._file.close()

    def encode(self, column: str, values: NDArray[Any]) -> Chunk:
        """A row group's values of a small column, [rows], encoded."""
        field = self._fields[column]
        return _mould(field, pa.array(values, type=field.type), self._encodings[column]).chunk

    def encode_constant(self, column: str, value: int, rows: int) -> Chunk:
        """The same as `encode` of `value` in all rows; with a dictionary, only the first value takes time for the rows.

        The data page then says only that all rows are the dictionary's first value, so the page of another value does,
        with the statistics exchanged.
        """
        if self._encodings[column].name != "DICTIONARY" or rows == 0:
            return self.encode(column, np.full(rows, value))
        if (column, rows) not in self._constants:
            self._constants[column, rows] = self.encode(column, np.full(rows, value))
        return _with_value(self._constants[column, rows], self.encode(column, np.full(1, value)))

    def append(self, chunks: Sequence[Chunk], values: NDArray[np.float16]) -> None:
        """Write a row group: its small columns in the schema's order, and its array, float16 [rows, ...].

        After an error the file is of no use.

        Raises:
            ValueError: something has another shape or type than the file's.
            OSError: the disk is full, say.
        """
        rows = len(values)
        if [(chunk.column, chunk.rows) for chunk in chunks] != [(name, rows) for name in self._fields]:
            raise ValueError(f"{self._path}: a row group is {rows} rows of each of {', '.join(self._fields)}")
        if values.dtype != np.dtype("<f2") or values.shape != (rows, *self._width):
            raise ValueError(f"{self._path}: {values.dtype} {values.shape} is not float16 {(rows, *self._width)}")
        mould = self._array_mould(rows)
        columns, offset = [], self._position
        for chunk in (*chunks, mould.chunk):
            columns.append(chunk.at(offset))
            offset += len(chunk.pages)
        self._enter_row_group(mould.row_group, columns, rows)
        self._write(b"".join(chunk.pages for chunk in (*chunks, mould.chunk)))
        self._offsets.append(self._position)
        self._write(np.ascontiguousarray(values).reshape(-1).view(np.uint8).data)

    def finish(self) -> WrittenFile:
        """Write the footer and close the file."""
        groups = thrift.List(thrift.Type.STRUCT, tuple(self._row_groups))
        footer = thrift.emit(
            self._footer.replaced({_FileMetaData.NUM_ROWS: self._rows, _FileMetaData.ROW_GROUPS: groups})
        )
        self._write(footer + len(footer).to_bytes(4, "little") + _MAGIC)
        self._file.close()
        return WrittenFile(FileRecord(bytes=self._position, sha256=self._digest.hexdigest()), tuple(self._offsets))

    def _array_mould(self, rows: int) -> _Mould:
        if rows not in self._array_moulds:
            # Any finite values would do, but different ones show that they stand where they are thought to stand.
            values = np.resize(np.arange(0x7C00, dtype="<u2").view("<f2"), (rows, *self._width))
            column = pa.array(values.reshape(-1))
            if self._width:
                column = pa.FixedSizeListArray.from_arrays(column, type=self._array.type)
            self._array_moulds[rows] = _mould(self._array, column, _ARRAY, values.tobytes())
        return self._array_moulds[rows]

    def _enter_row_group(self, mould: thrift.Struct, columns: Sequence[thrift.Struct], rows: int) -> None:
        """Put a row group into the footer; as bytes, which take far less memory than the tree."""
        metadata = [column[_ColumnChunk.META_DATA] for column in columns]
        first = metadata[0]
        has_dictionary = _ColumnMetaData.DICTIONARY_PAGE_OFFSET in first
        start = _ColumnMetaData.DICTIONARY_PAGE_OFFSET if has_dictionary else _ColumnMetaData.DATA_PAGE_OFFSET
        fields = {
            _RowGroup.COLUMNS: thrift.List(thrift.Type.STRUCT, tuple(columns)),
            _RowGroup.TOTAL_BYTE_SIZE: sum(each[_ColumnMetaData.TOTAL_UNCOMPRESSED_SIZE] for each in metadata),
            _RowGroup.NUM_ROWS: rows,
            _RowGroup.FILE_OFFSET: first[start],
            _RowGroup.TOTAL_COMPRESSED_SIZE: sum(each[_ColumnMetaData.TOTAL_COMPRESSED_SIZE] for each in metadata),
        }
        if _RowGroup.ORDINAL in mould:
            fields[_RowGroup.ORDINAL] = len(self._row_groups)
        self._row_groups.append(thrift.emit(mould.replaced(fields)))
        self._rows += rows

    def _write(self, data: bytes | memoryview) -> None:
        self._digest.update(data)
        left = memoryview(data)
        while left:
            written = os.write(self._file.fileno(), left)
            left, self._position = left[written:], self._position + written
        if self._position - self._synchronised >= SYNC_EVERY:
            _synchronise(self._file.fileno())
            self._synchronised = self._position


@dataclass(frozen=True)
class _Mould:
    """A column that pyarrow wrote alone, and its row group's entry in the footer."""

    chunk: Chunk
    row_group: thrift.Struct


def _mould(field: pa.Field, values: pa.Array, encoding: Encoding, tail: bytes = b"") -> _Mould:
    """Encode a column; `tail` is what its bytes must end with, and is left out."""
    dictionary = encoding.name == "DICTIONARY"
    file = _parquet(
        pa.schema([field]),
        [values],
        store_schema=False,
        compression=encoding.compression,
        use_dictionary=dictionary,
        column_encoding=None if dictionary else encoding.name,
        write_statistics=encoding.statistics,
        write_page_index=False,
        **ONE_PAGE,
    )
    (row_group,) = _footer(file)[_FileMetaData.ROW_GROUPS].items
    (column,) = row_group[_RowGroup.COLUMNS].items
    metadata = column[_ColumnChunk.META_DATA]
    end = len(_MAGIC) + metadata[_ColumnMetaData.TOTAL_COMPRESSED_SIZE]
    known = (
        row_group.fields.keys() <= _RowGroup.KNOWN
        and column.fields.keys() <= _ColumnChunk.KNOWN
        and column[_ColumnChunk.FILE_OFFSET] == 0
        and metadata.fields.keys() <= _ColumnMetaData.KNOWN
        and file[end - len(tail) : end] == tail
    )
    if not known:
        raise RuntimeError(f"pyarrow {pa.__version__} lays out the column {field.name} in a way bagindex does not know")
    pages = bytes(file[len(_MAGIC) : end - len(tail)])
    return _Mould(Chunk(field.name, len(values), pages, column), row_group)


def _parquet(schema: pa.Schema, columns: Sequence[pa.Array] = (), **options: Any) -> memoryview:
    """A file that pyarrow writes, in memory: of one row group, or without columns of none."""
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, **options) as writer:
        if columns:
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(1, len(columns[0])))
    return memoryview(sink.getvalue()).cast("B")


def _footer(file: memoryview) -> thrift.Struct:
    end = len(file) - len(_MAGIC) - 4
    return thrift.parse(bytes(file[end - int.from_bytes(file[end : end + 4], "little") : end]))


@dataclass(frozen=True)
class _Page:
    header: thrift.Struct
    body: bytes

    @property
    def saved(self) -> int:
        """Bytes that compression saved."""
        return int(self.header[_PageHeader.UNCOMPRESSED_PAGE_SIZE]) - len(self.body)

    def emit(self) -> bytes:
        return thrift.emit(self.header) + self.body


def _pages(chunk: Chunk) -> list[_Page]:
    pages = []
    reader = thrift.Reader(chunk.pages)
    while reader.position < len(chunk.pages):
        header = reader.struct()
        end = reader.position + header[_PageHeader.COMPRESSED_PAGE_SIZE]
        pages.append(_Page(header, chunk.pages[reader.position : end]))
        reader.position = end
    return pages


def _with_value(chunk: Chunk, one: Chunk) -> Chunk:
    """A chunk of one value in all rows, with the dictionary and the statistics of another chunk, which has one row."""
    metadata, one_metadata = chunk.entry[_ColumnChunk.META_DATA], one.entry[_ColumnChunk.META_DATA]
    _, data_page = _pages(chunk)
    dictionary, one_data_page = _pages(one)
    header = data_page.header[_PageHeader.DATA_PAGE_HEADER]
    exchanged = {}
    if _ColumnMetaData.STATISTICS in metadata:
        statistics = one_data_page.header[_PageHeader.DATA_PAGE_HEADER][_DataPageHeader.STATISTICS]
        header = header.replaced({_DataPageHeader.STATISTICS: statistics})
        exchanged[_ColumnMetaData.STATISTICS] = one_metadata[_ColumnMetaData.STATISTICS]
    data_page = _Page(data_page.header.replaced({_PageHeader.DATA_PAGE_HEADER: header}), data_page.body)
    first = dictionary.emit()
    pages = first + data_page.emit()
    exchanged |= {
        _ColumnMetaData.TOTAL_COMPRESSED_SIZE: len(pages),
        _ColumnMetaData.TOTAL_UNCOMPRESSED_SIZE: len(pages) + dictionary.saved + data_page.saved,
        _ColumnMetaData.DATA_PAGE_OFFSET: len(_MAGIC) + len(first),
    }
    entry = chunk.entry.replaced({_ColumnChunk.META_DATA: metadata.replaced(exchanged)})
    return Chunk(chunk.column, chunk.rows, pages, entry)
