"""A stored map becomes an answer: what its points are, and their evidence."""

from __future__ import annotations

import numpy as np

from bagindex.accounts.shortcuts import Crops
from bagindex.catalog import Catalog
from bagindex.patch_maps.result import PatchMap, Point
from bagindex.patch_maps.stored import StoredMap
from bagindex.stored import StoredEvidence
from bagindex.words.vocabulary import Vocabulary
from bagindex_schemas.records import ClassRecord


def ask(
    catalog: Catalog,
    evidence: StoredEvidence,
    found: StoredMap,
    vocabulary: Vocabulary | None,
    asked: ClassRecord | None,
    crops: Crops,
) -> PatchMap:
    """Answer with a map.

    Args:
        catalog, evidence: the index's, and the model's.
        found: the map.
        vocabulary: the words that it is of; None: it is of patches.
        asked: the class whose evidence colours it; None: what each point speaks most for.
        crops: gives the patches' pixels.
    """
    image_ids = found.patch_ids // evidence.patches
    logits = found.logits
    if asked is not None and vocabulary is not None:
        logits = vocabulary.means[asked.class_id, found.words].astype(np.float32)
    elif asked is not None:
        logits = evidence.of_patches(asked.class_id, found.patch_ids).astype(np.float32)
    wanted = ", ".join(map(str, np.unique(image_ids).tolist()))
    rows = catalog.rows(f"SELECT image_id, path, label_name FROM images WHERE image_id IN ({wanted})")
    images = {image_id: (path, label) for image_id, path, label in rows}
    names = [record.name for record in catalog.manifest.plan.classes]
    points = []
    for place, (patch_id, image_id) in enumerate(zip(found.patch_ids.tolist(), image_ids.tolist(), strict=True)):
        path, label = images[image_id]
        points.append(
            Point(
                patch_id=patch_id,
                image_id=image_id,
                word=None if vocabulary is None else int(found.words[place]),
                x=float(found.places[place, 0]),
                y=float(found.places[place, 1]),
                class_=names[found.class_ids[place]] if asked is None else asked.name,
                logit=float(logits[place]),
                label=label,
                path=path,
            )
        )
    return PatchMap(evidence.record.name, asked, tuple(points), found.record, evidence.record.grid, crops)
