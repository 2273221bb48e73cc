"""Where the evidence of a shard is: in its own folder, or in a file that several shards share.

A query pays for each row group that there is, so `bagindex compact` merges the evidence of neighbouring shards. A
shard's record stays as it was: it says what the shard's own `evidence.parquet` was, and merged evidence, in a folder
`merged-FIRST-LAST-N` beside the shards, of which file it was made. Where both agree the merged evidence counts, and the
shard needs no file of its own. A shard that is made again has one, which counts if it is another.
"""

from __future__ import annotations

import hashlib
import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bagindex.arrays import Arrays, array_offsets
from bagindex.errors import DamagedIndexError
from bagindex.seal import read_record
from bagindex.store import EVIDENCE, REMAKE, IndexDirectory, check_sizes, merged_range
from bagindex_schemas import tables
from bagindex_schemas.records import FileRecord, MergedManifest, MergedShard, ShardManifest

RECORD = "merged.json"
"""The record of merged evidence, in its folder."""


@dataclass(frozen=True)
class Part:
    """A shard's part of merged evidence.

    Attributes:
        folder: of the merged evidence.
        shard: what its record says of the shard.
        offsets: byte offset of each class's logits of this shard.
    """

    folder: Path
    shard: MergedShard
    offsets: tuple[int, ...]


class MergedEvidence:
    """The merged evidence of a series as it is now, its files' sizes checked as it is looked at."""

    def __init__(self, directory: IndexDirectory, series: str) -> None:
        self._directory = directory
        self._series = series
        self._records: dict[str, MergedManifest | None] = {}

    def part(self, shard: int, manifest: ShardManifest) -> Part | None:
        """Where the evidence of a shard is, by its record; None where it is in its own file.

        Raises:
            DamagedIndexError: what holds it has another size or cannot be read; or nothing holds it.
        """
        own = manifest.files[EVIDENCE]
        path = self._directory.shard_path(self._series, shard) / EVIDENCE
        for name in self._directory.merged_names(self._series):
            if shard not in merged_range(name):
                continue
            try:
                record = self._read(name)
            except DamagedIndexError:
                if os.path.lexists(path):
                    continue
                raise
            for each, offsets in parts(record) if record else ():
                if each.shard == shard and each.file_sha256 == own.sha256:
                    return Part(self._directory.inside(self._series, name), each, offsets)
        if not os.path.lexists(path):
            raise DamagedIndexError(f"{path} is missing: {REMAKE}")
        return None

    def live(self, name: str) -> dict[int, Part]:
        """The committed shards whose evidence is in one folder of merged evidence.

        Raises:
            DamagedIndexError: a record cannot be read.
        """
        folder = self._directory.inside(self._series, name)
        committed = set(self._directory.committed(self._series))
        found = {}
        for shard in sorted(committed.intersection(each.shard for each in read(self._directory, folder).shards)):
            part = self.part(shard, self._directory.shard_manifest(self._series, shard))
            if part is not None and part.folder == folder:
                found[shard] = part
        return found

    def _read(self, name: str) -> MergedManifest | None:
        if name not in self._records:
            folder = self._directory.inside(self._series, name)
            try:
                self._records[name] = read(self._directory, folder)
            except DamagedIndexError:
                if folder.exists():
                    raise
                self._records[name] = None  # another took its place in this moment
        return self._records[name]


def is_sound(directory: IndexDirectory, part: Part) -> bool:
    """Whether a shard's part of merged evidence is what was merged."""
    digest = hashlib.sha256()
    with directory.whole(part.folder / EVIDENCE).open("rb") as file:
        for offset in part.offsets:
            digest.update(os.pread(file.fileno(), 2 * part.shard.rows, offset))
    return digest.hexdigest() == part.shard.values_sha256


def read(directory: IndexDirectory, folder: Path) -> MergedManifest:
    """The record of merged evidence, its file's size checked.

    Raises:
        DamagedIndexError: it cannot be read, or the file has another size.
    """
    if os.path.lexists(folder / RECORD):
        directory.whole(folder / RECORD)
    record = read_record(folder / RECORD, MergedManifest, REMAKE)
    check_sizes(folder, record.files, REMAKE)
    return record


def parts(record: MergedManifest) -> list[tuple[MergedShard, tuple[int, ...]]]:
    """The shards of merged evidence, each with the byte offset of each class's logits."""
    before = itertools.accumulate((each.rows for each in record.shards), initial=0)
    return [
        (each, tuple(offset + 2 * rows for offset in record.offsets))
        for each, rows in zip(record.shards, before, strict=False)
    ]


def evidence_path(directory: IndexDirectory, series: str, shard: int) -> Path:
    """The file that has a shard's evidence.

    Raises:
        DamagedIndexError: there is none, or it has another size.
    """
    part = MergedEvidence(directory, series).part(shard, directory.shard_manifest(series, shard))
    return (part.folder if part else directory.shard_path(series, shard)) / EVIDENCE


def open_evidence(directory: IndexDirectory, series: str, shard: int, shape: Sequence[int]) -> Arrays:
    """A shard's evidence, an array of a shape for each class, of float16.

    Raises:
        DamagedIndexError: it is not there, or a file has another size.
        ValueError, OSError, pyarrow.ArrowException: the file is damaged.
    """
    part = MergedEvidence(directory, series).part(shard, directory.shard_manifest(series, shard))
    if part is None:
        path = directory.shard_path(series, shard) / EVIDENCE
        offsets = array_offsets(path, 2, 2, tables.EVIDENCE, directory.readable(path))
        return directory.arrays(path, offsets, tuple(shape))
    if part.shard.rows != np.prod(shape):
        raise ValueError(f"it has {part.shard.rows} patches of shard {shard}, not {np.prod(shape)}")
    return directory.arrays(part.folder / EVIDENCE, part.offsets, tuple(shape))


def own_files(directory: IndexDirectory, series: str, shard: int) -> dict[str, FileRecord]:
    """The files of a shard that are in its own folder.

    Raises:
        DamagedIndexError: one is missing or has another size.
    """
    manifest = directory.shard_manifest(series, shard)
    if EVIDENCE not in manifest.files or MergedEvidence(directory, series).part(shard, manifest) is None:
        return manifest.files
    return {name: record for name, record in manifest.files.items() if name != EVIDENCE}
