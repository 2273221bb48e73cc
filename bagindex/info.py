"""What there is to say about an index without asking it anything."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bagindex.errors import DamagedIndexError
from bagindex.store import IMAGES, IndexDirectory
from bagindex_schemas.records import Environment, Grid, Transform


@dataclass(frozen=True)
class ModelInfo:
    """A model of an index. `shards` of the plan's are committed; `table_bytes` counts those."""

    name: str
    architecture: str
    width: float
    parameters: int
    feature_size: int
    grid: Grid
    keep: str
    precision: str
    weights_sha256: str
    environment: Environment
    shards: int
    patches: int
    table_bytes: dict[str, int]


@dataclass(frozen=True)
class IndexInfo:
    """An index: where it came from, how far its build is, and how large it is."""

    name: str
    path: Path
    source: str
    complete: bool
    shards: int
    images: int
    rejects: int
    classes: int
    transform: Transform
    pixels: bool
    table_bytes: dict[str, int]
    models: tuple[ModelInfo, ...]
    bytes: int

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        models = []
        for model in self.models:
            fields = {**asdict(model), "grid": model.grid.model_dump(), "environment": model.environment.model_dump()}
            models.append(fields)
        return {**asdict(self), "path": str(self.path), "transform": self.transform.model_dump(), "models": models}


@dataclass(frozen=True)
class IndexSummary:
    """An index in a line; `state` is `complete`, `not finished` or `damaged`."""

    name: str
    models: tuple[str, ...]
    images: int
    keeps: tuple[str, ...]
    bytes: int
    state: str
    path: Path


def summarise_index(directory: IndexDirectory) -> IndexSummary:
    """Look at an index that may be in any state."""
    name, path = directory.root.name, directory.root
    try:
        found = describe_index(directory)
    except DamagedIndexError:
        return IndexSummary(name, (), 0, (), directory.size(), "damaged", path)
    return IndexSummary(
        name=name,
        models=tuple(model.name for model in found.models),
        images=found.images,
        keeps=tuple(sorted({model.keep for model in found.models})),
        bytes=found.bytes,
        state="complete" if found.complete else "not finished",
        path=path,
    )


def describe_index(directory: IndexDirectory) -> IndexInfo:
    """Look at an index, finished or not.

    Raises:
        DamagedIndexError: its records cannot be read.
    """
    manifest = directory.manifest()
    images, image_bytes = _totals(directory, IMAGES)
    models = []
    for record in manifest.models.values():
        rows, table_bytes = _totals(directory, record.name)
        models.append(
            ModelInfo(
                name=record.name,
                architecture=record.architecture,
                width=record.width,
                parameters=record.parameters,
                feature_size=record.feature_size,
                grid=record.grid,
                keep=record.keep.value,
                precision=record.precision,
                weights_sha256=record.weights_sha256,
                environment=record.environment,
                shards=len(directory.committed(record.name)),
                patches=rows["predictions"] * record.grid.patches,
                table_bytes=table_bytes,
            )
        )
    shards = len(manifest.plan.shards)
    return IndexInfo(
        name=directory.root.name,
        path=directory.root,
        source=manifest.plan.source.name,
        complete=bool(models) and all(model.shards == shards for model in models),
        shards=shards,
        images=images["images"],
        rejects=images["rejects"],
        classes=len(manifest.plan.classes),
        transform=manifest.plan.transform,
        pixels=manifest.plan.pixels,
        table_bytes=image_bytes,
        models=tuple(models),
        bytes=directory.size(),
    )


def _totals(directory: IndexDirectory, kind: str) -> tuple[Counter[str], dict[str, int]]:
    rows: Counter[str] = Counter()
    table_bytes: Counter[str] = Counter()
    for shard in directory.committed(kind):
        manifest = directory.shard_manifest(kind, shard)
        rows.update(manifest.rows)
        table_bytes.update({name.removesuffix(".parquet"): file.bytes for name, file in manifest.files.items()})
    return rows, dict(table_bytes)
