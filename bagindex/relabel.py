"""Labels that are given later: kept beside the original ones, used in their place, nothing computed again."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Callable, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bagindex import catalog
from bagindex.errors import DamagedIndexError, LabelError
from bagindex.labels import map_labels, read_labels
from bagindex.listing import known_files
from bagindex.store import IMAGES, IndexDirectory
from bagindex.text import path_text, some
from bagindex_schemas import tables
from bagindex_schemas.records import Relabelling


def relabel(
    directory: IndexDirectory,
    labels: Path | Mapping[str, str | None],
    class_map: Mapping[str, str | None] | None = None,
    *,
    add: bool = False,
    note: Callable[[str], None] = lambda _text: None,
) -> int:
    """Give images other labels; how many are named.

    Args:
        directory: the index.
        labels: a CSV or Parquet file with the columns `path` and `label`, or the labels by path. An empty label makes
            an image unlabelled.
        class_map: what labels mean that are no classes.
        add: images that are not named keep the labels that they were given before; otherwise those that they came with.
        note: hears how many labels that were given before are gone.

    Raises:
        LabelError: the file cannot be read, names no image, one twice or one that the index has not, or a label is no
            class.
    """
    rows, source = (read_labels(labels), labels.name) if isinstance(labels, Path) else (dict(labels), "this")
    if not rows:
        raise LabelError(f"{source} names no image: `bagindex relabel --original` goes back to the original labels")
    with directory.writing():
        manifest = directory.manifest()
        known = known_files(directory, directory.committed(IMAGES))
        ids = {path_text(path): found.image_id for path, found in known.items() if found.code is None}
        if unknown := [path for path in rows if path not in ids]:
            raise LabelError(f"{source} names {len(unknown)} images that the index has not: {some(unknown)}")
        names = [label for label in rows.values() if label is not None]
        class_ids = map_labels(names, manifest.plan.classes, dict(class_map or {}))
        named = {ids[path]: None if label is None else class_ids[label] for path, label in rows.items()}
        given = {**_given(directory, manifest.relabelling), **named} if add else named
        order = sorted(given)
        table = pa.table({"image_id": order, "label": [given[each] for each in order]}, schema=tables.LABELS)
        data = io.BytesIO()
        pq.write_table(table, data, compression="zstd")
        digest = hashlib.sha256(data.getvalue()).hexdigest()
        file = f"labels-{digest[:12]}.parquet"
        directory.write_file(file, data.getvalue())
        gone = 0 if add else len(_earlier(directory, manifest.relabelling) - named.keys())
        _put(directory, Relabelling(file=file, sha256=digest, images=len(given)))
    if gone:
        note(f"the labels that were given to {gone:,} other images before are gone; --add keeps them")
    return len(rows)


def _given(directory: IndexDirectory, relabelling: Relabelling | None) -> dict[int, int | None]:
    """The labels in force that were given later, by image."""
    if relabelling is None:
        return {}
    catalog.check_labels(directory, relabelling)
    table = pq.read_table(directory.whole(directory.inside(relabelling.file)), schema=tables.LABELS)
    return dict(zip(table["image_id"].to_pylist(), table["label"].to_pylist(), strict=True))


def _earlier(directory: IndexDirectory, relabelling: Relabelling | None) -> set[int]:
    """The images that have such labels; none where these are damaged: they are replaced."""
    try:
        return set(_given(directory, relabelling))
    except DamagedIndexError:
        return set()


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
