"""SQL, in a sandbox, and what there is to ask."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from starlette.responses import Response

from bagindex.errors import QueryError
from bagindex.service import shapes
from bagindex.service.answers import (
    ARROW,
    CSV,
    JSON,
    PARQUET,
    accepted,
    as_arrow,
    as_csv,
    as_json,
    as_parquet,
)
from bagindex.service.asking import Service
from bagindex.service.parameters import IndexName
from bagindex.service.routes.adding import add

if TYPE_CHECKING:
    from bagindex.sandbox.pool import Answer

_OUTCOMES = {
    "RefusedError": "refused",
    "TimeLimitError": "time-limit",
    "BusyError": "busy",
    "StartError": "busy",
    "Problem": "off",
}

_TABLES: Mapping[str, Callable[[Any, Mapping[str, str]], Response]] = {
    ARROW: as_arrow,
    CSV: as_csv,
    PARQUET: as_parquet,
}


def register(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    async def sql(request: Request, question: shapes.SqlQuestion, index: IndexName = None) -> Response:
        """Run one query that reads, in DuckDB's SQL.

        Of too many rows the first are given, and `truncated` says so; of an answer that is no JSON, a header.
        """
        kind = accepted(request, [JSON, *_TABLES])
        outcome = "failed"
        service.metrics.sql_running.inc()
        try:
            response = _answer(await service.sql(index, question.sql, question.explain), kind)
            outcome = "answered"
        except Exception as error:
            outcome = _OUTCOMES.get(type(error).__name__, "failed")
            raise
        finally:
            service.metrics.sql_running.dec()
            service.metrics.sql.labels(outcome).inc()
        return response

    async def tables(index: IndexName = None) -> Response:
        """What there is to ask in SQL: tables, views and macros with their columns, and examples."""
        return as_json(await service.ask(index, lambda opened: opened.tables()))

    add(app, "/tables", tables, shapes.Tables)
    add(app, "/sql", sql, shapes.SqlAnswer, types=list(_TABLES), post=True)


def _answer(answer: Answer, kind: str) -> Response:
    import pyarrow as pa

    try:
        return _written(answer, kind)
    except (pa.ArrowException, OverflowError, ValueError):
        raise QueryError("a value is beyond what an answer can hold: CAST it AS VARCHAR") from None


def _written(answer: Answer, kind: str) -> Response:
    table = answer.table
    if kind in _TABLES:
        said = {"X-Bagindex-Truncated": str(answer.truncated).lower()}
        return _TABLES[kind](table, {**said, "X-Bagindex-Milliseconds": f"{answer.milliseconds:.3f}"})
    columns = [column.to_pylist() for column in table.columns]
    return as_json(
        {
            "columns": [{"name": field.name, "type": str(field.type)} for field in table.schema],
            # Rows without names: two columns of a query may have one name.
            "rows": [list(row) for row in zip(*columns, strict=True)],
            "truncated": answer.truncated,
            "milliseconds": answer.milliseconds,
        }
    )
