"""`Evaluation`: how well attribution methods agree with what a BagNet's patches contribute."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex import output
from bagindex.attribution.method import Method
from bagindex.evaluation import scores
from bagindex.evaluation.evaluating import Answer, Attributed, Question
from bagindex.evaluation.truth import boxes, cells
from bagindex.intervals import bootstrap
from bagindex.text import minus_text

TOP = 0.05
"""The share of cells, or boxes, that are the strongest."""
SHARES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
"""Shares of cells for which the overlap is drawn."""
EVIDENCE, MIDDLES, OTHER = "evidence", "evidence in the middles", "evidence for the next class"
"""What is known: the truth itself, the same put elsewhere in the patches, and the truth of another class."""


@dataclass(frozen=True, eq=False)
class Scored:
    """How well one kind of map agrees with the truth, on N images.

    Attributes:
        name: of the method, or of what is known.
        method: the method; None of what is known.
        values: each score by its name, see `SCORES`, float64 [N].
        curve: the overlap of the strongest cells by their share, see `SHARES`, float64 [N, shares].
        seconds: that an image takes, float64 [N]; None of what is known.
        cells: what is compared, float64 [N, rows, cols].
    """

    name: str
    method: Method | None
    values: Mapping[str, NDArray[np.float64]]
    curve: NDArray[np.float64]
    seconds: NDArray[np.float64] | None
    cells: NDArray[np.float64]


Score = Callable[["_Compared"], NDArray[np.float64]]


@dataclass(frozen=True, eq=False)
class _Compared:
    """What is found and the truth, in cells and in boxes, [N, n] each, and how many are the strongest."""

    cells: scores.Values
    true_cells: scores.Values
    boxes: scores.Values
    true_boxes: scores.Values

    @property
    def few(self) -> int:
        return strongest_of(self.cells.shape[1], TOP)


SCORES: Mapping[str, Score] = {
    "rank": lambda each: scores.rank_correlation(each.cells, each.true_cells),
    "rank_magnitude": lambda each: scores.rank_correlation(np.abs(each.cells), np.abs(each.true_cells)),
    "overlap": lambda each: scores.overlap(each.cells, each.true_cells, each.few),
    "pointing": lambda each: scores.pointing(each.cells, each.true_cells, each.few),
    "mass": lambda each: scores.mass(each.cells, each.true_cells, each.few),
    "box_rank": lambda each: scores.rank_correlation(each.boxes, each.true_boxes),
    "box_overlap": lambda each: scores.overlap(each.boxes, each.true_boxes, strongest_of(each.boxes.shape[1], TOP)),
}
"""Rank correlation of the cells' sums, and of their magnitudes; overlap, pointing and mass with the strongest cells;
rank correlation and overlap of the boxes' sums."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the benchmark found.

    Attributes:
        model: of which BagNet of the index.
        what: which class's logit is accounted for, in words.
        baseline: what an input without evidence looks like.
        image_ids, classes: the images and the class of each, int64 [N].
        known: the truth's own scores, and those of what is derived from it.
        methods: the methods' scores.
        chance: what random numbers score, by the score's name.
        left_out: why a method could not do it, by its name.
        seed: of what is drawn at random.
        files: what was written; nothing until it is.
    """

    model: str
    what: str
    baseline: str
    image_ids: NDArray[np.int64]
    classes: NDArray[np.int64]
    known: tuple[Scored, ...]
    methods: tuple[Scored, ...]
    chance: Mapping[str, float]
    left_out: Mapping[str, str]
    seed: int
    files: tuple[Path, ...] = ()

    columns = ("method", "rank", "rank_interval", "overlap", "pointing", "mass", "box_rank", "box_overlap", "seconds")
    """Columns of the printed table."""

    @property
    def scored(self) -> tuple[Scored, ...]:
        """All that have scores, what is known first."""
        return (*self.known, *self.methods)

    @property
    def title(self) -> str:
        """What this is, in words."""
        return (
            f"{len(self.methods)} attribution methods on {self.model}, {len(self.image_ids):,} images, {self.what}, "
            f"baseline {self.baseline}"
        )

    def __getitem__(self, name: str) -> Scored:
        """What has that name."""
        return next(each for each in self.scored if each.name == name)

    def to_dicts(self) -> list[dict[str, Any]]:
        """A row for each method, and for what is known: means with their 95 % intervals."""
        return [self._row(each) for each in self.scored]

    def _row(self, each: Scored) -> dict[str, Any]:
        row: dict[str, Any] = {
            "method": each.name,
            "origin": None if each.method is None else each.method.origin,
            "version": None if each.method is None else each.method.version,
            "parameters": None if each.method is None else output.to_json_value(dict(each.method.parameters)),
            "images": len(self.image_ids),
        }
        for name, values in each.values.items():
            low, high = bootstrap(values, self.seed)
            row |= {name: float(values.mean()), f"{name}_low": float(low), f"{name}_high": float(high)}
        return {**row, "seconds": None if each.seconds is None else float(each.seconds.mean())}

    def table_rows(self) -> list[dict[str, Any]]:
        """The printed table's rows, with chance at the end."""
        rows = []
        for row in self.to_dicts():
            low, high = (minus_text(f"{row[f'rank_{end}']:.3f}") for end in ("low", "high"))
            numbers = {name: round(row[name], 3) for name in SCORES}
            seconds = None if row["seconds"] is None else float(f"{row['seconds']:.2g}")
            rows.append({"method": row["method"], "rank_interval": f"{low} to {high}", "seconds": seconds, **numbers})
        chance = {name: round(value, 3) for name, value in self.chance.items()}
        return [*rows, {"method": "(chance)", "rank_interval": None, "seconds": None, **chance}]

    def __str__(self) -> str:
        """A table."""
        return output.table_text(self.columns, self.table_rows(), self.title)

    def to_arrow(self) -> pa.Table:
        """What `to_dicts` gives."""
        return pa.Table.from_pylist(self.to_dicts())

    def images(self) -> pa.Table:
        """A row for each image and method."""
        rows = [
            {
                "method": each.name,
                "image_id": image_id,
                "class_id": class_id,
                **{name: float(values[place]) for name, values in each.values.items()},
                "seconds": None if each.seconds is None else float(each.seconds[place]),
            }
            for each in self.scored
            for place, (image_id, class_id) in enumerate(
                zip(self.image_ids.tolist(), self.classes.tolist(), strict=True)
            )
        ]
        return pa.Table.from_pylist(rows)

    def curves(self) -> pa.Table:
        """A row for each method and share of cells: the overlap of so many strongest."""
        rows = []
        for each in self.scored:
            low, high = bootstrap(each.curve, self.seed)
            for place, share in enumerate(SHARES):
                rows.append(
                    {
                        "method": each.name,
                        "share": share,
                        "overlap": float(each.curve[:, place].mean()),
                        "low": float(low[place]),
                        "high": float(high[place]),
                        "chance": self._chance_at(share),
                    }
                )
        return pa.Table.from_pylist(rows)

    def _chance_at(self, share: float) -> float:
        count = int(self.known[0].cells[0].size)
        return strongest_of(count, share) / count


def strongest_of(count: int, share: float) -> int:
    """How many are a share of so many, one at least."""
    return max(1, round(share * count))


def score(answer: Answer, question: Question) -> tuple[tuple[Scored, ...], tuple[Scored, ...], dict[str, float]]:
    """Score what the methods found.

    Returns:
        The scores of what is known; those of the methods; what chance scores.
    """
    truth = answer.truths.own
    even = truth.maps()
    true_cells, true_boxes = cells(even, truth.grid), boxes(even, truth.grid)

    def scored(name: str, method: Method | None, found: Attributed | NDArray[np.float64]) -> Scored:
        if isinstance(found, Attributed):
            in_cells, in_boxes = found.cells.astype(np.float64), found.boxes.astype(np.float64)
        else:
            in_cells, in_boxes = cells(found, truth.grid), boxes(found, truth.grid)
        compared = _Compared(*(_flat(each) for each in (in_cells, true_cells, in_boxes, true_boxes)))
        count = compared.cells.shape[1]
        curve = [scores.overlap(compared.cells, compared.true_cells, strongest_of(count, each)) for each in SHARES]
        seconds = found.seconds.astype(np.float64) if isinstance(found, Attributed) else None
        values = {name: find(compared) for name, find in SCORES.items()}
        return Scored(name, method, values, np.stack(curve, axis=1), seconds, in_cells)

    maps: list[tuple[str, NDArray[np.float64]]] = [(EVIDENCE, even), (MIDDLES, truth.middles())]
    if answer.truths.other is not None:
        maps.append((OTHER, answer.truths.other.maps()))
    known = tuple(scored(name, None, found) for name, found in maps)
    by_name = {each.name: each for each in question.methods}
    methods = tuple(scored(name, by_name[name], found) for name, found in answer.attributed.items())
    return known, methods, _chance(true_cells[0].size, true_boxes[0].size)


def _chance(cells_: int, boxes_: int) -> dict[str, float]:
    """What numbers drawn at random score on average."""
    in_cells, in_boxes = (strongest_of(count, TOP) / count for count in (cells_, boxes_))
    chance = dict.fromkeys(SCORES, 0.0)
    return chance | dict.fromkeys(("overlap", "pointing", "mass"), in_cells) | {"box_overlap": in_boxes}


def _flat(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return values.reshape(len(values), -1)
