"""Opened indexes for many threads: an opened `Index` is one thread's at a time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from bagindex import Index, home
from bagindex.computing import Computing
from bagindex.errors import BagindexError, SettingsError

_Result = TypeVar("_Result")
Stamp = tuple[tuple[int, int, int] | None, ...]


@dataclass(frozen=True)
class About:
    """An index as it was when it was last opened: what the addresses of pictures depend on.

    Attributes:
        stamp: the state of its files that name the others.
        version: of the pixels: they are those of the plan, of which this is the digest.
        models: names of the models that can be asked.
    """

    stamp: Stamp
    version: str
    models: tuple[str, ...]

    def model(self, name: str | None) -> str | None:
        """The model that is meant, where that is clear without asking the index."""
        if name is None:
            return self.models[0] if len(self.models) == 1 else None
        return name if name in self.models else None


@dataclass(frozen=True)
class _Opened:
    index: Index
    stamp: Stamp


class IndexPool:
    """Some openings of one index, as many as threads ask at a time.

    A catalog that was replaced is noticed before each question: openings of the old one are closed when they are free.

    Args:
        name: what the index is called here.
        path: its folder.
    """

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self.path = path
        self._lock = threading.Lock()
        self._free: list[_Opened] = []
        self._about: About | None = None
        self._closed = False
        self._computing = Computing()
        self._mirror = home.mirror_of(path)

    def ask(self, question: Callable[[Index], _Result]) -> _Result:
        """Put a question to an opening that no other thread has.

        What fails because the index was replaced beneath it is asked again, of the new state.
        """
        for last in (False, False, True):
            stamp = self.stamp()
            taken: _Opened | None = None
            try:
                taken = self._take(stamp)
                answer = question(taken.index)
            except BaseException as error:
                replaced = (taken.stamp if taken else stamp) != self.stamp()
                # A connection that failed in no foreseen way may not be fit for the next question.
                if taken is not None and (replaced or not isinstance(error, BagindexError)):
                    taken.index.close()
                elif taken is not None:
                    self._give(taken)
                if replaced and not last and isinstance(error, Exception):
                    continue
                raise
            self._give(taken)
            return answer
        raise AssertionError("the last of them returns or raises")

    def about(self) -> About | None:
        """The index as it is; None where it must be opened (by `ask`) to know."""
        about = self._about
        return about if about is not None and about.stamp == self.stamp() else None

    @property
    def current_about(self) -> About:
        """The index as it was last opened.

        Raises:
            RuntimeError: it was never.
        """
        if self._about is None:
            raise RuntimeError("ask the index first")
        return self._about

    @property
    def free(self) -> int:
        """Openings that wait for a question."""
        return len(self._free)

    def ready(self) -> bool:
        """Whether there is an index to ask."""
        return (self.path / "CURRENT").is_file()

    def close(self) -> None:
        """Close what is free, and what is not as soon as it is."""
        with self._lock:
            self._closed = True
            free, self._free = self._free, []
        for each in free:
            each.index.close()
        self._computing.close()

    def _take(self, stamp: Stamp) -> _Opened:
        with self._lock:
            found = next((each for each in self._free if each.stamp == stamp), None)
            if found is not None:
                self._free.remove(found)
            old = [each for each in self._free if each.stamp != stamp]
            self._free = [each for each in self._free if each.stamp == stamp]
        for each in old:
            each.index.close()
        return found or self._open()

    def _open(self) -> _Opened:
        # Stamped before it is opened: what changes in between is seen as a change.
        stamp = self.stamp()
        index = Index.open(self.path)
        index.share(self._computing)
        models = tuple(record.name for record in index.model_records())
        about = About(self.stamp(models), index.version, models)
        if self._about is None:
            # The models were not known, and their folders are part of the stamp.
            stamp = about.stamp
        self._about = about
        return _Opened(index, stamp)

    def _give(self, taken: _Opened) -> None:
        with self._lock:
            if not self._closed:
                self._free.append(taken)
                return
        taken.index.close()

    def stamp(self, models: tuple[str, ...] | None = None) -> Stamp:
        """The state of the files that name the others: another one means that the index was changed."""
        if self._mirror is not None:
            self._mirror.follow()
        if models is None:
            models = self._about.models if self._about is not None else ()
        places = (self.path / "CURRENT", self.path / "index.json", *(self.path / name / "derived" for name in models))
        found: list[tuple[int, int, int] | None] = []
        for place in places:
            try:
                stat = place.stat()
                found.append((stat.st_mtime_ns, stat.st_ino, stat.st_size))
            except OSError:
                found.append(None)
        return tuple(found)


@dataclass(frozen=True)
class Pools:
    """Several indexes.

    Attributes:
        pools: their openings, by name.
        remarks: what is to be said where bagindex chose one.
        places: of indexes that are elsewhere, their names by their URLs and their buckets'.
    """

    pools: Mapping[str, IndexPool]
    remarks: Sequence[str]
    places: Mapping[str, str]


def open_all(indexes: Sequence[str | Path]) -> Pools:
    """Open some indexes, and see that they can be asked.

    Args:
        indexes: by name, path or URL; nothing means what `Index.open` takes.

    Raises:
        BagindexError: an index cannot be opened, or two go by one name.
    """
    pools: dict[str, IndexPool] = {}
    remarks: list[str] = []
    places: dict[str, str] = {}
    for which in indexes or (None,):
        index = Index.open(which)
        if index.remark:
            remarks.append(index.remark)
        path = index.path.resolve()
        name = path.name if index.place == str(index.path) else index.name
        if name in pools:
            raise SettingsError(f"two indexes are called {name!r}: move one of them to another name")
        pool = pools[name] = IndexPool(name, path)
        pool.ask(lambda opened: opened.models)
        if index.place != str(index.path):
            places |= dict.fromkeys((index.place, "/".join(index.place.split("/")[:3])), name)
    return Pools(pools, remarks, places)
