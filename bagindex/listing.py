"""Which file of the source is which image of an index that may have grown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import pyarrow.parquet as pq

from bagindex.errors import SourceError
from bagindex.images import Rejected
from bagindex.plan import Work
from bagindex.sources import Entry, Source
from bagindex.store import IMAGES, IndexDirectory
from bagindex.text import path_text, some
from bagindex_schemas.records import IndexManifest
from bagindex_schemas.rejects import RejectCode

PASSING = frozenset(
    {
        *(RejectCode.DECODER_CRASHED, RejectCode.DECODER_TIMEOUT, RejectCode.IO_ERROR, RejectCode.MISSING),
        *(RejectCode.PERMISSION, RejectCode.TRUNCATED),
    }
)
"""Why a file may be rejected today and indexed tomorrow."""


@dataclass(frozen=True)
class Known:
    """A file that an index has dealt with: an image, or a reject and why."""

    image_id: int
    bytes: int
    sha256: str | None = None
    code: RejectCode | None = None


def known_files(directory: IndexDirectory, shards: Sequence[int]) -> dict[bytes, Known]:
    """What the committed image shards say of each path; of a path that comes again, the last."""
    known: dict[bytes, Known] = {}
    for shard in shards:
        images, rejects = (
            directory.whole(directory.table_path(IMAGES, shard, table)) for table in ("images", "rejects")
        )
        columns = ["image_id", "path", "path_bytes"]
        for row in pq.read_table(images, columns=[*columns, "bytes", "sha256"]).to_pylist():
            known[_path(row)] = Known(row["image_id"], row["bytes"], row["sha256"])
        for row in pq.read_table(rejects, columns=[*columns, "bytes", "code"]).to_pylist():
            known[_path(row)] = Known(row["image_id"], row["bytes"], code=RejectCode(row["code"]))
    return known


def known_images(directory: IndexDirectory, shard: int) -> list[tuple[bytes, Known]]:
    """The images of a committed shard and their paths, in order."""
    return [(path, found) for path, found in known_files(directory, [shard]).items() if found.code is None]


def seen_changes(known: Mapping[bytes, Known], source: Source, all_known: bool) -> str:
    """How a source's files differ from those that an index has dealt with, in words; nothing where it cannot be told.

    Files that came since are told from those that an unfinished index has not come to by their place: paths are sorted.
    """
    here = {entry.path: entry for entry in source.entries}
    last = max(known, default=b"")
    found = {
        "changed": [path for path in known if path in here and here[path].size not in (None, known[path].bytes)],
        "gone": [path for path in known if path not in here],
        "new": [path for path in here if path not in known and (all_known or path < last)],
    }
    return "; ".join(f"{what}: {some(sorted(map(path_text, paths)), 3)}" for what, paths in found.items() if paths)


class Listing:
    """The files of a source, as an index numbers them."""

    def __init__(self, directory: IndexDirectory, manifest: IndexManifest, source: Source) -> None:
        self._directory = directory
        self._manifest = manifest
        self._source = source

    def entries(self, shard: int) -> Sequence[Entry]:
        """The files of a shard whose images are not committed.

        Raises:
            SourceError: which they were cannot be told any more.
        """
        span = self._manifest.shards[shard]
        if not self._manifest.growths:
            return self._source.entries[span.first : span.first + span.count]
        first = span.first - self._pending_first
        if first < 0:
            raise SourceError(f"{IMAGES}/shard-{shard:05d} is lost, and the source has grown since: use --restart")
        found = self._pending[first : first + span.count]
        if len(found) != span.count:
            raise SourceError("the source has changed since it was listed: run `bagindex update` again")
        return found

    def needed(self, work: Work) -> Sequence[Entry]:
        """The files that are to be read for what a shard owes; of committed images, none where pixels are kept.

        Raises:
            SourceError: which they were cannot be told any more, or one is gone.
        """
        if work.images:
            return self.entries(work.shard)
        if self._manifest.plan.pixels:
            return ()
        known = known_images(self._directory, work.shard)
        missing = [path for path, _ in known if path not in self._by_path]
        if missing:
            raise SourceError(f"{path_text(missing[0])} is gone since it was indexed: put it back, or use --restart")
        return [self._by_path[path] for path, _ in known]

    @cached_property
    def _by_path(self) -> Mapping[bytes, Entry]:
        """The source's files by their paths."""
        return {entry.path: entry for entry in self._source.entries}

    @cached_property
    def _pending(self) -> Sequence[Entry]:
        # Images are committed in the order of their shards: the last growth's first shard and those before it.
        growth = self._manifest.growths[-1]
        before = [n for n, span in enumerate(self._manifest.shards) if span.first < growth.shards[0].first]
        return list(new_entries(self._source, known_files(self._directory, before), growth.retried))

    @cached_property
    def _pending_first(self) -> int:
        return self._manifest.growths[-1].shards[0].first


def new_entries(source: Source, known: Mapping[bytes, Known], retry: bool) -> Iterator[Entry]:
    """Files that an index has not dealt with, and rejected ones that have changed.

    With `retry`, those too that were rejected for a passing reason.
    """
    for entry in source.entries:
        found = known.get(entry.path)
        if found is None:
            yield entry
        elif found.code:
            changed = _size(source, entry) != found.bytes or found.code is RejectCode.CHANGED
            if changed or (retry and found.code in PASSING):
                yield entry


def _size(source: Source, entry: Entry) -> int:
    if entry.size is not None or entry.rejected:
        return entry.size or 0
    try:
        return len(source.read(entry))
    except Rejected:
        return 0


def _path(row: Mapping[str, object]) -> bytes:
    raw = row["path_bytes"]
    return raw if isinstance(raw, bytes) else str(row["path"]).encode()
