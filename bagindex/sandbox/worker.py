"""The process that reads and runs strangers' queries: it can only read, and may be killed at any moment.

Started with a fresh interpreter by `process`. It hears JSON on stdin: first what the index is, then queries. It answers
on stdout, and ends when stdin does.
"""

from __future__ import annotations

import json
import re
from bisect import bisect_right
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagindex.errors import QueryError
from bagindex.processes import frames, inside
from bagindex.sandbox import confine, gate
from bagindex.sql_names import literal, unique
from bagindex.text import first_line

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

_LARGEST_REQUEST = 1 << 28
_BATCH = 2048
_LONGEST_ERROR = 2_000
_MOST_COLUMNS = 1_000
_SHOW_TABLES = re.compile(r"\s*SHOW\s+TABLES[\s;]*", re.IGNORECASE)
_SPENT = re.compile(r"bad_alloc|allocat|INTERNAL Error|FATAL Error|invalidated", re.IGNORECASE)
_CATALOG = re.compile(r'"?catalog-\d+"?\.(main\.)?')
_CATALOG_NAME = re.compile(r"\bcatalog-\d+\b")  # as a value: what SHOW TABLES looks through
_TRACE = re.compile(r"\n*Stack Trace:.*", re.DOTALL)
# A path from the root, of two parts at least; a single one may be a division.
_FILE = re.compile(r"(?<![\w)\]:/])/[\w.~+-]+(?:/[\w.~+-]+)+|[\w./-]*\.(?:parquet|duckdb)\b")
_SHOWN_OF_PLAN = (
    "Table",
    "Projections",
    "Filters",
    "Conditions",
    "Expressions",
    "Groups",
    "Aggregates",
    "Order By",
    "Top",
)


def main() -> None:
    """Answer until stdin ends."""
    answers = inside.own_answers()
    # PyArrow starts a thread when it is imported, which later rules do not reach.
    confine.read_only()
    # What is not read now cannot be read later.
    import duckdb  # noqa: F401
    import pyarrow  # noqa: F401

    gate.functions()
    told = frames.receive_json(0, _LARGEST_REQUEST)
    inside.limit(told["memory"])
    landlock = confine.read_only_within(Path(told["root"]))
    worker = Worker(told)
    frames.send_json(answers, ready=True, landlock=landlock)
    while True:
        try:
            request = frames.receive_json(0, _LARGEST_REQUEST)
        except EOFError:
            return
        inside.give_up_after(told["seconds"] + 0.4)
        content, answer = worker.answer(request)
        inside.give_up_after(0)
        frames.send_json(answers, **answer)
        if content is not None:
            frames.send(answers, frames.Kind.ARROW, content)


class Worker:
    """A locked connection to an index.

    Args:
        told: `root`, `catalog`, `views`, `tables`, `macros` and `remedies` of a `State`; `seconds`, `rows`, `bytes`,
            `sql` and `memory` of `Limits`; and `threads`.
    """

    def __init__(self, told: dict[str, Any]) -> None:
        self._told = told
        self._names = gate.Names(frozenset(told["tables"]), frozenset(told["macros"]), told["remedies"])
        self._connection = connect(told)

    def answer(self, request: dict[str, Any]) -> tuple[bytes | None, dict[str, Any]]:
        """An Arrow stream and what is said with it; or no stream, and a plan or an error.

        Args:
            request: `sql` and `explain`, or `condition` and `model`.
        """
        import duckdb

        try:
            if "condition" in request:
                return _stream(self._images_where(**request)), {"truncated": False}
            gate.check(request["sql"], self._names, self._connection, self._told["sql"])
            if request["explain"]:
                return None, {"plan": self._plan(request["sql"])}
            table, truncated = self._rows(request["sql"])
            return _stream(unique(table)), {"truncated": truncated}
        except gate.RefusedError as error:
            return None, {"refused": self._clean(str(error))}
        except Exception as error:
            text = str(error)
            # PyArrow has DuckDB's errors as its own, while it reads the rows.
            if "Out of Memory" in text or isinstance(error, MemoryError | RecursionError):
                return None, {"error": self._too_large(), "spent": True}
            if isinstance(error, QueryError | duckdb.Error):
                return None, {"error": self._clean(text), "spent": bool(_SPENT.search(text))}
            return None, {"error": f"the query cannot be answered: {self._clean(text)}", "spent": True}

    def _rows(self, sql: str) -> tuple[pa.Table, bool]:
        import pyarrow as pa

        if _SHOW_TABLES.fullmatch(sql):
            sql = "SELECT DISTINCT name FROM (SHOW TABLES) ORDER BY name"  # our views cover the catalog's
        reader = self._connection.sql(sql).to_arrow_reader(_BATCH)
        if len(reader.schema) > _MOST_COLUMNS:
            raise QueryError(f"an answer may have {_MOST_COLUMNS:,} columns, and this has {len(reader.schema):,}")
        batches: list[pa.RecordBatch] = []
        rows, room = self._told["rows"], self._told["bytes"]
        truncated = False
        for batch in reader:
            whole = batch.num_rows
            batch = _fitting(batch.slice(0, rows), room)
            rows -= batch.num_rows
            room -= batch.nbytes
            batches.append(batch)
            truncated = batch.num_rows < whole
            if truncated:
                break
        table = pa.Table.from_batches(batches, reader.schema)
        if truncated and not table.num_rows:
            raise QueryError(f"the first row alone has more than {self._told['bytes']:,} bytes: ask for less of it")
        if truncated:
            # What is left of the query ends here, within its time, and not in the next one's.
            reader.close()
            self._connection.interrupt()
            self._connection.execute("SELECT 1").fetchall()
        return table, truncated

    def _plan(self, sql: str) -> list[str]:
        import duckdb

        text = f"EXPLAIN (FORMAT json) {sql}"
        statements = self._connection.extract_statements(text)
        if len(statements) != 1 or statements[0].type != duckdb.StatementType.EXPLAIN:
            raise gate.RefusedError("this cannot be explained: give a SELECT")
        found = self._connection.execute(text).fetchall()
        return [self._clean(line) for _, value in found for node in json.loads(value) for line in _plan_lines(node)]

    def _images_where(self, condition: str, model: str) -> pa.Table:
        import duckdb

        gate.check_condition(condition, connection=self._connection)
        images = "SELECT images.* FROM images"
        if "predictions" in self._names.tables:
            images = (
                "SELECT images.*, predicted, predicted_name, probability FROM images "
                "JOIN (SELECT image_id, predicted, predicted_name, probability FROM predictions "
                f"WHERE model = {literal(model)}) USING (image_id)"
            )
        sql = f"SELECT image_id::INTEGER AS image_id FROM ({images}) WHERE ({condition}\n)"
        try:
            return self._connection.sql(sql).to_arrow_table()
        except duckdb.Error as error:
            if "Out of Memory" in str(error):
                raise
            raise QueryError(first_line(error)) from None  # what follows shows our SQL

    def _too_large(self) -> str:
        memory = self._told["memory"] / 2**31
        return f"the query needs more than the {memory:.2g} GiB of memory that it may take: ask about fewer rows"

    def _clean(self, text: str) -> str:
        """An error's text without paths."""
        text = _CATALOG_NAME.sub("index", _CATALOG.sub("", _TRACE.sub("", text)))
        text = text.replace(self._told["root"], "/index")
        text = "\n".join(line for line in _FILE.sub("(a file)", text).splitlines() if line.strip())
        return text if len(text) <= _LONGEST_ERROR else f"{text[:_LONGEST_ERROR]}…"


def connect(told: dict[str, Any]) -> duckdb.DuckDBPyConnection:
    """A connection that reads one index and cannot be changed."""
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "threads": told["threads"],
        "memory_limit": f"{told['memory'] // 2}B",
        "temp_directory": "",
        "max_temp_directory_size": "0B",
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        "allow_community_extensions": False,
        "allow_unsigned_extensions": False,
        "python_enable_replacements": False,
    }
    connection = duckdb.connect(told["catalog"], read_only=True, config=config)
    for name, body in told["views"].items():
        connection.execute(f'CREATE TEMP VIEW "{name}" AS {body}')
    connection.execute(f"SET allowed_directories = [{literal(told['root'])}]")
    connection.execute("SET enable_external_access = false")
    connection.execute("SET lock_configuration = true")
    return connection


def _fitting(batch: pa.RecordBatch, room: int) -> pa.RecordBatch:
    """The first rows of a batch, of at most so many bytes."""
    if batch.nbytes <= room:
        return batch
    return batch.slice(0, bisect_right(range(batch.num_rows), room, key=lambda row: batch.slice(0, row + 1).nbytes))


def _stream(table: pa.Table) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    # Each batch may have a dictionary of its own.
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.unify_dictionaries())
    content: bytes = sink.getvalue().to_pybytes()
    return content


def _plan_lines(node: dict[str, Any], depth: int = 0) -> list[str]:
    """A plan as indented lines; of what an operator does, what names no file."""
    extra = node.get("extra_info") or {}
    said = [f"{key}: {_one_line(extra[key])}" for key in _SHOWN_OF_PLAN if extra.get(key)]
    if "Estimated Cardinality" in extra:
        said.append(f"~{extra['Estimated Cardinality']} rows")
    lines = ["  " * depth + "; ".join([str(node["name"]).strip(), *said])]
    for child in node.get("children", []):
        lines += _plan_lines(child, depth + 1)
    return lines


def _one_line(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else " ".join(str(value).split())
