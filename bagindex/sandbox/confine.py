"""What a worker may not do, said to the system: files, signals, connections."""

from __future__ import annotations

import ctypes
import os
import struct
import sys
from collections.abc import Sequence
from pathlib import Path

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_VERSION = 1  # LANDLOCK_CREATE_RULESET_VERSION
_PATH_BENEATH = 1
_NO_NEW_PRIVILEGES = 38
_EXECUTE, _READ_FILE, _READ_FOLDER = 1 << 0, 1 << 2, 1 << 3
_RIGHTS = {1: 13, 2: 14, 3: 15, 5: 16}
"""From which version of Landlock on it knows how many rights on files."""
_TCP, _SCOPES = 0b11, 0b11
_FOR_DUCKDB = ("/proc/self", "/sys/fs/cgroup", "/sys/devices/system/cpu", "/proc/meminfo", "/dev/urandom")


def read_only() -> int:
    """Let this process, whatever it starts from now on, only read files; see `read_only_within`."""
    return _landlock(["/"], _READ_FILE | _READ_FOLDER | _EXECUTE)


def read_only_within(folder: Path) -> int:
    """Let this thread and those that it starts read the files of one folder and what DuckDB must know of the machine.

    They can open no other file, no TCP connection and no abstract socket, and send no signal to another process.

    Returns:
        The version of Landlock that sees to it; 0 where the system has none, and nothing is changed.
    """
    return _landlock([str(folder), *_FOR_DUCKDB], _READ_FILE | _READ_FOLDER)


def _landlock(paths: Sequence[str], rights: int) -> int:
    if sys.platform != "linux":
        return 0
    library = ctypes.CDLL(None, use_errno=True)
    library.syscall.restype = ctypes.c_long
    version = int(library.syscall(_CREATE_RULESET, None, ctypes.c_size_t(0), _VERSION))
    if version < 1:
        return 0
    handled = (1 << max(count for first, count in _RIGHTS.items() if version >= first)) - 1
    attributes = struct.pack("<QQQ", handled, _TCP if version >= 4 else 0, _SCOPES if version >= 6 else 0)
    # An older system refuses attributes that it does not know.
    attributes = attributes[: 24 if version >= 6 else 16 if version >= 4 else 8]
    ruleset = int(library.syscall(_CREATE_RULESET, attributes, ctypes.c_size_t(len(attributes)), 0))
    if ruleset < 0:
        return 0
    try:
        for path in paths:
            _allow(library, ruleset, path, rights)
        applied = library.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0) == 0 and not library.syscall(_RESTRICT_SELF, ruleset, 0)
    finally:
        os.close(ruleset)
    return version if applied else 0


def _allow(library: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:  # a container may have no such folder
        return
    try:
        if not os.path.isdir(path):
            rights &= _READ_FILE | _EXECUTE
        library.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, struct.pack("<Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)
