"""A file of which only some blocks are on this disk.

The file itself has its full size and holes where nothing was read. Beside it stands a digest of each block that is
there, so that neither a hole nor a block that was half written, or has rotted, is ever taken for content.
"""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO

BLOCK = 32 * 1024
"""Bytes of a block: what is fetched at least."""
_LONGEST = 8 * 2**20
"""Bytes that are asked for in one request at most."""
_DIGEST = 8
_WHOLE = b"complete"
"""At the beginning of the digests of a file all of which is there; such a file is read as it is."""
Fetch = Callable[[Sequence[tuple[int, int]]], Iterable[bytes]]
"""From ranges (start, end) of the original to their bytes."""


class BlockFile:
    """The file at `data`, whose digests are at `sums`. Several threads and processes may read and fill it.

    Args:
        data: there already, of its full size; see `blank`.
        sums: may be missing, where nothing is there.
        fetch: reads the original.
    """

    def __init__(self, data: Path, sums: Path, fetch: Fetch) -> None:
        self._data, self._sums, self._fetch = data, sums, fetch

    @property
    def whole(self) -> bool:
        """Whether all of it is on this disk. To ask is to use it."""
        try:
            os.utime(self._sums)  # what was used longest ago is emptied first
            with self._sums.open("rb") as sums:
                return sums.read(_DIGEST) == _WHOLE
        except FileNotFoundError:
            return False

    def fill(self, check: Callable[[], None] = lambda: None) -> None:
        """Have all of it on this disk.

        Args:
            check: looks at the file's content, and raises where it is not what it should be.
        """
        if self.whole:
            return
        size = self._data.stat().st_size
        for start in range(0, size, 4 * _LONGEST):
            self.read([(start, min(start + 4 * _LONGEST, size))])
        check()
        self.complete()

    def complete(self) -> None:
        """The file at `data` is whole, and stays as it is."""
        descriptor = os.open(self._data, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        with self._open_sums() as sums:
            os.pwrite(sums.fileno(), _WHOLE, 0)

    def read(self, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ranges (start, end) of the file; what is not there is fetched."""
        with self._data.open("r+b") as data:
            if self.whole:
                return [os.pread(data.fileno(), end - start, start) for start, end in ranges]
            size = os.fstat(data.fileno()).st_size
            with self._open_sums() as sums:
                found = _Blocks(data.fileno(), sums.fileno(), size)
                wanted = sorted({block for start, end in ranges for block in _blocks(start, end)})
                missing = [block for block in wanted if not found.load(block)]
                spans = list(_spans(missing, size))
                for (start, _), content in zip(spans, self._fetch(spans), strict=True):
                    found.store(start // BLOCK, content)
                return [found.range(start, end) for start, end in ranges]

    def _open_sums(self) -> BinaryIO:
        self._sums.parent.mkdir(parents=True, exist_ok=True)
        return os.fdopen(os.open(self._sums, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644), "r+b", buffering=0)


class _Blocks:
    """The blocks that a read needs, in memory."""

    def __init__(self, data: int, sums: int, size: int) -> None:
        self._data, self._sums, self._size = data, sums, size
        self._loaded: dict[int, bytes] = {}

    def load(self, block: int) -> bool:
        """Take a block from the disk, if it is there and sound."""
        digest = os.pread(self._sums, _DIGEST, _DIGEST * (1 + block))
        if len(digest) < _DIGEST or not any(digest):
            return False
        content = os.pread(self._data, min(BLOCK, self._size - block * BLOCK), block * BLOCK)
        if _digest(content) != digest:
            return False
        self._loaded[block] = content
        return True

    def store(self, first: int, content: bytes) -> None:
        """Keep blocks that were fetched, and write them: the digest after what it is of."""
        os.pwrite(self._data, content, first * BLOCK)
        for number, start in enumerate(range(0, len(content), BLOCK)):
            part = content[start : start + BLOCK]
            self._loaded[first + number] = part
            os.pwrite(self._sums, _digest(part), _DIGEST * (1 + first + number))

    def range(self, start: int, end: int) -> bytes:
        parts = [self._loaded[block] for block in _blocks(start, end)]
        skip = start % BLOCK
        return b"".join(parts)[skip : skip + end - start]


def blank(data: Path, sums: Path, size: int) -> None:
    """Put a file of holes in the place of what is there, if anything is: who reads that goes on with it."""
    for folder in (data.parent, sums.parent):
        folder.mkdir(parents=True, exist_ok=True)
    temporary = sums.with_name(f"{sums.name}.blank-{os.getpid()}-{threading.get_ident()}")
    with temporary.open("wb") as file:
        file.truncate(size)
    sums.unlink(missing_ok=True)
    os.rename(temporary, data)


def _blocks(start: int, end: int) -> range:
    return range(start // BLOCK, -(-end // BLOCK))


def _spans(blocks: Sequence[int], size: int) -> Iterator[tuple[int, int]]:
    """Ascending blocks as ranges of bytes, neighbours together."""
    first: int | None = None
    for place, block in enumerate(blocks):
        first = block if first is None else first
        following = blocks[place + 1] if place + 1 < len(blocks) else None
        if following != block + 1 or (block + 1 - first) * BLOCK >= _LONGEST:
            yield first * BLOCK, min((block + 1) * BLOCK, size)
            first = None


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=_DIGEST).digest()
