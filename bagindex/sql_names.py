"""Names in SQL: those of a catalog's views and macros, of an answer's columns, and values as they are written.

It takes no other module: a process that runs strangers' queries starts with it, often, and is to be quick.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa

WORD_VIEWS = ("words", "word_evidence", "patch_words")
VIEWS = ("predictions", "image_evidence", "evidence", "features", "pixels", *WORD_VIEWS)
"""The views that a catalog may have; `classes`, `models`, `images` and `rejects` are tables."""
MACROS: Mapping[str, Sequence[str]] = {
    "class_number": (),
    "model_name": (),
    "image_number": (),
    "evidence_of": ("evidence",),
    "margin": ("evidence",),
    "confusions": ("predictions",),
    "words_of": ("evidence", "words", "patch_words"),
    "image_words": ("evidence", "patch_words"),
}
"""The macros, and the views that each needs; a catalog has those whose views it has."""


def literal(value: str | float) -> str:
    """A value as SQL writes it."""
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def unique(table: pa.Table) -> pa.Table:
    """Number the columns whose name is there already: rows become dictionaries later."""
    return table.rename_columns(unique_names(table.column_names))


def unique_names(names: Iterable[str]) -> list[str]:
    """Names of which one that comes again has a number."""
    numbers: dict[str, int] = {}
    for name in names:
        unique = name
        while unique in numbers:
            numbers[name] += 1
            unique = f"{name}_{numbers[name]}"
        numbers[unique] = 1
    return list(numbers)
