"""The DuckDB catalog: small tables, and views over the Parquet files.

A catalog is derived from the committed shards and can be made again at any time. It is never changed once it is
published: a new one gets a new number, and `CURRENT` names the one in force.
"""

from __future__ import annotations

import os
import re
import secrets
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb

from bagindex.catalog_file import wal, without_bar, write
from bagindex.errors import (
    DamagedIndexError,
    IncompleteIndexError,
    IndexNotFoundError,
    OutdatedError,
    SettingsError,
)
from bagindex.locking import last_writer
from bagindex.plan import NATIVE_ROWS
from bagindex.seal import UNREADABLE, read_plain, read_record, sealed
from bagindex.sql_names import MACROS, VIEWS
from bagindex.standing import Standing, up_to
from bagindex.store import CURRENT, IMAGES, IndexDirectory, check_size, file_sha256
from bagindex.text import first_line
from bagindex.views import (
    Relations,
    calls,
    check_tables,
    evidence_files,
    macro_statements,
    mentioned,
    native_names,
    shards_of,
    statements,
)
from bagindex_schemas.records import CatalogRecord, FileRecord, Keep, ModelRecord, Relabelling

if TYPE_CHECKING:
    from numpy.typing import NDArray

_Answer = TypeVar("_Answer")
_KEEP_CATALOGS = 2
_CHUNK = 10_000
"""Rows of a stream that are fetched at a time."""
_LIFE, _LIVES = 1_000_000, 1_000_000
"""A catalog's number is one more than the last one's; the first is a random million and one. So none has a path that
another had before the index was removed or begun anew: DuckDB takes a file for the one that this process has open by
the same path, whatever is in it.
"""
_TRIES = 5
UNFINISHED = "has not finished"
REMAKE = "run `bagindex repair`, which makes the catalog again"


def update(directory: IndexDirectory, *, anew: bool = False) -> None:
    """Write a new catalog if the shards are not those of the one in force, or in any case. The caller holds the lock.

    Readers go on with the one that they have open, and whoever comes gets the one in force.
    """
    directory.refresh()  # workers may have committed shards by another mirror
    manifest = directory.manifest()
    digest, known = _in_force(directory)
    standing = Standing.of(directory, manifest, known)
    words = standing.words()
    state = standing.digest(words)
    if digest == state and not anew:
        return
    models = standing.models
    small = [record.name for record in models if standing.summary_rows(record) <= NATIVE_ROWS]
    if manifest.relabelling is not None:
        check_labels(directory, manifest.relabelling)
    native = native_names(small, words.keys())
    tables = Relations(directory, manifest, models, native, words, standing.files(words))
    numbers = _numbers(directory)
    name = f"catalog-{max(numbers, default=_LIFE * secrets.randbelow(_LIVES)) + 1}.duckdb"
    temporary = directory.root / f"{name}.tmp-{os.getpid()}"
    directory.prepare(tables.listed)
    write(temporary, directory.root, statements(tables, state))
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    file_record = FileRecord(bytes=temporary.stat().st_size, sha256=file_sha256(temporary))
    directory.publish(temporary, name)
    directory.write_file(CURRENT, sealed(CatalogRecord(catalog=name, file=file_record)))
    for number in sorted(numbers)[: -(_KEEP_CATALOGS - 1)]:
        directory.drop(directory.root / f"catalog-{number}.duckdb")


def check_labels(directory: IndexDirectory, given: Relabelling) -> None:
    """See whether labels that were given later are as they were given.

    Raises:
        DamagedIndexError: they are not.
    """
    path = directory.inside(given.file)
    if not path.is_file() or file_sha256(directory.whole(path)) != given.sha256:
        raise DamagedIndexError(
            f"{path} is missing or damaged: give the labels again with `bagindex relabel --labels FILE`, or go back "
            "with --original"
        )


def check_place(directory: IndexDirectory) -> None:
    """Refuse a folder in which DuckDB cannot open a file.

    Raises:
        SettingsError: its path has a backslash, which DuckDB takes for a slash.
    """
    if "\\" in str(directory.root.resolve()):
        raise SettingsError(f"DuckDB cannot open files in {directory.place}, for the backslash in its path: move it")


def current(directory: IndexDirectory) -> Path:
    """The catalog in force.

    Raises:
        IncompleteIndexError: there is none yet.
        DamagedIndexError: CURRENT names none, or the catalog has another size.
    """
    record = _current_record(directory)
    path = directory.inside(record.catalog)
    if record.file is not None:
        check_size(path, record.file.bytes, REMAKE)
    # DuckDB would apply it to what it reads.
    if wal(path).exists():
        raise DamagedIndexError(f"{path} was written to by something else, which left {path.name}.wal: {REMAKE}")
    return path


def drop(directory: IndexDirectory) -> None:
    """Remove the catalog in force and all before it, so that the next one is made anew. The caller holds the lock."""
    directory.drop(directory.root / CURRENT)
    for number in _numbers(directory):
        path = directory.root / f"catalog-{number}.duckdb"
        directory.drop(path)
        directory.drop(wal(path))


def check_current(directory: IndexDirectory) -> tuple[int, list[str]]:
    """Compare the catalog in force with its hash: how many files, and what is wrong."""
    path, record = current(directory), _current_record(directory)
    if record.file is not None and directory.sha256(path) != record.file.sha256:
        return 1, [f"{path} is damaged, its SHA-256 is not the recorded one: {REMAKE}"]
    return 1, []


def _current_record(directory: IndexDirectory) -> CatalogRecord:
    path = directory.root / CURRENT
    if not path.is_symlink() and not path.exists():
        if not directory.missing(directory.manifest()):
            raise IncompleteIndexError(
                f"{directory.place} has all of its shards and no catalog: wait for the build that is running, if there "
                "is one, or run `bagindex repair`, which makes it"
            )
        writer = "" if directory.elsewhere else last_writer(directory.root)
        wait = f"process {writer} seems to be at it, wait until it ends, or " if writer else ""
        raise IncompleteIndexError(
            f"the build of {directory.place} {UNFINISHED}: {wait}run the same `bagindex build` command again"
        )
    with suppress(OSError):
        earlier = re.fullmatch(rb"(catalog-\d+\.duckdb)\n", read_plain(path, 1000))
        if earlier:
            return CatalogRecord(catalog=earlier[1].decode(), file=None)
    return read_record(path, CatalogRecord, REMAKE)


class Catalog:
    """A read-only connection to the catalog in force when it was opened.

    It knows what the index was then: its `models`, each with the keep level that it could be asked for, its `shards`,
    the folder of each model's visual words (`words`, relative to the index) and the bytes of all files (`listed`). What
    came later is no part of it.
    """

    def __init__(self, directory: IndexDirectory) -> None:
        check_place(directory)
        self.directory = directory
        for last in (False,) * (_TRIES - 1) + (True,):
            self._first = self._seen = _stat(directory)
            try:
                self.file = current(directory)
                self.manifest = directory.manifest()
                self._open()
                break
            except DamagedIndexError:
                # Another one may have come into force, and the one after it, which this one makes room for.
                if last or _stat(directory) == self._seen:
                    raise

    def _open(self) -> None:
        directory = self.directory
        try:
            self.connection = _connect(directory, self.file)
            without_bar(self.connection)
            rows = self.connection.execute("SELECT model, keep FROM models").fetchall()
            tables = self.connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'stored'")
            native = {row[0] for row in tables.fetchall()}
            # A catalog of an earlier version knows of no words, or of no files.
            words = self.connection.execute("FROM stored.words").fetchall() if "words" in native else []
            files = self.connection.execute("FROM stored.files").fetchall() if "files" in native else ()
            records = self.manifest.models
            self.models = {name: up_to(records[name], Keep(keep)) for name, keep in rows if name in records}
            predicted = [name for name in self.models if f"predictions/{name}" in native]
            check_tables(self.connection, self.manifest, predicted)
        except (duckdb.Error, ValueError) as error:
            directory.raise_trouble()
            if not os.access(self.file, os.R_OK):
                raise DamagedIndexError(f"cannot read {self.file} (Permission denied): {UNREADABLE}") from None
            raise DamagedIndexError(f"{self.file} cannot be read ({first_line(error)}): {REMAKE}") from None
        self.words: Mapping[str, str] = dict(words)
        self.listed = listed = dict(files or Standing.of(directory, self.manifest, self.models).files(self.words))
        self.shards = shards_of(listed, IMAGES, "images")
        base = directory.root.resolve()
        known = list(self.models.values())
        self._relations = Relations(directory, self.manifest, known, native, self.words, listed, base)
        self._bound: set[str] = set()
        self._covered: set[str] = set()
        self._followed = 0

    @property
    def life(self) -> int:
        """A number that stays until the index is removed or begun anew, and goes with it when it is moved."""
        return _life(self.file)

    def check(self) -> None:
        """See whether the index still is the one that was opened.

        Raises:
            OutdatedError: it was removed, or begun anew.
        """
        if _stat(self.directory) == self._seen:
            return
        seen = _stat(self.directory)
        try:
            file = current(self.directory)
        except (IncompleteIndexError, IndexNotFoundError):
            raise OutdatedError(
                f"{self.directory.place} was removed or begun anew since it was opened: open it again when it is built"
            ) from None
        except DamagedIndexError:  # which whoever opens it now is told
            return
        if _life(file) != self.life:
            raise OutdatedError(f"{self.directory.place} was begun anew since it was opened: open it again")
        self._seen = seen
        self._follow(file)

    def _follow(self, file: Path) -> None:
        """Read evidence from where it is now, if it was merged since: it is the same."""
        self._followed += 1
        try:
            with _connect(self.directory, file) as other:
                now = {str(name): int(size) for name, size in other.execute("FROM stored.files").fetchall()}
        except duckdb.Error:  # which whoever opens it now is told
            return
        for record in (each for each in self.models.values() if "evidence" in each.keep.tables):
            series = record.series_of("evidence")
            had, has = (evidence_files(listed, series).keys() for listed in (self.listed, now))
            if has and not had <= has:
                self.listed = {name: size for name, size in self.listed.items() if name not in had} | {
                    name: now[name] for name in has
                }
                self._relations = replace(self._relations, listed=self.listed)
        try:
            body = self._relations.view("evidence") if "evidence" in self._bound else None
            if body is not None:
                self.connection.execute(f"CREATE OR REPLACE TEMP VIEW evidence AS {body}")
        except (DamagedIndexError, duckdb.Error):  # it has moved on since
            self._seen = None

    def answer(self, ask: Callable[[], _Answer]) -> _Answer:
        """Ask a question that looks at evidence, again where that was merged in this moment: it is the same elsewhere.

        Raises:
            OutdatedError: something that it looks at is gone.
        """
        for _ in range(_TRIES - 1):
            before = self._followed
            try:
                return ask()
            except OutdatedError:
                if self._followed == before:  # nothing could have gone elsewhere
                    raise
        return ask()

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Around reading files that may be replaced at any time.

        Raises:
            OutdatedError: they were.
        """
        try:
            yield
        except (DamagedIndexError, duckdb.Error) as error:
            self.directory.raise_trouble()
            if not isinstance(error, DamagedIndexError | duckdb.IOException):
                raise
            self.check()
            if _stat(self.directory) != self._first:
                raise OutdatedError(
                    f"{self.directory.place} has changed since it was opened, and of its state then something is gone: "
                    f"open it again ({first_line(error)})"
                ) from None
            raise
        self.check()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    @contextmanager
    def readable(self) -> Iterator[duckdb.DuckDBPyConnection]:
        """The connection, for a question that is ours and none of a person's: it fails only where a file is damaged.

        Raises:
            DamagedIndexError: it fails.
        """
        try:
            with self.reading():
                yield self.connection
        except duckdb.Error as error:
            raise DamagedIndexError(
                f"{self.directory.place} cannot be read ({first_line(error)}): run `bagindex verify`"
            ) from None

    def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """The rows of a question of ours; see `readable`."""
        with self.readable() as connection:
            return connection.execute(sql, parameters).fetchall()

    def stream(self, sql: str) -> Iterator[tuple[Any, ...]]:
        """The same some at a time: there may be millions, of which few are looked at."""
        with self.readable() as connection:
            cursor = connection.execute(sql)
            while part := cursor.fetchmany(_CHUNK):
                yield from part

    def first_row(self, sql: str, parameters: Sequence[object] = ()) -> tuple[Any, ...] | None:
        """Its first row; None where there is none."""
        with self.readable() as connection:
            return connection.execute(sql, parameters).fetchone()

    def columns(self, sql: str) -> dict[str, NDArray[Any]]:
        """Its columns, [rows] each."""
        with self.readable() as connection:
            return connection.execute(sql).fetchnumpy()

    def bind_views(self, text: str) -> None:
        """Make the views that `text` mentions readable from wherever the index and the process are.

        The catalog's own views have relative paths; temporary ones with absolute paths cover them. So do temporary
        macros: what is run is what macros are made to do, whatever the catalog says of them.
        """
        for view in mentioned(text):
            if view not in self._bound:
                with self.reading():
                    body = self._relations.view(view)
                    if body is not None:
                        self.connection.execute(f'CREATE TEMP VIEW "{view}" AS {body}')
                    self._bound.add(view)  # before it is looked whether what it reads has gone elsewhere
        if calls(text):
            with self.reading():
                self._cover_macros()

    def _cover_macros(self) -> None:
        had = self._macros - self._covered
        for macro, statement in macro_statements().items():
            if macro in had and self._bound.issuperset(MACROS[macro]):  # its body is bound now
                self.connection.execute(statement.replace("CREATE MACRO", "CREATE TEMP MACRO", 1))
                self._covered.add(macro)

    @cached_property
    def _macros(self) -> frozenset[str]:
        return frozenset(self.names()[1])

    def view_bodies(self) -> Mapping[str, str]:
        """The SELECT of each view that there is, on absolute paths."""
        with self.reading():
            return {view: body for view in VIEWS if (body := self._relations.view(view)) is not None}

    def names(self) -> tuple[Sequence[str], Sequence[str]]:
        """Names of the tables and of the macros that the catalog has."""
        sql = (
            "SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main' AND NOT temporary",
            "SELECT DISTINCT function_name FROM duckdb_functions() "
            "WHERE database_name = current_database() AND NOT internal",
        )
        tables, macros = ([str(row[0]) for row in self.rows(each)] for each in sql)
        return tables, macros

    def has(self, view: str) -> bool:
        """Whether any model has what a view shows."""
        return self._relations.view(view) is not None

    def relation(self, model: ModelRecord, table: str) -> str:
        """SQL for a table of a model: the native one, or its Parquet files by absolute paths."""
        with self.reading():
            return self._relations.relation(model, table)

    def files(self, series: str, table: str) -> str:
        """SQL for the list of a table's Parquet files, by absolute paths."""
        with self.reading():
            return self._relations.files(series, table)


def _connect(directory: IndexDirectory, path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that reads a catalog. Within a process, DuckDB opens a file with one configuration only."""
    # Without python_enable_replacements, a name in a query could mean one of our own Python variables.
    config: dict[str, str | bool | int | float | list[str]] = {
        "python_enable_replacements": False,
        # What a query spills must not lie in the index, nor fill the disk.
        "temp_directory": str(Path(tempfile.gettempdir()) / f"bagindex-spill-{os.getpid()}"),
        "max_temp_directory_size": "20GB",
    }
    return directory.connect(path, config)


def _in_force(directory: IndexDirectory) -> tuple[str | None, Collection[str]]:
    """The state that the catalog in force is of, and the models that it knows."""
    try:
        with _connect(directory, current(directory)) as connection:
            (digest,) = connection.execute("SELECT digest FROM stored.state").fetchall()
            models = connection.execute("SELECT model FROM models").fetchall()
    except (IncompleteIndexError, DamagedIndexError, duckdb.Error, ValueError):
        directory.raise_trouble()
        return None, ()
    return str(digest[0]), {str(row[0]) for row in models}


def _stat(directory: IndexDirectory) -> tuple[int, int] | None:
    """What changes when another catalog comes into force."""
    try:
        found = os.lstat(directory.root / CURRENT)
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns


def _life(file: Path) -> int:
    """What the catalogs of an index have in common, until it is removed or begun anew."""
    return int(re.sub(r"\D", "", file.stem)) // _LIFE


def _numbers(directory: IndexDirectory) -> list[int]:
    names = os.listdir(directory.root)
    return [int(match[1]) for name in names if (match := re.fullmatch(r"catalog-(\d+)\.duckdb", name))]
