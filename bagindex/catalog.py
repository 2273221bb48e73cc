"""The DuckDB catalog: small tables, and views over the Parquet files.

A catalog is derived from the committed shards and can be made again at any time. It is never changed once it is
published: a new one gets a new number, and `CURRENT` names the one in force.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb

from bagindex.errors import DamagedIndexError, IncompleteIndexError, SettingsError
from bagindex.seal import read_plain, read_record, sealed
from bagindex.store import CURRENT, IMAGES, IndexDirectory, check_size, file_sha256, publish
from bagindex.text import first_line
from bagindex.views import VIEWS, Relations, mentioned, native_names, sql_digest, statements
from bagindex_schemas.records import CatalogRecord, FileRecord, IndexManifest, Keep, ModelRecord, Relabelling

if TYPE_CHECKING:
    from numpy.typing import NDArray

NATIVE_ROWS = 100_000_000
"""A model's image_evidence of up to so many rows (about 9 bytes each) becomes a native table."""
_MEMORY = "500MB"
"""What DuckDB may take to write a catalog; each of its threads needs some 40 MB."""
_KEEP_CATALOGS = 2
_CHUNK = 10_000
"""Rows of a stream that are fetched at a time."""
_REMAKE = "run `bagindex repair`, which makes the catalog again"


def update(directory: IndexDirectory) -> None:
    """Write a new catalog if the shards are not those of the one in force. The caller holds the lock."""
    manifest = directory.manifest()
    models = _ready(directory, manifest)
    words = _words(directory, models)
    state = _state(directory, manifest, models, words)
    if _current_state(directory) == state:
        return
    small = [record.name for record in models if _summary_rows(directory, record) <= NATIVE_ROWS]
    if manifest.relabelling is not None:
        check_labels(directory, manifest.relabelling)
    files = _files(directory, models, words)
    tables = Relations(directory, manifest, models, native_names(small, words.keys()), words, files)
    numbers = _numbers(directory)
    name = f"catalog-{max(numbers, default=0) + 1}.duckdb"
    temporary = directory.root / f"{name}.tmp-{os.getpid()}"
    # Sorting takes as much memory as it is allowed, and is as fast with little; what does not fit lies in the index's
    # folder for a while, where there is room.
    spill = directory.root / f"spill.tmp-{os.getpid()}"
    config: dict[str, str | bool | int | float | list[str]] = {
        "memory_limit": _MEMORY,
        "threads": min(4, os.cpu_count() or 1),
        "temp_directory": str(spill),
    }
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(temporary, config=config) as connection:
        # A catalog's paths are relative to its folder, so that the index can be moved. While the views are bound DuckDB
        # finds the files through this setting, which does not take every path: hence the link.
        link = Path(folder) / "index"
        link.symlink_to(directory.root.resolve())
        _without_bar(connection)
        connection.execute("SET file_search_path = ?", [str(link)])
        for statement in statements(tables, state):
            try:
                connection.execute(f"BEGIN; {statement}; COMMIT")
            except duckdb.OutOfMemoryException:  # rows of very many classes are so wide that a few do not fit
                connection.execute("ROLLBACK; SET memory_limit = '80%'")
                connection.execute(statement)
    shutil.rmtree(spill, ignore_errors=True)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    file_record = FileRecord(bytes=temporary.stat().st_size, sha256=file_sha256(temporary))
    publish(temporary, directory.root / name)
    directory.write_file(CURRENT, sealed(CatalogRecord(catalog=name, file=file_record)))
    for number in sorted(numbers)[: -(_KEEP_CATALOGS - 1)]:
        (directory.root / f"catalog-{number}.duckdb").unlink()


def check_labels(directory: IndexDirectory, given: Relabelling) -> None:
    """See whether labels that were given later are as they were given.

    Raises:
        DamagedIndexError: they are not.
    """
    path = directory.inside(given.file)
    if not path.is_file() or file_sha256(path) != given.sha256:
        raise DamagedIndexError(
            f"{path} is missing or damaged: give the labels again with `bagindex relabel --labels FILE`, or go back "
            "with --original"
        )


def _without_bar(connection: duckdb.DuckDBPyConnection) -> None:
    """In a Python prompt DuckDB would draw a progress bar among the output."""
    with suppress(duckdb.InvalidInputException):  # a notebook that cannot have one does not let it be switched off
        connection.execute("SET enable_progress_bar = false")


def check_place(directory: IndexDirectory) -> None:
    """Refuse a folder in which DuckDB cannot open a file.

    Raises:
        SettingsError: its path has a backslash, which DuckDB takes for a slash.
    """
    if "\\" in str(directory.root.resolve()):
        raise SettingsError(f"DuckDB cannot open files in {directory.root}, for the backslash in its path: move it")


def current(directory: IndexDirectory) -> Path:
    """The catalog in force.

    Raises:
        IncompleteIndexError: there is none yet.
        DamagedIndexError: CURRENT names none, or the catalog has another size.
    """
    record = _current_record(directory)
    path = directory.inside(record.catalog)
    if record.file is not None:
        check_size(path, record.file.bytes, _REMAKE)
    # DuckDB would apply it to what it reads.
    if path.with_name(f"{path.name}.wal").exists():
        raise DamagedIndexError(f"{path} was written to by something else, which left {path.name}.wal: {_REMAKE}")
    return path


def drop(directory: IndexDirectory) -> None:
    """Remove the catalog in force and all before it, so that the next one is made anew. The caller holds the lock."""
    directory.drop(directory.root / CURRENT)
    for number in _numbers(directory):
        path = directory.root / f"catalog-{number}.duckdb"
        directory.drop(path)
        directory.drop(path.with_name(f"{path.name}.wal"))


def check_current(directory: IndexDirectory) -> tuple[int, list[str]]:
    """Compare the catalog in force with its hash: how many files, and what is wrong."""
    path, record = current(directory), _current_record(directory)
    if record.file is not None and file_sha256(path) != record.file.sha256:
        return 1, [f"{path} is damaged, its SHA-256 is not the recorded one: {_REMAKE}"]
    return 1, []


def _current_record(directory: IndexDirectory) -> CatalogRecord:
    path = directory.root / CURRENT
    if not path.is_symlink() and not path.exists():
        raise IncompleteIndexError(
            f"the build of {directory.root} has not finished: run the same `bagindex build` command again"
        )
    with suppress(OSError):
        earlier = re.fullmatch(rb"(catalog-\d+\.duckdb)\n", read_plain(path, 1000))
        if earlier:
            return CatalogRecord(catalog=earlier[1].decode(), file=None)
    return read_record(path, CatalogRecord, _REMAKE)


class Catalog:
    """A read-only connection to the catalog in force when it was opened."""

    def __init__(self, directory: IndexDirectory) -> None:
        check_place(directory)
        self.file = path = current(directory)
        self.manifest = directory.manifest()
        self._directory = directory
        try:
            self.connection = _connect(path)
            _without_bar(self.connection)
            rows = self.connection.execute("SELECT model, keep FROM models").fetchall()
            tables = self.connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'stored'")
            native = {row[0] for row in tables.fetchall()}
            # A catalog of an earlier version knows of no words.
            words = self.connection.execute("FROM stored.words").fetchall() if "words" in native else []
            files = self.connection.execute("FROM stored.files").fetchall() if "files" in native else None
        except duckdb.Error as error:
            raise DamagedIndexError(f"{path} cannot be read ({first_line(error)}): {_REMAKE}") from None
        records = self.manifest.models
        self.models = {name: _up_to(records[name], Keep(keep)) for name, keep in rows if name in records}
        """The models that the catalog knows, with the keep level that it knows them by."""
        self.words: Mapping[str, str] = dict(words)
        """The folder of each model's visual words, relative to the index."""
        known = list(self.models.values())
        listed = _files(directory, known, self.words) if files is None else dict(files)
        base = directory.root.resolve()
        self._relations = Relations(directory, self.manifest, known, native, self.words, listed, base)
        self._bound: set[str] = set()

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
            yield self.connection
        except duckdb.Error as error:
            raise DamagedIndexError(
                f"{self._directory.root} cannot be read ({first_line(error)}): run `bagindex verify`"
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

        The catalog's own views have relative paths; temporary ones with absolute paths cover them.
        """
        for view in mentioned(text):
            if view not in self._bound:
                self._bound.add(view)
                body = self._relations.view(view)
                if body is not None:
                    self.connection.execute(f'CREATE TEMP VIEW "{view}" AS {body}')

    def view_bodies(self) -> Mapping[str, str]:
        """The SELECT of each view that there is, on absolute paths."""
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
        return self._relations.relation(model, table)

    def files(self, series: str, table: str) -> str:
        """SQL for the list of a table's Parquet files, by absolute paths."""
        return self._relations.files(series, table)


def select_tree(connection: duckdb.DuckDBPyConnection, sql: str) -> dict[str, Any] | None:
    """The parse tree of a statement that only reads; None for any other.

    Raises:
        duckdb.Error: it is no SQL.
    """
    statements = connection.extract_statements(sql)
    if len(statements) != 1 or statements[0].type != duckdb.StatementType.SELECT:
        return None
    rows = connection.execute("SELECT json_serialize_sql(?)", [statements[0].query]).fetchall()
    tree: dict[str, Any] = json.loads(rows[0][0])
    # DuckDB lets a common table expression write: WITH x AS (COPY ... TO ...) counts as a SELECT.
    return None if tree.get("error") or "_QUERY_NODE" in "".join(_node_types(tree)) else tree


def _node_types(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("type"), str):
            yield tree["type"]
        for value in tree.values():
            yield from _node_types(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _node_types(value)


def _ready(directory: IndexDirectory, manifest: IndexManifest) -> list[ModelRecord]:
    """The models that can be asked: those that have every shard of the plan, up to the level that is filled in."""
    ready = []
    for record in manifest.models.values():
        has = [set(directory.committed(series)) for series in record.series]
        if set(range(len(manifest.plan.shards))) <= has[0]:
            levels = [level for level, shards in zip(record.levels, has, strict=True) if has[0] <= shards]
            ready.append(_up_to(record, levels[-1]))
    return ready


def _up_to(record: ModelRecord, keep: Keep) -> ModelRecord:
    return record.model_copy(update={"levels": record.levels[: record.levels.index(keep) + 1]})


def _words(directory: IndexDirectory, models: Sequence[ModelRecord]) -> Mapping[str, str]:
    """The folder of the visual words of each model that has some of all its images, relative to the index."""
    # A question needs none of this, and is to be quick: derived brings pyarrow with it.
    from bagindex import derived
    from bagindex_schemas.derived import WordsRecord

    found = {}
    for record in models:
        with suppress(DamagedIndexError):  # what can be made again must not stop a build
            opened = derived.open_newest(directory, record.name, derived.WORDS, WordsRecord)
            if opened is not None and opened[1].features_sha256 == derived.features_digest(directory, record):
                found[record.name] = opened[0].relative_to(directory.root).as_posix()
    return found


def _summary_rows(directory: IndexDirectory, record: ModelRecord) -> int:
    shards = (directory.shard_manifest(record.name, shard) for shard in directory.committed(record.name))
    return sum(shard.rows["image_evidence"] for shard in shards)


def _files(directory: IndexDirectory, models: Sequence[ModelRecord], words: Mapping[str, str]) -> dict[str, int]:
    """The files that the tables and views of a catalog stand on, relative to the index, and their bytes."""
    found = {}
    for series in (IMAGES, *(each for record in models for each in record.series)):
        for shard in directory.committed(series):
            folder = directory.shard_path(series, shard).relative_to(directory.root).as_posix()
            files = directory.shard_manifest(series, shard).files
            found.update({f"{folder}/{name}": record.bytes for name, record in files.items()})
    for folder in words.values():
        for path in directory.inside(folder).glob("*.parquet"):
            found[f"{folder}/{path.name}"] = path.stat().st_size
    return found


def _state(
    directory: IndexDirectory, manifest: IndexManifest, models: Sequence[ModelRecord], words: Mapping[str, str]
) -> str:
    """A digest of everything that a catalog is made from."""
    digest = hashlib.sha256(f"{sql_digest()}\n{manifest.model_dump_json()}".encode())
    for folder in words.values():
        digest.update(f"{folder}\n".encode() + (directory.root / folder / "words.json").read_bytes())
    for series in (IMAGES, *(each for record in models for each in record.series)):
        for shard in directory.committed(series):
            digest.update(f"{series}/{shard}\n".encode())
            digest.update(directory.shard_manifest(series, shard).model_dump_json().encode())
    return digest.hexdigest()


def _connect(path: Path) -> duckdb.DuckDBPyConnection:
    """A connection that reads a catalog. Within a process, DuckDB opens a file with one configuration only."""
    # Without python_enable_replacements, a name in a query could mean one of our own Python variables.
    config: dict[str, str | bool | int | float | list[str]] = {
        "python_enable_replacements": False,
        # What a query spills must not lie in the index, nor fill the disk.
        "temp_directory": str(Path(tempfile.gettempdir()) / f"bagindex-spill-{os.getpid()}"),
        "max_temp_directory_size": "20GB",
    }
    return duckdb.connect(path, read_only=True, config=config)


def _current_state(directory: IndexDirectory) -> str | None:
    try:
        with _connect(current(directory)) as connection:
            rows = connection.execute("SELECT digest FROM stored.state").fetchall()
    except (IncompleteIndexError, DamagedIndexError, duckdb.Error):
        return None
    return str(rows[0][0]) if rows else None


def _numbers(directory: IndexDirectory) -> list[int]:
    names = os.listdir(directory.root)
    return [int(match[1]) for name in names if (match := re.fullmatch(r"catalog-(\d+)\.duckdb", name))]


def check(directory: IndexDirectory) -> tuple[int, list[str]]:
    """Compare the catalog in force with the Parquet files: rows looked at, and what differs."""
    from bagindex_schemas import tables

    opened = Catalog(directory)
    problems = [
        f"{directory.root / folder} is missing, and the catalog has words of it: {_REMAKE}"
        for folder in opened.words.values()
        if not directory.inside(folder).is_dir()
    ]
    rows = 0
    try:
        classes = len(opened.manifest.plan.classes)
        images = "(SELECT * EXCLUDE (label), original_label AS label FROM images)"
        sources = [(images, IMAGES, "images", tables.IMAGES)]
        for record in opened.models.values():
            schemas = {"predictions": tables.predictions(classes), "image_evidence": tables.IMAGE_EVIDENCE}
            for table, schema in schemas.items():
                sources.append((opened.relation(record, table), record.name, table, schema))
        for name, series, table, schema in sources:
            columns = ", ".join(schema.names)
            # A sum, not an exclusive or: two rows that are the same must not cancel out.
            digest = f"SELECT count(*), sum(hash({columns})) FROM"
            made, source = (
                opened.connection.execute(f"{digest} {relation}").fetchall()[0]
                for relation in (name, f"read_parquet({opened.files(series, table)})")
            )
            rows += made[0]
            if made != source:
                problems.append(f"catalog: {table} of {series} is not what the shards hold: {_REMAKE}")
    except duckdb.Error as error:
        problems.append(f"catalog: {first_line(error)}: {_REMAKE}")
    finally:
        opened.close()
    return rows, problems
