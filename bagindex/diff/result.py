"""`Diff`: what is different between two models of indexes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex import output
from bagindex.accounts.shown import PicturedAccount
from bagindex.diff.vocabularies import WordsCompared
from bagindex.errors import QueryError
from bagindex.intervals import Paired
from bagindex.text import some

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from bagindex.diff.drawing import FlippedImage

MOST_DRAWN = 12
"""Images in a picture, and on a page."""
KINDS = ("right to wrong", "wrong to right", "otherwise")
"""What becomes of an image that is predicted otherwise; the last: it was wrong and is, or has no label."""
Pictures = Callable[[Sequence[Mapping[str, Any]]], Sequence["FlippedImage"]]
"""Gives what is drawn of some flips."""


@dataclass(frozen=True, eq=False)
class Diff(PicturedAccount):
    """What is different between two models.

    Attributes:
        a, b: what the two are called.
        settings: those that differ: `setting`, `a`, `b`.
        images: how many images are matched; `by_path` of them by their path, for their content is another.
        only_a, only_b: how many either has alone.
        classes: how many classes have the same name; `classes_a` and `classes_b`: names that either has alone.
        relabelled: how many matched images have another label.
        top1, top5: how often both are right about the images that both have a label of; None where there are none.
        flips: a row for each image that is predicted otherwise, those that go wrong first: `kind`, `path`,
            `image_id_a`, `image_id_b`, `label_a`, `label_b`, `predicted_a`, `predicted_b`, `probability_a`,
            `probability_b`.
        evidence: a row for each class; see `bagindex.diff.evidence.ClassDifference`.
        whole: of all classes together: `correlation`, `relative_l2`, `largest_change`, …
        patches: why patches were not compared one by one, but images by their means; nothing where they were.
        words: how alike the visual words are.
    """

    a: str
    b: str
    settings: pa.Table
    images: int
    by_path: int
    only_a: int
    only_b: int
    classes: int
    classes_a: tuple[str, ...]
    classes_b: tuple[str, ...]
    relabelled: int
    top1: Paired | None
    top5: Paired | None
    flips: pa.Table
    evidence: pa.Table
    whole: Mapping[str, float | None]
    patches: str
    words_compared: WordsCompared
    _pictures: Pictures = dataclasses.field(repr=False, compare=False)

    columns = ("what", "a", "b", "change", "low", "high")
    types: ClassVar[Mapping[str, str]] = {
        "what": "text",
        "a": "number",
        "b": "number",
        "change": "number",
        "low": "number",
        "high": "number",
    }

    def __len__(self) -> int:
        """How many images are predicted otherwise."""
        return int(self.flips.num_rows)

    @property
    def title(self) -> str:
        """What is compared."""
        return f"{self.a} (a) and {self.b} (b), on {self.images:,} images"

    def count(self, kind: str) -> int:
        """How many images flip in one of `KINDS`."""
        return sum(each == kind for each in self.flips["kind"].to_pylist())

    def table_rows(self) -> list[dict[str, Any]]:
        """The summary, a row for each quantity."""
        rows: list[dict[str, Any]] = []

        def add(what: str, a: float | None, b: float | None, change: float | None, ends: Sequence[float] = ()) -> None:
            low, high = ends or (None, None)
            rows.append({"what": what, "a": a, "b": b, "change": change, "low": low, "high": high})

        add("images that it alone has", self.only_a, self.only_b, None)
        add("classes that it alone has", len(self.classes_a), len(self.classes_b), None)
        for name, each in (("top-1 accuracy", self.top1), ("top-5 accuracy", self.top5)):
            if each is not None:
                add(name, each.right_a / each.images, each.right_b / each.images, each.change, tuple(each.interval))
        for kind in KINDS:
            add(f"images that flip, {kind}", None, None, self.count(kind))
        for name, value in self.whole.items():
            add(name, None, None, value)
        return rows

    @property
    def words(self) -> str:
        """What is to be said of it."""
        said = []
        if self.by_path:
            said.append(f"{self.by_path:,} images have another content and the same path.")
        for name, only in ((self.a, self.classes_a), (self.b, self.classes_b)):
            if only:
                said.append(f"Only {name} has the classes {some(only)}.")
        if self.relabelled:
            said.append(f"{self.relabelled:,} images have another label; each model is judged by its own.")
        if self.top1 is None:
            said.append("No image has a label on both sides, so there is no accuracy.")
        else:
            said.append(
                f"low, high: the change's 95 % interval for pairs; McNemar's exact test, p = {self.top1.p_value:.2g}."
            )
        what = "images' mean logits, for " + self.patches if self.patches else "all patches' logits"
        said += [f"Evidence is compared by {what}.", str(self.words_compared)]
        return " ".join(said)

    def to_dict(self) -> dict[str, Any]:
        """All of it, as a JSON object has it."""
        return {
            "a": self.a,
            "b": self.b,
            "images": self.images,
            "matched_by_path": self.by_path,
            "only_a": self.only_a,
            "only_b": self.only_b,
            "classes": self.classes,
            "classes_a": list(self.classes_a),
            "classes_b": list(self.classes_b),
            "relabelled": self.relabelled,
            "summary": self.table_rows(),
            "p_value": None if self.top1 is None else self.top1.p_value,
            "settings": self.settings.to_pylist(),
            "flips": self.flips.to_pylist(),
            "evidence": self.evidence.to_pylist(),
            "patches_compared": not self.patches,
            "words": dataclasses.asdict(self.words_compared),
            "remarks": self.words,
        }

    def to_dicts(self) -> list[dict[str, Any]]:
        """The images that flip."""
        rows: list[dict[str, Any]] = self.flips.to_pylist()
        return rows

    def to_arrow(self) -> pa.Table:
        """The images that flip."""
        return self.flips

    def __str__(self) -> str:
        """The settings that differ, the summary, and words."""
        return f"{output.table_text(self.settings.column_names, self.settings.to_pylist())}\n{super().__str__()}"

    def figure(self) -> Figure:
        """Images that flip, each with what speaks for either prediction."""
        from bagindex.diff.drawing import flips_figure

        return flips_figure(self.drawn())

    def drawn(self) -> Sequence[FlippedImage]:
        """What is drawn: of each kind the first.

        Raises:
            QueryError: no image flips.
        """
        rows = self.flips.to_pylist()
        if not rows:
            raise QueryError(f"there is nothing to draw: no image is predicted otherwise by {self.b}")
        kinds = [[row for row in rows if row["kind"] == kind] for kind in KINDS]
        each = [part[: max(1, MOST_DRAWN // sum(map(bool, kinds)))] for part in kinds]
        return self._pictures([row for part in each for row in part])

    def to_html(self) -> str:
        """A page, in one file."""
        from bagindex.diff.drawing import page

        return page(self)

    def _writers(self) -> dict[str, Callable[[Path], object]]:
        def csv(file: Path) -> None:
            file.write_text(output.to_csv(self.flips.column_names, self.to_dicts()), encoding="utf-8")

        return {
            ".html": lambda file: file.write_text(self.to_html(), encoding="utf-8"),
            **super()._writers(),
            ".json": lambda file: file.write_text(output.to_json_value(self.to_dict()) + "\n", encoding="utf-8"),
            ".csv": csv,
        }

    def _coarse(self) -> Sequence[tuple[str, Sequence[NDArray[np.uint8]], Sequence[str]]]:
        return [
            (
                f"{each.kind}: {each.lines[-2][0]} > {each.lines[-1][0]}",
                each.pictures,
                ["", "a", "b"][-len(each.pictures) :],
            )
            for each in self.drawn()
        ]
