"""The gate for strangers' SQL: any text is a refusal or a query, and what passes only reads."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import duckdb
from hypothesis import strategies as st

from bagindex.errors import QueryError
from bagindex.sandbox import gate
from bagindex.selecting import select_tree
from faults.fuzz_target import REFUSED, TAKEN, Target
from sandbox_corpus import FORBIDDEN, ORDINARY

_LONGEST = 400
"""Characters: longer ones keep DuckDB's parser busy, which is why the gate is in a process that can be killed."""
_SOUND = [query for query in ORDINARY if len(query) < _LONGEST]
_HARMFUL = [
    query.replace("{root}", ".") for queries in FORBIDDEN.values() for query in queries if len(query) < _LONGEST
]
_TOKEN = re.compile(r"'[^']*'|\w+|\s+|.")
_TABLES = """
    CREATE TABLE classes(class_id INTEGER, wnid VARCHAR, name VARCHAR);
    CREATE TABLE images(image_id BIGINT, path VARCHAR, label INTEGER, label_name VARCHAR, width INTEGER);
    CREATE TABLE evidence(model VARCHAR, class VARCHAR, class_id INTEGER, patch_id BIGINT, logit FLOAT);
    CREATE TABLE predictions(model VARCHAR, image_id BIGINT, predicted INTEGER, probability FLOAT, correct BOOLEAN)"""


def _spliced(one: str, other: str, first: float, second: float, third: float) -> str:
    """A part of a query in the place of a part of another, cut between tokens."""
    parts, put = _TOKEN.findall(one), _TOKEN.findall(other)
    begin, end = sorted((round(first * len(parts)), round(second * len(parts))))
    return "".join([*parts[:begin], *put[round(third * len(put)) :], *parts[end:]])


_SHARE = st.floats(0, 1)
_QUERIES = st.sampled_from(_SOUND + _HARMFUL)
_SPLICED = st.one_of(
    st.builds(_spliced, st.sampled_from(_SOUND), st.sampled_from(_SOUND), _SHARE, _SHARE, _SHARE),
    st.builds(_spliced, _QUERIES, _QUERIES, _SHARE, _SHARE, _SHARE),
    st.sampled_from(_SOUND),
).map(lambda sql: sql[:_LONGEST])
_LETTERS = st.text("()'\"*;,-/$#.= abWITHSELECT01\n", max_size=60)
_INPUTS = st.one_of(st.text(st.characters(), max_size=60), _LETTERS, _SPLICED)


@contextmanager
def _queries(folder: Path) -> Iterator[Callable[[Any], str]]:
    with duckdb.connect(":memory:", config={"threads": 1, "memory_limit": "200MB"}) as connection:
        connection.execute(_TABLES)
        had = _state(connection)

        def run(sql: str) -> str:
            try:
                gate.check(sql)
            except QueryError:
                return REFUSED
            assert select_tree(connection, sql) is not None, "the gate lets pass what is no query"
            if "range" not in sql.lower():  # what may take long has a time limit elsewhere
                with suppress(duckdb.Error):
                    connection.execute(sql).fetchmany(10)
                assert _state(connection) == had, "a query has changed something"
                assert not list(folder.iterdir()), "a query has written a file"
            return TAKEN

        yield run


def _state(connection: duckdb.DuckDBPyConnection) -> list[Any]:
    sql = """
        SELECT schema_name, table_name, estimated_size FROM duckdb_tables()
        UNION ALL SELECT schema_name, view_name, 0 FROM duckdb_views() WHERE NOT internal"""
    return sorted(connection.execute(sql).fetchall())


@contextmanager
def _conditions(_folder: Path) -> Iterator[Callable[[Any], str]]:
    with duckdb.connect(":memory:") as connection:
        connection.execute(_TABLES)

        def run(condition: str) -> str:
            try:
                gate.check_condition(condition)
            except QueryError:
                return REFUSED
            # It stays within its parentheses: what stands beside it still counts.
            sql = f"SELECT count(*) FROM images WHERE ({condition}\n) AND false"
            with suppress(duckdb.Error):
                assert connection.execute(sql).fetchall() == [(0,)], "a condition undoes another one"
            return TAKEN

        yield run


_PARTS = ["width > 500", "label = 3", "path LIKE '%x'", "(", ")", "--", "/*", ";", "OR", "IN (1, 2)", "AND"]
TARGETS = {
    "queries": Target(_INPUTS, _queries, 2),
    "conditions": Target(st.one_of(_INPUTS, st.lists(st.sampled_from(_PARTS), max_size=6).map(" ".join)), _conditions),
}
