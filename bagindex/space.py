"""Whether a disk has room for what a build will write."""

from __future__ import annotations

from collections.abc import Sequence

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

_SAMPLED = 32
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

    Raises:
        SpaceError: it is; the message names the keep levels that would fit.
    """
    if not work:
        return
    pixel_bytes = _pixel_bytes(manifest, source, decoder) if any(each.images for each in work) else 0.0
    estimate = plan.estimate(manifest, work, pixel_bytes, weights)
    free = directory.free_bytes() + (directory.size() if restart and not directory.elsewhere else 0)
    observer.planned(estimate, free)
    if directory.elsewhere:
        largest = max(plan.estimate(manifest, [each], pixel_bytes, weights).peak for each in work)
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
        needed = plan.estimate(smaller, plan.owed(smaller, sorted(names), {}), pixel_bytes, weights).peak
        if needed <= free and needed < estimate.peak:
            advice += f", --keep {level} ({bytes_text(needed)})"
    raise SpaceError(
        f"this build writes {bytes_text(estimate.peak)} and {bytes_text(free)} are free at {directory.root}: "
        f"make room{advice and ', or take' + advice[1:]}, or give --out on another disk"
    )


def _pixel_bytes(manifest: IndexManifest, source: Source, decoder: Decoder) -> float:
    """What the pixels of an image take: the mean over some of them, evenly spread, compressed as they will be."""
    if not manifest.plan.pixels:
        return 0.0
    sample = [source.entries[i] for i in plan.spread(len(source.entries), _SAMPLED)]
    sizes = [
        compressed_size(picture.pixels)
        for _, picture in decoder.decode(source, sample, manifest.plan.transform)
        if not isinstance(picture, Rejected)
    ]
    return sum(sizes) / len(sizes) if sizes else 0.0
