"""The lock of an index: one process writes, any number read. It dies with the process."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import time
from pathlib import Path

from bagindex.durable import make_folder
from bagindex.errors import LockedError, SettingsError
from bagindex.refusals import FULL
from bagindex.seal import read_plain

LOCK = "LOCK"
"""The file that a writer locks, with the number of its process in it."""
_TRIES = 20
_MOST = 40
"""Bytes in the lock's file."""


def hold(root: Path) -> int:
    """Lock an index; its folder is made if there is none.

    Returns:
        The descriptor that holds the lock as long as it is open.

    Raises:
        LockedError: another process is writing.
        SettingsError: the folder cannot be written to.
        OSError: the disk is full, or nothing can be written into the lock's file.
    """
    for _ in range(_TRIES):
        try:
            make_folder(root, root)
            descriptor = _open(root / LOCK)
        except FileNotFoundError:  # who removed the index took the folder away in this moment
            continue
        except OSError as error:
            if error.errno in (errno.EMLINK, errno.ELOOP):
                raise SettingsError(f"{root / LOCK} is a link, as in a copy made of links: remove it") from None
            if error.errno in FULL:
                raise
            raise SettingsError(f"cannot write to {root}: {error.strerror}; give --out another place") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = _holder(descriptor)
            os.close(descriptor)
            raise LockedError(f"process {holder} is writing {root}: wait until it ends, or stop it") from None
        try:
            # Who removed the index took this file away with it, and whoever comes now locks another.
            if _is_at(descriptor, root / LOCK):
                # Never empty, for those who are told to wait.
                written = os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                os.ftruncate(descriptor, written)
                return descriptor
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
    raise SettingsError(f"{root} comes and goes: see who else makes and removes it, and try again")


def last_writer(root: Path) -> str:
    """The number of the process that was the last to write an index, where another one has it now; else nothing.

    The lock itself is not touched: who tried it might keep a writer out.
    """
    try:
        number = int(read_plain(root / LOCK, _MOST))
    except (OSError, ValueError):
        return ""
    if number <= 0 or number == os.getpid():
        return ""
    try:
        os.kill(number, 0)
    except PermissionError:  # somebody else's
        pass
    except (OSError, OverflowError):
        return ""
    return str(number)


def _open(path: Path) -> int:
    """The lock's file: not another file, that a link of this name stands for."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o644)
    found = os.fstat(descriptor)
    if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
        os.close(descriptor)
        raise OSError(errno.EMLINK, "it is a link")
    return descriptor


def _holder(descriptor: int) -> str:
    """The number of the process that writes, which it says as soon as it has the lock."""
    for _ in range(_TRIES):
        said = os.pread(descriptor, 20, 0).partition(b"\n")[0].decode(errors="replace")
        if said:
            return said
        time.sleep(0.01)
    return "unknown"


def _is_at(descriptor: int, path: Path) -> bool:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return False
    return os.path.samestat(found, os.fstat(descriptor))
