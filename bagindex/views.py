"""What a catalog is made of, as SQL: tables, views over the Parquet files, macros."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

from bagindex.errors import DamagedIndexError
from bagindex.sql_names import MACROS, VIEWS, WORD_VIEWS, literal
from bagindex.store import EVIDENCE, IMAGES, REMAKE, IndexDirectory, check_size, latest_first, merged_range
from bagindex_schemas.records import IndexManifest, ModelRecord

if TYPE_CHECKING:
    import duckdb

NATIVE_TABLES = ("predictions", "image_evidence")
"""What becomes native tables, where it is not too large."""
_NATIVE_WORDS = ("words", "word_evidence")
_WORDS_AGAIN = "make them again with `bagindex words --again`"
_NO_LABELS = "(SELECT NULL::BIGINT AS image_id, NULL::INTEGER AS label LIMIT 0)"
_COLUMNS = {
    "classes": {"class_id": "INTEGER", "name": "VARCHAR"},
    "models": {"model": "VARCHAR", "keep": "VARCHAR"},
    "images": {
        **{"image_id": "BIGINT", "path": "VARCHAR", "label": "INTEGER", "label_name": "VARCHAR", "sha256": "VARCHAR"},
        **dict.fromkeys(("width", "height", "resized_width", "resized_height", "crop_left", "crop_top"), "INTEGER"),
    },
    "rejects": {"image_id": "BIGINT", "path": "VARCHAR", "code": "VARCHAR", "message": "VARCHAR"},
}
"""What questions look at in a catalog's tables."""
_TEMPLATES = ("tables", "native", "native_words", "macros", *VIEWS)


@dataclass(frozen=True)
class Relations:
    """Where a catalog's tables are.

    Attributes:
        manifest: the index's; `models` are those of it that can be asked.
        native: which are native tables, `TABLE/MODEL`.
        words: the folder of each model's visual words, relative to the index.
        listed: all files that the catalog stands on, relative to the index, and their bytes: what came to the index
            after it is no part of it.
        base: what paths begin with; None makes them relative to the index.
    """

    directory: IndexDirectory
    manifest: IndexManifest
    models: Sequence[ModelRecord]
    native: Set[str]
    words: Mapping[str, str]
    listed: Mapping[str, int]
    base: Path | None = None

    def relation(self, model: ModelRecord | None, table: str) -> str:
        """SQL for a table of a model (or of the images): the native one, or its Parquet files.

        Raises:
            DamagedIndexError: a file is missing or has another size.
        """
        if model is not None and f"{table}/{model.name}" in self.native:
            return f'stored."{table}/{model.name}"'
        if model is not None and table == "evidence":
            return self._evidence(model)
        if model is not None and table in WORD_VIEWS:
            return f"read_parquet({self._path(f'{self.words[model.name]}/{table}.parquet', _WORDS_AGAIN)})"
        return f"read_parquet({self.files(IMAGES if model is None else model.series_of(table), table)})"

    def files(self, series: str, table: str) -> str:
        """SQL for the list of a table's Parquet files."""
        found = [
            name for name in self.listed if name.startswith(f"{series}/shard-") and name.endswith(f"/{table}.parquet")
        ]
        return "[" + ", ".join(map(self._path, found)) + "]"

    def _evidence(self, model: ModelRecord) -> str:
        """SQL for the evidence of a model. A file that shards share may hold what does not count, which is left out."""
        whole, parts = [], []
        for name, idle in evidence_files(self.listed, model.series_of("evidence")).items():
            spans = [self.manifest.shards[shard] for shard in idle if shard < len(self.manifest.shards)]
            if not spans:
                whole.append(self._path(name))
                continue
            size = model.grid.patches
            others = (f"patch_id NOT BETWEEN {s.first * size} AND {(s.first + s.count) * size - 1}" for s in spans)
            parts.append(f"SELECT * FROM read_parquet({self._path(name)}) WHERE {' AND '.join(others)}")
        relation = f"read_parquet([{', '.join(whole)}])"
        if not parts:
            return relation
        return f"({' UNION ALL '.join([f'SELECT * FROM {relation}'] * bool(whole) + parts)})"

    def view(self, name: str) -> str | None:
        """The view's SELECT over all models that have what it shows; None when none does."""
        if name == "pixels":
            return _sql(name, pixels=self.relation(None, name)) if self.manifest.plan.pixels else None
        parts = [
            _sql(
                name,
                model=record.name,
                patches=record.grid.patches,
                cols=record.grid.cols,
                stride=record.grid.stride,
                receptive_field=record.grid.receptive_field,
                offset=record.grid.offset,
                height=self.manifest.plan.transform.crop_height,
                width=self.manifest.plan.transform.crop_width,
                **{table: self.relation(record, table) for table in {"predictions", name}},
            )
            for record in self.models
            if (record.name in self.words if name in WORD_VIEWS else name in record.keep.tables)
        ]
        return "\nUNION ALL\n".join(parts) if parts else None

    def _path(self, name: str, advice: str = REMAKE) -> str:
        if name not in self.listed:
            raise DamagedIndexError(f"the catalog has no {name}: run `bagindex repair`, which makes it again")
        check_size(self.directory.inside(name), self.listed[name], advice)
        return literal(self.directory.sql_path(self.base / name) if self.base else name)


def shards_of(listed: Iterable[str], series: str, table: str) -> list[int]:
    """The shards of a series that have a file of their own of a table, among files relative to the index."""
    pattern = re.compile(rf"{re.escape(series)}/shard-(\d+)/{re.escape(table)}\.parquet")
    return sorted(int(match[1]) for name in listed if (match := pattern.fullmatch(name)))


def evidence_files(listed: Iterable[str], series: str) -> dict[str, list[int]]:
    """The files that have a series' evidence, each with the shards of which it may hold something that does not count:
    they came later, or have a file of their own, or another, later file counts.
    """
    listed = list(listed)
    shards = shards_of(listed, IMAGES, "images")
    own = shards_of(listed, series, "evidence")
    found: dict[str, list[int]] = {f"{series}/shard-{shard:05d}/{EVIDENCE}": [] for shard in own}
    left = set(shards).difference(own)
    for folder in latest_first(name.removeprefix(f"{series}/").removesuffix(f"/{EVIDENCE}") for name in listed):
        held = merged_range(folder)
        found[f"{series}/{folder}/{EVIDENCE}"] = [shard for shard in held if shard not in left]
        left.difference_update(held)
    return found


def statements(tables: Relations, state: str) -> Iterator[str]:
    """What makes a catalog; the native tables of `tables` are made from the files."""
    manifest, models = tables.manifest, tables.models
    yield _sql(
        "tables",
        classes=", ".join(_values(record.class_id, record.wnid, record.name) for record in manifest.plan.classes),
        models=", ".join(model_values(record) for record in models),
        images=tables.files(IMAGES, "images"),
        rejects=tables.files(IMAGES, "rejects"),
        files=", ".join(_values(name, size) for name, size in tables.listed.items()),
        relabelled=f"read_parquet('{manifest.relabelling.file}')" if manifest.relabelling else _NO_LABELS,
        state=state,
    )
    for record in models:
        if f"{NATIVE_TABLES[0]}/{record.name}" in tables.native:
            lists = {table: tables.files(record.name, table) for table in NATIVE_TABLES}
            yield _sql("native", model=record.name, **lists)
        if record.name in tables.words:
            yield _sql("native_words", model=record.name, folder=tables.words[record.name])
    made = set()
    for view in VIEWS:
        body = tables.view(view)
        if body is not None:
            made.add(view)
            yield f'CREATE VIEW "{view}" AS {body}'
    yield from (statement for macro, statement in macro_statements().items() if made.issuperset(MACROS[macro]))


def macro_statements() -> Mapping[str, str]:
    """What makes each macro, those that others call before these."""
    found = {}
    for statement in _text("macros").split(";\n"):
        macro = re.search(r"^CREATE MACRO (\w+)", statement, re.MULTILINE)
        if macro:
            found[macro[1]] = statement
    return found


def calls(text: str) -> bool:
    """Whether an SQL text may call a macro."""
    return any(re.search(rf'\b{macro}"?\s*\(', text, re.IGNORECASE) for macro in MACROS)


def check_tables(connection: duckdb.DuckDBPyConnection, manifest: IndexManifest, native: Sequence[str]) -> None:
    """See whether a catalog has what `statements` makes, with classes and places that there are: questions look things
    up by them, and a view in the place of a table could read anything.

    Args:
        connection: to the catalog.
        manifest: the index's.
        native: models whose predictions are a native table.

    Raises:
        duckdb.Error, ValueError: it has not.
    """
    known = connection.execute("SELECT table_name FROM duckdb_tables() WHERE schema_name = 'main'").fetchall()
    for table, columns in _COLUMNS.items():
        found = connection.sql(f"FROM {table} LIMIT 0") if (table,) in known else None
        if found is None or not columns.items() <= dict(zip(found.columns, map(str, found.types), strict=True)).items():
            raise ValueError(f"its {table} are not those of an index")
    classes = len(manifest.plan.classes)
    wrong = f"""
        SELECT (SELECT count(*) <> {classes} OR min(class_id) <> 0 OR max(class_id) <> {classes - 1} FROM classes),
            (SELECT count(*) > 0 FROM images WHERE coalesce(label NOT BETWEEN 0 AND {classes - 1}, false)
                OR least(image_id + 1, width, height, resized_width, resized_height) < 1)"""
    for name in native:
        wrong += f"""
            , (SELECT count(*) > 0 FROM stored."predictions/{name}" WHERE predicted NOT BETWEEN 0 AND {classes - 1})"""
    if any(connection.execute(wrong).fetchall()[0]):
        raise ValueError("it has classes, images or predictions that there cannot be")


def native_names(models: Sequence[str], words: Set[str]) -> frozenset[str]:
    """Names of the native tables of models whose summaries are small, and of visual words."""
    summaries = {f"{table}/{model}" for model in models for table in NATIVE_TABLES}
    return frozenset(summaries | {f"{table}/{model}" for model in words for table in _NATIVE_WORDS})


def mentioned(text: str) -> list[str]:
    """The views that an SQL text may need, by its own words or by the macros that it calls."""
    needed = {view for view in VIEWS if re.search(rf"\b{view}\b", text, re.IGNORECASE)}
    for macro, views in MACROS.items():
        if re.search(rf'\b{macro}"?\s*\(', text, re.IGNORECASE):
            needed.update(views)
    return [view for view in VIEWS if view in needed]


def sql_digest() -> str:
    """SHA-256 of the SQL that catalogs are made with: one that another version made is made again."""
    return hashlib.sha256("".join(map(_text, _TEMPLATES)).encode()).hexdigest()


def _text(name: str) -> str:
    return (files("bagindex_schemas") / "sql" / f"{name}.sql").read_text(encoding="utf-8")


def _sql(name: str, **values: object) -> str:
    return Template(_text(name)).substitute(values)


def model_values(record: ModelRecord) -> str:
    """A model's row of `models`, as SQL has it."""
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
    return "(" + ", ".join("NULL" if value is None else literal(value) for value in values) + ")"
