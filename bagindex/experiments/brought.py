"""Predictions of a network that was run elsewhere, from a CSV or Parquet file.

A row for each image: `path` (as in the index) or `image_id`, and `logits`, a list in the order of the index's classes,
or `predicted` and, better, `top5`, a list; both as names, wnids or ids of the classes. In CSV, lists are JSON, as
`bagindex sql "SELECT path, logits FROM predictions" -o FILE` writes them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex.errors import LabelError, QueryError, UnknownClassError
from bagindex.experiments.experiment import Setting
from bagindex.experiments.predicted import Predicted
from bagindex.labels import find_class, read_csv_rows
from bagindex_schemas.records import ClassRecord

_TOP = 5
Row = Mapping[str, Any]


def read_predictions(path: Path, setting: Setting) -> Predicted:
    """The predictions in a file for the images that count; the network is called as the file is.

    Raises:
        QueryError: it cannot be read, lacks a column or an image, or has other classes. The text says what to mend.
    """
    try:
        rows = _parquet(path) if path.suffix.lower() == ".parquet" else _csv(path)
    except LabelError as error:
        raise QueryError(str(error)) from None
    columns = rows[0].keys() if rows else set()
    key = next((each for each in ("image_id", "path") if each in columns), None)
    if key is None or not columns & {"logits", "predicted", "top5"}:
        raise QueryError(
            f"{path} needs a column path or image_id, and one of logits, top5 and predicted; it has "
            f"{', '.join(sorted(columns)) or 'no rows'}"
        )
    found = {str(row[key]): row for row in rows}
    if len(found) < len(rows):
        raise QueryError(f"{path} has several rows of one image: leave one of each")
    wanted = setting.columns(f"SELECT image_id, path FROM images WHERE {setting.chosen} ORDER BY image_id")
    image_ids = np.asarray(wanted["image_id"], np.int64)
    names = [str(each) for each in wanted[key]]
    if missing := [name for name in names if name not in found]:
        raise QueryError(
            f"{path} has no prediction for {missing[0]}, and lacks {len(missing):,} of {len(names):,} images"
        )
    chosen = [found[name] for name in names]
    try:
        return _predicted(path, image_ids, chosen, setting.classes)
    except (ValueError, TypeError) as error:
        raise QueryError(f"{path} cannot be understood: {error}") from None
    except UnknownClassError as error:
        raise QueryError(f"{path} has other classes than the index: {error}") from None


def _predicted(
    path: Path, image_ids: NDArray[np.int64], rows: Sequence[Row], classes: Sequence[ClassRecord]
) -> Predicted:
    origin = f"the predictions of {path.name}"
    if "logits" in rows[0]:
        logits = np.array([_list(row["logits"]) for row in rows], np.float32)
        if logits.shape != (len(rows), len(classes)) or not np.isfinite(logits).all():
            raise ValueError(f"`logits` is to be a list of {len(classes)} finite numbers, one for each class")
        return Predicted.of(path.stem, image_ids, logits, origin, False)
    known: dict[object, int] = {}

    def class_id(value: object) -> int:
        if value not in known:
            text = value if isinstance(value, int | str) else int(str(value))
            known[value] = find_class(classes, text).class_id
        return known[value]

    if "top5" in rows[0]:
        top = np.array([[class_id(each) for each in _list(row["top5"])] for row in rows], np.int32)
        if top.ndim != 2 or not 1 <= top.shape[1] <= _TOP:
            raise ValueError(f"`top5` is to be a list of {min(_TOP, len(classes))} classes")
    else:
        top = np.array([[class_id(row["predicted"])] for row in rows], np.int32)
    return Predicted(path.stem, image_ids, top[:, 0], top, None, origin, False)


def _list(value: object) -> Sequence[Any]:
    try:
        found = json.loads(value) if isinstance(value, str) else value
    except json.JSONDecodeError:
        found = None
    if not isinstance(found, list):
        raise ValueError(f"{str(value)[:40]!r} is no list")
    return found


def _csv(path: Path) -> list[Row]:
    return [row for _, row in read_csv_rows(path, ())]


def _parquet(path: Path) -> list[Row]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise QueryError(f"cannot read {path}: {error}") from None
    wanted = [name for name in ("image_id", "path", "logits", "top5", "predicted") if name in table.column_names]
    rows: list[Row] = table.select(wanted).to_pylist()
    return rows
