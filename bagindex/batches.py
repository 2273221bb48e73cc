"""One shard's inputs on their way through a model: batches, which never cross a shard, and what is compared of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field
from functools import partial

import numpy as np
from numpy.typing import NDArray

from bagindex.compute import Compute
from bagindex.evidence import Evidence
from bagindex.precision import Tally
from bagindex.profile import Clock
from bagindex.shards import TableWriter
from bagindex.stages import Stage
from bagindex_schemas.records import Comparison

Inputs = Iterator[tuple[int, NDArray[np.uint8]]]
"""Image ids, and a model's inputs before normalisation, uint8 [height, width, RGB]."""


class PrecisionRefusedError(Exception):
    """A shard's own images show that a precision gives other evidence than float32."""

    def __init__(self, model: str, comparison: Comparison) -> None:
        super().__init__(str(comparison))
        self.model = model
        self.comparison = comparison

    def __reduce__(self) -> tuple[type[PrecisionRefusedError], tuple[str, Comparison]]:
        """For other processes: an exception is pickled as its text, unless it says otherwise."""
        return PrecisionRefusedError, (self.model, self.comparison)


@dataclass
class ShardModel:
    """A model at work on one shard.

    Attributes:
        name: the model's.
        compute: in the shard's precision.
        exact: in float32.
        clock: of its runs.
        sampled: images of the shard that are compared with float32.
        writers: what takes the evidence, each with its thread.
    """

    name: str
    compute: Compute
    exact: Compute
    clock: Clock
    sampled: Set[int]
    writers: list[tuple[Stage, TableWriter]] = field(default_factory=list)
    _image_ids: list[int] = field(default_factory=list)
    _pixels: list[NDArray[np.uint8]] = field(default_factory=list)
    _to_compare: list[tuple[NDArray[np.uint8], Evidence]] = field(default_factory=list)

    def add(self, image_id: int, pixels: NDArray[np.uint8]) -> Batch | None:
        """An input; a batch when there is one."""
        self._image_ids.append(image_id)
        self._pixels.append(pixels)
        return self.rest() if len(self._image_ids) == self.compute.environment.batch_size else None

    def rest(self) -> Batch | None:
        """What is left: batches never cross a shard."""
        if not self._image_ids:
            return None
        batch = Batch(self, np.array(self._image_ids, dtype=np.int64), np.stack(self._pixels))
        self._image_ids, self._pixels = [], []
        return batch

    def take(self, batch: Batch, evidence: Evidence) -> None:
        """Have a batch's evidence written."""
        for stage, writer in self.writers:
            stage.put(partial(writer.add, batch.image_ids, evidence), len(batch.image_ids))
        for place, image_id in enumerate(batch.image_ids):
            if image_id in self.sampled:
                self._to_compare.append((batch.pixels[place : place + 1], evidence.of(place)))

    def check(self, shard: int) -> None:
        """Compare the sample with float32.

        Raises:
            PrecisionRefusedError: it is not the same evidence.
        """
        if not self._to_compare:
            return
        tally = Tally(self.compute.environment.precision)
        for pixels, evidence in self._to_compare:
            tally.add(self.exact.run(pixels), evidence)
        comparison = tally.comparison(self.compute.grid.patches, shard)
        if not comparison.accepted:
            raise PrecisionRefusedError(self.name, comparison)


@dataclass(frozen=True)
class Batch:
    """Inputs that a model takes at a time: image_ids int64 [N], pixels uint8 [N, height, width, RGB]."""

    model: ShardModel
    image_ids: NDArray[np.int64]
    pixels: NDArray[np.uint8]

    def run(self) -> tuple[Batch, Evidence]:
        """The batch and its evidence."""
        with self.model.clock.busy(len(self.image_ids)):
            return self, self.model.compute.run(self.pixels)


def batches(inputs: Inputs, models: Sequence[ShardModel]) -> Iterator[Batch]:
    """The batches of all models, as soon as they are full, and at the end what is left."""
    for image_id, pixels in inputs:
        for model in models:
            batch = model.add(image_id, pixels)
            if batch is not None:
                yield batch
    for model in models:
        batch = model.rest()
        if batch is not None:
            yield batch
