"""Reading files of a mirror as other libraries read files: PyArrow, DuckDB, and arrays at known places."""

from __future__ import annotations

import io
import threading
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from fsspec.spec import AbstractFileSystem
from numpy.typing import NDArray

from bagindex.errors import BagindexError
from bagindex.remote.mirror import Mirror, mirror_at
from bagindex.remote.places import PROTOCOL


class MirroredFile(io.RawIOBase):
    """A file of a mirror, to read. Each thread has its own place in it: DuckDB's threads share a file."""

    def __init__(self, mirror: Mirror, path: Path) -> None:
        self._mirror, self._path = mirror, path
        self.size = path.stat().st_size
        self._places: dict[int, int] = {}

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next read begins."""
        return self._places.get(threading.get_ident(), 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Read on from elsewhere."""
        place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.tell(), io.SEEK_END: self.size}[whence]
        self._places[threading.get_ident()] = place
        return place

    def read(self, size: int | None = -1, /) -> bytes:
        """So many bytes, or all to the end."""
        start = self.tell()
        end = self.size if size is None or size < 0 else min(start + size, self.size)
        if end <= start:
            return b""
        (data,) = self._mirror.read(self._path, [(start, end)])
        self._places[threading.get_ident()] = end
        return data

    def readinto(self, buffer: Any, /) -> int:
        """The same into memory that is there."""
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)


class _DuckDBFile(MirroredFile):
    """The same for DuckDB, which makes an error of its own of what goes wrong."""

    def read(self, size: int | None = -1, /) -> bytes:
        try:
            return super().read(size)
        except BagindexError as error:
            self._mirror.trouble = error
            raise


class MirroredArrays:
    """Equal float16 arrays at known offsets of a file of a mirror; as `bagindex.arrays.MappedArrays`."""

    def __init__(self, mirror: Mirror, path: Path, offsets: Sequence[int], shape: tuple[int, ...]) -> None:
        self._mirror, self._path, self._offsets, self._shape = mirror, path, offsets, shape
        self._bytes = 2 * int(np.prod(shape))
        if any(not 0 <= offset <= path.stat().st_size - self._bytes for offset in offsets):
            raise ValueError(f"{path} is too short for the arrays that it should hold")

    def __len__(self) -> int:
        """Number of arrays."""
        return len(self._offsets)

    def __getitem__(self, group: int) -> NDArray[np.float16]:
        """The array of a row group."""
        start = self._offsets[group]
        (data,) = self._mirror.read(self._path, [(start, start + self._bytes)])
        return np.frombuffer(data, np.float16).reshape(self._shape)

    def rows(self, places: Sequence[tuple[int, int]]) -> NDArray[np.float16]:
        """Rows of arrays, each as (array, row), float16 [places, ...]."""
        size = self._bytes // self._shape[0]
        starts = [self._offsets[group] + row * size for group, row in places]
        parts = self._mirror.read(self._path, [(start, start + size) for start in starts])
        return np.frombuffer(b"".join(parts), np.float16).reshape(len(places), *self._shape[1:])


class MirrorFileSystem(AbstractFileSystem):  # type: ignore[misc]
    """What DuckDB is given to read through mirrors."""

    protocol = PROTOCOL.removesuffix("://")
    cachable = False

    def open(self, path: str, mode: str = "rb", **_: Any) -> MirroredFile:
        """A file of a mirror.

        Raises:
            FileNotFoundError: it is none.
        """
        place = Path(self._strip_protocol(path))
        for above in place.parents:
            mirror = mirror_at(above) if above.name == "index" else None
            if mirror is not None:
                return _DuckDBFile(mirror, place)
        raise FileNotFoundError(path)

    def info(self, path: str, **_: Any) -> dict[str, Any]:
        """Its size."""
        place = self._strip_protocol(path)
        return {"name": place, "size": Path(place).stat().st_size, "type": "file"}

    def glob(self, path: str, **_: Any) -> list[str]:
        """The path itself, if there is such a file: names of an index have nothing that stands for others."""
        return [path] if Path(self._strip_protocol(path)).is_file() else []

    def modified(self, path: str) -> datetime:
        """Always the same time: what has changed has another mirror's file, and DuckDB need not ask."""
        return datetime.fromtimestamp(0, UTC)
