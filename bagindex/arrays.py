"""Parquet columns that are arrays too: features and evidence, read in place without decoding.

An uncompressed PLAIN column without nulls, one page to a row group, holds the row group's values in one piece. So a
memory map gives random access to features at no cost in bytes, where reading by row group would decode whole images.
"""

from __future__ import annotations

import mmap
import os
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

UNREADABLE = (OSError, ValueError, KeyError, IndexError, pa.ArrowException)
"""What reading a damaged Parquet file may raise."""
CHECKED = {"compression": "zstd", "write_page_checksum": True}
"""Options of a Parquet writer for what is read with `open_checked`."""
_MAGIC = b"PAR1"
ONE_PAGE = {"data_page_size": 2**31 - 1, "max_rows_per_page": 2**31 - 1}
"""Options of a Parquet writer that put a row group's column into a single page."""


class Arrays(Protocol):
    """Equal float16 arrays in a file, one for each row group."""

    def __len__(self) -> int:
        """Number of arrays."""

    def __getitem__(self, group: int) -> NDArray[np.float16]:
        """The array of a row group."""

    def rows(self, places: Sequence[tuple[int, int]]) -> NDArray[np.float16]:
        """Rows of arrays, each as (array, row), float16 [places, ...]."""


def array_offsets(
    path: Path, column: int, bytes_per_row: int, schema: pa.Schema | None = None, file: Any = None
) -> tuple[int, ...]:
    """Byte offset of a column's values in each row group: a page is its header, the levels, then the values.

    Args:
        path: the file.
        column: its place among the columns.
        bytes_per_row: of its values.
        schema: what the columns must be.
        file: what PyArrow reads it by, where that is not its path.

    Raises:
        ValueError: the columns are others, or by the footer they do not stand one after the other, from the file's
            beginning to the footer.
    """
    metadata = pq.read_metadata(path if file is None else file)
    if schema is not None:
        check_schema(metadata.schema.to_arrow_schema(), schema)
    offsets: list[int] = []
    place = len(_MAGIC)
    for group in map(metadata.row_group, range(metadata.num_row_groups)):
        for number in range(group.num_columns if group.num_rows else 0):
            chunk = group.column(number)
            # Only a column that is encoded so has a dictionary; it stands before the values.
            if min(chunk.dictionary_page_offset or chunk.data_page_offset, chunk.data_page_offset) != place:
                raise ValueError(f"row group {len(offsets)} is not where it should be")
            if number == 0 and chunk.num_values != group.num_rows:
                raise ValueError(f"row group {len(offsets)} has not a value for each row")
            place += chunk.total_compressed_size
            if number == column:
                offsets.append(place - group.num_rows * bytes_per_row)
    if place != path.stat().st_size - metadata.serialized_size - len(_MAGIC) - 4:
        raise ValueError("the row groups do not end where the footer begins")
    return tuple(offsets)


def open_checked(path: Any, schema: pa.Schema) -> pq.ParquetFile:
    """Open a Parquet file whose pages' checksums are looked at as they are read, if it has some: it costs little beside
    unpacking them.

    Args:
        path: where it is, or what PyArrow reads it by.
        schema: what its columns must be.

    Raises:
        ValueError: it has other columns.
    """
    file = pq.ParquetFile(path, page_checksum_verification=True)
    try:
        check_schema(file.schema_arrow, schema)
    except ValueError:
        file.close()
        raise
    return file


def check_schema(found: pa.Schema, wanted: pa.Schema) -> None:
    """See whether a file's columns are those that its table has: of another type, they would mean something else.

    Raises:
        ValueError: they are not.
    """
    if not found.equals(wanted):
        raise ValueError("its columns are not those of this table")


def to_float32(halves: NDArray[np.float16], out: NDArray[np.float32] | None = None) -> NDArray[np.float32]:
    """Finite float16 values as float32, of the same shape: ten times as fast as numpy, which takes them one by one.

    A float16's bits, moved to where a float32 has its exponent and fraction, are the value over 2^112, subnormal ones
    too.

    Args:
        halves: finite values; contiguous.
        out: where to put them.
    """
    widened = np.empty(halves.shape, np.float32) if out is None else out
    bits = widened.view(np.int32)
    np.copyto(bits, halves.view(np.int16))  # the sign fills the upper half
    np.left_shift(bits, 13, out=bits)
    np.bitwise_and(bits, np.int32(_SIGN_AND_VALUE), out=bits)
    widened *= np.float32(2.0**112)
    return widened


_SIGN_AND_VALUE = -0x80000000 | 0x0FFFE000


class MappedArrays:
    """Equal float16 arrays at known offsets of a file, one for each row group."""

    def __init__(self, path: Path, offsets: Sequence[int], shape: tuple[int, ...]) -> None:
        self._offsets = offsets
        self._shape = shape
        self._count = int(np.prod(shape))
        size = path.stat().st_size
        if any(not 0 <= offset <= size - 2 * self._count for offset in offsets):
            raise ValueError(f"{path} is too short for the arrays that it should hold")
        self._path = path
        self._file = path.open("rb")
        weakref.finalize(self, self._file.close)
        self._map = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        """Number of arrays."""
        return len(self._offsets)

    def __getitem__(self, group: int) -> NDArray[np.float16]:
        """The array of a row group; it stays in the file."""
        return np.frombuffer(self._map, np.float16, self._count, self._offsets[group]).reshape(self._shape)

    def rows(self, places: Sequence[tuple[int, int]]) -> NDArray[np.float16]:
        """Rows of arrays, each as (array, row), float16 [places, ...]; read, not mapped.

        A page fault makes the kernel read ahead, megabytes on some disks; of a row here and a row there that is nearly
        all for nothing.

        Raises:
            ValueError: the file has become shorter.
        """
        found = np.empty((len(places), *self._shape[1:]), np.float16)
        size = found[0].nbytes if len(places) else 0
        for number, (group, row) in enumerate(places):
            if os.preadv(self._file.fileno(), [found[number]], self._offsets[group] + row * size) != size:
                raise ValueError(f"{self._path} has become too short for the arrays that it should hold")
        return found
