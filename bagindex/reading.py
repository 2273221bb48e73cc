"""Model inputs of a committed shard: read back from stored pixels, or decoded from the source again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Set

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagindex.decoding import Decoder
from bagindex.errors import DamagedIndexError, NotKeptError, SourceError
from bagindex.images import Rejected
from bagindex.listing import Listing, known_files
from bagindex.sources import Source
from bagindex.store import IMAGES, IndexDirectory
from bagindex.text import path_text
from bagindex_schemas.records import IndexManifest, Transform


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
    directory: IndexDirectory, shard: int, listing: Listing, source: Source, transform: Transform, decoder: Decoder
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The inputs of a committed shard whose pixels are not stored, decoded from the source again.

    Raises:
        SourceError: a picture is not what it was when its shard was committed.
    """
    known = [(path, found) for path, found in known_files(directory, [shard]).items() if found.code is None]
    missing = [path for path, _ in known if path not in listing.by_path]
    if missing:
        raise SourceError(f"{path_text(missing[0])} is gone since it was indexed: put it back, or use --restart")
    decoded = decoder.decode(source, [listing.by_path[path] for path, _ in known], transform)
    for (_, found), (entry, picture) in zip(known, decoded, strict=True):
        if isinstance(picture, Rejected) or picture.sha256 != found.sha256:
            raise SourceError(f"{entry.text} has changed since it was indexed: put it back, or use --restart")
        yield found.image_id, picture.pixels


def image_pixels(
    directory: IndexDirectory, manifest: IndexManifest, image_ids: Iterable[int]
) -> dict[int, NDArray[np.uint8]]:
    """The stored inputs of some images, uint8 [height, width, RGB].

    Raises:
        NotKeptError: the index keeps no pixels.
        DamagedIndexError: they are not where they should be.
    """
    if not manifest.plan.pixels:
        raise NotKeptError("this index keeps no pixels to show: build it anew with --pixels --restart")
    firsts = [shard.first for shard in manifest.shards]
    wanted: dict[int, set[int]] = {}
    for image_id in image_ids:
        wanted.setdefault(bisect_right(firsts, image_id) - 1, set()).add(image_id)
    return {
        image_id: pixels
        for shard, ids in wanted.items()
        for image_id, pixels in stored_pixels(directory, shard, manifest.plan.transform, ids)
    }
