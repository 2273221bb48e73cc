"""What writes the files of a shard, and the tables of its images."""

from __future__ import annotations

import hashlib
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagindex.arrays import CHECKED
from bagindex.evidence import Evidence
from bagindex.geometry import Placement
from bagindex.images import Rejected
from bagindex.store import file_sha256
from bagindex.text import path_text
from bagindex_schemas import tables as schemas
from bagindex_schemas.records import FileRecord

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


@dataclass(frozen=True)
class Written:
    """What a writer wrote: rows by table, the files that are hashed already, and where each image's features begin."""

    rows: Mapping[str, int] = field(default_factory=dict)
    files: Mapping[str, FileRecord] = field(default_factory=dict)
    feature_offsets: tuple[int, ...] | None = None

    def merge(self, other: Written) -> Written:
        """Both together."""
        offsets = self.feature_offsets if other.feature_offsets is None else other.feature_offsets
        return Written({**self.rows, **other.rows}, {**self.files, **other.files}, offsets)


class Writer(Protocol):
    """Writes one or several files of a shard."""

    def finish(self) -> Written:
        """Write what is left."""

    def close(self) -> None:
        """Close what is open, finished or not; may be called again."""


class TableWriter(Writer, Protocol):
    """Writes some of a model's tables; `add` takes batches in the order of image_id."""

    def add(self, image_ids: NDArray[np.int64], evidence: Evidence) -> None:
        """A batch of images."""


class ImagesWriter:
    """Writes `images.parquet`, `rejects.parquet` and, where pixels are kept, `pixels.parquet`.

    `add` and `reject` must be called in the order of image_id.
    """

    def __init__(self, folder: Path, keep_pixels: bool) -> None:
        self._folder = folder
        self._images: list[ImageRow] = []
        self._rejects: list[dict[str, Any]] = []
        self._pixels: pq.ParquetWriter | None = None
        if keep_pixels:
            self._pixels = _open_table(folder / "pixels.parquet", schemas.PIXELS, use_dictionary=False)
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

    def finish(self) -> Written:
        """Write what is left."""
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
        write_table(self._folder / "images.parquet", pa.Table.from_pylist(images, schema=schemas.IMAGES))
        write_table(self._folder / "rejects.parquet", pa.Table.from_pylist(self._rejects, schema=schemas.REJECTS))
        rows = {"images": len(self._images), "rejects": len(self._rejects)}
        if self._pixels is not None:
            self._flush_pixels()
            self._pixels.close()
            rows["pixels"] = len(self._images)
        return Written(rows)

    def close(self) -> None:
        """Close what is open; may be called again."""
        if self._pixels is not None:
            self._pixels.close()

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


def compressed_size(pixels: NDArray[np.uint8]) -> int:
    """Bytes that an image's pixels take in `pixels.parquet`, nearly."""
    return len(pa.compress(pixels.tobytes(), codec="zstd", asbytes=True))


def hash_files(folder: Path, without: Container[str] = ()) -> dict[str, FileRecord]:
    """Size and SHA-256 of the files of a shard, but for some."""
    paths = [path for path in sorted(folder.iterdir()) if path.name not in without]
    return {path.name: FileRecord(bytes=path.stat().st_size, sha256=file_sha256(path)) for path in paths}


def images_digest(images: Sequence[tuple[int, str]]) -> str:
    """SHA-256 over `(image_id, content hash)` pairs; ties a model's shard to the images it was computed from."""
    digest = hashlib.sha256()
    for image_id, sha256 in images:
        digest.update(f"{image_id}:{sha256}\n".encode())
    return digest.hexdigest()


def _path_columns(path: bytes) -> Mapping[str, str | bytes | None]:
    text = path_text(path)
    return {"path": text, "path_bytes": None if text.encode() == path else path}


def _open_table(path: Path, schema: pa.Schema, **options: Any) -> pq.ParquetWriter:
    """Begin a Parquet file."""
    return pq.ParquetWriter(path, schema, **CHECKED, **options)


def write_table(path: Path, table: pa.Table, row_group_size: int | None = None, **options: Any) -> None:
    """Write a table, as one row group or in groups of so many rows; `options` are pyarrow's."""
    with _open_table(path, table.schema, **options) as writer:
        writer.write_table(table, row_group_size=max(1, row_group_size or table.num_rows))
