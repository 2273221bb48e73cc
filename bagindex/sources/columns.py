"""Which columns of a table hold the pictures and their labels, and what the labels are called.

Hugging Face's data sets say so in the metadata of their schema, under `huggingface`: which column is an `Image`, and
which is a `ClassLabel` with which names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from bagindex.errors import LabelError, SourceError
from bagindex.text import some


@dataclass(frozen=True)
class Asked:
    """What a person says of a table's columns.

    Attributes:
        image, label: their names.
        ids: labels are taken as numbers, whatever the table calls them.
    """

    image: str | None = None
    label: str | None = None
    ids: bool = False


@dataclass(frozen=True)
class Columns:
    """Where the pictures and labels of a table are.

    Attributes:
        image: the column of the pictures' files.
        nested: it holds `bytes` and perhaps a `path`, the file's original name, and not the bytes themselves.
        named: there is such a `path`.
        label: the column of the labels, where there is one.
        names: what the labels' numbers mean, where the table says so and is to.
        ids: labels are taken as numbers.
        possible: the columns that may be of labels.
    """

    image: str
    nested: bool
    named: bool
    label: str | None
    names: tuple[str, ...] | None
    ids: bool = False
    possible: tuple[str, ...] = ()

    @property
    def wanted(self) -> list[str]:
        """What a listing reads: everything but the pictures."""
        return [*([f"{self.image}.path"] if self.named else []), *([self.label] if self.label else [])]

    @property
    def bytes(self) -> str:
        """The column of the pictures' bytes, with its parent's name before it."""
        return f"{self.image}.bytes" if self.nested else self.image


def pictures_of(batch: pa.RecordBatch, columns: Columns) -> Any:
    """The pictures' bytes in some rows, of which only their column may be there; null where there are none."""
    column = batch.column(columns.image)
    if not columns.nested:
        return column
    # Flattened, a struct that is null has fields that are.
    return column.flatten()[column.type.get_field_index("bytes")]


def find_columns(schema: pa.Schema, asked: Asked, where: object) -> Columns:
    """Find the columns of a table.

    Args:
        schema: the table's.
        asked: what a person says.
        where: the file, for people.

    Raises:
        SourceError: there are none, or several that may be meant.
    """
    features = _features(schema)
    pictures = [field.name for field in schema if _holds_files(field.type)]
    marked = [name for name in pictures if features.get(name, {}).get("_type") == "Image"]
    image = _choose(asked.image, pictures, marked, "image", "pictures' files (bytes)", "--image-column", schema, where)
    if image is None:
        raise SourceError(
            f"{where} has no column of pictures' files: it has {some(schema.names)}; their bytes are to be in a binary "
            "column, or in one of structs with `bytes`"
        )
    texts = [field.name for field in schema if _holds_labels(field.type) and field.name != image]
    classes = [name for name in texts if features.get(name, {}).get("_type") == "ClassLabel"]
    likely = classes or [name for name in texts if name == "label"]
    label = _choose(
        asked.label, texts, likely, "label", "labels (text or whole numbers)", "--label-column", schema, where
    )
    kind = schema.field(image).type
    nested = pa.types.is_struct(kind)
    named = nested and kind.get_field_index("path") >= 0
    names = features.get(label, {}).get("names") if label and not asked.ids else None
    told = tuple(map(str, names)) if isinstance(names, list) else None
    return Columns(image, nested, named, label, told, asked.ids, tuple(texts))


def label_texts(columns: Columns, values: Sequence[object], where: object, first: int = 0) -> list[str | None]:
    """The names of the labels of some rows, from the row `first` on: numbers by what they mean, empty ones as None.

    Raises:
        LabelError: a number means nothing.
    """
    texts: list[str | None] = []
    for row, value in enumerate(values, start=first):
        if value is None or value == "" or (value == -1 and (columns.ids or columns.names is not None)):
            texts.append(None)  # data sets whose labels are held back have -1
        elif columns.names is not None and isinstance(value, int):
            if not 0 <= value < len(columns.names):
                raise LabelError(f"{where}, row {row}: {value} is no class: there are {len(columns.names)}")
            texts.append(columns.names[value])
        else:
            texts.append(str(value))
    return texts


def _choose(
    asked: str | None,
    possible: Sequence[str],
    likely: Sequence[str],
    usual: str,
    what: str,
    option: str,
    schema: pa.Schema,
    where: object,
) -> str | None:
    if asked is not None:
        if asked not in possible:
            why = f"holds no {what}" if asked in schema.names else "is not there"
            raise SourceError(f"{where}: the column {asked!r} {why}; it has {some(schema.names)}")
        return asked
    candidates = likely or (possible if usual == "image" else ())
    if usual in candidates:
        return usual
    if len(candidates) > 1:
        raise SourceError(f"{where} has several columns of {what}, {some(candidates)}: choose one with {option}")
    return candidates[0] if candidates else None


def _holds_files(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        return place >= 0 and _is_binary(kind.field(place).type)
    return _is_binary(kind)


def _is_binary(kind: pa.DataType) -> bool:
    return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _holds_labels(kind: pa.DataType) -> bool:
    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return bool(pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _features(schema: pa.Schema) -> dict[str, dict[str, Any]]:
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, TypeError, ValueError):  # none, or not what it should be
        return {}
    if not isinstance(features, dict):
        return {}
    return {str(name): each for name, each in features.items() if isinstance(each, dict)}
