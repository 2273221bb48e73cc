"""The invariants that tie the numbers of a committed shard to each other and to the model.

Each function gives the problems that it finds, as text, and how many numbers it looked at. All bounds are computed from
the numbers themselves: half a unit in the last place for what was rounded to float16, and n·u·Σ|terms| for a float32
sum of n terms (Higham, Accuracy and Stability of Numerical Algorithms, section 3.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagindex.arrays import Arrays, MappedArrays, check_schema
from bagindex.evidence import rounding_error
from bagindex.geometry import patch_ids
from bagindex.merged import evidence_path, open_evidence
from bagindex.store import IndexDirectory
from bagindex_schemas import tables
from bagindex_schemas.records import ModelRecord

_UNIT = float(np.finfo(np.float32).eps) / 2
_HALF_ULP = 2.0**-11
"""Largest relative error of rounding to float16; `_TINY` is the largest absolute one where that does not hold."""
_TINY = 2.0**-25
_IMAGES_AT_ONCE = 8

Outcome = tuple[int, list[str]]


@dataclass(frozen=True)
class ShardNumbers:
    """The numbers of one committed shard of n images.

    Attributes:
        image_ids: int64 [n].
        logits: float32 [n, C], from `predictions`.
        max_logit, max_patch, mean_logit: float32, int64, float32 [C, n], from `image_evidence`.
        evidence: float16 [n · P] for each class, None where it is not kept.
        features: float16 [P, D] for each image, None where they are not kept.
    """

    where: str
    record: ModelRecord
    image_ids: NDArray[np.int64]
    predicted: NDArray[np.int32]
    logits: NDArray[np.float32]
    max_logit: NDArray[np.float32]
    max_patch: NDArray[np.int64]
    mean_logit: NDArray[np.float32]
    evidence: Arrays | None
    features: MappedArrays | None


def load(directory: IndexDirectory, record: ModelRecord, shard: int, classes: int) -> ShardNumbers:
    """Read a shard's summaries and map its arrays.

    Raises:
        ValueError: a table has another order or size than it should.
    """
    where = f"{record.name}/shard-{shard:05d}"

    def path_of(table: str) -> Path:
        return directory.whole(directory.shard_path(record.series_of(table), shard) / f"{table}.parquet")

    schemas = {
        "predictions": tables.predictions(classes),
        "image_evidence": tables.IMAGE_EVIDENCE,
        "features": tables.features(record.feature_size),
    }
    for table in record.keep.tables - {"evidence"}:
        check_schema(pq.read_schema(path_of(table)), schemas[table])
    predictions = pq.read_table(path_of("predictions"))
    image_ids = predictions["image_id"].to_numpy()
    n, patches = len(image_ids), record.grid.patches
    summary = pq.read_table(path_of("image_evidence"))
    if summary.num_rows != n * classes or not (
        np.array_equal(summary["class_id"].to_numpy(), np.repeat(np.arange(classes), n))
        and np.array_equal(summary["image_id"].to_numpy(), np.tile(image_ids, classes))
    ):
        raise ValueError(f"{where}/image_evidence.parquet is not sorted by class and image, a row for each")
    evidence = features = None
    if "evidence" in record.keep.tables and n:
        series = record.series_of("evidence")
        path = directory.whole(evidence_path(directory, series, shard))
        if path.parent == directory.shard_path(series, shard):  # the order of what shards share is looked at once
            check_evidence_order(path, where, patch_ids(record.grid, image_ids), classes)
        evidence = open_evidence(directory, series, shard, (n * patches,))
    if "features" in record.keep.tables and n:
        path = path_of("features")
        ids = pq.read_table(path, columns=["patch_id"])
        offsets = directory.shard_manifest(record.series_of("features"), shard).feature_offsets or ()
        if len(offsets) != n or not np.array_equal(ids["patch_id"].to_numpy(), patch_ids(record.grid, image_ids)):
            raise ValueError(f"{where}/features.parquet does not hold every patch once, in order")
        features = MappedArrays(path, offsets, (patches, record.feature_size))
    return ShardNumbers(
        where=where,
        record=record,
        image_ids=image_ids,
        predicted=predictions["predicted"].to_numpy(),
        logits=predictions["logits"].combine_chunks().flatten().to_numpy().reshape(n, classes),
        max_logit=summary["max_logit"].to_numpy().reshape(classes, n),
        max_patch=summary["patch_id"].to_numpy().reshape(classes, n),
        mean_logit=summary["mean_logit"].to_numpy().reshape(classes, n),
        evidence=evidence,
        features=features,
    )


def check_evidence_order(path: Path, where: str, patches: NDArray[np.int64], classes: int) -> None:
    """See whether there is a row group for each class, each with every patch once; one at a time, for all do not fit
    into memory.

    Raises:
        ValueError: there is not.
    """
    with pq.ParquetFile(path) as file:
        check_schema(file.schema_arrow, tables.EVIDENCE)
        right = file.num_row_groups == classes
        for class_id in range(classes if right else 0):
            ids = file.read_row_group(class_id, columns=["class_id", "patch_id"])
            right &= bool((ids["class_id"].to_numpy() == class_id).all())
            right &= np.array_equal(ids["patch_id"].to_numpy(), patches)
    if not right:
        raise ValueError(f"{where}/evidence.parquet is not sorted by class and patch, a row group for each class")


def check_means(shard: ShardNumbers) -> Outcome:
    """1: the mean of an image's patch logits is its logit, and the predicted class has the largest one."""
    problems = []
    n, classes = shard.logits.shape
    if not np.array_equal(shard.logits.argmax(axis=1), shard.predicted):
        problems.append(f"{shard.where}: a predicted class is not the one with the largest logit")
    if shard.evidence is None:
        return 0, problems
    for class_id in range(classes):
        rounded = shard.evidence[class_id].reshape(n, -1)
        mean = rounded.mean(axis=1, dtype=np.float64)
        bound = rounding_error(rounded).mean(axis=1, dtype=np.float64) + 2 * _UNIT * np.abs(mean) + _TINY
        off = np.abs(mean - shard.logits[:, class_id]) > bound
        problems += [_image(shard, int(i), class_id, "the patch logits' mean is not the image's") for i in _first(off)]
    return n * classes, problems


def check_linear(shard: ShardNumbers, weight: NDArray[np.float32], bias: NDArray[np.float32]) -> Outcome:
    """2: feature · W + b is the evidence. `weight` is float32 [C, D], `bias` float32 [C]."""
    if shard.features is None or shard.evidence is None:
        return 0, []
    problems: list[str] = []
    classes, dimensions = weight.shape
    magnitude = np.abs(weight)
    summation = dimensions * _UNIT
    patches = shard.record.grid.patches
    for start in range(0, len(shard.features), _IMAGES_AT_ONCE):
        stop = min(start + _IMAGES_AT_ONCE, len(shard.features))
        features = np.concatenate([shard.features[i] for i in range(start, stop)]).astype(np.float32)
        cells = slice(start * patches, stop * patches)
        evidence = np.stack([shard.evidence[class_id][cells] for class_id in range(classes)], axis=1)
        size = np.abs(features) @ magnitude.T
        bound = (
            (_HALF_ULP + 2 * summation) * size
            + _TINY * magnitude.sum(axis=1)
            + 2 * _UNIT * np.abs(bias)
            + rounding_error(evidence)
        )
        off = np.abs(features @ weight.T + bias - evidence) > bound
        for flat in _first(off.ravel()):
            cell, class_id = divmod(int(flat), classes)
            text = "feature · W + b is not the evidence"
            problems.append(_image(shard, start + cell // patches, class_id, text))
    return len(shard.features) * patches * classes, problems


def check_maxima(shard: ShardNumbers) -> Outcome:
    """3: image_evidence is evidence's maximum, the first patch where it stands, and the image's logit; exactly."""
    problems = []
    n, classes = shard.logits.shape
    if not np.array_equal(shard.mean_logit, shard.logits.T):
        problems.append(f"{shard.where}: image_evidence.mean_logit is not predictions.logits")
    if shard.evidence is None:
        return 0, problems
    patches = shard.record.grid.patches
    for class_id in range(classes):
        rounded = shard.evidence[class_id].reshape(n, patches)
        cells = rounded.argmax(axis=1)
        off = rounded.max(axis=1).astype(np.float32) != shard.max_logit[class_id]
        off |= shard.image_ids * patches + cells != shard.max_patch[class_id]
        problems += [_image(shard, int(i), class_id, "image_evidence is not evidence's maximum") for i in _first(off)]
    return n * classes, problems


def check_alone(
    shard: ShardNumbers,
    image: int,
    cells: NDArray[np.int64],
    features: NDArray[np.float16],
    tolerance: float | None = None,
) -> Outcome:
    """4: patches run alone give the stored features.

    Args:
        shard: with its features.
        image: place of the image in the shard.
        cells: which patches.
        features: of the crops, run in float32; float16 [cells, D].
        tolerance: None: the shard was computed in float32, and roundings are all that may differ; else how far a
            feature may be off, as `Comparison.feature_error` measures it.
    """
    if shard.features is None:
        return 0, []
    stored = shard.features[image][cells]
    exact = features.astype(np.float32)
    if tolerance is None:
        # Another crop takes other float32 kernels; their sums differ in the last places, in proportion to the features.
        bound = (
            rounding_error(stored) + rounding_error(features) + FLOAT_ERROR * np.abs(exact).max(axis=1, keepdims=True)
        )
        off = (np.abs(exact - stored) > bound).any(axis=1)
    else:
        usual = np.linalg.norm(shard.features[image].astype(np.float32), axis=1).mean()
        scale = np.maximum(np.linalg.norm(exact, axis=1), usual)
        off = np.linalg.norm(exact - stored, axis=1) > tolerance * scale
    image_id = int(shard.image_ids[image])
    return len(cells), [
        f"{shard.where}: patch {image_id * shard.record.grid.patches + int(cells[i])} of image {image_id}, run alone, "
        "does not give its stored feature"
        for i in _first(off)
    ]


FLOAT_ERROR = 1e-5
"""How far float32 kernels of different shapes may be apart, relative to a patch's largest feature."""


def _first(off: NDArray[np.bool_], most: int = 3) -> NDArray[np.int64]:
    return np.flatnonzero(off)[:most]


def _image(shard: ShardNumbers, image: int, class_id: int, text: str) -> str:
    return f"{shard.where}: image {int(shard.image_ids[image])}, class {class_id}: {text}"
