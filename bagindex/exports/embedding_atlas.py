"""Patches for Apple's Embedding Atlas: a Parquet file with their features, pictures and evidence."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image

from bagindex import output, render
from bagindex.arrays import to_float32
from bagindex.exports.sampled import PatchBatch, Sample, batches, draw
from bagindex_schemas.records import ModelRecord

if TYPE_CHECKING:
    import numpy as np

    from bagindex.opened import Opened

_PICTURE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
"""As Hugging Face's data sets have pictures, which the Atlas shows."""
_TEXT = ("class", "label", "predicted", "path")
_NUMBERS = ("patch_id", "image_id", "row", "col")


def write_embedding_atlas(
    index: Opened, record: ModelRecord, sample: Sample, path: Path, progress: Callable[[int, int], None]
) -> int:
    """Write the file.

    Args:
        index, record, sample: which patches.
        path: a `.parquet`.
        progress: hears how many of how many patches are written.

    Returns:
        How many patches there are.

    Raises:
        QueryError: as for `bagindex.exports.sampled.draw`.
        OutputError: another ending, or the file cannot be written.
    """
    output.check_ending(path, (".parquet",))
    ids = draw(index, record, sample)
    schema = pa.schema(
        [
            *([("patch", _PICTURE)] if index._catalog.manifest.plan.pixels else ()),
            ("logit", pa.float32()),
            *((name, pa.string()) for name in _TEXT),
            *((name, pa.int64()) for name in _NUMBERS),
            ("feature", pa.list_(pa.float32())),
        ]
    )

    def write(temporary: Path) -> None:
        with pq.ParquetWriter(temporary, schema, compression="zstd") as writer:
            for batch in batches(index, record, sample, ids, progress):
                writer.write_table(_table(batch, schema))

    output.save(path, {".parquet": write})
    return len(ids)


def _table(batch: PatchBatch, schema: pa.Schema) -> pa.Table:
    rows = [{**row, "label": row["label_name"], "predicted": row["predicted_name"]} for row in batch.described]
    columns = {name: [row[name] for row in rows] for name in (*_NUMBERS, *_TEXT, "logit")}
    if batch.crops is not None:
        columns["patch"] = [
            {"bytes": _png(crop), "path": f"{row['patch_id']}.png"} for row, crop in zip(rows, batch.crops, strict=True)
        ]
    columns["feature"] = list(to_float32(batch.features))
    return pa.Table.from_pydict(columns, schema=schema)


def _png(crop: NDArray[np.uint8]) -> bytes:
    return render.to_png(Image.fromarray(crop))
