"""The paper's Figure 3: the patches with most evidence for a class, in images of the class and in others.

One patch per image is answered from `image_evidence`, more than one from `evidence`; both rank the rounded evidence by
(logit descending, patch_id ascending) and give the same answer where both can.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from bagindex.catalog import Catalog
from bagindex.choosing import Met, images_of, rows
from bagindex.described import describe
from bagindex.errors import NotKeptError, QueryError
from bagindex.geometry import Box, locate, patch_box, shared_area
from bagindex.results import Patch
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
        offset: how many of the strongest to pass over.
        per_image: how many of one image at most.
        overlap: whether patches of one image may share pixels.
        label: only images with this label.
        predicted_as: only images that the model predicts as this class.
        misclassified: only images whose label is not what the model predicts.
        where: an SQL condition on the columns of `images`, `predicted`, `predicted_name` and `probability`, or what
            was found of one.
    """

    class_: ClassRecord
    images: Images = Images.RIGHT_CLASS
    k: int = 7
    offset: int = 0
    per_image: int = 1
    overlap: bool = False
    label: ClassRecord | None = None
    predicted_as: ClassRecord | None = None
    misclassified: bool = False
    where: str | Met | None = None

    def __str__(self) -> str:
        """The question in words."""
        parts = [f"{self.class_.name}: most evidence", self.images.value]
        if self.label is not None:
            parts.append(f"labelled {self.label.name}")
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
    if not 0 <= question.offset <= _MOST - question.k:
        raise QueryError(f"--offset starts at 0, and with -k it goes up to {_MOST:,}")
    last = question.k + question.offset
    if question.per_image == 1:
        strongest = _strongest(catalog, model, question, question.k, question.offset)
        chosen = [(patch_id, logit) for patch_id, logit, _ in strongest]
    else:
        # An image's strongest patch ranks before its others: only so many of the first images as there are patches up
        # to the answer's last can have one in it.
        strongest = _strongest(catalog, model, question, last, 0)
        image_ids = [image_id for _, _, image_id in strongest]
        chosen = catalog.answer(lambda: _several(catalog, model, question, image_ids))[question.offset :]
    described = describe(catalog, model, [patch_id for patch_id, _ in chosen])
    name, class_id = question.class_.name, question.class_.class_id
    return tuple(
        Patch(rank=rank, class_=name, class_id=class_id, logit=logit, **words)
        for rank, ((_, logit), words) in enumerate(zip(chosen, described, strict=True), start=question.offset + 1)
    )


def _images(catalog: Catalog, model: ModelRecord, question: Question) -> str:
    """SQL for the ids of the images that a patch may come from."""
    conditions = [_LABEL[question.images]]
    if question.label is not None:
        conditions.append(f"label = {question.label.class_id}")
    predictions = question.predicted_as is not None or question.misclassified
    if question.predicted_as is not None:
        conditions.append(f"predicted = {question.predicted_as.class_id}")
    if question.misclassified:
        conditions.append("predicted <> label")
    return images_of(catalog, model, conditions, question.where, predictions)


def _strongest(
    catalog: Catalog, model: ModelRecord, question: Question, count: int, offset: int
) -> list[tuple[int, float, int]]:
    """The strongest patch of each of `count` images, after the `offset` first: (patch_id, logit, image_id)."""
    sql = f"""
        SELECT patch_id, max_logit, image_id
        FROM ({_images(catalog, model, question)}) JOIN {catalog.relation(model, "image_evidence")} USING (image_id)
        WHERE class_id = $class_id
        ORDER BY max_logit DESC, patch_id
        LIMIT {count} OFFSET {offset}"""
    return rows(catalog, sql, {"class_id": question.class_.class_id})


def _several(
    catalog: Catalog, model: ModelRecord, question: Question, image_ids: Sequence[int]
) -> list[tuple[int, float]]:
    """The patches up to the answer's last, those that are passed over too: (patch_id, logit)."""
    if "evidence" not in model.keep.tables:
        raise NotKeptError(
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
    for patch_id, logit in catalog.stream(sql):
        image_id, row, col = locate(grid, patch_id)
        box = patch_box(grid, row, col)
        boxes = taken.setdefault(image_id, [])
        if len(boxes) == question.per_image:
            continue
        if not question.overlap and any(shared_area(box, other) for other in boxes):
            continue
        boxes.append(box)
        chosen.append((patch_id, logit))
        if len(chosen) == question.k + question.offset:
            break
    return chosen
