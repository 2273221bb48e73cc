"""What is derived from a model's shards and can be made again: the FAISS index, visual words, maps.

Each time it is made, it is a new folder below the model's `derived/`, `KIND-1`, `KIND-2`, …, written aside and renamed
when it is whole, with a record of its files, like a shard; the highest number counts. So a reader never sees half of
one, and what it has open is not changed beneath it.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from bagindex.errors import DamagedIndexError
from bagindex.seal import read_record
from bagindex.shards import hash_files
from bagindex.store import IndexDirectory, check_sizes
from bagindex_schemas.derived import AnnRecord, DerivedRecord, MapRecord, WordsRecord
from bagindex_schemas.records import FileRecord, ModelRecord

ANN, WORDS, MAP, WORD_MAP = "patches", "words", "map", "map-words"
"""The kinds: nearest patches (by cosine; `patches-l2` by distance), visual words, maps of patches and of words."""
RECORDS: dict[str, type[DerivedRecord]] = {
    ANN: AnnRecord,
    f"{ANN}-l2": AnnRecord,
    WORDS: WordsRecord,
    MAP: MapRecord,
    WORD_MAP: MapRecord,
}
"""The record of each kind, in the file `KIND.json`."""
REMAKE = {
    ANN: "bagindex index",
    f"{ANN}-l2": "bagindex index --metric l2",
    WORDS: "bagindex words --again",
    MAP: "bagindex map --again",
    WORD_MAP: "bagindex map --words --again",
}
"""The command that makes each kind."""
_KEEP = {WORDS: 2}
"""Of words also the ones before, for readers whose catalog names them; what is mapped stays open without a name."""
_RecordType = TypeVar("_RecordType", bound=DerivedRecord)


def features_digest(directory: IndexDirectory, record: ModelRecord, shards: Iterable[int]) -> str:
    """SHA-256 over the hashes of a model's features in some shards: it tells whether something was made of others."""
    series = record.series_of("features")
    digest = hashlib.sha256()
    for shard in shards:
        digest.update(f"{shard} {directory.shard_manifest(series, shard).files['features.parquet'].sha256}\n".encode())
    return digest.hexdigest()


def newest(directory: IndexDirectory, model: str, kind: str) -> Path | None:
    """The folder of a kind that counts; None where it was not made."""
    numbers = _numbers(directory, model, kind)
    return _folder(directory, model, kind, numbers[-1]) if numbers else None


def open_newest(
    directory: IndexDirectory, model: str, kind: str, record: type[_RecordType]
) -> tuple[Path, _RecordType] | None:
    """The folder of a kind that counts and its record, its files' sizes checked; None where it was not made.

    Raises:
        DamagedIndexError: a file is missing or has another size.
    """
    folder = newest(directory, model, kind)
    if folder is None:
        return None
    try:
        return folder, read(folder, kind, record)
    except DamagedIndexError:
        if newest(directory, model, kind) != folder:  # replaced in this moment
            return open_newest(directory, model, kind, record)
        raise


def read(folder: Path, kind: str, record: type[_RecordType]) -> _RecordType:
    """The record of a folder of a kind, its files' sizes checked.

    Raises:
        DamagedIndexError: a file is missing or has another size.
    """
    remedy = f"make it again with `{REMAKE[kind]}`"
    found = read_record(folder / f"{kind}.json", record, remedy)
    check_sizes(folder, found.files, remedy)
    return found


def sound(
    directory: IndexDirectory, model: str, kind: str, record: type[_RecordType]
) -> tuple[Path, _RecordType] | None:
    """The same, but None also where it is damaged: for what makes it again, or can do without."""
    try:
        return open_newest(directory, model, kind, record)
    except DamagedIndexError:
        return None


def asked_before(directory: IndexDirectory, model: str) -> str | None:
    """What index for similar patches was asked for when it was last made; None where none was, or it is damaged."""
    found = sound(directory, model, ANN, AnnRecord)
    return found[1].asked if found else None


def check(directory: IndexDirectory, model: str, kind: str) -> tuple[int, list[str]]:
    """Compare the files of what is derived for a model with their hashes: how many, and what is wrong.

    Raises:
        DamagedIndexError: the record cannot be read, or a file is missing or has another size.
    """
    found = open_newest(directory, model, kind, RECORDS[kind])
    if found is None:
        return 0, []
    folder, made = found
    return 1 + len(made.files), [
        f"{folder / name} is damaged, its SHA-256 is not the recorded one: make it again with `{REMAKE[kind]}`"
        for name, file in made.files.items()
        if directory.sha256(folder / name) != file.sha256
    ]


def drop(directory: IndexDirectory, model: str, kind: str) -> None:
    """Remove everything of a kind; the caller holds the index's lock."""
    for number in _numbers(directory, model, kind):
        directory.drop(_folder(directory, model, kind, number))


@contextmanager
def making(directory: IndexDirectory, model: str, kind: str) -> Iterator[Path]:
    """A temporary folder for the files of a kind; leaving it without an error, and after `complete`, is the commit.

    The caller holds the index's lock.
    """
    numbers = _numbers(directory, model, kind)
    final = _folder(directory, model, kind, numbers[-1] + 1 if numbers else 1)
    with directory.new_folder(final, f"{kind}.json") as temporary:
        yield temporary
    kept = _KEEP.get(kind, 1) - 1
    for number in numbers[: len(numbers) - kept]:
        directory.drop(_folder(directory, model, kind, number))


def complete(directory: IndexDirectory, temporary: Path, kind: str, record: _RecordType) -> _RecordType:
    """Write the record of a folder's files, which are hashed now; the record with the hashes."""
    files: dict[str, FileRecord] = hash_files(temporary)
    whole = record.model_copy(update={"files": files})
    directory.complete(temporary, whole, f"{kind}.json")
    return whole


def _numbers(directory: IndexDirectory, model: str, kind: str) -> list[int]:
    place = directory.inside(model, "derived")
    names = os.listdir(place) if place.is_dir() else []
    return sorted(int(match[1]) for name in names if (match := re.fullmatch(rf"{re.escape(kind)}-(\d+)", name)))


def _folder(directory: IndexDirectory, model: str, kind: str, number: int) -> Path:
    return directory.inside(model, "derived", f"{kind}-{number}")
