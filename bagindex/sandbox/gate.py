"""What a stranger's query may be made of.

DuckDB's own parser says what a query is; every part of its tree must be one of those listed here. A part that is not
known is refused, so that what a new DuckDB adds is refused until somebody has looked at it.

The parser itself is no safe place: 19,900 opening brackets keep it busy for over a minute, and nothing stops it. So
these functions belong into a process that can be killed, as `SqlPool` has them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any, NoReturn

from bagindex.errors import QueryError
from bagindex.sql_names import MACROS, VIEWS

if TYPE_CHECKING:
    import duckdb

TABLES = ("classes", "models", "images", "rejects", *VIEWS)
"""What an index has at most."""
CONDITION_COLUMNS = (
    *("image_id", "path", "path_bytes", "label", "label_name", "width", "height", "bytes", "sha256", "resized_width"),
    *("resized_height", "crop_left", "crop_top", "original_label", "predicted", "predicted_name", "probability"),
)
"""What a condition on images may speak of."""
LONGEST = 20_000
"""Characters of a query."""
LONGEST_CONDITION = 2_000

_QUERIES = frozenset({"SELECT_NODE", "SET_OPERATION_NODE", "CTE_NODE", "RECURSIVE_CTE_NODE"})
_SOURCES = frozenset(
    {"BASE_TABLE", "EMPTY", "EXPRESSION_LIST", "JOIN", "PIVOT", "SHOW_REF", "SUBQUERY", "TABLE_FUNCTION"}
)
_MODIFIERS = frozenset(
    {"ORDER_MODIFIER", "LIMIT_MODIFIER", "LIMIT_PERCENT_MODIFIER", "DISTINCT_MODIFIER"}
    | {"ORDER_DEFAULT", "ASCENDING", "DESCENDING"}
)
_EXPRESSIONS = frozenset(
    {"BETWEEN", "CASE", "CAST", "COLLATE", "COLUMN_REF", "COMPARISON", "CONJUNCTION", "CONSTANT", "FUNCTION", "LAMBDA"}
    | {"OPERATOR", "POSITIONAL_REFERENCE", "STAR", "SUBQUERY", "TYPE", "WINDOW"}
)
_NOT_IN_CONDITIONS = {
    "SUBQUERY": "a subquery",
    "WINDOW": "a window function",
    "STAR": "*",
    "LAMBDA": "a lambda",
    "POSITIONAL_REFERENCE": "#",
}
# DuckDB takes a column that is not there for one of these.
_HIDDEN_CALLS = frozenset(
    {"current_catalog", "current_database", "current_query", "current_role", "current_schema", "current_user"}
    | {"session_user", "user"}
)
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*", re.IGNORECASE)
# Outside its query, the name of a common table expression would mean one of DuckDB's own views.
_SYSTEM = re.compile(r"(duckdb|pg|pragma|sqlite|information)_", re.IGNORECASE)


class RefusedError(QueryError):
    """A query or condition has a part that a stranger's may not have; the text says what it may have."""


@dataclass(frozen=True)
class Names:
    """What an index calls its tables and functions.

    Attributes:
        tables: names of its tables and views, in small letters.
        macros: names of its functions.
        remedies: for a table or function that bagindex knows and the index lacks, what makes it.
    """

    tables: Collection[str] = TABLES
    macros: Collection[str] = tuple(MACROS)
    remedies: Mapping[str, str] = field(default_factory=dict)


@cache
def functions() -> Mapping[str, frozenset[str]]:
    """The functions that may be called, and the types, in small letters, by the sections of `functions.txt`."""
    found: dict[str, set[str]] = {}
    names: set[str] = set()
    for line in (files("bagindex.sandbox") / "functions.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("["):
            names = found.setdefault(line.strip("[]"), set())
        elif not line.startswith("#"):
            names.update(line.lower().split())
    return {section: frozenset(names) for section, names in found.items()}


@cache
def _calls() -> frozenset[str]:
    return frozenset().union(*(names for section, names in functions().items() if section not in ("table", "types")))


def check(
    sql: str, names: Names | None = None, connection: duckdb.DuckDBPyConnection | None = None, longest: int = LONGEST
) -> None:
    """Let a query pass that only reads the index's tables, with functions that are known to be harmless.

    Args:
        sql: one SELECT (or FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW TABLES, PIVOT ... IN).
        names: of the index's tables; by default all that an index may have.
        connection: whose parser is asked; by default one of its own.
        longest: how many characters the text may have.

    Raises:
        RefusedError: it is something else, or has a part that is not allowed.
        QueryError: it is no SQL.
    """
    _Walk(names or Names()).walk(_tree(sql, connection, longest)["node"])


def check_condition(
    condition: str,
    columns: Collection[str] = CONDITION_COLUMNS,
    connection: duckdb.DuckDBPyConnection | None = None,
) -> None:
    """Let an SQL condition on an image's columns pass: what `where` of `top_patches` and `similar` takes.

    Raises:
        RefusedError: it is more than one expression, has a subquery, or names another column or function.
        QueryError: it is no SQL.
    """
    check_text(condition, LONGEST_CONDITION)
    if not condition.strip():
        raise RefusedError('a condition is one SQL expression, such as "width > 500"')
    node = _tree(f"SELECT ({condition}\n)", connection, LONGEST_CONDITION + 20)["node"]
    empty = ("where_clause", "group_expressions", "group_sets", "having", "qualify", "sample", "modifiers")
    if (
        node.get("type") != "SELECT_NODE"
        or len(node["select_list"]) != 1
        or node["from_table"]["type"] != "EMPTY"
        or any(node.get(part) for part in empty)
        or node["cte_map"]["map"]
    ):
        raise RefusedError('a condition is one SQL expression, such as "width > 500"')
    _Walk(Names((), ()), frozenset(columns)).walk(node["select_list"][0])


def check_text(sql: str, longest: int) -> None:
    """Refuse what need not be parsed to be refused.

    Raises:
        RefusedError: it is too long, or has a character that no SQL has.
    """
    if len(sql) > longest:
        raise RefusedError(f"a query may have {longest:,} characters, and this has {len(sql):,}")
    if "\0" in sql or any("\ud800" <= character <= "\udfff" for character in sql):
        raise RefusedError("a query is Unicode text without NUL")


def _tree(sql: str, connection: duckdb.DuckDBPyConnection | None, longest: int) -> dict[str, Any]:
    import duckdb

    check_text(sql, longest)
    parser = connection if connection is not None else _parser().cursor()
    try:
        statements = parser.extract_statements(sql)
        try:
            selects = [each.type == duckdb.StatementType.SELECT for each in statements]
        except ValueError:  # DuckDB's Python names not all of its statements
            selects = []
        if selects != [True]:
            _not_one_select()
        rows = parser.execute("SELECT json_serialize_sql(?)", [statements[0].query]).fetchall()
        tree = json.loads(rows[0][0])
    except duckdb.Error as error:
        raise QueryError(str(error).strip()) from None
    except RecursionError:
        raise RefusedError("the query is nested too deeply: write it with WITH") from None
    if tree.get("error") or len(tree["statements"]) != 1:
        _not_one_select()
    statement: dict[str, Any] = tree["statements"][0]
    return statement


def _not_one_select() -> NoReturn:
    raise RefusedError(
        "one statement that reads is allowed: SELECT, FROM, VALUES, DESCRIBE, SUMMARIZE or SHOW TABLES "
        "(and PIVOT, where it names its values: PIVOT t ON c IN (...))"
    )


@cache
def _parser() -> duckdb.DuckDBPyConnection:
    import duckdb

    config: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": False,
        "autoload_known_extensions": False,
        "autoinstall_known_extensions": False,
        "threads": 1,
    }
    return duckdb.connect(":memory:", config=config)


@dataclass(frozen=True)
class _Walk:
    """A walk over a tree that ends at the first part that is not allowed.

    Attributes:
        columns: the only columns, for a condition; None for a query.
    """

    names: Names
    columns: frozenset[str] | None = None

    def walk(self, tree: object) -> None:
        # Not recursive: a tree may be deeper than Python's stack.
        waiting: list[tuple[object, frozenset[str], int]] = [(tree, frozenset(), 0)]
        while waiting:
            node, scope, lambdas = waiting.pop()
            if isinstance(node, list):
                waiting.extend((each, scope, lambdas) for each in node)
            elif isinstance(node, dict):
                if "cte_map" in node:
                    waiting.extend((body, seen, lambdas) for body, seen in self._expressions(node["cte_map"], scope))
                    scope |= {entry["key"].lower() for entry in node["cte_map"]["map"]}
                if node.get("class") == "LAMBDA":
                    lambdas += 1
                    if lambdas > 1:
                        raise RefusedError("a lambda in a lambda is not allowed: use unnest and aggregates")
                self._check(node, scope)
                if node.get("type") == "TABLE_FUNCTION":
                    node = node["function"]  # its name is not that of a scalar function
                waiting.extend((value, scope, lambdas) for key, value in node.items() if key != "cte_map")

    def _expressions(
        self, expressions: Mapping[str, Any], scope: frozenset[str]
    ) -> Iterator[tuple[object, frozenset[str]]]:
        """The bodies of common table expressions, each with the names that it sees."""
        for entry in expressions["map"]:
            name = entry["key"]
            if not _PLAIN.fullmatch(name):
                raise RefusedError(f"WITH {_quoted(name)}: a name there has letters, digits and _ only")
            if name.lower() in self.names.tables or name.lower() in TABLES or _SYSTEM.match(name):
                raise RefusedError(f"WITH {name}: there is a table of this name already, choose another")
            recursive = entry["value"]["query_node"]["type"] == "RECURSIVE_CTE_NODE"
            yield entry["value"], scope | {name.lower()} if recursive else scope
            scope |= {name.lower()}

    def _check(self, node: Mapping[str, Any], scope: frozenset[str]) -> None:
        class_, kind = node.get("class"), node.get("type")
        if class_ is not None:
            self._check_expression(class_, node)
        elif isinstance(kind, str):
            if kind not in _QUERIES and kind not in _SOURCES and kind not in _MODIFIERS:
                _refuse_part(kind)
            if kind == "BASE_TABLE":
                self._check_table(node, scope)
            elif kind == "TABLE_FUNCTION":
                self._check_table_function(node["function"])
            elif kind == "SHOW_REF":
                self._check_show(node)
        if node.get("named_param_map"):
            raise RefusedError("parameters ($1, ?) are not allowed: write the values")

    def _check_expression(self, class_: str, node: Mapping[str, Any]) -> None:
        if class_ == "PARAMETER":
            raise RefusedError("parameters ($1, ?) are not allowed: write the values")
        if class_ not in _EXPRESSIONS:
            _refuse_part(class_)
        if self.columns is not None and class_ in _NOT_IN_CONDITIONS:
            raise RefusedError(f"{_NOT_IN_CONDITIONS[class_]} is not allowed in a condition")
        if class_ in ("FUNCTION", "WINDOW"):
            self._check_function(node)
        elif class_ == "TYPE":
            if node["catalog"] or node["schema"] or node["type_name"].lower() not in functions()["types"]:
                raise RefusedError(
                    f"the type {_quoted(node['type_name'])} is not allowed: numbers, text, dates, lists, … are"
                )
        elif class_ == "COLUMN_REF":
            self._check_column([name.lower() for name in node["column_names"]])

    def _check_column(self, parts: list[str]) -> None:
        if self.columns is not None:
            if len(parts) != 1 or parts[0] not in self.columns:
                raise RefusedError(
                    f"a condition knows no column {_quoted('.'.join(parts))}: it has {', '.join(CONDITION_COLUMNS)}"
                )
        elif parts[-1] in _HIDDEN_CALLS:
            raise RefusedError(f"{parts[-1]} is not allowed: it says something of the server")

    def _check_function(self, node: Mapping[str, Any]) -> None:
        name = node["function_name"].lower()
        allowed = functions()["operators"] | functions()["scalar"] if self.columns is not None else _calls()
        # A name before the dot is a column (path.lower()), or a schema, where no allowed name is another function's.
        if name not in allowed and (self.columns is not None or name not in self.names.macros):
            raise RefusedError(
                f"{_quoted(name)} is not among the functions that are allowed: those of numbers, text, dates, lists, "
                "structs and JSON are, aggregates and window functions, where their input bounds their work"
            )
        if self.columns is not None and name == "unnest":
            raise RefusedError("unnest is not allowed in a condition")

    def _check_table_function(self, node: Mapping[str, Any]) -> None:
        name = str(node.get("function_name", "")).lower()
        if node["schema"] or node["catalog"] or name not in {*functions()["table"], *self.names.macros}:
            remedy = self.names.remedies.get(name)
            raise (QueryError(remedy) if remedy and not node["schema"] else RefusedError(self._no_table(f"{name}()")))

    def _check_table(self, node: Mapping[str, Any], scope: frozenset[str]) -> None:
        name = node["table_name"]
        if node["schema_name"] or node["catalog_name"]:
            raise RefusedError(f"{_quoted(name)} with a schema or catalog before it is not allowed: {self._tables()}")
        if node.get("at_clause"):
            raise RefusedError("AT is not allowed: an index has one state")
        if name.lower() not in scope and name.lower() not in self.names.tables:
            remedy = self.names.remedies.get(name.lower())
            raise (QueryError(remedy) if remedy else RefusedError(self._no_table(name)))

    def _check_show(self, node: Mapping[str, Any]) -> None:
        tables = node["show_type"] == "SHOW_SPECIAL" and node["table_name"] == '"tables"'
        of_query = node["show_type"] in ("DESCRIBE", "SUMMARY") and node.get("query") and not node["table_name"]
        if not (tables or of_query) or node["catalog_name"] or node["schema_name"]:
            raise RefusedError("of SHOW, only SHOW TABLES is allowed; DESCRIBE evidence shows a table's columns")

    def _no_table(self, name: str) -> str:
        return f"there is no table {_quoted(name)}: {self._tables()}"

    def _tables(self) -> str:
        calls = ", ".join(
            f"{name}()" for name in sorted({*functions()["table"], *self.names.macros} - {"class_number"})
        )
        return f"the tables are {', '.join(sorted(self.names.tables))}, and {calls}"


def _refuse_part(kind: str) -> NoReturn:
    raise RefusedError(f"{kind.replace('_', ' ').lower()} is not allowed: a query only reads")


def _quoted(name: str) -> str:
    return repr(name if len(name) <= 80 else f"{name[:80]}…")
