"""The FAISS index of a model's features: opened as a memory map, asked for candidates.

What it gives is near, and not in order: the candidates are ranked again by the stored features.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex import derived
from bagindex.errors import DamagedIndexError
from bagindex.similarity import lists
from bagindex.similarity.vectors import prepare
from bagindex.store import IndexDirectory
from bagindex.text import first_line
from bagindex_schemas.derived import AnnRecord, Metric
from bagindex_schemas.records import ModelRecord

QUERY_BITS = 8
"""RaBitQ's queries have so many bits a dimension: without rounding them (0), FAISS 1.15 takes a hundred times as long
for the same answers, and with 4 a few per cent are lost."""


class Neighbours:
    """An opened FAISS index: one, or several parts of one that was too large to be made at once."""

    def __init__(self, parts: Sequence[Any], metric: Metric) -> None:
        self._parts = [_Part(index) for index in parts]
        self._metric = metric

    @property
    def lists(self) -> int:
        """Inverted lists; 0 where the index has none."""
        return self._parts[0].lists

    def search(
        self, query: NDArray[np.float32], count: int, probes: int, allowed: NDArray[np.bool_] | None = None
    ) -> NDArray[np.int64]:
        """Ids of up to `count` patches, the nearest first as far as the codes tell.

        Args:
            query: a feature, float32 [D].
            count: how many.
            probes: how many inverted lists are looked at.
            allowed: for each patch id from 0 on, whether it may be found; only where there are inverted lists.
        """
        prepared = prepare(query[None].copy(), self._metric)
        found = [part.search(prepared, count, probes, allowed) for part in self._parts]
        distances, ids = (np.concatenate(each) for each in zip(*found, strict=True))
        order = np.argsort(distances, kind="stable")[:count]
        nearest: NDArray[np.int64] = ids[order]
        return nearest[nearest >= 0]


class _Part:
    def __init__(self, index: Any) -> None:
        import faiss

        self._index = index  # owns what the others point to
        self._ivf = faiss.try_extract_index_ivf(index)
        self._wrapped = isinstance(faiss.downcast_index(index), faiss.IndexPreTransform)
        self.lists = 0 if self._ivf is None else int(self._ivf.nlist)
        lists = None if self._ivf is None else faiss.downcast_InvertedLists(self._ivf.invlists)
        if isinstance(lists, faiss.OnDiskInvertedLists):
            lists.prefetch_nthread = 0  # starting threads takes longer than reading what is in memory

    def search(
        self, query: NDArray[np.float32], count: int, probes: int, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distances and ids, [count] each; where fewer are found, infinite ones and -1."""
        import faiss

        selector: dict[str, Any] = {}
        if allowed is not None:
            bits = np.packbits(allowed, bitorder="little")  # FAISS keeps a pointer to them
            selector = {"sel": faiss.IDSelectorBitmap(len(bits), faiss.swig_ptr(bits))}
        distances, ids = self._index.search(query, count, params=self._parameters(probes, count, selector))
        return distances[0], ids[0]

    def _parameters(self, probes: int, count: int, selector: dict[str, Any]) -> Any:
        import faiss

        if self._ivf is None:
            inner = faiss.downcast_index(self._index)
            inner = faiss.downcast_index(inner.index) if isinstance(inner, faiss.IndexIDMap) else inner
            return faiss.SearchParametersHNSW(efSearch=2 * count + 64) if isinstance(inner, faiss.IndexHNSW) else None
        if isinstance(faiss.downcast_index(self._ivf), faiss.IndexIVFRaBitQ):
            parameters = faiss.IVFRaBitQSearchParameters(nprobe=probes, qb=QUERY_BITS, **selector)
        else:
            parameters = faiss.SearchParametersIVF(nprobe=probes, **selector)
        return faiss.SearchParametersPreTransform(index_params=parameters) if self._wrapped else parameters


def open_neighbours(
    directory: IndexDirectory, record: ModelRecord, metric: Metric
) -> tuple[Neighbours | None, AnnRecord] | None:
    """The index of a model and its record; no index where answers are to be exact, nothing where none was made.

    Raises:
        DamagedIndexError: it cannot be read.
    """
    kind = kind_of(metric)
    found = derived.open_newest(directory, record.name, kind, AnnRecord)
    if found is None:
        return None
    folder, made = found
    if made.factory is None:
        return None, made
    try:
        files = {name: directory.whole(folder / name) for name in sorted(made.files)}
        beside = files.pop(lists.FILE, None)
        parts = [read(path, beside) for path in files.values()]
        _check(parts, record, made)
        return Neighbours(parts, metric), made
    except (OSError, RuntimeError, ValueError) as error:
        if derived.newest(directory, record.name, kind) != folder:  # replaced in this moment
            return open_neighbours(directory, record, metric)
        raise DamagedIndexError(
            f"{folder} cannot be read ({first_line(error)}): make it again with `{derived.REMAKE[kind]}`"
        ) from None


def _check(parts: Sequence[Any], record: ModelRecord, made: AnnRecord) -> None:
    """See whether an index is of a model's features: FAISS believes what it is asked with."""
    import faiss

    if not parts or any(part.d != record.feature_size or part.metric_type != faiss.METRIC_L2 for part in parts):
        raise ValueError("it is not of this model's features")
    if sum(part.ntotal for part in parts) != made.patches:
        raise ValueError(f"it does not have {made.patches:,} patches")


def read(path: Path, beside: Path | None = None) -> Any:
    """A FAISS index from a file, with its inverted lists mapped: its own, or those of a file `beside` it."""
    import faiss

    index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
    return lists.attach(index, beside) if beside is not None else index


def kind_of(metric: Metric) -> str:
    """What an index for a metric is called; see `bagindex.derived`."""
    return derived.ANN if metric == "cosine" else f"{derived.ANN}-{metric}"
