"""Which images make which shard, what a build still owes, and how many bytes it will write. Pure functions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from bagindex_schemas.records import IndexManifest, Plan, ShardRange, Transform

FULL_SHARD = 4096
"""Images of a full shard. A query pays for each row group of a class, so shards are large."""
NATIVE_ROWS = 100_000_000
"""A model's image_evidence of up to so many rows (about 9 bytes each) becomes a native table of the catalog."""
_SUMMARY_ROWS = 2**16
"""Rows of image_evidence that a row group has, about: where the catalog does not hold them, a question about one class
reads one of every shard. Of 12 shards of 4,096 images and 1,000 classes that took 35 ms; with one row group in each
shard 135, with one for each class 440.
"""
EXACT = 30_000
"""Up to so many patches, a FAISS index is not worth its bytes: all features are looked at in some 30 ms."""
_SMALL_SHARD = 64
_UPDATE = ": `bagindex update` adds new ones"
_RELABEL = " (`bagindex relabel` gives other labels)"


def shard_size(files: int) -> int:
    """Images of a shard of a source of `files` files: full ones for a large source, about eight for a small one."""
    if files >= 2 * FULL_SHARD:
        return FULL_SHARD
    eighth = -(-files // 8)
    return max(_SMALL_SHARD, -(-eighth // _SMALL_SHARD) * _SMALL_SHARD)


def cut(files: int, size: int) -> tuple[ShardRange, ...]:
    """Cut image_ids 0 … files - 1 into ranges of `size`, the last one shorter."""
    return tuple(ShardRange(first=first, count=min(size, files - first)) for first in range(0, files, size))


def spread(files: int, limit: int | None) -> Sequence[int]:
    """`limit` places out of `files`, evenly spread, so that a part of a sorted source still has all its classes."""
    if limit is None or limit >= files:
        return range(files)
    return [i * files // limit for i in range(limit)]


def differences(had: IndexManifest, wanted: Plan, seen: str = "", finished: bool = True) -> list[str]:
    """In what a plan differs from that of an index, in words; the source may have moved.

    `seen` is what is known of how the source's files differ; only a `finished` index can be updated.
    """
    seen = f" ({seen})" if seen else ""
    found = []
    source, plan = had.source, had.plan
    if source.files != wanted.source.files:
        found.append(f"{source.files} files then, {wanted.source.files} now{seen}{_UPDATE if finished else ''}")
    elif (source.kind, source.fingerprint) != (wanted.source.kind, wanted.source.fingerprint):
        found.append(f"the source's files, their sizes or labels have changed{seen or _RELABEL}")
    if plan.transform != wanted.transform:
        found.append(f"input {input_text(plan.transform)} then, {input_text(wanted.transform)} now")
    if plan.classes != wanted.classes:
        found.append("the model's class list")
    elif any(had.labels.get(label, class_id) != class_id for label, class_id in wanted.labels.items()):
        found.append("what the labels mean (--class-map)")
    if plan.pixels != wanted.pixels:
        found.append(f"--{'' if plan.pixels else 'no-'}pixels then")
    if not found and not had.growths and plan.shards != wanted.shards:
        found.append("the cut into shards")
    return found


def input_text(transform: Transform) -> str:
    """An input size in words."""
    return f"{transform.crop_width} x {transform.crop_height} of {transform.resize} pixels"


@dataclass(frozen=True)
class Work:
    """What one shard still owes: its images, and series of models."""

    shard: int
    span: ShardRange
    images: bool
    series: tuple[tuple[str, str], ...]
    """Pairs of a model's name and one of its series."""


def owed(manifest: IndexManifest, models: Sequence[str], committed: Mapping[str, Collection[int]]) -> list[Work]:
    """What is left to do for some models, shard by shard. `committed`: the shards that each series has."""
    work = []
    for shard, span in enumerate(manifest.shards):
        images = shard not in committed.get("images", ())
        series = tuple(
            (name, each)
            for name in models
            for each in manifest.models[name].series
            if shard not in committed.get(each, ())
        )
        if images or series:
            work.append(Work(shard, span, images, series))
    return work


@dataclass(frozen=True)
class Estimate:
    """What a build will write."""

    images: int
    patches: int
    tables: Mapping[str, int]
    scratch: int
    """Bytes of the scratch files of the shards that are computed at a time, or of the parts that a FAISS index is put
    together from, which are gone at the end.
    """

    @property
    def total(self) -> int:
        """Bytes of all tables."""
        return sum(self.tables.values())

    @property
    def peak(self) -> int:
        """Bytes that must be free."""
        return self.total + self.scratch


def estimate(
    manifest: IndexManifest, work: Sequence[Work], pixel_bytes: float, weights: int, at_a_time: int = 1
) -> Estimate:
    """Bytes that the work will write, weights, FAISS indexes and catalog included.

    The small tables' rates per row were measured.

    Args:
        manifest, work: what is to be done.
        pixel_bytes: what the pixels of one image take, compressed.
        weights: what the files of new models take.
        at_a_time: so many shards are computed at a time.
    """
    plan, classes = manifest.plan, len(manifest.plan.classes)
    tables: Counter[str] = Counter()
    described: Counter[str] = Counter()
    patches = scratch = 0
    for each in work:
        count, spilled = each.span.count, 0
        if each.images:
            tables["images"] += 50 * count + 6500
            if plan.pixels:
                tables["pixels"] += int(pixel_bytes * count)
        for name, series in each.series:
            model = manifest.models[name]
            stored = model.series[series]
            logits = count * model.grid.patches * classes
            if "predictions" in stored:
                tables["predictions"] += int((50 + 3.83 * classes) * count)
                tables["image_evidence"] += int((20 + 7.6 * classes) * count)
                patches += count * model.grid.patches
            if "evidence" in stored:
                tables["evidence"] += 2 * logits + 500 * classes
                spilled += 2 * logits
            if "features" in stored:
                tables["features"] += int(count * (600 + 2.0024 * model.grid.patches * model.feature_size))
                described[name] += count * model.grid.patches
        scratch = max(scratch, at_a_time * spilled)
    tables["weights"] = weights
    for name, count in described.items():
        similar = similar_bytes(count, manifest.models[name].feature_size)
        tables["similar"] += similar
        scratch = max(scratch, similar)
    # The catalog is written anew, with what is there already.
    files = sum(span.count for span in manifest.shards)
    native = 12 * classes if files * classes <= NATIVE_ROWS else 0
    tables["catalog"] = 1_500_000 + files * (60 + native * len(manifest.models))
    return Estimate(sum(each.span.count for each in work), patches, tables, scratch)


def summary_classes(images: int) -> int:
    """How many classes share a row group of image_evidence, in a shard of so many images."""
    return max(1, round(_SUMMARY_ROWS / max(1, images)))


def similar_bytes(patches: int, dimensions: int) -> int:
    """Bytes of the FAISS index that `auto` makes: a code and an id for each patch, and the middles of the lists."""
    if patches <= EXACT:
        return 0
    return int(patches * (dimensions / 8 + 16) + 4 * dimensions * (patches / 2) ** 0.5)
