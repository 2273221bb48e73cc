"""An object of a store as a file that is read by ranges."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass

from bagindex.remote.objects import Listed, ObjectStore
from bagindex.remote.trouble import Absent, Conflict
from bagindex.sources.files import changed_file


@dataclass(frozen=True)
class RemoteFile:
    """An object as it was when it was listed."""

    store: ObjectStore
    name: str
    listed: Listed

    def __str__(self) -> str:
        """Its URL."""
        return f"{self.store.place}/{self.name}"

    def open(self) -> Ranges:
        """The object's bytes."""
        return Ranges(self)


class Ranges(io.RawIOBase):
    """Reads a range of an object for each request. Nothing is kept.

    All reading raises SourceError where the object is another than when it was listed, and StoreError where the store
    fails.
    """

    def __init__(self, file: RemoteFile) -> None:
        self._file = file
        self._at = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """Where the next range begins."""
        return self._at

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to a place; see `io.IOBase.seek`."""
        start = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._file.listed.size}[whence]
        self._at = start + offset
        return self._at

    def read(self, size: int | None = -1, /) -> bytes:
        """The next so many bytes, fewer at the end; all that is left without a number."""
        last = self._file.listed.size
        end = last if size is None or size < 0 else min(last, self._at + size)
        if self._at >= end:
            return b""
        try:
            data = self._file.store.read(self._file.name, self._at, end, self._file.listed.tag)
        except (Absent, Conflict):
            raise changed_file(self._file) from None
        self._at = end
        return data
