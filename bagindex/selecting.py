"""Whether an SQL statement only reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import duckdb


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
