"""The images that a model gets wrong, and which words decide each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagindex.accounts import sums
from bagindex.catalog import Catalog
from bagindex.errors import QueryError
from bagindex.stored import StoredEvidence
from bagindex.words.vocabulary import Vocabulary
from bagindex_schemas.records import ModelRecord

UNLABELLED = -1


@dataclass(frozen=True, eq=False)
class Labels:
    """What the images are and what a model took them for.

    Attributes:
        labels: class ids, int64 [N], `UNLABELLED` where there is none; images in the order of their places.
        predicted: class ids as the model predicted, int64 [N].
        names: the classes' names.
    """

    labels: NDArray[np.int64]
    predicted: NDArray[np.int64]
    names: tuple[str, ...]

    @property
    def wrong(self) -> NDArray[np.int64]:
        """Places of the labelled images that are predicted as another class."""
        found: NDArray[np.int64] = np.flatnonzero((self.labels != self.predicted) & (self.labels != UNLABELLED))
        return found


def read_labels(catalog: Catalog, record: ModelRecord) -> Labels:
    """The labels and predictions of all images.

    Raises:
        QueryError: no image has a label.
    """
    rows = catalog.columns(
        f"""SELECT coalesce(label, {UNLABELLED}) AS label, predicted FROM images
        JOIN {catalog.relation(record, "predictions")} USING (image_id) ORDER BY image_id"""
    )
    labels = np.asarray(rows["label"], np.int64)
    if (labels == UNLABELLED).all():
        raise QueryError("no image of this index has a label, so none is wrong: `bagindex relabel` gives them labels")
    names = tuple(each.name for each in catalog.manifest.plan.classes)
    return Labels(labels, np.asarray(rows["predicted"], np.int64), names)


@dataclass(frozen=True, eq=False)
class Decision:
    """What the words do in a wrong image of P patches, labelled a and predicted b.

    A word *decides* the error if, of a and b, b has the larger sum with all patches, and without the word's patches
    a has it (of equal sums, the smaller class id). A word of all patches decides nothing, since nothing remains.

    It need not be asked besides that the word be more than large: that without it b is no longer ahead means that its
    patches speak for b against a at least as much as all P together, so more strongly than the average patch does.

    Attributes:
        difference: the patches' logits for b minus those for a, float64 [P]; `total` is their sum.
        sums: the sum of each word's differences, float64 [words].
        evidence: the sum of each word's logits for b, float64 [words].
        patches: how many patches each word has, int64 [words].
        decides: whether each word decides the error, bool [words].
    """

    difference: NDArray[np.float64]
    total: float
    sums: NDArray[np.float64]
    evidence: NDArray[np.float64]
    patches: NDArray[np.int64]
    decides: NDArray[np.bool_]


def decision(evidence: StoredEvidence, vocabulary: Vocabulary, place: int, label: int, predicted: int) -> Decision:
    """Weigh the words of a wrong image."""
    values = sums.exact(evidence.of_image(place, [label, predicted]))
    difference, of_patches = values[1] - values[0], vocabulary.of_patches[place]
    total = float(difference.sum())
    found = sums.word_sums(difference, of_patches, vocabulary.count)
    patches = np.bincount(of_patches, minlength=vocabulary.count)
    ahead = bool(sums.beats(np.array(total), predicted, label))
    decides = ahead & ~sums.beats(total - found, predicted, label) & (patches > 0) & (patches < len(difference))
    evidence_sums = sums.word_sums(values[1], of_patches, vocabulary.count)
    return Decision(difference, total, found, evidence_sums, patches, decides)
