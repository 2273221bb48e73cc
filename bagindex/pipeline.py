"""One shard of an index: read -> models -> write. Whatever the engine, this is what makes one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from contextlib import ExitStack, closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from bagindex.batches import Batch, Inputs, ShardModel, batches
from bagindex.compute import Compute
from bagindex.decoding import Decoder
from bagindex.errors import SourceError
from bagindex.images import Rejected
from bagindex.plan import Work
from bagindex.precision import Choice, choose, shard_sample
from bagindex.profile import Profile
from bagindex.reading import reread, stored_pixels
from bagindex.shards import ImageRow, ImagesWriter, Writer, Written, hash_files
from bagindex.sources import Entry, Reader
from bagindex.stages import Stage, in_order
from bagindex.store import IMAGES, IndexDirectory
from bagindex.tables import table_writers
from bagindex.tasks import Task
from bagindex_schemas.records import (
    AskedPrecision,
    Environment,
    IndexManifest,
    ModelRecord,
    Plan,
    Precision,
    ShardManifest,
)


class Pipeline:
    """Computes shards of one index.

    Reading and decoding, the models, and writing run beside each other: decoders a few pictures ahead, a worker for
    each core or stream, and a thread for each file.

    Args:
        directory: the index; it is not locked here.
        reader: reads the images' files.
        computes: the models at work, by name, in float32.
        decoder: decodes pictures.
        profile: where the time goes, the decoder's too.
    """

    def __init__(
        self,
        directory: IndexDirectory,
        reader: Reader,
        computes: Mapping[str, Compute],
        decoder: Decoder,
        profile: Profile,
    ) -> None:
        self._directory = directory
        self._reader = reader
        self._computes = computes
        self._decoder = replace(decoder, profile=profile)
        self._profile = profile
        self._workers = max(compute.workers for compute in computes.values())
        self._open = ExitStack()
        self._pool: Executor = self._open.enter_context(next(iter(computes.values())).pool())
        self._in_precision: dict[tuple[str, Precision], Compute] = {}

    def __enter__(self) -> Self:
        """The pipeline itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Stop its threads."""
        self._open.close()

    def choose(
        self, name: str, asked: AskedPrecision, images: int, sample: Sequence[Entry], progress: Callable[[int], None]
    ) -> Choice:
        """The precision of a model for so many images; see `bagindex.engines.engine.Workers.choose`."""
        compute = self._computes[name]
        # What is compared is no part of the shards' stages.
        decoder = replace(self._decoder, profile=Profile())

        def inputs(_count: int) -> Iterator[NDArray[np.uint8]]:
            for _, picture in decoder.decode(self._reader, sample, compute.transform):
                if not isinstance(picture, Rejected):
                    yield picture.pixels

        return choose(compute, asked, images, inputs, self._pool, lambda done, _total: progress(done))

    def run(
        self,
        manifest: IndexManifest,
        task: Task,
        rejected: Callable[[Entry, Rejected], None],
        advanced: Callable[[int], None],
    ) -> int:
        """Compute what is missing of one shard into the task's folders: each picture is decoded once, whatever the
        models. They are complete then, and not committed.

        Args:
            manifest: `index.json`.
            task: the shard.
            rejected: hears of each file that is not indexed; may raise to stop.
            advanced: hears of each file that is dealt with.

        Returns:
            How many images were computed.

        Raises:
            PrecisionRefusedError: the shard's own images show that a precision gives other evidence than float32.
            BagindexError: the source, the index or the values are not what they should be.
        """
        plan, work = manifest.plan, task.work
        with ExitStack() as stack:
            models, outputs = self._models(manifest, task, stack)
            if work.images:
                folder = task.folders[IMAGES]
                images = stack.enter_context(closing(ImagesWriter(folder, plan.pixels)))
                stage = stack.enter_context(Stage(self._profile.clock("write images")))
                outputs.append((_Output(folder, [(stage, images)]), None))
                inputs = self._fresh_inputs(manifest, task, images, stage, rejected, advanced)
            else:
                inputs = self._committed_inputs(plan, task, advanced)
            count = self._feed(inputs, models)
            for model in models:
                model.check(work.shard)
            for output, _ in outputs:
                output.finish()
            if work.images:
                digest = images.images_sha256
                self._check_unchanged(manifest, work.shard, digest)
            else:
                digest = self._directory.shard_manifest(IMAGES, work.shard).images_sha256
            with self._profile.clock("commit").busy(work.span.count):
                for output, environment in outputs:
                    self._complete(plan, output, work, digest, environment)
            return count

    def _models(
        self, manifest: IndexManifest, task: Task, stack: ExitStack
    ) -> tuple[list[ShardModel], list[tuple[_Output, Environment | None]]]:
        """The models at work on a shard, and the files for what they give."""
        outputs: list[tuple[_Output, Environment | None]] = []
        models: dict[str, ShardModel] = {}
        work = task.work
        for name, series in work.series:
            record, classes = manifest.models[name], len(manifest.plan.classes)
            if name not in models:
                models[name] = self._model(record, work)
            folder = task.folders[series]
            writers = []
            for table, writer in table_writers(folder, record, classes, record.series[series], work.span.count):
                stack.enter_context(closing(writer))
                clock = self._profile.clock(f"write {name}/{table}")
                writers.append((stack.enter_context(Stage(clock)), writer))
            outputs.append((_Output(folder, writers), models[name].compute.environment))
            models[name].writers += writers
        return list(models.values()), outputs

    def _model(self, record: ModelRecord, work: Work) -> ShardModel:
        """A model in the precision of its shard's other series, which must agree, or else of new shards."""
        name = record.name
        precision, fresh = record.precision, True
        for series in record.series:
            if (name, series) not in work.series:
                environment = self._directory.shard_manifest(series, work.shard).environment
                precision, fresh = environment.precision if environment else precision, False
        clock = self._profile.clock(f"run {name}", self._workers)
        watched = fresh and precision != "fp32" and record.precision_asked == "auto"
        sample = shard_sample(work.span.first, work.span.count) if watched else ()
        return ShardModel(name, self._compute(name, precision), self._computes[name], clock, frozenset(sample))

    def _compute(self, name: str, precision: Precision) -> Compute:
        if (name, precision) not in self._in_precision:
            self._in_precision[name, precision] = self._computes[name].at(precision)
        return self._in_precision[name, precision]

    def _feed(self, inputs: Inputs, models: Sequence[ShardModel]) -> int:
        """Run all models on a shard's inputs, and have what they give written; how many inputs there were."""
        count = 0

        def counted() -> Inputs:
            nonlocal count
            for each in inputs:
                count += 1
                yield each

        for batch, evidence in in_order(self._pool, Batch.run, batches(counted(), models), 2 * self._workers):
            batch.model.take(batch, evidence)
        return count

    def _fresh_inputs(
        self,
        manifest: IndexManifest,
        task: Task,
        writer: ImagesWriter,
        stage: Stage,
        rejected: Callable[[Entry, Rejected], None],
        advanced: Callable[[int], None],
    ) -> Inputs:
        """Decode a shard's files: every one becomes an image, and goes on to the models, or a reject."""
        labels = manifest.labels
        decoded = self._decoder.decode(self._reader, task.entries, manifest.plan.transform)
        for image_id, (entry, picture) in enumerate(decoded, start=task.work.span.first):
            if isinstance(picture, Rejected):
                stage.put(partial(writer.reject, image_id, entry.path, entry.size or 0, picture), 1)
                rejected(entry, picture)
            else:
                label = None if entry.label is None else labels[entry.label]
                row = ImageRow(image_id, entry.path, label, picture.bytes, picture.sha256, picture.placement)
                stage.put(partial(writer.add, row, picture.pixels), 1)
                yield image_id, picture.pixels
            advanced(1)

    def _committed_inputs(self, plan: Plan, task: Task, advanced: Callable[[int], None]) -> Inputs:
        shard, transform = task.work.shard, plan.transform
        if plan.pixels:
            inputs = stored_pixels(self._directory, shard, transform)
        else:
            inputs = reread(self._directory, shard, task.entries, self._reader, transform, self._decoder)
        for image_id, pixels in inputs:
            yield image_id, pixels
            advanced(1)

    def _check_unchanged(self, manifest: IndexManifest, shard: int, images_sha256: str) -> None:
        """A lost images shard may be made again only from the same pictures as the models' shards were."""
        for series in manifest.series:
            if shard in self._directory.committed(series):
                known = self._directory.shard_manifest(series, shard).images_sha256
                if known != images_sha256:
                    raise SourceError("the source has changed since it was indexed: begin anew with --restart")

    def _complete(
        self, plan: Plan, output: _Output, work: Work, images_sha256: str, environment: Environment | None = None
    ) -> None:
        written = output.written
        manifest = ShardManifest(
            kind="images" if environment is None else "model",
            shard=work.shard,
            plan_sha256=plan.digest(),
            span=work.span,
            images_sha256=images_sha256,
            rows=dict(written.rows),
            files=dict(sorted({**hash_files(output.folder, without=written.files), **written.files}.items())),
            environment=environment,
            feature_offsets=written.feature_offsets,
        )
        self._directory.complete(output.folder, manifest)


class _Output:
    """The files of one folder in the making, each with the thread that writes it."""

    def __init__(self, folder: Path, writers: Sequence[tuple[Stage, Writer]]) -> None:
        self.folder = folder
        self.written = Written()
        self._writers = writers

    def finish(self) -> None:
        """Have all files finished, beside each other, and wait."""
        results: dict[int, Written] = {}
        for place, (stage, writer) in enumerate(self._writers):
            stage.put(partial(_finish, results, place, writer))
        for stage, _ in self._writers:
            stage.finish()
        # In the writers' order, not in that in which they were done: a shard's bytes are the same every time.
        for _, written in sorted(results.items()):
            self.written = self.written.merge(written)


def _finish(results: dict[int, Written], place: int, writer: Writer) -> None:
    results[place] = writer.finish()
