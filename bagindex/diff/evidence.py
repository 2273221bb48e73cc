"""How two models' evidence differs, class by class: read a class and a block of images at a time, whatever the size."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from math import sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex.accounts.sums import exact
from bagindex.diff.matching import Matched, Side
from bagindex.stored import StoredEvidence

BLOCK = 4096
"""Images whose evidence for a class is looked at a time."""


@dataclass
class Agreement:
    """How alike two runs of numbers are, which come in parts.

    Attributes:
        count: how many pairs there were.
        largest: the largest difference; `place`: of which pair, counted over all parts.
    """

    count: int = 0
    largest: float = 0.0
    place: int = 0
    _sums: NDArray[np.float64] = field(default_factory=lambda: np.zeros(6))

    def add(self, a: NDArray[np.float64], b: NDArray[np.float64]) -> None:
        """Take in more pairs, of any shape."""
        a, b = a.ravel(), b.ravel()
        difference = b - a
        self._sums += [a.sum(), b.sum(), a @ a, b @ b, a @ b, difference @ difference]
        if len(a):
            most = int(np.abs(difference).argmax())
            if abs(difference[most]) > abs(self.largest):
                self.largest, self.place = float(difference[most]), self.count + most
        self.count += len(a)

    def merge(self, other: Agreement) -> None:
        """Take in what another one has seen."""
        if abs(other.largest) > abs(self.largest):
            self.largest, self.place = other.largest, self.count + other.place
        self._sums += other._sums
        self.count += other.count

    @property
    def correlation(self) -> float | None:
        """Pearson's; None where one of both runs is constant."""
        a, b, aa, bb, ab, _ = self._sums.tolist()
        spread_a, spread_b = (self.count * squares - total * total for squares, total in ((aa, a), (bb, b)))
        # What is left of equal numbers is their rounding.
        if min(spread_a, spread_b) <= 1e-12 * self.count * max(aa, bb):
            return None
        return float(min(1.0, max(-1.0, (self.count * ab - a * b) / sqrt(spread_a * spread_b))))

    @property
    def relative(self) -> float | None:
        """The L2 norm of the difference over that of the first run; None where that is 0."""
        _, _, aa, _, _, dd = self._sums.tolist()
        return sqrt(dd / aa) if aa else None

    @property
    def shift(self) -> float:
        """The mean of the second run less that of the first."""
        a, b, *_ = self._sums.tolist()
        return float((b - a) / self.count) if self.count else 0.0


@dataclass(frozen=True)
class ClassDifference:
    """How two models' evidence for a class differs, on the images that they have in common.

    Attributes:
        class_: the class's name.
        agreement: of all patches' logits, where patches can be compared, else of the images' mean logits.
        image_id_a: the image of the first index with the largest difference.
        cell: the patch's place there, row-major; None where images are compared.
        ranks: agreement of the ranks of the images' largest patch logits: its correlation is Spearman's of these.
        top: of how many strongest patches `shared` are the same on both sides, each of another image; where patches
            cannot be compared, of how many images.
    """

    class_: str
    agreement: Agreement
    image_id_a: int
    cell: int | None
    ranks: Agreement
    top: int
    shared: int

    def to_dict(self) -> dict[str, Any]:
        """As a row of a table."""
        return {
            "class": self.class_,
            "correlation": self.agreement.correlation,
            "relative_l2": self.agreement.relative,
            "mean_change": self.agreement.shift,
            "largest_change": self.agreement.largest,
            "image_id_a": self.image_id_a,
            "cell": self.cell,
            "rank_correlation": self.ranks.correlation,
            "top": self.top,
            "shared": self.shared,
            "overlap": self.shared / self.top,
        }


def same_patches(a: Side, b: Side) -> str:
    """Why patches of two models cannot be compared one by one; nothing where they can."""
    if a.record.grid != b.record.grid:
        return "their patches are of other sizes or at other places"
    one, other = a.catalog.manifest.plan.transform, b.catalog.manifest.plan.transform
    if (one.resize, one.crop_height, one.crop_width) != (other.resize, other.crop_height, other.crop_width):
        return "their inputs are cut out of the pictures otherwise"
    for side in (a, b):
        if "evidence" not in side.record.keep.tables:
            return f"{side.name} keeps no evidence of its patches"
    return ""


def differences(
    a: Side,
    b: Side,
    matched: Matched,
    k: int,
    evidence: tuple[StoredEvidence, StoredEvidence] | None,
    progress: Callable[[int, int], None],
) -> Iterator[ClassDifference]:
    """One for each class that both have.

    Args:
        a, b: the two.
        matched: what they have in common.
        k: how many of the strongest patches of a class count.
        evidence: of both, where patches can be compared.
        progress: hears how many of how many classes are done.
    """
    places = evidence and (evidence[0].places(matched.a), evidence[1].places(matched.b))
    for done, (class_a, class_b) in enumerate(matched.classes):
        progress(done, len(matched.classes))
        one, other = _summary(a, class_a, matched.a), _summary(b, class_b, matched.b)
        if evidence and places:
            agreement = Agreement()
            for start in range(0, len(matched), BLOCK):
                values = (
                    exact(stored.at(class_id, rows[start : start + BLOCK]))
                    for stored, class_id, rows in zip(evidence, (class_a, class_b), places, strict=True)
                )
                agreement.add(*values)
            row, cell = divmod(agreement.place, a.record.grid.patches)
        else:
            agreement, cell = Agreement(), None
            agreement.add(one.mean, other.mean)
            row = agreement.place
        top = min(k, len(matched))
        yield ClassDifference(
            class_=a.classes[class_a].name,
            agreement=agreement,
            image_id_a=int(matched.a[row]),
            cell=cell,
            ranks=_ranks(one.most, other.most),
            top=top,
            shared=len(_strongest(one, top, evidence is not None) & _strongest(other, top, evidence is not None)),
        )
    progress(len(matched.classes), len(matched.classes))


@dataclass(frozen=True, eq=False)
class _Summary:
    """A class's evidence in M images: the mean and the largest patch logit, float64 [M], and where that is, a cell of
    the grid, int64 [M].
    """

    mean: NDArray[np.float64]
    most: NDArray[np.float64]
    cell: NDArray[np.int64]


def _summary(side: Side, class_id: int, image_ids: NDArray[np.int64]) -> _Summary:
    relation = side.catalog.relation(side.record, "image_evidence")
    rows = side.catalog.columns(
        f"SELECT image_id, mean_logit, max_logit, patch_id FROM {relation} WHERE class_id = {class_id} "
        "ORDER BY image_id"
    )
    places = np.searchsorted(rows["image_id"], image_ids)
    return _Summary(
        mean=np.asarray(rows["mean_logit"], np.float64)[places],
        most=np.asarray(rows["max_logit"], np.float64)[places],
        cell=np.asarray(rows["patch_id"], np.int64)[places] % side.record.grid.patches,
    )


def _ranks(a: NDArray[np.float64], b: NDArray[np.float64]) -> Agreement:
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    found = Agreement()
    found.add(rankdata(a), rankdata(b))
    return found


def _strongest(summary: _Summary, k: int, cells: bool) -> set[tuple[int, int]]:
    """The k strongest patches, each of another image: its place and, where patches can be compared, the cell."""
    order = np.argsort(-summary.most, kind="stable")[:k]
    return {(int(place), int(summary.cell[place]) if cells else 0) for place in order}
