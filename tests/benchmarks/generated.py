"""Indexes that are generated for benchmarks: random numbers in bagindex's own formats, as many as are asked for.

`generate(folder)` makes one of ImageNet-val's size: 50,000 images, 1,000 classes, BagNet-33's grid of 24 × 24 patches.
One thing no real index has: `evidence` is whole for 20 classes only, 28.8 million rows each, for a thousand would take
58 GB. Every other class has one patch in each shard, so that there are as many row groups for DuckDB to leave out as in
a real index. There are no pixels, features or weights.

`generate(folder, shown=True)` makes an index that can be looked at too (8 GB more): it has pixels, and `evidence` has a
row for every patch, zero for all classes but those 20; the zeros are holes in the file, which take no space. What a
disk would take to read them is so not measured.
"""

from __future__ import annotations

import hashlib
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from bagindex import catalog
from bagindex.array_file import ArrayFile
from bagindex.geometry import patch_ids, place
from bagindex.labels import imagenet_classes
from bagindex.plan import cut, shard_size
from bagindex.registry import ARCHITECTURES
from bagindex.shards import PIXELS_PER_ROW_GROUP, Written, hash_files
from bagindex.store import IMAGES, SHARD, IndexDirectory
from bagindex.tables import EVIDENCE_ENCODINGS, write_image_evidence
from bagindex_schemas import tables
from bagindex_schemas.records import (
    Environment,
    FileRecord,
    Grid,
    IndexManifest,
    Keep,
    ModelRecord,
    Plan,
    ShardManifest,
    ShardRange,
    SourceRecord,
    Transform,
)

IMAGE_COUNT = 50_000
MODEL = "bagnet33"
GRID = Grid(receptive_field=33, stride=8, rows=24, cols=24)
SIZES = ((500, 375), (500, 333), (375, 500), (640, 480), (1024, 768), (256, 256))
SEED = 20190506
PICTURES = 240
"""Distinct pictures, of which every image has one."""
NOISE = 8.0
"""Of a picture: with it a patch of 33 × 33 pixels is a PNG of 2.4 kB, about what a photograph's is."""
_NOT_ASKED = -20.0
"""An image's logit for a class that nobody asks about."""
_HOLE = 1_000_000
"""Bytes of zeros from which on a file has a hole instead."""


CLASSES = imagenet_classes()
WHOLE = tuple(range(0, len(CLASSES), 50))
"""Classes whose evidence is whole. The first is asked about, the second where a question needs two."""
ASKED, OTHER = (CLASSES[class_id].name for class_id in WHOLE[:2])


@dataclass(frozen=True)
class Size:
    """What is generated.

    Attributes:
        images, classes: how many.
        keep: `evidence` or `summary`.
        shard: images of a shard; None: as a build takes it.
        pixels: whether there are.
        every_patch: whether `evidence` has a row for every patch of every class.
        asked: `image_evidence` has the rows of so many classes only, and no other class has a logit that is looked
            for; None: of all.
    """

    images: int = IMAGE_COUNT
    classes: int = len(CLASSES)
    keep: Keep = Keep.EVIDENCE
    shard: int | None = None
    pixels: bool = False
    every_patch: bool = False
    asked: int | None = None


def make_manifest(size: Size) -> IndexManifest:
    """`index.json` of the generated index."""
    fingerprint = f"{SEED} {size}"
    source = SourceRecord(
        kind="generated", name="generated", location="", fingerprint=fingerprint, files=size.images, listed=size.images
    )
    classes = CLASSES[: size.classes]
    plan = Plan(
        source=source,
        transform=Transform(resize=256, crop_height=224, crop_width=224),
        classes=classes,
        labels={str(record.wnid): record.class_id for record in classes},
        pixels=size.pixels,
        shards=cut(size.images, size.shard or shard_size(size.images)),
    )
    model = ModelRecord(
        name=MODEL,
        architecture=ARCHITECTURES[MODEL].name,
        width=1.0,
        parameters=18_310_184,
        feature_size=2048,
        grid=GRID,
        levels=(size.keep,),
        weights_sha256="0" * 64,
        file_bytes=0,
        file_sha256="0" * 64,
        environment=Environment(device="none", threads=1, batch_size=1, precision="fp32", versions={}),
    )
    return IndexManifest(plan=plan, models={MODEL: model})


def generate(folder: Path, shown: bool = False, size: Size | None = None) -> None:
    """Write the index, or what is missing of it.

    Args:
        folder: where.
        shown: whether it is to be looked at: see the module's text.
        size: another one than ImageNet-val's.
    """
    size = size or Size(pixels=shown, every_patch=shown)
    directory, manifest = IndexDirectory(folder), make_manifest(size)
    with directory.writing():
        if not directory.exists() or directory.manifest() != manifest:
            directory.clear()  # of an older version of this file
            directory.write_manifest(manifest)
        labels = np.random.default_rng(SEED).permutation(np.arange(size.images) % size.classes).astype(np.int32)
        for shard, span in enumerate(manifest.shards):
            ids = np.arange(span.first, span.first + span.count)
            for series, write in ((IMAGES, write_images), (MODEL, write_model)):
                if shard not in directory.committed(series):
                    with _shard(directory, manifest, series, shard, span) as (temporary, rows, hashed):
                        written = write(temporary, manifest, size, ids, labels[ids])
                        rows |= written.rows
                        hashed |= written.files
            print(f"shard {shard + 1} of {len(manifest.shards)}", end="\r", file=sys.stderr, flush=True)
        catalog.update(directory)


@contextmanager
def _shard(
    directory: IndexDirectory, manifest: IndexManifest, series: str, shard: int, span: ShardRange
) -> Iterator[tuple[Path, dict[str, int], dict[str, FileRecord]]]:
    rows: dict[str, int] = {}
    hashed: dict[str, FileRecord] = {}
    with directory.new_folder(directory.shard_path(series, shard), SHARD) as temporary:
        yield temporary, rows, hashed
        images = hashlib.sha256("\n".join(_sha256(number) for number in _range(span)).encode()).hexdigest()
        written = hash_files(temporary, hashed) | hashed
        record = ShardManifest(
            kind="images" if series == IMAGES else "model",
            shard=shard,
            plan_sha256=manifest.plan.digest(),
            span=span,
            images_sha256=images,
            rows=rows,
            files=written,
        )
        directory.complete(temporary, record)


def _range(span: ShardRange) -> range:
    return range(span.first, span.first + span.count)


def _sha256(image_id: int) -> str:
    return hashlib.sha256(f"picture {image_id}".encode()).hexdigest()


def write_images(
    folder: Path, manifest: IndexManifest, size: Size, ids: NDArray[np.int64], labels: NDArray[np.int32]
) -> Written:
    """`images.parquet`, an empty `rejects.parquet`, and `pixels.parquet` where the plan has pixels."""
    rng = np.random.default_rng((SEED, 1, int(ids[0])))
    images = [
        {
            "image_id": int(image_id),
            "path": f"ILSVRC2012_val_{image_id + 1:08d}.JPEG",
            "path_bytes": None,
            "label": int(label),
            "bytes": int(rng.integers(20_000, 300_000)),
            "sha256": _sha256(image_id),
            **vars(place(manifest.plan.transform, *SIZES[rng.integers(len(SIZES))])),
        }
        for image_id, label in zip(ids, labels, strict=True)
    ]
    _write(folder / "images.parquet", pa.Table.from_pylist(images, schema=tables.IMAGES))
    _write(folder / "rejects.parquet", tables.REJECTS.empty_table())
    rows = {"images": len(images), "rejects": 0}
    if size.pixels:
        rows["pixels"] = write_pixels(folder, manifest.plan.transform, ids)
    return Written(rows)


@cache
def pictures(height: int, width: int) -> tuple[bytes, ...]:
    """Smooth fields of colours with a little noise, that cost little to make and look like nothing."""
    rng = np.random.default_rng((SEED, 3))
    found = []
    for _ in range(PICTURES):
        coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
        smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), np.float32)
        grain = rng.standard_normal((height, width, 1), np.float32) * NOISE
        tint = rng.standard_normal((height, width, 3), np.float32) * (NOISE / 3)
        found.append((smooth + grain + tint).clip(0, 255).astype(np.uint8).tobytes())
    return tuple(found)


def write_pixels(folder: Path, transform: Transform, ids: NDArray[np.int64]) -> int:
    """`pixels.parquet`, of as many images in a row group as a build's; the number of rows."""
    blobs = pictures(transform.crop_height, transform.crop_width)
    path = folder / "pixels.parquet"
    with pq.ParquetWriter(path, tables.PIXELS, compression="zstd", use_dictionary=False) as writer:
        for start in range(0, len(ids), PIXELS_PER_ROW_GROUP):
            some = ids[start : start + PIXELS_PER_ROW_GROUP].tolist()
            # Neighbours have different ones, or zstd would find the one in the other.
            columns = {"image_id": some, "pixels": [blobs[image_id % PICTURES] for image_id in some]}
            writer.write_table(pa.Table.from_pydict(columns, schema=tables.PIXELS))
    return len(ids)


def write_model(
    folder: Path, manifest: IndexManifest, size: Size, ids: NDArray[np.int64], labels: NDArray[np.int32]
) -> Written:
    """A model's tables: random logits, from 6 in 10 of which the image's label comes out."""
    rng = np.random.default_rng((SEED, 2, int(ids[0])))
    count, classes = len(ids), len(manifest.plan.classes)
    logits = rng.standard_normal((count, classes), dtype=np.float32) * np.float32(1.3)
    logits[np.arange(count), labels] += rng.normal(4.5, 2.5, count).astype(np.float32)
    above = 5 + 2 * rng.gumbel(size=(count, classes)).astype(np.float32)
    max_logit = (logits + np.abs(above)).astype(np.float16).astype(np.float32)
    cells = rng.integers(0, GRID.patches, (count, classes))
    logits[:, size.asked or classes :] = _NOT_ASKED

    def whole(class_id: int) -> NDArray[np.float16]:
        """All evidence of a class, of which the summaries then are."""
        patches = logits[:, class_id, None] + 3 * rng.standard_normal((count, GRID.patches), dtype=np.float32)
        rounded = patches.astype(np.float16)
        logits[:, class_id] = patches.mean(axis=1, dtype=np.float64)
        cells[:, class_id] = rounded.argmax(axis=1)
        max_logit[:, class_id] = rounded.max(axis=1)
        return rounded.ravel()

    if size.keep is Keep.SUMMARY:
        evidence = Written()
    elif size.every_patch:
        evidence = write_evidence(folder, classes, ids, whole)
    else:
        strongest = ids[:1] * GRID.patches + cells[:1].T, max_logit[:1].T.astype(np.float16)
        evidence = write_some_evidence(folder, classes, ids, whole, strongest)
    _write_summaries(folder, ids, logits, max_logit, cells, size.asked or classes)
    rows = {"predictions": count, "image_evidence": count * (size.asked or classes)}
    return Written({**rows, **evidence.rows}, evidence.files)


def write_some_evidence(
    folder: Path,
    classes: int,
    ids: NDArray[np.int64],
    whole: Callable[[int], NDArray[np.float16]],
    strongest: tuple[NDArray[np.int64], NDArray[np.float16]],
) -> Written:
    """`evidence.parquet` with one patch of most classes: patch_id and logit [classes, 1] are `strongest`."""
    written = 0
    with pq.ParquetWriter(
        folder / "evidence.parquet",
        tables.EVIDENCE,
        compression={"class_id": "zstd", "patch_id": "zstd", "logit": "none"},
        use_dictionary=["class_id"],
        column_encoding={"patch_id": "DELTA_BINARY_PACKED", "logit": "PLAIN"},
        write_statistics=["class_id", "patch_id"],
        data_page_size=1 << 30,
        max_rows_per_page=1 << 30,
    ) as writer:
        for class_id in range(classes):
            if class_id in WHOLE:
                columns = patch_ids(GRID, ids), whole(class_id)
            else:
                columns = strongest[0][class_id], strongest[1][class_id]
            arrays = [pa.array(np.full(len(columns[0]), class_id, np.int32)), *map(pa.array, columns)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=tables.EVIDENCE), row_group_size=len(columns[0]))
            written += len(columns[0])
    return Written({"evidence": written})


class FileWithHoles(ArrayFile):
    """An `ArrayFile` with holes where arrays are nothing but zeros: they read as zeros and take no space."""

    def _write(self, data: bytes | memoryview) -> None:
        if len(data) < _HOLE or np.frombuffer(data, np.uint8).any():
            super()._write(data)
            return
        os.lseek(self._file.fileno(), len(data), os.SEEK_CUR)
        self._digest.update(data)
        self._position += len(data)


def write_evidence(
    folder: Path, classes: int, ids: NDArray[np.int64], whole: Callable[[int], NDArray[np.float16]]
) -> Written:
    """`evidence.parquet` with every patch of every class, as a build writes it, but for the holes."""
    with FileWithHoles(folder / "evidence.parquet", tables.EVIDENCE, EVIDENCE_ENCODINGS) as file:
        patches = file.encode("patch_id", patch_ids(GRID, ids))
        zeros = np.zeros(patches.rows, np.float16)
        for class_id in range(classes):
            constant = file.encode_constant("class_id", class_id, patches.rows)
            file.append([constant, patches], whole(class_id) if class_id in WHOLE else zeros)
        record = file.finish().record
    return Written({"evidence": patches.rows * classes}, {"evidence.parquet": record})


def _write_summaries(
    folder: Path,
    ids: NDArray[np.int64],
    logits: NDArray[np.float32],
    max_logit: NDArray[np.float32],
    cells: NDArray[np.int64],
    asked: int,
) -> None:
    classes = logits.shape[1]
    top = np.argsort(-logits, axis=1, kind="stable")[:, :5].astype(np.int32)
    probability = 1 / np.exp(logits - logits.max(axis=1, keepdims=True)).sum(axis=1)
    schema = tables.predictions(classes)
    arrays = [
        pa.array(ids),
        pa.array(top[:, 0]),
        pa.FixedSizeListArray.from_arrays(pa.array(top.ravel()), type=schema.field("top5").type),
        pa.array(probability.astype(np.float32)),
        pa.FixedSizeListArray.from_arrays(pa.array(logits.ravel()), type=schema.field("logits").type),
    ]
    _write(folder / "predictions.parquet", pa.Table.from_arrays(arrays, schema=schema))
    patches = ids * GRID.patches + cells.T[:asked]
    write_image_evidence(folder, ids, max_logit.T[:asked], patches, logits.T[:asked])


def _write(path: Path, table: pa.Table) -> None:
    pq.write_table(table, path, compression="zstd", row_group_size=max(1, table.num_rows))
