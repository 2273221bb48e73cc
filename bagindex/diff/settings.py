"""What two models of indexes were made of: the settings that differ."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bagindex.diff.matching import Side


def differing(a: Side, b: Side) -> list[dict[str, Any]]:
    """A row for each setting that is not the same on both sides: `setting`, `a`, `b`."""
    both = dict(_settings(a)), dict(_settings(b))
    names = dict.fromkeys((*both[0], *both[1]))
    return [
        {"setting": name, "a": both[0].get(name, ""), "b": both[1].get(name, "")}
        for name in names
        if both[0].get(name) != both[1].get(name)
    ]


def _settings(side: Side) -> Iterator[tuple[str, str]]:
    manifest, record = side.catalog.manifest, side.record
    source, transform, grid = manifest.source, manifest.plan.transform, record.grid
    yield "source", source.name
    yield "source's files", f"{source.files:,} of {source.listed:,}"
    yield "source's fingerprint", source.fingerprint[:12]
    yield "resize, crop", f"{transform.resize}, {transform.crop_width} × {transform.crop_height}"
    yield "mean", ", ".join(map(str, transform.mean))
    yield "standard deviation", ", ".join(map(str, transform.std))
    yield "classes", str(len(manifest.plan.classes))
    yield "labels", "given later" if manifest.relabelling else "as they came"
    yield "architecture", record.architecture
    yield "width", f"{record.width:g}"
    yield "weights", record.weights_sha256[:12]
    yield "patches", f"{grid.rows} × {grid.cols} of {grid.receptive_field} pixels, {grid.stride} apart"
    yield "keep", record.keep.value
    yield "precision", record.precision
    yield "precision asked", record.precision_asked
    yield "device", record.environment.device
    yield "threads", str(record.environment.threads)
    yield "batch size", str(record.environment.batch_size)
    for package, version in record.environment.versions.items():
        yield f"version of {package}", version
