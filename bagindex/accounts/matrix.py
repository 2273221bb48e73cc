"""How often each class is taken for each other, as a matrix."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bagindex import output
from bagindex.accounts.errors import UNLABELLED, read_labels
from bagindex.accounts.shown import Account
from bagindex.catalog import Catalog
from bagindex.errors import QueryError
from bagindex_schemas.records import ClassRecord, ModelRecord

MOST = 1_000
"""Classes of a matrix: a million cells."""


@dataclass(frozen=True)
class MatrixClass:
    """A class of the matrix.

    Attributes:
        class_: the class.
        images: how many images have it as their label.
        correct: of these, how many are predicted as it.
    """

    class_: ClassRecord
    images: int
    correct: int


@dataclass(frozen=True)
class ConfusionMatrix(Account):
    """How many images of some classes are predicted as which of them.

    Attributes:
        model: the model's name.
        about: the class that the others are confused with; None where the matrix is about all.
        all_classes: whether all classes of the index are in it.
        classes: the classes, by class_id.
        counts: images by label (rows) and prediction (columns), both in the order of `classes`.
        others: for each row, the images that are predicted as a class that is not shown.
        wrong: all labelled images of the index that the model gets wrong.
    """

    model: str
    about: ClassRecord | None
    all_classes: bool
    classes: tuple[MatrixClass, ...]
    counts: tuple[tuple[int, ...], ...]
    others: tuple[int, ...]
    wrong: int

    columns = ("label", "predicted", "images")
    types: ClassVar[Mapping[str, str]] = {"label": "text", "predicted": "text", "images": "integer"}

    def __len__(self) -> int:
        """How many classes are shown."""
        return len(self.classes)

    @property
    def shown(self) -> int:
        """How many wrong images are in the matrix's cells."""
        return sum(map(sum, self.counts)) - sum(each.correct for each in self.classes)

    @property
    def title(self) -> str:
        """What was asked."""
        if self.about is not None:
            which = f"{self.about.name} and what it is confused with most"
        else:
            which = "all classes" if self.all_classes else "the classes of the most frequent confusions"
        return f"labels (rows) and predictions (columns) of {which} ({self.model})"

    @property
    def words(self) -> str:
        """What the numbers are."""
        return (
            f"{self.shown:,} of {self.wrong:,} wrong images are in it. The columns are the rows' classes by their ids; "
            "others: images that are predicted as a class that is not shown."
        )

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each cell that has images."""
        names = [each.class_.name for each in self.classes]
        return [
            {"label": label, "predicted": predicted, "images": images}
            for label, row in zip(names, self.counts, strict=True)
            for predicted, images in zip(names, row, strict=True)
            if images
        ]

    @property
    def matrix_columns(self) -> list[str]:
        """Columns of the printed matrix."""
        return ["id", "label", *(str(each.class_.class_id) for each in self.classes), "others", "images"]

    def matrix_rows(self) -> list[dict[str, Any]]:
        """Rows of the printed matrix; where there is nothing, nothing stands."""
        ids = [str(each.class_.class_id) for each in self.classes]
        return [
            {
                **{"id": each.class_.class_id, "label": each.class_.name},
                **{name: images or None for name, images in zip(ids, row, strict=True)},
                **{"others": others or None, "images": each.images},
            }
            for each, row, others in zip(self.classes, self.counts, self.others, strict=True)
        ]

    def __str__(self) -> str:
        """The matrix, and words."""
        table = output.table_text(self.matrix_columns, self.matrix_rows(), self.title)
        return f"{table}\n{output.printable(self.words)}\n"

    def to_dict(self) -> dict[str, Any]:
        """The matrix as a JSON object would have it."""
        return {
            "title": self.title,
            "model": self.model,
            "classes": [
                {
                    **{"class": each.class_.name, "class_id": each.class_.class_id},
                    **{"images": each.images, "correct": each.correct},
                }
                for each in self.classes
            ],
            "counts": [list(row) for row in self.counts],
            "others": list(self.others),
            "wrong": self.wrong,
            "shown": self.shown,
        }

    def _repr_html_(self) -> str:
        return output.to_html(self.matrix_columns, self.matrix_rows(), self.title, self.words)


def confusion_matrix(catalog: Catalog, record: ModelRecord, about: ClassRecord | None, k: int) -> ConfusionMatrix:
    """Count what is predicted as what.

    Args:
        catalog, record: the index and the model.
        about: only this class and those that it is confused with most, in either direction; None: all classes, or where
            there are more than `k`, those of the most frequent confusions.
        k: how many classes at most.

    Raises:
        QueryError: no image has a label, or `k` is out of range.
    """
    if not 2 <= k <= MOST:
        raise QueryError(f"a matrix has 2 to {MOST:,} classes: ask for another -k")
    found = read_labels(catalog, record)
    classes = catalog.manifest.plan.classes
    size = len(classes)
    there = found.labels != UNLABELLED
    labels, predicted = found.labels[there], found.predicted[there]
    # Of a thousand classes there are a million pairs, of which an index has some thousands.
    pairs, images = np.unique(labels * size + predicted, return_counts=True)
    rows, columns = np.divmod(pairs, size)
    if about is not None:
        chosen = _confused_with(about.class_id, rows, columns, images, size, k)
    elif size <= k:
        chosen = list(range(size))
    else:
        chosen = _most_confused(rows, columns, images, k)
    place = np.full(size, -1)
    place[chosen] = np.arange(len(chosen))
    in_rows = place[rows] >= 0
    shown = in_rows & (place[columns] >= 0)
    counts = np.zeros((len(chosen), len(chosen)), np.int64)
    counts[place[rows[shown]], place[columns[shown]]] = images[shown]
    totals = np.bincount(place[rows[in_rows]], images[in_rows], len(chosen)).astype(np.int64)
    return ConfusionMatrix(
        model=record.name,
        about=about,
        all_classes=len(chosen) == size,
        classes=tuple(
            MatrixClass(classes[each], int(total), int(counts[i, i]))
            for i, (each, total) in enumerate(zip(chosen, totals.tolist(), strict=True))
        ),
        counts=tuple(tuple(row) for row in counts.tolist()),
        others=tuple((totals - counts.sum(axis=1)).tolist()),
        wrong=int(images[rows != columns].sum()),
    )


def _confused_with(
    class_id: int,
    rows: NDArray[np.int64],
    columns: NDArray[np.int64],
    images: NDArray[np.int64],
    size: int,
    k: int,
) -> list[int]:
    """A class and those that it is confused with most, ascending."""
    both = np.zeros(size, np.int64)
    for own, other in ((rows, columns), (columns, rows)):
        mine = (own == class_id) & (other != class_id)
        np.add.at(both, other[mine], images[mine])
    others = sorted(np.flatnonzero(both).tolist(), key=lambda each: (-both[each], each))
    return sorted([class_id, *others[: k - 1]])


def _most_confused(rows: NDArray[np.int64], columns: NDArray[np.int64], images: NDArray[np.int64], k: int) -> list[int]:
    """The classes of the most frequent confusions, ascending: pair by pair, as long as both have room."""
    chosen: set[int] = set()
    for i in np.lexsort((columns, rows, -images)).tolist():
        pair = {int(rows[i]), int(columns[i])}
        if len(pair) == 2 and len(chosen | pair) <= k:
            chosen |= pair
        if len(chosen) == k:
            break
    return sorted(chosen)
