"""Free SQL over an index, reading only."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from typing import TypeVar

import duckdb
import pyarrow as pa

from bagindex.catalog import Catalog
from bagindex.errors import QueryError
from bagindex.results import QueryResult
from bagindex.selecting import select_tree
from bagindex.sql_names import MACROS, VIEWS, WORD_VIEWS, unique, unique_names

_Found = TypeVar("_Found")
_EXPLAIN = re.compile(r"\s*EXPLAIN(\s+ANALYZE)?\s", re.IGNORECASE)


def run(catalog: Catalog, query: str) -> QueryResult:
    """Run one statement that reads.

    Raises:
        QueryError: it is no SQL, more than one statement, writes, or fails.
    """
    with _explained(catalog):
        _check(catalog, query)
        return QueryResult(unique(catalog.answer(partial(_ask, catalog, query))))


def relation(catalog: Catalog, query: str) -> duckdb.DuckDBPyRelation:
    """One statement that reads as a relation of DuckDB's, which is run when its rows are asked for.

    Raises:
        QueryError: as for `run`, but for what fails only when it is run.
    """
    with _explained(catalog):
        _check(catalog, query)
        catalog.bind_views(query)
        with catalog.reading():
            return catalog.connection.sql(query)


@contextmanager
def stream(catalog: Catalog, query: str, size: int) -> Iterator[tuple[pa.Schema, Iterator[pa.RecordBatch]]]:
    """The rows of one statement that reads, some at a time: their schema, and batches of up to `size` rows.

    Raises:
        QueryError: as for `run`; also from within, when a batch is asked for.
        OutdatedError: what it reads was replaced meanwhile.
    """
    with _explained(catalog):
        _check(catalog, query)
        catalog.bind_views(query)
        with catalog.reading():
            connection = catalog.connection
            reader = _interruptible(connection, lambda: connection.sql(query).to_arrow_reader(size))
            names = unique_names(reader.schema.names)
            schema = pa.schema([field.with_name(name) for field, name in zip(reader.schema, names, strict=True)])
            yield schema, _batches(connection, reader, schema)


def _batches(
    connection: duckdb.DuckDBPyConnection, reader: pa.RecordBatchReader, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    while (batch := _interruptible(connection, lambda: next(reader, None))) is not None:
        yield pa.RecordBatch.from_arrays(batch.columns, schema=schema)


def _check(catalog: Catalog, query: str) -> None:
    explained = _EXPLAIN.match(query)
    if select_tree(catalog.connection, query[explained.end() :] if explained else query) is None:
        raise QueryError(
            "only one statement that reads is run: SELECT, FROM, VALUES, DESCRIBE, SUMMARIZE, SHOW or EXPLAIN "
            "(and PIVOT, where it names its values: PIVOT t ON c IN (...))"
        )


@contextmanager
def _explained(catalog: Catalog) -> Iterator[None]:
    """Around running a person's query: what DuckDB says against it becomes a line for that person."""
    try:
        yield
    except duckdb.Error as error:
        raise QueryError(_explain(catalog, error)) from None


def _ask(catalog: Catalog, query: str) -> pa.Table:
    catalog.bind_views(query)
    connection = catalog.connection
    with catalog.reading():
        return _interruptible(connection, lambda: connection.sql(query).to_arrow_table())


def _interruptible(connection: duckdb.DuckDBPyConnection, work: Callable[[], _Found]) -> _Found:
    """Work in a thread, so that Ctrl-C is heard: DuckDB does not return to Python before a query ends."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(work)
        try:
            return future.result()
        except BaseException:
            connection.interrupt()
            raise


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
