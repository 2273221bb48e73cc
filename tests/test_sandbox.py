"""Strangers' SQL: what is refused, what is stopped, and that what is allowed gives what it always gives."""

from __future__ import annotations

import gc
import hashlib
import os
import re
import shutil
import signal
import site
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest

from bagindex import Index
from bagindex.catalog import current
from bagindex.errors import BagindexError, IncompleteIndexError, QueryError
from bagindex.sandbox import confine, gate
from bagindex.sandbox.gate import RefusedError, check, check_condition
from bagindex.sandbox.pool import Answer, BusyError, Limits, SqlPool, TimeLimitError
from bagindex.sandbox.process import Process
from bagindex.store import IndexDirectory
from sandbox_corpus import EXHAUSTING, FORBIDDEN, ORDINARY
from test_readme import QUERIES

SECONDS = 0.7
ENDLESS = ("joins", "recursion", "long texts and lists")
"""What mostly would go on for hours; it is stopped sooner."""
PATHS = re.compile(
    "|".join(re.escape(str(each)) for each in {Path.home(), *site.getsitepackages()} if str(each) != "/")
    + r"|\.parquet|catalog-\d|shard-\d|/proc/|/tmp/"
)


@pytest.fixture(scope="module")
def folder(demo_words: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sandbox") / "an index, it's"
    shutil.copytree(demo_words.path, folder)
    return folder


@pytest.fixture(scope="module")
def pool(folder: Path) -> Iterator[SqlPool]:
    yield from _watched(folder, SECONDS)


@pytest.fixture(scope="module")
def hurried(folder: Path) -> Iterator[SqlPool]:
    """For what would go on for hours."""
    yield from _watched(folder, 0.3)


def _watched(folder: Path, seconds: float) -> Iterator[SqlPool]:
    """A pool that leaves no process, and the index as it was."""
    before = _digest(folder)
    with SqlPool(folder, limits=Limits(seconds=seconds)) as pool:
        yield pool
        seen = {process.pid for process in pool.processes}
    assert not any(_lives(pid) for pid in seen)
    assert _digest(folder) == before


@pytest.fixture(scope="module")
def patient(folder: Path) -> Iterator[SqlPool]:
    """For what must be answered, on a busy machine too."""
    with SqlPool(folder, limits=Limits(seconds=60)) as pool:
        yield pool


def _digest(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def _attempt(pool: SqlPool, sql: str) -> tuple[str, Answer | BagindexError]:
    try:
        return sql, pool.run(sql)
    except BagindexError as error:
        return sql, error


def _attempt_all(
    pool: SqlPool, attempts: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> list[tuple[str, Answer | BagindexError]]:
    """All attempts, two at a time; none keeps its worker longer than it may."""
    slow: list[tuple[float, dict[str, Any]]] = []
    ask = Process.ask

    def timed(self: Process, request: dict[str, Any]) -> Answer:
        began = time.monotonic()
        try:
            return ask(self, request)
        finally:
            took = time.monotonic() - began
            if took > pool.limits.seconds + 0.5:
                slow.append((took, request))

    monkeypatch.setattr(Process, "ask", timed)
    with ThreadPoolExecutor(2) as threads:
        found = list(threads.map(lambda sql: _attempt(pool, sql), attempts))
    assert not slow
    return found


@pytest.mark.parametrize("group", FORBIDDEN)
def test_forbidden(group: str, pool: SqlPool, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    catalog = current(IndexDirectory(folder)).name
    attempts = [sql.replace("{root}", str(folder)).replace("{catalog}", catalog) for sql in FORBIDDEN[group]]
    for sql, found in _attempt_all(pool, attempts, monkeypatch):
        assert isinstance(found, QueryError), sql
        assert not isinstance(found, TimeLimitError), sql
        # Quoted back without its own paths, the text has none.
        assert str(folder) not in str(found)
        assert not PATHS.search(str(found).replace("/tmp/", "")), (sql, found)


@pytest.mark.parametrize("group", EXHAUSTING)
def test_exhausting(group: str, request: pytest.FixtureRequest, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool: SqlPool = request.getfixturevalue("hurried" if group in ENDLESS else "pool")
    attempts = [sql.replace("{root}", str(folder)) for sql in EXHAUSTING[group]]
    for sql, found in _attempt_all(pool, attempts, monkeypatch):
        if isinstance(found, Answer):
            assert found.table.num_rows <= pool.limits.rows
            assert found.table.nbytes <= 1.1 * pool.limits.bytes + 2**20
        else:
            assert isinstance(found, QueryError), sql
            assert not PATHS.search(str(found)), (sql, found)
            assert len(str(found)) < 3000


def test_there_are_many_attempts() -> None:
    assert sum(map(len, (*FORBIDDEN.values(), *EXHAUSTING.values()))) >= 250


def _rows(table: pa.Table) -> list[str]:
    """Rows in an order of their own, numbers to nine digits: threads add up, and order equal rows, as it comes."""
    return sorted(
        repr({name: float(f"{value:.9g}") if isinstance(value, float) else value for name, value in row.items()})
        for row in table.to_pylist()
    )


@pytest.mark.parametrize("sql", [*ORDINARY, *QUERIES])
def test_ordinary(sql: str, patient: SqlPool, folder: Path) -> None:
    answer = patient.run(sql)
    with Index.open(folder) as index:
        expected = index.sql(sql).table
    assert not answer.truncated
    assert answer.table.schema == expected.schema
    assert _rows(answer.table) == _rows(expected)
    plan = patient.run(sql, explain=True).table.column("plan").to_pylist()
    assert plan
    assert not PATHS.search("\n".join(plan))
    check(sql)


def test_an_error_says_what_is_allowed(patient: SqlPool) -> None:
    for sql, text in {
        "FROM nothing": "there is no table 'nothing': the tables are classes, evidence",
        "SELECT sleep_ms(1)": "'sleep_ms' is not among the functions that are allowed: those of numbers",
        "COPY (SELECT 1) TO 'x'": "one statement that reads is allowed: SELECT",
        "SELECT evidence.nothing FROM evidence": "nothing",
    }.items():
        with pytest.raises(QueryError, match=re.escape(text)):
            patient.run(sql)


def test_what_the_index_lacks_is_said(planted_index: Index) -> None:
    with SqlPool(planted_index.path, workers=1) as pool:
        for sql in ("FROM words", "FROM words_of('fish')"):
            with pytest.raises(QueryError, match="visual words were not made yet"):
                pool.run(sql)


def test_rows_and_bytes_are_capped(folder: Path) -> None:
    with SqlPool(folder, workers=1, limits=Limits(rows=10, bytes=2**19, seconds=60)) as pool:
        assert pool.run("FROM range(10)").table.num_rows == 10
        assert not pool.run("FROM range(10)").truncated
        answer = pool.run("FROM range(11)")
        assert (answer.table.num_rows, answer.truncated) == (10, True)
        assert answer.milliseconds > 0
        answer = pool.run("SELECT pixels FROM pixels ORDER BY image_id")
        assert answer.truncated
        assert 0 < answer.table.num_rows < 10
        assert answer.table.nbytes <= 2**19
        with pytest.raises(QueryError, match="the first row alone has more than 524,288 bytes"):
            pool.run("SELECT list(pixels) FROM pixels")
        with pytest.raises(QueryError, match="may have 1,000 columns, and this has 1,001"):
            pool.run(f"SELECT {', '.join(['1'] * 1001)}")


def test_time_limit_kills_and_replaces(folder: Path) -> None:
    with SqlPool(folder, workers=1, limits=Limits(seconds=0.3)) as pool:
        _patiently(pool, "SELECT 1")
        (before,) = pool.processes
        with pytest.raises(TimeLimitError, match=r"stopped after 0\.3 s: ask about fewer rows"):
            pool.run("SELECT count(*) FROM range(1000000000000)")
        assert not _lives(before.pid)
        assert _patiently(pool, "SELECT 1 AS a").table.to_pylist() == [{"a": 1}]
        assert {process.pid for process in pool.processes}.isdisjoint({before.pid})


def _patiently(pool: SqlPool, sql: str) -> Answer:
    """An answer from a pool with a short limit, on a busy machine."""
    for _ in range(20):
        try:
            return pool.run(sql)
        except TimeLimitError:
            continue
    raise AssertionError(sql)


def test_a_worker_that_is_killed_is_replaced(folder: Path) -> None:
    with SqlPool(folder, workers=1, limits=Limits(seconds=60)) as pool:
        pool.run("SELECT 1")
        (process,) = pool.processes
        killer = threading.Timer(0.5, lambda: os.kill(process.pid, signal.SIGKILL))
        killer.start()
        with pytest.raises(QueryError, match="broke the process that ran it"):
            pool.run("SELECT count(*) FROM range(1000000000000)")
        killer.join()
        assert pool.run("SELECT 1").table.num_rows == 1


def test_a_worker_that_was_killed_while_nobody_asked_is_not_asked(folder: Path) -> None:
    with SqlPool(folder, workers=1, limits=Limits(seconds=60)) as pool:
        pool.run("SELECT 1")
        (process,) = pool.processes
        os.kill(process.pid, signal.SIGKILL)
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert pool.run("SELECT 1").table.num_rows == 1


def test_a_worker_is_kept_while_the_index_cannot_be_read(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_self: SqlPool) -> None:
        raise IncompleteIndexError("it is being built")

    with SqlPool(folder, workers=1) as pool:
        pool.run("SELECT 1")
        had = pool.processes
        with monkeypatch.context() as meanwhile:
            meanwhile.setattr(SqlPool, "_fresh", gone)
            for _ in range(3):
                with pytest.raises(IncompleteIndexError):
                    pool.run("SELECT 1")
        pool.run("SELECT 1")
        assert pool.processes == had
        assert len(had) == 1


def test_memory_stays_within_its_limit(folder: Path) -> None:
    limits = Limits(seconds=60)
    with SqlPool(folder, workers=1, limits=limits) as pool:
        for sql in (
            "SELECT range(1000000000)",
            "SELECT string_agg(x, 'xxxxxxxxxxxxxxxxxxxx') FROM range(1000000000) AS t(x)",
        ):
            pool.run("SELECT 1")
            (process,) = pool.processes
            limit = Path(f"/proc/{process.pid}/limits").read_text()
            assert re.search(rf"Max address space\s+{limits.memory}\s+{limits.memory}", limit)
            assert re.search(r"Max core file size\s+0\s+0", limit)
            assert re.search(r"Max file size\s+0\s+0", limit)
            with pytest.raises(QueryError, match=r"needs more than the 1 GiB of memory|broke the process"):
                pool.run(sql)
        # This one ends where PyArrow reads the rows; DuckDB's advice about settings is for nobody here.
        with pytest.raises(QueryError, match=r"^the query needs more than the 1 GiB of memory"):
            pool.run("WITH RECURSIVE t(a) AS (SELECT [1] UNION ALL SELECT a || a FROM t) SELECT len(a) FROM t LIMIT 99")


def test_a_busy_pool_says_so(folder: Path) -> None:
    with SqlPool(folder, workers=1, queue=1, limits=Limits(seconds=2)) as pool:
        _patiently(pool, "SELECT 1")
        with ThreadPoolExecutor(4) as threads:
            found = list(threads.map(lambda _: _attempt(pool, "SELECT count(*) FROM range(1000000000000)"), range(4)))
    kinds = sorted(type(error).__name__ for _, error in found)
    assert kinds == ["BusyError", "BusyError", "TimeLimitError", "TimeLimitError"]


def test_many_threads(patient: SqlPool) -> None:
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(lambda n: patient.run(f"SELECT {n} AS n").table.to_pylist(), range(40)))
    assert found == [[{"n": n}] for n in range(40)]


def test_a_closed_pool(folder: Path) -> None:
    pool = SqlPool(folder, limits=Limits(seconds=60))
    pool.run("SELECT 1")
    threads = ThreadPoolExecutor(1)
    future = threads.submit(pool.run, "SELECT count(*) FROM range(1000000000000)")
    time.sleep(0.3)
    pids = [process.pid for process in pool.processes]
    pool.close()
    with pytest.raises(BusyError, match="closed"):
        future.result(10)
    threads.shutdown()
    with pytest.raises(BusyError, match="closed"):
        pool.run("SELECT 1")
    assert not any(map(_lives, pids))
    pool.close()


def test_a_pool_that_is_forgotten_leaves_no_process(folder: Path) -> None:
    pool = SqlPool(folder, workers=1)
    pool.run("SELECT 1")
    (process,) = pool.processes
    while pool._starters:
        time.sleep(0.01)
    pid = process.pid
    del pool, process
    gc.collect()
    assert not _lives(pid)


def test_a_worker_ends_with_its_pool_process(folder: Path) -> None:
    """Its stdin ends, as when the process of the pool is killed."""
    with SqlPool(folder, workers=1) as pool:
        pool.run("SELECT 1")
        (process,) = pool.processes
        assert process._child._popen.stdin is not None
        process._child._popen.stdin.close()
        assert process._child._popen.wait(10) == 0


def test_a_busy_worker_ends_without_its_pool(folder: Path) -> None:
    limits = Limits(seconds=0.5)
    with SqlPool(folder, workers=1, limits=limits) as pool:
        _patiently(pool, "SELECT 1")
        (process,) = pool.processes
        from bagindex.processes import frames

        frames.send_json(process._child.to, sql="SELECT count(*) FROM range(1000000000000)", explain=False)
        assert process._child._popen.wait(10) == -signal.SIGALRM


def test_a_new_catalog_is_taken_up(planted_index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    shutil.copytree(planted_index.path, folder)
    with SqlPool(folder, limits=Limits(seconds=60)) as pool, ThreadPoolExecutor(2) as threads:
        assert pool.run("SELECT count(*) FROM evidence").table.num_rows == 1
        over = threading.Event()

        def ask() -> int:
            asked = 0
            while not over.is_set():
                pool.run("SELECT count(*) FROM evidence WHERE class_id = 1")
                asked += 1
            return asked

        asking = [threads.submit(ask) for _ in range(2)]
        try:
            with Index.open(folder) as index:
                index.make_words(8)
                assert pool.run("SELECT count(*) AS n FROM words").table.to_pylist() == [{"n": 8}]
                index.make_words(16)
                assert pool.run("SELECT count(*) AS n FROM words").table.to_pylist() == [{"n": 16}]
        finally:
            over.set()
        assert all(future.result() > 0 for future in asking)
        (folder / "CURRENT").unlink()
        with pytest.raises(IncompleteIndexError):
            pool.run("SELECT 1")


@pytest.mark.skipif(not hasattr(os, "O_PATH"), reason="Linux")
def test_the_system_keeps_a_worker_from_other_files(patient: SqlPool) -> None:
    patient.run("SELECT 1")
    process = patient.processes[0]
    status = Path(f"/proc/{process.pid}/status").read_text()
    assert Path(f"/proc/{process.pid}/environ").read_bytes().count(b"\0") <= 6
    if process.landlock:
        assert re.search(r"NoNewPrivs:\s+1", status)


def _forked(work: Callable[[], bool]) -> bool:
    """Whether something holds in a process of its own."""
    pid = os.fork()
    if not pid:
        os._exit(0 if work() else 1)
    return os.waitpid(pid, 0)[1] == 0


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_landlock(tmp_path: Path) -> None:
    inside, outside = tmp_path / "index", tmp_path / "other"
    for each in (inside, outside):
        each.mkdir()
        (each / "file").write_text("x")

    def confined() -> bool:
        if not confine.read_only_within(inside):
            return True
        refused = 0
        for work in (
            lambda: (outside / "file").read_text(),
            lambda: (inside / "new").write_text("x"),
            lambda: (inside / "file").write_text("y"),
            lambda: (inside / "file").unlink(),
            lambda: (inside / "file").rename(inside / "moved"),
            lambda: os.truncate(inside / "file", 0),
            lambda: os.listdir("/etc"),
        ):
            try:
                work()
            except OSError:
                refused += 1
        return refused == 7 and (inside / "file").read_text() == "x"

    assert _forked(confined)


def test_conditions(patient: SqlPool, folder: Path) -> None:
    for condition in (
        "width > 0",
        "label_name = 'fish' OR probability > 0.5 -- x",
        "path LIKE '%7.jpg'",
        "NOT label = 1",
    ):
        check_condition(condition)
        found = patient.images_where(condition, "bagnet33")
        with Index.open(folder) as index:
            rows = index.browse_images(where=condition, limit=1000).rows
            assert index.browse_images(where=found, limit=1000).rows == rows
        assert rows
    assert not patient.images_where("false", "bagnet33").bits
    assert not patient.images_where("true", "no such model").bits
    for condition in (
        "",
        "width > 0) OR (SELECT true",
        "width > 0, 1",
        "(SELECT true)",
        "EXISTS (FROM images)",
        "image_id IN (FROM read_text('/etc/passwd'))",
        "version() = ''",
        "current_setting('threads') = '1'",
        "nothing = 1",
        "images.width > 0",
        "current_user = 'x'",
        "row_number() OVER () = 1",
        "sum(width) > 1",
        "unnest([true])",
        "*",
        "COLUMNS(*)",
        "#1",
        "$1",
        "true WHERE true",
        "true FROM images",
        "true ORDER BY 1",
        "true; SELECT 1",
        "list_filter([1], lambda x: x > 0) = [1]",
        "repeat('x', 1000000000) = ''",
        "'abc'",
        "width > 0 /*",
        "\0",
        "(" * 3000,
    ):
        with pytest.raises(QueryError) as raised:
            patient.images_where(condition, "bagnet33")
        assert not PATHS.search(str(raised.value))
        assert "FROM predictions" not in str(raised.value)


def test_index_sql(folder: Path) -> None:
    with Index.open(folder) as index:
        assert index.sql("FROM classes", safe=True).to_dicts() == index.sql("FROM classes").to_dicts()
        assert index.sql("FROM range(10001)", safe=True).truncated
        assert not index.sql("FROM range(10001)").truncated
        with pytest.raises(RefusedError, match="getenv"):
            index.sql("SELECT getenv('HOME')", safe=True)
        assert "READ_PARQUET" in str(index.sql("SELECT max(logit) FROM evidence", safe=True, explain=True))
        assert len(index.sql("SELECT max(logit) FROM evidence", explain=True)) > 0
        (process,) = index._sandbox.processes
    assert not _lives(process.pid)


def test_command(run: Any, folder: Path) -> None:
    found = run("sql", "--safe", "SELECT name FROM classes ORDER BY 1", "-i", folder, "--format", "csv")
    assert found.out.splitlines()[:2] == ["name", "chain"]
    assert "more rows than a safe query gives" in run("sql", "--safe", "FROM range(10001)", "-i", folder).err
    assert "PROJECTION" in run("sql", "--safe", "--explain", "SELECT path || 'x' FROM images", "-i", folder).out
    refused = run("sql", "--safe", "FROM read_text('/etc/passwd')", "-i", folder)
    assert (refused.status, "there is no table 'read_text()'" in refused.err) == (1, True)


def test_the_list_of_functions_is_duckdb_s() -> None:
    """What is allowed exists, does nothing but compute, and is a macro only over what is allowed."""
    kinds = {
        "scalar": {"scalar", "macro"},
        "aggregate": {"aggregate", "macro"},
        "window": {"window"},
        "table": {"table"},
    }
    kinds["operators"] = {"scalar"}
    connection = duckdb.connect()
    sql = "SELECT lower(function_name), function_type, macro_definition, schema_name FROM duckdb_functions()"
    found = connection.execute(sql).fetchall()
    listed = gate.functions()
    # Syntax that has a function's name, which DuckDB does not list.
    syntax = {"<>", "->", "==", "unnest"}
    for section, names in listed.items():
        if section != "types":
            known = {name for name, kind, _, _ in found if kind in kinds[section]}
            assert names <= known | syntax, section
    calls = frozenset().union(*(names for section, names in listed.items() if section not in ("table", "types")))
    for name, kind, body, schema in found:
        if name in calls | listed["table"]:
            assert schema == "main", name
            if kind == "macro":
                check(f"SELECT {body}")
    forbidden = re.compile(
        r"^(read_|write_|pg_|duckdb_|pragma_|current_(?!date)|.*(setting|getenv|sleep|seq|variable|secret|serialize|"
        r"setseed|query|version|levenshtein|jaro|repeat|lpad|rpad|printf|resize|file_metadata|scan|glob|csv))"
    )
    assert not [name for name in calls | listed["table"] if forbidden.match(name)]
    types = {row[0].lower() for row in connection.execute("SELECT type_name FROM duckdb_types()").fetchall()}
    assert listed["types"] <= types | {"char", "varchar", "logical", "nvarchar", "timestamp_with_time_zone"}
