"""The paper's Figure 3: the patches with most evidence for a class, in images of the class and in others.

One patch per image is answered from `image_evidence`, more than one from `evidence`; both rank the rounded evidence by
(logit descending, patch_id ascending) and give the same answer where both can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import duckdb

from bagindex.catalog import Catalog, select_tree
from bagindex.errors import QueryError
from bagindex.geometry import Box, Placement, locate, patch_box, shared_area, to_source
from bagindex.results import Patch
from bagindex.text import first_line
from bagindex_schemas.records import ClassRecord, ModelRecord


class Images(StrEnum):
    """Which images a patch may come from, by their label: the class asked about, another one, or whatever."""

    RIGHT_CLASS = "right class"
    WRONG_CLASS = "wrong class"
    ANY = "any image"


@dataclass(frozen=True)
class Question:
    """Which patches are asked for.

    Attributes:
        class_: the class whose evidence counts.
        images: which images, by label; unlabelled ones are neither right nor wrong.
        k: how many patches at most.
        per_image: how many of one image at most.
        overlap: whether patches of one image may share pixels.
        predicted_as: only images that the model predicts as this class.
        misclassified: only images whose label is not what the model predicts.
        where: an SQL condition on the columns of `images`, `predicted`, `predicted_name` and `probability`.
    """

    class_: ClassRecord
    images: Images = Images.RIGHT_CLASS
    k: int = 7
    per_image: int = 1
    overlap: bool = False
    predicted_as: ClassRecord | None = None
    misclassified: bool = False
    where: str | None = None

    def __str__(self) -> str:
        """The question in words."""
        parts = [f"{self.class_.name}: most evidence", self.images.value]
        if self.predicted_as is not None:
            parts.append(f"predicted as {self.predicted_as.name}")
        if self.misclassified:
            parts.append("misclassified")
        if self.where:
            parts.append(f"where {self.where}")
        return ", ".join(parts)


_MOST = 1_000_000_000
_LABEL = {
    Images.RIGHT_CLASS: "label = $class_id",
    Images.WRONG_CLASS: "label <> $class_id",
    Images.ANY: "true",
}


def answer(catalog: Catalog, model: ModelRecord, question: Question) -> tuple[Patch, ...]:
    """The patches, strongest first; exact.

    Raises:
        QueryError: an option is out of its range, the condition is no SQL, or several patches of one image are asked
            of an index that keeps only summaries.
    """
    if not (1 <= question.k <= _MOST and 1 <= question.per_image <= _MOST):
        raise QueryError(f"-k and --per-image go from 1 to {_MOST:,}")
    strongest = _strongest(catalog, model, question)
    if question.per_image == 1:
        chosen = [(patch_id, logit) for patch_id, logit, _ in strongest]
    else:
        # An image's strongest patch ranks before its others: only the first k images can have a patch in the answer.
        chosen = _several(catalog, model, question, [image_id for _, _, image_id in strongest])
    return _describe(catalog, model, question, chosen)


def _images(catalog: Catalog, model: ModelRecord, question: Question) -> str:
    """SQL for the ids of the images that a patch may come from."""
    conditions = [_LABEL[question.images]]
    if question.predicted_as is not None:
        conditions.append(f"predicted = {question.predicted_as.class_id}")
    if question.misclassified:
        conditions.append("predicted <> label")
    # Planning and running a join takes as long as finding the patches: only those that are needed.
    source = "images"
    if question.where or len(conditions) > 1:
        source += f" JOIN {catalog.relation(model, 'predictions')} USING (image_id)"
    if question.where:
        _check_condition(catalog, question.where)
        # Alone in its WHERE, the condition cannot undo ours, and it sees no columns but these. Materialized: merged
        # with other conditions, DuckDB 2.0 drops one that fails as a constant ('abc') and answers as if it held.
        source = (
            "(WITH met AS MATERIALIZED (SELECT image_id, label, predicted FROM "
            f"(SELECT images.*, predicted, name AS predicted_name, probability FROM {source} "
            f"JOIN classes ON class_id = predicted) WHERE ({question.where}\n)) FROM met)"
        )
    return f"SELECT image_id FROM {source} WHERE {' AND '.join(conditions)}"


def _strongest(catalog: Catalog, model: ModelRecord, question: Question) -> list[tuple[int, float, int]]:
    """The strongest patch of each of the k first images: (patch_id, logit, image_id)."""
    sql = f"""
        SELECT patch_id, max_logit, image_id
        FROM ({_images(catalog, model, question)}) JOIN {catalog.relation(model, "image_evidence")} USING (image_id)
        WHERE class_id = $class_id
        ORDER BY max_logit DESC, patch_id
        LIMIT {question.k}"""
    return _rows(catalog, sql, {"class_id": question.class_.class_id})


def _several(
    catalog: Catalog, model: ModelRecord, question: Question, image_ids: Sequence[int]
) -> list[tuple[int, float]]:
    if "evidence" not in model.keep.tables:
        raise QueryError(
            f"this index keeps only the strongest patch of each image for {model.name}: "
            "ask for --per-image 1, or build with --keep evidence"
        )
    grid = model.grid
    ids = ", ".join(str(image_id) for image_id in image_ids) or "NULL"
    sql = f"""
        SELECT patch_id, logit FROM {catalog.relation(model, "evidence")}
        WHERE class_id = {question.class_.class_id} AND patch_id // {grid.patches} IN ({ids})
        ORDER BY logit DESC, patch_id"""
    chosen: list[tuple[int, float]] = []
    taken: dict[int, list[Box]] = {}
    for patch_id, logit in _rows(catalog, sql, {}):
        image_id, row, col = locate(grid, patch_id)
        box = patch_box(grid, row, col)
        boxes = taken.setdefault(image_id, [])
        if len(boxes) == question.per_image:
            continue
        if not question.overlap and any(shared_area(box, other) for other in boxes):
            continue
        boxes.append(box)
        chosen.append((patch_id, logit))
        if len(chosen) == question.k:
            break
    return chosen


def _describe(
    catalog: Catalog, model: ModelRecord, question: Question, chosen: Sequence[tuple[int, float]]
) -> tuple[Patch, ...]:
    ids = sorted({patch_id // model.grid.patches for patch_id, _ in chosen})
    # Joined with few ids, DuckDB looks at those rows; with `image_id IN (...)` it reads all of the paths.
    sql = f"""
        SELECT image_id, i.path, i.label, i.label_name, p.predicted,
               i.width, i.height, i.resized_width, i.resized_height, i.crop_left, i.crop_top
        FROM (SELECT unnest($ids::BIGINT[]) AS image_id) JOIN images AS i USING (image_id)
        JOIN {catalog.relation(model, "predictions")} AS p USING (image_id)"""
    images = {row[0]: row[1:] for row in _rows(catalog, sql, {"ids": ids})}
    classes = catalog.manifest.plan.classes
    patches = []
    for rank, (patch_id, logit) in enumerate(chosen, start=1):
        image_id, row, col = locate(model.grid, patch_id)
        path, label, label_name, predicted, *placement = images[image_id]
        box = patch_box(model.grid, row, col)
        patches.append(
            Patch(
                rank=rank,
                model=model.name,
                class_=question.class_.name,
                class_id=question.class_.class_id,
                patch_id=patch_id,
                image_id=image_id,
                path=path,
                label=label,
                label_name=label_name,
                predicted=predicted,
                predicted_name=classes[predicted].name,
                row=row,
                col=col,
                box=box,
                source_box=to_source(box, Placement(*placement)),
                logit=logit,
            )
        )
    return tuple(patches)


def _check_condition(catalog: Catalog, where: str) -> None:
    """Refuse what is no single condition, such as one that closes our parenthesis and goes on."""
    try:
        tree = select_tree(catalog.connection, f"SELECT ({where}\n)")
    except duckdb.Error as error:
        raise QueryError(f"--where {where!r} is no SQL condition: {first_line(error)}") from None
    node = tree["statements"][0]["node"] if tree else {}
    if len(node.get("select_list", [])) != 1 or node.get("from_table", {}).get("type") != "EMPTY":
        raise QueryError(f'--where takes one SQL condition, such as "width > 500", not {where!r}')


def _rows(catalog: Catalog, sql: str, parameters: dict[str, object]) -> list[tuple[Any, ...]]:
    used = {name: value for name, value in parameters.items() if f"${name}" in sql}
    try:
        return catalog.connection.execute(sql, used).fetchall()
    except duckdb.Error as error:
        text = first_line(error)
        if "Binder Error" in text:
            text += (
                "; --where knows the columns of `images` (image_id, path, label, label_name, width, height, …), "
                "predicted, predicted_name and probability"
            )
        raise QueryError(f"the question cannot be answered: {text}") from None
