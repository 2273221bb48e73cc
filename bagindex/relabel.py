"""Labels that are given later: kept beside the original ones, used in their place, nothing computed again."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bagindex import catalog
from bagindex.errors import LabelError
from bagindex.labels import map_labels, read_labels
from bagindex.listing import known_files
from bagindex.store import IMAGES, IndexDirectory
from bagindex.text import path_text, some
from bagindex_schemas import tables
from bagindex_schemas.records import Relabelling


def relabel(directory: IndexDirectory, labels: Path, class_map: Mapping[str, str | None] | None = None) -> int:
    """Give images other labels, by a CSV or Parquet file with the columns `path` and `label`; how many it names.

    An empty label makes an image unlabelled. Images that the file does not name keep the label that they came with.

    Raises:
        LabelError: the file cannot be read, names an image twice or one that the index has not, or a label is no class.
    """
    rows = read_labels(labels)
    with directory.writing():
        manifest = directory.manifest()
        known = known_files(directory, directory.committed(IMAGES))
        ids = {path_text(path): found.image_id for path, found in known.items() if found.code is None}
        if unknown := [path for path in rows if path not in ids]:
            raise LabelError(f"{labels.name} names {len(unknown)} images that the index has not: {some(unknown)}")
        names = [label for label in rows.values() if label is not None]
        class_ids = map_labels(names, manifest.plan.classes, dict(class_map or {}))
        given = sorted((ids[path], None if label is None else class_ids[label]) for path, label in rows.items())
        table = pa.table(
            {"image_id": [image_id for image_id, _ in given], "label": [label for _, label in given]},
            schema=tables.LABELS,
        )
        data = io.BytesIO()
        pq.write_table(table, data, compression="zstd")
        digest = hashlib.sha256(data.getvalue()).hexdigest()
        file = f"labels-{digest[:12]}.parquet"
        directory.write_file(file, data.getvalue())
        _put(directory, Relabelling(file=file, sha256=digest, images=len(given)))
    return len(given)


def restore_labels(directory: IndexDirectory) -> None:
    """Go back to the labels that the images came with."""
    with directory.writing():
        _put(directory, None)


def _put(directory: IndexDirectory, relabelling: Relabelling | None) -> None:
    """Make labels the ones in force. Their file has a name of its own, so that no state is half old and half new."""
    directory.write_manifest(directory.manifest().model_copy(update={"relabelling": relabelling}))
    catalog.update(directory)
    for path in directory.root.glob("labels-*.parquet"):
        if relabelling is None or path.name != relabelling.file:
            directory.drop(path)
