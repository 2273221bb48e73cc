"""`PatchMap`: patches, or visual words, laid out so that those lie together that look alike to the model."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bagindex.accounts.shortcuts import Crops
from bagindex.accounts.shown import PicturedAccount
from bagindex_schemas.derived import MapRecord
from bagindex_schemas.records import ClassRecord, Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COARSE = 12


@dataclass(frozen=True)
class Point:
    """A patch on a map, or a visual word, whose most typical patch this is.

    Attributes:
        x, y: where it lies; only who lies near whom means something.
        class_: the class that is asked about; else the one that it speaks most for.
        logit: its evidence for that class; of a word, the mean of its patches'.
        label: of its image, None where it has none.
    """

    patch_id: int
    image_id: int
    word: int | None
    x: float
    y: float
    class_: str
    logit: float
    label: str | None
    path: str


@dataclass(frozen=True)
class PatchMap(PicturedAccount):
    """A map.

    Attributes:
        model: the model's name.
        asked: the class whose evidence colours it; None: points have the colour of the class that they speak most for.
        points: the answer, in the order of the patches or words.
        record: how the map was made.
        grid: the model's patch grid.
    """

    model: str
    asked: ClassRecord | None
    points: tuple[Point, ...]
    record: MapRecord
    grid: Grid
    _crops: Crops = dataclasses.field(repr=False, compare=False)

    columns = ("patch_id", "word", "x", "y", "class", "logit", "label", "path")
    types: ClassVar[Mapping[str, str]] = {
        "patch_id": "integer",
        "image_id": "integer",
        "word": "integer",
        "x": "number",
        "y": "number",
        "class": "text",
        "logit": "number",
        "label": "text",
        "path": "text",
    }

    def __len__(self) -> int:
        """How many points it has."""
        return len(self.points)

    @property
    def what(self) -> str:
        """What its points are."""
        return "visual words" if self.record.asked is None else "patches"

    @property
    def title(self) -> str:
        """What it shows."""
        shown = "what each speaks most for" if self.asked is None else f"evidence for {self.asked.name}"
        return f"{len(self):,} {self.what}, by likeness; {shown} ({self.model})"

    @property
    def words(self) -> str:
        """How it was made."""
        return (
            f"t-SNE of the features' directions (perplexity {self.record.perplexity:g}, seed {self.record.seed}). "
            "Points near each other are alike to the model; distances between groups, and their sizes, say little."
        )

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each point."""
        return [{name.rstrip("_"): value for name, value in vars(each).items()} for each in self.points]

    def to_dict(self) -> dict[str, Any]:
        """The whole as a JSON object, column by column."""
        from bagindex.patch_maps.drawing import limit_of

        return {
            "title": self.title,
            "model": self.model,
            "class": None if self.asked is None else self.asked.name,
            "words": None if self.record.asked is not None else [each.word for each in self.points],
            "patches": [each.patch_id for each in self.points],
            "x": [round(each.x, 3) for each in self.points],
            "y": [round(each.y, 3) for each in self.points],
            "classes": [each.class_ for each in self.points],
            "logits": [each.logit for each in self.points],
            "labels": [each.label for each in self.points],
            "colours_end": limit_of(self.points),
            "said": self.words,
        }

    def figure(self) -> Figure:
        """The points, in colours."""
        from bagindex.patch_maps.drawing import map_figure

        return map_figure(self)

    def pictures(self) -> Sequence[NDArray[np.uint8]]:
        """The points' patches, uint8 [q, q, RGB] each.

        Raises:
            NotKeptError: the index keeps no pixels.
        """
        return self._crops([each.patch_id for each in self.points])

    def to_html(self) -> str:
        """A page, in one file, on which the patch is shown of the point that the mouse or the keyboard is at."""
        from bagindex.patch_maps.page import page

        return page(self)

    def _writers(self) -> dict[str, Callable[[Path], object]]:
        return {**super()._writers(), ".html": lambda file: file.write_text(self.to_html(), encoding="utf-8")}

    def _coarse(self) -> Sequence[tuple[str, Sequence[NDArray[np.uint8]], Sequence[str]]]:
        strongest = sorted(self.points, key=lambda each: -each.logit)[:_COARSE]
        crops = self._crops([each.patch_id for each in strongest])
        return [(self.title, crops, [each.class_ for each in strongest])]
