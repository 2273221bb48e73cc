"""Visual words that are given, for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bagindex import Index, catalog, derived
from bagindex.build import BuildSettings, build
from bagindex.catalog import Catalog
from bagindex.geometry import patch_ids
from bagindex.store import IndexDirectory
from bagindex.stored import StoredEvidence, StoredFeatures
from bagindex_schemas import tables
from bagindex_schemas.derived import WordsRecord
from fakes import LinearCompute, MemorySource


def write_words(index: Index, count: int, of_patches: np.ndarray) -> None:
    """Give an index of one model `count` visual words by hand; `of_patches` int [N, P] says which patch is which."""
    directory = IndexDirectory(index.path)
    with closing(Catalog(directory)) as opened:
        record = next(iter(opened.models.values()))
        features, evidence = StoredFeatures(directory, opened, record), StoredEvidence(directory, opened, record)
        shape = (len(features.image_ids), features.patches)
        words = of_patches.astype(np.int32).reshape(shape)
        flat, ids = words.ravel(), patch_ids(record.grid, features.image_ids)
        patches = np.bincount(flat, minlength=count)
        rows = []
        for word in range(count):
            mine = words == word
            rows.append(
                {
                    "word": word,
                    "patches": int(patches[word]),
                    "images": int(mine.any(axis=1).sum()),
                    "similarity": 1.0,
                    "typical": ids[np.flatnonzero(mine.ravel())][:12].tolist(),
                    "centroid": [0.0] * record.feature_size,
                }
            )
        classes = len(opened.manifest.plan.classes)
        sums = [np.bincount(flat, evidence.of_class(c).ravel().astype(np.float64), count) for c in range(classes)]
        means = np.array(sums) / np.maximum(patches, 1)
        written = {
            "words": pa.Table.from_pylist(rows, schema=tables.words(record.feature_size)),
            "patch_words": pa.table({"patch_id": ids, "word": flat}, schema=tables.PATCH_WORDS),
            "word_evidence": pa.table(
                {
                    "class_id": np.repeat(np.arange(classes, dtype=np.int32), count),
                    "word": np.tile(np.arange(count, dtype=np.int32), classes),
                    "mean_logit": means.ravel(),
                },
                schema=tables.WORD_EVIDENCE,
            ),
        }
        with derived.making(directory, record.name, derived.WORDS) as folder:
            for name, table in written.items():
                pq.write_table(table, folder / f"{name}.parquet")
            made = WordsRecord(
                features_sha256=derived.features_digest(directory, record, opened.shards),
                files={},
                words=count,
                asked=count,
                patches=len(flat),
                sampled=len(flat),
                iterations=20,
                seed=0,
                seconds=0.0,
                versions={},
            )
            derived.complete(directory, folder, derived.WORDS, made)
    catalog.update(directory)
    index.close()


def worded_index(
    folder: Path,
    table: np.ndarray,
    labels: Sequence[str | None],
    words: np.ndarray | None = None,
    *,
    classes: Sequence[str] = ("cat", "dog", "fish"),
    side: tuple[int, int] = (24, 16),
    **settings: Any,
) -> Index:
    """Images with a table float32 [images, patches, classes] of evidence and labels, and the words of its patches, int
    [images, patches], if given; in shards of four.
    """
    build(
        IndexDirectory(folder),
        MemorySource(labels, side=max(side)),
        {name: i for i, name in enumerate(classes)},
        LinearCompute(classes, side=side, table=table.astype(np.float32)),
        BuildSettings(shard_size=4, workers=1, **settings),
    )
    index = Index.open(folder)
    if words is not None:
        write_words(index, int(words.max()) + 1, words)
    return index


def recomputed(index: Index) -> np.ndarray:
    """All images' evidence, from the stored model run on the stored pixels: float64 [N, P, C]."""
    from bagindex.prepare import open_stored_models  # which imports torch

    (model,) = open_stored_models(index._directory, index._manifest, "cpu", 4).values()
    ids = [row["image_id"] for row in index.sql("SELECT image_id FROM images ORDER BY 1").to_dicts()]
    pixels = index._pixels(ids)
    found = [model.run(np.array(pixels[each])[None]).evidence[0] for each in ids]
    return np.stack(found).astype(np.float64)
