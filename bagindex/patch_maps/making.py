"""Making a map of a model's patches, or of its visual words, and storing it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagindex import derived
from bagindex.arrays import CHECKED, open_checked
from bagindex.catalog import Catalog
from bagindex.errors import QueryError
from bagindex.observer import hundredths
from bagindex.patch_maps.embedding import ITERATIONS, LEAST, check_installed, embed
from bagindex.store import IndexDirectory
from bagindex.stored import StoredEvidence, StoredFeatures
from bagindex.words.sampling import draw
from bagindex.words.vocabulary import Vocabulary
from bagindex_schemas import tables as schemas
from bagindex_schemas.derived import MapRecord, WordsRecord

SAMPLE = 2000
"""Patches of a map where nobody says how many."""
MOST = 50_000
PERPLEXITY = 30.0
_READING, _JUDGING, _LAYING = 20, 5, 75
"""How long each part takes, of 100."""


@dataclass(frozen=True, eq=False)
class _Points:
    """What becomes a map's points.

    Attributes:
        vectors: float32 [n, D].
        patch_ids: int64 [n]; of words, each one's most typical patch.
        words: int32 [n], −1 of patches.
        class_ids, logits: what each speaks most for, int64 [n], and how strongly, float32 [n].
    """

    vectors: NDArray[np.float32]
    patch_ids: NDArray[np.int64]
    words: NDArray[np.int32]
    class_ids: NDArray[np.int64]
    logits: NDArray[np.float32]


def make_of_patches(
    directory: IndexDirectory,
    features: StoredFeatures,
    evidence: StoredEvidence,
    sample: int,
    seed: int,
    progress: Callable[[int, int], None],
) -> MapRecord:
    """Map patches that are drawn evenly from all, and store the map; the caller holds the index's lock.

    Raises:
        QueryError: `sample` is out of range, or there are too few patches.
        SettingsError: openTSNE is not installed.
    """
    if not LEAST <= sample <= MOST:
        raise QueryError(f"a map has {LEAST} to {MOST:,} patches: ask for so many with --sample")
    if features.count < LEAST:
        raise QueryError(f"this index has {features.count} patches, and a map needs {LEAST}")
    check_installed()
    started = time.monotonic()
    chosen, vectors = draw(features, sample, np.random.default_rng(seed), hundredths(progress, 0, _READING))
    places, cells = np.divmod(chosen, features.patches)
    patch_ids = features.image_ids[places] * features.patches + cells
    class_ids, logits = evidence.strongest(patch_ids, hundredths(progress, _READING, _JUDGING))
    points = _Points(vectors, patch_ids, np.full(len(chosen), -1, np.int32), class_ids, logits.astype(np.float32))
    return _store(directory, features, derived.MAP, points, sample, None, seed, progress, started)


def make_of_words(
    directory: IndexDirectory,
    catalog: Catalog,
    features: StoredFeatures,
    vocabulary: Vocabulary,
    seed: int,
    progress: Callable[[int, int], None],
) -> MapRecord:
    """Map a model's visual words, by their centroids, and store the map; the caller holds the index's lock.

    Raises:
        QueryError: there are too few words.
        SettingsError: openTSNE is not installed.
    """
    if vocabulary.count < LEAST:
        raise QueryError(f"there are {vocabulary.count} visual words, and a map needs {LEAST}")
    check_installed()
    started = time.monotonic()
    folder = directory.inside(catalog.words[features.record.name])
    with open_checked(directory.whole(folder / "words.parquet"), schemas.words(features.record.feature_size)) as file:
        centroids = file.read(["centroid"])["centroid"].combine_chunks().flatten().to_numpy()
    relative = vocabulary.means - (vocabulary.means @ vocabulary.patches / vocabulary.patches.sum())[:, None]
    class_ids = relative.argmax(axis=0).astype(np.int64)
    words = np.arange(vocabulary.count, dtype=np.int32)
    points = _Points(
        centroids.reshape(vocabulary.count, -1),
        np.array([each[0] for each in vocabulary.typical], np.int64),
        words,
        class_ids,
        vocabulary.means[class_ids, words].astype(np.float32),
    )
    digest = words_digest(directory, catalog, features.record.name)
    return _store(directory, features, derived.WORD_MAP, points, None, digest, seed, progress, started)


def words_digest(directory: IndexDirectory, catalog: Catalog, model: str) -> str:
    """SHA-256 of the visual words that a catalog names, by which a map knows whether they are its own."""
    record = derived.read(directory.inside(catalog.words[model]), derived.WORDS, WordsRecord)
    return record.files["words.parquet"].sha256


def _store(
    directory: IndexDirectory,
    features: StoredFeatures,
    kind: str,
    points: _Points,
    asked: int | None,
    words_sha256: str | None,
    seed: int,
    progress: Callable[[int, int], None],
    started: float,
) -> MapRecord:
    places = embed(points.vectors, PERPLEXITY, seed, hundredths(progress, _READING + _JUDGING, _LAYING))
    table = pa.table(
        {
            "patch_id": points.patch_ids,
            "word": points.words,
            "class_id": points.class_ids.astype(np.int32),
            "logit": points.logits,
            "x": places[:, 0],
            "y": places[:, 1],
        },
        schema=schemas.MAP,
    )
    with derived.making(directory, features.record.name, kind) as folder:
        pq.write_table(table, folder / "map.parquet", **CHECKED)
        record = MapRecord(
            features_sha256=derived.features_digest(directory, features.record, features.shards),
            files={},
            points=len(places),
            asked=asked,
            words_sha256=words_sha256,
            perplexity=PERPLEXITY,
            iterations=ITERATIONS,
            seed=seed,
            seconds=round(time.monotonic() - started, 3),
            versions={name: version(name) for name in ("openTSNE", "numpy", "scikit-learn")},
        )
        return derived.complete(directory, folder, kind, record)
