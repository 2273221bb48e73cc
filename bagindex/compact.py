"""Merging the evidence of shards, so that a query finds fewer row groups; see `bagindex.merged` for how it is found.

What is merged is written aside and committed like a shard, then a new catalog is made that reads it, and only then the
files go that nothing needs any more. So evidence is there at every moment, once or twice, and a compaction that was
cut off is ended by the next one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence, Set
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagindex import catalog
from bagindex.array_file import ArrayFile
from bagindex.arrays import UNREADABLE, array_offsets, open_checked
from bagindex.durable import fsync_folder
from bagindex.errors import DamagedIndexError, NotKeptError, SettingsError, SpaceError, UnknownModelError
from bagindex.geometry import patch_ids
from bagindex.merged import RECORD, MergedEvidence, read
from bagindex.store import EVIDENCE, IMAGES, REMAKE, IndexDirectory, merged_name
from bagindex.tables import EVIDENCE_ENCODINGS
from bagindex.text import bytes_text, first_line
from bagindex_schemas import tables
from bagindex_schemas.records import FORMAT_VERSION, IndexManifest, MergedManifest, MergedShard, ModelRecord

ROWS = 2**24
"""Rows that a row group of merged evidence may have. A query pays for row groups that there are, and reads those of its
class beside each other: of few it has little to share out, and of many much to look through.
"""


@dataclass(frozen=True)
class Group:
    """Shards of a model whose evidence is merged, and the bytes that it takes."""

    model: str
    series: str
    shards: tuple[int, ...]
    bytes: int


@dataclass(frozen=True)
class Compacted:
    """What a compaction did, or would do: `row_groups` that all models' evidence has, before and after."""

    groups: tuple[Group, ...]
    files_before: int
    files_after: int
    row_groups_before: int
    row_groups_after: int

    @property
    def bytes(self) -> int:
        """What is written."""
        return sum(group.bytes for group in self.groups)

    @property
    def room(self) -> int:
        """What must be free: the largest group is there twice for a while."""
        return max((group.bytes for group in self.groups), default=0)


def cut(rows: Sequence[int], most: int) -> list[range]:
    """Cut shards that have so many rows of each class into neighbours with no more than `most` together, or of one."""
    groups: list[range] = []
    first, total = 0, 0
    for shard, count in enumerate(rows):
        if total and total + count > most:
            groups.append(range(first, shard))
            first, total = shard, 0
        total += count
    return [*groups, range(first, len(rows))] if rows else []


def compact(
    directory: IndexDirectory,
    model: str | None = None,
    *,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Compacted:
    """Merge the evidence of an index's shards, or go on with that.

    Args:
        directory: the index.
        model: only this one's.
        dry_run: only say what would be merged.
        progress: hears how many of how many bytes are merged.

    Raises:
        UnknownModelError, NotKeptError: there is no such model, or nothing to merge.
        SettingsError: the build has not finished, or the index is in an object store.
        SpaceError, DiskError: the disk is too small, or fails.
        DamagedIndexError: evidence is not what was written.
        LockedError: another process is writing.
    """
    if directory.elsewhere:
        raise SettingsError(
            f"{directory.place} is in an object store, where evidence is not merged: compact an index on a disk, and "
            "put it there then"
        )
    if dry_run:
        return _planned(directory, directory.manifest(), model)
    directory.manifest()
    with directory.writing():
        manifest = directory.manifest()
        planned = _planned(directory, manifest, model)
        if planned.groups and manifest.format < FORMAT_VERSION:
            directory.write_manifest(manifest)  # versions before would take shards for damaged
        done = 0

        def merged(share: float) -> None:
            progress(done + int(share * group.bytes), planned.bytes)

        for group in planned.groups:
            if directory.free_bytes() < group.bytes:
                _settle(directory)
            if (free := directory.free_bytes()) < group.bytes:
                raise SpaceError(
                    f"merging shards {group.shards[0]} to {group.shards[-1]} of {group.model} takes "
                    f"{bytes_text(group.bytes)} for a while, and {bytes_text(free)} are free at {directory.root}: make "
                    "room, and run `bagindex compact` again; what is merged stays"
                )
            merge(directory, manifest, group, merged)
            done += group.bytes
        _settle(directory)
        return planned


def merge(
    directory: IndexDirectory,
    manifest: IndexManifest,
    group: Group,
    progress: Callable[[float], None] = lambda _share: None,
) -> None:
    """Write the evidence of some shards into one file, and commit it. The caller holds the lock.

    Args:
        directory, manifest: the index.
        group: which.
        progress: hears what share of it is done.

    Raises:
        DamagedIndexError: evidence is not what was written.
    """
    record, classes = manifest.models[group.model], len(manifest.plan.classes)
    merged = MergedEvidence(directory, group.series)
    final = directory.inside(group.series, merged_name(group.shards, directory.merged_names(group.series)))
    ids = [_patches(directory, record, shard) for shard in group.shards]
    with ExitStack() as stack:
        sources = [
            stack.enter_context(closing(_Source(directory, group.series, shard, merged, len(rows), classes)))
            for shard, rows in zip(group.shards, ids, strict=True)
        ]
        temporary = stack.enter_context(directory.new_folder(final, RECORD))
        with ArrayFile(temporary / EVIDENCE, tables.EVIDENCE, EVIDENCE_ENCODINGS) as file:
            patches = file.encode("patch_id", np.concatenate(ids))
            for class_id in range(classes):
                values = np.concatenate([source.of_class(class_id) for source in sources])
                file.append([file.encode_constant("class_id", class_id, len(values)), patches], values)
                progress((class_id + 1) / classes)
            written = file.finish()
        made = MergedManifest(
            plan_sha256=manifest.plan.digest(),
            shards=tuple(source.finish() for source in sources),
            offsets=written.offsets,
            files={EVIDENCE: written.record},
        )
        directory.complete(temporary, made, RECORD)


def keep_sound(directory: IndexDirectory, manifest: IndexManifest, series: str, name: str, damaged: Set[int]) -> None:
    """Have merged evidence that is damaged no more: what is sound of it is merged anew. The caller holds the lock.

    Args:
        directory, manifest: the index.
        series: which; `name` is the folder.
        damaged: shards whose evidence in it is damaged.
    """
    model = next(record.name for record in manifest.models.values() if series in record.series)
    try:
        kept = sorted(MergedEvidence(directory, series).live(name).keys() - damaged)
    except DamagedIndexError:  # its record says nothing any more
        kept = []
    if kept:
        merge(directory, manifest, Group(model, series, tuple(kept), 0))
    directory.drop(directory.inside(series, name))


def _planned(directory: IndexDirectory, manifest: IndexManifest, model: str | None) -> Compacted:
    """What there is to merge."""
    if model is not None and model not in manifest.models:
        raise UnknownModelError(f"this index has no model {model!r}: it has {', '.join(manifest.models)}")
    records = [record for name, record in manifest.models.items() if model in (None, name)]
    keeping = [record for record in records if "evidence" in record.keep.tables]
    if not keeping:
        raise NotKeptError(
            "this index keeps no evidence that could be merged: run the same build with --keep evidence, which fills "
            "it in"
        )
    classes, shards = len(manifest.plan.classes), len(manifest.shards)
    groups: list[Group] = []
    before = after = 0
    for record in keeping:
        series = record.series_of("evidence")
        if any(len(directory.committed(each)) < shards for each in (IMAGES, *record.series)):
            raise SettingsError(
                "the build of this index has not finished: run the same `bagindex build` or `bagindex update` command "
                "first"
            )
        merged = MergedEvidence(directory, series)
        manifests = [directory.shard_manifest(series, shard) for shard in range(shards)]
        places = [merged.part(shard, each) for shard, each in enumerate(manifests)]
        folders = [place.folder if place else None for place in places]
        had = folders.count(None) + len(set(folders) - {None})
        rows = [each.rows["evidence"] // classes for each in manifests]
        now = 0
        for span in cut(rows, ROWS):
            found = {folders[shard] for shard in span}
            (folder,) = found if len(found) == 1 else (None,)
            held = len(read(directory, folder).shards) if folder else 0
            now += 1
            if len(span) > 1 and held != len(span) and any(rows[shard] for shard in span):
                size = sum(manifests[shard].files[EVIDENCE].bytes for shard in span)
                groups.append(Group(record.name, series, tuple(span), size))
        before, after = before + had, after + now
    return Compacted(tuple(groups), before, after, before * classes, after * classes)


def _settle(directory: IndexDirectory) -> None:
    """Have questions answered from merged evidence, and remove what it stands for."""
    catalog.update(directory)
    for series in directory.manifest().series:
        names = directory.merged_names(series)
        if not names:
            continue
        merged, needed = MergedEvidence(directory, series), set()
        for shard in directory.committed(series):
            manifest = directory.shard_manifest(series, shard)
            part = merged.part(shard, manifest) if EVIDENCE in manifest.files else None
            own = directory.shard_path(series, shard) / EVIDENCE
            if part is not None:
                needed.add(part.folder.name)
                if own.exists():
                    own.unlink()
                    fsync_folder(own.parent)
        for name in names:
            if name not in needed:
                directory.drop(directory.inside(series, name))


def _patches(directory: IndexDirectory, record: ModelRecord, shard: int) -> NDArray[np.int64]:
    """Ids of the patches of a shard, in order."""
    path = directory.table_path(IMAGES, shard, "images")
    try:
        with open_checked(directory.readable(path), tables.IMAGES) as file:
            ids = file.read(columns=["image_id"])["image_id"].to_numpy()
    except UNREADABLE as error:
        raise DamagedIndexError(f"{path} is damaged ({first_line(error)}): {REMAKE}") from None
    return patch_ids(record.grid, ids)


class _Source:
    """A shard's evidence, read class after class and hashed as it is read; by the hash it is known to be sound."""

    def __init__(
        self, directory: IndexDirectory, series: str, shard: int, merged: MergedEvidence, rows: int, classes: int
    ) -> None:
        manifest = directory.shard_manifest(series, shard)
        part = merged.part(shard, manifest)
        folder = part.folder if part else directory.shard_path(series, shard)
        self._path = directory.whole(folder / EVIDENCE)
        self._own = manifest.files[EVIDENCE].sha256
        self._shard, self._rows, self._part = shard, rows, part
        try:
            self._offsets = part.offsets if part else array_offsets(self._path, 2, 2, tables.EVIDENCE)
        except UNREADABLE as error:
            raise self._damaged(first_line(error)) from None
        if (part.shard.rows if part else rows) != rows or len(self._offsets) != (classes if rows or part else 0):
            raise self._damaged("it has other rows than its images have patches")
        self._place = 0
        self._whole, self._values = hashlib.sha256(), hashlib.sha256()
        self._file = self._path.open("rb")

    def of_class(self, class_id: int) -> NDArray[np.float16]:
        """The logits for a class, float16 [rows]; classes are asked for in order."""
        if not self._rows:
            return np.empty(0, np.float16)
        offset = self._offsets[class_id]
        if self._part is None:  # all of the file is hashed, what stands before the values too
            self._whole.update(self._file.read(offset - self._place))
        else:
            self._file.seek(offset)
        data = self._file.read(2 * self._rows)
        if len(data) != 2 * self._rows:
            raise self._damaged("it has become shorter")
        self._place = offset + len(data)
        self._values.update(data)
        if self._part is None:
            self._whole.update(data)
        return np.frombuffer(data, np.float16)

    def finish(self) -> MergedShard:
        """What the record of what was merged says of the shard.

        Raises:
            DamagedIndexError: it is not what was written.
        """
        values = self._values.hexdigest()
        if self._part is not None:
            sound = values == self._part.shard.values_sha256
        else:
            while data := self._file.read(2**20):
                self._whole.update(data)
            sound = self._whole.hexdigest() == self._own
        if not sound:
            raise self._damaged("its SHA-256 is not the recorded one")
        return MergedShard(shard=self._shard, rows=self._rows, file_sha256=self._own, values_sha256=values)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _damaged(self, what: str) -> DamagedIndexError:
        return DamagedIndexError(f"{self._path} is damaged ({what}): {REMAKE}")
