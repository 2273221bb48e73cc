"""Which images make which shard, what a build still owes, and how many bytes it will write. Pure functions."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from bagindex_schemas.records import ModelRecord, Plan, ShardRange, Transform

FULL_SHARD = 4096
"""Images of a full shard. A query pays for each row group of a class, so shards are large."""
_SMALL_SHARD = 64


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


def owed(plan: Plan, images: Collection[int], model: Collection[int]) -> list[int]:
    """Shards that are not committed for both the images and the model."""
    return [shard for shard in range(len(plan.shards)) if shard not in images or shard not in model]


def differences(had: Plan, wanted: Plan) -> list[str]:
    """In what a plan differs from that of an index, in words; the source may have moved."""
    found = []
    if had.source.files != wanted.source.files:
        found.append(f"{had.source.files} files then, {wanted.source.files} now (source or --limit)")
    elif (had.source.kind, had.source.fingerprint) != (wanted.source.kind, wanted.source.fingerprint):
        found.append("the source's files, their sizes or labels have changed")
    if had.transform != wanted.transform:
        found.append(f"input {_input_text(had.transform)} then, {_input_text(wanted.transform)} now")
    if had.classes != wanted.classes:
        found.append("the model's class list")
    if had.labels != wanted.labels:
        found.append("what the labels mean (--class-map)")
    if had.pixels != wanted.pixels:
        found.append(f"--{'' if had.pixels else 'no-'}pixels then")
    if not found and had.shards != wanted.shards:
        found.append("the cut into shards")
    return found


def _input_text(transform: Transform) -> str:
    return f"{transform.crop_width} x {transform.crop_height} of {transform.resize} pixels"


@dataclass(frozen=True)
class Estimate:
    """What a build will write. `peak` adds the largest shard's scratch file, which is gone at the end."""

    images: int
    patches: int
    tables: dict[str, int]
    scratch: int

    @property
    def total(self) -> int:
        """Bytes of all tables."""
        return sum(self.tables.values())

    @property
    def peak(self) -> int:
        """Bytes that must be free."""
        return self.total + self.scratch


def estimate(plan: Plan, shards: Sequence[int], model: ModelRecord) -> Estimate:
    """Bytes of the given shards, the weights and the catalog; the small tables' rates per row were measured."""
    grid, keep = model.grid, model.keep
    ranges = [plan.shards[shard] for shard in shards]
    images = sum(each.count for each in ranges)
    classes = len(plan.classes)
    patches = images * grid.patches
    tables = {"images": 200 * images, "predictions": (40 + 4 * classes) * images}
    if plan.pixels:
        # Photographs under zstd: between half and nearly all of the raw bytes.
        tables["pixels"] = int(0.75 * 3 * plan.transform.crop_height * plan.transform.crop_width) * images
    tables["image_evidence"] = 11 * images * classes
    if keep.has_evidence:
        tables["evidence"] = 2 * patches * classes + 900 * classes * len(ranges)
    if keep.has_features:
        tables["features"] = 2 * patches * model.feature_size + 3500 * images
    tables["weights"] = 4 * model.parameters
    tables["catalog"] = 1_500_000 + 10 * images * classes
    scratch = max((each.count for each in ranges), default=0) * grid.patches * classes * 2 if keep.has_evidence else 0
    return Estimate(images, patches, tables, scratch)
