"""One visual word: where it is, and what it says."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex import output
from bagindex.accounts.sums import exact
from bagindex.catalog import Catalog
from bagindex.described import describe
from bagindex.results import Patch, PatchList, PlacedPatch
from bagindex.stored import StoredEvidence
from bagindex.words.results import Word, says_text
from bagindex.words.vocabulary import Vocabulary
from bagindex_schemas.records import ClassRecord


@dataclass(frozen=True)
class WordLabel:
    """A word in the images of a class.

    Attributes:
        class_: the class.
        images: how many images with this label have the word.
        patches: how many of their patches it is.
    """

    class_: ClassRecord
    images: int
    patches: int


@dataclass(frozen=True)
class WordPatches(PatchList[Patch]):
    """A word's patches, of each image the one that says most for a class; strongest first.

    Attributes:
        model: the model whose word this is.
        word: the word.
        class_: the class.
        labels: the labels of the images that have the word, the one with most of its patches first.
        total: how many images have the word, of which `patches` may be some.
    """

    model: str
    word: Word
    class_: ClassRecord
    labels: tuple[WordLabel, ...]
    total: int

    _kind = Patch
    columns = ("rank", "logit", "patch_id", "label", "predicted", "row", "col", "path")

    @property
    def title(self) -> str:
        """What was asked, and what the word says."""
        return f"{self.question}: {self.word.patches:,} patches in {self.total:,} images, says {says_text(self.word)}"

    def to_dict(self) -> dict[str, Any]:
        """The word and its patches as a JSON object would have them."""
        says = [{"class": each.class_, "class_id": each.class_id, "evidence": each.evidence} for each in self.word.says]
        return {
            "question": self.question,
            "model": self.model,
            "word": self.word.word,
            "patches": self.word.patches,
            "images": self.word.images,
            "similarity": self.word.similarity,
            "typical": list(self.word.typical),
            "says": says,
            "class": self.class_.name,
            "class_id": self.class_.class_id,
            "labels": [
                {
                    **{"class": each.class_.name, "class_id": each.class_.class_id},
                    **{"images": each.images, "patches": each.patches},
                }
                for each in self.labels
            ],
            "found": self.to_dicts(),
            "total": self.total,
        }

    def _writers(self) -> dict[str, Callable[[Path], object]]:
        def write(path: Path) -> object:
            return path.write_text(output.to_json([self.to_dict()])[1:-2] + "\n", encoding="utf-8")

        return {**super()._writers(), ".json": write}

    def _value(self, patch: Patch) -> str:
        return f"{patch.logit:.2f}"


def word_patches(
    catalog: Catalog,
    evidence: StoredEvidence,
    vocabulary: Vocabulary,
    word: Word,
    class_: ClassRecord,
    k: int,
    offset: int,
    crops: Callable[[Sequence[PlacedPatch]], Sequence[NDArray[np.uint8]]],
) -> WordPatches:
    """Find a word in the images.

    Args:
        catalog, evidence, vocabulary: of the model.
        word: the word, which has a number.
        class_: for which its patches' evidence counts.
        k: how many patches, each of another image; equal logits by patch_id.
        offset: how many to pass over.
        crops: gives the patches' pixels.
    """
    # Only the word's patches, in the order of their ids: places of their images, and cells.
    places, cells = np.nonzero(vocabulary.of_patches == word.word)
    logits = exact(evidence.of_class(class_.class_id)[places, cells])
    order = np.lexsort((np.arange(len(logits)), -logits))
    _, firsts = np.unique(places[order], return_index=True)
    strongest = order[np.sort(firsts)]
    chosen = strongest[offset : offset + k]
    ids: list[int] = (evidence.image_ids[places[chosen]] * evidence.patches + cells[chosen]).tolist()
    numbers = zip(logits[chosen].tolist(), describe(catalog, evidence.record, ids), strict=True)
    found = tuple(
        Patch(rank=rank, class_=class_.name, class_id=class_.class_id, logit=logit, **fields)
        for rank, (logit, fields) in enumerate(numbers, start=offset + 1)
    )
    question = f"word {word.word}, most evidence for {class_.name} in each image ({evidence.record.name})"
    labels = _labels(catalog, places)
    return WordPatches(question, found, crops, evidence.record.name, word, class_, labels, len(strongest))


def _labels(catalog: Catalog, places: NDArray[np.int64]) -> tuple[WordLabel, ...]:
    """The labels of images at some places, each as often as it has the word."""
    rows = catalog.columns("SELECT coalesce(label, -1) AS label FROM images ORDER BY image_id")
    labels = np.asarray(rows["label"], np.int64)
    classes = catalog.manifest.plan.classes
    # One more in front, for images without a label.
    patches = np.bincount(labels[places] + 1, minlength=len(classes) + 1)[1:]
    images = np.bincount(labels[np.unique(places)] + 1, minlength=len(classes) + 1)[1:]
    there = sorted(np.flatnonzero(patches).tolist(), key=lambda each: (-patches[each], each))
    return tuple(WordLabel(classes[each], int(images[each]), int(patches[each])) for each in there)
