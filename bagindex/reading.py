"""Model inputs of a committed shard: read back from stored pixels, or decoded from the source again."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import OrderedDict
from collections.abc import Collection, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bagindex.arrays import UNREADABLE, open_checked
from bagindex.decoding import Decoder
from bagindex.errors import DamagedIndexError, NotKeptError, SourceError
from bagindex.images import Rejected
from bagindex.listing import known_images
from bagindex.sources import Entry, Reader
from bagindex.store import IMAGES, IndexDirectory
from bagindex.stored import damaged
from bagindex_schemas import tables
from bagindex_schemas.records import IndexManifest, Transform

_OPEN = 32
"""So many files stay open."""


def stored_pixels(
    directory: IndexDirectory, shard: int, transform: Transform
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """All stored inputs of a committed shard: image_id and uint8 [height, width, RGB]."""
    file = _PixelFile(directory, shard, transform)
    with file:
        for group in range(file.groups):
            yield from file.group(group)


class _PixelFile:
    """A shard's stored inputs.

    Raises:
        DamagedIndexError: the file cannot be read.
    """

    def __init__(self, directory: IndexDirectory, shard: int, transform: Transform) -> None:
        self._path = directory.table_path(IMAGES, shard, "pixels")
        self._shape = transform.crop_height, transform.crop_width, 3
        with self._readable():
            self._file = open_checked(directory.readable(self._path), tables.PIXELS)
            metadata = self._file.metadata
            self.groups = metadata.num_row_groups
            ids = [metadata.row_group(group).column(0).statistics for group in range(self.groups)]
            if any(each is None for each in ids):  # `None in ids` would crash pyarrow
                raise ValueError("it does not say which images are where")
            self._lasts: list[int] = [each.max for each in ids]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def group(self, group: int, wanted: Set[int] | None = None) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The inputs in a row group, all or those of some images."""
        with self._readable():
            table = self._file.read_row_group(group)
            blobs = table.column("pixels")
            for place, image_id in enumerate(table.column("image_id").to_pylist()):
                if wanted is None or image_id in wanted:
                    yield image_id, np.frombuffer(blobs[place].as_buffer(), np.uint8).reshape(self._shape)

    def of(self, wanted: Set[int]) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """The inputs of some images, of those that are there."""
        for group in sorted({bisect_left(self._lasts, image_id) for image_id in wanted} - {self.groups}):
            yield from self.group(group, wanted)

    @contextmanager
    def _readable(self) -> Iterator[None]:
        try:
            yield
        except UNREADABLE as error:
            raise damaged(self._path, error) from None


def reread(
    directory: IndexDirectory,
    shard: int,
    entries: Sequence[Entry],
    reader: Reader,
    transform: Transform,
    decoder: Decoder,
) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """The inputs of a committed shard whose pixels are not stored, decoded from the source again.

    Args:
        directory, shard: which.
        entries: the files of its images, in order; see `bagindex.listing.Listing.needed`.
        reader: reads them.
        transform, decoder: how they are decoded.

    Raises:
        SourceError: a picture is not what it was when its shard was committed.
    """
    decoded = decoder.decode(reader, entries, transform)
    for (_, found), (entry, picture) in zip(known_images(directory, shard), decoded, strict=True):
        if isinstance(picture, Rejected) or picture.sha256 != found.sha256:
            raise SourceError(f"{entry.text} has changed since it was indexed: put it back, or use --restart")
        yield found.image_id, picture.pixels


class StoredPixels:
    """The stored inputs of an index's images. The files that were read last stay open: to read a large one's footer
    takes longer than an image.

    Args:
        directory, manifest: the index.
        shards: whose images are asked for; others are not there.
    """

    def __init__(self, directory: IndexDirectory, manifest: IndexManifest, shards: Collection[int]) -> None:
        self._directory = directory
        self._shards = frozenset(shards)
        self._transform = manifest.plan.transform
        self._kept = manifest.plan.pixels
        self._firsts = [shard.first for shard in manifest.shards]
        self._open: OrderedDict[int, _PixelFile] = OrderedDict()

    def of(self, image_ids: Iterable[int]) -> dict[int, NDArray[np.uint8]]:
        """The inputs of some images of the index, uint8 [height, width, RGB].

        Raises:
            NotKeptError: the index keeps no pixels.
            DamagedIndexError: a file cannot be read, or an image is not in it.
        """
        if not self._kept:
            raise NotKeptError("this index keeps no pixels to show: build it anew with --pixels --restart")
        wanted: dict[int, set[int]] = {}
        for image_id in image_ids:
            wanted.setdefault(bisect_right(self._firsts, image_id) - 1, set()).add(image_id)
        found: dict[int, NDArray[np.uint8]] = {}
        for shard, ids in wanted.items():
            if shard in self._shards:
                found.update(self._file(shard).of(ids))
            if missing := sorted(ids - found.keys()):
                raise DamagedIndexError(f"the pixels of image {missing[0]} are missing: run `bagindex verify`")
        return found

    def close(self) -> None:
        """Close the files."""
        while self._open:
            self._open.popitem()[1].__exit__()

    def _file(self, shard: int) -> _PixelFile:
        if shard not in self._open:
            self._open[shard] = _PixelFile(self._directory, shard, self._transform)
            if len(self._open) > _OPEN:
                self._open.popitem(last=False)[1].__exit__()
        self._open.move_to_end(shard)
        return self._open[shard]
