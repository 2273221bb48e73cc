"""The features and the evidence of a model's committed shards, as arrays: mapped, so that only what is looked at is
read.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagindex.arrays import UNREADABLE, Arrays
from bagindex.catalog import Catalog
from bagindex.errors import DamagedIndexError, NotKeptError, QueryError
from bagindex.geometry import patch_ids
from bagindex.merged import evidence_path, open_evidence
from bagindex.store import IndexDirectory
from bagindex.text import first_line
from bagindex_schemas.records import ModelRecord


class StoredPatches:
    """A table of a model that has something for each patch. An image's *place* is its rank among the images.

    Attributes:
        record: the model, with P patches an image.
        image_ids: int64 [N], ascending.
        shards: those that have them.
    """

    table: str

    def __init__(self, directory: IndexDirectory, catalog: Catalog, record: ModelRecord) -> None:
        """
        Args:
            directory, catalog: the index; images that came after the catalog are left out.
            record: the model.

        Raises:
            QueryError: the index does not keep that table.
        """
        if self.table not in record.keep.tables:
            raise NotKeptError(
                f"this index does not keep {self.table} of {record.name}, which this needs: run the same build with "
                f"--keep {self.table}, which fills it in"
            )
        self._directory = directory
        self._classes = len(catalog.manifest.plan.classes)
        self._catalog = catalog
        self.record = record
        self.shards = catalog.shards
        self._series = record.series_of(self.table)
        rows = catalog.columns("SELECT image_id FROM images ORDER BY image_id")
        self.image_ids: NDArray[np.int64] = np.asarray(rows["image_id"], np.int64)
        spans = catalog.manifest.shards
        ends = [span.first + span.count for span in spans]
        self._firsts: list[int] = [0, *np.searchsorted(self.image_ids, ends).tolist()]
        """Place of each shard's first image, and one beyond the last."""
        self._maps: dict[int, Arrays] = {}

    @property
    def patches(self) -> int:
        """P, the patches of an image."""
        return self.record.grid.patches

    @property
    def count(self) -> int:
        """All patches, N · P."""
        return len(self.image_ids) * self.patches

    def places(self, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
        """Places of images, int64, of ids of the same shape.

        Raises:
            QueryError: the model has no such image.
        """
        places: NDArray[np.int64] = np.searchsorted(self.image_ids, image_ids).astype(np.int64)
        if len(self.image_ids) == 0 or (self.image_ids[places.clip(max=len(self.image_ids) - 1)] != image_ids).any():
            raise QueryError("there is no such image, or it could not be indexed")
        return places

    def _map(self, shard: int) -> Arrays:
        if shard not in self._maps:
            self._maps[shard] = self._catalog.answer(lambda: self._mapped(shard))
        return self._maps[shard]

    def _mapped(self, shard: int) -> Arrays:
        with self._catalog.reading():
            path = self._path(shard)
            try:
                return self._open(shard, path)
            except UNREADABLE as error:
                raise damaged(path, error) from None

    def _open(self, shard: int, path: Path) -> Arrays:
        raise NotImplementedError

    def _path(self, shard: int) -> Path:
        return self._directory.table_path(self._series, shard, self.table)

    def _shares(self, places: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int64], NDArray[np.int64]]]:
        """Of n images at some places: each shard that holds any, which of the n those are, and their places there."""
        shards = np.searchsorted(self._firsts, places, side="right") - 1
        for shard in np.unique(shards).tolist():
            here = np.flatnonzero(shards == shard)
            yield shard, here, places[here] - self._firsts[shard]

    def _size(self, shard: int) -> int:
        """How many images a shard has."""
        return self._firsts[shard + 1] - self._firsts[shard]

    def _locate(self, place: int) -> tuple[int, int]:
        """The shard that holds an image, and the image's place there."""
        shard = bisect_right(self._firsts, place) - 1
        return shard, place - self._firsts[shard]


class StoredFeatures(StoredPatches):
    """Every patch's feature, float16 [D]."""

    table = "features"

    def of_image(self, place: int) -> NDArray[np.float16]:
        """The features of an image, float16 [P, D]; they stay in the file."""
        shard, i = self._locate(place)
        return self._map(shard)[i]

    def of_patches(self, patch_ids: NDArray[np.int64]) -> NDArray[np.float16]:
        """The features of n patches, float16 [n, D].

        Raises:
            QueryError: there is no such patch.
        """
        images, cells = np.divmod(patch_ids, self.patches)
        found = np.empty((len(patch_ids), self.record.feature_size), np.float16)
        for shard, here, places in self._shares(self.places(images)):
            try:
                found[here] = self._map(shard).rows(list(zip(places.tolist(), cells[here].tolist(), strict=True)))
            except (OSError, ValueError) as error:
                raise damaged(self._path(shard), error) from None
        return found

    def blocks(
        self, places: Sequence[int] | None = None, images: int = 8
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[np.float16]]]:
        """The features of all images, or of those at some places, a few images at a time: patch ids int64 [n] and
        features float16 [n, D].
        """
        chosen = range(len(self.image_ids)) if places is None else places
        for start in range(0, len(chosen), images):
            part = chosen[start : start + images]
            ids = patch_ids(self.record.grid, self.image_ids[np.asarray(part, np.int64)])
            yield ids, np.concatenate([self.of_image(place) for place in part])

    def _open(self, shard: int, path: Path) -> Arrays:
        offsets = self._directory.shard_manifest(self._series, shard).feature_offsets or ()
        if len(offsets) != self._size(shard):
            raise ValueError(f"it has the features of {len(offsets)} images, not of {self._size(shard)}")
        return self._directory.arrays(path, offsets, (self.patches, self.record.feature_size))


class StoredEvidence(StoredPatches):
    """Every patch's logit for every class, float16.

    Sums of them in float64 are exact, in any order: they are multiples of 2^-24 below 2^16, of which 2^13 at the least,
    and millions of usual size, add up within the 53 bits of a float64.
    """

    table = "evidence"

    def of_class(self, class_id: int) -> NDArray[np.float16]:
        """A class's evidence in all images, float16 [N, P]."""
        parts = [self._map(shard)[class_id] for shard in range(len(self._firsts) - 1) if self._size(shard)]
        return np.concatenate([np.empty((0, self.patches), np.float16), *parts])

    def at(self, class_id: int, places: NDArray[np.int64]) -> NDArray[np.float16]:
        """A class's evidence in the images at some places, int64 [n]: float16 [n, P]. The rest stays in the files."""
        found = np.empty((len(places), self.patches), np.float16)
        for shard, here, rows in self._shares(places):
            found[here] = self._map(shard)[class_id][rows]
        return found

    def of_patches(self, class_id: int, patch_ids: NDArray[np.int64]) -> NDArray[np.float16]:
        """A class's evidence in n patches, float16 [n].

        Raises:
            QueryError: there is no such patch.
        """
        images, cells = np.divmod(patch_ids, self.patches)
        return self._of_cells(class_id, self.places(images), cells)

    def strongest(
        self, patch_ids: NDArray[np.int64], progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> tuple[NDArray[np.int64], NDArray[np.float16]]:
        """The class that each of n patches speaks most for, the first of equal ones, int64 [n], and its logit, float16.

        Args:
            patch_ids: int64 [n].
            progress: hears how many of how many classes were looked at.

        Raises:
            QueryError: there is no such patch.
        """
        images, cells = np.divmod(patch_ids, self.patches)
        places = self.places(images)
        class_ids, logits = np.zeros(len(patch_ids), np.int64), np.full(len(patch_ids), -np.inf, np.float16)
        for class_id in range(self._classes):
            values = self._of_cells(class_id, places, cells)
            better = values > logits
            class_ids[better], logits[better] = class_id, values[better]
            progress(class_id + 1, self._classes)
        return class_ids, logits

    def _of_cells(self, class_id: int, places: NDArray[np.int64], cells: NDArray[np.int64]) -> NDArray[np.float16]:
        """Of each place one cell, float16 [n]: the other cells are not copied."""
        found = np.empty(len(places), np.float16)
        for shard, here, rows in self._shares(places):
            found[here] = self._map(shard)[class_id][rows, cells[here]]
        return found

    def of_image(self, place: int, class_ids: Sequence[int] | None = None) -> NDArray[np.float16]:
        """An image's evidence for some classes, by default all, float16 [C, P]."""
        shard, i = self._locate(place)
        arrays = self._map(shard)
        try:
            return arrays.rows([(each, i) for each in (range(len(arrays)) if class_ids is None else class_ids)])
        except (OSError, ValueError) as error:
            raise damaged(self._path(shard), error) from None

    def _path(self, shard: int) -> Path:
        return evidence_path(self._directory, self._series, shard)

    def _open(self, shard: int, path: Path) -> Arrays:
        arrays = open_evidence(self._directory, self._series, shard, (self._size(shard), self.patches))
        if len(arrays) != self._classes:
            raise ValueError(f"it has the evidence for {len(arrays)} classes, not for {self._classes}")
        return arrays


def damaged(path: Path, error: Exception) -> DamagedIndexError:
    """What to say of a file that cannot be read."""
    return DamagedIndexError(f"{path} cannot be read ({first_line(error)}): run `bagindex verify`")
