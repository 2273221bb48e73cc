"""An index in a single archive, as `bagindex export summary` writes it: opened where it is, read from a cache.

DuckDB and Parquet want files, so the archive is unpacked once, into the cache, under a name that is made of its path,
size and time. What was unpacked is only read: it is the archive that is passed on.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from bagindex.errors import DamagedIndexError, SettingsError, SpaceError
from bagindex.remote.places import cache_folder
from bagindex.store import IndexDirectory
from bagindex.text import bytes_text

ENDING = ".zip"
_ARCHIVE = "archive.txt"
"""The file beside an unpacked index that says which archive it is of."""
_INDEX = "index"
_PART = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_MOST_FILES = 2**20
_DAMAGED = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError)
"""What `zipfile` raises on what is no sound archive."""


@dataclass(frozen=True)
class ArchivedDirectory(IndexDirectory):
    """An index that was unpacked from an archive; nothing can be written to it."""

    archive: Path

    @property
    def place(self) -> str:
        """The archive."""
        return str(self.archive)

    @property
    def name(self) -> str:
        """The archive's name without its ending."""
        return self.archive.stem

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Refuse: what was changed would not be in the archive."""
        raise SettingsError(
            f"{self.archive} is an archive, which is only read: unpack it (`unzip {self.archive.name} -d FOLDER`), and "
            "take the folder"
        )
        yield


def is_archive(path: Path) -> bool:
    """Whether a path is that of an archive."""
    return path.suffix.lower() == ENDING and path.is_file()


def is_index(path: Path) -> bool:
    """Whether a file is an archive of an index."""
    try:
        with zipfile.ZipFile(path) as archive:
            return bool(_members(archive, path))
    except (*_DAMAGED, DamagedIndexError, OSError):
        return False


def archived_at(root: Path) -> ArchivedDirectory | None:
    """The unpacked index in a folder; None where it is an index of its own."""
    note = root.parent / _ARCHIVE
    return ArchivedDirectory(root, Path(note.read_text(encoding="utf-8"))) if note.is_file() else None


def open_archive(path: Path) -> ArchivedDirectory:
    """The index in an archive, unpacked if it is not yet.

    Raises:
        DamagedIndexError: it is no archive of an index, or damaged.
        SpaceError: there is no room for it in the cache.
    """
    path = path.resolve()
    folder = cache_folder("archives") / _key(path)
    if not (folder / _ARCHIVE).is_file():
        _forget(folder.parent)
        _unpack(path, folder)
    return ArchivedDirectory(folder / _INDEX, path)


def _key(path: Path) -> str:
    """What an archive is unpacked as: another one of the same name has another."""
    found = path.stat()
    text = f"{path}\0{found.st_size}\0{found.st_mtime_ns}"
    return hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()[:32]


def _forget(cache: Path) -> None:
    """Remove what was unpacked of archives that are gone, or were replaced."""
    for note in cache.glob(f"*/{_ARCHIVE}"):
        path = Path(note.read_text(encoding="utf-8"))
        if not path.is_file() or _key(path) != note.parent.name:
            shutil.rmtree(note.parent, ignore_errors=True)


def _unpack(path: Path, folder: Path) -> None:
    temporary = folder.with_name(f"{folder.name}.tmp-{os.getpid()}")
    shutil.rmtree(temporary, ignore_errors=True)
    (temporary / _INDEX).mkdir(parents=True)
    try:
        with zipfile.ZipFile(path) as archive:
            members = _members(archive, path)
            size = sum(member.file_size for member in members)
            if size > shutil.disk_usage(temporary).free:
                raise SpaceError(
                    f"{path.name} unpacks to {bytes_text(size)}, for which {temporary.parent} has no room: set "
                    "BAGINDEX_CACHE to a folder on another disk"
                )
            for member in members:
                target = temporary / _INDEX / member.filename
                target.parent.mkdir(parents=True, exist_ok=True)
                # The CRC of each is looked at as it is read.
                with archive.open(member) as source, target.open("wb") as file:
                    shutil.copyfileobj(source, file, 2**20)
        (temporary / _ARCHIVE).write_text(str(path), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.rename(temporary, folder)
    except _DAMAGED as error:
        raise DamagedIndexError(f"{path} cannot be unpacked ({error}): get it again") from None
    except OSError as error:
        if (folder / _ARCHIVE).is_file():  # another process has unpacked it meanwhile
            return
        raise SettingsError(f"{path.name} cannot be unpacked to {folder}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _members(archive: zipfile.ZipFile, path: Path) -> list[zipfile.ZipInfo]:
    """The files of an archive, none of which leads elsewhere."""
    members = [member for member in archive.infolist() if not member.is_dir()]
    if len(members) > _MOST_FILES:
        raise DamagedIndexError(f"{path} has {len(members):,} files, more than any index")
    for member in members:
        if not all(_PART.fullmatch(part) for part in PurePosixPath(member.filename).parts):
            raise DamagedIndexError(f"{path} is no archive of an index: it has a file {member.filename!r}")
    if not any(member.filename == "index.json" for member in members):
        raise DamagedIndexError(f"{path} is no archive of an index: it has no index.json")
    return members
