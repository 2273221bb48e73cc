"""Which patches and words an image's logit, or the margin between two classes, is the sum of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bagindex.accounts import sums
from bagindex.accounts.shown import PicturedAccount
from bagindex.errors import QueryError
from bagindex.figures import why as drawing
from bagindex.geometry import Box, patch_box, patch_pixels
from bagindex.maps import ImageEvidence, Subject, strongest
from bagindex.text import differs_text, logit_text, rounding_text
from bagindex_schemas.records import ClassRecord, Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST = 25
"""So many patches and words are shown on each side at most: more cannot be told apart in a picture."""
_EACH = 6
"""Patches of a word that are shown beside its bar."""


@dataclass(frozen=True)
class Part:
    """A term of the sum.

    Attributes:
        what: `patch`, `word`, `other patches`, `other words`, or `total`.
        side: `for` or `against`; empty in the last three.
        rank: its place on its side.
        word: the word, or the patch's word; None where it has none.
        row, col, box, patch_id: of a patch; no id in a file that is not in the index.
        patches: how many it is.
        sum: of the patches' logits, or differences of logits; exact.
        contribution: `sum` divided by the image's patches.
        share: of the total; None where that is 0.
    """

    what: str
    side: str
    rank: int | None
    word: int | None
    row: int | None
    col: int | None
    box: Box | None
    patch_id: int | None
    patches: int
    sum: float
    contribution: float
    share: float | None


@dataclass(frozen=True, eq=False)
class Why(PicturedAccount):
    """What an image's logit for a class, or the margin of one class over another, is made of.

    A patch contributes its logit (or difference of logits) divided by P, the patches of the image; a word the sum over
    its patches. The contributions add up to the total exactly: `values.sum()`, `word_sums.sum()` and the parts' `sum`
    are the same number, since they are exact sums of stored (float16) evidence, and each is divided by P once.

    Attributes:
        image: which image.
        model: the model's name.
        grid: its patch grid, of P patches.
        predicted: the class with the largest sum of stored evidence, the first of equal ones.
        recorded: what the model predicted; another class only where the two tie within the rounding.
        class_: the class that is accounted for.
        against: the class that it is set against; None: its logit is accounted for, not a margin.
        values: the patches' logits for `class_`, or those minus the ones for `against`: float64 [rows, cols].
        of_patches: the patches' words, int32 [rows, cols]; None where there are none.
        no_words: why there are none.
        count: how many words the model has.
        logit: the image's own logit (or difference of logits), as the model gave it in float32.
        k: how many patches and words are shown on each side.
        overlap: whether the patches that are shown may share pixels.
        pixels: the model's input, uint8 [height, width, RGB]; None where the index keeps none.
        shape: height and width of the input.
    """

    image: Subject
    model: str
    grid: Grid
    predicted: ClassRecord
    recorded: ClassRecord
    class_: ClassRecord
    against: ClassRecord | None
    values: NDArray[np.float64]
    of_patches: NDArray[np.int32] | None
    no_words: str
    count: int
    logit: float
    k: int
    overlap: bool
    pixels: NDArray[np.uint8] | None
    shape: tuple[int, int]

    columns = ("what", "side", "rank", "word", "contribution", "share", "patches", "row", "col", "patch_id")
    types: ClassVar[Mapping[str, str]] = {
        "what": "text",
        "side": "text",
        "rank": "integer",
        "word": "integer",
        "contribution": "number",
        "share": "number",
        "patches": "integer",
        "row": "integer",
        "col": "integer",
        "patch_id": "integer",
        "box": "integers",
    }

    @property
    def sum(self) -> float:
        """The sum of all values, exact."""
        return float(self.values.sum())

    @property
    def total(self) -> float:
        """What is accounted for: the mean of all values."""
        return self.sum / self.grid.patches

    @property
    def rounding(self) -> float:
        """The model's own logit (or difference) minus the total: what rounding evidence to float16 took away."""
        return self.logit - self.total

    @cached_property
    def word_sums(self) -> NDArray[np.float64] | None:
        """The sum of each word's values, float64 [words]; None where there are no words."""
        return None if self.of_patches is None else sums.word_sums(self.values, self.of_patches, self.count)

    @cached_property
    def patches(self) -> tuple[Part, ...]:
        """The strongest patches for and against, and all others in one: they add up to the total."""
        shown: list[Part] = []
        for side, sign in (("for", 1), ("against", -1)):
            cells = strongest(sign * self.values, self.grid, self.k, self.overlap)
            kept = [cell for cell in cells if sign * self.values[cell] > 0]
            shown += [self._patch(side, rank, *cell) for rank, cell in enumerate(kept, start=1)]
        return (*shown, self._others("patches", shown, self.grid.patches))

    @cached_property
    def visual_words(self) -> tuple[Part, ...]:
        """The strongest words for and against, and all others in one: they add up to the total."""
        if self.of_patches is None or self.word_sums is None:
            return ()
        found = self.word_sums
        patches = np.bincount(self.of_patches.ravel(), minlength=self.count)
        shown: list[Part] = []
        for side, sign in (("for", 1), ("against", -1)):
            order = np.argsort(-sign * found, kind="stable")[: self.k]
            kept = [int(word) for word in order if sign * found[word] > 0]
            shown += [
                self._part("word", float(found[word]), int(patches[word]), side, rank, word)
                for rank, word in enumerate(kept, start=1)
            ]
        return (*shown, self._others("words", shown, self.grid.patches))

    def cells_of(self, word: int) -> list[tuple[int, int]]:
        """The cells (row, col) of a word's patches in the image, the largest value first."""
        if self.of_patches is None:
            return []
        cells = np.flatnonzero(self.of_patches == word)
        order = np.argsort(-np.abs(self.values.ravel()[cells]), kind="stable")
        return [(int(cell) // self.grid.cols, int(cell) % self.grid.cols) for cell in cells[order]]

    def _part(
        self, what: str, value: float, patches: int, side: str = "", rank: int | None = None, word: int | None = None
    ) -> Part:
        contribution, share = value / self.grid.patches, sums.share(value, self.sum)
        return Part(what, side, rank, word, None, None, None, None, patches, value, contribution, share)

    def _patch(self, side: str, rank: int, row: int, col: int) -> Part:
        value = float(self.values[row, col])
        return Part(
            what="patch",
            side=side,
            rank=rank,
            word=None if self.of_patches is None else int(self.of_patches[row, col]),
            row=row,
            col=col,
            box=patch_box(self.grid, row, col),
            patch_id=self.image.patch_id(self.grid, row * self.grid.cols + col),
            patches=1,
            sum=value,
            contribution=value / self.grid.patches,
            share=sums.share(value, self.sum),
        )

    def _others(self, what: str, shown: Sequence[Part], patches: int) -> Part:
        rest = self.sum - sum(part.sum for part in shown)
        return self._part(f"other {what}", rest, patches - sum(part.patches for part in shown))

    @property
    def of(self) -> str:
        """What is accounted for, in words."""
        if self.against is None:
            return f"logit for {self.class_.name}"
        return f"margin of {self.class_.name} over {self.against.name}"

    @property
    def title(self) -> str:
        """What was asked."""
        return f"{self.image.name}: {self.of} ({self.model})"

    @property
    def words(self) -> str:
        """What the total is, and what rounding took."""
        above, below = self.values.clip(min=0).mean(), (-self.values).clip(min=0).mean()
        said = (
            f"The image is {self.image.labelled} and predicted {self.predicted.name}. Its {self.of} is "
            f"{logit_text(self.total, 3)}, the mean over {self.grid.patches} "
            f"{'patch' if self.grid.patches == 1 else 'patches'}: {int((self.values > 0).sum())} add {above:.3f}, "
            f"{int((self.values < 0).sum())} take {below:.3f} away. The model's own number is "
            f"{rounding_text(self.rounding)} off, for the rounding of stored evidence."
        )
        sign = "The total is negative, so that what speaks for it has a negative share." if self.total < 0 else ""
        return " ".join(
            each for each in (said, sign, differs_text(self.predicted.name, self.recorded.name), self.no_words) if each
        )

    def table_rows(self) -> list[dict[str, Any]]:
        """Patches that add up to the total, then words that do."""
        total = self._part("total", self.sum, self.grid.patches)
        parts = (*self.patches, *self.visual_words, total)
        return [{**vars(part), "box": None if part.box is None else list(part.box)} for part in parts]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON object."""
        return [self.to_dict()]

    def to_dict(self) -> dict[str, Any]:
        """The account as a JSON object would have it."""
        return {
            "image_id": self.image.image_id,
            "image": self.image.name,
            "model": self.model,
            "label": None if self.image.label is None else self.image.label.name,
            "predicted": self.predicted.name,
            "recorded": self.recorded.name,
            "class": self.class_.name,
            "against": None if self.against is None else self.against.name,
            "total": self.total,
            "logit": self.logit,
            "rounding": self.rounding,
            "patches_in_all": self.grid.patches,
            "said": self.words,
            "parts": self.table_rows(),
            "values": self.values.tolist(),
            "words": None if self.of_patches is None else self.of_patches.tolist(),
        }

    def figure(self) -> Figure:
        """The photograph, the map of contributions, the strongest patches, and words as bars."""
        return drawing.why_figure(
            drawing.WhyPicture(
                header=f"{self.model} · {self.image.name}",
                caption=(self.image.labelled, f"predicted {self.predicted.name}"),
                title=self.of,
                total=self.total,
                unit="each patch's logit" if self.against is None else "each patch's difference",
                values=self.values.astype(np.float32),
                first=(self.grid.border, self.grid.border),
                step=self.grid.stride,
                pixels=self.pixels,
                shape=self.shape,
                sides={
                    side: [
                        (part.box, part.contribution, part.share)
                        for part in self.patches
                        if part.side == side and part.box is not None
                    ]
                    for side in ("for", "against")
                },
                crops={
                    side: self._crops((part.row, part.col) for part in self.patches if part.side == side)
                    for side in ("for", "against")
                },
                headings=self._headings,
                bars=[
                    drawing.Bar(
                        name=part.what if part.word is None else f"word {part.word}",
                        patches=part.patches,
                        contribution=part.contribution,
                        share=part.share,
                        crops=self._crops(self._apart(part.word)),
                    )
                    for part in self.visual_words
                ],
                said=self.words,
            )
        )

    @property
    def _headings(self) -> tuple[str, str]:
        name = self.class_.name
        return f"for {name}", f"against {name}" if self.against is None else f"for {self.against.name}"

    def _apart(self, word: int | None) -> list[tuple[int, int]]:
        """A few of a word's patches, strongest first, that do not overlap."""
        if word is None:
            return []
        chosen: list[tuple[int, int]] = []
        far = -(-self.grid.receptive_field // self.grid.stride)
        for row, col in self.cells_of(word):
            if len(chosen) < _EACH and all(abs(row - r) >= far or abs(col - c) >= far for r, c in chosen):
                chosen.append((row, col))
        return chosen

    def _crops(self, cells: Iterable[tuple[int | None, int | None]]) -> list[NDArray[np.uint8]]:
        """The pixels of patches; cells that are None are of no patch."""
        if self.pixels is None:
            return []
        return [
            patch_pixels(self.pixels, self.grid, row, col) for row, col in cells if row is not None and col is not None
        ]

    def _coarse(self) -> Sequence[tuple[str, Sequence[NDArray[np.uint8]], Sequence[str]]]:
        if self.pixels is None:
            raise QueryError("this index keeps no pixels to show: build it anew with --pixels --restart")
        rows = []
        for side, heading in zip(("for", "against"), self._headings, strict=True):
            parts = [part for part in self.patches if part.side == side]
            crops = self._crops((part.row, part.col) for part in parts)
            rows.append((heading, crops, [f"{part.contribution:+.3f}" for part in parts]))
        return rows


def why(
    evidence: ImageEvidence,
    class_: ClassRecord | None,
    against: ClassRecord | None,
    of_patches: NDArray[np.int32] | None,
    count: int,
    no_words: str,
    *,
    k: int = 5,
    overlap: bool = False,
) -> Why:
    """Account for a logit or a margin of an image.

    Args:
        evidence: of the image.
        class_: the class; by default the predicted one.
        against: another one, for the margin over it.
        of_patches: the words of its P patches, int32 [P]; None where there are none, and `no_words` says why.
        count: how many words there are.
        k: how many patches and words to show on each side.
        overlap: whether the patches that are shown may share pixels.

    Raises:
        QueryError: the two classes are one, `k` is out of range, or evidence must be computed and cannot be.
    """
    if not 1 <= k <= MOST:
        raise QueryError(f"-k goes from 1 to {MOST}")
    every = exact_evidence(evidence)
    predicted = evidence.classes[int(sums.predicted(every.sum(axis=(1, 2))[None])[0])]
    chosen = predicted if class_ is None else class_
    if against == chosen:
        raise QueryError(f"a margin is between two classes, and both are {chosen.name!r}")
    logits = evidence.logits.astype(np.float64)
    values, logit = every[chosen.class_id], float(logits[chosen.class_id])
    if against is not None:
        values, logit = values - every[against.class_id], logit - float(logits[against.class_id])
    shape = evidence.record.grid.rows, evidence.record.grid.cols
    return Why(
        image=evidence.subject,
        model=evidence.record.name,
        grid=evidence.record.grid,
        predicted=predicted,
        recorded=evidence.predicted,
        class_=chosen,
        against=against,
        values=values,
        of_patches=None if of_patches is None else of_patches.reshape(shape),
        no_words=no_words,
        count=count,
        logit=logit,
        k=k,
        overlap=overlap,
        pixels=evidence.pixels,
        shape=evidence.shape,
    )


def exact_evidence(evidence: ImageEvidence) -> NDArray[np.float64]:
    """An image's evidence for all classes as stored, float64 [C, rows, cols]."""
    return sums.exact(evidence.patches(range(len(evidence.classes))))
