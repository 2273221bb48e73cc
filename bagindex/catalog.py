"""The DuckDB catalog: small tables, and views over the Parquet files.

A catalog is derived from the committed shards and can be made again at any time. It is never changed once it is
published: a new one gets a new number, and `CURRENT` names the one in force.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any

import duckdb

from bagindex.errors import DamagedIndexError, IncompleteIndexError, SettingsError
from bagindex.store import IMAGES, IndexDirectory
from bagindex_schemas.records import IndexManifest, ModelRecord

VIEWS = ("predictions", "image_evidence", "evidence", "features", "pixels")
"""The views that a catalog may have; `classes`, `models`, `images` and `rejects` are tables."""
NATIVE_ROWS = 100_000_000
"""A model's image_evidence of up to so many rows (about 9 bytes each) becomes a native table."""
_KEEP_CATALOGS = 2
_REMAKE = "remove {}/CURRENT and run the same `bagindex build` command again"


def update(directory: IndexDirectory) -> None:
    """Write a new catalog if the shards are not those of the one in force. The caller holds the lock."""
    manifest = directory.manifest()
    models = _complete_models(directory, manifest)
    state = _state(directory, manifest, models)
    if _current_state(directory) == state:
        return
    numbers = _numbers(directory)
    name = f"catalog-{max(numbers, default=0) + 1}.duckdb"
    temporary = directory.root / f"{name}.tmp-{os.getpid()}"
    with tempfile.TemporaryDirectory() as folder, duckdb.connect(temporary) as connection:
        # A catalog's paths are relative to its folder, so that the index can be moved. While the views are bound DuckDB
        # finds the files through this setting, which does not take every path: hence the link.
        link = Path(folder) / "index"
        link.symlink_to(directory.root.resolve())
        connection.execute("SET file_search_path = ?", [str(link)])
        for statement in _statements(directory, manifest, models, state):
            connection.execute(statement)
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    directory.publish(temporary, directory.root / name)
    directory.write_file("CURRENT", f"{name}\n".encode())
    for number in sorted(numbers)[: -(_KEEP_CATALOGS - 1)]:
        (directory.root / f"catalog-{number}.duckdb").unlink()


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
        DamagedIndexError: CURRENT names none.
    """
    try:
        name = (directory.root / "CURRENT").read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        raise IncompleteIndexError(
            f"the build of {directory.root} has not finished: run the same `bagindex build` command again"
        ) from None
    path = directory.root / name
    if not re.fullmatch(r"catalog-\d+\.duckdb", name) or not path.is_file():
        raise DamagedIndexError(f"{directory.root / 'CURRENT'} names no catalog: {_REMAKE.format(directory.root)}")
    return path


class Catalog:
    """A read-only connection to the catalog in force when it was opened."""

    def __init__(self, directory: IndexDirectory) -> None:
        check_place(directory)
        path = current(directory)
        self.manifest = directory.manifest()
        self._directory = directory
        try:
            # Without python_enable_replacements, a name in a query could mean one of our own Python variables.
            config: dict[str, str | bool | int | float | list[str]] = {"python_enable_replacements": False}
            self.connection = duckdb.connect(path, read_only=True, config=config)
            self.models = [row[0] for row in self.connection.execute("SELECT model FROM models").fetchall()]
            tables = self.connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'stored'")
            self._native = {row[0] for row in tables.fetchall()}
        except duckdb.Error as error:
            raise DamagedIndexError(
                f"{path} cannot be read ({first_line(error)}): {_REMAKE.format(directory.root)}"
            ) from None
        self._bound: set[str] = set()

    def close(self) -> None:
        """Close the connection."""
        self.connection.close()

    def bind_views(self, text: str) -> None:
        """Make the views that `text` mentions readable from wherever the index and the process are.

        The catalog's own views have relative paths; temporary ones with absolute paths cover them.
        """
        for view in VIEWS:
            if view not in self._bound and re.search(rf"\b{view}\b", text, re.IGNORECASE):
                self._bound.add(view)
                body = _view(self.manifest, self.models, view, self.relation)
                if body is not None:
                    self.connection.execute(f'CREATE TEMP VIEW "{view}" AS {body}')

    def relation(self, kind: str, table: str) -> str:
        """SQL for a table of a model (or of `images`): the native one, or its Parquet files by absolute paths."""
        name = f"{table}/{kind}"
        if name in self._native:
            return f'stored."{name}"'
        return f"read_parquet({_file_list(self._directory, kind, table, self._directory.root.resolve())})"


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


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _node_types(tree: object) -> Iterator[str]:
    if isinstance(tree, dict):
        if isinstance(tree.get("type"), str):
            yield tree["type"]
        for value in tree.values():
            yield from _node_types(value)
    elif isinstance(tree, list):
        for value in tree:
            yield from _node_types(value)


def _complete_models(directory: IndexDirectory, manifest: IndexManifest) -> list[str]:
    shards = set(range(len(manifest.plan.shards)))
    return [name for name in manifest.models if shards <= set(directory.committed(name))]


def _state(directory: IndexDirectory, manifest: IndexManifest, models: Sequence[str]) -> str:
    """A digest of everything that a catalog is made from."""
    digest = hashlib.sha256(manifest.model_dump_json().encode())
    for kind in (IMAGES, *models):
        for shard in directory.committed(kind):
            digest.update(f"{kind}/{shard}\n".encode())
            digest.update((directory.shard_path(kind, shard) / "shard.json").read_bytes())
    return digest.hexdigest()


def _current_state(directory: IndexDirectory) -> str | None:
    try:
        with duckdb.connect(current(directory), read_only=True) as connection:
            rows = connection.execute("SELECT digest FROM stored.state").fetchall()
    except (IncompleteIndexError, DamagedIndexError, duckdb.Error):
        return None
    return str(rows[0][0]) if rows else None


def _numbers(directory: IndexDirectory) -> list[int]:
    names = os.listdir(directory.root)
    return [int(match[1]) for name in names if (match := re.fullmatch(r"catalog-(\d+)\.duckdb", name))]


def _statements(directory: IndexDirectory, manifest: IndexManifest, models: Sequence[str], state: str) -> Iterator[str]:
    yield _sql(
        "tables",
        classes=", ".join(_values(record.class_id, record.wnid, record.name) for record in manifest.plan.classes),
        models=", ".join(_model_values(manifest.models[name]) for name in models),
        images=_file_list(directory, IMAGES, "images"),
        rejects=_file_list(directory, IMAGES, "rejects"),
        state=state,
    )
    native = set()
    for name in models:
        rows = sum(directory.shard_manifest(name, n).rows["image_evidence"] for n in directory.committed(name))
        if rows <= NATIVE_ROWS:
            native.add(name)
            yield _sql(
                "native",
                model=name,
                predictions=_file_list(directory, name, "predictions"),
                image_evidence=_file_list(directory, name, "image_evidence"),
            )

    def relation(kind: str, table: str) -> str:
        if kind in native and table in ("predictions", "image_evidence"):
            return f'stored."{table}/{kind}"'
        return f"read_parquet({_file_list(directory, kind, table)})"

    for view in VIEWS:
        body = _view(manifest, models, view, relation)
        if body is not None:
            yield f'CREATE VIEW "{view}" AS {body}'


def _view(manifest: IndexManifest, models: Sequence[str], view: str, relation: Callable[[str, str], str]) -> str | None:
    """The view's SELECT over all models that keep what it shows; None when none does."""
    if view == "pixels":
        return _sql(view, pixels=relation(IMAGES, "pixels")) if manifest.plan.pixels else None
    records = [manifest.models[name] for name in models]
    if view == "evidence":
        records = [record for record in records if record.keep.has_evidence]
    if view == "features":
        records = [record for record in records if record.keep.has_features]
    parts = [
        _sql(
            view,
            model=record.name,
            patches=record.grid.patches,
            cols=record.grid.cols,
            stride=record.grid.stride,
            receptive_field=record.grid.receptive_field,
            **{table: relation(record.name, table) for table in {"predictions", view}},
        )
        for record in records
    ]
    return "\nUNION ALL\n".join(parts) if parts else None


def _sql(name: str, **values: object) -> str:
    text = (files("bagindex_schemas") / "sql" / f"{name}.sql").read_text(encoding="utf-8")
    return Template(text).substitute(values)


def _file_list(directory: IndexDirectory, kind: str, table: str, base: Path | None = None) -> str:
    names = [f"{kind}/shard-{shard:05d}/{table}.parquet" for shard in directory.committed(kind)]
    return "[" + ", ".join(_literal(str(base / name) if base else name) for name in names) + "]"


def _model_values(record: ModelRecord) -> str:
    grid = record.grid
    return _values(
        record.name,
        record.architecture,
        record.width,
        record.parameters,
        record.feature_size,
        grid.receptive_field,
        grid.stride,
        grid.rows,
        grid.cols,
        record.precision,
        record.keep.value,
        record.weights_sha256,
    )


def _values(*values: str | float | None) -> str:
    return "(" + ", ".join("NULL" if value is None else _literal(value) for value in values) + ")"


def _literal(value: str | float) -> str:
    return "'" + value.replace("'", "''") + "'" if isinstance(value, str) else str(value)


def check(directory: IndexDirectory) -> tuple[int, list[str]]:
    """Compare the catalog in force with the Parquet files: rows looked at, and what differs."""
    from bagindex_schemas import tables

    opened = Catalog(directory)
    problems = []
    rows = 0
    try:
        classes = len(opened.manifest.plan.classes)
        derived_from = [("images", IMAGES, "images", tables.IMAGES), ("rejects", IMAGES, "rejects", tables.REJECTS)]
        for model in opened.models:
            for table, schema in (
                ("predictions", tables.predictions(classes)),
                ("image_evidence", tables.IMAGE_EVIDENCE),
            ):
                derived_from.append((opened.relation(model, table), model, table, schema))
        for name, kind, table, schema in derived_from:
            columns = ", ".join(schema.names)
            files = _file_list(directory, kind, table, directory.root.resolve())
            # A sum, not an exclusive or: two rows that are the same must not cancel out.
            digest = f"SELECT count(*), sum(hash({columns})) FROM"
            derived, source = (
                opened.connection.execute(f"{digest} {relation}").fetchall()[0]
                for relation in (name, f"read_parquet({files})")
            )
            rows += derived[0]
            if derived != source:
                problems.append(f"catalog: {name} is not what the shards hold: {_REMAKE.format(directory.root)}")
    finally:
        opened.close()
    return rows, problems
