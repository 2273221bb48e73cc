"""Model inputs of a shard: decoded from the source beside the model's work, or read back from stored pixels."""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Iterator, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagindex.errors import DamagedIndexError, QueryError, SourceError
from bagindex.images import Picture, Rejected, read_picture
from bagindex.sources import Entry, Source
from bagindex.store import IMAGES, IndexDirectory
from bagindex_schemas.records import Plan, RejectCode, Transform

_AHEAD = 4
"""Pictures decoded ahead for each worker: enough to bridge the model's batches, little memory."""


def decode_ahead(
    source: Source, entries: Sequence[Entry], transform: Transform, workers: int
) -> Iterator[tuple[Entry, Picture | Rejected]]:
    """Read and decode entries in threads (Pillow lets go of the interpreter), in order, a bounded number ahead."""
    with ThreadPoolExecutor(workers, thread_name_prefix="decode") as pool:
        waiting: deque[tuple[Entry, Future[Picture | Rejected]]] = deque()
        try:
            for entry in entries:
                waiting.append((entry, pool.submit(_decode, source, entry, transform)))
                if len(waiting) > workers * _AHEAD:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def stored_pixels(
    directory: IndexDirectory, shard: int, transform: Transform, image_ids: Set[int] | None = None
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Stored inputs of a committed shard, all or those of `image_ids`: image_id and uint8 [height, width, RGB]."""
    path = directory.shard_path(IMAGES, shard) / "pixels.parquet"
    shape = (transform.crop_height, transform.crop_width, 3)
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                ids = file.metadata.row_group(group).column(0).statistics
                if image_ids is not None and not any(ids.min <= image_id <= ids.max for image_id in image_ids):
                    continue
                columns = file.read_row_group(group).to_pydict()
                for image_id, blob in zip(columns["image_id"], columns["pixels"], strict=True):
                    if image_ids is None or image_id in image_ids:
                        yield image_id, np.frombuffer(blob, np.uint8).reshape(shape)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DamagedIndexError(f"{path} cannot be read ({error}): run `bagindex verify`") from None


def reread(
    directory: IndexDirectory, shard: int, source: Source, transform: Transform, workers: int
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The inputs of a committed shard whose pixels are not stored, decoded from the source again.

    Raises:
        SourceError: a picture is not what it was when its shard was committed.
    """
    images = pq.read_table(directory.shard_path(IMAGES, shard) / "images.parquet", columns=["image_id", "sha256"])
    ids, hashes = images["image_id"].to_pylist(), images["sha256"].to_pylist()
    entries = [source.entries[image_id] for image_id in ids]
    decoded = decode_ahead(source, entries, transform, workers)
    for image_id, sha256, (entry, picture) in zip(ids, hashes, decoded, strict=True):
        if isinstance(picture, Rejected) or picture.sha256 != sha256:
            raise SourceError(
                f"{entry.text} has changed since it was indexed: put it back, or begin anew with --restart"
            )
        yield image_id, picture.pixels


def _decode(source: Source, entry: Entry, transform: Transform) -> Picture | Rejected:
    if entry.rejected is not None:
        return entry.rejected
    try:
        return read_picture(source.read(entry), transform)
    except Rejected as rejected:
        return rejected
    except MemoryError:
        return Rejected(RejectCode.TOO_LARGE, "does not fit into memory")


def image_pixels(directory: IndexDirectory, plan: Plan, image_ids: Iterable[int]) -> dict[int, NDArray[np.uint8]]:
    """The stored inputs of some images, uint8 [height, width, RGB].

    Raises:
        QueryError: the index keeps no pixels.
        DamagedIndexError: they are not where they should be.
    """
    if not plan.pixels:
        raise QueryError("this index keeps no pixels to show: build it with --pixels")
    firsts = [shard.first for shard in plan.shards]
    wanted: dict[int, set[int]] = {}
    for image_id in image_ids:
        wanted.setdefault(bisect_right(firsts, image_id) - 1, set()).add(image_id)
    return {
        image_id: pixels
        for shard, ids in wanted.items()
        for image_id, pixels in stored_pixels(directory, shard, plan.transform, ids)
    }
