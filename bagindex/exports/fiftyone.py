"""A data set for FiftyOne: images with their label and prediction, and their strongest patches as detections."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from bagindex import output
from bagindex.choosing import images_of, rows
from bagindex.errors import QueryError, SettingsError
from bagindex.geometry import Box, Placement, patch_box, to_source
from bagindex.maps import strongest
from bagindex_schemas.records import ModelRecord

if TYPE_CHECKING:
    from bagindex.opened import Opened

_STEP = 64
"""Images whose pixels are read at a time."""


@dataclass(frozen=True)
class Detected:
    """What becomes of an image.

    Attributes:
        per_class: how many of its patches become detections, for its predicted class and for its label each; they do
            not overlap.
        where: a condition on images, as for `top_patches`.
        source: the folder of the original files, which are shown then; None: the model's inputs, as they are stored,
            are written beside.
    """

    per_class: int = 5
    where: str | None = None
    source: Path | None = None


def write_fiftyone(
    index: Opened, record: ModelRecord, wanted: Detected, folder: Path, progress: Callable[[int, int], None]
) -> int:
    """Write the folder, for `fiftyone.Dataset.from_dir(FOLDER, dataset_type=fiftyone.types.FiftyOneDataset)`.

    Each sample has `ground_truth` and `prediction` (classifications; the prediction's confidence is its probability)
    and `evidence`: detections labelled with the class that the patch speaks for, with `logit`, `patch_id`, `row`,
    `col`, and `role`, which says whether that is the `predicted` class, the `label`, or `both`.

    Args:
        index, record: whose.
        wanted: which images and patches.
        folder: it is not there yet, or empty.
        progress: hears how many of how many images are written.

    Returns:
        How many images there are.

    Raises:
        QueryError: `where` is no condition, or no image meets it.
        NotKeptError: neither pixels are kept, nor is `source` given.
        SettingsError: `source` is no folder.
        OutputError: there is something, or the folder cannot be written.
    """
    if wanted.source is not None and not wanted.source.is_dir():
        raise SettingsError(f"the source {wanted.source} is not a folder: give the one that the index was built from")
    catalog = index._catalog
    sql = images_of(catalog, record, [], wanted.where, predictions=False)
    ids = sorted(row[0] for row in rows(catalog, sql, {}))
    if not ids:
        raise QueryError("there is no image to export" + (f": no image meets {wanted.where!r}" if wanted.where else ""))
    with output.new_folder(folder) as temporary:
        with (temporary / "samples.json").open("w", encoding="utf-8") as file:
            file.write('{"samples": [')
            for done, sample in enumerate(_samples(index, record, wanted, ids, temporary), start=1):
                file.write(("\n" if done == 1 else ",\n") + json.dumps(sample, ensure_ascii=False))
                progress(done, len(ids))
            file.write("\n]}\n")
        about = {
            "name": index.name,
            "media_type": "image",
            "info": {
                "index": index.name,
                "model": record.name,
                "weights_sha256": record.weights_sha256,
                "classes": [each.name for each in index.classes],
            },
        }
        (temporary / "metadata.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")
    return len(ids)


def _samples(
    index: Opened, record: ModelRecord, wanted: Detected, ids: Sequence[int], folder: Path
) -> Iterator[dict[str, Any]]:
    catalog = index._catalog
    transform = catalog.manifest.plan.transform
    size = transform.crop_width, transform.crop_height
    for first in range(0, len(ids), _STEP):
        part = ids[first : first + _STEP]
        sql = f"""
            SELECT i.image_id, i.path, i.label, i.label_name, p.predicted, p.probability,
                   i.width, i.height, i.resized_width, i.resized_height, i.crop_left, i.crop_top
            FROM (SELECT unnest($ids::BIGINT[]) AS image_id) JOIN images AS i USING (image_id)
            JOIN {catalog.relation(record, "predictions")} AS p USING (image_id) ORDER BY image_id"""
        pixels = {} if wanted.source is not None else index._pixels(part)
        for image_id, path, label, label_name, predicted, probability, *placed in rows(catalog, sql, {"ids": part}):
            if wanted.source is None:
                name = f"data/{image_id:08d}.png"
                (folder / "data").mkdir(exist_ok=True)
                Image.fromarray(pixels[image_id]).save(folder / name)
            else:
                name = str((wanted.source / path).resolve())
            boxes = _Boxes(size, Placement(*placed) if wanted.source is not None else None)
            yield {
                "filepath": name,
                "tags": [],
                "image_id": image_id,
                "path": path,
                "ground_truth": None if label is None else {"_cls": "Classification", "label": label_name},
                "prediction": {
                    "_cls": "Classification",
                    "label": index.classes[predicted].name,
                    "confidence": probability,
                },
                "evidence": {
                    "_cls": "Detections",
                    "detections": [
                        {"_cls": "Detection", "bounding_box": boxes.of(box), **fields}
                        for box, fields in _patches(index, record, image_id, label, predicted, wanted.per_class)
                    ],
                },
            }


@dataclass(frozen=True)
class _Boxes:
    """Boxes as shares of a picture's sides: [x, y, width, height]."""

    size: tuple[int, int]
    placement: Placement | None

    def of(self, box: Box) -> list[float]:
        """A patch's box in the model's input, or in the original file where that is shown."""
        x0, y0, x1, y1 = box if self.placement is None else to_source(box, self.placement)
        width, height = self.size if self.placement is None else (self.placement.width, self.placement.height)
        return [x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height]


def _patches(
    index: Opened, record: ModelRecord, image_id: int, label: int | None, predicted: int, count: int
) -> Iterator[tuple[Box, dict[str, Any]]]:
    """The strongest patches of an image for its predicted class and its label."""
    grid = record.grid
    roles = {predicted: "both" if label == predicted else "predicted"}
    if label is not None and label != predicted:
        roles[label] = "label"
    if "evidence" in record.keep.tables:
        stored = index._stored_evidence(record)
        (place,) = stored.places(np.array([image_id]))
        values = stored.of_image(int(place), list(roles)).reshape(len(roles), grid.rows, grid.cols)
        found = {
            class_id: [(cell, float(value[cell])) for cell in strongest(value, grid, count)]
            for class_id, value in zip(roles, values.astype(np.float32), strict=True)
        }
    else:
        catalog = index._catalog
        sql = f"""
            SELECT class_id, patch_id, max_logit FROM {catalog.relation(record, "image_evidence")}
            WHERE image_id = {image_id} AND class_id IN ({", ".join(map(str, roles))})"""
        found = {
            class_id: [(divmod(patch_id % grid.patches, grid.cols), logit)]
            for class_id, patch_id, logit in catalog.rows(sql)
        }
    for class_id, cells in found.items():
        for (row, col), logit in cells:
            yield (
                patch_box(grid, row, col),
                {
                    "label": index.classes[class_id].name,
                    "logit": logit,
                    "patch_id": image_id * grid.patches + row * grid.cols + col,
                    "row": row,
                    "col": col,
                    "role": roles[class_id],
                },
            )
