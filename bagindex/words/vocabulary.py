"""The visual words of a model, as they are stored: which patch is which word, and what each word says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex import derived
from bagindex.arrays import UNREADABLE, open_checked
from bagindex.catalog import Catalog
from bagindex.errors import DamagedIndexError, NotKeptError, QueryError
from bagindex.geometry import patch_ids
from bagindex.store import IndexDirectory
from bagindex.stored import StoredPatches
from bagindex.text import first_line
from bagindex_schemas import tables as schemas
from bagindex_schemas.derived import WordsRecord

TYPICAL = 12
"""So many of a word's typical patches are stored, each of another image."""


@dataclass(frozen=True, eq=False)
class Vocabulary:
    """n visual words over N images of P patches.

    Attributes:
        patches, images: how many patches are each word, and in how many images; int64 [n].
        similarity: mean cosine of a word's patches to its centroid, float32 [n].
        typical: the patches (patch_id) nearest to each centroid, each of another image, nearest first.
        of_patches: the word of each patch, int32 [N, P], images in the order of their places.
        means: mean evidence of each word's patches, float64 [C, n]; see `bagindex.stored.StoredEvidence`.
    """

    patches: NDArray[np.int64]
    images: NDArray[np.int64]
    similarity: NDArray[np.float32]
    typical: tuple[tuple[int, ...], ...]
    of_patches: NDArray[np.int32]
    means: NDArray[np.float64]

    @property
    def count(self) -> int:
        """n."""
        return len(self.patches)

    def check(self, word: int) -> int:
        """The word itself.

        Raises:
            QueryError: there is no such word.
        """
        if not 0 <= word < self.count:
            raise QueryError(
                f"there is no word {word}: they go from 0 to {self.count - 1} (`bagindex words` shows them)"
            )
        return word


def open_vocabulary(catalog: Catalog, stored: StoredPatches, classes: int) -> Vocabulary:
    """The words of a model that its catalog names.

    Args:
        catalog: the index's.
        stored: a table of the model.
        classes: C.

    Raises:
        QueryError: there are none, or images have come since they were made.
        DamagedIndexError: they cannot be read.
    """
    model = stored.record.name
    if model not in catalog.words:
        if "features" not in stored.record.keep.tables:
            raise NotKeptError(
                f"{model} has no visual words, which are made of features: run the same build with --keep features, "
                "which fills them in, and then `bagindex words`"
            )
        raise NotKeptError(
            f"{model} has no visual words: they were not made yet, or images have come since; "
            f"`bagindex words --again --model {model}` makes them"
        )
    folder = catalog.directory.inside(catalog.words[model])
    with catalog.reading():
        return _read(catalog.directory, folder, stored, classes)


def _read(directory: IndexDirectory, folder: Path, stored: StoredPatches, classes: int) -> Vocabulary:
    record = derived.read(folder, derived.WORDS, WordsRecord)
    for name in record.files:
        directory.whole(folder / name)
    try:
        schema = schemas.words(stored.record.feature_size)
        words = _table(folder / "words.parquet", schema, ["patches", "images", "similarity", "typical"])
        assigned = _table(folder / "patch_words.parquet", schemas.PATCH_WORDS)
        means = _table(folder / "word_evidence.parquet", schemas.WORD_EVIDENCE, ["mean_logit"])["mean_logit"].to_numpy()
        if not np.array_equal(assigned["patch_id"].to_numpy(), patch_ids(stored.record.grid, stored.image_ids)):
            raise ValueError("they are of other patches")
        vocabulary = Vocabulary(
            patches=words["patches"].to_numpy(),
            images=words["images"].to_numpy(),
            similarity=words["similarity"].to_numpy(),
            typical=tuple(tuple(each) for each in words["typical"].to_pylist()),
            of_patches=assigned["word"].to_numpy().reshape(-1, stored.patches),
            means=means.reshape(classes, record.words),
        )
        _check(vocabulary, record, stored)
        return vocabulary
    except UNREADABLE as error:
        raise DamagedIndexError(
            f"{folder} cannot be read ({first_line(error)}): make it again with `{derived.REMAKE[derived.WORDS]}`"
        ) from None


def _table(path: Path, schema: pa.Schema, columns: list[str] | None = None) -> pa.Table:
    with open_checked(path, schema) as file:
        return file.read(columns)


def _check(vocabulary: Vocabulary, record: WordsRecord, stored: StoredPatches) -> None:
    """See whether the numbers are words and patches that there are: they are looked up by them."""
    words, typical = vocabulary.of_patches, [patch for patches in vocabulary.typical for patch in patches]
    if vocabulary.count != record.words:
        raise ValueError(f"it has {vocabulary.count} words, not {record.words}")
    if words.size and not 0 <= words.min() <= words.max() < record.words:
        raise ValueError("a patch is a word that there is not")
    if not np.isin(np.array(typical, np.int64) // stored.patches, stored.image_ids).all():
        raise ValueError("a typical patch is of no image")
