"""The build: read, run the model, reduce, write; a shard at a time, each committed whole."""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from bagindex import catalog, plan
from bagindex.computation import Computation
from bagindex.compute import Compute
from bagindex.decoding import Decoder, default_workers
from bagindex.engines.engine import Engine
from bagindex.engines.local import LocalEngine
from bagindex.errors import SettingsError
from bagindex.listing import known_files, seen_changes
from bagindex.observer import BuildObserver
from bagindex.profile import StageTime
from bagindex.sources import Entry, Reader, Source, bounds_reading, describe
from bagindex.space import check_space
from bagindex.store import IMAGES, WEIGHTS, IndexDirectory
from bagindex_schemas.records import MODEL_NAME, AskedPrecision, IndexManifest, Keep, ModelRecord, Plan


@dataclass(frozen=True)
class BuildSettings:
    """How to build.

    Attributes:
        keep: what is stored of each model.
        pixels: keep the models' inputs.
        workers: decoding threads; None: one per core, at most 16.
        limit: so many images only, evenly spread over the source.
        max_rejects: stop when more files cannot be indexed; None allows any number.
        restart: begin anew.
        decoder_timeout: seconds after which a picture that is still being decoded is rejected.
        shard_size: images of a shard; None: what suits the source.
        precision: `auto`, `fp32`, `tf32`, `bf16` or `fp16`; see `bagindex.precision`.

    Raises:
        SettingsError: a number is out of its range.
    """

    keep: Keep = Keep.FEATURES
    pixels: bool = True
    workers: int | None = None
    limit: int | None = None
    max_rejects: int | None = None
    restart: bool = False
    decoder_timeout: float = 60.0
    shard_size: int | None = None
    precision: AskedPrecision = "auto"

    def __post_init__(self) -> None:
        """Check the numbers."""
        for option, number in (("--limit", self.limit), ("--workers", self.workers)):
            if number is not None and number < 1:
                raise SettingsError(f"{option} starts at 1")
        if not self.decoder_timeout > 0:
            raise SettingsError("--decoder-timeout takes seconds, more than 0")

    @property
    def threads(self) -> int:
        """Decoding threads."""
        return self.workers or default_workers()

    @property
    def decoder(self) -> Decoder:
        """What decodes the pictures."""
        return Decoder(self.threads, self.decoder_timeout)


@dataclass(frozen=True)
class BuildReport:
    """What a build did (`computed` images in `seconds`, spent on `stages`), and what the index holds now.

    `patches` counts by model; `table_bytes` by model (or `images`) and table; `rejects` by code.
    """

    directory: Path
    images: int
    rejects: Mapping[str, int]
    patches: Mapping[str, int]
    table_bytes: Mapping[str, Mapping[str, int]]
    computed: int
    seconds: float
    stages: tuple[StageTime, ...]

    @property
    def limit(self) -> str:
        """The stage whose threads waited least."""
        return min(
            self.stages, key=lambda each: float("inf") if each.waiting is None else each.waiting / each.threads
        ).stage

    @property
    def images_per_second(self) -> float | None:
        """From the first file to the last committed shard; None when nothing was left to do."""
        return self.computed / self.seconds if self.computed else None


def build(
    directory: IndexDirectory,
    source: Source,
    class_ids: Mapping[str, int | None],
    computes: Compute | Sequence[Compute],
    settings: BuildSettings,
    observer: BuildObserver | None = None,
    engine: Engine | None = None,
) -> BuildReport:
    """Build an index, or go on with one; what is committed is not computed again.

    Another model than the index has is added, and a higher keep level filled in, from stored pixels where there are
    any.

    Args:
        directory: where.
        source: the images.
        class_ids: the class of each of the source's labels (None: unlabelled).
        computes: the model, or several with the same transform and classes, for which each picture is decoded once.
        settings: how.
        observer: hears of the progress.
        engine: where shards are computed; by default in this process.

    Raises:
        SettingsError: the folder holds an index of another source, transform, plan or weights, or a higher keep level.
        SpaceError, DiskError: the disk is too small, or fails.
        LockedError: another process is writing.
        TooManyRejectsError: more files than allowed cannot be indexed.
        EvidenceRangeError: a model gives values that cannot be stored.
        EngineError: the engine has no workers, or loses them.
    """
    observer = observer or BuildObserver()
    catalog.check_place(directory)
    directory.say_to(observer.note)
    models = by_name(computes if isinstance(computes, Sequence) else [computes])
    source, wanted = planned(source, class_ids, next(iter(models.values())), settings)
    with directory.writing():
        fresh = settings.restart or not directory.exists()
        had = None if fresh else directory.manifest()
        manifest = IndexManifest(plan=wanted, models={}) if had is None else _check_same(directory, had, wanted, source)
        weights: dict[str, bytes] = {}
        for name, compute in models.items():
            record, weights[name] = model_record(compute, settings)
            manifest = _with_model(manifest, record)
        # What lies in the folder of a model that index.json does not know is left from a removal that was cut off.
        work = plan.owed(manifest, list(models), {} if had is None else committed(directory, had))
        new = [name for name in weights if had is None or name not in had.models]
        taken = sum(len(weights[name]) for name in new)
        engine = engine or LocalEngine()
        with Computation(directory, source, models, settings, observer, work, engine) as computation:
            manifest = computation.with_environments(manifest, new)
            check_space(
                directory,
                manifest,
                work,
                source,
                settings.decoder,
                observer,
                taken,
                settings.restart,
                computation.at_a_time,
            )
            manifest = computation.with_precision(manifest, new)
            if fresh:
                directory.clear()
            for name in new:
                directory.remove_series(name)
            for name, data in weights.items():
                if not directory.inside(name, WEIGHTS).exists():  # new, or dropped by a repair
                    directory.write_file(f"{name}/{WEIGHTS}", data)
                    manifest = _with_file(manifest, name, data)
            weights.clear()  # large, and the build may be long
            if manifest != had:
                directory.write_manifest(manifest)
            computation.run(manifest)
        return finish(directory, computation, list(models))


def finish(directory: IndexDirectory, computation: Computation, models: Sequence[str]) -> BuildReport:
    """Bring the catalog up to date, and say what was done. The caller holds the lock."""
    seconds = computation.profile.seconds
    catalog.update(directory)
    return _report(directory, models, computation.computed, seconds, computation.profile.times(seconds))


def committed(directory: IndexDirectory, manifest: IndexManifest) -> dict[str, list[int]]:
    """The committed shards of each series."""
    return {series: directory.committed(series) for series in (IMAGES, *manifest.series)}


class _Part:
    """An evenly spread part of a source."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self.kind, self.name, self.location = source.kind, source.name, source.location
        self.bounded = bounds_reading(source)
        self.entries: Sequence[Entry] = [source.entries[i] for i in plan.spread(len(source.entries), limit)]

    def reader(self) -> Reader:
        return self._source.reader()

    def read(self, entry: Entry) -> bytes:
        return self._source.read(entry)


def by_name(computes: Sequence[Compute]) -> dict[str, Compute]:
    """The models by name.

    Raises:
        SettingsError: they cannot share an index.
    """
    models: dict[str, Compute] = {}
    for compute in computes:
        first = next(iter(models.values()), compute)
        if compute.name in models:
            raise SettingsError(f"{compute.name} is given twice: an index has one model of a name")
        if compute.transform != first.transform:
            raise SettingsError(
                f"{compute.name} takes another input ({plan.input_text(compute.transform)}) than {first.name} "
                f"({plan.input_text(first.transform)}): build an index for each, or give --image-size for both"
            )
        if compute.classes != first.classes:
            raise SettingsError(f"{compute.name} and {first.name} have other classes: build an index for each")
        models[compute.name] = compute
    return models


def planned(
    source: Source, class_ids: Mapping[str, int | None], model: Compute, settings: BuildSettings
) -> tuple[Source, Plan]:
    """What of a source is indexed, and the plan of its index.

    Args:
        source, class_ids, settings: as for `build`.
        model: any of the index's.
    """
    listed = len(source.entries)
    if settings.limit is not None:
        source = _Part(source, settings.limit)
    files = len(source.entries)
    return source, Plan(
        source=describe(source, listed),
        transform=model.transform,
        classes=model.classes,
        labels=dict(class_ids),
        pixels=settings.pixels,
        shards=plan.cut(files, settings.shard_size or plan.shard_size(files)),
    )


def model_record(compute: Compute, settings: BuildSettings) -> tuple[ModelRecord, bytes]:
    """A model's entry for index.json, and its weights as a file.

    Raises:
        SettingsError: a model cannot be called so.
    """
    if not re.fullmatch(MODEL_NAME, compute.name) or compute.name == IMAGES:
        raise SettingsError(f"a model cannot be called {compute.name!r}: use small letters, digits, - and _")
    weights = compute.to_safetensors()
    record = ModelRecord(
        name=compute.name,
        architecture=compute.architecture,
        width=compute.width,
        parameters=compute.parameters,
        feature_size=compute.feature_size,
        grid=compute.grid,
        levels=(settings.keep,),
        weights_sha256=compute.weights_sha256,
        file_bytes=len(weights),
        file_sha256=hashlib.sha256(weights).hexdigest(),
        environment=compute.environment,
        precision_asked=settings.precision,
        plugin=compute.plugin,
    )
    return record, weights


def _check_same(directory: IndexDirectory, had: IndexManifest, wanted: Plan, source: Source) -> IndexManifest:
    """The index's own manifest, if the build is still the one that was begun; all that differs is named."""
    if plan.differences(had, wanted):
        images = directory.committed(IMAGES)
        finished = len(images) == len(had.shards)
        part = any(each.files != each.listed for each in (had.source, wanted.source))
        seen = "" if part else seen_changes(known_files(directory, images), source, finished)
        raise SettingsError(_OTHER_SETTINGS.format("; ".join(plan.differences(had, wanted, seen, finished))))
    return had


def _with_file(manifest: IndexManifest, name: str, data: bytes) -> IndexManifest:
    """The manifest with a model's file as it was written just now; other versions of libraries lay it out otherwise."""
    found = {"file_bytes": len(data), "file_sha256": hashlib.sha256(data).hexdigest()}
    record = manifest.models[name].model_copy(update=found)
    return manifest.model_copy(update={"models": {**manifest.models, name: record}})


_OTHER_SETTINGS = (
    "this index was begun with other settings ({}): give the same again, begin anew with --restart, or make a second "
    "index with --name"
)


def _with_model(manifest: IndexManifest, record: ModelRecord) -> IndexManifest:
    """The manifest with a model added, or with its keep level raised."""
    known = manifest.models.get(record.name)
    if known is None:
        return manifest.model_copy(update={"models": {**manifest.models, record.name: record}})
    differences = []
    if known.weights_sha256 != record.weights_sha256:
        differences.append(f"{record.name} had other weights (SHA-256 {known.weights_sha256[:12]}…)")
    if not known.keep.tables <= record.keep.tables:
        differences.append(f"--keep {known.keep} then, which has all of {record.keep} that is asked now")
    if known.precision_asked != record.precision_asked:
        differences.append(f"--precision {known.precision_asked} then, {record.precision_asked} now")
    if differences:
        raise SettingsError(_OTHER_SETTINGS.format("; ".join(differences)))
    if record.keep != known.keep:
        known = known.model_copy(update={"levels": (*known.levels, record.keep)})
    return manifest.model_copy(update={"models": {**manifest.models, record.name: known}})


def _report(
    directory: IndexDirectory, models: Sequence[str], computed: int, seconds: float, stages: tuple[StageTime, ...]
) -> BuildReport:
    manifest = directory.manifest()
    image_rows, image_bytes = directory.totals(IMAGES)
    patches: dict[str, int] = {}
    table_bytes: dict[str, Mapping[str, int]] = {IMAGES: image_bytes}
    for name in models:
        record = manifest.models[name]
        rows, table_bytes[name] = directory.totals(*record.series)
        patches[name] = rows["predictions"] * record.grid.patches
    codes: Counter[str] = Counter()
    if image_rows["rejects"]:
        known = known_files(directory, directory.committed(IMAGES))
        codes.update(found.code.value for found in known.values() if found.code)
    return BuildReport(
        directory=directory.root,
        images=image_rows["images"],
        rejects=dict(codes.most_common()),
        patches=patches,
        table_bytes=table_bytes,
        computed=computed,
        seconds=seconds,
        stages=stages,
    )
