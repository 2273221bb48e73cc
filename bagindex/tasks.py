"""Shards in the making: begun, committed and dropped by who holds the index's lock, computed by whoever is told to."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bagindex.listing import Listing
from bagindex.plan import Work
from bagindex.sources import Entry, Source
from bagindex.store import IMAGES, IndexDirectory
from bagindex_schemas.records import IndexManifest


@dataclass(frozen=True)
class Task:
    """What a worker is told of one shard, in this process or another.

    Attributes:
        work: what the shard owes.
        entries: the files to be read.
        folders: where the files of each series are written; the images come last.
    """

    work: Work
    entries: Sequence[Entry]
    folders: Mapping[str, Path]


class Tasks:
    """Begins shards, and commits or drops them. The caller holds the index's lock.

    The folders that shards are written into are made here, and only here they are renamed: a worker that outlives the
    build that it works for has nothing to commit with, and nowhere to write once its folder is gone.
    """

    def __init__(self, directory: IndexDirectory, manifest: IndexManifest, source: Source) -> None:
        self._directory = directory
        self._plan_sha256 = manifest.plan.digest()
        self._listing = Listing(directory, manifest, source)

    def begin(self, work: Work, token: int | None = None) -> Task:
        """A task for what a shard owes; `token` as for `IndexDirectory.begin_shard`.

        Raises:
            SourceError: which files are its images cannot be told any more, or one is gone.
        """
        entries = self._listing.needed(work)
        folders: dict[str, Path] = {}
        task = Task(work, entries, folders)
        try:
            for series in (*(series for _, series in work.series), *([IMAGES] if work.images else [])):
                folders[series] = self._directory.begin_shard(series, work.shard, token)
        except BaseException:
            self.drop(task)
            raise
        return task

    def commit(self, task: Task) -> None:
        """Commit a shard that is complete: its images first, so that no model's shard lacks them."""
        try:
            for series, folder in reversed(list(task.folders.items())):
                self._directory.commit_shard(series, task.work.shard, folder, self._plan_sha256)
        except BaseException:
            self.drop(task)
            raise

    def drop(self, task: Task) -> None:
        """Remove what there is of a shard in the making."""
        for folder in task.folders.values():
            shutil.rmtree(folder, ignore_errors=True)
