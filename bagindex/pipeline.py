"""One shard of an index: read -> models -> reduce -> write, committed whole."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagindex.compute import Compute
from bagindex.decoding import Decoder
from bagindex.errors import SourceError
from bagindex.evidence import reduce
from bagindex.images import Rejected
from bagindex.listing import Listing
from bagindex.plan import Work
from bagindex.reading import reread, stored_pixels
from bagindex.shards import ImageRow, ImagesShardWriter, ModelShardWriter, hash_files
from bagindex.sources import Entry, Source
from bagindex.store import IMAGES, IndexDirectory
from bagindex_schemas.records import Environment, IndexManifest, ShardManifest

Inputs = Iterator[tuple[int, NDArray[np.uint8]]]


class Pipeline:
    """Computes and commits shards of one index.

    Args:
        directory: the index; the caller holds its lock.
        manifest: its `index.json`, as it is on disk.
        source: the images.
        computes: the models at work, by name.
        decoder: decodes pictures.
        rejected: hears of each file that is not indexed; may raise to stop the build.
        advanced: hears of each file that is dealt with.
    """

    def __init__(
        self,
        directory: IndexDirectory,
        manifest: IndexManifest,
        source: Source,
        computes: Mapping[str, Compute],
        decoder: Decoder,
        rejected: Callable[[Entry, Rejected], None],
        advanced: Callable[[int], None],
    ) -> None:
        self.computed = 0
        self._directory = directory
        self._manifest = manifest
        self._plan = manifest.plan
        self._plan_digest = manifest.plan.digest()
        self._labels = manifest.labels
        self._source = source
        self._listing = Listing(directory, manifest, source)
        self._computes = computes
        self._decoder = decoder
        self._rejected = rejected
        self._advanced = advanced

    def run(self, work: Work) -> None:
        """Compute and commit what is missing of one shard: each picture is decoded once, whatever the models."""
        with ExitStack() as stack:
            # The stack is left in reverse order: images are committed first, so that no model's shard lacks them.
            models = []
            by_name: dict[str, list[tuple[Path, ModelShardWriter]]] = {}
            for name, series in work.series:
                folder = stack.enter_context(self._directory.new_shard(series, work.shard))
                record, classes = self._manifest.models[name], len(self._plan.classes)
                writer = ModelShardWriter(folder, record, classes, record.series[series], work.span.count)
                by_name.setdefault(name, []).append((folder, stack.enter_context(writer)))
            for name, writers in by_name.items():
                models.append(_Batches(self._computes[name], [writer for _, writer in writers]))
            if work.images:
                folder = stack.enter_context(self._directory.new_shard(IMAGES, work.shard))
                images = stack.enter_context(ImagesShardWriter(folder, self._plan.pixels))
                self._feed(self._fresh_inputs(work, images), models)
                rows, digest = images.close(), images.images_sha256
                self._check_unchanged(work.shard, digest)
                self._complete(folder, work, digest, rows)
            else:
                digest = self._directory.shard_manifest(IMAGES, work.shard).images_sha256
                self._feed(self._committed_inputs(work.shard), models)
            for name, writers in by_name.items():
                for folder, writer in writers:
                    rows, offsets = writer.close()
                    self._complete(folder, work, digest, rows, self._computes[name].environment, offsets)

    def _feed(self, inputs: Inputs, models: list[_Batches]) -> None:
        for image_id, pixels in inputs:
            for model in models:
                model.add(image_id, pixels)
            self.computed += 1
        for model in models:
            model.flush()

    def _fresh_inputs(self, work: Work, writer: ImagesShardWriter) -> Inputs:
        """Decode a shard's files: every one becomes an image, and goes on to the models, or a reject."""
        entries = self._listing.entries(work.shard)
        decoded = self._decoder.decode(self._source, entries, self._plan.transform)
        for image_id, (entry, picture) in enumerate(decoded, start=work.span.first):
            if isinstance(picture, Rejected):
                writer.reject(image_id, entry.path, entry.size, picture)
                self._rejected(entry, picture)
            else:
                label = None if entry.label is None else self._labels[entry.label]
                row = ImageRow(image_id, entry.path, label, picture.bytes, picture.sha256, picture.placement)
                writer.add(row, picture.pixels)
                yield image_id, picture.pixels
            self._advanced(1)

    def _committed_inputs(self, shard: int) -> Inputs:
        transform = self._plan.transform
        if self._plan.pixels:
            inputs = stored_pixels(self._directory, shard, transform)
        else:
            inputs = reread(self._directory, shard, self._listing, self._source, transform, self._decoder)
        for image_id, pixels in inputs:
            yield image_id, pixels
            self._advanced(1)

    def _check_unchanged(self, shard: int, images_sha256: str) -> None:
        """A lost images shard may be made again only from the same pictures as the models' shards were."""
        for series in self._manifest.series:
            if shard in self._directory.committed(series):
                known = self._directory.shard_manifest(series, shard).images_sha256
                if known != images_sha256:
                    raise SourceError("the source has changed since it was indexed: begin anew with --restart")

    def _complete(
        self,
        folder: Path,
        work: Work,
        images_sha256: str,
        rows: dict[str, int],
        environment: Environment | None = None,
        feature_offsets: tuple[int, ...] | None = None,
    ) -> None:
        manifest = ShardManifest(
            kind="images" if environment is None else "model",
            shard=work.shard,
            plan_sha256=self._plan_digest,
            span=work.span,
            images_sha256=images_sha256,
            rows=rows,
            files=hash_files(folder),
            environment=environment,
            feature_offsets=feature_offsets,
        )
        self._directory.finish_shard(folder, manifest)


class _Batches:
    """Collects inputs into a model's batches, which never cross a shard, and runs them."""

    def __init__(self, compute: Compute, writers: list[ModelShardWriter]) -> None:
        self._compute = compute
        self._writers = writers
        self._ids: list[int] = []
        self._pixels: list[NDArray[np.uint8]] = []

    def add(self, image_id: int, pixels: NDArray[np.uint8]) -> None:
        self._ids.append(image_id)
        self._pixels.append(pixels)
        if len(self._ids) == self._compute.environment.batch_size:
            self.flush()

    def flush(self) -> None:
        if not self._ids:
            return
        evidence = reduce(self._compute.run(np.stack(self._pixels)))
        ids = np.array(self._ids, dtype=np.int64)
        for writer in self._writers:
            writer.add(ids, evidence)
        self._ids.clear()
        self._pixels.clear()
