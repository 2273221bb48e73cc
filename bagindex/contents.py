"""What the files of an index say beside the models' numbers: images, rejects, pixels, and what is derived. That their
hashes are right does not make it sensible, if somebody wrote both.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from bagindex import derived
from bagindex.arrays import array_offsets, open_checked, to_float32
from bagindex.catalog import Catalog
from bagindex.errors import NotKeptError, QueryError
from bagindex.geometry import patch_ids
from bagindex.invariants import Outcome, check_evidence_order
from bagindex.merged import MergedEvidence, own_files, read
from bagindex.patch_maps.stored import open_map
from bagindex.reading import stored_pixels
from bagindex.shards import images_digest
from bagindex.similarity.ann import kind_of, open_neighbours
from bagindex.store import EVIDENCE, IMAGES, IndexDirectory
from bagindex.stored import StoredFeatures
from bagindex.words.vocabulary import open_vocabulary
from bagindex_schemas import tables
from bagindex_schemas.derived import Metric
from bagindex_schemas.records import IndexManifest, ModelRecord
from bagindex_schemas.rejects import RejectCode

_PLACES = ("width", "height", "resized_width", "resized_height")
_METRICS: tuple[Metric, ...] = ("cosine", "l2")
_NEAR = 10
"""Patches that a FAISS index is asked for."""


def check_rows(directory: IndexDirectory, series: str, shard: int) -> Outcome:
    """The tables of a shard have as many rows as its record says."""
    manifest = directory.shard_manifest(series, shard)
    where = f"{series}/{directory.shard_path(series, shard).name}"
    problems = []
    for name in own_files(directory, series, shard):
        found = pq.read_metadata(directory.readable(directory.shard_path(series, shard) / name)).num_rows
        if manifest.rows.get(name.removesuffix(".parquet")) != found:
            problems.append(f"{where}/{name} has {found} rows, which is not what its record says")
    return 0, problems


def check_images(directory: IndexDirectory, manifest: IndexManifest, shard: int, series: str) -> Outcome:
    """5: the images and rejects of a shard are the files of the plan, and a series was computed from these images."""
    folder, span = directory.shard_path(IMAGES, shard), manifest.shards[shard]
    images = _read(directory.whole(folder / "images.parquet"), tables.IMAGES)
    rejects = _read(directory.whole(folder / "rejects.parquet"), tables.REJECTS)
    ids, hashes = images["image_id"].to_pylist(), images["sha256"].to_pylist()
    problems = []
    if series == IMAGES:
        if sorted(ids + rejects["image_id"].to_pylist()) != list(range(span.first, span.first + span.count)):
            problems.append(f"images/{folder.name}: images and rejects are not the files of the plan")
        labels = pc.min_max(images["label"]).as_py()
        if labels["min"] is not None and not 0 <= labels["min"] <= labels["max"] < len(manifest.plan.classes):
            problems.append(f"images/{folder.name}: a label is no class")
        if len(images) and min(pc.min(images[name]).as_py() for name in _PLACES) < 1:
            problems.append(f"images/{folder.name}: an image has no size")
        if not set(rejects["code"].to_pylist()) <= set(RejectCode):
            problems.append(f"images/{folder.name}: a file was rejected for a reason that there is not")
        if manifest.plan.pixels and not problems:
            problems += _check_pixels(directory, manifest, shard, ids)
    digest = images_digest(list(zip(ids, hashes, strict=True)))
    if directory.shard_manifest(series, shard).images_sha256 != digest:
        problems.append(f"{series}/{folder.name} was computed from other images")
    return span.count if series == IMAGES else 0, problems


def check_merged(directory: IndexDirectory, manifest: IndexManifest, record: ModelRecord, name: str) -> Outcome:
    """What shards share of evidence has a row group for each class, with the patches of each shard, in order."""
    series, size = record.series_of("evidence"), record.grid.patches
    where, path = f"{series}/{name}", directory.whole(directory.inside(series, name) / EVIDENCE)
    found, classes = read(directory, path.parent), len(manifest.plan.classes)
    live = MergedEvidence(directory, series).live(name)
    if array_offsets(path, 2, 2, tables.EVIDENCE) != found.offsets or found.plan_sha256 != manifest.plan.digest():
        return 0, [f"{where} is not what its record says"]
    with pq.ParquetFile(path) as file:
        patches = file.read_row_group(0, columns=["patch_id"])["patch_id"].to_numpy()
    check_evidence_order(path, where, patches, classes)
    place, problems = 0, []
    for each in found.shards:
        ids, span = patches[place : place + each.rows], manifest.shards[each.shard]
        place += each.rows
        if ((ids < span.first * size) | (ids >= (span.first + span.count) * size)).any():
            problems.append(f"{where} has patches of other shards than its record says")
        if each.shard in live:
            folder = directory.shard_path(record.series_of("predictions"), each.shard)
            images = pq.read_table(directory.whole(folder / "predictions.parquet"), columns=["image_id"])
            if not np.array_equal(ids, patch_ids(record.grid, images["image_id"].to_numpy())):
                problems.append(f"{where} has not the patches of shard {each.shard}, each once, in order")
    return place * classes, problems if place == len(patches) else [f"{where} has other rows than its record says"]


def _check_pixels(directory: IndexDirectory, manifest: IndexManifest, shard: int, ids: list[int]) -> list[str]:
    """Each image has its pixels, of the right size."""
    found = [image_id for image_id, _ in stored_pixels(directory, shard, manifest.plan.transform)]
    name = directory.shard_path(IMAGES, shard).name
    return [] if found == ids else [f"images/{name}: the pixels are not those of the images"]


def check_derived(catalog: Catalog, record: ModelRecord, kind: str) -> Outcome:
    """What is derived for a model can be read, and speaks of patches that there are."""
    if "features" not in record.keep.tables:
        return 0, []
    features = StoredFeatures(catalog.directory, catalog, record)
    if kind == derived.WORDS:
        if record.name in catalog.words:
            open_vocabulary(catalog, features, len(catalog.manifest.plan.classes))
        return 0, []
    if kind in (derived.MAP, derived.WORD_MAP):
        with suppress(NotKeptError):  # there is none, or it is of another state
            open_map(catalog, features, kind)
        return 0, []
    (metric,) = (each for each in _METRICS if kind_of(each) == kind)
    found = open_neighbours(catalog.directory, record, metric)
    current = derived.features_digest(catalog.directory, record, catalog.shards)
    if found is None or found[0] is None or found[1].features_sha256 != current or not features.count:
        return 0, []
    near = found[0].search(to_float32(np.array(features.of_image(0)[0])), _NEAR, found[0].lists)
    try:
        features.of_patches(near)
    except QueryError:
        return 0, [
            f"{record.name}: {kind} finds patches that there are not: make it again with `{derived.REMAKE[kind]}`"
        ]
    return 0, []


def _read(path: Path, schema: pa.Schema) -> pa.Table:
    with open_checked(path, schema) as file:
        return file.read()
