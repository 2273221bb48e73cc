"""A page about a class: which patches speak for it, how often it is right, what it is taken for, its images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex import figure3, output
from bagindex.errors import OutputError
from bagindex.figure3 import Figure3, in_notebook
from bagindex_schemas.records import ClassRecord, Grid, ModelRecord

if TYPE_CHECKING:
    from bagindex.maps import ImageEvidence
    from bagindex.questions import Questions

_BINS, _IMAGE_BINS = 60, 30
_IMAGES = 6


@dataclass(frozen=True)
class Confusion:
    """How many images of one class the model takes for another."""

    class_name: str
    images: int


@dataclass(frozen=True)
class Distribution:
    """How often numbers fall into bins: in right images, in wrong ones.

    `edges` float64 [bins + 1]; `right` and `wrong` int64 [bins].
    """

    edges: NDArray[np.float64] = dataclasses.field(compare=False)
    right: NDArray[np.int64] = dataclasses.field(compare=False)
    wrong: NDArray[np.int64] = dataclasses.field(compare=False)


@dataclass(frozen=True)
class ReportImage:
    """An image and its evidence for the class, float32 [rows, columns]; None where the index keeps none."""

    image_id: int
    path: str
    label_name: str
    predicted_name: str
    logit: float
    evidence: NDArray[np.float32] | None = dataclasses.field(compare=False)


@dataclass(frozen=True)
class ModelReport:
    """A class as one model sees it.

    Attributes:
        images: images of the class; `recognised` of them are predicted as it.
        predicted: labelled images that are predicted as the class, right or not.
        taken_for: as what the images that are not recognised are predicted.
        mistaken: which classes' images are predicted as this class.
        patches: evidence of the patches; None where the index keeps none, or no image has a label.
        logits: the class's logits of whole images; None where no image has a label.
        typical, untypical: the images of the class with the highest and the lowest logit.
        wrong: the images of other classes with the highest logit.
    """

    model: str
    grid: Grid
    images: int
    recognised: int
    predicted: int
    taken_for: tuple[Confusion, ...]
    mistaken: tuple[Confusion, ...]
    keeps_evidence: bool
    patches: Distribution | None
    logits: Distribution | None
    typical: tuple[ReportImage, ...]
    untypical: tuple[ReportImage, ...]
    wrong: tuple[ReportImage, ...]

    @property
    def shown(self) -> tuple[ReportImage, ...]:
        """All images that are shown."""
        return self.typical + self.untypical + self.wrong


@dataclass(frozen=True)
class Report:
    """A page about a class of an index; `pixels` says whether the index keeps the pictures."""

    class_: ClassRecord
    index: str
    images: int
    labelled: int
    pixels: bool
    figure3: Figure3
    models: tuple[ModelReport, ...]
    _pixels: Callable[[set[int]], Mapping[int, NDArray[np.uint8]]] = dataclasses.field(repr=False, compare=False)

    def pictures(self) -> Mapping[int, NDArray[np.uint8]]:
        """The model's inputs that are shown whole, by image_id, uint8 [height, width, RGB] each; none without."""
        return self._pixels({each.image_id for model in self.models for each in model.shown}) if self.pixels else {}

    def __str__(self) -> str:
        """What it is about."""
        models = ", ".join(model.model for model in self.models)
        return f"a report on {self.class_.name!r} in {self.index} ({models}): .save() writes an .html"

    def to_html(self) -> str:
        """The page, in one file."""
        from bagindex.figures.report import render

        return render(self)

    def save(self, path: str | Path) -> Path:
        """Write an `.html` file, or `report.html` into a folder, which is made where it is not there.

        Returns:
            The file.

        Raises:
            OutputError: another ending, or the file cannot be written.
        """
        target = Path(path)
        if target.is_dir() or not target.suffix:
            try:
                target.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise OutputError(f"cannot write {target}: {error.strerror or error}") from None
            target /= "report.html"
        output.save(target, {".html": lambda file: file.write_text(self.to_html(), encoding="utf-8")})
        return target

    def _repr_html_(self) -> str:
        return in_notebook(self.to_html())


def make(
    index: Questions,
    record: ClassRecord,
    models: Sequence[str],
    k: int,
    pixels: Callable[[set[int]], Mapping[int, NDArray[np.uint8]]],
    evidence_of: Callable[[int, str], ImageEvidence],
) -> Report:
    """Ask an index for all that the page shows."""
    counts = index.sql("SELECT count(*) AS images, count(label) AS labelled FROM images").to_dicts()[0]
    found = index.info()
    records = {model.record.name: model.record for model in found.models}
    return Report(
        class_=record,
        index=found.name,
        images=counts["images"],
        labelled=counts["labelled"],
        pixels=found.pixels,
        figure3=figure3.make(index, [record], models, k, pixels),
        models=tuple(_ask(index, record.class_id, records[name], evidence_of) for name in dict.fromkeys(models)),
        _pixels=pixels,
    )


def _ask(
    index: Questions, class_id: int, record: ModelRecord, evidence_of: Callable[[int, str], ImageEvidence]
) -> ModelReport:
    model, keeps_evidence = record.name, "evidence" in record.keep.tables
    predictions = f"(SELECT * FROM predictions WHERE model = {_quoted(model)} AND label IS NOT NULL)"
    counts = index.sql(
        f"SELECT count(*) FILTER (label = {class_id}) AS images, "
        f"count(*) FILTER (label = {class_id} AND predicted = {class_id}) AS recognised, "
        f"count(*) FILTER (predicted = {class_id}) AS predicted FROM {predictions}"
    ).to_dicts()[0]

    def confusions(name: str, condition: str) -> tuple[Confusion, ...]:
        query = f"SELECT {name}, count(*) FROM {predictions} WHERE {condition} GROUP BY 1 ORDER BY 2 DESC, 1"
        return tuple(Confusion(*row.values()) for row in index.sql(query))

    def images(condition: str, order: str) -> tuple[ReportImage, ...]:
        return _images(index, class_id, model, evidence_of if keeps_evidence else None, condition, order)

    return ModelReport(
        model=model,
        grid=record.grid,
        **counts,
        taken_for=confusions("predicted_name", f"label = {class_id} AND predicted <> {class_id}"),
        mistaken=confusions("label_name", f"label <> {class_id} AND predicted = {class_id}"),
        keeps_evidence=keeps_evidence,
        patches=_distribution(index, class_id, model, "evidence", "logit", _BINS) if keeps_evidence else None,
        logits=_distribution(index, class_id, model, "image_evidence", "mean_logit", _IMAGE_BINS),
        typical=images("e.correct", "DESC"),
        untypical=images("e.correct", "ASC"),
        wrong=images("NOT e.correct", "DESC"),
    )


def _distribution(
    index: Questions, class_id: int, model: str, table: str, column: str, bins: int
) -> Distribution | None:
    """Counted by DuckDB: a class may have tens of millions of patches."""
    rows = f"(SELECT correct, {column}::DOUBLE AS x FROM {table} WHERE class_id = {class_id} AND correct IS NOT NULL"
    rows += f" AND model = {_quoted(model)})"
    least, most = index.sql(f"SELECT min(x), max(x) FROM {rows}").to_dicts()[0].values()
    if least is None:
        return None
    edges = np.linspace(least, most if most > least else least + 1, bins + 1)
    width = float(edges[1] - edges[0])
    place = f"least(floor((x - {least!r}) / {width!r}), {bins - 1})::INTEGER"
    counts = np.zeros((2, bins), np.int64)
    for row in index.sql(f"SELECT correct, {place} AS bin, count(*) AS n FROM {rows} GROUP BY ALL"):
        counts[int(row["correct"]), row["bin"]] = row["n"]
    return Distribution(edges, right=counts[1], wrong=counts[0])


def _images(
    index: Questions,
    class_id: int,
    model: str,
    evidence_of: Callable[[int, str], ImageEvidence] | None,
    condition: str,
    order: str,
) -> tuple[ReportImage, ...]:
    rows = index.sql(
        "SELECT image_id, path, e.label_name, predicted_name, mean_logit AS logit FROM image_evidence AS e "
        f"JOIN predictions AS p USING (model, image_id) WHERE class_id = {class_id} AND model = {_quoted(model)} "
        f"AND {condition} "
        f"ORDER BY mean_logit {order}, image_id LIMIT {_IMAGES}"
    ).to_dicts()

    def evidence(image_id: int) -> NDArray[np.float32] | None:
        return None if evidence_of is None else evidence_of(image_id, model).patches([class_id])[0]

    return tuple(ReportImage(**row, evidence=evidence(row["image_id"])) for row in rows)


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"
