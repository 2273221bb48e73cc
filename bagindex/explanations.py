"""`Explanation`: what in an image decides between two classes (the paper's Figure 4)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
from numpy.typing import NDArray

from bagindex import output
from bagindex.errors import QueryError, UnknownClassError
from bagindex.figures import maps as drawing
from bagindex.figures import style
from bagindex.figures.explain import Block, Side, explain_figure
from bagindex.figures.heatmap import Overlay
from bagindex.geometry import Box, FloatBox, patch_box, to_source
from bagindex.heatmaps import how_drawn
from bagindex.maps import ImageEvidence, Subject, softmax, strongest
from bagindex_schemas.records import ClassRecord, Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
            f"{first}: logit {_plain(self.logits[0])}, probability {drawing.percent(self.probabilities[0])}; "
            f"{second}: {_plain(self.logits[1])}, {drawing.percent(self.probabilities[1])}. "
        )
        count = self.grid.patches
        if self.half is None or self.whole is None:
            return f"{said}Neither leads: over the {count} patches their logits differ by 0 on average."
        winner, loser = (self.classes[place].name for place in (self.winner, self.loser))
        difference = self.difference
        return (
            f"{said}{winner} leads by {self.margin:.2f}, the mean over {_patches(count)} of the difference of their "
            f"logits. {int((difference > 0).sum())} of them favour {winner} and add {self.for_winner:.2f}; "
            f"{int((difference < 0).sum())} favour {loser} and take away {self.for_loser:.2f}. "
            f"The {_patches(self.half)} with the largest difference ({_share(self.half, count)}) alone "
            f"{'adds' if self.half == 1 else 'add'} up to half of the margin, "
            f"the {_patches(self.whole)} with the largest to all of it."
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
        border = (self.grid.receptive_field - self.grid.stride) / 2
        winner, loser = (self.classes[place].name for place in (self.winner, self.loser))
        sides = [
            Side(
                title=record.name,
                subtitle=f"{drawing.number(self.logits[i])} · {drawing.percent(self.probabilities[i])}",
                values=self.values[i],
                boxes=[patch.box for patch in self.speaking[i]],
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
                numbers=[drawing.number(value, 1) for value in deciding],
            )
        )
        every = np.stack([*self.values, self.difference])
        return Block(
            header=f"{self.image.name} · {self.model}",
            caption=(self.image.labelled, f"predicted {self.predicted.name}"),
            sides=sides,
            limit=float(drawing.colour_limits(every, shared=True)[0]),
            words=self.words,
            overlay=Overlay(self.shape, (border, border), self.grid.stride, self.pixels, self.beneath, self.alpha),
            most_patches=max(len(side.boxes) for side in sides),
        )

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
        """The picture as a `png`, `svg` or `pdf` file."""
        with style.style():
            return style.to_bytes(explain_figure([each.block() for each in self]), kind, dpi)

    def _repr_png_(self) -> bytes:
        return self.render("png", 150)


def two_classes(
    find: Callable[[str | int], ClassRecord], which: str | Sequence[str | int]
) -> tuple[ClassRecord, ClassRecord]:
    """The two classes that are meant by a pair, or by a text with a comma between their names.

    Raises:
        QueryError: they are not two, or the text can mean several pairs: names may have commas too.
        UnknownClassError: one of them is none.
    """
    if not isinstance(which, str):
        if len(which) != 2:
            raise QueryError(f"an explanation compares two classes, not {len(which)}")
        return find(which[0]), find(which[1])
    parts = which.split(",")
    pairs = [(",".join(parts[:cut]).strip(), ",".join(parts[cut:]).strip()) for cut in range(1, len(parts))]
    if not pairs:
        raise QueryError("--vs takes two classes with a comma between, as in --vs dress,skirt")
    found = []
    for first, second in pairs:
        try:
            found.append((find(first), find(second)))
        except UnknownClassError:
            if len(pairs) == 1:
                raise
    if len(found) != 1:
        raise QueryError(f"--vs {which!r} names {len(found) or 'no'} pairs of classes: give their ids or wnids")
    return found[0]


def default_pair(evidence: ImageEvidence) -> tuple[ClassRecord, ClassRecord]:
    """The two classes that an explanation is about by default: the label and the predicted class; where these are one,
    or there is no label, the predicted class and the one that comes next.

    Raises:
        QueryError: the model has one class.
    """
    predicted, label = evidence.predicted, evidence.subject.label
    if label is not None and label != predicted:
        return label, predicted
    order = np.argsort(-evidence.logits, kind="stable")
    if order.size < 2:
        raise QueryError("an explanation compares two classes, and this model has one: ask for a heatmap")
    return predicted, evidence.classes[int(order[1])]


def make_explanation(
    evidence: ImageEvidence,
    classes: tuple[ClassRecord, ClassRecord] | None = None,
    *,
    patches: int = 3,
    overlap: bool = False,
    beneath: str | None = None,
    alpha: float = 1.0,
) -> Explanation:
    """Compare two classes in an image.

    Args:
        evidence: of the image.
        classes: by default those of `default_pair`.
        patches: how many to show for each class, and of those that decide.
        overlap: whether these may share pixels.
        beneath, alpha: see `bagindex.heatmaps.how_drawn`.

    Raises:
        QueryError: the classes are the same, or evidence must be computed and the index keeps no pixels.
        SettingsError: see `bagindex.heatmaps.how_drawn`.
    """
    if not 1 <= patches <= MOST_PATCHES:
        raise QueryError(f"an explanation shows 1 to {MOST_PATCHES} patches for each class")
    first, second = classes or default_pair(evidence)
    if first == second:
        raise QueryError(f"an explanation compares two classes, and both are {first.name!r}")
    ids = [first.class_id, second.class_id]
    values, grid, subject = evidence.patches(ids), evidence.record.grid, evidence.subject
    means = values.mean(axis=(1, 2), dtype=np.float64)
    winner, loser = (0, 1) if means[0] >= means[1] else (1, 0)
    difference = (values[winner] - values[loser]).astype(np.float64)
    margin = float(difference.mean())

    def chosen(speaks_for: str, ranked: NDArray[np.floating]) -> tuple[ExplainingPatch, ...]:
        found = []
        for rank, (row, col) in enumerate(strongest(ranked, grid, patches, overlap), start=1):
            box = patch_box(grid, row, col)
            cell = row * grid.cols + col
            found.append(
                ExplainingPatch(
                    speaks_for=speaks_for,
                    rank=rank,
                    row=row,
                    col=col,
                    patch_id=None if subject.image_id is None else subject.image_id * grid.patches + cell,
                    box=box,
                    source_box=to_source(box, subject.placement),
                    logits=(float(values[0, row, col]), float(values[1, row, col])),
                    share=float(difference[row, col] / grid.patches / margin) if margin else None,
                )
            )
        return tuple(found)

    return Explanation(
        image=subject,
        model=evidence.record.name,
        grid=grid,
        predicted=evidence.predicted,
        classes=(first, second),
        values=values,
        logits=(float(evidence.logits[ids[0]]), float(evidence.logits[ids[1]])),
        probabilities=tuple(float(each) for each in softmax(evidence.logits)[ids]),  # type: ignore[arg-type]
        winner=winner,
        loser=loser,
        margin=margin,
        half=patches_for(difference, 0.5),
        whole=patches_for(difference, 1.0),
        for_winner=float(difference.clip(min=0).mean()),
        for_loser=float(-difference.clip(max=0).mean()),
        speaking=(chosen(first.name, values[0]), chosen(second.name, values[1])),
        deciding=chosen(f"{(first, second)[winner].name} − {(first, second)[loser].name}", difference),
        pixels=evidence.pixels,
        shape=evidence.shape,
        beneath=how_drawn(beneath, alpha, evidence.pixels),
        alpha=alpha,
    )


MOST_PATCHES = 25


def patches_for(difference: NDArray[np.float64], part: float) -> int | None:
    """How many values, largest first, add up to `part` of the sum of all; None where that is not above zero."""
    total = float(difference.sum())
    if total <= 0:
        return None
    sums = np.cumsum(np.sort(difference, axis=None)[::-1])
    # The sum of all, in another order, may be a little larger than the total.
    return int(np.argmax(sums >= part * total * (1 - 1e-12))) + 1


def _patches(count: int) -> str:
    return "patch" if count == 1 else f"{count} patches"


def _plain(logit: float) -> str:
    return f"{logit:.2f}".replace("-", "−")


def _share(count: int, of: int) -> str:
    return f"{100 * count / of:.1f} % of all"
