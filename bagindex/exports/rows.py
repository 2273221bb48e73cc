"""The rows of a query as a file, some at a time: there may be more than fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from bagindex import output
from bagindex.catalog import Catalog
from bagindex.query import stream

BATCH = 100_000
"""Rows at a time."""
_Write = Callable[[pa.RecordBatch], object]


def write_rows(catalog: Catalog, query: str, path: Path, progress: Callable[[int], None] = lambda _rows: None) -> int:
    """Write the rows of one statement that reads.

    Args:
        catalog: the index.
        query: SQL.
        path: a `.parquet`, `.arrow` (an IPC file), `.csv` or `.jsonl` (an object on each line).
        progress: hears how many rows are written.

    Returns:
        How many there are.

    Raises:
        QueryError: it is no SQL, more than one statement, writes, or fails.
        OutputError: another ending, or the file cannot be written.
    """
    written = 0

    def run(opened: Callable[[Path, pa.Schema], AbstractContextManager[_Write]], temporary: Path) -> None:
        nonlocal written
        written = 0
        with stream(catalog, query, BATCH) as (schema, batches), opened(temporary, schema) as add:
            for batch in batches:
                add(batch)
                written += batch.num_rows
                progress(written)

    catalog.answer(lambda: output.save(path, {ending: partial(run, opened) for ending, opened in _WRITERS.items()}))
    return written


@contextmanager
def _parquet(path: Path, schema: pa.Schema) -> Iterator[_Write]:
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        yield writer.write_batch


@contextmanager
def _arrow(path: Path, schema: pa.Schema) -> Iterator[_Write]:
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, schema) as writer:
        yield writer.write_batch


@contextmanager
def _csv(path: Path, schema: pa.Schema) -> Iterator[_Write]:
    with path.open("w", encoding="utf-8") as file:
        file.write(output.to_csv(schema.names, ()))
        yield lambda batch: file.write(output.to_csv(schema.names, batch.to_pylist(), header=False))


@contextmanager
def _json_lines(path: Path, _schema: pa.Schema) -> Iterator[_Write]:
    with path.open("w", encoding="utf-8") as file:
        yield lambda batch: file.writelines(f"{output.to_json_value(row)}\n" for row in batch.to_pylist())


_WRITERS: dict[str, Callable[[Path, pa.Schema], AbstractContextManager[_Write]]] = {
    ".parquet": _parquet,
    ".arrow": _arrow,
    ".csv": _csv,
    ".jsonl": _json_lines,
}
