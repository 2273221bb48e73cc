"""Patches for tools that look at features: a sample, each with what there is to say of it, some at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bagindex.choosing import images_of, rows
from bagindex.described import describe
from bagindex.errors import NotKeptError, QueryError
from bagindex_schemas.records import ClassRecord, ModelRecord

if TYPE_CHECKING:
    from bagindex.opened import Opened

_BATCH = 512


@dataclass(frozen=True)
class Sample:
    """Which patches to take.

    Attributes:
        count: how many at most, drawn evenly from all.
        class_: the class whose evidence is given; None: for each patch the one that it speaks most for.
        where: a condition on images, as for `top_patches`.
        seed: of the draw.
    """

    count: int
    class_: ClassRecord | None = None
    where: str | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class PatchBatch:
    """Some patches of the sample, by ascending id.

    Attributes:
        features: float16 [n, D].
        described: what `bagindex.described.describe` says of each, and its `class` and `logit`.
        crops: their pixels, uint8 [q, q, RGB] each; None where the index keeps none.
    """

    features: NDArray[np.float16]
    described: list[dict[str, Any]]
    crops: list[NDArray[np.uint8]] | None


def draw(index: Opened, record: ModelRecord, sample: Sample) -> NDArray[np.int64]:
    """Ids of the sampled patches, int64 [n], ascending.

    Raises:
        QueryError: the index keeps no features; `where` is no condition, or no image meets it.
    """
    features = index._stored_features(record)
    places = np.arange(len(features.image_ids), dtype=np.int64)
    if sample.where:
        sql = images_of(index._catalog, record, [], sample.where, predictions=False)
        places = features.places(np.array(sorted(row[0] for row in rows(index._catalog, sql, {})), np.int64))
    total = len(places) * features.patches
    if not total:
        raise QueryError("there is no patch to export" + (f": no image meets {sample.where!r}" if sample.where else ""))
    chosen = np.arange(total, dtype=np.int64)
    if sample.count < total:
        rng = np.random.default_rng(sample.seed)
        chosen = np.sort(rng.choice(total, sample.count, replace=False, shuffle=False))
    ids: NDArray[np.int64] = (
        features.image_ids[places[chosen // features.patches]] * features.patches + chosen % features.patches
    )
    return ids


def batches(
    index: Opened, record: ModelRecord, sample: Sample, ids: NDArray[np.int64], progress: Callable[[int, int], None]
) -> Iterator[PatchBatch]:
    """The patches of a sample, some at a time.

    Args:
        index, record: whose.
        sample, ids: which; see `draw`.
        progress: hears how many of how many are done.
    """
    features, names = index._stored_features(record), index.classes
    for first in range(0, len(ids), _BATCH):
        part = ids[first : first + _BATCH]
        described = describe(index._catalog, record, part.tolist())
        for row, class_id, logit in zip(described, *_evidence(index, record, sample, part), strict=True):
            row |= {"class": names[class_id].name, "class_id": class_id, "logit": logit}
        try:
            crops = list(index._crops_of(record, part.tolist()))
        except NotKeptError:
            crops = None
        yield PatchBatch(features.of_patches(part), described, crops)
        progress(min(first + _BATCH, len(ids)), len(ids))


def _evidence(
    index: Opened, record: ModelRecord, sample: Sample, ids: NDArray[np.int64]
) -> tuple[list[int], list[float]]:
    """The class of each patch's evidence and the logit, as stored."""
    stored = index._stored_evidence(record)
    if sample.class_ is None:
        class_ids, logits = stored.strongest(ids)
        return class_ids.tolist(), logits.tolist()
    class_id = sample.class_.class_id
    return [class_id] * len(ids), stored.of_patches(class_id, ids).tolist()
