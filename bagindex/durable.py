"""Writing so that it outlives a power cut: data is on the disk before its name, its name before anything needs it."""

from __future__ import annotations

import os
from pathlib import Path


def make_folder(path: Path, root: Path) -> None:
    """Make a folder, an index's own (`root`) or one below it.

    One that is there may have been made by a writer that was killed before its entry was on the disk.
    """
    ours = path == root or root in path.parents
    if not ours and path.exists():
        return
    if path != root or not path.exists():
        make_folder(path.parent, root)
    path.mkdir(exist_ok=True)
    try:
        fsync_folder(path.parent)
    except PermissionError:  # where others' folders lie, one may be allowed to go through, and not to look
        if root in path.parents:
            raise


def replace_file(path: Path, data: bytes) -> None:
    """Write a file so that readers see the old one or the new one, and it outlives a power cut."""
    temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        publish(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def publish(temporary: Path, path: Path) -> None:
    """Rename a finished file into place."""
    os.rename(temporary, path)
    fsync_folder(path.parent)


def fsync_folder(path: Path) -> None:
    """Wait until a folder's entries are on the disk."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
