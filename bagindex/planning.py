"""`bagindex plan`: what an index would cost, from the user's own files and device, before anything is made."""

from __future__ import annotations

import hashlib
import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex import plan
from bagindex.build import BuildSettings, by_name, model_record, planned
from bagindex.compute import Compute
from bagindex.costs import Cost, Means, cost
from bagindex.errors import SourceError
from bagindex.images import Rejected
from bagindex.observer import BuildObserver
from bagindex.plan import Estimate
from bagindex.sources import Source
from bagindex.space import SAMPLED, mean_pixel_bytes
from bagindex.stages import in_order
from bagindex.store import IndexDirectory
from bagindex_schemas.records import IndexManifest, Keep, Precision, Transform

_BLOCK, _BLOCKS = 4_000_000, 16
"""Bytes that are written to see how fast the disk is."""


@dataclass(frozen=True)
class Speed:
    """Images per second of a model alone, on the whole device, in a precision."""

    model: str
    device: str
    precision: Precision
    images_per_second: float


@dataclass(frozen=True)
class Planned:
    """What an index would cost.

    Attributes:
        means: what there is to make it with, and what that costs.
        directory: where it would be, and `free` the bytes that the disk has there, or that of a remote index's mirror.
        images: files to be indexed.
        shards: so many.
        pixel_bytes: what the pixels of one of them take, compressed, as was found on some.
        costs: of each model, at each keep level.
        speeds: of each model, in float32 and in what may be faster.
        decoding: images per second that are read and decoded.
        writing: bytes per second that a thread hashes and writes there; None where nothing may be written yet.
    """

    means: Means
    directory: IndexDirectory
    free: int
    images: int
    shards: int
    pixel_bytes: float
    costs: tuple[Cost, ...]
    speeds: tuple[Speed, ...]
    decoding: float
    writing: float | None

    def hours(self, cost: Cost, speed: Speed) -> float:
        """What the slowest takes of what is done beside each other, on each device: the model, decoding, writing."""
        writing = float("inf") if self.writing is None else cost.writing(self.writing)
        return cost.hours(self.means.devices * min(speed.images_per_second, self.decoding, writing))

    def to_dicts(self) -> list[dict[str, Any]]:
        """A row for each model and keep level: bytes, hours, and where it is known, money."""
        return [self._row(each) for each in self.costs]

    def to_dict(self) -> dict[str, Any]:
        """All of it, in values that JSON knows."""
        found: dict[str, Any] = {"images": self.images, "shards": self.shards, "free": self.free}
        found |= {"pixel_bytes": self.pixel_bytes, "decoding": self.decoding, "writing": self.writing}
        speeds = [vars(each) for each in self.speeds]
        return found | {"costs": self.to_dicts(), "speeds": speeds, "questions": self.questions()}

    def questions(self) -> list[dict[str, Any]]:
        """What questions to the index would read if it were remote: a row for each model and kind, at its most."""
        rows = []
        for model in dict.fromkeys(each.model for each in self.costs):
            most = max((each for each in self.costs if each.model == model), key=lambda each: len(each.questions))
            for question in most.questions:
                row: dict[str, Any] = {"model": model, "question": question.question, "bytes": question.bytes}
                row |= {"requests": question.requests, "once": question.first}
                if self.means.network is not None:
                    row["seconds"] = question.seconds(self.means.network)
                if (price := question.price(self.means.prices)) is not None:
                    row["price"] = price
                rows.append(row)
        return rows

    def _fits(self, estimate: Estimate) -> bool:
        """A remote index has room; here, a shard at a time must fit."""
        needed = estimate.peak // self.shards if self.directory.elsewhere else estimate.peak
        return needed <= self.free

    def _row(self, cost: Cost) -> dict[str, Any]:
        means, estimate = self.means, cost.estimate
        row: dict[str, Any] = {"model": cost.model, "keep": str(cost.keep), "images": estimate.images}
        row |= {**cost.bytes, "total": estimate.total, "scratch": estimate.scratch, "fits": self._fits(estimate)}
        for speed in (each for each in self.speeds if each.model == cost.model):
            hours = self.hours(cost, speed)
            row[f"hours_{speed.precision}"] = hours
            if means.prices.hour is not None:
                row[f"price_{speed.precision}"] = hours * means.devices * means.prices.hour
        if means.network is not None:
            row["upload_hours"] = cost.upload_hours(means.network)
        if (month := cost.month(means.prices)) is not None:
            row["price_month"] = month
        return row


def make(
    directory: IndexDirectory,
    source: Source,
    class_ids: Mapping[str, int | None],
    computes: Sequence[Compute],
    levels: Sequence[Keep],
    means: Means,
    settings: BuildSettings,
    observer: BuildObserver | None = None,
) -> Planned:
    """See what an index would cost. Nothing stays written.

    Args:
        directory: where it would be.
        source, class_ids, computes, settings, observer: as for `bagindex.build.build`.
        levels: keep levels.
        means: what there is to make it with.

    Raises:
        SourceError: none of the files that are tried can be indexed.
    """
    observer = observer or BuildObserver()
    models = by_name(computes)
    source, wanted = planned(source, class_ids, next(iter(models.values())), settings)
    inputs, decoding = _decode(source, wanted.transform, settings)
    pixel_bytes = mean_pixel_bytes(inputs) if settings.pixels else 0.0
    manifest = IndexManifest(plan=wanted, models={})
    costs: list[Cost] = []
    speeds: list[Speed] = []
    for compute in models.values():
        record, weights = model_record(compute, settings)
        costs += [cost(manifest, record, keep, pixel_bytes, len(weights)) for keep in levels]
        for precision in ("fp32", *compute.candidates):
            observer.note(f"timing {compute.name} in {precision}")
            speeds.append(measure(compute, precision, inputs))
    return Planned(
        means=means,
        directory=directory,
        free=directory.free_bytes(),
        images=len(source.entries),
        shards=len(wanted.shards),
        pixel_bytes=pixel_bytes,
        costs=tuple(costs),
        speeds=tuple(speeds),
        decoding=decoding,
        writing=_write(directory.root),
    )


def measure(compute: Compute, precision: Precision, inputs: Sequence[NDArray[np.uint8]]) -> Speed:
    """Time a model on a batch for each of its threads, after one that does not count.

    Args:
        compute: the model, in float32.
        precision: what it is to compute in.
        inputs: some of its inputs, uint8 [height, width, RGB]; they are repeated to fill a batch.
    """
    model = compute.at(precision)
    batch = np.stack(list(islice(cycle(inputs), model.environment.batch_size)))
    with compute.pool() as pool:
        for _ in range(2):  # the first one prepares kernels
            started = time.perf_counter()
            for _ in in_order(pool, model.run, [batch] * compute.workers, compute.workers):
                pass
            seconds = time.perf_counter() - started
    return Speed(compute.name, model.environment.device, precision, len(batch) * compute.workers / seconds)


def _decode(source: Source, transform: Transform, settings: BuildSettings) -> tuple[list[NDArray[np.uint8]], float]:
    """Some inputs, evenly spread over the source, and how many are read and decoded per second."""
    entries = [source.entries[place] for place in plan.spread(len(source.entries), SAMPLED)]
    inputs: list[NDArray[np.uint8]] = []
    reason = ""
    for _ in range(2):  # the first time, the processes that decode are started
        started = time.perf_counter()
        found = [picture for _, picture in settings.decoder.decode(source, entries, transform)]
        seconds = time.perf_counter() - started
        inputs = [picture.pixels for picture in found if not isinstance(picture, Rejected)]
        reason = next((f"{each.code}: {each.message}" for each in found if isinstance(each, Rejected)), "")
    if not inputs:
        raise SourceError(f"none of {len(entries)} files that were tried can be indexed ({reason})")
    return inputs, len(entries) / seconds


def _write(folder: Path) -> float | None:
    """Bytes per second of a file that is hashed, written, and on the disk, and then removed."""
    while not folder.exists():
        folder = folder.parent
    block = np.random.default_rng(0).bytes(_BLOCK)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            started = time.perf_counter()
            for _ in range(_BLOCKS):
                hashlib.sha256(block)
                file.write(block)
            file.flush()
            os.fsync(file.fileno())
            return _BLOCK * _BLOCKS / (time.perf_counter() - started)
    except OSError:
        return None
