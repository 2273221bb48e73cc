"""Which precision a model runs in: float32, unless a faster one gives the same on the user's own images.

Precision is a trap: in float16 the authors' BagNet-33 falls from 66.7 % to 58.0 % on ImageNet. So a lower one is never
taken on trust. It is compared with float32, on a sample of the whole plan before the first shard, and on some images of
each shard.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from itertools import islice
from typing import get_args

import numpy as np
from numpy.typing import NDArray

from bagindex.compute import Compute
from bagindex.errors import EvidenceRangeError, SettingsError
from bagindex.evidence import Evidence
from bagindex.stages import in_order
from bagindex_schemas.records import AskedPrecision, Comparison, Precision

SAMPLE = 512
"""Images of the plan that a precision must prove itself on, where there are as many."""
LOGIT_ERROR = 0.02
"""Relative L2 error of the patch logits that is accepted."""
TOP_PATCHES = 0.95
"""Share of the strongest patches that must be the same: nearly all, since equally strong ones may change places."""
_FEW = 4
"""Images that a precision which was asked for is compared on at least."""
_TOP = 7
"""Patches of a class that count as its strongest: a row of the paper's Figure 3."""
_FASTER = 1.1
"""A precision is faster when it is so by this factor; less may be chance."""
_WORTH = 4 * SAMPLE
"""Images from which on a comparison takes less time than twice the speed saves; no clock decides whether there is one,
so that the same command does the same."""


@dataclass(frozen=True)
class Choice:
    """The precision that is taken, why, and what was compared."""

    precision: Precision
    reason: str
    comparisons: tuple[Comparison, ...] = ()


def sample_size(asked: AskedPrecision, images: int) -> int:
    """How many images are compared, if any are."""
    return SAMPLE if asked == "auto" else min(SAMPLE, max(_FEW, images // 128), images)


def choose(
    compute: Compute,
    asked: AskedPrecision,
    images: int,
    inputs: Callable[[int], Iterator[NDArray[np.uint8]]],
    pool: Executor,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Choice:
    """The precision for `images` images.

    Args:
        compute: the model, in float32.
        asked: `auto`, or a precision, which is taken whatever a comparison on some images finds.
        images: how many are to be computed.
        inputs: so many of the plan's inputs, drawn at random; uint8 [height, width, RGB].
        pool: threads for `compute`.
        progress: hears how many of how many images are compared.

    Raises:
        SettingsError: the device has no such precision.
        EvidenceRangeError: the model gives values that cannot be stored; in float32, if `asked` is `auto`.
    """
    if asked == "fp32":
        return Choice("fp32", "as asked")
    if asked != "auto":
        # Nothing depends on it but what is recorded, and it should cost next to nothing.
        sample = sample_size(asked, images)
        (tally,), _ = _compare(compute, [asked], inputs(sample), pool, lambda done: progress(done, sample))
        if tally.overflow is not None:
            raise tally.overflow
        reason = "as asked" if asked in compute.candidates else "as asked; nothing here is made for it, which is slow"
        return Choice(tally.precision, reason, (tally.comparison(compute.grid.patches),) if tally.images else ())
    if not compute.candidates:
        return Choice("fp32", "nothing is faster on this device")
    if images < _WORTH:
        return Choice("fp32", f"for fewer than {_WORTH:,} images a comparison takes longer than it saves")
    tallies, speedups = _compare(compute, compute.candidates, inputs(SAMPLE), pool, lambda done: progress(done, SAMPLE))
    comparisons = tuple(
        tally.comparison(compute.grid.patches, speedup=speedups[tally.precision]) for tally in tallies if tally.images
    )
    faster = [each for each in comparisons if (each.speedup or 0.0) >= _FASTER]
    accepted = [each for each in faster if each.accepted]
    if not accepted:
        return Choice(
            "fp32", "what is faster gives other evidence" if faster else "nothing is faster here", comparisons
        )
    fastest = max(each.speedup or 0.0 for each in accepted)
    best = min(
        (each for each in accepted if (each.speedup or 0.0) * _FASTER >= fastest),
        key=lambda each: each.logit_error or 0.0,
    )
    return Choice(best.precision, "it is faster and gives the same evidence", comparisons)


def shard_sample(first: int, count: int) -> Sequence[int]:
    """The images of a shard that are compared: 2 to 16 of them, always the same."""
    few = min(16, max(2, count // 96), count)
    chosen = np.random.default_rng(first).choice(count, few, replace=False)
    return sorted(first + int(each) for each in chosen)


def feature_errors(reference: NDArray[np.float16], found: NDArray[np.float16]) -> NDArray[np.float32]:
    """How far each patch's feature is off, [N, P] from float16 [N, P, D]; see `Comparison.feature_error`."""
    exact = reference.astype(np.float32)
    norms = np.linalg.norm(exact, axis=2)
    scale = np.maximum(norms, norms.mean(axis=1, keepdims=True))
    errors = np.linalg.norm(exact - found, axis=2)
    # An image that gives no features at all must not divide by zero.
    relative: NDArray[np.float32] = errors / np.maximum(scale, np.float32(1e-6))
    return relative


@dataclass
class Tally:
    """Adds up how evidence in some precision differs from float32's, batch by batch.

    `overflow`: what was raised when a value was beyond float16. `maxima`: the largest evidence, float32 [N, C], and its
    cell, int64 [N, C], in float32 and in the other precision; as bytes, which grow in one piece, where small arrays
    would leave holes between the models' large ones.
    """

    precision: Precision
    images: int = 0
    top1_equal: int = 0
    squared_error: float = 0.0
    squared: float = 0.0
    feature_error: float = 0.0
    overflow: EvidenceRangeError | None = None
    maxima: tuple[bytearray, ...] = field(default_factory=lambda: tuple(bytearray() for _ in range(4)))

    def add(self, reference: Evidence, found: Evidence) -> None:
        """The same images in float32 and in the other precision."""
        self.images += len(reference.logits)
        self.top1_equal += int((reference.top[:, 0] == found.top[:, 0]).sum())
        logits = reference.evidence.astype(np.float32)
        self.squared_error += float(np.square(logits - found.evidence).sum(dtype=np.float64))
        self.squared += float(np.square(logits).sum(dtype=np.float64))
        self.feature_error = max(self.feature_error, float(feature_errors(reference.features, found.features).max()))
        for place, each in enumerate((reference, found)):
            self.maxima[2 * place].extend(each.max_logit.tobytes())
            self.maxima[2 * place + 1].extend(each.max_cell.tobytes())

    def merge(self, other: Tally) -> None:
        """Take in another tally of the same precision."""
        self.images += other.images
        self.top1_equal += other.top1_equal
        self.squared_error += other.squared_error
        self.squared += other.squared
        self.feature_error = max(self.feature_error, other.feature_error)
        self.overflow = self.overflow or other.overflow
        for known, values in zip(self.maxima, other.maxima, strict=True):
            known += values

    def comparison(self, patches: int, shard: int | None = None, speedup: float | None = None) -> Comparison:
        """What was found, on images of so many patches. On a shard's few, the strongest patches do not decide."""
        error = None if self.overflow or not self.squared else float(np.sqrt(self.squared_error / self.squared))
        equal = self._top_patches_equal(patches) if self.maxima[0] and self.overflow is None else 0.0
        accepted = self.top1_equal == self.images and error is not None and error <= LOGIT_ERROR
        return Comparison(
            precision=self.precision,
            shard=shard,
            images=self.images,
            top1_equal=self.top1_equal,
            logit_error=error,
            top_patches_equal=equal,
            feature_error=self.feature_error,
            speedup=speedup,
            accepted=accepted and (shard is not None or equal >= TOP_PATCHES),
        )

    def _top_patches_equal(self, patches: int) -> float:
        exact, found = (
            _strongest(
                np.frombuffer(self.maxima[place], np.float32).reshape(self.images, -1),
                np.frombuffer(self.maxima[place + 1], np.int64).reshape(self.images, -1),
                patches,
            )
            for place in (0, 2)
        )
        common = [len(np.intersect1d(one, other)) for one, other in zip(exact, found, strict=True)]
        return float(np.sum(common) / exact.size)


def _strongest(logits: NDArray[np.float32], cells: NDArray[np.int64], patches: int) -> NDArray[np.int64]:
    """The strongest patches of each class, one of an image: int64 [C, at most 7], from [N, C]."""
    images = np.argsort(-logits, axis=0, kind="stable")[:_TOP]
    ids: NDArray[np.int64] = (images * patches + np.take_along_axis(cells, images, axis=0)).T
    return ids


def _compare(
    compute: Compute,
    precisions: Sequence[Precision],
    inputs: Iterator[NDArray[np.uint8]],
    pool: Executor,
    progress: Callable[[int], None],
) -> tuple[list[Tally], Mapping[str, float]]:
    """Run float32 and other precisions on the same inputs.

    Returns:
        A tally of each, and how many times as fast as float32 it is.
    """
    runs = [compute.at(precision) for precision in precisions]
    tallies = {precision: Tally(precision) for precision in precisions}
    seconds = dict.fromkeys((key for each in precisions for key in (each, f"fp32 beside {each}")), 0.0)

    def task(pixels: NDArray[np.uint8]) -> list[tuple[Tally, float, float]]:
        started = time.perf_counter()
        reference = compute.run(pixels)
        exact = time.perf_counter() - started
        return [(*_run(other, pixels, reference), exact) for other in runs]

    def speedup(precision: str) -> float:
        return _ratio(seconds[f"fp32 beside {precision}"], seconds[precision])

    batches = _batches(inputs, compute.environment.batch_size)
    for number, partial in enumerate(in_order(pool, task, batches, 2 * compute.workers), start=1):
        for tally, taken, exact in partial:
            tallies[tally.precision].merge(tally)
            # The first batches prepare kernels.
            if number > compute.workers:
                seconds[tally.precision] += taken
                seconds[f"fp32 beside {tally.precision}"] += exact
        progress(max(tally.images for tally in tallies.values()))
    return list(tallies.values()), {precision: speedup(precision) for precision in precisions}


def _run(compute: Compute, pixels: NDArray[np.uint8], reference: Evidence) -> tuple[Tally, float]:
    tally = Tally(compute.environment.precision)
    started = time.perf_counter()
    try:
        found = compute.run(pixels)
    except EvidenceRangeError as error:
        tally.images, tally.overflow = len(pixels), error
        return tally, time.perf_counter() - started
    taken = time.perf_counter() - started
    tally.add(reference, found)
    return tally, taken


def _ratio(float32: float, other: float) -> float:
    """How many times as fast as float32, from seconds for the same images."""
    return float32 / max(other, 1e-9)


def _batches(inputs: Iterator[NDArray[np.uint8]], size: int) -> Iterator[NDArray[np.uint8]]:
    while batch := list(islice(inputs, size)):
        yield np.stack(batch)


def parse(text: str) -> AskedPrecision:
    """What `--precision` takes.

    Raises:
        SettingsError: it is none of that.
    """
    for known in get_args(AskedPrecision):
        if known == text:
            asked: AskedPrecision = known
            return asked
    raise SettingsError(f"--precision is one of {', '.join(get_args(AskedPrecision))}, not {text!r}")
