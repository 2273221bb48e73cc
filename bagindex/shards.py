"""Writing the tables of one shard as Parquet, in bounded memory."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Mapping, Sequence, Set
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagindex.arrays import ONE_PAGE, array_offsets
from bagindex.evidence import Evidence
from bagindex.geometry import Placement, patch_ids
from bagindex.images import Rejected
from bagindex.store import file_sha256
from bagindex.text import path_text
from bagindex_schemas import tables as schemas
from bagindex_schemas.records import FileRecord, Grid, ModelRecord

PIXELS_PER_ROW_GROUP = 8
"""Images that share a row group of pixels: reading one image decompresses so many."""


@dataclass(frozen=True)
class ImageRow:
    """A row of the `images` table; its path is relative to the source."""

    image_id: int
    path: bytes
    label: int | None
    bytes: int
    sha256: str
    placement: Placement


class _Writer:
    """Open files that are closed whatever happens: a context manager."""

    def __init__(self) -> None:
        self._open_files = ExitStack()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._open_files.close()


class ImagesShardWriter(_Writer):
    """Writes `images.parquet`, `rejects.parquet` and, where pixels are kept, `pixels.parquet`.

    `add` and `reject` must be called in the order of image_id.
    """

    def __init__(self, folder: Path, keep_pixels: bool) -> None:
        super().__init__()
        self._folder = folder
        self._images: list[ImageRow] = []
        self._rejects: list[dict[str, Any]] = []
        self._pixels: pq.ParquetWriter | None = None
        if keep_pixels:
            writer = _open(folder / "pixels.parquet", schemas.PIXELS, use_dictionary=False)
            self._pixels = self._open_files.enter_context(writer)
        self._waiting: list[NDArray[np.uint8]] = []

    def add(self, row: ImageRow, pixels: NDArray[np.uint8]) -> None:
        """An image and its input, uint8 [height, width, RGB]."""
        self._images.append(row)
        if self._pixels is not None:
            self._waiting.append(pixels)
            if len(self._waiting) == PIXELS_PER_ROW_GROUP:
                self._flush_pixels()

    def reject(self, image_id: int, path: bytes, size: int, rejected: Rejected) -> None:
        """A file of `size` bytes that is not indexed."""
        why = {"code": rejected.code, "message": rejected.message}
        self._rejects.append({"image_id": image_id, **_path_columns(path), "bytes": size, **why})

    def close(self) -> dict[str, int]:
        """Write what is left; rows by table."""
        images = [
            {
                "image_id": row.image_id,
                **_path_columns(row.path),
                "label": row.label,
                "bytes": row.bytes,
                "sha256": row.sha256,
                **vars(row.placement),
            }
            for row in self._images
        ]
        _write(self._folder / "images.parquet", pa.Table.from_pylist(images, schema=schemas.IMAGES))
        _write(self._folder / "rejects.parquet", pa.Table.from_pylist(self._rejects, schema=schemas.REJECTS))
        rows = {"images": len(self._images), "rejects": len(self._rejects)}
        if self._pixels is not None:
            self._flush_pixels()
            self._pixels.close()
            rows["pixels"] = len(self._images)
        return rows

    @property
    def images_sha256(self) -> str:
        """Digest over the images' ids and content hashes."""
        return images_digest([(row.image_id, row.sha256) for row in self._images])

    def _flush_pixels(self) -> None:
        if self._pixels is None or not self._waiting:
            return
        ids = [row.image_id for row in self._images[-len(self._waiting) :]]
        blobs = [pixels.tobytes() for pixels in self._waiting]
        self._pixels.write_table(pa.Table.from_pydict({"image_id": ids, "pixels": blobs}, schema=schemas.PIXELS))
        self._waiting.clear()


class ModelShardWriter(_Writer):
    """Writes some of a model's tables for up to `capacity` images; `add` takes batches in the order of image_id."""

    def __init__(self, folder: Path, model: ModelRecord, class_count: int, tables: Set[str], capacity: int) -> None:
        super().__init__()
        self._folder = folder
        self._grid = model.grid
        self._tables = tables
        self._class_count = class_count
        self._ids: list[NDArray[np.int64]] = []
        self._batches: list[tuple[NDArray[Any], ...]] = []
        self._features: _FeatureFile | None = None
        self._spill: ClassSpill | None = None
        if "features" in tables:
            self._features = _FeatureFile(folder / "features.parquet", model.grid, model.feature_size)
            self._open_files.callback(self._features.close)
        if "evidence" in tables:
            self._spill = ClassSpill(folder / "logits.spill", class_count, capacity * model.grid.patches)
            self._open_files.callback(self._spill.close)

    def add(self, image_ids: NDArray[np.int64], evidence: Evidence) -> None:
        """A batch of images."""
        self._ids.append(image_ids)
        self._batches.append(
            (evidence.max_logit, evidence.max_cell, evidence.logits, evidence.top, evidence.probability)
        )
        if self._spill is not None:
            self._spill.append(evidence.evidence.reshape(-1, self._class_count))
        if self._features is not None:
            self._features.append(image_ids, evidence.features)

    def close(self) -> tuple[dict[str, int], tuple[int, ...] | None]:
        """Write what is left; rows by table, and the byte offset of each image's features where they are kept."""
        ids = np.concatenate(self._ids) if self._ids else np.empty(0, np.int64)
        rows = {}
        if "predictions" in self._tables:
            self._write_summaries(ids)
            rows = {"predictions": len(ids), "image_evidence": len(ids) * self._class_count}
        if self._spill is not None:
            self._write_evidence(ids, self._spill)
            rows["evidence"] = len(ids) * self._grid.patches * self._class_count
        offsets = None
        if self._features is not None:
            offsets = self._features.finish()
            rows["features"] = len(ids) * self._grid.patches
        return rows, offsets

    def _write_summaries(self, ids: NDArray[np.int64]) -> None:
        classes = self._class_count
        if self._batches:
            columns = [np.concatenate(parts) for parts in zip(*self._batches, strict=True)]
        else:
            columns = [np.empty((0, classes))] * 3 + [np.empty((0, min(5, classes))), np.empty(0)]
        max_logit, max_cell, logits, top, probability = columns
        schema = schemas.predictions(classes)
        arrays = {
            "image_id": pa.array(ids),
            "predicted": pa.array(top[:, 0].astype(np.int32)),
            "top5": _fixed_lists(top.astype(np.int32), schema.field("top5").type),
            "probability": pa.array(probability.astype(np.float32)),
            "logits": _fixed_lists(logits.astype(np.float32), schema.field("logits").type),
        }
        _write(self._folder / "predictions.parquet", pa.table(arrays, schema=schema))
        # Class order: transposed, so that one class's rows for all images stand together.
        arrays = {
            "class_id": pa.array(np.repeat(np.arange(classes, dtype=np.int32), len(ids))),
            "image_id": pa.array(np.tile(ids, classes)),
            "max_logit": pa.array(max_logit.T.astype(np.float32).ravel()),
            "patch_id": pa.array((ids * self._grid.patches + max_cell.T.astype(np.int64)).ravel()),
            "mean_logit": pa.array(logits.T.astype(np.float32).ravel()),
        }
        _write(self._folder / "image_evidence.parquet", pa.table(arrays, schema=schemas.IMAGE_EVIDENCE))

    def _write_evidence(self, ids: NDArray[np.int64], spill: ClassSpill) -> None:
        patches = pa.array(patch_ids(self._grid, ids))
        with _open(
            self._folder / "evidence.parquet",
            schemas.EVIDENCE,
            compression={"class_id": "zstd", "patch_id": "zstd", "logit": "none"},
            use_dictionary=["class_id"],
            column_encoding={"patch_id": "DELTA_BINARY_PACKED", "logit": "PLAIN"},
            write_statistics=["class_id", "patch_id"],
            **ONE_PAGE,
        ) as writer:
            for class_id in range(self._class_count):
                logits = spill.read(class_id)
                columns = [np.full(len(logits), class_id, np.int32), patches, logits]
                table = pa.Table.from_arrays([pa.array(column) for column in columns], schema=schemas.EVIDENCE)
                writer.write_table(table, row_group_size=max(1, len(logits)))
        spill.close()


class ClassSpill:
    """A scratch file that takes patch-major logits and gives them back class by class.

    A shard's logits do not fit into memory with a thousand classes. The file has a stretch for each class; some
    megabytes of logits are transposed in memory and appended to the stretches, so both ways are long reads and writes.
    Plain ones, not a memory map, whose touched pages would count as the process's memory.
    """

    _AT_ONCE = 32_000_000

    def __init__(self, path: Path, classes: int, capacity: int) -> None:
        self._path = path
        self._classes = classes
        self._stretch = capacity * 2
        self._filled = 0
        self._waiting: list[NDArray[np.float16]] = []
        self._file = path.open("w+b", buffering=0)

    def append(self, logits: NDArray[np.float16]) -> None:
        """Append float16 [patches, classes]."""
        self._waiting.append(logits)
        if sum(block.nbytes for block in self._waiting) >= self._AT_ONCE:
            self._flush()

    def read(self, class_id: int) -> NDArray[np.float16]:
        """All logits of a class, float16 [patches]."""
        self._flush()
        self._file.seek(class_id * self._stretch)
        return np.fromfile(self._file, dtype=np.float16, count=self._filled // 2)

    def close(self) -> None:
        """Close and remove the file; may be called again."""
        self._file.close()
        self._path.unlink(missing_ok=True)

    def _flush(self) -> None:
        if not self._waiting:
            return
        block = np.ascontiguousarray(np.concatenate(self._waiting).T)
        self._waiting.clear()
        for class_id in range(self._classes):
            data = memoryview(block[class_id]).cast("B")
            offset = class_id * self._stretch + self._filled
            while data:
                written = os.pwrite(self._file.fileno(), data, offset)
                data, offset = data[written:], offset + written
        self._filled += block.shape[1] * 2


class _FeatureFile:
    """Features as a Parquet column that is an array too: each image's values lie in one piece, uncompressed."""

    def __init__(self, path: Path, grid: Grid, feature_size: int) -> None:
        self._path = path
        self._grid = grid
        self._row_bytes = feature_size * 2
        self._schema = schemas.features(feature_size)
        self._sums: list[int] = []
        self._writer = _open(
            path,
            self._schema,
            compression="none",
            use_dictionary=False,
            column_encoding={"patch_id": "DELTA_BINARY_PACKED", "feature.list.element": "PLAIN"},
            write_statistics=["patch_id"],
            **ONE_PAGE,
        )

    def append(self, image_ids: NDArray[np.int64], features: NDArray[np.float16]) -> None:
        """Features float16 [N, patches, D], a row group for each image."""
        for image_id, values in zip(image_ids, features, strict=True):
            ids = patch_ids(self._grid, np.array([image_id]))
            table = pa.Table.from_arrays(
                [pa.array(ids), _fixed_lists(values, self._schema.field("feature").type)], schema=self._schema
            )
            self._writer.write_table(table, row_group_size=len(ids))
            self._sums.append(zlib.crc32(values.tobytes()))

    def close(self) -> None:
        """Close the file; may be called again."""
        self._writer.close()

    def finish(self) -> tuple[int, ...]:
        """Finish the file; the byte offset of each image's values, each checked against what was written."""
        self._writer.close()
        offsets = array_offsets(self._path, column=1, bytes_per_row=self._row_bytes)
        with self._path.open("rb") as file:
            for offset, checksum in zip(offsets, self._sums, strict=True):
                file.seek(offset)
                if zlib.crc32(file.read(self._row_bytes * self._grid.patches)) != checksum:
                    raise RuntimeError(f"{self._path}: pyarrow lays out float16 lists in a way bagindex does not know")
        return offsets


def compressed_size(pixels: NDArray[np.uint8]) -> int:
    """Bytes that an image's pixels take in `pixels.parquet`, nearly."""
    return len(pa.compress(pixels.tobytes(), codec="zstd", asbytes=True))


def hash_files(folder: Path) -> dict[str, FileRecord]:
    """Size and SHA-256 of every file of a shard in the making."""
    return {
        path.name: FileRecord(bytes=path.stat().st_size, sha256=file_sha256(path)) for path in sorted(folder.iterdir())
    }


def images_digest(images: Sequence[tuple[int, str]]) -> str:
    """SHA-256 over `(image_id, content hash)` pairs; ties a model's shard to the images it was computed from."""
    digest = hashlib.sha256()
    for image_id, sha256 in images:
        digest.update(f"{image_id}:{sha256}\n".encode())
    return digest.hexdigest()


def _path_columns(path: bytes) -> Mapping[str, str | bytes | None]:
    text = path_text(path)
    return {"path": text, "path_bytes": None if text.encode() == path else path}


def _fixed_lists(values: NDArray[Any], type_: pa.DataType) -> pa.Array:
    return pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=type_)


def _open(path: Path, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    return pq.ParquetWriter(path, schema, **{"compression": "zstd", **options})


def _write(path: Path, table: pa.Table) -> None:
    with _open(path, table.schema) as writer:
        writer.write_table(table, row_group_size=max(1, table.num_rows))
