"""The tables of a model in one shard, written in bounded memory, each by a thread of its own if need be."""

from __future__ import annotations

from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.array_file import ArrayFile, Encoding
from bagindex.evidence import Evidence
from bagindex.geometry import patch_ids
from bagindex.shards import TableWriter, Written, write_table
from bagindex.spill import ClassSpill
from bagindex_schemas import tables as schemas
from bagindex_schemas.records import Grid, ModelRecord

_Number = TypeVar("_Number", bound=np.generic)


def table_writers(
    folder: Path, model: ModelRecord, classes: int, tables: Set[str], capacity: int
) -> Iterator[tuple[str, TableWriter]]:
    """Writers for some of a model's tables, for up to `capacity` images, by the name of the largest table."""
    if "features" in tables:
        yield "features", FeaturesWriter(folder, model.grid, model.feature_size)
    if "evidence" in tables:
        yield "evidence", EvidenceWriter(folder, model.grid, classes, capacity)
    if "predictions" in tables:
        yield "predictions", SummaryWriter(folder, model.grid, classes)


class SummaryWriter:
    """Writes `predictions.parquet` and `image_evidence.parquet`."""

    def __init__(self, folder: Path, grid: Grid, classes: int) -> None:
        self._folder = folder
        self._grid = grid
        self._classes = classes
        # Empty first items, for a shard without images.
        self._ids = [np.empty(0, np.int64)]
        self._top = [np.empty((0, min(5, classes)), np.int32)]
        self._probability = [np.empty(0, np.float32)]
        self._logits = [np.empty((0, classes), np.float32)]
        self._max_logit = [np.empty((0, classes), np.float32)]
        self._max_cell = [np.empty((0, classes), np.int32)]

    def add(self, image_ids: NDArray[np.int64], evidence: Evidence) -> None:
        """A batch of images."""
        self._ids.append(image_ids)
        self._top.append(evidence.top)
        self._probability.append(evidence.probability)
        self._logits.append(evidence.logits)
        self._max_logit.append(evidence.max_logit)
        self._max_cell.append(evidence.max_cell.astype(np.int32))

    def finish(self) -> Written:
        """Write all."""
        ids, logits = _together(self._ids), _together(self._logits)
        self._write_predictions(ids, logits)
        self._write_image_evidence(ids, logits)
        return Written({"predictions": len(ids), "image_evidence": len(ids) * self._classes})

    def _write_predictions(self, ids: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        schema = schemas.predictions(self._classes)
        top = _together(self._top)
        arrays = {
            "image_id": pa.array(ids),
            "predicted": pa.array(top[:, 0]),
            "top5": _fixed_lists(top, schema.field("top5").type),
            "probability": pa.array(_together(self._probability)),
            "logits": _fixed_lists(logits, schema.field("logits").type),
        }
        write_table(self._folder / "predictions.parquet", pa.table(arrays, schema=schema))

    def _write_image_evidence(self, ids: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        # Class order: transposed, so that one class's rows for all images stand together.
        patches = np.ascontiguousarray(_together(self._max_cell).T, dtype=np.int64)
        patches += ids * self._grid.patches
        arrays = {
            "class_id": pa.array(np.repeat(np.arange(self._classes, dtype=np.int32), len(ids))),
            "image_id": pa.array(np.tile(ids, self._classes)),
            "max_logit": pa.array(_together(self._max_logit).T.ravel()),
            "patch_id": pa.array(patches.ravel()),
            "mean_logit": pa.array(logits.T.ravel()),
        }
        write_table(self._folder / "image_evidence.parquet", pa.table(arrays, schema=schemas.IMAGE_EVIDENCE))

    def close(self) -> None:
        """Nothing is open."""


class EvidenceWriter:
    """Writes `evidence.parquet`: a row group for each class."""

    def __init__(self, folder: Path, grid: Grid, classes: int, capacity: int) -> None:
        self._folder = folder
        self._grid = grid
        self._classes = classes
        self._ids: list[NDArray[np.int64]] = []
        self._spill = ClassSpill(folder / "logits.spill", classes, capacity * grid.patches)

    def add(self, image_ids: NDArray[np.int64], evidence: Evidence) -> None:
        """A batch of images."""
        self._ids.append(image_ids)
        self._spill.append(evidence.evidence.reshape(-1, self._classes))

    def finish(self) -> Written:
        """Write all, class by class."""
        ids = np.concatenate(self._ids) if self._ids else np.empty(0, np.int64)
        encodings = {
            "class_id": Encoding("DICTIONARY", compression="zstd"),
            "patch_id": Encoding("DELTA_BINARY_PACKED", compression="zstd"),
        }
        with ArrayFile(self._folder / "evidence.parquet", schemas.EVIDENCE, encodings) as file:
            patches = file.encode("patch_id", patch_ids(self._grid, ids))
            for class_id in range(self._classes):
                classes = file.encode_constant("class_id", class_id, patches.rows)
                file.append([classes, patches], self._spill.read(class_id))
            written = file.finish()
        self._spill.close()
        return Written({"evidence": patches.rows * self._classes}, {"evidence.parquet": written.record})

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


def _together(batches: list[NDArray[_Number]]) -> NDArray[_Number]:
    """Batches as one array; they are dropped, for both together would take twice the memory."""
    together = np.concatenate(batches)
    batches.clear()
    return together


def _fixed_lists(values: NDArray[Any], type_: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=type_)
