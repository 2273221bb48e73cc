"""Logits of a shard from patch order into class order, through the disk."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


class ClassSpill:
    """A scratch file that takes patch-major logits and gives them back class by class.

    A shard's logits do not fit into memory with a thousand classes. The file has a stretch for each class; some
    megabytes of logits are transposed in memory and appended to the stretches, so both ways are long reads and writes.
    Plain ones, not a memory map, whose touched pages would count as the process's memory.
    """

    _AT_ONCE = 32_000_000

    def __init__(self, path: Path, classes: int, capacity: int) -> None:
        self._path = path
        self._classes = classes
        self._stretch = capacity * 2
        self._filled = 0
        # One piece of memory from the start: small arrays, kept until there are enough of them, would lie between the
        # model's large ones, which are not kept, and leave holes that nothing fits into.
        self._waiting = np.empty((min(max(1, self._AT_ONCE // (2 * classes)), capacity), classes), np.float16)
        self._count = 0
        self._file = path.open("w+b", buffering=0)

    def append(self, logits: NDArray[np.float16]) -> None:
        """Append float16 [patches, classes]."""
        while len(logits):
            taken = logits[: len(self._waiting) - self._count]
            self._waiting[self._count : self._count + len(taken)] = taken
            self._count += len(taken)
            logits = logits[len(taken) :]
            if self._count == len(self._waiting):
                self._flush()

    def read(self, class_id: int) -> NDArray[np.float16]:
        """All logits of a class, float16 [patches]."""
        self._flush()
        self._file.seek(class_id * self._stretch)
        return np.fromfile(self._file, dtype=np.float16, count=self._filled // 2)

    def close(self) -> None:
        """Close and remove the file; may be called again."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._count:
            return
        block = np.ascontiguousarray(self._waiting[: self._count].T)
        for class_id in range(self._classes):
            data = memoryview(block[class_id]).cast("B")
            offset = class_id * self._stretch + self._filled
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written
        self._filled += 2 * self._count
        self._count = 0
