"""Free SQL over an index, reading only."""

from __future__ import annotations

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING

import duckdb

from bagindex.catalog import Catalog
from bagindex.errors import QueryError
from bagindex.results import QueryResult
from bagindex.selecting import select_tree
from bagindex.views import MACROS, VIEWS, WORD_VIEWS

if TYPE_CHECKING:
    import pyarrow as pa

_EXPLAIN = re.compile(r"\s*EXPLAIN(\s+ANALYZE)?\s", re.IGNORECASE)


def run(catalog: Catalog, query: str) -> QueryResult:
    """Run one statement that reads.

    Raises:
        QueryError: it is no SQL, more than one statement, writes, or fails.
    """
    try:
        explained = _EXPLAIN.match(query)
        if select_tree(catalog.connection, query[explained.end() :] if explained else query) is None:
            raise QueryError(
                "only one statement that reads is run: SELECT, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN "
                "(and PIVOT, where it names its values: PIVOT t ON c IN (...))"
            )
        return QueryResult(unique(catalog.answer(partial(_ask, catalog, query))))
    except duckdb.Error as error:
        raise QueryError(_explain(catalog, error)) from None


def _ask(catalog: Catalog, query: str) -> pa.Table:
    catalog.bind_views(query)
    connection = catalog.connection
    with catalog.reading():
        return _interruptible(connection, lambda: connection.sql(query).to_arrow_table())


def _interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], pa.Table]) -> pa.Table:
    """Work in a thread, so that Ctrl-C is heard: DuckDB does not return to Python before a query ends."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except BaseException:
            connection.interrupt()
            raise


def unique(table: pa.Table) -> pa.Table:
    """Number the columns whose name is there already: rows become dictionaries later."""
    numbers: dict[str, int] = {}
    for name in table.column_names:
        unique = name
        while unique in numbers:
            numbers[name] += 1
            unique = f"{name}_{numbers[name]}"
        numbers[unique] = 1
    return table.rename_columns(list(numbers))


def _explain(catalog: Catalog, error: duckdb.Error) -> str:
    text = str(error).strip()
    missing = re.search(r"Table(?: Function)? with name \"?(\w+)\"? does not exist", text)
    if missing and (known := remedy(catalog, missing[1].lower())):
        return known
    if "derived/words-" in text:
        return "the files of the visual words are damaged or gone: `bagindex words --again` makes them anew"
    # DuckDB points at the place in lines of their own; the rest is one line.
    parts = [line for line in text.removeprefix("Invalid Input Error: ").splitlines() if line.strip()]
    return "\n".join(parts)


def remedy(catalog: Catalog, missing: str) -> str | None:
    """What to do for a view or macro that the catalog lacks; None where it is neither."""
    for view in (missing, *MACROS.get(missing, ())):
        if view in WORD_VIEWS and not catalog.has(view):
            return (
                f"this index has no {view}: visual words were not made yet, or images have come since; "
                "`bagindex words --again` makes them"
            )
        if view in VIEWS and not catalog.has(view):
            option = "--pixels --restart" if view == "pixels" else f"--keep {view}, which fills it in"
            return f"this index does not keep {view} (see `bagindex info`): run the same build with {option}"
    if missing in MACROS:
        return f"an earlier bagindex made this index, without {missing}: run the same `bagindex build` command again"
    return None
