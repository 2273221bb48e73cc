"""A remote index as the rest of bagindex sees it: its folder is the mirror, and what is written there is put."""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagindex.durable import fsync_folder
from bagindex.errors import LockedError, SettingsError, StoreError
from bagindex.remote.lease import Lease
from bagindex.remote.mirror import Mirror, is_part, is_stranger, mirror_of
from bagindex.remote.objects import Listed
from bagindex.remote.places import PROTOCOL, parse
from bagindex.remote.trouble import Conflict
from bagindex.store import COPY, INDEX, SHARD, IndexDirectory, file_sha256
from bagindex_schemas.records import ShardManifest

if TYPE_CHECKING:
    import duckdb

    from bagindex.arrays import Arrays

_PUT_AT_ONCE = 4
_STEP = 2**25
_LARGE = frozenset({"evidence", "features", "pixels"})
"""Tables that are read by ranges."""


@dataclass(frozen=True)
class RemoteDirectory(IndexDirectory):
    """The index at a URL. `root` is its mirror's folder, where every file has its place; see `bagindex.remote`."""

    mirror: Mirror = field(compare=False, repr=False)
    _leases: list[Lease] = field(default_factory=list, compare=False, repr=False)
    _listeners: list[Callable[[str], None]] = field(default_factory=list, compare=False, repr=False)

    @classmethod
    def at(cls, url: str) -> RemoteDirectory:
        """The index at a URL, as it is now; there may be none yet.

        Raises:
            SettingsError: it is no URL of an object store.
            StoreError: the store cannot be reached, or refuses.
        """
        return cls.of(mirror_of(parse(url)))

    @classmethod
    def of(cls, mirror: Mirror) -> RemoteDirectory:
        """The index that a mirror mirrors, as it is now.

        Raises:
            StoreError: the store cannot be reached, or refuses.
        """
        mirror.sync()
        return cls(mirror.root, mirror)

    def __reduce__(self) -> tuple[Any, ...]:
        """Another process, maybe on another computer, has a mirror of its own."""
        return RemoteDirectory.at, (self.place,)

    @property
    def place(self) -> str:
        """The index's URL."""
        return str(self.mirror.store.place)

    @property
    def name(self) -> str:
        """The last part of the URL."""
        return self.mirror.store.place.name

    def whole(self, path: Path) -> Path:
        """A file, all of which is on this disk now."""
        self.mirror.fill(path)
        return path

    def readable(self, path: Path) -> Any:
        """What PyArrow reads a file by."""
        from bagindex.remote.files import MirroredFile

        return MirroredFile(self.mirror, path)

    def sql_path(self, path: Path) -> str:
        """What DuckDB reads a file by, on a connection that `connect` made."""
        return f"{PROTOCOL}{path}"

    def connect(self, path: Path, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        """A connection that reads a file of DuckDB, and others by `sql_path`: blocks of it, which have checksums."""
        import duckdb

        from bagindex.remote.files import MirrorFileSystem
        from bagindex.sql_names import literal

        connection = duckdb.connect(config=config)
        try:
            connection.register_filesystem(MirrorFileSystem())
            connection.execute(f'ATTACH {literal(self.sql_path(path))} AS "{path.stem}" (READ_ONLY); USE "{path.stem}"')
        except BaseException:
            connection.close()
            raise
        return connection

    def raise_trouble(self) -> None:
        """Raise what kept DuckDB from reading; see `IndexDirectory.raise_trouble`."""
        trouble = self.mirror.trouble
        self.mirror.trouble = None
        if trouble is not None:
            raise trouble from None

    def arrays(self, path: Path, offsets: Sequence[int], shape: tuple[int, ...]) -> Arrays:
        """Equal arrays at known offsets of a file."""
        from bagindex.remote.files import MirroredArrays

        return MirroredArrays(self.mirror, path, offsets, shape)

    def shard_manifest(self, series: str, shard: int) -> ShardManifest:
        """`shard.json` of a committed shard; see `IndexDirectory.shard_manifest`."""
        path = self.shard_path(series, shard) / SHARD
        if self.mirror.name(path) in self.mirror.objects:
            self.mirror.fill(path)
        return super().shard_manifest(series, shard)

    def expect(self, *series: str) -> None:
        """Fetch the records of all shards of some series beside each other: they will be read."""
        paths = [self.shard_path(each, shard) / SHARD for each in series for shard in self.committed(each)]
        self.mirror.fill(*paths)

    def say_to(self, note: Callable[[str], None]) -> None:
        """Who hears why a writer waits."""
        self._listeners.append(note)

    def refresh(self) -> None:
        """See what others, workers on other computers too, have committed meanwhile."""
        self.mirror.sync()

    def prepare(self, names: Iterable[str]) -> None:
        """Have on this disk what a catalog is made of: of large tables, what is in which place only."""
        import pyarrow.parquet as pq

        paths = [self.root / name for name in names]
        self.mirror.fill(*(path for path in paths if path.stem not in _LARGE))
        for path in (path for path in paths if path.stem in _LARGE):
            pq.read_metadata(self.readable(path))

    def write_file(self, name: str, data: bytes) -> None:
        """Put a file, and then have it in the mirror."""
        put = self._put(name, data)
        super().write_file(name, data)
        self.mirror.took({name: put})

    def publish(self, temporary: Path, name: str) -> None:
        """Put a finished file, and then have it in the mirror."""
        put = self._put(name, temporary)
        super().publish(temporary, name)
        self.mirror.took({name: put})

    def drop(self, path: Path) -> None:
        """Delete a file, or a folder, whose record goes first: without it, what is left is nothing."""
        name = self.mirror.name(path)
        names = [each for each in self.mirror.objects if each == name or each.startswith(f"{name}/")]
        records = [each for each in names if each.endswith(".json")]
        self._check()
        for some in (records, [each for each in names if each not in records]):
            if some:
                self.mirror.store.delete(some)
        self.mirror.lost(names)
        super().drop(path)

    @property
    def elsewhere(self) -> bool:
        """It is: a store has room."""
        return True

    def size(self) -> int:
        """Bytes of all objects."""
        return sum(listed.size for listed in self.mirror.objects.values())

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file as it is in the store: what the mirror has of it is read anew."""
        self.mirror.renew(path)
        return file_sha256(path)

    def remove_folder(self) -> None:
        """Remove the mirror of an index that was cleared."""
        self.mirror.remove()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the right to write; see `bagindex.remote.lease`.

        Raises:
            LockedError: somebody else is writing.
            SettingsError: the place holds something else.
            StoreError: the store cannot be reached, or refuses.
        """
        if not self.mirror.store.conditional:
            self._say(f"{self.place}: this store does not refuse a second writer by itself, see that there is none")
        lease = Lease(self.mirror.store, self.mirror.identity, self._say)
        self._leases.append(lease)
        reachable = True
        try:
            self.mirror.sync()
            self._sweep_store()
            yield
        except StoreError:
            reachable = False
            raise
        finally:
            self._leases.remove(lease)
            lease.give_back(reachable)

    def _put_folder(self, temporary: Path, final: Path, record: str) -> None:
        """Put a folder's files, and its record last, where there is none; then have it in the mirror."""
        folder = self.mirror.name(final)
        names = sorted(path.name for path in temporary.iterdir() if path.name != record)
        with ThreadPoolExecutor(_PUT_AT_ONCE) as pool:
            listed = pool.map(lambda name: self._put(f"{folder}/{name}", temporary / name), names)
            put = dict(zip((f"{folder}/{name}" for name in names), listed, strict=True))
        put[f"{folder}/{record}"] = self._put(f"{folder}/{record}", (temporary / record).read_bytes())
        os.rename(temporary, final)
        fsync_folder(final.parent)
        self.mirror.took(put)

    def _put(self, name: str, content: bytes | Path) -> Listed:
        """Put an object in the place of the one that is known, or where there is none."""
        self._check()
        known = self.mirror.objects.get(name)
        store = self.mirror.store
        try:
            return store.put(name, content, new=known is None, over=known.tag if known else None)
        except Conflict:
            # The answer to our own request may have been lost, or a writer that was killed may have put the same.
            found = store.find(name)
            if found is not None and self._is(name, found, content):
                return found
            raise LockedError(
                f"{self.place}/{name} was written by somebody else just now: end what else writes there, and run the "
                "same command again; what is committed stays"
            ) from None

    def _is(self, name: str, listed: Listed, content: bytes | Path) -> bool:
        """Whether an object is what was to be put."""
        size = len(content) if isinstance(content, bytes) else content.stat().st_size
        if listed.size != size:
            return False
        with io.BytesIO(content) if isinstance(content, bytes) else content.open("rb") as ours:
            return all(
                self.mirror.store.read(name, start, min(start + _STEP, size), listed.tag) == ours.read(_STEP)
                for start in range(0, size, _STEP)
            )

    def _say(self, text: str) -> None:
        for note in self._listeners:
            note(text)

    def _check(self) -> None:
        for lease in self._leases:
            lease.check()

    def _keep_copy(self) -> None:
        for name in (INDEX, COPY):
            if name in self.mirror.objects:
                self.mirror.fill(self.root / name)
        super()._keep_copy()

    def _foreign(self) -> str | None:
        return None

    def _sweep_store(self) -> None:
        """Delete what writers that were killed have left: files of shards and folders that have no record."""
        listed = self.mirror.store.listing()
        left = [name for name in listed if name not in self.mirror.objects and is_part(name)]
        strangers = sorted(filter(is_stranger, listed))
        if not self.exists() and strangers:
            raise SettingsError(f"{self.place} holds something else ({strangers[0]}): give --out an empty or new place")
        if left:
            self._check()
            self.mirror.store.delete(left)
