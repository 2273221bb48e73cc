"""Operations on files, counted, written down or made to fail, whatever library makes them: by `shim.c`, compiled.

A process that was started with `environment()` has the shim before libc. It does nothing until `arm` names a folder. It
is for Linux with glibc and a C compiler; elsewhere `unavailable` says why not, and tests skip.

Nothing that changes a file goes past it: `trials.references` holds what a journal comes to, operation by operation,
against what is there.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import platform
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from functools import cache
from pathlib import Path

_SOURCE = Path(__file__).with_name("shim.c")


class Kind(IntFlag):
    """Kinds of operations; `shim.c` has the same numbers."""

    CREATE = 1
    WRITE = 2
    TRUNCATE = 4
    SYNC = 8
    RENAME = 16
    UNLINK = 32
    FOLDER = 64
    LINK = 128


ANY = Kind(255)


class Fault(IntEnum):
    """What happens at an operation; `shim.c` has the same numbers.

    `KILL_HALF` kills in the middle of a write, `SHORT` writes half and says so, as the system may at any time.
    """

    COUNT = 0
    KILL_BEFORE = 1
    KILL_AFTER = 2
    KILL_HALF = 3
    FAIL = 4
    SHORT = 5


@dataclass(frozen=True)
class Arming:
    """What is to go wrong.

    Attributes:
        root: below this folder; an absolute path without links.
        fault: what.
        at: at which operation of `kinds`, counted from 1.
        kinds: which operations count.
        error: an errno.
        for_good: all later ones fail, too.
        journal: a file outside the root that takes every operation with its data.
    """

    root: str
    fault: Fault = Fault.COUNT
    at: int = 0
    kinds: Kind = ANY
    error: int = 0
    for_good: bool = False
    journal: str | None = None


@dataclass(frozen=True)
class Operation:
    """An operation of a journal.

    Attributes:
        kind: what was done.
        error: the errno, where it failed; else 0.
        offset: of a write; the new size of a truncation; of a creation, whether what was there is dropped.
        path, other: on what; where it was renamed to, or what a link leads to.
        data: what was written.
    """

    kind: Kind
    error: int
    offset: int
    path: str
    other: str
    data: bytes


@cache
def unavailable() -> str | None:
    """Why there can be no shim here; None where there is one."""
    if sys.platform != "linux" or platform.libc_ver()[0] != "glibc" or sys.maxsize < 2**32:
        return "operations on files are caught on 64-bit Linux with glibc only"
    if shutil.which("cc") is None:
        return "there is no C compiler"
    return None


@cache
def compiled(source: Path) -> Path:
    """A library to be put before libc.

    Raises:
        RuntimeError: it is not available here.
    """
    reason = unavailable()
    if reason is not None:
        raise RuntimeError(reason)
    folder = Path(tempfile.mkdtemp(prefix="bagindex-shim-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    library = folder / source.with_suffix(".so").name
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, source, "-ldl", "-lpthread"], check=True)
    return library


def environment() -> dict[str, str]:
    """Variables of a process that is to be armed."""
    return {**os.environ, "LD_PRELOAD": str(compiled(_SOURCE))}


def arm(arming: Arming) -> None:
    """Arm this process, which has the shim; the counting begins anew."""
    journal = -1
    if arming.journal is not None:
        journal = os.open(arming.journal, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
    numbers = map(ctypes.c_int, (arming.kinds, arming.fault))
    rest = map(ctypes.c_int, (arming.error, arming.for_good, journal))
    ctypes.CDLL(None).fault_arm(arming.root.encode(), *numbers, ctypes.c_long(arming.at), *rest)


def counted() -> int:
    """Operations of the armed kinds since this process was armed."""
    count = ctypes.CDLL(None).fault_count
    count.restype = ctypes.c_long
    return int(count())


def read_journal(path: Path) -> Iterator[Operation]:
    """The operations that were written down, in order, failed ones too."""
    header = struct.Struct("=iiqIIQ")
    with path.open("rb") as file:
        while data := file.read(header.size):
            kind, error, offset, path_size, other_size, size = header.unpack(data)
            name, other = (os.fsdecode(file.read(length)) for length in (path_size, other_size))
            yield Operation(Kind(kind), error, offset, name, other, file.read(size))


def write_thrice(path: str) -> list[int]:
    """Write to a new file, three times: how many bytes, or, below zero, the errno."""
    results = []
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o644)
    for text in (b"one", b"two", b"three"):
        try:
            results.append(os.write(descriptor, text))
        except OSError as error:
            results.append(-(error.errno or 0))
    os.close(descriptor)
    return results
