"""The tables of a model in one shard, written in bounded memory, each by a thread of its own if need be."""

from __future__ import annotations

import zlib
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.arrays import ONE_PAGE, array_offsets
from bagindex.evidence import Evidence
from bagindex.geometry import patch_ids
from bagindex.shards import TableWriter, Written, open_table, write_table
from bagindex.spill import ClassSpill
from bagindex_schemas import tables as schemas
from bagindex_schemas.records import Grid, ModelRecord


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
        self._batches: list[tuple[NDArray[Any], ...]] = []

    def add(self, image_ids: NDArray[np.int64], evidence: Evidence) -> None:
        """A batch of images."""
        self._batches.append(
            (image_ids, evidence.max_logit, evidence.max_cell, evidence.logits, evidence.top, evidence.probability)
        )

    def finish(self) -> Written:
        """Write all."""
        classes = self._classes
        if self._batches:
            columns = [np.concatenate(parts) for parts in zip(*self._batches, strict=True)]
        else:
            none = np.empty((0, classes))
            columns = [np.empty(0, np.int64), none, none, none, np.empty((0, min(5, classes))), np.empty(0)]
        ids, max_logit, max_cell, logits, top, probability = columns
        schema = schemas.predictions(classes)
        arrays = {
            "image_id": pa.array(ids),
            "predicted": pa.array(top[:, 0].astype(np.int32)),
            "top5": _fixed_lists(top.astype(np.int32), schema.field("top5").type),
            "probability": pa.array(probability.astype(np.float32)),
            "logits": _fixed_lists(logits.astype(np.float32), schema.field("logits").type),
        }
        write_table(self._folder / "predictions.parquet", pa.table(arrays, schema=schema))
        # Class order: transposed, so that one class's rows for all images stand together.
        arrays = {
            "class_id": pa.array(np.repeat(np.arange(classes, dtype=np.int32), len(ids))),
            "image_id": pa.array(np.tile(ids, classes)),
            "max_logit": pa.array(max_logit.T.astype(np.float32).ravel()),
            "patch_id": pa.array((ids * self._grid.patches + max_cell.T.astype(np.int64)).ravel()),
            "mean_logit": pa.array(logits.T.astype(np.float32).ravel()),
        }
        write_table(self._folder / "image_evidence.parquet", pa.table(arrays, schema=schemas.IMAGE_EVIDENCE))
        return Written({"predictions": len(ids), "image_evidence": len(ids) * classes})

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
        patches = pa.array(patch_ids(self._grid, ids))
        with open_table(
            self._folder / "evidence.parquet",
            schemas.EVIDENCE,
            compression={"class_id": "zstd", "patch_id": "zstd", "logit": "none"},
            use_dictionary=["class_id"],
            column_encoding={"patch_id": "DELTA_BINARY_PACKED", "logit": "PLAIN"},
            write_statistics=["class_id", "patch_id"],
            **ONE_PAGE,
        ) as writer:
            for class_id in range(self._classes):
                logits = self._spill.read(class_id)
                columns = [np.full(len(logits), class_id, np.int32), patches, logits]
                table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=schemas.EVIDENCE)
                writer.write_table(table, row_group_size=max(1, len(logits)))
        self._spill.close()
        return Written({"evidence": len(ids) * self._grid.patches * self._classes})

    def close(self) -> None:
        """Remove the scratch file; may be called again."""
        self._spill.close()


class FeaturesWriter:
    """Writes `features.parquet`: a column that is an array too, each image's values in one piece, uncompressed."""

    def __init__(self, folder: Path, grid: Grid, feature_size: int) -> None:
        self._path = folder / "features.parquet"
        self._grid = grid
        self._row_bytes = feature_size * 2
        self._schema = schemas.features(feature_size)
        self._sums: list[int] = []
        self._writer = open_table(
            self._path,
            self._schema,
            compression="none",
            use_dictionary=False,
            column_encoding={"patch_id": "DELTA_BINARY_PACKED", "feature.list.element": "PLAIN"},
            write_statistics=["patch_id"],
            **ONE_PAGE,
        )

    def add(self, image_ids: NDArray[np.int64], evidence: Evidence) -> None:
        """A batch of images, a row group for each."""
        for image_id, values in zip(image_ids, evidence.features, strict=True):
            ids = patch_ids(self._grid, np.array([image_id]))
            table = pa.Table.from_arrays(
                [pa.array(ids), _fixed_lists(values, self._schema.field("feature").type)], schema=self._schema
            )
            self._writer.write_table(table, row_group_size=len(ids))
            self._sums.append(zlib.crc32(values.tobytes()))

    def finish(self) -> Written:
        """Finish the file, and check where each image's values are against what was written."""
        self._writer.close()
        offsets = array_offsets(self._path, column=1, bytes_per_row=self._row_bytes)
        return Written({"features": len(self._sums) * self._grid.patches}, {}, offsets)

    def close(self) -> None:
        """Close the file; may be called again."""
        self._writer.close()


def _fixed_lists(values: NDArray[Any], type_: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=type_)
