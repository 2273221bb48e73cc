"""An index's folder: what is committed, how it gets there, and who may write.

A shard is written into `shard-N.tmp-PID`, every file fsynced, `shard.json` last, then the folder is renamed and its
parent fsynced. The rename is the commit: a shard exists whole or not at all.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from bagindex.durable import fsync_folder, make_folder, publish, replace_file
from bagindex.errors import DamagedIndexError, IndexNotFoundError, SettingsError
from bagindex.index_files import IndexFiles
from bagindex.locking import LOCK, hold
from bagindex.refusals import refusals
from bagindex.seal import read_record, sealed
from bagindex_schemas.derived import DerivedRecord
from bagindex_schemas.records import (
    FORMAT_VERSION,
    FileRecord,
    IndexManifest,
    MergedManifest,
    ModelRecord,
    ShardManifest,
)

IMAGES = "images"
"""The series of the shards that belong to no model."""
SHARD = "shard.json"
"""The record of a shard."""
INDEX = "index.json"
"""The record of the index."""
WEIGHTS = "model.safetensors"
"""A model's weights, in its folder."""
EVIDENCE = "evidence.parquet"
"""Every patch's logit for every class: a shard's own, or one that shards share; see `bagindex.merged`."""
COPY = "index-copy.json"
"""The same again, for `bagindex repair`: without it, a flipped bit would cost the index."""

CURRENT = "CURRENT"
"""The record that names the catalog in force."""

_OUR_FILES = re.compile(
    r"index(-copy)?\.json|labels-[0-9a-f]{12}\.parquet|CURRENT|LOCK|catalog-\d+\.duckdb(\.wal)?|.*\.tmp-\d+(\.wal)?"
)
_MERGED = re.compile(r"merged-(\d{5,6})-(\d{5,6})-(\d{1,9})")
"""A folder of merged evidence: its first and last shard, and the how manieth of its series it is."""
_IN_OUR_FOLDERS = re.compile(r"shard-\d{5}|merged-\d{5}|model\.safetensors|evidence|features|derived")
_TRIES = 50
_WAIT_SECONDS = 0.1
REMAKE = "run `bagindex repair`, and then the same `bagindex build` command again, which makes it anew"
"""What to do about a damaged shard."""
RESTORE = "run `bagindex repair`, which puts a copy back"
"""What to do about a damaged `index.json`."""
LOST = "put back a copy of your own, or build anew with --restart"
"""The same, where there is no copy."""


@dataclass(frozen=True)
class IndexDirectory(IndexFiles):
    """The folder of one index. A `series` of shards is `images`, a model's name, or a model's name and a keep level."""

    def sha256(self, path: Path) -> str:
        """SHA-256 of a file below the root, hexadecimal."""
        return file_sha256(path)

    def exists(self) -> bool:
        """Whether an index has been begun here."""
        return any((self.root / name).is_file() for name in (INDEX, COPY))

    def manifest(self) -> IndexManifest:
        """`index.json`.

        Raises:
            IndexNotFoundError: there is none.
            DamagedIndexError: it is no record of an index.
            NewerIndexError: it is one of a later format.
        """
        if not self.exists():
            raise IndexNotFoundError(f"no index at {self.place}: `bagindex list` shows what there is")
        return read_record(self.root / INDEX, IndexManifest, RESTORE if (self.root / COPY).exists() else LOST)

    def write_manifest(self, manifest: IndexManifest) -> None:
        """Put a new `index.json` in place of the old one, and then its copy."""
        data = sealed(manifest.model_copy(update={"format": FORMAT_VERSION}))
        self.write_file(INDEX, data)
        self.write_file(COPY, data)

    def inside(self, *parts: str) -> Path:
        """A path below the root, of which no part is a symbolic link: an index has none, and one that somebody put
        there would lead out of it.

        Raises:
            DamagedIndexError: there is a link, or the path leads out by itself.
        """
        path = self.root
        for part in "/".join(parts).split("/"):
            if part == "..":
                raise DamagedIndexError(f"{'/'.join(parts)!r} is no place in {self.root}: run `bagindex repair`")
            path = path / part
            if path.is_symlink():
                raise DamagedIndexError(f"{path} is a symbolic link: put what it stands for in its place")
        return path

    def write_file(self, name: str, data: bytes) -> None:
        """Write a file below the root so that readers see the old one or the new one, and it outlives a power cut."""
        path = self.inside(name)
        make_folder(path.parent, self.root)
        replace_file(path, data)

    def publish(self, temporary: Path, name: str) -> None:
        """Put a finished file in its place directly below the root."""
        publish(temporary, self.root / name)

    def shard_path(self, series: str, shard: int) -> Path:
        """The folder of a committed shard."""
        return self.root / series / f"shard-{shard:05d}"

    def committed(self, series: str) -> list[int]:
        """Numbers of the committed shards, ascending."""
        folder = self.inside(series)
        names = os.listdir(folder) if folder.is_dir() else []
        return sorted(int(match[1]) for name in names if (match := re.fullmatch(r"shard-(\d{5,})", name)))

    def shard_manifest(self, series: str, shard: int) -> ShardManifest:
        """`shard.json` of a committed shard, its files' sizes checked; its evidence may have been merged with others'.

        Raises:
            DamagedIndexError: a file is missing or has another size, or these are another shard's.
        """
        folder = self.inside(series, self.shard_path(series, shard).name)
        manifest = read_record(folder / SHARD, ShardManifest, REMAKE)
        if manifest.shard != shard or (manifest.kind == "images") != (series == IMAGES):
            raise DamagedIndexError(f"{folder / SHARD} belongs to another shard: {REMAKE}")
        for name, size in self._own(series, manifest).items():
            check_size(folder / name, size, REMAKE)
        return manifest

    def merged_names(self, series: str) -> list[str]:
        """Names of a series' folders of merged evidence, the latest first: of what several hold, that counts."""
        folder = self.inside(series)
        return latest_first(os.listdir(folder) if folder.is_dir() else ())

    def _own(self, series: str, manifest: ShardManifest) -> dict[str, int]:
        """The files that are to be in a shard's folder, and their bytes; its evidence may have been merged."""
        sizes = {name: record.bytes for name, record in manifest.files.items()}
        lacking = EVIDENCE in sizes and not os.path.lexists(self.shard_path(series, manifest.shard) / EVIDENCE)
        if lacking and any(manifest.shard in merged_range(name) for name in self.merged_names(series)):
            del sizes[EVIDENCE]
        return sizes

    def table_path(self, series: str, shard: int, table: str) -> Path:
        """The file of a table of a committed shard, its size checked.

        Raises:
            DamagedIndexError: it is missing or has another size.
        """
        name = f"{table}.parquet"
        if name not in self.shard_manifest(series, shard).files:
            raise DamagedIndexError(f"{self.shard_path(series, shard)} has no {name}: {REMAKE}")
        return self.shard_path(series, shard) / name

    def missing(self, manifest: IndexManifest) -> int:
        """How many of its shards are not committed, in all series together."""
        return sum(len(manifest.shards) - len(self.committed(series)) for series in (IMAGES, *manifest.series))

    def totals(self, *series: str) -> tuple[Counter[str], Counter[str]]:
        """Rows and bytes of each table, over the committed shards of some series."""
        rows: Counter[str] = Counter()
        sizes: Counter[str] = Counter()
        for each in series:
            self.expect(each)
            for shard in self.committed(each):
                manifest = self.shard_manifest(each, shard)
                rows.update(manifest.rows)
                sizes.update({name.removesuffix(".parquet"): size for name, size in self._own(each, manifest).items()})
            for name in self.merged_names(each):
                with suppress(FileNotFoundError):  # another took its place in this moment
                    sizes["evidence"] += self.inside(each, name, EVIDENCE).stat().st_size
        return rows, sizes

    def weights_path(self, record: ModelRecord) -> Path:
        """The file of a model's weights, its hash checked: they are to answer questions.

        Raises:
            DamagedIndexError: it is missing, or not what was written.
        """
        path = self.inside(record.name, WEIGHTS)
        check_size(path, record.file_bytes, REMAKE)
        if file_sha256(self.whole(path)) != record.file_sha256:
            raise DamagedIndexError(f"{path} is damaged, its SHA-256 is not the recorded one: {REMAKE}")
        return path

    def begin_shard(self, series: str, shard: int, token: int | None = None) -> Path:
        """Make a temporary folder for a shard's files; `commit_shard` makes them the shard.

        Only the lock's holder makes such folders, and only it commits: whoever else writes into one, a worker in
        another process say, can do no more than that, and nothing at all once the folder is gone.

        Args:
            series, shard: which.
            token: a number that no other folder in the making has; by default this process's.
        """
        return self._begin(self.shard_path(series, shard), os.getpid() if token is None else token)

    def commit_shard(self, series: str, shard: int, temporary: Path, plan_sha256: str) -> None:
        """Make a shard of a folder that is complete.

        Raises:
            RuntimeError: what is in it is not whole, or is not this shard of this plan.
        """
        record = read_record(temporary / SHARD, ShardManifest, REMAKE)
        if (record.shard, record.plan_sha256) != (shard, plan_sha256):
            raise RuntimeError(f"{temporary} holds shard {record.shard} of another index")
        self._commit(temporary, self.shard_path(series, shard), SHARD)

    @contextmanager
    def new_folder(self, final: Path, record: str) -> Iterator[Path]:
        """A temporary folder that becomes `final`: leaving it without an error is the commit.

        Args:
            final: where; there is nothing yet.
            record: the file that `complete` writes last.
        """
        temporary = self._begin(final, os.getpid())
        try:
            yield temporary
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        self._commit(temporary, final, record)

    def complete(
        self, temporary: Path, record: ShardManifest | MergedManifest | DerivedRecord, name: str = SHARD
    ) -> None:
        """Fsync a folder's files and write the record of them, `shard.json` or another, which completes the folder."""
        for each in record.files:
            with (temporary / each).open("rb") as file:
                os.fsync(file.fileno())
        with (temporary / name).open("wb") as file:
            file.write(sealed(record))
            file.flush()
            os.fsync(file.fileno())
        fsync_folder(temporary)

    def free_bytes(self) -> int:
        """Bytes that can still be written on the disk where the index is, or will be."""
        folder = self.root
        while not folder.exists():
            folder = folder.parent
        return shutil.disk_usage(folder).free

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the index's lock: one writer, any number of readers. It dies with the process.

        Raises:
            LockedError: another process is writing.
            SettingsError: the folder holds something else.
            SpaceError, DiskError: what is done meanwhile cannot be written; see `bagindex.refusals`.
        """
        if self.root.exists() and not self.root.is_dir():
            raise SettingsError(f"{self.root} is a file: give --out another place")
        foreign = self._foreign()
        if foreign:
            raise SettingsError(f"{self.root} holds something else ({foreign}): give --out an empty or new folder")
        with refusals(self.root):
            descriptor = hold(self.root)
            try:
                with self._alone():
                    self._settle()
                    self._sweep()
                    self._keep_copy()
                    yield
            finally:
                os.close(descriptor)

    def clear(self) -> None:
        """Remove the index, but not its lock.

        First what names the catalog, last the records: a removal that was cut off leaves an unfinished index, which
        can be removed again, or built.
        """
        ours = sorted(child for child in self.root.iterdir() if child.name != LOCK and _is_ours(child))
        for child in sorted(ours, key=lambda child: (child.name != CURRENT, child.name in (COPY, INDEX))):
            self.drop(child)

    def holds_series(self, series: str) -> bool:
        """Whether there is a series' folder, by what is in it, whether `index.json` knows of it or not."""
        folder = self.inside(series)
        return folder.is_dir() and any(folder.iterdir()) and _is_ours(folder)

    def remove_series(self, series: str) -> None:
        """Remove all shards of a series, and what else its folder holds."""
        self.drop(self.inside(series))

    def drop(self, path: Path) -> None:
        """Remove a file or a folder of the index, which is gone at once and whole, also from the disk."""
        if os.path.lexists(path):
            temporary = path.with_name(f"{path.name}.tmp-{os.getpid()}")
            os.rename(path, temporary)
            fsync_folder(path.parent)
            _remove(temporary)

    def remove_folder(self) -> None:
        """Remove the folder of an index that was cleared, unless something else is in it. The caller holds the lock."""
        (self.root / LOCK).unlink(missing_ok=True)
        with suppress(OSError):  # something else is in it, or somebody has just begun to write there
            self.root.rmdir()

    def size(self) -> int:
        """Bytes of all files, of those that are there while others may come and go."""
        total = 0
        for folder, _, names in os.walk(self.root):
            for name in names:
                with suppress(FileNotFoundError):
                    total += os.lstat(os.path.join(folder, name)).st_size
        return total

    def _alone(self) -> AbstractContextManager[None]:
        """Keep out other writers that the lock does not know of."""
        return nullcontext()

    def _begin(self, final: Path, token: int) -> Path:
        make_folder(final.parent, self.root)
        temporary = final.with_name(f"{final.name}.tmp-{token}")
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        return temporary

    def _commit(self, temporary: Path, final: Path, record: str) -> None:
        if not (temporary / record).is_file():
            raise RuntimeError(f"{temporary} is left without {record}")
        self._put_folder(temporary, final, record)

    def _put_folder(self, temporary: Path, final: Path, record: str) -> None:
        os.rename(temporary, final)
        fsync_folder(final.parent)

    def _settle(self) -> None:
        """Have what a killed writer renamed outlive a power cut: it may not have come to that, and what is found is
        relied on.
        """
        folders = (folder for pattern in ("*/", "*/*/") for folder in self.root.glob(pattern))
        for folder in (self.root, *folders):
            if not folder.is_symlink() and not folder.name.startswith(("shard-", "merged-")):
                fsync_folder(folder)

    def _sweep(self) -> None:
        # Only the lock's holder writes, so every temporary name is a dead process's.
        for pattern in ("*.tmp-*", "*/*.tmp-*", "*/*/*.tmp-*"):
            for path in list(self.root.glob(pattern)):
                _remove(path)

    def _keep_copy(self) -> None:
        # A writer may have been killed before it wrote the copy.
        with suppress(IndexNotFoundError, DamagedIndexError):
            self.manifest()
            data = (self.root / INDEX).read_bytes()
            if not (self.root / COPY).is_file() or (self.root / COPY).read_bytes() != data:
                self.write_file(COPY, data)

    def _foreign(self) -> str | None:
        if not self.root.exists() or self.exists():
            return None
        try:
            return next((child.name for child in sorted(self.root.iterdir()) if not _is_ours(child)), None)
        except FileNotFoundError:  # the folder itself is gone
            return None


def latest_first(names: Iterable[str]) -> list[str]:
    """Those of some names that are of folders of merged evidence, the latest first."""
    found = [match for name in names if (match := _MERGED.fullmatch(name))]
    return [match[0] for match in sorted(found, key=lambda match: -int(match[3]))]


def merged_range(name: str) -> range:
    """The shards from the first to the last of a folder of merged evidence."""
    first, last, _ = name.removeprefix("merged-").split("-")
    return range(int(first), int(last) + 1)


def merged_name(shards: Sequence[int], names: Sequence[str]) -> str:
    """The name of a new folder for the evidence of some shards, beside those that a series has."""
    number = 1 + max((int(name.rpartition("-")[2]) for name in names), default=0)
    return f"merged-{min(shards):05d}-{max(shards):05d}-{number}"


def check_sizes(folder: Path, files: Mapping[str, FileRecord], advice: str) -> None:
    """See whether a folder's files are there, whole.

    Raises:
        DamagedIndexError: one is missing, has another size, or is no file.
    """
    for name, record in files.items():
        check_size(folder / name, record.bytes, advice)


def check_size(path: Path, size: int, advice: str) -> None:
    """See whether a file is there, whole.

    Raises:
        DamagedIndexError: it is missing, has another size, or is no file (a link, say, which is not followed).
    """
    try:
        found = path.lstat()
    except (FileNotFoundError, NotADirectoryError):
        raise DamagedIndexError(f"{path} is missing: {advice}") from None
    if not stat.S_ISREG(found.st_mode):
        raise DamagedIndexError(f"{path} is no regular file: {advice}")
    if found.st_size != size:
        raise DamagedIndexError(f"{path} has {found.st_size} bytes, not {size}: {advice}")


def _remove(path: Path) -> None:
    # A worker of a build that was killed may write there for a moment, until it hears of it.
    for left in reversed(range(_TRIES)):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        except OSError as error:
            if not left or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise
            time.sleep(_WAIT_SECONDS)
        else:
            return


def _is_ours(child: Path) -> bool:
    if child.is_symlink() or not child.is_dir():
        return _OUR_FILES.fullmatch(child.name) is not None
    try:
        return all(_IN_OUR_FOLDERS.match(name) for name in os.listdir(child))
    except FileNotFoundError:  # who writes there has removed it
        return True


def file_sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
