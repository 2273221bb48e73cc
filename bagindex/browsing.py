"""What can be looked through in an index, page by page: classes, models, images."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from bagindex import output
from bagindex.errors import QueryError, SettingsError
from bagindex.opened import Opened
from bagindex.results import Tabular

if TYPE_CHECKING:
    import pyarrow as pa

    from bagindex.choosing import Met
    from bagindex_schemas.records import ModelRecord

_KINDS = {"text": "string", "integer": "int64", "number": "float64", "truth": "bool_"}


@dataclass(frozen=True)
class Page(Tabular):
    """Some of the rows of a list.

    Attributes:
        rows: these rows, as JSON objects would have them.
        total: how many there are in all.
        offset: place of the first of these among all.
        types: the columns and what is in them: `text`, `integer`, `number`, `truth`.
    """

    rows: Sequence[Mapping[str, Any]]
    total: int
    offset: int
    types: Mapping[str, str]

    def __len__(self) -> int:
        """Number of rows on the page."""
        return len(self.rows)

    def __str__(self) -> str:
        """A table."""
        return output.table_text(list(self.types), self.rows, f"{len(self.rows):,} of {self.total:,}")

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as JSON objects would have them."""
        return [dict(row) for row in self.rows]

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        import pyarrow as pa

        schema = pa.schema([(name, getattr(pa, _KINDS[kind])()) for name, kind in self.types.items()])
        return pa.Table.from_pylist(self.to_dicts(), schema=schema)


_CLASS = {
    **{"class_id": "integer", "name": "text", "wnid": "text"},
    **{"images": "integer", "predicted": "integer", "correct": "integer"},
}
_ORDERS: Mapping[str, Callable[[Mapping[str, Any]], Any]] = {
    "id": lambda row: row["class_id"],
    "name": lambda row: (row["name"].casefold(), row["name"]),
    "images": lambda row: row["images"],
    "predicted": lambda row: row["predicted"],
    "correct": lambda row: row["correct"],
    "accuracy": lambda row: row["correct"] / max(1, row["images"]),
}
_IMAGE = {
    **{"image_id": "integer", "path": "text", "label": "integer", "label_name": "text"},
    **{"predicted": "integer", "predicted_name": "text", "probability": "number", "correct": "truth"},
    **{"width": "integer", "height": "integer"},
}


class BrowseQuestions(Opened):
    """What can be looked through in an opened index."""

    def model_records(self) -> Sequence[ModelRecord]:
        """The models that can be asked, each with what it keeps."""
        return tuple(self._catalog.models.values())

    @property
    def version(self) -> str:
        """What the index's pixels depend on, beside their ids: sixteen hexadecimal digits.

        They are others when it is begun anew, with the same plan too: images that come later may be others.
        """
        catalog = self._catalog
        return hashlib.sha256(f"{catalog.manifest.plan.digest()} {catalog.life}".encode()).hexdigest()[:16]

    @property
    def image_count(self) -> int:
        """How many images there are."""
        return int(self._catalog.rows("SELECT count(*) FROM images")[0][0])

    @property
    def keeps_pixels(self) -> bool:
        """Whether patches and images can be shown."""
        return self._manifest.plan.pixels

    def right_images(self, model: str | None = None) -> tuple[int, int]:
        """Of how many images a model predicts the label, and how many have one.

        Raises:
            QueryError: there is no such model.
        """
        predictions = self._catalog.relation(self._model(model), "predictions")
        counts = "count(*) FILTER (label = predicted), count(label)"
        sql = f"SELECT {counts} FROM images JOIN {predictions} USING (image_id)"
        right, labelled = self._catalog.rows(sql)[0]
        return int(right), int(labelled)

    @property
    def input_size(self) -> tuple[int, int]:
        """Height and width of the models' input."""
        return self._manifest.plan.transform.crop_height, self._manifest.plan.transform.crop_width

    def browse_classes(
        self,
        search: str = "",
        *,
        order: str = "id",
        descending: bool = False,
        offset: int = 0,
        limit: int = 100,
        model: str | None = None,
    ) -> Page:
        """The classes, each with how many images have it as their label, of how many it is the prediction, and of how
        many it is both.

        Args:
            search: only classes in whose name or wnid this stands, in capitals or not, whatever stands between the
                letters of a name (`tshirt` finds `t-shirt`); the name itself comes first, then those that begin so.
            order: what they are sorted by: `id`, `name`, `images`, `predicted`, `correct`, or `accuracy`, which is
                correct / images; classes without images have none, and come last. Of equal ones the smaller id is
                first.
            descending: the largest first, or the last of the alphabet.
            offset: how many to pass over.
            limit: how many at most.
            model: whose predictions; may be left out where there is one.

        Raises:
            SettingsError: `order` is none of these.
            QueryError: a number is out of its range, or there is no such model.
        """
        _check(offset, limit)
        if order not in _ORDERS:
            raise SettingsError(f"classes are ordered by {', '.join(_ORDERS)}, not by {order!r}")
        predictions = self._catalog.relation(self._model(model), "predictions")
        labels: dict[int | None, int] = dict(self._catalog.rows("SELECT label, count(*) FROM images GROUP BY 1"))
        sql = f"""
            SELECT predicted, count(*), count(*) FILTER (label = predicted)
            FROM {predictions} JOIN images USING (image_id) GROUP BY 1"""
        guesses = {class_id: counts for class_id, *counts in self._catalog.rows(sql)}
        wanted = search.casefold()
        found = [each for each in self.classes if _fits(wanted, each.name) or wanted in (each.wnid or "").casefold()]
        rows: list[dict[str, Any]] = []
        for each in found:
            predicted, correct = guesses.get(each.class_id, (0, 0))
            values = each.class_id, each.name, each.wnid, labels.get(each.class_id, 0), predicted, correct
            rows.append(dict(zip(_CLASS, values, strict=True)))
        rows.sort(key=_ORDERS[order], reverse=descending)
        without = order == "accuracy"
        rows.sort(key=lambda row: (*_distance(wanted, row["name"]), without and not row["images"]))
        return Page(rows[offset : offset + limit], len(rows), offset, _CLASS)

    def browse_images(
        self,
        *,
        label: str | int | None = None,
        predicted: str | int | None = None,
        class_: str | int | None = None,
        correct: bool | None = None,
        labelled: bool | None = None,
        where: str | Met | None = None,
        offset: int = 0,
        limit: int = 100,
        model: str | None = None,
    ) -> Page:
        """The images and what a model predicts of them, by image_id.

        Args:
            label, predicted: only images with that label, or that prediction: a class by name, wnid or id.
            class_: only images with that label or that prediction.
            correct: only images whose prediction is their label, or is not; those without a label are neither.
            labelled: only images that have a label, or that have none.
            where: as for `top_patches`.
            offset: how many to pass over.
            limit: how many at most.
            model: which model; may be left out where there is one.

        Raises:
            UnknownClassError: no such class.
            QueryError: no such model, `where` is no condition, or a number is out of its range.
        """
        from bagindex.choosing import images_of, rows

        _check(offset, limit)
        record = self._model(model)
        conditions = []
        if label is not None:
            conditions.append(f"label = {self.find_class(label).class_id}")
        if predicted is not None:
            conditions.append(f"predicted = {self.find_class(predicted).class_id}")
        if class_ is not None:
            class_id = self.find_class(class_).class_id
            conditions.append(f"(label = {class_id} OR predicted = {class_id})")
        if correct is not None:
            conditions.append(f"label {'=' if correct else '<>'} predicted")
        if labelled is not None:
            conditions.append(f"label IS {'NOT ' if labelled else ''}NULL")
        chosen = images_of(self._catalog, record, conditions, where, predictions=True)
        total = int(rows(self._catalog, f"SELECT count(*) FROM ({chosen})", {})[0][0])
        sql = f"""
            SELECT i.image_id, i.path, i.label, i.label_name, p.predicted, c.name, p.probability,
                   i.label = p.predicted, i.width, i.height
            FROM (SELECT image_id FROM ({chosen}) ORDER BY image_id LIMIT {limit} OFFSET {offset})
            JOIN images AS i USING (image_id)
            JOIN {self._catalog.relation(record, "predictions")} AS p USING (image_id)
            JOIN classes AS c ON c.class_id = p.predicted ORDER BY image_id"""
        found = [dict(zip(_IMAGE, row, strict=True)) for row in rows(self._catalog, sql, {})]
        return Page(found, total, offset, _IMAGE)

    def image(self, image_id: int, *, model: str | None = None) -> dict[str, Any]:
        """What there is to say of an image: its file, its label, and the five classes that a model finds most probable.

        Args:
            image_id: its id.
            model: which model; may be left out where there is one.

        Returns:
            The columns of `browse_images`, and `sha256`, `original_label`, `model`, `logits` (of the five) and `top`.

        Raises:
            UnknownImageError: the index has no such image.
        """
        record = self._model(model)
        evidence = self._evidence_of(image_id, record.name)
        subject = evidence.subject
        predictions = self._catalog.relation(record, "predictions")
        sql = f"""
            SELECT sha256, bytes, original_label, probability
            FROM images JOIN {predictions} USING (image_id) WHERE image_id = ?"""
        row = self._catalog.rows(sql, [image_id])[0]
        predicted = evidence.predicted
        return {
            "image_id": image_id,
            "path": subject.name,
            "label": None if subject.label is None else subject.label.class_id,
            "label_name": None if subject.label is None else subject.label.name,
            "predicted": predicted.class_id,
            "predicted_name": predicted.name,
            "probability": row[3],
            "correct": None if subject.label is None else subject.label == predicted,
            "width": subject.placement.width,
            "height": subject.placement.height,
            "sha256": row[0],
            "bytes": row[1],
            "original_label": row[2],
            "model": record.name,
            "top": [each.to_dict() for each in evidence.top()],
        }


def _distance(wanted: str, name: str) -> tuple[bool, bool]:
    """How far a name is from what was looked for: it, one that begins with it, another."""
    folded = name.casefold()
    return folded != wanted, not folded.startswith(wanted)


def _fits(wanted: str, name: str) -> bool:
    """Whether a name has a text in it; `wanted` is in small letters."""
    folded = name.casefold()
    letters = _letters(wanted)
    return wanted in folded or (bool(letters) and letters in _letters(folded))


def _letters(text: str) -> str:
    return "".join(filter(str.isalnum, text))


def _check(offset: int, limit: int) -> None:
    if not (0 <= offset < 2**62 and 1 <= limit < 2**31):
        raise QueryError("an offset starts at 0 and a limit at 1")
