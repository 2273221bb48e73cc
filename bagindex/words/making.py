"""Making visual words: features are clustered by direction, every patch is assigned, and what each word says is summed.

Everything is read in a stream: memory is bounded by the sample that is clustered, whatever the index's size.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from bagindex import derived
from bagindex.accounts.sums import exact, word_sums
from bagindex.arrays import CHECKED
from bagindex.catalog import Catalog
from bagindex.errors import QueryError
from bagindex.geometry import patch_ids
from bagindex.observer import hundredths
from bagindex.store import IndexDirectory
from bagindex.stored import StoredEvidence, StoredFeatures
from bagindex.words.sampling import draw
from bagindex.words.vocabulary import TYPICAL
from bagindex_schemas import tables as schemas
from bagindex_schemas.derived import WordsRecord

PER_WORD = 256
"""Patches that are clustered, for each word: more hardly move the centroids."""
ITERATIONS = 20
_SAMPLE_BYTES = 1_000_000_000
_BLOCK = 4096
"""Patches that are assigned at once, at least an image's."""
_SUMMED = 1_000_000
_ROWS = 1 << 20
"""Of a row group of assigned patches, so that a query for some reads little else."""
_SAMPLING, _CLUSTERING, _ASSIGNING, _SUMMING = 10, 50, 35, 5
"""How long each part takes, of 100."""


@dataclass(frozen=True, eq=False)
class Assignment:
    """Which patch is which of n words, and what was collected beside it.

    Attributes:
        of_patches: int32 [N · P].
        patches, images: of each word, int64 [n].
        similarity: sum of the cosines of a word's patches to its centroid, float64 [n].
        typical: patch ids int64 [n, 12] of the largest cosines, each of another image; -1 where there are fewer.
    """

    of_patches: NDArray[np.int32]
    patches: NDArray[np.int64]
    images: NDArray[np.int64]
    similarity: NDArray[np.float64]
    typical: NDArray[np.int64]


def make(
    directory: IndexDirectory,
    catalog: Catalog,
    features: StoredFeatures,
    evidence: StoredEvidence,
    count: int,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    seed: int = 0,
) -> WordsRecord:
    """Make a model's visual words and store them; the caller holds the index's lock and then updates the catalog.

    Args:
        directory, catalog: the index.
        features, evidence: what it stores of the model, N images of P patches.
        count: how many words, at least 2.
        progress: hears how many of how many steps are done.
        seed: of the sample, and of where clustering begins.

    Raises:
        QueryError: `count` is below 2, or there are not so many patches.
    """
    check_count(count, features.count)
    started = time.monotonic()
    model = features.record
    sample = _sample(features, count, np.random.default_rng(seed), hundredths(progress, 0, _SAMPLING))
    sampled = len(sample)
    centroids = _cluster(sample, count, seed, hundredths(progress, _SAMPLING, _CLUSTERING))
    del sample
    found, centroids = _ordered(
        assign(features, centroids, hundredths(progress, _SAMPLING + _CLUSTERING, _ASSIGNING)), centroids
    )
    summing = hundredths(progress, 100 - _SUMMING, _SUMMING)
    means = np.empty((len(catalog.manifest.plan.classes), len(centroids)))
    for class_id in range(len(means)):
        values, sums = evidence.of_class(class_id).reshape(-1), np.zeros(len(centroids))
        for start in range(0, len(values), _SUMMED):
            part = slice(start, start + _SUMMED)
            sums += word_sums(exact(values[part]), found.of_patches[part], len(centroids))
        means[class_id] = sums / found.patches
        summing(class_id + 1, len(means))
    with derived.making(directory, model.name, derived.WORDS) as folder:
        _write(folder, features, found, centroids, means)
        record = WordsRecord(
            features_sha256=derived.features_digest(directory, model, features.shards),
            files={},
            words=len(centroids),
            asked=count,
            patches=features.count,
            sampled=sampled,
            iterations=ITERATIONS,
            seed=seed,
            seconds=round(time.monotonic() - started, 3),
            versions=_versions(),
        )
        derived.complete(directory, folder, derived.WORDS, record)
    return record


def check_count(count: int, patches: int) -> None:
    """See whether so many words can be made of so many patches.

    Raises:
        QueryError: they cannot.
    """
    if not 2 <= count <= patches:
        raise QueryError(f"cannot make {count} visual words of {patches:,} patches: ask for 2 to {patches}")


def assign(
    features: StoredFeatures, centroids: NDArray[np.float32], progress: Callable[[int, int], None]
) -> Assignment:
    """Give each patch the word whose centroid has the largest cosine with its feature, equal ones the smallest number.

    Args:
        features: of all patches.
        centroids: float32 [n, D], of length 1.
        progress: hears how many of how many images are done.
    """
    import torch

    device = torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    columns = torch.from_numpy(centroids).to(device).T.contiguous()
    count, per_image, total = len(centroids), features.patches, len(features.image_ids)
    of_patches = np.empty(features.count, np.int32)
    patches, images = np.zeros(count, np.int64), np.zeros(count, np.int64)
    similarity = np.zeros(count)
    best = np.full((count, TYPICAL), -np.inf), np.full((count, TYPICAL), -1, np.int64)
    done = 0
    for ids, block in features.blocks(images=max(1, _BLOCK // per_image)):
        rows = torch.nn.functional.normalize(torch.from_numpy(block).to(device).float(), dim=1)
        cosines = torch.mm(rows, columns).cpu().numpy()
        words = cosines.argmax(axis=1)
        nearest = cosines[np.arange(len(words)), words]
        of_patches[done * per_image : done * per_image + len(words)] = words
        patches += np.bincount(words, minlength=count)
        similarity += np.bincount(words, nearest, count)
        first = _first_of_each(words * total + np.arange(len(words)) // per_image, nearest, ids)
        images += np.bincount(words[first], minlength=count)
        best = _merge(best, words[first], nearest[first], ids[first])
        done += len(words) // per_image
        progress(done, total)
    return Assignment(of_patches, patches, images, similarity, best[1])


def _first_of_each(
    groups: NDArray[np.int64], values: NDArray[np.floating[Any]], ids: NDArray[np.int64]
) -> NDArray[np.int64]:
    """Where each group's largest value is, equal ones by id."""
    order = np.lexsort((ids, -values, groups))
    _, first = np.unique(groups[order], return_index=True)
    places: NDArray[np.int64] = order[first]
    return places


def _merge(
    best: tuple[NDArray[np.float64], NDArray[np.int64]],
    words: NDArray[np.int64],
    values: NDArray[np.float32],
    ids: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The best of each word when others have come; best first."""
    count, most = best[0].shape
    of = np.concatenate([np.repeat(np.arange(count), most), words])
    value, which = np.concatenate([best[0].ravel(), values]), np.concatenate([best[1].ravel(), ids])
    order = np.lexsort((which, -value, of))
    of = of[order]
    begins = np.searchsorted(of, np.arange(count))
    kept = order[begins[:, None] + np.arange(most)]
    return value[kept], which[kept]


def _sample(
    features: StoredFeatures, count: int, rng: np.random.Generator, progress: Callable[[int, int], None]
) -> NDArray[np.float32]:
    """Features of length 1 of patches drawn evenly from all, float32 [m, D]."""
    size = features.record.feature_size
    most = max(count, min(PER_WORD * count, _SAMPLE_BYTES // (4 * size)))
    return draw(features, most, rng, progress)[1]


def _cluster(
    sample: NDArray[np.float32], count: int, seed: int, progress: Callable[[int, int], None]
) -> NDArray[np.float32]:
    """Centroids of length 1, float32 [n, D]."""
    import faiss

    # One iteration at a time, so that progress is heard, and Ctrl-C soon.
    means = faiss.Kmeans(
        sample.shape[1],
        count,
        niter=1,
        seed=seed + 1,
        spherical=True,
        gpu=faiss.get_num_gpus() > 0,
        min_points_per_centroid=1,
        max_points_per_centroid=len(sample),
    )
    centroids = None
    for iteration in range(ITERATIONS):
        means.train(sample, init_centroids=centroids)
        centroids = means.centroids
        progress(iteration + 1, ITERATIONS)
    found: NDArray[np.float32] = np.ascontiguousarray(centroids, np.float32)
    return found


def _ordered(found: Assignment, centroids: NDArray[np.float32]) -> tuple[Assignment, NDArray[np.float32]]:
    """The words that have patches, the largest first, equal ones by their most typical patch."""
    present = np.flatnonzero(found.patches)
    order = present[np.lexsort((found.typical[present, 0], -found.patches[present]))]
    numbers = np.full(len(centroids), -1, np.int32)
    numbers[order] = np.arange(len(order), dtype=np.int32)
    ordered = Assignment(
        of_patches=numbers[found.of_patches],
        patches=found.patches[order],
        images=found.images[order],
        similarity=found.similarity[order],
        typical=found.typical[order],
    )
    return ordered, centroids[order]


def _write(
    folder: Path,
    features: StoredFeatures,
    found: Assignment,
    centroids: NDArray[np.float32],
    means: NDArray[np.float64],
) -> None:
    classes, count = means.shape
    words = np.arange(count, dtype=np.int32)
    schema = schemas.words(features.record.feature_size)
    columns = {
        "word": words,
        "patches": found.patches,
        "images": found.images,
        "similarity": (found.similarity / found.patches).astype(np.float32),
        "typical": [[each for each in row if each >= 0] for row in found.typical.tolist()],
        "centroid": pa.FixedSizeListArray.from_arrays(
            pa.array(centroids.reshape(-1)), type=schema.field("centroid").type
        ),
    }
    pq.write_table(pa.table(columns, schema=schema), folder / "words.parquet", **CHECKED)
    columns = {
        "class_id": np.repeat(np.arange(classes, dtype=np.int32), count),
        "word": np.tile(words, classes),
        "mean_logit": means.reshape(-1),
    }
    table = pa.table(columns, schema=schemas.WORD_EVIDENCE)
    pq.write_table(table, folder / "word_evidence.parquet", **CHECKED)
    with pq.ParquetWriter(folder / "patch_words.parquet", schemas.PATCH_WORDS, **CHECKED) as writer:
        for ids, part in _assigned(features, found.of_patches):
            writer.write_table(
                pa.table({"patch_id": ids, "word": part}, schema=schemas.PATCH_WORDS), row_group_size=_ROWS
            )


def _assigned(
    features: StoredFeatures, of_patches: NDArray[np.int32]
) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int32]]]:
    images = max(1, _ROWS // features.patches)
    for start in range(0, len(features.image_ids), images):
        ids = patch_ids(features.record.grid, features.image_ids[start : start + images])
        first = start * features.patches
        yield ids, of_patches[first : first + len(ids)]


def _versions() -> dict[str, str]:
    import faiss
    import torch

    return {"faiss": faiss.__version__, "numpy": np.__version__, "torch": torch.__version__}
