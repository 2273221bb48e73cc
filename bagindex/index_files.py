"""How the files of an index are reached: on this disk by their paths, in a store by whatever reads them there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import duckdb

    from bagindex.arrays import Arrays


@dataclass(frozen=True)
class IndexFiles:
    """The files below `root`, all of which are on this disk here; see `bagindex.remote.directory` for others."""

    root: Path

    @property
    def place(self) -> str:
        """Where the index is, as a person says it."""
        return str(self.root)

    @property
    def name(self) -> str:
        """What the index is called."""
        return self.root.name

    @property
    def elsewhere(self) -> bool:
        """Whether what is written is on this disk for a while only, a shard at a time."""
        return False

    def whole(self, path: Path) -> Path:
        """A file below the root, all of which is on this disk: of a remote index, parts may not be until then."""
        return path

    def readable(self, path: Path) -> Any:
        """What PyArrow reads a file below the root by."""
        return path

    def sql_path(self, path: Path) -> str:
        """What DuckDB reads a file below the root by, on a connection that `connect` made."""
        return str(path)

    def connect(self, path: Path, config: dict[str, Any]) -> duckdb.DuckDBPyConnection:
        """A connection that reads a file of DuckDB below the root, and others by `sql_path`."""
        import duckdb

        return duckdb.connect(path, read_only=True, config=config)

    def raise_trouble(self) -> None:
        """Raise what kept DuckDB from reading, where it was not the file: DuckDB makes an error of its own of it.

        Raises:
            StoreError, OutdatedError: a file in an object store could not be read.
        """

    def arrays(self, path: Path, offsets: Sequence[int], shape: tuple[int, ...]) -> Arrays:
        """Equal float16 arrays at known offsets of a file below the root."""
        from bagindex.arrays import MappedArrays

        return MappedArrays(path, offsets, shape)

    def expect(self, *series: str) -> None:
        """The records of all shards of some series will be read."""

    def say_to(self, note: Callable[[str], None]) -> None:
        """Who hears why a writer waits."""

    def refresh(self) -> None:
        """See what others have committed meanwhile, where that is not seen by itself."""

    def prepare(self, names: Iterable[str]) -> None:
        """DuckDB will make a catalog of these files, by their paths."""
