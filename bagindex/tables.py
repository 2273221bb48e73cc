"""The tables of a model in one shard, written in bounded memory, each by a thread of its own if need be."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.array_file import ArrayFile, Encoding
from bagindex.evidence import Evidence
from bagindex.geometry import patch_ids
from bagindex.plan import summary_classes
from bagindex.shards import TableWriter, Written, write_table
from bagindex.spill import ClassSpill
from bagindex.store import EVIDENCE
from bagindex_schemas import tables as schemas
from bagindex_schemas.records import Grid, ModelRecord

EVIDENCE_ENCODINGS = {
    "class_id": Encoding("DICTIONARY", compression="zstd"),
    "patch_id": Encoding("DELTA_BINARY_PACKED", compression="zstd"),
}
"""How the small columns of evidence are written: they cost next to nothing."""

_SUMMARY_ENCODINGS = {"image_id": "DELTA_BINARY_PACKED", "patch_id": "DELTA_BINARY_PACKED"}
"""Both ascend within a class, by little. A dictionary of them would be larger than they are."""


def table_writers(
    folder: Path, model: ModelRecord, classes: int, tables: Set[str], capacity: int
) -> Iterator[tuple[str, TableWriter]]:
    """Writers for some of a model's tables, for up to `capacity` images, by the name of the largest table."""
    if "features" in tables:
        yield "features", FeaturesWriter(folder, model.grid, model.feature_size)
    if "evidence" in tables:
        yield "evidence", EvidenceWriter(folder, model.grid, classes, capacity)
    if "predictions" in tables:
        yield "predictions", SummaryWriter(folder, model.grid, classes, capacity)


class SummaryWriter:
    """Writes `predictions.parquet` and `image_evidence.parquet`."""

    def __init__(self, folder: Path, grid: Grid, classes: int, capacity: int) -> None:
        self._folder = folder
        self._grid = grid
        self._classes = classes
        self._count = 0
        # Room for all images from the start: small arrays that are kept for each batch would lie between the model's
        # large ones, which are not kept, and leave holes that nothing fits into.
        self._ids = np.empty(capacity, np.int64)
        self._top = np.empty((capacity, min(5, classes)), np.int32)
        self._probability = np.empty(capacity, np.float32)
        self._logits = np.empty((capacity, classes), np.float32)
        self._max_logit = np.empty((capacity, classes), np.float32)
        self._max_cell = np.empty((capacity, classes), np.int32)

    def add(self, image_ids: NDArray[np.int64], evidence: Evidence) -> None:
        """A batch of images."""
        rows = slice(self._count, self._count + len(image_ids))
        self._ids[rows] = image_ids
        self._top[rows] = evidence.top
        self._probability[rows] = evidence.probability
        self._logits[rows] = evidence.logits
        self._max_logit[rows] = evidence.max_logit
        self._max_cell[rows] = evidence.max_cell
        self._count = rows.stop

    def finish(self) -> Written:
        """Write all."""
        count, ids = self._count, self._ids[: self._count]
        schema = schemas.predictions(self._classes)
        arrays = {
            "image_id": pa.array(ids),
            "predicted": pa.array(self._top[:count, 0]),
            "top5": _fixed_lists(self._top[:count], schema.field("top5").type),
            "probability": pa.array(self._probability[:count]),
            "logits": _fixed_lists(self._logits[:count], schema.field("logits").type),
        }
        write_table(self._folder / "predictions.parquet", pa.table(arrays, schema=schema))
        # Class order: transposed, so that one class's rows for all images stand together.
        patches = np.ascontiguousarray(self._max_cell[:count].T, dtype=np.int64)
        patches += ids * self._grid.patches
        write_image_evidence(self._folder, ids, self._max_logit[:count].T, patches, self._logits[:count].T)
        return Written({"predictions": count, "image_evidence": count * self._classes})

    def close(self) -> None:
        """Nothing is open."""


def write_image_evidence(
    folder: Path,
    image_ids: NDArray[np.int64],
    max_logit: NDArray[np.float32],
    patch_ids: NDArray[np.int64],
    mean_logit: NDArray[np.float32],
) -> None:
    """Write `image_evidence.parquet`, sorted by class and image; its row groups hold whole classes.

    Args:
        folder: where.
        image_ids: int64 [n], ascending.
        max_logit, patch_ids, mean_logit: float32, int64, float32 [C, n].
    """
    classes, count = max_logit.shape
    arrays = {
        "class_id": pa.array(np.repeat(np.arange(classes, dtype=np.int32), count)),
        "image_id": pa.array(np.tile(image_ids, classes)),
        "max_logit": pa.array(max_logit.ravel()),
        "patch_id": pa.array(patch_ids.ravel()),
        "mean_logit": pa.array(mean_logit.ravel()),
    }
    write_table(
        folder / "image_evidence.parquet",
        pa.table(arrays, schema=schemas.IMAGE_EVIDENCE),
        row_group_size=count * summary_classes(count),
        use_dictionary=["class_id", "max_logit"],
        column_encoding=_SUMMARY_ENCODINGS,
    )


class EvidenceWriter:
    """Writes `evidence.parquet`: a row group for each class."""

    def __init__(self, folder: Path, grid: Grid, classes: int, capacity: int) -> None:
        self._folder = folder
        self._grid = grid
        self._classes = classes
        self._ids: list[int] = []
        self._spill = ClassSpill(folder / "logits.spill", classes, capacity * grid.patches)

    def add(self, image_ids: NDArray[np.int64], evidence: Evidence) -> None:
        """A batch of images."""
        self._ids += image_ids.tolist()
        self._spill.append(evidence.evidence.reshape(-1, self._classes))

    def finish(self) -> Written:
        """Write all, class by class."""
        ids = np.array(self._ids, dtype=np.int64)
        with ArrayFile(self._folder / EVIDENCE, schemas.EVIDENCE, EVIDENCE_ENCODINGS) as file:
            patches = file.encode("patch_id", patch_ids(self._grid, ids))
            for class_id in range(self._classes):
                classes = file.encode_constant("class_id", class_id, patches.rows)
                file.append([classes, patches], self._spill.read(class_id))
            written = file.finish()
        self._spill.close()
        return Written({"evidence": patches.rows * self._classes}, {EVIDENCE: written.record})

    def close(self) -> None:
        """Remove the scratch file; may be called again."""
        self._spill.close()


class FeaturesWriter:
    """Writes `features.parquet`: a column that is an array too, each image's values in one piece, uncompressed."""

    def __init__(self, folder: Path, grid: Grid, feature_size: int) -> None:
        self._grid = grid
        self._images = 0
        schema, encodings = schemas.features(feature_size), {"patch_id": Encoding("DELTA_BINARY_PACKED")}
        self._file = ArrayFile(folder / "features.parquet", schema, encodings)

    def add(self, image_ids: NDArray[np.int64], evidence: Evidence) -> None:
        """A batch of images, a row group for each."""
        for image_id, values in zip(image_ids, evidence.features, strict=True):
            patches = patch_ids(self._grid, np.array([image_id]))
            self._file.append([self._file.encode("patch_id", patches)], values)
        self._images += len(image_ids)

    def finish(self) -> Written:
        """Finish the file."""
        written = self._file.finish()
        rows = {"features": self._images * self._grid.patches}
        return Written(rows, {"features.parquet": written.record}, written.offsets)

    def close(self) -> None:
        """Close the file; may be called again."""
        self._file.close()


def _fixed_lists(values: NDArray[Any], type_: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=type_)
