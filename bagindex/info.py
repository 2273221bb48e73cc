"""What there is to say about an index without asking it anything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from bagindex import derived, output
from bagindex.errors import DamagedIndexError
from bagindex.standing import Standing
from bagindex.store import IMAGES, IndexDirectory
from bagindex.text import bytes_text, offset_text
from bagindex_schemas.derived import DerivedRecord
from bagindex_schemas.records import Grid, ModelRecord, Transform


@dataclass(frozen=True)
class Derived:
    """What was made from a model's features; `stale`: these were others than there are now."""

    kind: str
    record: DerivedRecord
    stale: bool

    def __str__(self) -> str:
        """For people."""
        return f"{self.record}; of an older state: make it again" if self.stale else str(self.record)

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {
            "kind": self.kind,
            "bytes": self.record.bytes,
            "stale": self.stale,
            **self.record.model_dump(mode="json"),
        }


@dataclass(frozen=True)
class ModelInfo:
    """A model of an index. `shards` of the plan's are committed; the rest counts those, `precisions` the shards."""

    record: ModelRecord
    shards: int
    precisions: dict[str, int]
    patches: int
    table_bytes: dict[str, int]
    derived: tuple[Derived, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class IndexInfo:
    """An index: where it came from, how far its build is, and how large it is."""

    name: str
    path: str
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
            counts = {
                "shards": model.shards,
                "precisions": model.precisions,
                "patches": model.patches,
                "table_bytes": model.table_bytes,
                "derived": [each.to_dict() for each in model.derived],
                "problems": list(model.problems),
            }
            models.append({**model.record.model_dump(mode="json"), "keep": model.record.keep.value, **counts})
        return {**vars(self), "transform": self.transform.model_dump(), "models": models}


@dataclass(frozen=True)
class IndexSummary:
    """An index in a line; `state` is `complete`, `not finished` or `damaged`."""

    name: str
    models: tuple[str, ...]
    images: int
    keeps: tuple[str, ...]
    bytes: int
    state: str
    path: str


def summarise_index(directory: IndexDirectory) -> IndexSummary:
    """Look at an index that may be in any state."""
    name, path = directory.name, directory.place
    try:
        found = describe_index(directory)
    except DamagedIndexError:
        return IndexSummary(name, (), 0, (), directory.size(), "damaged", path)
    return IndexSummary(
        name=name,
        models=tuple(model.record.name for model in found.models),
        images=found.images,
        keeps=tuple(sorted({model.record.keep.value for model in found.models})),
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
    whole = Standing.of(directory, manifest).shards
    images, image_bytes = directory.totals(IMAGES)
    models = []
    for record in manifest.models.values():
        rows, table_bytes = directory.totals(*record.series)
        patches = rows["predictions"] * record.grid.patches
        committed = min(len(directory.committed(series)) for series in record.series)
        records = [directory.shard_manifest(record.name, shard) for shard in directory.committed(record.name)]
        precisions = Counter(str(shard.environment.precision) for shard in records if shard.environment is not None)
        made, problems = _derived(directory, record, whole)
        models.append(ModelInfo(record, committed, dict(precisions), patches, table_bytes, made, problems))
    planned = len(manifest.shards)
    shards = [len(directory.committed(IMAGES)), *(model.shards for model in models)]
    return IndexInfo(
        name=directory.name,
        path=directory.place,
        source=manifest.source.name,
        complete=bool(models) and all(count == planned for count in shards),
        shards=planned,
        images=images["images"],
        rejects=images["rejects"],
        classes=len(manifest.plan.classes),
        transform=manifest.plan.transform,
        pixels=manifest.plan.pixels,
        table_bytes=image_bytes,
        models=tuple(models),
        bytes=directory.size(),
    )


def _derived(
    directory: IndexDirectory, record: ModelRecord, shards: Iterable[int]
) -> tuple[tuple[Derived, ...], tuple[str, ...]]:
    """What is derived for a model, and what of it is damaged."""
    found, problems = [], []
    for kind, type_ in derived.RECORDS.items():
        try:
            made = derived.open_newest(directory, record.name, kind, type_)
        except DamagedIndexError as error:
            problems.append(str(error))
            continue
        if made is not None:
            committed = directory.committed(record.series_of("features"))
            shards = [shard for shard in shards if shard in committed]
            stale = made[1].features_sha256 != derived.features_digest(directory, record, shards)
            found.append(Derived(kind, made[1], stale))
    return tuple(found), tuple(problems)


def info_html(info: IndexInfo) -> str:
    """An index as a notebook shows it: a line about its images, a row for each model."""
    rejects = f", {info.rejects:,} files rejected" if info.rejects else ""
    pixels = "with" if info.pixels else "without"
    about = (
        f"{info.images:,} images of {info.source}{rejects} · {info.classes:,} classes · {pixels} pixels · "
        f"{bytes_text(info.bytes)} · {'complete' if info.complete else 'not finished: run the same build again'}"
    )
    rows = [
        {
            "model": model.record.name,
            "patches": f"{model.patches:,}",
            "grid": _grid_text(model.record.grid),
            "keeps": str(model.record.keep.value),
            "precision": ", ".join(model.precisions) or model.record.precision,
            "shards": f"{model.shards} of {info.shards}",
            "size": bytes_text(sum(model.table_bytes.values())),
        }
        for model in info.models
    ]
    return output.to_html(list(rows[0]) if rows else [], rows, info.name, about)


def _grid_text(grid: Grid) -> str:
    side = grid.receptive_field
    return f"{grid.rows} × {grid.cols}, {side} × {side} pixels, {grid.stride} apart{offset_text(grid.offset)}"
