"""What a model takes for what, and the words that decide it."""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bagindex.accounts.errors import Decision, decision, read_labels
from bagindex.accounts.shortcuts import Crops
from bagindex.accounts.shown import PicturedAccount
from bagindex.catalog import Catalog
from bagindex.errors import QueryError
from bagindex.figures import strips as drawing
from bagindex.stored import StoredEvidence
from bagindex.text import share_text
from bagindex.words.vocabulary import Vocabulary
from bagindex_schemas.records import ClassRecord, Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WORDS = 3
"""So many words of a pair are named."""
SHOWN = 3
"""So many patches of each are shown, each of another image."""
_MOST_ROWS = 25
"""Pairs in a picture."""


@dataclass(frozen=True)
class DecidingWord:
    """A word that decides errors of a pair.

    Attributes:
        word: the word.
        errors: how many of the pair's images it decides; see `bagindex.accounts.errors.Decision`.
        share: of the margins of the predicted class over the label, added up over the pair's images. A mean of each
            image's own share would hang on the images in which the two nearly tie.
        typical: of the pair's images in which the word adds most to that margin, in each the patch that adds most,
            patch_id; up to `SHOWN`.
    """

    word: int
    errors: int
    share: float
    typical: tuple[int, ...]


@dataclass(frozen=True)
class Confusion:
    """Images of one class that the model takes for another.

    Attributes:
        label, predicted: the classes.
        images: how many there are.
        share: of the label's images.
        words: up to `WORDS` that decide most of them, of equally many those with the larger share of the margin.
    """

    label: ClassRecord
    predicted: ClassRecord
    images: int
    share: float
    words: tuple[DecidingWord, ...]


@dataclass(frozen=True)
class Confusions(PicturedAccount):
    """All pairs that are confused, the most frequent first, then by class ids.

    Attributes:
        model: the model's name.
        confusions: the answer.
        wrong: all labelled images that the model gets wrong.
        grid: the model's patch grid.
    """

    model: str
    confusions: tuple[Confusion, ...]
    wrong: int
    grid: Grid
    _crops: Crops = dataclasses.field(repr=False, compare=False)

    columns = ("label", "predicted", "images", "share", "words", "decided", "margin_shares")
    types: ClassVar[Mapping[str, str]] = {
        "label": "text",
        "predicted": "text",
        "images": "integer",
        "share": "number",
        "words": "integers",
        "decided": "integers",
        "margin_shares": "numbers",
        "typical": "integers",
    }

    def __len__(self) -> int:
        """How many pairs there are."""
        return len(self.confusions)

    def __getitem__(self, index: int) -> Confusion:
        """The one of rank `index + 1`."""
        return self.confusions[index]

    @property
    def title(self) -> str:
        """What was asked."""
        return f"what is taken for what, and the words that decide how many of these images ({self.model})"

    @property
    def words(self) -> str:
        """What the columns are."""
        if not self.confusions:
            return "No labelled image is predicted as another class."
        shown = sum(each.images for each in self.confusions)
        return (
            f"{shown} of {self.wrong} wrong images. share: of the label's images; decided: images in which the label "
            "would be ahead of the predicted class without the word's patches; margin_shares: the words' shares of its "
            "margins over the label."
        )

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each pair."""
        return [
            {
                "label": each.label.name,
                "predicted": each.predicted.name,
                "images": each.images,
                "share": each.share,
                "words": [word.word for word in each.words],
                "decided": [word.errors for word in each.words],
                "margin_shares": [round(word.share, 3) for word in each.words],
                "typical": [patch for word in each.words for patch in word.typical],
            }
            for each in self.confusions
        ]

    def figure(self) -> Figure:
        """A row for each pair, with patches of its words."""
        if not self.confusions:
            raise QueryError("there is nothing to draw: no labelled image is predicted as another class")
        pictures = self._pictures()
        rows = [
            drawing.Row(
                (
                    each.label.name,
                    f"taken for {each.predicted.name}",
                    f"{each.images} {'image' if each.images == 1 else 'images'}, {100 * each.share:.0f} %",
                ),
                [
                    drawing.Group(
                        f"word {word.word}: {word.errors} of {each.images} · {share_text(word.share, 0)}",
                        [drawing.Tile(pictures[patch], "") for patch in word.typical],
                    )
                    for word in each.words
                ],
            )
            for each in self.confusions[:_MOST_ROWS]
        ]
        return drawing.strips_figure(self.title, rows, SHOWN, WORDS)

    def _pictures(self) -> Mapping[int, NDArray[np.uint8]]:
        shown = [word for each in self.confusions[:_MOST_ROWS] for word in each.words]
        patches = sorted({patch for word in shown for patch in word.typical})
        return dict(zip(patches, self._crops(patches), strict=True))

    def _coarse(self) -> Sequence[tuple[str, Sequence[NDArray[np.uint8]], Sequence[str]]]:
        pictures = self._pictures()
        rows = []
        for each in self.confusions[:_MOST_ROWS]:
            patches = [(patch, str(word.word)) for word in each.words for patch in word.typical]
            heading = f"{each.label.name} > {each.predicted.name}: {each.images}"
            crops = [pictures[patch] for patch, _ in patches]
            rows.append((heading, crops, [word for _, word in patches]))
        return rows


def confusions(
    catalog: Catalog, evidence: StoredEvidence, vocabulary: Vocabulary, k: int | None, crops: Crops
) -> Confusions:
    """Count the pairs of label and (recorded) prediction, and weigh the words in their images.

    Args:
        catalog, evidence, vocabulary: of the model.
        k: how many pairs; None: all.
        crops: gives the patches' pixels.

    Raises:
        QueryError: no image has a label, or `k` is out of range.
    """
    if k is not None and k < 1:
        raise QueryError("-k starts at 1")
    labels = read_labels(catalog, evidence.record)
    pairs: dict[tuple[int, int], list[int]] = defaultdict(list)
    for place in labels.wrong.tolist():
        pairs[int(labels.labels[place]), int(labels.predicted[place])].append(place)
    ranked = sorted(pairs.items(), key=lambda item: (-len(item[1]), item[0]))[:k]
    classes = catalog.manifest.plan.classes
    found = []
    for (label, predicted), places in ranked:
        weighed = {place: decision(evidence, vocabulary, place, label, predicted) for place in places}
        found.append(
            Confusion(
                label=classes[label],
                predicted=classes[predicted],
                images=len(places),
                share=len(places) / int((labels.labels == label).sum()),
                words=_deciding(evidence, vocabulary, weighed),
            )
        )
    return Confusions(evidence.record.name, tuple(found), len(labels.wrong), evidence.record.grid, crops)


def _deciding(
    evidence: StoredEvidence, vocabulary: Vocabulary, weighed: dict[int, Decision]
) -> tuple[DecidingWord, ...]:
    errors = np.sum([each.decides for each in weighed.values()], axis=0)
    whole = sum(each.total for each in weighed.values())
    shares = np.sum([each.sums for each in weighed.values()], axis=0) / (whole or 1.0)
    listed = np.flatnonzero((errors > 0) | (shares > 0)).tolist()
    order = sorted(listed, key=lambda word: (-errors[word], -shares[word], word))[:WORDS]
    words = []
    for word in order:
        ranked = sorted(weighed, key=lambda place: (-float(weighed[place].sums[word]), place))
        typical = []
        for place in ranked[:SHOWN]:
            cells = np.flatnonzero(vocabulary.of_patches[place] == word)
            if len(cells):
                cell = int(cells[weighed[place].difference[cells].argmax()])
                typical.append(int(evidence.image_ids[place]) * evidence.patches + cell)
        words.append(DecidingWord(word, int(errors[word]), float(shares[word]), tuple(typical)))
    return tuple(words)
