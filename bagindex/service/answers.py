"""Answers as bytes: JSON, Arrow or a picture, by what the request accepts. Nothing checks them again."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Request
from starlette.responses import Response

from bagindex.output import to_csv, to_json_value
from bagindex.service.edge import PAGE_POLICY
from bagindex.service.problems import Problem

if TYPE_CHECKING:
    import pyarrow as pa

    from bagindex.results import Tabular
    from bagindex_schemas.records import Grid

JSON = "application/json"
ARROW = "application/vnd.apache.arrow.stream"
CSV = "text/csv; charset=utf-8"
PARQUET = "application/vnd.apache.parquet"
PICTURES = {
    **{"png": "image/png", "svg": "image/svg+xml", "pdf": "application/pdf"},
    **{"html": "text/html; charset=utf-8"},
}


def accepted(request: Request, offers: Sequence[str]) -> str:
    """Which of some media types is answered with: what the request would rather have, of equals the first.

    Raises:
        Problem: it takes none of them.
    """
    header = request.headers.get("accept", "")
    if header in ("", "*/*", offers[0]):
        return offers[0]
    wanted = [_range(part) for part in header.split(",")]
    best, found = 0.0, None
    for offer in offers:
        kind = offer.split(";")[0]
        # The most specific range that fits says how much it is wanted.
        fits = [(name.count("*"), -quality) for name, quality in wanted if _fits(name, kind)]
        quality = -min(fits)[1] if fits else 0.0
        if quality > best:
            best, found = quality, offer
    if found is None:
        raise Problem(406, "not-acceptable", f"this is answered as {', '.join(offers)}")
    return found


def to_json(value: object) -> bytes:
    """A value as JSON; NaN and infinities become null."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    except (TypeError, ValueError):
        text = to_json_value(value)
    return text.encode("utf-8", "backslashreplace")


def as_json(value: object, headers: Mapping[str, str] | None = None) -> Response:
    """An answer in JSON."""
    return Response(to_json(value), 200, _varies(headers), JSON)


def as_arrow(table: pa.Table, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as a stream of Arrow's IPC format."""
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return Response(sink.getvalue().to_pybytes(), 200, _varies(headers), ARROW)


def as_csv(table: pa.Table, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as the command line writes it: RFC 4180 with a header, lists and structures as JSON."""
    text = to_csv([str(name) for name in table.column_names], table.to_pylist())
    return Response(text.encode("utf-8", "backslashreplace"), 200, _varies(headers), CSV)


def as_parquet(table: pa.Table, headers: Mapping[str, str] | None = None) -> Response:
    """An answer as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return Response(sink.getvalue().to_pybytes(), 200, _varies(headers), PARQUET)


def table(kind: str, value: Tabular, body: Mapping[str, Any]) -> Response:
    """A table in Arrow, or in JSON with what else is to be said."""
    return as_arrow(value.to_arrow()) if kind == ARROW else as_json(body)


def as_picture(data: bytes, kind: str) -> Response:
    """A picture or page; `kind` is the ending of its file."""
    # A page may be opened by itself, and then must not run what is in it.
    headers = {} if kind in ("png", "pdf") else {"Content-Security-Policy": PAGE_POLICY}
    return Response(data, 200, _varies(headers), PICTURES[kind])


def _varies(headers: Mapping[str, str] | None) -> dict[str, str]:
    return {"Vary": "Accept", **(headers or {})}


def _range(part: str) -> tuple[str, float]:
    name, *parameters = (each.strip() for each in part.split(";"))
    quality = 1.0
    for each in parameters:
        if each.startswith("q="):
            try:
                quality = min(1.0, max(0.0, float(each[2:])))
            except ValueError:
                quality = 0.0
    return name.lower(), quality


def _fits(name: str, kind: str) -> bool:
    return name in ("*/*", kind) or (name.endswith("/*") and kind.startswith(name[:-1]))


def grid_shape(grid: Grid) -> dict[str, int]:
    """A model's patch grid."""
    return {**grid.model_dump(exclude={"padding"}), "offset": grid.offset}
