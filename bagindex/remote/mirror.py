"""The mirror of a remote index: a folder like an index's, whose files are filled as they are read.

It is a cache. It can be removed at any time, and is kept below a bound by emptying what was read longest ago.
"""

from __future__ import annotations

import fcntl
import json
import os
import platform
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from weakref import WeakValueDictionary

from bagindex.durable import replace_file
from bagindex.errors import BagindexError, OutdatedError, SettingsError
from bagindex.remote import blocks
from bagindex.remote.objects import THREADS, Listed, ObjectStore
from bagindex.remote.places import MIRRORED, Place, cache_folder, parse
from bagindex.remote.trouble import Absent, Conflict
from bagindex.store import CURRENT, INDEX, SHARD
from bagindex.text import parse_bytes

LEASE = "LOCK"
"""The object that says who writes; see `bagindex.remote.lease`."""
_MOST = 20 * 10**9
_FOLDER = re.compile(
    r"[a-z0-9][a-z0-9_-]*/((evidence/|features/)?(shard-\d{5,}|(?P<merged>merged-\d{5,6}-\d{5,6}-\d{1,9}))"
    r"|derived/(?P<kind>[a-z0-9]+(-[a-z0-9]+)*?)-\d+)"
)
_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_ALONE = re.compile(
    r"index(-copy)?\.json|labels-[0-9a-f]{12}\.parquet|CURRENT|catalog-\d+\.duckdb|[a-z0-9][a-z0-9_-]*/model\.safetensors"
)
_FOLLOWED = 30.0
"""Seconds after which it is looked again whether the index has changed."""
_FRESH = 60.0
"""Seconds for which a file that was read is not emptied."""
_LOOK_AFTER = 0.02
"""After so much of the bound was fetched, it is looked at whether the bound is kept."""
_mirrors: WeakValueDictionary[str, Mirror] = WeakValueDictionary()
_making = threading.Lock()


def mirror_of(place: Place) -> Mirror:
    """The mirror of a place; within a process there is one."""
    return _mirror(place, cache_folder() / place.digest)


def _mirror(place: Place, folder: Path) -> Mirror:
    with _making:
        found = _mirrors.get(str(folder))
        if found is None:
            found = Mirror(ObjectStore(place), folder)
            _mirrors[str(folder)] = found
        return found


def mirror_at(root: Path) -> Mirror | None:
    """The mirror that has its index's folder at `root`; None where that is no mirror's."""
    try:
        record = json.loads((root.parent / MIRRORED).read_bytes())
        place = parse(record["url"])
    except (OSError, ValueError, KeyError, TypeError, SettingsError):
        return None
    return _mirror(place, root.parent) if root.name == "index" else None


class Mirror:
    """What is on this disk of a remote index. Safe to use from several threads, and processes.

    Args:
        store: the objects.
        folder: the mirror's: `index/` is like an index's folder.

    Attributes:
        root: `index/`.
        trouble: what kept DuckDB from reading a file the last time.
    """

    def __init__(self, store: ObjectStore, folder: Path) -> None:
        self.store = store
        self.root = folder / "index"
        self._folder = folder
        self._objects: dict[str, Listed] = {}
        self._changing = threading.RLock()
        self._fetched = 0
        self.trouble: BagindexError | None = None
        self._followed = time.monotonic()

    def sync(self) -> None:
        """Have the place and the size of everything that is committed there now, and the records that name the others.

        Raises:
            StoreError: the store cannot be listed or read.
        """
        with self._alone():
            had = self._read_record()
            now = _committed(self.store.listing())
            for name in had.keys() - now.keys():
                self._remove(name)
            changed = [name for name, listed in now.items() if had.get(name) != listed or not self._has(name, listed)]
            self._objects = now
            for name in changed:
                if name not in (INDEX, CURRENT):
                    blocks.blank(self.root / name, self._sums(name), now[name].size)
            self._fill([name for name in now if name.endswith(".json") and "/derived/" in name])
            for name in (INDEX, CURRENT):  # CURRENT last: who opens the index begins with it
                if name in changed:
                    self._put_record(name)
            self._write_record()

    def follow(self) -> None:
        """Sync in the background, if that was not done for a while; what fails is tried again the next time."""
        now = time.monotonic()
        if now - self._followed > _FOLLOWED:
            self._followed = now
            threading.Thread(target=self._sync_quietly, name="mirror", daemon=True).start()

    def _sync_quietly(self) -> None:
        with suppress(BagindexError, OSError):
            self.sync()

    @property
    def identity(self) -> str:
        """What no other mirror has, on this computer or another, also if it is a copy of this one."""
        path = self._folder / "identity"
        with self._alone():
            if not path.exists():
                replace_file(path, secrets.token_hex(16).encode())
            return f"{path.read_text()} {platform.node()} {path.stat().st_ino}"

    @property
    def objects(self) -> Mapping[str, Listed]:
        """What there is, by name."""
        return self._objects

    def name(self, path: Path) -> str:
        """The name of the object that a path below the root stands for."""
        return path.relative_to(self.root).as_posix()

    def fill(self, *paths: Path) -> None:
        """Have files whole on this disk.

        Raises:
            StoreError: they cannot be read.
            OutdatedError: they are not there any more, or others.
        """
        self._fill([self.name(path) for path in paths])

    def renew(self, path: Path) -> None:
        """Have a file whole on this disk, as it is in the store. Raises as `fill`."""
        name = self.name(path)
        if name in self._objects:
            blocks.blank(path, self._sums(name), self._objects[name].size)
            self._fill([name])

    def read(self, path: Path, ranges: Sequence[tuple[int, int]]) -> list[bytes]:
        """Ranges (start, end) of a file; what is not on this disk is fetched. Raises as `fill`."""
        return self._file(self.name(path)).read(ranges)

    def took(self, put: Mapping[str, Listed]) -> None:
        """The files of these names are what was put just now, as listed."""
        with self._alone():
            for name in put:
                self._sums(name).unlink(missing_ok=True)
                self._file(name).complete()
            self._objects = {**self._read_record(), **put}
            self._write_record()
        self._count(sum(listed.size for listed in put.values()))

    def lost(self, names: Sequence[str]) -> None:
        """These objects were deleted."""
        with self._alone():
            had = self._read_record()
            for name in names:
                had.pop(name, None)
                self._sums(name).unlink(missing_ok=True)
            self._objects = had
            self._write_record()

    def remove(self) -> None:
        """Remove the mirror."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._objects = {}

    def _file(self, name: str) -> blocks.BlockFile:
        return blocks.BlockFile(self.root / name, self._sums(name), partial(self._fetch, name))

    def _fetch(self, name: str, spans: Sequence[tuple[int, int]]) -> list[bytes]:
        if not spans:
            return []
        listed = self._objects.get(name)
        if listed is None:
            raise OutdatedError(f"{self.store.place}/{name} is gone since the index was opened: open it again")
        try:
            found = self.store.read_ranges(name, spans, listed.tag)
        except (Absent, Conflict):
            raise OutdatedError(
                f"{self.store.place}/{name} has changed since the index was opened: open it again"
            ) from None
        self._count(sum(map(len, found)))
        return found

    def _fill(self, names: Sequence[str]) -> None:
        owed = [name for name in names if not self._file(name).whole]
        if len(owed) == 1:
            self._file(owed[0]).fill()
        elif owed:
            with ThreadPoolExecutor(THREADS) as pool:
                list(pool.map(lambda name: self._file(name).fill(), owed))

    def _put_record(self, name: str) -> None:
        """Put a record that names others in its place, whole."""
        data = self.store.read(name, 0, self._objects[name].size, self._objects[name].tag)
        self._sums(name).unlink(missing_ok=True)
        self.root.mkdir(parents=True, exist_ok=True)
        replace_file(self.root / name, data)
        self._file(name).complete()

    def _remove(self, name: str) -> None:
        self._sums(name).unlink(missing_ok=True)
        path = self.root / name
        path.unlink(missing_ok=True)
        for folder in list(path.parents)[: name.count("/")]:
            with suppress(OSError):  # something else is in it
                folder.rmdir()

    def _has(self, name: str, listed: Listed) -> bool:
        try:
            return (self.root / name).stat().st_size == listed.size
        except OSError:
            return False

    def _sums(self, name: str) -> Path:
        return self._folder / "blocks" / name

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other threads and processes from changing what there is."""
        with self._changing:
            self._folder.mkdir(parents=True, exist_ok=True)
            with (self._folder / "lock").open("w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                yield

    def _read_record(self) -> dict[str, Listed]:
        try:
            record = json.loads((self._folder / MIRRORED).read_bytes())
            if record["url"] != str(self.store.place):
                return {}
            return {name: Listed(size, tag) for name, (size, tag) in record["objects"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def _write_record(self) -> None:
        objects = {name: [listed.size, listed.tag] for name, listed in self._objects.items()}
        replace_file(self._folder / MIRRORED, json.dumps({"url": str(self.store.place), "objects": objects}).encode())

    def _count(self, size: int) -> None:
        """Keep the bound, now and then."""
        self._fetched += size
        if self._fetched > _LOOK_AFTER * most_bytes():
            self._fetched = 0
            shrink(self._folder.parent, most_bytes())


def most_bytes() -> int:
    """What mirrors may take of this disk in all: `BAGINDEX_CACHE_BYTES`, else 20 GB.

    Raises:
        SettingsError: it is no number of bytes.
    """
    text = os.environ.get("BAGINDEX_CACHE_BYTES")
    if not text:
        return _MOST
    found = parse_bytes(text)
    if found is None:
        raise SettingsError(f"BAGINDEX_CACHE_BYTES is a number of bytes like 20GB, not {text!r}")
    return found


def shrink(folder: Path, most: int) -> None:
    """Empty the files of mirrors that were read longest ago, until all take no more than `most` bytes, and no more than
    half of what their disk has for them.
    """
    found = []
    for sums in folder.glob("*/blocks/**/*"):
        mirror = folder / sums.relative_to(folder).parts[0]
        data = mirror / "index" / sums.relative_to(mirror / "blocks")
        with suppress(OSError):
            if sums.is_file() and data.suffix != ".json" and data.name != CURRENT:
                found.append((sums.stat().st_mtime, data.stat().st_blocks * 512, data, sums))
    taken = sum(size for _, size, _, _ in found)
    if found:  # never more than half of what the disk could give
        most = min(most, (taken + shutil.disk_usage(folder).free) // 2)
    for read, size, data, sums in sorted(found):
        if taken <= most or time.time() - read < _FRESH:
            return
        with suppress(OSError):
            blocks.blank(data, sums, data.stat().st_size)
            taken -= size


def is_part(name: str) -> bool:
    """Whether an object is one of several that become something when their record is put."""
    folder, _, file = name.rpartition("/")
    return _FOLDER.fullmatch(folder) is not None and _FILE.fullmatch(file) is not None


def is_stranger(name: str) -> bool:
    """Whether an object is none that an index has."""
    return name != LEASE and not is_part(name) and _ALONE.fullmatch(name) is None


def _committed(listed: Mapping[str, Listed]) -> dict[str, Listed]:
    """The objects that are an index's, but those of shards and derived files that have no record yet."""
    found = {}
    for name, each in listed.items():
        folder = _FOLDER.fullmatch(name.rpartition("/")[0])
        kind = (folder["kind"] or (folder["merged"] and "merged")) if folder else None
        record = f"{kind}.json" if kind else SHARD
        if name != LEASE and not is_stranger(name) and (folder is None or f"{folder[0]}/{record}" in listed):
            found[name] = each
    return found
