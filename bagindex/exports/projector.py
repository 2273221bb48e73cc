"""Patches for TensorBoard's projector: features, what is said of them, and their pictures, as a log folder."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bagindex import output
from bagindex.arrays import to_float32
from bagindex.errors import QueryError
from bagindex.exports.sampled import Sample, batches, draw
from bagindex_schemas.records import ModelRecord

if TYPE_CHECKING:
    from bagindex.opened import Opened

_LARGEST_SPRITE = 8192
"""Pixels of a side: browsers take no larger picture for this."""
_COLUMNS = ("class", "logit", "label_name", "predicted_name", "path", "row", "col", "patch_id")


def write_projector(
    index: Opened, record: ModelRecord, sample: Sample, folder: Path, progress: Callable[[int, int], None]
) -> int:
    """Write the folder, for `tensorboard --logdir FOLDER`: `features.tsv`, `metadata.tsv`, `sprite.png` (where pixels
    are kept) and `projector_config.pbtxt`, which names them.

    Args:
        index, record, sample: which patches.
        folder: it is not there yet, or empty.
        progress: hears how many of how many patches are written.

    Returns:
        How many patches there are.

    Raises:
        QueryError: as for `bagindex.exports.sampled.draw`; or there are more patches than a sprite has room for.
        OutputError: there is something, or the folder cannot be written.
    """
    side = record.grid.receptive_field
    room = (_LARGEST_SPRITE // side) ** 2
    ids = draw(index, record, sample)
    if len(ids) > room:
        raise QueryError(f"the projector has room for the pictures of {room:,} patches: give --sample {room} or less")
    with output.new_folder(folder) as temporary:
        across = int(np.ceil(np.sqrt(len(ids))))
        sheet = np.zeros((-(-len(ids) // across) * side, across * side, 3), np.uint8)
        place, pictures = 0, False
        with (
            (temporary / "features.tsv").open("w", encoding="ascii") as features,
            (temporary / "metadata.tsv").open("w", encoding="utf-8") as metadata,
        ):
            metadata.write("\t".join(_COLUMNS) + "\n")
            for batch in batches(index, record, sample, ids, progress):
                # Five digits say a float16 exactly enough to be read back as the same one.
                np.savetxt(features, to_float32(batch.features), fmt="%.5g", delimiter="\t")
                metadata.writelines("\t".join(_cell(row[name]) for name in _COLUMNS) + "\n" for row in batch.described)
                for crop in batch.crops or ():
                    _paste(sheet, crop, *divmod(place, across), side)
                    place, pictures = place + 1, True
        if pictures:
            Image.fromarray(sheet).save(temporary / "sprite.png", optimize=True)
        (temporary / "projector_config.pbtxt").write_text(
            _config(record, len(ids), side if pictures else None), encoding="utf-8"
        )
    return len(ids)


def _paste(sheet: NDArray[np.uint8], crop: NDArray[np.uint8], row: int, col: int, side: int) -> None:
    height, width = crop.shape[:2]
    sheet[row * side : row * side + height, col * side : col * side + width] = crop


def _cell(value: Any) -> str:
    """A cell of a TSV file, which knows no quotes."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return "" if value is None else " ".join(output.printable(str(value)).split())


def _config(record: ModelRecord, count: int, side: int | None) -> str:
    sprite = (
        ""
        if side is None
        else f"""  sprite {{
    image_path: "sprite.png"
    single_image_dim: {side}
    single_image_dim: {side}
  }}
"""
    )
    return f"""embeddings {{
  tensor_name: {json.dumps(record.name)}
  tensor_shape: {count}
  tensor_shape: {record.feature_size}
  tensor_path: "features.tsv"
  metadata_path: "metadata.tsv"
{sprite}}}
"""
