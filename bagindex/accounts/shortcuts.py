"""Words that speak for a class in images of other classes: shortcuts that a model has learned, and what it mistakes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bagindex.accounts import sums
from bagindex.accounts.errors import UNLABELLED, Labels, decision, read_labels
from bagindex.accounts.shown import PicturedAccount
from bagindex.catalog import Catalog
from bagindex.errors import QueryError
from bagindex.figures import strips as drawing
from bagindex.stored import StoredEvidence
from bagindex.words.vocabulary import Vocabulary
from bagindex_schemas.records import ClassRecord, Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8
"""So many patches of a word are shown, each of another image."""
MOST_DRAWN = 40
"""Words that a picture shows at most."""
Crops = Callable[[Sequence[int]], Sequence[NDArray[np.uint8]]]
"""Gives the pixels of patches, uint8 [q, q, RGB] each."""


@dataclass(frozen=True)
class Shortcut:
    """A word that speaks for a class in images of other classes.

    The class's *errors* are the images of other classes that the model predicts as it.

    Attributes:
        class_: the class.
        word: the word.
        errors: how many of the class's errors the word decides: without its patches the image's label would be ahead
            of the class; see `bagindex.accounts.errors.Decision`.
        of: how many errors the class has.
        images: how many of these have the word; `patches` of them in all.
        evidence: the mean logit for the class of those patches; None where there are none.
        contribution: what the word contributes, on average over the class's errors, to their logit for the class; None
            where there are none.
        margin: what the word contributes to the margins of the class over the labels, in the errors that it decides,
            added up.
        adds: what the word contributes to the margin of the class over the label, on average over all labelled images
            of other classes, right or wrong.
        typical: of the images of other classes in which the word adds most to that margin, in each the patch that adds
            most, patch_id; up to `SHOWN`.
        labels: the labels of these images, by name.
    """

    class_: ClassRecord
    word: int
    errors: int
    of: int
    images: int
    patches: int
    evidence: float | None
    contribution: float | None
    margin: float
    adds: float
    typical: tuple[int, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True)
class Shortcuts(PicturedAccount):
    """Words that speak for a class in images of other classes, those that decide most errors first.

    Of words that decide as many errors, the one with the larger `margin` comes first, then that with the larger `adds`,
    so that a class without errors has its shortcuts ranked too: by what they would do, not by what they did. Only words
    that decide an error, or whose `adds` is above 0, are listed. Differences between two classes are what is ranked,
    not evidence for one: a background that speaks for all classes alike has much of the latter and adds nothing.

    Whether a word is a shortcut or a part of what the class is about, evidence cannot tell: look at its patches.

    Attributes:
        asked: the class; None: all.
        model: the model's name.
        shortcuts: the answer.
        grid: the model's patch grid.
    """

    asked: ClassRecord | None
    model: str
    shortcuts: tuple[Shortcut, ...]
    grid: Grid
    _crops: Crops = dataclasses.field(repr=False, compare=False)

    columns = (
        "rank",
        "class",
        "word",
        "errors",
        "of",
        "images",
        "patches",
        "evidence",
        "contribution",
        "margin",
        "adds",
    )
    types: ClassVar[Mapping[str, str]] = {
        "rank": "integer",
        "class": "text",
        "word": "integer",
        "errors": "integer",
        "of": "integer",
        "images": "integer",
        "patches": "integer",
        "evidence": "number",
        "contribution": "number",
        "margin": "number",
        "adds": "number",
        "typical": "integers",
    }

    def __len__(self) -> int:
        """How many there are."""
        return len(self.shortcuts)

    def __getitem__(self, index: int) -> Shortcut:
        """The one of rank `index + 1`."""
        return self.shortcuts[index]

    @property
    def title(self) -> str:
        """What was asked."""
        which = "a class" if self.asked is None else self.asked.name
        return f"words that speak for {which} in images of other classes ({self.model})"

    @property
    def words(self) -> str:
        """What the columns are."""
        if not self.shortcuts:
            return "No word does."
        return (
            "errors: images of other classes, predicted as the class, whose label would be ahead of it without the "
            "word's patches; of: images of other classes that are predicted as the class; images, patches, evidence, "
            "contribution: the word in these (evidence: the mean of its patches; contribution: to the mean logit); "
            "margin: what it contributes to the class's margins over the labels in the errors, added up; adds: to the "
            "margin over the label, on average over all images of other classes. Ranked by errors, then margin, then "
            "adds. Whether a word is a shortcut or belongs to the class, its patches show."
        )

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each."""
        rows = []
        for rank, each in enumerate(self.shortcuts, start=1):
            fields = {name.rstrip("_"): value for name, value in vars(each).items() if name != "labels"}
            rows.append({"rank": rank, **fields, "class": each.class_.name, "typical": list(each.typical)})
        return rows

    def figure(self) -> Figure:
        """A row of patches for each."""
        if not self.shortcuts:
            raise QueryError(f"there is nothing to draw: no {self.title}")
        pictures = self._pictures()
        rows = [
            drawing.Row(
                (
                    each.class_.name,
                    f"word {each.word}",
                    f"decides {each.errors} of {each.of} errors",
                    f"adds {each.adds:+.2f}".replace("-", "−"),
                ),
                [
                    drawing.Group(
                        "",
                        [
                            drawing.Tile(pictures[patch], label)
                            for patch, label in zip(each.typical, each.labels, strict=True)
                        ],
                    )
                ],
            )
            for each in self.shortcuts[:MOST_DRAWN]
        ]
        return drawing.strips_figure(self.title, rows, SHOWN, 1)

    def _pictures(self) -> Mapping[int, NDArray[np.uint8]]:
        patches = sorted({patch for each in self.shortcuts[:MOST_DRAWN] for patch in each.typical})
        return dict(zip(patches, self._crops(patches), strict=True))

    def _coarse(self) -> Sequence[tuple[str, Sequence[NDArray[np.uint8]], Sequence[str]]]:
        pictures = self._pictures()
        return [
            (
                f"{each.class_.name} {each.word}: {each.errors}/{each.of}",
                [pictures[patch] for patch in each.typical],
                [label[:5] for label in each.labels],
            )
            for each in self.shortcuts[:MOST_DRAWN]
        ]


def shortcuts(
    catalog: Catalog,
    evidence: StoredEvidence,
    vocabulary: Vocabulary,
    class_: ClassRecord | None,
    k: int,
    crops: Crops,
) -> Shortcuts:
    """Rank words by what they do for a class in images of other classes.

    Reads the evidence of two classes of each wrong image, of its label of each labelled image, and of each class that
    has a word in the answer.

    Args:
        catalog, evidence, vocabulary: of the model.
        class_: the class; None: all.
        k: how many words.
        crops: gives the patches' pixels.

    Raises:
        QueryError: no image has a label, or `k` is out of range.
    """
    if k < 1:
        raise QueryError("-k starts at 1")
    labels = read_labels(catalog, evidence.record)
    classes = catalog.manifest.plan.classes
    own = _own_evidence(evidence, labels)
    errors = _Errors.weigh(evidence, vocabulary, labels, len(classes))
    adds = _adds(evidence, vocabulary, labels, own)
    asked = range(len(classes)) if class_ is None else [class_.class_id]
    chosen: list[tuple[int, int]] = []
    for class_id in asked:
        listed = np.flatnonzero((errors.decided[class_id] > 0) | (adds[class_id] > 0))
        chosen += [(class_id, int(word)) for word in listed]

    def rank(pair: tuple[int, int]) -> tuple[float, ...]:
        return -float(errors.decided[pair]), -float(errors.margin[pair]), -float(adds[pair]), *pair

    found = []
    rows: dict[int, NDArray[np.float16]] = {}
    for class_id, word in sorted(chosen, key=rank)[:k]:
        if class_id not in rows:
            rows[class_id] = evidence.of_class(class_id)
        typical = _typical(vocabulary, labels, word, class_id, rows[class_id], own)
        pair, of = (class_id, word), int(errors.of[class_id])
        found.append(
            Shortcut(
                class_=classes[class_id],
                word=word,
                errors=int(errors.decided[pair]),
                of=of,
                images=int(errors.images[pair]),
                patches=int(errors.patches[pair]),
                evidence=sums.share(float(errors.evidence[pair]), float(errors.patches[pair])),
                contribution=sums.share(float(errors.evidence[pair]), evidence.patches * of),
                margin=float(errors.margin[pair]) / evidence.patches,
                adds=float(adds[pair]),
                typical=tuple(int(evidence.image_ids[place]) * evidence.patches + cell for place, cell in typical),
                labels=tuple(labels.names[labels.labels[place]] for place, _ in typical),
            )
        )
    return Shortcuts(class_, evidence.record.name, tuple(found), evidence.record.grid, crops)


@dataclass(frozen=True, eq=False)
class _Errors:
    """Over the errors of each class: `of` int64 [C]; the others [C, words], undivided sums."""

    of: NDArray[np.int64]
    decided: NDArray[np.int64]
    images: NDArray[np.int64]
    patches: NDArray[np.int64]
    evidence: NDArray[np.float64]
    margin: NDArray[np.float64]

    @classmethod
    def weigh(cls, evidence: StoredEvidence, vocabulary: Vocabulary, labels: Labels, classes: int) -> _Errors:
        shape = classes, vocabulary.count
        decided, images, patches = (np.zeros(shape, np.int64) for _ in range(3))
        logits, margin = np.zeros(shape), np.zeros(shape)
        for place in labels.wrong.tolist():
            predicted = int(labels.predicted[place])
            found = decision(evidence, vocabulary, place, int(labels.labels[place]), predicted)
            decided[predicted] += found.decides
            images[predicted] += found.patches > 0
            patches[predicted] += found.patches
            logits[predicted] += found.evidence
            margin[predicted] += np.where(found.decides, found.sums, 0.0)
        of = np.bincount(labels.predicted[labels.wrong], minlength=classes)
        return cls(of, decided, images, patches, logits, margin)


def _own_evidence(evidence: StoredEvidence, labels: Labels) -> NDArray[np.float16]:
    """Each image's evidence for its own label, float16 [N, P]; zeros where it has none."""
    own = np.zeros((len(labels.labels), evidence.patches), np.float16)
    for place in np.flatnonzero(labels.labels != UNLABELLED).tolist():
        own[place] = evidence.of_image(place, [int(labels.labels[place])])[0]
    return own


def _adds(
    evidence: StoredEvidence, vocabulary: Vocabulary, labels: Labels, own: NDArray[np.float16]
) -> NDArray[np.float64]:
    """What each word adds to the margin of each class over the label, on average over the labelled images of other
    classes: float64 [C, words].
    """
    # In images of the class itself, class and label are one, and the difference is zero: all images may be summed, and
    # the stored means of the words have their evidence for all classes.
    total = vocabulary.means * vocabulary.patches - sums.word_sums(
        sums.exact(own), vocabulary.of_patches, vocabulary.count
    )
    for place in np.flatnonzero(labels.labels == UNLABELLED).tolist():
        every, of_patches = sums.exact(evidence.of_image(place)), vocabulary.of_patches[place]
        total -= np.stack([sums.word_sums(each, of_patches, vocabulary.count) for each in every])
    labelled = labels.labels[labels.labels != UNLABELLED]
    others = len(labelled) - np.bincount(labelled, minlength=len(total))
    added: NDArray[np.float64] = total / evidence.patches / np.maximum(others, 1)[:, None]
    return np.where(others[:, None] > 0, added, 0.0)


def _typical(
    vocabulary: Vocabulary,
    labels: Labels,
    word: int,
    class_id: int,
    values: NDArray[np.float16],
    own: NDArray[np.float16],
) -> list[tuple[int, int]]:
    """Place and cell of a word's typical patches in images of other classes; see `Shortcut`."""
    other = (labels.labels != UNLABELLED) & (labels.labels != class_id)
    places, cells = np.nonzero((vocabulary.of_patches == word) & other[:, None])
    difference = sums.exact(values[places, cells]) - sums.exact(own[places, cells])
    added = np.bincount(places, difference, len(other))
    having = np.unique(places)
    chosen = having[np.argsort(-added[having], kind="stable")][:SHOWN]
    found = []
    for place in chosen.tolist():
        mine = np.flatnonzero(places == place)
        found.append((place, int(cells[mine[difference[mine].argmax()]])))
    return found
