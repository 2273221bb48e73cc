"""Inverted lists in a file of their own, to which the lists of an index's parts are put together.

A search reads the few lists that are near, by a memory map: an index may be larger than memory. Within the file each
list stands in one piece, its codes and then its ids, as FAISS's `OnDiskInvertedLists` takes them; how many each has
stands at the end, int64.

FAISS's own file for such lists names another by a path, which it believes and talks about on stdout; so the index is
written without lists, and they are given to it when it is opened.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

FILE = "patches.lists"
_COUNT = np.dtype("<i8")
ID_BYTES = 8
"""Of an id, beside its code."""


def of_index(index: Any) -> Any | None:
    """The inverted lists of an index from a file, where they can be merged: in an order that stays; None: not so."""
    import faiss

    ivf = faiss.try_extract_index_ivf(index)
    lists = None if ivf is None else faiss.downcast_InvertedLists(ivf.invlists)
    return lists if isinstance(lists, faiss.OnDiskInvertedLists) else None


def merge(lists: Sequence[Any], path: Path) -> None:
    """Write the lists of several parts of an index as one, in the order of the parts.

    Args:
        lists: what `of_index` finds of each; mapped, so that no more than one list is in memory.
        path: of the new file.
    """
    import faiss

    counts = np.zeros(lists[0].nlist, _COUNT)
    with path.open("xb") as file:
        for number in range(len(counts)):
            held = [(each, each.list_size(number)) for each in lists]
            for each, count in held:
                if count:
                    file.write(faiss.rev_swig_ptr(each.get_codes(number), count * each.code_size))
            for each, count in held:
                if count:
                    file.write(faiss.rev_swig_ptr(each.get_ids(number), count))
            counts[number] = sum(count for _, count in held)
        file.write(counts.tobytes())


def attach(index: Any, path: Path) -> Any:
    """Give an index that has none the lists of a file, mapped; the index.

    Raises:
        OSError: it cannot be read.
        ValueError, RuntimeError: it does not hold lists of this index.
    """
    import faiss

    ivf = faiss.try_extract_index_ivf(index)
    if ivf is None or ivf.ntotal:
        raise ValueError(f"{path.name} belongs to an index without lists of its own")
    counts = _counts(path, ivf.nlist, ivf.code_size)
    lists = faiss.OnDiskInvertedLists(ivf.nlist, ivf.code_size, str(path))
    lists.read_only = True
    lists.set_all_lists_sizes(faiss.swig_ptr(counts.astype(np.uint64)))
    lists.totsize = path.stat().st_size
    lists.do_mmap()
    ivf.replace_invlists(lists, True)
    lists.this.disown()
    ivf.ntotal = index.ntotal = int(counts.sum())
    return index


def _counts(path: Path, lists: int, code_size: int) -> NDArray[np.int64]:
    """How many each list has; FAISS would read beyond the file for what it is told."""
    size = path.stat().st_size
    table = lists * _COUNT.itemsize
    if size < table:
        raise ValueError(f"{path.name} is too short for {lists} lists")
    counts = np.fromfile(path, _COUNT, offset=size - table)
    most = (size - table) // (code_size + ID_BYTES)
    if (counts < 0).any() or (counts > most).any() or int(counts.sum()) * (code_size + ID_BYTES) != size - table:
        raise ValueError(f"{path.name} does not hold the {lists} lists that it says")
    return counts.astype(np.int64)
