"""Which patches are nearest to one: by the FAISS index, or exactly, by looking at all that may be the answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagindex.arrays import to_float32
from bagindex.errors import QueryError
from bagindex.geometry import Box, locate, patch_box, shared_area
from bagindex.similarity.ann import Neighbours
from bagindex.similarity.scan import Scan
from bagindex.similarity.vectors import ranked
from bagindex.stored import StoredFeatures
from bagindex_schemas.derived import AnnRecord, Metric
from bagindex_schemas.records import Grid

SCAN = 65_536
"""Where a filter leaves so many patches or fewer, all of them are looked at, in a tenth of a second."""
_FARTHEST = 16_384
"""Candidates of an approximate search, before all patches are looked at instead."""


@dataclass(frozen=True)
class Wanted:
    """What the answer may hold.

    Attributes:
        k: how many patches.
        metric: what is nearest.
        overlap: whether patches of one image may share pixels, with each other and with the one asked about.
        per_image: how many of one image at most; None: any number.
        own_image: the image of the patch asked about, where that is in the index.
        own_box: that patch's box.
        other_images: none of the image asked about.
        places: of the images that a filter leaves, ascending; None: all.
        exact: look at all patches.
    """

    k: int
    metric: Metric
    overlap: bool
    per_image: int | None
    own_image: int | None
    own_box: Box | None
    other_images: bool
    places: NDArray[np.int64] | None
    exact: bool


@dataclass(frozen=True)
class Found:
    """The nearest patches, nearest first, and how they were found.

    Attributes:
        patch_ids: int64 [n].
        cosines, distances: to the one asked about, float64 [n].
        exact: whether these are the nearest for certain.
        how: the same in words.
    """

    patch_ids: NDArray[np.int64]
    cosines: NDArray[np.float64]
    distances: NDArray[np.float64]
    exact: bool
    how: str


def find(
    features: StoredFeatures,
    index: tuple[Neighbours | None, AnnRecord] | None,
    query: NDArray[np.float16],
    wanted: Wanted,
    stale: bool,
    progress: Callable[[int, int], None],
) -> Found:
    """The nearest patches.

    Args:
        features: of all patches.
        index: what there is for the metric.
        query: float16 [D].
        wanted: what the answer may hold.
        stale: the index is of another state.
        progress: hears how many of how many images were looked at, where all are.
    """
    places = np.arange(len(features.image_ids)) if wanted.places is None else wanted.places
    if wanted.other_images and wanted.own_image is not None:
        places = places[features.image_ids[places] != wanted.own_image]
    left = len(places) * features.patches
    why = "; the FAISS index is of another state: `bagindex index` makes it anew" if stale and not wanted.exact else ""
    if wanted.exact or stale or index is None or index[0] is None:
        return _exact(features, query, wanted, places, why, progress)
    neighbours, record = index[0], index[1]
    filtered = len(places) < len(features.image_ids)
    if filtered and (left <= SCAN or not neighbours.lists):
        return _exact(features, query, wanted, places, "", progress)
    found = _approximate(features, neighbours, record, query, wanted, places if filtered else None, left)
    return found or _exact(features, query, wanted, places, "; the FAISS index found too few", progress)


def _exact(
    features: StoredFeatures,
    query: NDArray[np.float16],
    wanted: Wanted,
    places: NDArray[np.int64],
    why: str,
    progress: Callable[[int, int], None],
) -> Found:
    scan = Scan(features, places, query, wanted.metric, progress)
    how = f"exact: all {len(scan):,} patches"
    if len(places) < len(features.image_ids):
        how += f" of the {len(places):,} images asked about"
    how += f" were compared{why}"
    count = 4 * wanted.k + 64
    while True:
        ids = scan.nearest(count)
        ids, cosines, distances = ranked(ids, features.of_patches(ids), query, wanted.metric)
        chosen, _ = _choose(features.record.grid, ids, wanted)
        if len(chosen) == wanted.k or len(ids) == len(scan):
            return Found(ids[chosen], cosines[chosen], distances[chosen], True, how)
        count *= 4


def _approximate(
    features: StoredFeatures,
    neighbours: Neighbours,
    record: AnnRecord,
    query: NDArray[np.float16],
    wanted: Wanted,
    places: NDArray[np.int64] | None,
    left: int,
) -> Found | None:
    """By the index; None where it finds too few, however far it looks."""
    probing, grid = record.probing, features.record.grid
    if probing is None:
        return None
    allowed = None
    probes = probing.probes
    if places is not None:
        images = np.zeros(int(features.image_ids[-1]) + 1, np.bool_)
        images[features.image_ids[places]] = True
        allowed = np.repeat(images, features.patches)
        probes = min(neighbours.lists, -(-probes * features.count // left))
    # As many candidates for each patch of the answer as recall was measured with.
    depth = -(-probing.candidates // 10)
    # Its own neighbours, which look alike, are passed over: patches that share pixels with it, and at its sides.
    span = 2 * (-(-grid.receptive_field // grid.stride)) - 1
    passed = 1 if wanted.overlap or wanted.other_images else min(span * span, grid.patches) // 2
    count = depth * wanted.k + passed
    wide = to_float32(query)
    most = min(_FARTHEST, left)
    while True:
        count = min(count, most)
        ids = neighbours.search(wide, count, probes, allowed)
        ids, cosines, distances = ranked(ids, features.of_patches(ids), query, wanted.metric)
        chosen, seen = _choose(grid, ids, wanted)
        # What was passed over took the place of candidates.
        enough = len(chosen) == wanted.k and depth * wanted.k + seen - wanted.k <= count
        if enough or (count == most and len(chosen) == wanted.k):
            lists = f" in {probes} of {neighbours.lists} lists" if neighbours.lists else ""
            how = (
                f"approximate: of the {count:,} nearest by the FAISS index{lists}, ranked by stored features; on "
                f"held-out patches it finds {100 * probing.recall:.1f} % of the 10 nearest"
            )
            return Found(ids[chosen], cosines[chosen], distances[chosen], False, how)
        if count == most or (len(ids) < count and probes == neighbours.lists):
            return None
        probes = min(neighbours.lists, 2 * probes) if len(ids) < count else probes
        count = max(2 * count, depth * wanted.k + seen)


def _choose(grid: Grid, ids: NDArray[np.int64], wanted: Wanted) -> tuple[Sequence[int], int]:
    """Places of the first patches that the answer may hold together, and how many were looked at for that."""
    chosen: list[int] = []
    taken: dict[int, list[Box]] = {}
    own = None if wanted.own_image is None or wanted.own_box is None else (wanted.own_image, wanted.own_box)
    for place, patch_id in enumerate(ids.tolist()):
        image, row, col = locate(grid, patch_id)
        box = patch_box(grid, row, col)
        others = taken.setdefault(image, [])
        near = [own[1]] if own is not None and image == own[0] else []
        if box in near or (image == wanted.own_image and wanted.other_images):
            continue
        if wanted.per_image is not None and len(others) == wanted.per_image:
            continue
        if not wanted.overlap and any(shared_area(box, other) for other in (*near, *others)):
            continue
        others.append(box)
        chosen.append(place)
        if len(chosen) == wanted.k:
            return chosen, place + 1
    return chosen, len(ids)


def check(wanted_k: int, per_image: int | None) -> None:
    """Refuse numbers that are none.

    Raises:
        QueryError: one is out of its range.
    """
    if not 1 <= wanted_k <= 10_000 or (per_image is not None and per_image < 1):
        raise QueryError("-k goes from 1 to 10,000, and --per-image starts at 1")
