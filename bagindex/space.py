"""Whether a disk has room for what a build will write."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bagindex import plan
from bagindex.decoding import Decoder
from bagindex.errors import SpaceError
from bagindex.images import Rejected
from bagindex.observer import BuildObserver
from bagindex.shards import compressed_size
from bagindex.sources import Source
from bagindex.store import IndexDirectory
from bagindex.text import bytes_text
from bagindex_schemas.records import IndexManifest, Keep

SAMPLED = 32
"""Images whose pixels are compressed to know what all will take."""


def check_space(
    directory: IndexDirectory,
    manifest: IndexManifest,
    work: Sequence[plan.Work],
    source: Source,
    decoder: Decoder,
    observer: BuildObserver,
    weights: int = 0,
    restart: bool = False,
    at_a_time: int = 1,
) -> None:
    """Say what is about to be written, and refuse when the disk is too small.

    Args:
        directory: the index.
        manifest: its `index.json` as it will be.
        work: what is owed.
        source: the images, some of which are decoded to see how well they compress.
        decoder: for that.
        observer: hears what will be written.
        weights: bytes of new models' weights.
        restart: what is there now will be gone.
        at_a_time: so many shards are computed at a time.

    Raises:
        SpaceError: it is; the message names the keep levels that would fit.
    """
    if not work:
        return
    kept = manifest.plan.pixels and any(each.images for each in work)
    pixel_bytes = mean_pixel_bytes(_sample(manifest, source, decoder)) if kept else 0.0
    estimate = plan.estimate(manifest, work, pixel_bytes, weights, at_a_time)
    free = directory.free_bytes() + (directory.size() if restart and not directory.elsewhere else 0)
    observer.planned(estimate, free)
    if directory.elsewhere:
        largest = at_a_time * max(plan.estimate(manifest, [each], pixel_bytes, weights).peak for each in work)
        if largest > free:
            raise SpaceError(
                f"a shard takes {bytes_text(largest)} here until it is put, and {bytes_text(free)} are free at "
                f"{directory.root}: make room, or set BAGINDEX_CACHE to a folder on another disk"
            )
        return
    if estimate.peak <= free:
        return
    names = {name for each in work for name, _ in each.series}
    advice = ""
    for level in Keep:
        lower = {name: manifest.models[name].model_copy(update={"levels": (level,)}) for name in names}
        smaller = manifest.model_copy(update={"models": {**manifest.models, **lower}})
        needed = plan.estimate(smaller, plan.owed(smaller, sorted(names), {}), pixel_bytes, weights, at_a_time).peak
        if needed <= free and needed < estimate.peak:
            advice += f", --keep {level} ({bytes_text(needed)})"
    raise SpaceError(
        f"this build writes {bytes_text(estimate.peak)} and {bytes_text(free)} are free at {directory.root}: "
        f"make room{advice and ', or take' + advice[1:]}, or give --out on another disk"
    )


def mean_pixel_bytes(inputs: Sequence[NDArray[np.uint8]]) -> float:
    """What the pixels of an image take, compressed as they will be: the mean over some inputs."""
    return sum(map(compressed_size, inputs)) / len(inputs) if inputs else 0.0


def _sample(manifest: IndexManifest, source: Source, decoder: Decoder) -> list[NDArray[np.uint8]]:
    """Some of a source's inputs, evenly spread."""
    entries = [source.entries[i] for i in plan.spread(len(source.entries), SAMPLED)]
    decoded = decoder.decode(source, entries, manifest.plan.transform)
    return [picture.pixels for _, picture in decoded if not isinstance(picture, Rejected)]
