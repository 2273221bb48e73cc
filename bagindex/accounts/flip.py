"""The fewest patches whose removal changes a prediction.

*Removal* leaves a patch out of the mean, as if the picture had not had it: the logits are the means over the patches
that remain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bagindex.accounts import sums
from bagindex.accounts.shown import PicturedAccount
from bagindex.accounts.why import exact_evidence
from bagindex.errors import QueryError
from bagindex.figures import flip as drawing
from bagindex.geometry import Box, patch_box, patch_pixels
from bagindex.maps import ImageEvidence, Subject
from bagindex.text import differs_text, rounding_text
from bagindex_schemas.records import ClassRecord, Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COARSE = 21
"""Patches shown in a picture of few pixels."""


@dataclass(frozen=True)
class Fewest:
    """The smallest removal that changes a prediction.

    Attributes:
        before: the class that is predicted with all patches.
        after: the class that is predicted without them; None: nothing changes the prediction, and the rest is empty.
        removed: the patches' places among P, in the order in which they are removed.
        needed: for each class, how many patches must go for it to be ahead of `before`; None where nothing helps.
    """

    before: int
    after: int | None
    removed: tuple[int, ...]
    needed: tuple[int | None, ...]


def fewest(evidence: NDArray[np.float64]) -> Fewest:
    """The fewest patches whose removal changes the prediction, from an image's evidence, float64 [C, P].

    Whether another class is ahead of the predicted one depends on the sum of their difference over the remaining
    patches alone, and among all removals of n patches, the one of the n largest differences leaves the smallest sum.
    So no removal of n patches helps a class unless that one does, and the smallest n over all classes is the smallest
    that changes the prediction.

    Of classes that need equally many, the one that is then furthest ahead is taken, then the smaller class id; no third
    class can be ahead of it, or it would be further ahead after a removal of as many patches. One patch remains at
    least.
    """
    before = int(sums.predicted(evidence.sum(axis=1)[None])[0])
    needed: list[int | None] = []
    best: tuple[int, float, int] | None = None
    removed: tuple[int, ...] = ()
    for other in range(len(evidence)):
        found = None if other == before else _needed(evidence[before] - evidence[other], before, other)
        needed.append(None if found is None else found[0])
        if found is not None:
            count, lead, order = found
            key = (count, -lead, other)
            if best is None or key < best:
                best, removed = key, tuple(order[:count].tolist())
    return Fewest(before, None if best is None else best[2], removed, tuple(needed))


def _needed(difference: NDArray[np.float64], before: int, other: int) -> tuple[int, float, NDArray[np.int64]] | None:
    """How many patches must go until `other` is ahead, by what sum it then is, and the order of removal."""
    order = np.argsort(-difference, kind="stable")
    lead = np.cumsum(difference[order])[:-1] - difference.sum()
    ahead = sums.beats(lead, other, before)
    if not ahead.any():
        return None
    count = int(ahead.argmax()) + 1
    return count, float(lead[count - 1]), order


@dataclass(frozen=True)
class RemovedPatch:
    """A patch that is removed.

    Attributes:
        rank: its turn.
        patch_id: None in a file that is not in the index.
        difference: its logit for the class before, minus that for the class after.
        margin: of the class before over the class after, over the patches that remain when it has gone.
    """

    rank: int
    row: int
    col: int
    patch_id: int | None
    box: Box
    difference: float
    margin: float


@dataclass(frozen=True, eq=False)
class Flip(PicturedAccount):
    """The fewest patches whose removal changes an image's prediction; see `fewest`.

    Attributes:
        image, model, grid, recorded, pixels, shape: as in `bagindex.accounts.why.Why`.
        classes: all classes.
        found: the removal.
        patches: the removed patches, first the one with the largest difference.
        difference: logits for the class before, minus those for the class after: float64 [rows, cols]; None where
            nothing changes the prediction.
        margin: of the class before over the class after, with all patches; None likewise.
        rounding: the model's own margin, minus that.
    """

    image: Subject
    model: str
    grid: Grid
    recorded: ClassRecord
    classes: tuple[ClassRecord, ...]
    found: Fewest
    patches: tuple[RemovedPatch, ...]
    difference: NDArray[np.float64] | None
    margin: float | None
    rounding: float | None
    pixels: NDArray[np.uint8] | None
    shape: tuple[int, int]

    columns = ("rank", "difference", "margin", "row", "col", "patch_id")
    types: ClassVar[Mapping[str, str]] = {
        "rank": "integer",
        "difference": "number",
        "margin": "number",
        "row": "integer",
        "col": "integer",
        "patch_id": "integer",
        "box": "integers",
    }

    @property
    def before(self) -> ClassRecord:
        """What is predicted with all patches."""
        return self.classes[self.found.before]

    @property
    def after(self) -> ClassRecord | None:
        """What is predicted without the patches; None: nothing changes the prediction."""
        return None if self.found.after is None else self.classes[self.found.after]

    def __len__(self) -> int:
        """How many patches are removed."""
        return len(self.patches)

    @property
    def title(self) -> str:
        """What was asked."""
        return f"{self.image.name}: the fewest patches that decide {self.before.name} ({self.model})"

    @property
    def words(self) -> str:
        """What becomes of the prediction."""
        return " ".join(each for each in (self._said, differs_text(self.before.name, self.recorded.name)) if each)

    @property
    def _said(self) -> str:
        said = f"The image is {self.image.labelled} and predicted {self.before.name}. "
        if self.after is None or self.margin is None or self.rounding is None:
            return said + (
                f"No removal of patches changes that: whichever are left out of its {self.grid.patches}, "
                f"{self.before.name} stays ahead."
            )
        count = len(self.patches)
        these, them = ("this patch", "it") if count == 1 else (f"these {count} patches", "them")
        return (
            f"{said}Without {these} of {self.grid.patches} it is {self.after.name}, and no removal of fewer "
            f"changes the prediction. With {them} {self.before.name} leads by {self.margin:.2g}, without {them} "
            f"{self.after.name} by {-self.patches[-1].margin:.2g}. (Removed patches are left out of the mean. The "
            f"model's own margin is {rounding_text(self.rounding)} off, for the rounding of stored evidence.)"
        )

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each removed patch."""
        return [{**vars(patch), "box": list(patch.box)} for patch in self.patches]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON object."""
        return [self.to_dict()]

    def to_dict(self) -> dict[str, Any]:
        """The account as a JSON object would have it; `needed` has a number for each class."""
        return {
            "image_id": self.image.image_id,
            "image": self.image.name,
            "model": self.model,
            "label": None if self.image.label is None else self.image.label.name,
            "before": self.before.name,
            "after": None if self.after is None else self.after.name,
            "recorded": self.recorded.name,
            "removed": len(self.patches),
            "patches_in_all": self.grid.patches,
            "margin": self.margin,
            "margin_without": self.patches[-1].margin if self.patches else None,
            "rounding": self.rounding,
            "needed": dict(zip((record.name for record in self.classes), self.found.needed, strict=True)),
            "said": self.words,
            "patches": self.table_rows(),
        }

    def figure(self) -> Figure:
        """The photograph, the map of the difference, and what remains of it.

        Raises:
            QueryError: nothing changes the prediction.
        """
        if self.after is None or self.difference is None or self.margin is None:
            raise QueryError(f"there is nothing to draw: {self._said}")
        return drawing.flip_figure(
            drawing.FlipPicture(
                header=f"{self.model} · {self.image.name}",
                captions=(
                    (self.image.labelled, f"predicted {self.before.name}"),
                    (f"{self.before.name} − {self.after.name}", f"margin {self.margin:+.3g}"),
                    (f"without {len(self)} of {self.grid.patches}", f"predicted {self.after.name}"),
                ),
                values=self.difference.astype(np.float32),
                gone=np.isin(np.arange(self.grid.patches), self.found.removed).reshape(self.difference.shape),
                border=self.grid.border,
                step=self.grid.stride,
                removed=[patch.box for patch in self.patches],
                remaining=[
                    patch_box(self.grid, *divmod(cell, self.grid.cols))
                    for cell in sorted(set(range(self.grid.patches)) - set(self.found.removed))
                ],
                pixels=self.pixels,
                shape=self.shape,
                said=self.words,
            )
        )

    def _coarse(self) -> Sequence[tuple[str, Sequence[NDArray[np.uint8]], Sequence[str]]]:
        if self.pixels is None:
            raise QueryError("this index keeps no pixels to show: build it anew with --pixels --restart")
        shown = self.patches[:_COARSE]
        after = "nothing" if self.after is None else self.after.name
        heading = f"without these {len(self)}: {after}"
        crops = [patch_pixels(self.pixels, self.grid, patch.row, patch.col) for patch in shown]
        return [(heading, crops, [str(patch.rank) for patch in shown])]


def flip(evidence: ImageEvidence) -> Flip:
    """Find the fewest patches whose removal changes an image's prediction.

    Raises:
        QueryError: evidence must be computed, and the index keeps no pixels.
    """
    grid, every = evidence.record.grid, exact_evidence(evidence)
    flat = every.reshape(len(every), -1)
    found = fewest(flat)
    difference = margin = rounding = None
    patches: list[RemovedPatch] = []
    if found.after is not None:
        values = flat[found.before] - flat[found.after]
        difference, rest = values.reshape(grid.rows, grid.cols), float(values.sum())
        margin = rest / grid.patches
        logits = evidence.logits.astype(np.float64)
        rounding = float(logits[found.before] - logits[found.after]) - margin
        for rank, cell in enumerate(found.removed, start=1):
            row, col = divmod(cell, grid.cols)
            rest -= float(values[cell])
            patches.append(
                RemovedPatch(
                    rank=rank,
                    row=row,
                    col=col,
                    patch_id=evidence.subject.patch_id(grid, cell),
                    box=patch_box(grid, row, col),
                    difference=float(values[cell]),
                    margin=rest / (grid.patches - rank),
                )
            )
    return Flip(
        image=evidence.subject,
        model=evidence.record.name,
        grid=grid,
        recorded=evidence.predicted,
        classes=evidence.classes,
        found=found,
        patches=tuple(patches),
        difference=difference,
        margin=margin,
        rounding=rounding,
        pixels=evidence.pixels,
        shape=evidence.shape,
    )
