"""Writing the file of a catalog with DuckDB: whole, or not at all."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import duckdb

from bagindex.errors import DiskError

_MEMORY = "500MB"
"""What DuckDB may take to write a catalog; each of its threads needs some 40 MB."""


def write(path: Path, root: Path, content: Iterable[str]) -> None:
    """Write a catalog; what it comes to when something goes wrong is removed.

    Args:
        path: its file, which is not there yet.
        root: the index's folder.
        content: statements of SQL.

    Raises:
        DiskError: it is not whole.
        duckdb.Error: it cannot be written.
    """
    # Sorting takes as much memory as it is allowed, and is as fast with little; what does not fit lies in the index's
    # folder for a while, where there is room.
    spill = root / f"spill.tmp-{os.getpid()}"
    try:
        _write(path, root, content, spill)
        if wal(path).exists():
            raise DiskError(f"{path} could not be written whole: see whether its disk is sound, and try again")
    except BaseException:
        for each in (path, wal(path)):
            each.unlink(missing_ok=True)
        raise
    finally:
        shutil.rmtree(spill, ignore_errors=True)


def _write(path: Path, root: Path, content: Iterable[str], spill: Path) -> None:
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY,
        "threads": min(4, os.cpu_count() or 1),
        "temp_directory": str(spill),
    }
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(path, config=config) as connection:
        # A catalog's paths are relative to its folder, so that the index can be moved. While the views are bound DuckDB
        # finds the files through this setting, which does not take every path: hence the link.
        link = Path(folder) / "index"
        link.symlink_to(root.resolve())
        without_bar(connection)
        connection.execute("SET file_search_path = ?", [str(link)])
        for statement in content:
            try:
                connection.execute(f"BEGIN; {statement}; COMMIT")
            except duckdb.OutOfMemoryException:  # rows of very many classes are so wide that a few do not fit
                connection.execute("ROLLBACK; SET memory_limit = '80%'")
                connection.execute(statement)
        # Closing would do it as well, and would not say what goes wrong.
        connection.execute("CHECKPOINT")


def wal(path: Path) -> Path:
    """What DuckDB keeps beside a file that was not brought up to date with it."""
    return path.with_name(f"{path.name}.wal")


def without_bar(connection: duckdb.DuckDBPyConnection) -> None:
    """In a Python prompt DuckDB would draw a progress bar among the output."""
    with suppress(duckdb.InvalidInputException):  # a notebook that cannot have one does not let it be switched off
        connection.execute("SET enable_progress_bar = false")
