"""The catalog: views, moved indexes, and queries that may not write."""

from __future__ import annotations

import os
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import duckdb
import pytest

from bagindex import Index, catalog, catalog_file
from bagindex.build import BuildSettings, build
from bagindex.catalog import current
from bagindex.errors import DamagedIndexError, QueryError, SettingsError
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Keep
from fakes import LinearCompute, MemorySource

CLASSES = ('it\'s "quoted", $and', "日本語 class\nwith a line", "")
CLASS_IDS = {"a": 0, "b": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = MemorySource(["a", "b", None, "a", "b"], frozenset({4}))
    path = tmp_path / "index"
    build(IndexDirectory(path), source, CLASS_IDS, LinearCompute(CLASSES), BuildSettings(shard_size=2, workers=1))
    return path


def test_views_have_the_columns_of_the_design(folder: Path) -> None:
    with Index.open(folder) as index:
        for view, columns in {
            "evidence": "model class class_id patch_id image_id row col x0 y0 x1 y1 label label_name correct predicted "
            "logit",
            "image_evidence": "model class class_id image_id patch_id row col x0 y0 x1 y1 label label_name correct "
            "predicted max_logit mean_logit",
            "predictions": "model image_id path label label_name correct predicted predicted_name probability top5 "
            "logits",
            "features": "model patch_id image_id row col x0 y0 x1 y1 label label_name predicted feature",
            "classes": "class_id wnid name",
            "rejects": "image_id path path_bytes bytes code message",
            "pixels": "image_id pixels",
        }.items():
            assert index.sql(f"FROM {view} LIMIT 0").columns == columns.split()


def test_views_agree_with_each_other(folder: Path) -> None:
    with Index.open(folder) as index:
        rows = index.sql(
            """
            SELECT count(*) AS n FROM image_evidence AS i JOIN (
                SELECT model, class_id, image_id, max(logit) AS logit, arg_max(patch_id, (logit, -patch_id)) AS patch_id
                FROM evidence GROUP BY ALL
            ) AS e ON e.class_id = i.class_id AND e.image_id = i.image_id
            WHERE e.logit = i.max_logit AND e.patch_id = i.patch_id"""
        )
        assert rows.to_dicts() == [{"n": 12}]
        correct = index.sql("SELECT class_id, label, correct FROM evidence GROUP BY ALL")
        assert all(
            row["correct"] == (None if row["label"] is None else row["label"] == row["class_id"]) for row in correct
        )


@pytest.mark.parametrize("name", ["moved", "with space", "it's", "a,b", "st*r", "[x]", 'd"q', "größe 中", "{a,b}"])
def test_moved_index(folder: Path, name: str) -> None:
    with Index.open(folder) as index:
        before = index.top_patches(0, any_class=True).to_dicts()
        logits = index.sql("SELECT sum(logit) AS s FROM evidence").to_dicts()
    target = folder.parent / "elsewhere" / name
    target.parent.mkdir()
    shutil.move(folder, target)
    with Index.open(target) as index:
        assert index.top_patches(0, any_class=True).to_dicts() == before
        assert index.sql("SELECT sum(logit) AS s FROM evidence").to_dicts() == logits
        assert len(index.top_patches(0, any_class=True).crops()) == len(before)
        assert index.verify().ok


@pytest.mark.parametrize("name", ["plain", "a,b", "it's"])
def test_built_in_an_odd_folder_and_read_with_plain_duckdb(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / name
    source = MemorySource(["a", "b", None])
    build(IndexDirectory(folder), source, CLASS_IDS, LinearCompute(CLASSES), BuildSettings(workers=1))
    monkeypatch.chdir(folder)
    with duckdb.connect(current(IndexDirectory(folder)), read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM evidence").fetchall() == [(36,)]
        assert connection.execute("SELECT count(*) FROM features").fetchall() == [(12,)]


@pytest.mark.parametrize(
    "query",
    [
        "COPY (SELECT 1) TO 'out.csv'",
        "WITH x AS (COPY (SELECT 1) TO 'out.csv') FROM x",
        "SELECT * FROM (WITH x AS (COPY (SELECT 1) TO 'out.csv') FROM x)",
        "EXPLAIN ANALYZE COPY (SELECT 1) TO 'out.csv'",
        "CREATE TABLE t AS SELECT 1",
        "CREATE TEMP TABLE t AS SELECT 1",
        "DELETE FROM images",
        "DROP VIEW evidence",
        "SELECT 1; SELECT 2",
        "ATTACH 'out.duckdb'",
        "SET threads = 1",
        "PRAGMA database_size",
        "INSTALL httpfs",
        "",
        "  ; ",
        "not sql at all",
        "SELECT * FROM nothing",
        "SELECT 1 +",
    ],
)
def test_only_reading_is_allowed(folder: Path, query: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    before = sorted(os.listdir(folder))
    with Index.open(folder) as index:
        with pytest.raises(QueryError):
            index.sql(query)
        assert index.sql("SELECT 1 AS one").to_dicts() == [{"one": 1}]
    assert sorted(os.listdir(folder)) == before


@pytest.mark.parametrize(
    "query",
    [
        "-- a remark\nSELECT 1",
        "FROM images",
        "VALUES (1), (2)",
        "DESCRIBE evidence",
        "SUMMARIZE images",
        "SHOW TABLES",
        "EXPLAIN SELECT * FROM evidence",
        "WITH RECURSIVE t(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM t WHERE n < 3) FROM t",
        "PIVOT (SELECT class_id, logit FROM evidence) ON class_id IN (0, 1) USING max(logit)",
        "SELECT * FROM images, LATERAL (SELECT 1) WHERE false;",
    ],
)
def test_whatever_reads_is_run(folder: Path, query: str) -> None:
    with Index.open(folder) as index:
        assert index.sql(query).columns


def test_python_variables_are_no_tables(folder: Path) -> None:
    with Index.open(folder) as index:
        manifest = index.sql("SELECT 1").to_arrow()
        assert manifest.num_rows == 1
        with pytest.raises(QueryError, match="manifest"):
            index.sql("SELECT * FROM manifest")


@pytest.fixture
def _heeds_ctrl_c() -> Iterator[None]:
    """As in a shell's foreground: a process that a script starts in the background ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeds_ctrl_c")
def test_ctrl_c_stops_a_query(folder: Path) -> None:
    query = "SELECT count(*) FROM range(1000000) AS a, range(1000000) AS b, evidence WHERE a.range + b.range > logit"
    with Index.open(folder) as index:
        killer = threading.Timer(0.5, lambda: os.kill(os.getpid(), signal.SIGINT))
        killer.start()
        with pytest.raises(KeyboardInterrupt):
            index.sql(query)
        killer.join()
        assert index.sql("SELECT 1 AS one").to_dicts() == [{"one": 1}]


def test_what_a_query_spills_does_not_lie_in_the_index(folder: Path) -> None:
    before = sorted(path.name for path in folder.iterdir())
    with Index.open(folder) as index:
        setting = index.sql("SELECT current_setting('temp_directory') AS t").to_dicts()[0]["t"]
        assert not Path(setting).is_relative_to(folder)
    assert sorted(path.name for path in folder.iterdir()) == before


def test_names_that_come_twice(folder: Path) -> None:
    with Index.open(folder) as index:
        assert index.sql("SELECT 1 AS a, 2 AS a, 3 AS a").to_dicts() == [{"a": 1, "a_2": 2, "a_3": 3}]


def test_readers_keep_their_catalog_while_a_model_is_added(folder: Path) -> None:
    source = MemorySource(["a", "b", None, "a", "b"], frozenset({4}))
    with Index.open(folder) as reader:
        before = reader.top_patches(0, any_class=True)
        first = int(current(IndexDirectory(folder)).stem.removeprefix("catalog-"))
        for number in range(3):
            compute = LinearCompute(CLASSES, name=f"other{number}", dimensions=number + 1)
            build(IndexDirectory(folder), source, CLASS_IDS, compute, BuildSettings(shard_size=2, workers=1))
            assert reader.top_patches(0, any_class=True, model="linear").patches == before.patches
    assert current(IndexDirectory(folder)).name == f"catalog-{first + 3}.duckdb"
    assert {path.name for path in folder.glob("catalog-*")} == {f"catalog-{first + n}.duckdb" for n in (2, 3)}


def test_large_index_answers_from_parquet(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index.open(folder) as index:
        native = index.top_patches(0, any_class=True).patches
    (folder / "CURRENT").unlink()
    monkeypatch.setattr(catalog, "NATIVE_ROWS", 1)
    source = MemorySource(["a", "b", None, "a", "b"], frozenset({4}))
    build(IndexDirectory(folder), source, CLASS_IDS, LinearCompute(CLASSES), BuildSettings(shard_size=2, workers=1))
    with Index.open(folder) as index:
        assert index.top_patches(0, any_class=True).patches == native
        assert index.verify().ok


def test_damaged_catalog_says_how_to_mend_it(folder: Path) -> None:
    name = current(IndexDirectory(folder)).name
    (folder / name).write_bytes(b"no database")
    with Index.open(folder) as index, pytest.raises(DamagedIndexError, match="run `bagindex repair`"):
        index.top_patches(0)
    (folder / "CURRENT").unlink()
    source = MemorySource(["a", "b", None, "a", "b"], frozenset({4}))
    build(IndexDirectory(folder), source, CLASS_IDS, LinearCompute(CLASSES), BuildSettings(shard_size=2, workers=1))
    with Index.open(folder) as index:
        assert index.verify().ok


def test_view_that_is_not_kept(tmp_path: Path) -> None:
    source = MemorySource(["a", "b"])
    settings = BuildSettings(keep=Keep.EVIDENCE, pixels=False, workers=1)
    build(IndexDirectory(tmp_path / "i"), source, CLASS_IDS, LinearCompute(CLASSES), settings)
    with Index.open(tmp_path / "i") as index:
        for view in ("features", "pixels"):
            with pytest.raises(QueryError, match=rf"does not keep {view} .*--(pixels --restart|keep features)"):
                index.sql(f"SELECT * FROM {view}")
        with pytest.raises(QueryError, match="keeps no pixels"):
            index.top_patches(0).crops()


def test_folder_that_duckdb_cannot_open(folder: Path, tmp_path: Path) -> None:
    source = MemorySource(["a"])
    with pytest.raises(SettingsError, match="backslash"):
        build(IndexDirectory(tmp_path / "a\\b"), source, CLASS_IDS, LinearCompute(CLASSES), BuildSettings(workers=1))
    assert not (tmp_path / "a\\b").exists()
    moved = folder.rename(tmp_path / "c\\d")
    with Index.open(moved) as index, pytest.raises(SettingsError, match="backslash"):
        index.top_patches(0)


def test_a_catalog_that_needs_more_memory_gets_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = Index.open(folder).sql("FROM image_evidence ORDER BY ALL").to_dicts()
    (folder / "CURRENT").unlink()
    monkeypatch.setattr(catalog_file, "_MEMORY", "100kB")
    with IndexDirectory(folder).writing():
        catalog.update(IndexDirectory(folder))
    assert Index.open(folder).sql("FROM image_evidence ORDER BY ALL").to_dicts() == expected
    assert not list(folder.glob("*.tmp-*"))
