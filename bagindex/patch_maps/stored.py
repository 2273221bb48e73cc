"""A map as it is stored, and whether it still is of what the index holds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex import derived
from bagindex.arrays import UNREADABLE, open_checked
from bagindex.catalog import Catalog
from bagindex.errors import DamagedIndexError, NotKeptError
from bagindex.patch_maps.making import words_digest
from bagindex.store import IndexDirectory
from bagindex.stored import StoredFeatures
from bagindex.text import first_line
from bagindex_schemas import tables as schemas
from bagindex_schemas.derived import MapRecord


@dataclass(frozen=True, eq=False)
class StoredMap:
    """A map's n points; see `bagindex_schemas.tables.MAP`.

    Attributes:
        record: how it was made.
        patch_ids: int64 [n].
        words: int32 [n].
        class_ids: int32 [n].
        logits: float32 [n].
        places: float32 [n, 2].
    """

    record: MapRecord
    patch_ids: NDArray[np.int64]
    words: NDArray[np.int32]
    class_ids: NDArray[np.int32]
    logits: NDArray[np.float32]
    places: NDArray[np.float32]


def open_map(catalog: Catalog, features: StoredFeatures, kind: str) -> StoredMap:
    """A model's map, `derived.MAP` or `derived.WORD_MAP`.

    Raises:
        NotKeptError: there is none, or what it was made of has changed since.
        DamagedIndexError: it cannot be read.
    """
    directory, model = catalog.directory, features.record.name
    words = "--words " if kind == derived.WORD_MAP else ""
    found = derived.open_newest(directory, model, kind, MapRecord)
    if found is None:
        raise NotKeptError(f"{model} has no such map: `bagindex map {words}--model {model}` makes one")
    folder, record = found
    if record.features_sha256 != derived.features_digest(directory, features.record, catalog.shards) or (
        record.words_sha256 is not None
        and (model not in catalog.words or record.words_sha256 != words_digest(directory, catalog, model))
    ):
        raise NotKeptError(
            f"the map of {model} is of another state of the index: `bagindex map {words}--again --model {model}` makes "
            "it anew"
        )
    with catalog.reading():
        return _read(directory, folder, record, kind, catalog, features)


def _read(
    directory: IndexDirectory, folder: Any, record: MapRecord, kind: str, catalog: Catalog, features: StoredFeatures
) -> StoredMap:
    try:
        with open_checked(directory.whole(folder / "map.parquet"), schemas.MAP) as file:
            table = file.read()
        columns = {name: table[name].to_numpy() for name in table.column_names}
        places = np.stack([columns["x"], columns["y"]], axis=1)
        found = StoredMap(record, columns["patch_id"], columns["word"], columns["class_id"], columns["logit"], places)
        _check(found, len(catalog.manifest.plan.classes), features)
        return found
    except UNREADABLE as error:
        raise DamagedIndexError(
            f"{folder} cannot be read ({first_line(error)}): make it again with `{derived.REMAKE[kind]}`"
        ) from None


def _check(found: StoredMap, classes: int, features: StoredFeatures) -> None:
    """See whether the numbers are patches and classes that there are: they are looked up by them."""
    if len(found.patch_ids) != found.record.points:
        raise ValueError(f"it has {len(found.patch_ids)} points, not {found.record.points}")
    if not np.isin(found.patch_ids // features.patches, features.image_ids).all() or (found.patch_ids < 0).any():
        raise ValueError("a point is a patch of no image")
    if not (found.class_ids.min() >= 0 and found.class_ids.max() < classes):
        raise ValueError("a point is of a class that there is not")
    if not (np.isfinite(found.places).all() and np.isfinite(found.logits).all()):
        raise ValueError("a point lies nowhere")
