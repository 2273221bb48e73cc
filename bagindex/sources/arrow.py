"""Data sets that Hugging Face's `datasets` has saved to a disk (`save_to_disk`): Arrow, mapped into memory."""

from __future__ import annotations

import json
import os
import threading
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from bagindex.errors import SourceError
from bagindex.sources import Entry
from bagindex.sources.columns import Asked, Columns, find_columns, label_texts, pictures_of
from bagindex.sources.files import Found, stamp
from bagindex.sources.rows import RowFile, RowReader, RowSource, readable, row_path
from bagindex.text import some

SPLITS = "dataset_dict.json"
STATE = "state.json"
_MAGIC = b"ARROW1"


class ArrowReader(RowReader[Path]):
    """Reads rows of Arrow files."""

    def __init__(self, files: Mapping[bytes, RowFile[Path]]) -> None:
        super().__init__(files)
        self._mapped: dict[bytes, _Rows] = {}
        self._mapping = threading.Lock()

    def value(self, name: bytes, file: RowFile[Path], row: int) -> bytes | None:
        """The bytes in a row; None where there are none."""
        with self._mapping:
            if name not in self._mapped:
                self._mapped[name] = _Rows(file.path, file.columns)
        return self._mapped[name].at(row)


class _Rows:
    """The pictures of a file, where they are mapped."""

    def __init__(self, path: Path, columns: Columns) -> None:
        _, batches = _batches(path)
        self._pictures = [pictures_of(batch, columns) for batch in batches]
        self._firsts = [0, *accumulate(map(len, self._pictures))]

    def at(self, row: int) -> bytes | None:
        batch = bisect_right(self._firsts, row) - 1
        value: bytes | None = self._pictures[batch][row - self._firsts[batch]].as_py()
        return value


def is_saved(folder: str) -> bool:
    """Whether a folder is a data set as `save_to_disk` leaves it."""
    return any(os.path.isfile(os.path.join(folder, name)) for name in (SPLITS, STATE))


def saved_files(folder: str, split: str | None, every: bool = False) -> Found[Path]:
    """The files of a saved data set, or of one of its splits, or of `every` one.

    Raises:
        SourceError: no split or an unknown one, or a file is missing or damaged.
    """
    top = Path(folder)
    if not (top / SPLITS).is_file():
        state = _json(top / STATE)
        if split is not None and (own := state.get("_split")) != split:
            raise SourceError(f"{folder} has no split {split!r}: it has {some([str(own)] if own else [])}")
        return Found(folder, _named(top, "", state), split)
    splits = saved_splits(folder)
    if split is None and len(splits) > 1 and not every:
        raise SourceError(f"{folder} holds the splits {some(splits)}: choose one with --split")
    if split is not None and split not in splits:
        raise SourceError(f"{folder} has no split {split!r}: it has {some(splits)}")
    files: dict[bytes, Path] = {}
    for each in sorted(splits) if split is None else [split]:
        files |= _named(top, each, _json(top / each / STATE))
    return Found(folder, files, split)


def saved_splits(folder: str) -> list[str]:
    """The splits of a saved data set that has several.

    Raises:
        SourceError: they cannot be told.
    """
    listing = Path(folder) / SPLITS
    splits = _json(listing).get("splits")
    if not isinstance(splits, list) or not splits or not all(isinstance(each, str) for each in splits):
        raise SourceError(f"{listing} names no splits: save the data set again")
    return splits


def _named(top: Path, below: str, state: Mapping[str, Any]) -> dict[bytes, Path]:
    listed = state.get("_data_files")
    told = [each.get("filename") for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    names = [name for name in told if isinstance(name, str) and name == os.path.basename(name)]
    if not names or len(names) < len(told):
        raise SourceError(f"{top / below / STATE} names no files: save the data set again")
    return {os.fsencode(os.path.join(below, name)): top / below / name for name in sorted(names)}


def open_arrow(found: Found[Path], asked: Asked) -> RowSource:
    """List the rows of Arrow files.

    Args:
        found: the files.
        asked: their columns; see `bagindex.sources.parquet.open_parquet`.

    Raises:
        SourceError: a file cannot be read, has no rows, or not the columns.
        LabelError: a label means nothing.
    """
    files: dict[bytes, RowFile[Path]] = {}
    entries: list[Entry] = []
    for name, path in found.files.items():
        before = stamp(path)
        with readable(path, "Arrow"):
            schema, batches = _batches(path)
            columns = find_columns(schema, asked, path)
            rows = 0
            for batch in batches:
                entries += _entries(name, path, rows, batch, columns)
                rows += batch.num_rows
        files[name] = RowFile(path, before, columns)
    return RowSource.of("arrow", found, entries, ArrowReader(files))


def _entries(name: bytes, path: Path, first: int, batch: pa.RecordBatch, columns: Columns) -> Iterator[Entry]:
    labels: Sequence[str | None] = [None] * batch.num_rows
    originals: Sequence[str | None] = labels
    if columns.label:
        labels = label_texts(columns, batch.column(columns.label).to_pylist(), path, first)
    if columns.named:
        originals = pc.struct_field(batch.column(columns.image), "path").to_pylist()
    sizes = pc.binary_length(pictures_of(batch, columns)).to_pylist()
    for row, (size, label, original) in enumerate(zip(sizes, labels, originals, strict=True), start=first):
        yield Entry(row_path(name, row, original), size or 0, label)


def _batches(path: Path) -> tuple[pa.Schema, list[pa.RecordBatch]]:
    """The schema and rows of a file; they are mapped, and nothing is read before it is looked at."""
    mapped = pa.memory_map(str(path))
    if mapped.read(len(_MAGIC)) == _MAGIC:
        file = pa.ipc.open_file(mapped)
        return file.schema, [file.get_batch(number) for number in range(file.num_record_batches)]
    mapped.seek(0)
    stream = pa.ipc.open_stream(mapped)
    return stream.schema, list(stream)


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise SourceError(f"{path} is damaged: save the data set again")
    return found
