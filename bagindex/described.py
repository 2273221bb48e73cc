"""What there is to say of a patch: its image, and where it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bagindex.catalog import Catalog
from bagindex.choosing import rows
from bagindex.errors import DamagedIndexError
from bagindex.geometry import Placement, locate, patch_box, to_source
from bagindex_schemas.records import ModelRecord


def describe(catalog: Catalog, model: ModelRecord, patch_ids: Sequence[int]) -> list[dict[str, Any]]:
    """The fields of `bagindex.results.PlacedPatch` but for the rank, for each patch.

    Raises:
        DamagedIndexError: a patch is of no image of the index.
    """
    ids = sorted({patch_id // model.grid.patches for patch_id in patch_ids})
    # Joined with few ids, DuckDB looks at those rows; with `image_id IN (...)` it reads all of the paths.
    sql = f"""
        SELECT image_id, i.path, i.label, i.label_name, p.predicted,
               i.width, i.height, i.resized_width, i.resized_height, i.crop_left, i.crop_top
        FROM (SELECT unnest($ids::BIGINT[]) AS image_id) JOIN images AS i USING (image_id)
        JOIN {catalog.relation(model, "predictions")} AS p USING (image_id)"""
    images = {row[0]: row[1:] for row in rows(catalog, sql, {"ids": ids})}
    classes = catalog.manifest.plan.classes
    found = []
    for patch_id in patch_ids:
        image_id, row, col = locate(model.grid, patch_id)
        if image_id not in images:
            raise DamagedIndexError(f"{model.name} has a patch {patch_id} of no image: run `bagindex verify`")
        path, label, label_name, predicted, *placement = images[image_id]
        box = patch_box(model.grid, row, col)
        found.append(
            {
                "model": model.name,
                "patch_id": patch_id,
                "image_id": image_id,
                "path": path,
                "label": label,
                "label_name": label_name,
                "predicted": predicted,
                "predicted_name": classes[predicted].name,
                "row": row,
                "col": col,
                "box": box,
                "source_box": to_source(box, Placement(*placement)),
            }
        )
    return found
