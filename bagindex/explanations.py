"""`Explanation`: what in an image decides between two classes (the paper's Figure 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from bagindex import output
from bagindex.errors import QueryError
from bagindex.figures import maps as drawing
from bagindex.figures import style
from bagindex.figures.explain import Block, Side, explain_figure
from bagindex.figures.heatmap import Overlay
from bagindex.figures.text import shorten
from bagindex.geometry import Box, FloatBox, patch_pixels
from bagindex.maps import Subject
from bagindex.text import logit_text
from bagindex_schemas.records import ClassRecord, Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

_NAME = 0.68
"""Inches for each of two classes' names above the map of their difference."""


@dataclass(frozen=True)
class ExplainingPatch:
    """A patch of an explanation.

    Attributes:
        speaks_for: what it was chosen for: a class by name, or the margin of one class over another.
        rank: its place there.
        row, col, box, source_box, patch_id: as in `bagindex.results.Patch`; no id in a file outside the index.
        logits: for the first and the second class.
        share: the part of the margin that this patch makes, of 1; None where there is no margin.
    """

    speaks_for: str
    rank: int
    row: int
    col: int
    patch_id: int | None
    box: Box
    source_box: FloatBox
    logits: tuple[float, float]
    share: float | None


@dataclass(frozen=True, eq=False)
class Explanation:
    """Two classes in one image: what speaks for each, and what decides between them.

    Attributes:
        image: which image.
        model: the model's name.
        grid: its patch grid, of P patches.
        predicted: what the model predicts.
        classes: the two classes.
        values: patch logits, float32 [2, rows, cols].
        logits: the image's logits for the two, as the model gave them.
        probabilities: the softmax over all classes of the model, at the two.
        winner, loser: which of the two has the larger logit: 0 or 1.
        margin: the winner's logit minus the loser's: the mean over the patches of the difference of their (rounded)
            logits, which is what `logits` differ by, to the rounding of float16. Not negative.
        half, whole: how many patches, those with the largest difference first, add up to half of the margin and to all
            of it. Others may add more, and others take it away again. None where there is no margin.
        for_winner, for_loser: what patches with a positive difference add to the margin, and what those with a
            negative one take from it; `margin` is `for_winner - for_loser`.
        speaking: the patches with most evidence for the first class, and for the second.
        deciding: the patches with the largest difference in favour of the winner.
        pixels, shape, beneath, alpha: as in `bagindex.heatmaps.Heatmap`.
    """

    image: Subject
    model: str
    grid: Grid
    predicted: ClassRecord
    classes: tuple[ClassRecord, ClassRecord]
    values: NDArray[np.float32]
    logits: tuple[float, float]
    probabilities: tuple[float, float]
    winner: int
    loser: int
    margin: float
    half: int | None
    whole: int | None
    for_winner: float
    for_loser: float
    speaking: tuple[tuple[ExplainingPatch, ...], tuple[ExplainingPatch, ...]]
    deciding: tuple[ExplainingPatch, ...]
    pixels: NDArray[np.uint8] | None
    shape: tuple[int, int]
    beneath: str
    alpha: float

    @property
    def words(self) -> str:
        """How the two classes compare, and how much of the margin comes from how few patches."""
        first, second = (record.name for record in self.classes)
        said = (
            f"The image is {self.image.labelled} and predicted {self.predicted.name}. "
            f"{first}: logit {logit_text(self.logits[0])}, probability {drawing.percent(self.probabilities[0])}; "
            f"{second}: {logit_text(self.logits[1])}, {drawing.percent(self.probabilities[1])}. "
        )
        count = self.grid.patches
        if self.half is None or self.whole is None:
            return f"{said}Neither leads: over the {count} patches their logits differ by 0 on average."
        winner, loser = (self.classes[place].name for place in (self.winner, self.loser))
        difference = self.difference
        return (
            f"{said}{winner} leads by {self.margin:.2f}, the mean over {count} {'patch' if count == 1 else 'patches'} "
            f"of the difference of their logits. In {int((difference > 0).sum())} of them {winner} has the larger "
            f"logit, which adds {self.for_winner:.2f}; in {int((difference < 0).sum())} {loser} has, which takes away "
            f"{self.for_loser:.2f}. "
            f"The {_patches(self.half)} with the largest difference ({_share(self.half, count)}) "
            f"{'adds' if self.half == 1 else 'add'} up to half of the margin, the {self.whole} largest to all of it."
        )

    @property
    def difference(self) -> NDArray[np.float32]:
        """The winner's patch logits minus the loser's, float32 [rows, cols]; its mean is the margin."""
        difference: NDArray[np.float32] = self.values[self.winner] - self.values[self.loser]
        return difference

    @property
    def patches(self) -> tuple[ExplainingPatch, ...]:
        """All patches that are shown."""
        return (*self.speaking[0], *self.speaking[1], *self.deciding)

    columns = ("for", "rank", "first", "second", "logit_first", "logit_second", "share", "row", "col", "patch_id")
    """Columns of the printed table; `share` is the part of the margin."""
    all_columns = ("image_id", "image", "model", *columns, "box", "source_box")
    """Columns of a CSV file."""

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each patch that is shown."""
        return [
            {
                "image_id": self.image.image_id,
                "image": self.image.name,
                "model": self.model,
                "for": patch.speaks_for,
                "rank": patch.rank,
                "first": self.classes[0].name,
                "second": self.classes[1].name,
                "logit_first": patch.logits[0],
                "logit_second": patch.logits[1],
                "share": patch.share,
                "row": patch.row,
                "col": patch.col,
                "patch_id": patch.patch_id,
                "box": list(patch.box),
                "source_box": list(patch.source_box),
            }
            for patch in self.patches
        ]

    def to_dict(self) -> dict[str, Any]:
        """The explanation as a JSON object would have it."""
        return {
            "image_id": self.image.image_id,
            "image": self.image.name,
            "model": self.model,
            "label": None if self.image.label is None else self.image.label.name,
            "predicted": self.predicted.name,
            "classes": [record.name for record in self.classes],
            "class_ids": [record.class_id for record in self.classes],
            "logits": list(self.logits),
            "probabilities": list(self.probabilities),
            "winner": self.classes[self.winner].name,
            "margin": self.margin,
            "patches_for_half": self.half,
            "patches_for_all": self.whole,
            "patches_in_all": self.grid.patches,
            "for_winner": self.for_winner,
            "for_loser": self.for_loser,
            "words": self.words,
            "patches": [
                {key: value for key, value in row.items() if key not in ("image_id", "image", "model")}
                for row in self.table_rows()
            ],
            "values": self.values.tolist(),
        }

    def __str__(self) -> str:
        """The words and a table."""
        return f"{output.table_text(self.columns, self.table_rows(), self.image.name)}\n{self.words}\n"

    def block(self) -> Block:
        """The numbers as the figure takes them."""
        border = self.grid.border
        winner, loser = (shorten(self.classes[place].name, _NAME, style.TITLE) for place in (self.winner, self.loser))
        sides = [
            Side(
                title=record.name,
                subtitle=f"{drawing.number(self.logits[i])} · {drawing.percent(self.probabilities[i])}",
                values=self.values[i],
                boxes=[patch.box for patch in self.speaking[i]],
                crops=self._crops(self.speaking[i]),
                numbers=[drawing.number(patch.logits[i], 1) for patch in self.speaking[i]],
            )
            for i, record in enumerate(self.classes)
        ]
        deciding = [patch.logits[self.winner] - patch.logits[self.loser] for patch in self.deciding]
        sides.append(
            Side(
                title=f"{winner} − {loser}",
                subtitle=f"margin {drawing.number(self.margin)}",
                values=self.difference,
                boxes=[patch.box for patch in self.deciding],
                crops=self._crops(self.deciding),
                numbers=[drawing.number(value, 1) for value in deciding],
            )
        )
        every = np.stack([*self.values, self.difference])
        return Block(
            header=f"{self.model} · {self.image.name}",
            caption=(self.image.labelled, f"predicted {self.predicted.name}"),
            sides=sides,
            limit=float(drawing.colour_limits(every, shared=True)[0]),
            words=self.words,
            overlay=Overlay(self.shape, (border, border), self.grid.stride, self.pixels, self.beneath, self.alpha),
            most_patches=max(len(side.boxes) for side in sides),
        )

    def _crops(self, patches: Sequence[ExplainingPatch]) -> list[NDArray[np.uint8]]:
        if self.pixels is None:
            return []
        return [patch_pixels(self.pixels, self.grid, patch.row, patch.col) for patch in patches]

    def figure(self) -> Figure:
        """The picture, as a matplotlib figure; draw on it inside `bagindex.figures.style.style()`."""
        return explain_figure([self.block()])

    def save(self, path: str | Path) -> None:
        """Write a `.png`, `.svg` or `.pdf` picture, or the numbers as `.json` or `.csv` (the patches that are shown).

        Raises:
            OutputError: another ending, or the file cannot be written.
        """
        Explanations((self,)).save(path)

    def render(self, kind: str = "png", dpi: int = style.DPI) -> bytes:
        """The picture as a `png`, `svg` or `pdf` file."""
        return Explanations((self,)).render(kind, dpi)

    def picture(self, width: int | None = None, *, coarse: bool = False) -> Image.Image:
        """The figure as a picture, at most so many pixels wide.

        Args:
            width: by default as `save` writes it.
            coarse: for a picture of few pixels, such as a terminal's half characters: only the patches, a row for each
                class and one for those that decide, hardly enlarged, with their ranks.

        Raises:
            QueryError: `coarse`, and the index keeps no pixels.
        """
        from bagindex import render

        if not coarse:
            with style.style():
                return style.to_picture(self.figure(), width)
        if self.pixels is None:
            raise QueryError("this index keeps no pixels to show: build it anew with --pixels --restart")
        rows = []
        for patches in (*self.speaking, self.deciding):
            rows.append(render.coarse_sheet(self._crops(patches), [str(each.rank) for each in patches], width or 80))
        first, second = (record.name for record in self.classes)
        difference = " - ".join(self.classes[place].name for place in (self.winner, self.loser))
        return render.stack(rows, [first, second, difference])

    def _repr_png_(self) -> bytes:
        return self.render("png", 150)


@dataclass(frozen=True, eq=False)
class Explanations(Sequence[Explanation]):
    """Explanations of several images, which are shown one below the other."""

    explanations: tuple[Explanation, ...]

    @overload
    def __getitem__(self, index: int) -> Explanation: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Explanation]: ...
    def __getitem__(self, index: int | slice) -> Explanation | Sequence[Explanation]:
        """One of them."""
        return self.explanations[index]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.explanations)

    def __iter__(self) -> Iterator[Explanation]:
        """All of them."""
        return iter(self.explanations)

    def __str__(self) -> str:
        """Words and tables."""
        return "\n".join(str(each) for each in self)

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each patch that is shown."""
        return [row for each in self for row in each.table_rows()]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The explanations as JSON objects would have them."""
        return [each.to_dict() for each in self]

    def save(self, path: str | Path) -> None:
        """Write a `.png`, `.svg` or `.pdf` picture, or the numbers as `.json` or `.csv` (the patches that are shown).

        Raises:
            OutputError: another ending, or the file cannot be written.
        """
        writers: dict[str, Callable[[Path], object]] = {
            f".{kind}": lambda file, kind=kind: file.write_bytes(self.render(kind))  # type: ignore[misc]
            for kind in style.FORMATS
        }
        writers[".json"] = lambda file: file.write_text(output.to_json(self.to_dicts()), encoding="utf-8")
        writers[".csv"] = lambda file: file.write_text(
            output.to_csv(Explanation.all_columns, self.table_rows()), encoding="utf-8"
        )
        output.save(path, writers)

    def render(self, kind: str = "png", dpi: int = style.DPI) -> bytes:
        """The picture as a `png`, `svg` or `pdf` file.

        Raises:
            QueryError: there is nothing to draw.
        """
        if not self.explanations:
            raise QueryError("there is nothing to draw: no more images are confused so")
        with style.style():
            return style.to_bytes(explain_figure([each.block() for each in self]), kind, dpi)

    def _repr_png_(self) -> bytes | None:
        return self.render("png", 150) if self.explanations else None


def _patches(count: int) -> str:
    return "patch" if count == 1 else f"{count} patches"


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} % of all"
