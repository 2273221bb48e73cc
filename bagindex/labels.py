"""Class lists, and the way from a source's labels to the model's classes. A label is never guessed."""

from __future__ import annotations

import csv
import io
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from importlib.resources import as_file, files
from pathlib import Path

from bagindex.errors import LabelError, UnknownClassError
from bagindex.text import did_you_mean, near, some
from bagindex_schemas.records import ClassRecord


def read_class_map(path: Path) -> dict[str, str | None]:
    """Read a CSV with the columns `source` and `class`: the model's class for each of the source's labels.

    An empty `class` makes the images of that label unlabelled.
    """
    rows = read_csv_rows(path, ("source", "class"))
    mapping: dict[str, str | None] = {}
    for line, row in rows:
        label = _normal(row["source"])
        if label in mapping:
            raise LabelError(f"{path}, line {line}: {label!r} is mapped twice")
        mapping[label] = row["class"] or None
    return mapping


def map_labels(
    labels: Sequence[str], classes: Sequence[ClassRecord], mapping: dict[str, str | None] | None = None
) -> dict[str, int | None]:
    """Class id of each of the source's labels, by the class's exact name or wnid. A label is never guessed.

    Raises:
        LabelError: a label is not one of the model's classes, and no mapping says what it is.
    """
    by_name = {_normal(record.name): record.class_id for record in classes}
    by_wnid = {record.wnid: record.class_id for record in classes if record.wnid}
    mapping = {_normal(label): target for label, target in (mapping or {}).items()}
    known: dict[str, int | None] = {}
    unknown: list[str] = []
    wrong: set[str] = set()
    for label in sorted(set(labels)):
        target = mapping.get(_normal(label), label)
        if target is None:
            known[label] = None
        elif (class_id := by_name.get(_normal(target), by_wnid.get(target))) is not None:
            known[label] = class_id
        elif _normal(label) in mapping:
            wrong.add(target)
        else:
            unknown.append(label)
    if wrong:
        raise LabelError(
            f"--class-map names {some(sorted(wrong))}, but the model knows {some([record.name for record in classes])}"
        )
    if unknown:
        raise LabelError(
            f"{len(unknown)} of {len(set(labels))} labels are not classes of the model: "
            f"{some(unknown)}; the model knows {some([record.name for record in classes])}. "
            "Say what they are with --class-map FILE, a CSV with the columns source,class "
            "(an empty class leaves those images unlabelled)"
            + ("; or, where they are the model's own class ids, with --label-ids" * all(map(str.isdecimal, unknown)))
        )
    return known


def read_classes(path: Path) -> tuple[ClassRecord, ...]:
    """Read a class list, in the order of the logits: a name on each line, or a CSV with name and wnid columns.

    Raises:
        LabelError: it is empty, not text, or names a class twice.
    """
    lines = _read_text(path).splitlines()
    header = [cell.strip().lower() for cell in next(csv.reader(lines[:1]), [])]
    if "name" in header:
        rows = [row for _, row in read_csv_rows(path, ("name",))]
        if "class_id" in header and [row["class_id"] for row in rows] != [str(i) for i in range(len(rows))]:
            raise LabelError(f"{path}: class_id must count from 0, without gaps, in the order of the logits")
        records = [
            ClassRecord(class_id=i, name=row["name"], wnid=row.get("wnid") or None) for i, row in enumerate(rows)
        ]
    else:
        names = [line.strip() for line in lines if line.strip()]
        records = [ClassRecord(class_id=i, name=name) for i, name in enumerate(names)]
    return check_classes(records, str(path))


def imagenet_classes() -> tuple[ClassRecord, ...]:
    """ImageNet's 1,000 classes, in the order of the logits of all networks that are published for it."""
    with as_file(files("bagindex_schemas") / "imagenet_classes.csv") as path:
        return read_classes(path)


def match_classes(found: Sequence[ClassRecord], wanted: Sequence[ClassRecord], whose: str) -> tuple[int, ...]:
    """Where each of the wanted classes stands among those that were found, by the exact name or wnid.

    Args:
        found: somebody's classes, in the order of its logits.
        wanted: the classes in the order in which they are wanted.
        whose: whose those that were found are, for people.

    Raises:
        LabelError: they are not the same classes.
    """
    by_name = {_normal(record.name): record.class_id for record in found}
    by_wnid = {record.wnid: record.class_id for record in found if record.wnid}
    places = [by_name.get(_normal(each.name), by_wnid.get(each.wnid or "")) for each in wanted]
    missing = [each.name for each, place in zip(wanted, places, strict=True) if place is None]
    if missing or len(found) != len(wanted):
        raise LabelError(
            f"{whose} has {len(found)} classes, {some([each.name for each in found], 3)}, and the index "
            f"{len(wanted)}, {some([each.name for each in wanted], 3)}: to be compared, both must have the same"
        )
    return tuple(place for place in places if place is not None)


def check_classes(records: Sequence[ClassRecord], origin: str) -> tuple[ClassRecord, ...]:
    """The records as a tuple, if every name is there and there once."""
    if not records:
        raise LabelError(f"{origin} names no classes")
    if any(not record.name for record in records):
        raise LabelError(f"{origin} has a class without a name")
    # JSON may have either; no catalog can.
    if odd := [record.name for record in records if re.search("[\0\ud800-\udfff]", record.name + (record.wnid or ""))]:
        raise LabelError(f"{origin} has a class whose name is no text: {some(odd)}")
    twice = [name for name, n in Counter(_normal(record.name) for record in records).items() if n > 1]
    if twice:
        raise LabelError(f"{origin} names a class twice: {some(twice)}")
    twice = [wnid for wnid, n in Counter(record.wnid for record in records).items() if wnid and n > 1]
    if twice:
        raise LabelError(f"{origin} gives a wnid to two classes: {some(twice)}")
    return tuple(records)


def _read_text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise LabelError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise LabelError(f"{path} is not UTF-8 text: save it as UTF-8") from None


def read_csv_rows(path: Path, columns: tuple[str, ...]) -> list[tuple[int, dict[str, str]]]:
    """Rows as (line number, cells by lower-case column name), every one of `columns` present."""
    try:
        # Not by lines: a quoted cell may hold line breaks.
        reader = csv.reader(io.StringIO(_read_text(path), newline=""), strict=True)
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise LabelError(f"{path} is not a CSV file: {error}") from None
    header = [cell.strip().lower() for cell in rows[0][1]] if rows else []
    if twice := [name for name in columns if header.count(name) > 1]:
        raise LabelError(f"{path} has two columns called {twice[0]}")
    if missing := [name for name in columns if name not in header]:
        raise LabelError(
            f"{path} needs a first line with the columns {','.join(columns)}; "
            f"{','.join(missing)} is not there (it has {','.join(header) or 'nothing'})"
        )
    parsed = []
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise LabelError(f"{path}, line {line}: {len(row)} cells where the header has {len(header)}")
        parsed.append((line, {name: cell.strip() for name, cell in zip(header, row, strict=True)}))
    return parsed


def _normal(name: str) -> str:
    # The same letters may be stored composed or decomposed (file systems differ); that is not guessing.
    return unicodedata.normalize("NFC", name)


def find_class(classes: Sequence[ClassRecord], text: str | int) -> ClassRecord:
    """The class of that name, wnid or id; case does not matter where it is not needed.

    Raises:
        UnknownClassError: there is none; the message suggests some that are near.
    """
    wanted = str(text)
    for same in (str.__eq__, lambda a, b: a.casefold() == b.casefold()):
        found = [record for record in classes if same(record.name, wanted) or same(record.wnid or "", wanted)]
        if len(found) == 1:
            return found[0]
        if found:
            raise UnknownClassError(f"{wanted!r} may be {some([record.name for record in found])}: say which")
    if re.fullmatch(r"[0-9]{1,9}", wanted) and int(wanted) < len(classes):
        return classes[int(wanted)]
    names = [record.name for record in classes]
    hint = did_you_mean(near(wanted, names)) or f"there are {some(names)}"
    raise UnknownClassError(f"no class is called {wanted!r}: {hint}")


def read_labels(path: Path) -> dict[str, str | None]:
    """Read labels by file from a CSV or Parquet file with the columns `path` and `label`; an empty one is None.

    Raises:
        LabelError: it cannot be read, lacks a column, or names a file twice.
    """
    if path.suffix.lower() == ".parquet":
        cells = [(f"row {number}", *cell) for number, cell in enumerate(_read_parquet(path), start=1)]
    else:
        cells = [(f"line {line}", row["path"], row["label"]) for line, row in read_csv_rows(path, ("path", "label"))]
    labels: dict[str, str | None] = {}
    for where, name, label in cells:
        # A path may be written in several ways.
        text = os.path.normpath(name) if name else ""
        if text in ("", ".", "..") or text.startswith(("/", "../")):
            raise LabelError(f"{path}, {where}: {name!r} is not below the source")
        if text in labels:
            raise LabelError(f"{path}, {where}: {text!r} is listed twice")
        labels[text] = label or None
    return labels


def _read_parquet(path: Path) -> list[tuple[str, str | None]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise LabelError(f"cannot read {path}: {error}") from None
    if missing := [name for name in ("path", "label") if name not in table.column_names]:
        raise LabelError(f"{path} needs the columns path,label; {','.join(missing)} is not there")
    columns = table.select(["path", "label"]).to_pydict()
    return [
        (str(name), None if label is None else str(label))
        for name, label in zip(columns["path"], columns["label"], strict=True)
    ]
