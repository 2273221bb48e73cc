"""Indexes that somebody made to do harm: what is done to a sound one. Records are written without a seal, as a version
before format 2 wrote them, and files get their right sizes and hashes, so that only what they say can be found wrong.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bagindex import catalog
from bagindex.errors import BagindexError
from bagindex.shards import hash_files
from bagindex.store import IndexDirectory

Change = Callable[[Path, Path], object]
Json = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """A crafted index.

    Attributes:
        change: what is done to a sound index, given its folder and a folder outside.
        refused: questions that must be refused, where the index can be opened.
        harmless: it is as good as the sound one, and must answer as that does.
    """

    change: Change
    refused: tuple[str, ...] = ()
    harmless: bool = False


def change(name: str, root: Path, outside: Path) -> None:
    """Make a case of a sound index."""
    CASES[name].change(root, outside)


def _rewrite(path: Path, edit: Callable[[Json], object]) -> None:
    record = json.loads(path.read_text())
    record.pop("record_sha256", None)
    edit(record)
    path.write_text(json.dumps(record))


def _index(edit: Callable[[Json], object]) -> Change:
    """index.json and its copy, edited."""

    def change(root: Path, _outside: Path) -> None:
        for name in ("index.json", "index-copy.json"):
            _rewrite(root / name, edit)

    return change


def _text(edit: Callable[[str], str]) -> Change:
    """Both, as text."""

    def change(root: Path, _outside: Path) -> None:
        for name in ("index.json", "index-copy.json"):
            (root / name).write_text(edit((root / name).read_text()))

    return change


def _called(name: str) -> Case:
    def edit(record: Json) -> None:
        model = record["models"].pop("linear")
        record["models"][name] = {**model, "name": name}

    return Case(_index(edit), ("open",))


def _set(value: object, *keys: str | int) -> Callable[[Json], None]:
    def edit(record: Json) -> None:
        place: Any = record
        for key in keys[:-1]:
            place = place[key]
        place[keys[-1]] = value

    return edit


def _shards(*spans: tuple[int, int]) -> Case:
    return Case(_index(_set([{"first": first, "count": count} for first, count in spans], "plan", "shards")), ("open",))


def _million_shards(record: Json) -> None:
    record["plan"]["shards"] = [{"first": first, "count": 1} for first in range(10**6)]


def _holes(root: Path, _outside: Path) -> None:
    for name in ("index.json", "index-copy.json"):
        with (root / name).open("r+b") as file:
            file.truncate(2**30)


def _shard(edit: Callable[[Json], object], series: str = "linear") -> Change:
    return lambda root, _outside: _rewrite(root / series / "shard-00000" / "shard.json", edit)


def _listed(name: str) -> Case:
    """A shard that says that a file outside is one of its own."""

    def change(root: Path, outside: Path) -> None:
        path = name.format(outside=outside)
        entry = hash_files(outside)["secret.txt"].model_dump()
        _rewrite(root / "linear" / "shard-00000" / "shard.json", lambda record: record["files"].update({path: entry}))

    return Case(change, ("info",))


def mend(folder: Path) -> None:
    """Give the files of a shard, or of what is derived, the sizes and hashes that they have."""
    (path,) = (each for each in folder.glob("*.json"))
    files = {name: record.model_dump() for name, record in hash_files(folder, without=(path.name,)).items()}
    _rewrite(path, lambda record: record.update(files=files))


def _fit_catalog(root: Path, table: str) -> None:
    """A catalog that fits what the files are now: made anew where it has the table in itself, if it can be."""
    directory = IndexDirectory(root)
    if table in ("images", "rejects", "predictions", "image_evidence"):
        with suppress(BagindexError, duckdb.Error), directory.writing():
            catalog.drop(directory)
            catalog.update(directory)
        return
    path = catalog.current(directory)
    with duckdb.connect(path) as connection:
        for (name,) in connection.execute("SELECT path FROM stored.files").fetchall():
            size = (root / name).stat().st_size
            connection.execute("UPDATE stored.files SET bytes = ? WHERE path = ? AND bytes <> ?", [size, name, size])
    name_catalog(root, path)


def name_catalog(root: Path, path: Path) -> None:
    """CURRENT with the hash that a catalog has."""
    file = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    _rewrite(root / "CURRENT", lambda record: record.update(catalog=path.name, file=file))


def _table(series: str, name: str, edit: Callable[[pa.Table], pa.Table], **options: Any) -> Change:
    """A table of the first shard, edited; the catalog is made anew."""

    def change(root: Path, _outside: Path) -> None:
        folder = root / series / "shard-00000"
        path = folder / f"{name}.parquet"
        with pq.ParquetFile(path) as file:
            groups = file.metadata.row_group(0).num_rows
            table = file.read()
        pq.write_table(edit(table), path, **{"row_group_size": groups, **options})
        mend(folder)
        _fit_catalog(root, name)

    return change


def _column(name: str, edit: Callable[[np.ndarray], Any], type_: pa.DataType | None = None) -> Callable[..., pa.Table]:
    """A column with other values, perhaps of another type."""

    def change(table: pa.Table) -> pa.Table:
        place, had = table.column_names.index(name), table[name]
        numbers = np.array(had.to_pylist(), object) if had.null_count else had.to_numpy().copy()
        values = pa.array(edit(numbers), type_ or had.type)
        return table.set_column(place, pa.field(name, values.type, nullable=bool(values.null_count)), values)

    return change


def _first(value: object) -> Callable[[np.ndarray], np.ndarray]:
    def edit(values: np.ndarray) -> np.ndarray:
        values[0] = value
        return values

    return edit


def _footer_rows(series: str, name: str) -> Change:
    """A footer that claims 2^60 rows; by Thrift's variable-length numbers it gets longer."""
    from bagindex import thrift

    def change(root: Path, _outside: Path) -> None:
        folder = root / series / "shard-00000"
        path = folder / f"{name}.parquet"
        data = path.read_bytes()
        length = int.from_bytes(data[-8:-4], "little")
        footer = thrift.parse(data[-8 - length : -8])
        (first, *others) = footer[4].items
        groups = thrift.List(footer[4].element, (first.replaced({3: 2**60}), *others))
        crafted = thrift.emit(footer.replaced({3: 2**60, 4: groups}))
        path.write_bytes(data[: -8 - length] + crafted + len(crafted).to_bytes(4, "little") + b"PAR1")
        mend(folder)
        _fit_catalog(root, name)

    return change


def _derived(folder: str, name: str, edit: Callable[[Path], object]) -> Change:
    def change(root: Path, _outside: Path) -> None:
        edit(root / "linear" / "derived" / folder / name)
        mend(root / "linear" / "derived" / folder)
        _fit_catalog(root, name)

    return change


def _faiss(dimension: int, factory: str = "Flat", metric: int = 1, more: int = 0) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        import faiss

        count = json.loads(path.with_name("patches.json").read_text())["patches"] + more

        index = faiss.IndexIDMap2(faiss.index_factory(dimension, factory, metric))
        vectors = np.random.default_rng(0).normal(0, 1, (count, dimension)).astype(np.float32)
        index.train(vectors)
        index.add_with_ids(vectors, np.arange(count))
        faiss.write_index(index, str(path))

    return edit


def _faiss_ids(path: Path) -> None:
    """Ids of patches that there are not."""
    import faiss

    count = json.loads(path.with_name("patches.json").read_text())["patches"]
    index = faiss.IndexIDMap2(faiss.IndexFlatL2(16))
    index.add_with_ids(np.zeros((count, 16), np.float32), np.arange(count) + 2**62)
    faiss.write_index(index, str(path))


def _word_rows(name: str, edit: Callable[[pa.Table], pa.Table]) -> Change:
    def rewrite(path: Path) -> None:
        pq.write_table(edit(pq.read_table(path)), path)

    return _derived("words-1", f"{name}.parquet", rewrite)


def _typical(table: pa.Table) -> pa.Table:
    place = table.column_names.index("typical")
    values = pa.array([[2**50]] * table.num_rows, table.schema.field("typical").type)
    return table.set_column(place, table.schema.field("typical"), values)


def _in_catalog(*statements: str) -> Change:
    """A catalog in which somebody has been, with its right hash in CURRENT; {outside} is the folder outside."""

    def change(root: Path, outside: Path) -> None:
        path = catalog.current(IndexDirectory(root))
        (outside / "images.parquet").unlink(missing_ok=True)
        shutil.copyfile(root / "images" / "shard-00000" / "images.parquet", root.parent / "stolen.parquet")
        with duckdb.connect(path) as connection:
            for statement in statements:
                connection.execute(statement.format(outside=outside, beside=root.parent))
        name_catalog(root, path)

    return change


def _linked(name: str, *refused: str) -> Case:
    """A file or folder that is a link to a copy outside."""

    def change(root: Path, _outside: Path) -> None:
        path = max(root.glob(name), key=lambda each: (len(each.name), each.name))
        aside = root.parent / "linked"
        if aside.is_dir():
            shutil.rmtree(aside)
        else:
            aside.unlink(missing_ok=True)
        path.rename(aside)
        path.symlink_to(aside)

    return Case(change, refused)


def _write_to(root: Path, _outside: Path) -> None:
    """Try to write to the index, as `bagindex relabel` does."""
    with suppress(BagindexError):
        from bagindex import Index

        Index.open(root).relabel(None)


def _lock(make: Callable[[Path, Path], object]) -> Case:
    """A lock that is another name of a person's file: who writes to the index must not write to that."""

    def change(root: Path, outside: Path) -> None:
        (root / "LOCK").unlink(missing_ok=True)
        make(root / "LOCK", outside / "secret.txt")
        _write_to(root, outside)

    return Case(change, harmless=True)


def _hard_links(root: Path, _outside: Path) -> None:
    """As backups have them: each file has another name elsewhere."""
    aside = root.parent / "backup"
    shutil.rmtree(aside, ignore_errors=True)
    shutil.copytree(root, aside, copy_function=os.link)


_DEEP = 200_000
_MODEL: Sequence[str] = ("models", "linear")
_RECORD_CASES: Mapping[str, Case] = {
    **{
        f"a model called {name!r}": _called(name)
        for name in ("../evil", "/etc", "a/../../b", "a\0b", "images", "", ".")
    },
    "a model called otherwise inside": Case(_index(_set("second", *_MODEL, "name")), ("open",)),
    "shards that overlap": _shards((0, 6), (5, 7)),
    "shards with a gap": _shards((0, 6), (7, 5)),
    "a shard of 10^15 images": _shards((0, 10**15)),
    "a shard of 10^30 images": _shards((0, 10**30)),
    "a shard below zero": _shards((-6, 6), (0, 6)),
    "a shard of no images": _shards((0, 0)),
    "a million shards": Case(_index(_million_shards), ("open",)),
    "a grid of 10^9 rows": Case(_index(_set(10**9, *_MODEL, "grid", "rows")), ("open",)),
    "a grid of 4,096 rows": Case(_index(_set(4096, *_MODEL, "grid", "rows")), ("open",)),
    "patches of 4,096 pixels": Case(_index(_set(4096, *_MODEL, "grid", "receptive_field")), ("open",)),
    "an input of 10^9 pixels": Case(_index(_set(10**9, "plan", "transform", "crop_height")), ("open",)),
    "an input of 4,096 pixels": Case(_index(_set(4096, "plan", "transform", "crop_height")), ("crops",)),
    "features of 10^6 dimensions": Case(_index(_set(10**6, *_MODEL, "feature_size")), ("similar",)),
    "classes numbered twice": Case(_index(_set(0, "plan", "classes", 1, "class_id")), ("open",)),
    "a class too few": Case(_index(lambda record: record["plan"]["classes"].pop()), ("open",)),
    "a width that is no number": Case(_text(lambda text: text.replace('"width": 1.0', '"width": NaN')), ("open",)),
    "a width without end": Case(_text(lambda text: text.replace('"width": 1.0', '"width": 1e999')), ("open",)),
    "JSON nested deep": Case(_text(lambda _: '{"plan":' * _DEEP + "1" + "}" * _DEEP), ("open",)),
    "JSON of a gigabyte": Case(_holes, ("open",)),
    "JSON of a long number": Case(
        _text(lambda text: text.replace('"pixels": true', '"pixels": ' + "9" * 10**6)), ("open",)
    ),
    "a format of the future": Case(_index(_set(99, "format")), ("open",)),
    "labels elsewhere": Case(_index(_set("../outside/secret.txt", "relabelling", "file")), ("open",)),
    "a shard with a file outside": _listed("../../../outside/secret.txt"),
    "a shard with a file by its whole path": _listed("{outside}/secret.txt"),
    "a shard of another number": Case(_shard(_set(1, "shard")), ("info",)),
    "a shard of 10^18 rows": Case(_shard(_set(10**18, "rows", "image_evidence"))),
    "a file of 10^18 bytes": Case(_shard(_set(10**18, "files", "features.parquet", "bytes")), ("info", "similar")),
    "a file below zero": Case(_shard(_set(-1, "files", "features.parquet", "bytes")), ("info", "similar")),
    "features beyond the file": Case(_shard(_set([10**15] * 5, "feature_offsets")), ("similar",)),
    "features before the file": Case(_shard(_set([-8] * 5, "feature_offsets")), ("similar",)),
    "features of too many images": Case(_shard(_set([100] * 10**5, "feature_offsets")), ("similar",)),
}
_TABLE_CASES: Mapping[str, Case] = {
    "evidence in float32": Case(
        _table("linear", "evidence", _column("logit", lambda v: v, pa.float32())), ("heatmap",)
    ),
    "evidence in one row group": Case(_table("linear", "evidence", lambda t: t, row_group_size=10**6), ("heatmap",)),
    "evidence of patches beyond": Case(_table("linear", "evidence", _column("patch_id", lambda v: v + 2**40))),
    "evidence of too few rows": Case(_table("linear", "evidence", lambda t: t.slice(0, 20)), ("heatmap",)),
    "evidence with nulls": Case(
        _table("linear", "evidence", _column("logit", lambda v: [None, *v.tolist()[1:]], pa.float16())), ("heatmap",)
    ),
    "evidence that claims 2^60 rows": Case(_footer_rows("linear", "evidence"), ("heatmap",)),
    "features that claim 2^60 rows": Case(_footer_rows("linear", "features")),
    "pixels that claim 2^60 rows": Case(_footer_rows("images", "pixels")),
    "images that claim 2^60 rows": Case(_footer_rows("images", "images")),
    "summaries that claim 2^60 rows": Case(_footer_rows("linear", "image_evidence")),
    "pixels of another size": Case(
        _table("images", "pixels", _column("pixels", lambda v: [b"x"] * len(v))), ("crops",)
    ),
    "pixels that are null": Case(_table("images", "pixels", _column("pixels", lambda v: [None] * len(v))), ("crops",)),
    "pixels as text": Case(
        _table("images", "pixels", _column("pixels", lambda v: ["x"] * len(v), pa.string())), ("crops",)
    ),
    "an image twice": Case(_table("images", "images", _column("image_id", _first(1)))),
    "an image of another shard": Case(_table("images", "images", _column("image_id", _first(2**62)))),
    "an image below zero": Case(_table("images", "images", _column("image_id", _first(-1)))),
    "a label that is no class": Case(_table("images", "images", _column("label", _first(99)))),
    "an image without height": Case(_table("images", "images", _column("resized_height", lambda v: v * 0))),
    "an image without width": Case(_table("images", "images", _column("width", lambda v: v * 0))),
    "images in another shape": Case(_table("images", "images", lambda t: t.select(["image_id", "path"]))),
    "images of other types": Case(
        _table("images", "images", _column("image_id", lambda v: v.astype(str), pa.string()))
    ),
    "a prediction that is no class": Case(_table("linear", "predictions", _column("predicted", _first(99)))),
    "a prediction below zero": Case(_table("linear", "predictions", _column("predicted", _first(-5)))),
    "predictions of too few": Case(_table("linear", "predictions", lambda t: t.slice(0, 1))),
    "predictions without logits": Case(_table("linear", "predictions", lambda t: t.drop_columns(["logits"]))),
    "a strongest patch beyond": Case(_table("linear", "image_evidence", _column("patch_id", lambda v: v + 2**40))),
    "a strongest patch below zero": Case(_table("linear", "image_evidence", _column("patch_id", lambda v: v - 2**40))),
    "summaries of a class beyond": Case(_table("linear", "image_evidence", _column("class_id", lambda v: v + 50))),
    "a code of no meaning": Case(_table("images", "rejects", _column("code", lambda v: ["x\x1b[0m"] * len(v)))),
}
_DERIVED_CASES: Mapping[str, Case] = {
    "a FAISS index of another dimension": Case(_derived("patches-1", "patches.faiss", _faiss(7)), ("similar",)),
    "a FAISS index of another metric": Case(_derived("patches-1", "patches.faiss", _faiss(16, metric=0)), ("similar",)),
    "a FAISS index of too many": Case(_derived("patches-1", "patches.faiss", _faiss(16, more=400)), ("similar",)),
    "a FAISS index of other patches": Case(_derived("patches-1", "patches.faiss", _faiss_ids), ("similar",)),
    "a FAISS index that is text": Case(
        _derived("patches-1", "patches.faiss", lambda path: path.write_text("IwFl" * 1000)), ("similar",)
    ),
    "a FAISS index of zeros": Case(
        _derived("patches-1", "patches.faiss", lambda path: path.write_bytes(b"IwFl" + bytes(10**5))), ("similar",)
    ),
    "a FAISS index of great numbers": Case(
        _derived("patches-1", "patches.faiss", lambda path: path.write_bytes(b"IwFl" + b"\x7f" * 10**5)), ("similar",)
    ),
    "words beyond": Case(_word_rows("patch_words", _column("word", lambda v: v + 1000)), ("words", "accounts")),
    "words below zero": Case(_word_rows("patch_words", _column("word", lambda v: v - 1000)), ("words", "accounts")),
    "words of patches beyond": Case(_word_rows("patch_words", _column("patch_id", lambda v: v + 1)), ("words",)),
    "typical patches beyond": Case(_word_rows("words", _typical), ("words",)),
    "words too few": Case(_word_rows("words", lambda table: table.slice(0, 2)), ("words",)),
    "words of other types": Case(
        _word_rows("patch_words", _column("word", lambda v: v.astype(str), pa.string())), ("words",)
    ),
    "evidence of words too little": Case(_word_rows("word_evidence", lambda table: table.slice(0, 2)), ("words",)),
}
_CATALOG_CASES: Mapping[str, Case] = {
    "images that are a view": Case(
        _in_catalog(
            "ALTER TABLE images RENAME TO aside",
            "CREATE VIEW images AS SELECT * REPLACE (content AS path) FROM aside, read_text('{outside}/secret.txt')",
        ),
        ("open",),
    ),
    "a catalog that stands on a file outside": Case(
        _in_catalog(
            "UPDATE stored.files SET path = replace(path, 'linear/', '../stolen/../crafted/linear/')",
        ),
        ("sql evidence", "sql features"),
    ),
    "words in a folder outside": Case(
        _in_catalog("UPDATE stored.words SET folder = '../outside'"), ("sql patch_words",)
    ),
    "a macro that reads a file outside": Case(
        _in_catalog(
            "CREATE OR REPLACE MACRO evidence_of(class, model := NULL) AS TABLE FROM read_text('{outside}/secret.txt')"
        ),
        harmless=True,
    ),
    "a catalog without images": Case(_in_catalog("DROP TABLE images CASCADE"), ("open",)),
    "a catalog of other types": Case(
        _in_catalog("CREATE OR REPLACE TABLE classes AS SELECT 'x' AS class_id, 1 AS name, NULL AS wnid")
    ),
    "a catalog of models beyond": Case(_in_catalog("UPDATE models SET model = '../evil'"), ("similar", "words")),
    "a catalog of another keep level": Case(_in_catalog("UPDATE models SET keep = 'everything'"), ("open",)),
}
_LINK_CASES: Mapping[str, Case] = {
    "index.json a link": _linked("index.json", "open"),
    "CURRENT a link": _linked("CURRENT", "open"),
    "the catalog a link": _linked("catalog-*.duckdb"),
    "a folder of shards a link": _linked("images", "crops"),
    "a model's folder a link": _linked("linear", "similar", "heatmap"),
    "a shard a link": _linked("linear/shard-00000", "similar", "heatmap", "sql evidence"),
    "a record a link": _linked("linear/shard-00000/shard.json", "similar", "heatmap", "info"),
    "evidence a link": _linked("linear/shard-00000/evidence.parquet", "heatmap", "sql evidence"),
    "features a link": _linked("linear/shard-00000/features.parquet", "similar", "sql features"),
    "pixels a link": _linked("images/shard-00000/pixels.parquet", "crops", "sql pixels"),
    "weights a link": _linked("linear/model.safetensors"),
    "what is derived a link": _linked("linear/derived", "words"),
    "a FAISS index a link": _linked("linear/derived/patches-1/patches.faiss", "similar"),
    "words a link": _linked("linear/derived/words-1/patch_words.parquet", "words", "sql patch_words"),
    "labels a link": _linked("labels-*.parquet"),
    "a lock that is a link": _lock(lambda lock, file: lock.symlink_to(file)),
    "a lock that is a hard link": _lock(lambda lock, file: os.link(file, lock)),
    "hard links of all files": Case(_hard_links, harmless=True),
}
CASES: Mapping[str, Case] = {**_RECORD_CASES, **_TABLE_CASES, **_DERIVED_CASES, **_CATALOG_CASES, **_LINK_CASES}
