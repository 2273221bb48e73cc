"""The build: read, run the model, reduce, write; a shard at a time, each committed whole."""

from __future__ import annotations

import hashlib
import os
import re
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagindex import catalog, plan
from bagindex.compute import Compute
from bagindex.errors import SettingsError, SourceError, SpaceError, TooManyRejectsError
from bagindex.evidence import reduce
from bagindex.images import Rejected
from bagindex.observer import BuildObserver
from bagindex.reading import decode_ahead, reread, stored_pixels
from bagindex.shards import ImageRow, ImagesShardWriter, ModelShardWriter, hash_files
from bagindex.sources import Entry, Source, describe
from bagindex.store import IMAGES, IndexDirectory
from bagindex.text import bytes_text
from bagindex_schemas.records import Environment, IndexManifest, Keep, ModelRecord, Plan, ShardManifest


@dataclass(frozen=True)
class BuildSettings:
    """How to build. `max_rejects` None allows any number of files that cannot be indexed."""

    keep: Keep = Keep.FEATURES
    pixels: bool = True
    workers: int = field(default_factory=lambda: min(16, os.cpu_count() or 1))
    limit: int | None = None
    max_rejects: int | None = None
    restart: bool = False
    shard_size: int | None = None


@dataclass(frozen=True)
class BuildReport:
    """What a build did (`computed` images in `seconds`), and what the index holds now."""

    directory: Path
    model: str
    images: int
    rejects: Mapping[str, int]
    patches: int
    table_bytes: Mapping[str, int]
    computed: int
    seconds: float

    @property
    def images_per_second(self) -> float | None:
        """From the first file to the last committed shard; None when nothing was left to do."""
        return self.computed / self.seconds if self.computed else None


def build(
    directory: IndexDirectory,
    source: Source,
    class_ids: Mapping[str, int | None],
    compute: Compute,
    settings: BuildSettings,
    observer: BuildObserver | None = None,
) -> BuildReport:
    """Build an index, or go on with one; what is committed is not computed again.

    Args:
        directory: where.
        source: the images.
        class_ids: the class of each of the source's labels (None: unlabelled).
        compute: the model.
        settings: how.
        observer: hears of the progress.

    Raises:
        SettingsError: the folder holds an index of another source, transform, plan, keep level or model.
        SpaceError: the disk is too small.
        LockedError: another process is writing.
        TooManyRejectsError: more files than allowed cannot be indexed.
        EvidenceRangeError: the model gives values that cannot be stored.
    """
    observer = observer or BuildObserver()
    catalog.check_place(directory)
    if settings.limit is not None:
        source = _Part(source, settings.limit)
    wanted = _make_plan(source, class_ids, compute, settings)
    record, weights = _model_record(compute, settings)
    with directory.writing():
        fresh = settings.restart or not directory.exists()
        if not fresh:
            had = directory.manifest()
            _check_same(had, wanted, record)
            wanted = had.plan
        committed_images = set() if fresh else set(directory.committed(IMAGES))
        committed_model = set() if fresh else set(directory.committed(compute.name))
        owed = plan.owed(wanted, committed_images, committed_model)
        if owed:
            _check_space(directory, wanted, owed, record, settings.restart, observer)
        if fresh:
            directory.clear()
            directory.write_manifest(IndexManifest(plan=wanted, models={}))
        _register(directory, record, weights, observer)
        run = _Run(directory, wanted, source, compute, settings, observer)
        started = time.monotonic()
        for shard in owed:
            run.shard(shard, has_images=shard in committed_images, has_model=shard in committed_model)
        seconds = time.monotonic() - started
        catalog.update(directory)
    return _report(directory, compute.name, run.computed, seconds)


def _make_plan(source: Source, class_ids: Mapping[str, int | None], compute: Compute, settings: BuildSettings) -> Plan:
    files = len(source.entries)
    return Plan(
        source=describe(source),
        transform=compute.transform,
        classes=compute.classes,
        labels=dict(class_ids),
        pixels=settings.pixels,
        shards=plan.cut(files, settings.shard_size or plan.shard_size(files)),
    )


class _Part:
    """An evenly spread part of a source."""

    def __init__(self, source: Source, limit: int) -> None:
        self._source = source
        self.kind, self.name, self.location = source.kind, source.name, source.location
        self.entries: Sequence[Entry] = [source.entries[i] for i in plan.spread(len(source.entries), limit)]

    def read(self, entry: Entry) -> bytes:
        return self._source.read(entry)


class _Run:
    """One build at work."""

    def __init__(
        self,
        directory: IndexDirectory,
        wanted: Plan,
        source: Source,
        compute: Compute,
        settings: BuildSettings,
        observer: BuildObserver,
    ) -> None:
        self.computed = 0
        self._directory = directory
        self._plan = wanted
        self._digest = wanted.digest()
        self._source = source
        self._compute = compute
        self._settings = settings
        self._observer = observer
        self._rejects = sum(directory.shard_manifest(IMAGES, n).rows["rejects"] for n in directory.committed(IMAGES))

    def shard(self, shard: int, *, has_images: bool, has_model: bool) -> None:
        """Compute and commit what is missing of one shard."""
        with ExitStack() as stack:
            # The stack is left in reverse order: images are committed first, so that no model's shard lacks them.
            model = None
            if not has_model:
                folder = stack.enter_context(self._directory.new_shard(self._compute.name, shard))
                capacity = self._plan.shards[shard].count
                model = stack.enter_context(_ModelShard(folder, self._compute, self._settings.keep, capacity))
            if has_images:
                digest = self._directory.shard_manifest(IMAGES, shard).images_sha256
                self._feed(self._committed_inputs(shard), model)
            else:
                images_folder = stack.enter_context(self._directory.new_shard(IMAGES, shard))
                writer = stack.enter_context(ImagesShardWriter(images_folder, self._plan.pixels))
                self._feed(self._fresh_inputs(shard, writer), model)
                digest = self._finish_images(images_folder, shard, writer, has_model)
            if model is not None:
                rows, offsets = model.close()
                self._complete(folder, shard, digest, rows, self._compute.environment, offsets)

    def _finish_images(self, folder: Path, shard: int, writer: ImagesShardWriter, has_model: bool) -> str:
        rows = writer.close()
        if has_model:
            known = self._directory.shard_manifest(self._compute.name, shard).images_sha256
            if known != writer.images_sha256:
                raise SourceError("the source has changed since it was indexed: begin anew with --restart")
        self._complete(folder, shard, writer.images_sha256, rows)
        return writer.images_sha256

    def _feed(self, inputs: Iterator[tuple[int, NDArray[np.uint8]]], model: _ModelShard | None) -> None:
        for image_id, pixels in inputs:
            if model is not None:
                model.add(image_id, pixels)
            self.computed += 1

    def _fresh_inputs(self, shard: int, writer: ImagesShardWriter) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        """Decode a shard's files: every one becomes an image, and goes on to the model, or a reject."""
        span = self._plan.shards[shard]
        entries = self._source.entries[span.first : span.first + span.count]
        decoded = decode_ahead(self._source, entries, self._plan.transform, self._settings.workers)
        for image_id, (entry, picture) in enumerate(decoded, start=span.first):
            if isinstance(picture, Rejected):
                writer.reject(image_id, entry.path, picture)
                self._count_reject(entry, picture)
            else:
                label = None if entry.label is None else self._plan.labels[entry.label]
                row = ImageRow(image_id, entry.path, label, picture.sha256, picture.placement)
                writer.add(row, picture.pixels)
                yield image_id, picture.pixels
            self._observer.advanced(1)

    def _committed_inputs(self, shard: int) -> Iterator[tuple[int, NDArray[np.uint8]]]:
        transform = self._plan.transform
        if self._plan.pixels:
            inputs = stored_pixels(self._directory, shard, transform)
        else:
            inputs = reread(self._directory, shard, self._source, transform, self._settings.workers)
        for image_id, pixels in inputs:
            yield image_id, pixels
            self._observer.advanced(1)

    def _count_reject(self, entry: Entry, rejected: Rejected) -> None:
        self._rejects += 1
        most = self._settings.max_rejects
        if most is not None and self._rejects > most:
            raise TooManyRejectsError(
                f"{entry.text} cannot be indexed ({rejected.code}: {rejected.message}), and "
                f"{f'no more than {most} such files are' if most else 'no such file is'} allowed: mend or remove it, "
                "or build without --strict and --max-errors; what is committed stays"
            )

    def _complete(
        self,
        folder: Path,
        shard: int,
        images_sha256: str,
        rows: dict[str, int],
        environment: Environment | None = None,
        feature_offsets: tuple[int, ...] | None = None,
    ) -> None:
        manifest = ShardManifest(
            kind="images" if environment is None else "model",
            shard=shard,
            plan_sha256=self._digest,
            images_sha256=images_sha256,
            rows=rows,
            files=hash_files(folder),
            environment=environment,
            feature_offsets=feature_offsets,
        )
        self._directory.finish_shard(folder, manifest)


class _ModelShard:
    """Collects inputs into batches, which never cross a shard, and runs them."""

    def __init__(self, folder: Path, compute: Compute, keep: Keep, capacity: int) -> None:
        self._compute = compute
        self._writer = ModelShardWriter(
            folder, compute.grid, compute.feature_size, len(compute.classes), keep, capacity
        )
        self._ids: list[int] = []
        self._pixels: list[NDArray[np.uint8]] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._writer.__exit__()

    def add(self, image_id: int, pixels: NDArray[np.uint8]) -> None:
        self._ids.append(image_id)
        self._pixels.append(pixels)
        if len(self._ids) == self._compute.environment.batch_size:
            self._run()

    def close(self) -> tuple[dict[str, int], tuple[int, ...] | None]:
        if self._ids:
            self._run()
        return self._writer.close()

    def _run(self) -> None:
        output = self._compute.run(np.stack(self._pixels))
        self._writer.add(np.array(self._ids, dtype=np.int64), reduce(output))
        self._ids.clear()
        self._pixels.clear()


def _model_record(compute: Compute, settings: BuildSettings) -> tuple[ModelRecord, bytes]:
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]*", compute.name) or compute.name == IMAGES:
        raise SettingsError(f"a model cannot be called {compute.name!r}: use small letters, digits, - and _")
    weights = compute.to_safetensors()
    record = ModelRecord(
        name=compute.name,
        architecture=compute.architecture,
        width=compute.width,
        parameters=compute.parameters,
        feature_size=compute.feature_size,
        grid=compute.grid,
        keep=settings.keep,
        weights_sha256=compute.weights_sha256,
        file_sha256=hashlib.sha256(weights).hexdigest(),
        environment=compute.environment,
    )
    return record, weights


def _check_same(manifest: IndexManifest, wanted: Plan, record: ModelRecord) -> None:
    """Refuse to go on with an index that was begun with other settings, and name them all."""
    differences = plan.differences(manifest.plan, wanted)
    model = manifest.models.get(record.name)
    if model is not None:
        if model.weights_sha256 != record.weights_sha256:
            differences.append(f"{record.name} had other weights (SHA-256 {model.weights_sha256[:12]}…)")
        if model.keep != record.keep:
            differences.append(f"--keep {model.keep} then, {record.keep} now")
    if differences:
        raise SettingsError(
            f"this index was begun with other settings ({'; '.join(differences)}): give the same again, "
            "begin anew with --restart, or make a second index with --name"
        )


def _check_space(
    directory: IndexDirectory,
    wanted: Plan,
    owed: Sequence[int],
    model: ModelRecord,
    restart: bool,
    observer: BuildObserver,
) -> None:
    def needed(level: Keep) -> plan.Estimate:
        return plan.estimate(wanted, owed, model.model_copy(update={"keep": level}))

    keep = model.keep
    free = directory.free_bytes() + (directory.size() if restart else 0)
    observer.planned(needed(keep), free)
    if needed(keep).peak > free:
        fitting = [level for level in Keep if needed(level).peak <= free]
        advice = "".join(f", --keep {level} ({bytes_text(needed(level).peak)})" for level in fitting)
        raise SpaceError(
            f"this build writes {bytes_text(needed(keep).peak)} and {bytes_text(free)} are free at {directory.root}: "
            f"make room{advice and ', or take' + advice[1:]}, or give --out on another disk"
        )


def _register(directory: IndexDirectory, record: ModelRecord, weights: bytes, observer: BuildObserver) -> None:
    """Put a new model's weights and its entry in index.json; say so when a known model runs under other settings."""
    manifest = directory.manifest()
    known = manifest.models.get(record.name)
    if known is None:
        directory.write_file(f"{record.name}/model.safetensors", weights)
        directory.write_manifest(manifest.model_copy(update={"models": {**manifest.models, record.name: record}}))
    elif known.environment != record.environment:
        before, now = known.environment.model_dump(), record.environment.model_dump()
        changes = [f"{key} {before[key]} then, {now[key]} now" for key in before if before[key] != now[key]]
        observer.note(
            f"going on under other settings ({'; '.join(changes)}): new shards record theirs, "
            "and may differ in the last digits from what the first settings would have given"
        )


def _report(directory: IndexDirectory, model: str, computed: int, seconds: float) -> BuildReport:
    image_rows, image_bytes = directory.totals(IMAGES)
    model_rows, model_bytes = directory.totals(model)
    rejects: Counter[str] = Counter()
    if image_rows["rejects"]:
        for shard in directory.committed(IMAGES):
            codes = pq.read_table(directory.shard_path(IMAGES, shard) / "rejects.parquet", columns=["code"])
            rejects.update(codes["code"].to_pylist())
    return BuildReport(
        directory=directory.root,
        model=model,
        images=image_rows["images"],
        rejects=dict(rejects.most_common()),
        patches=model_rows["predictions"] * directory.manifest().models[model].grid.patches,
        table_bytes={**image_bytes, **model_bytes},
        computed=computed,
        seconds=seconds,
    )
