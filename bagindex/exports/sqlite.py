"""An index's summaries as a SQLite database, for Datasette and whatever else reads one."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from bagindex import output, render
from bagindex.errors import NotKeptError, OutputError

if TYPE_CHECKING:
    from bagindex.questions import Questions

_CHUNK = 10_000
_APPLICATION = 0x62616769
"""What SQLite says of a database that was written here: `bagi`."""
_ENDINGS = (".db", ".sqlite", ".sqlite3")
_FAST = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;"
"""A file that is only seen when it is whole needs no journal."""
_TABLES = """
CREATE TABLE classes (class_id INTEGER PRIMARY KEY, name TEXT NOT NULL, wnid TEXT);
CREATE TABLE models (
    model TEXT PRIMARY KEY, architecture TEXT, parameters INTEGER, receptive_field INTEGER, stride INTEGER,
    "rows" INTEGER, cols INTEGER, "precision" TEXT, weights_sha256 TEXT);
CREATE TABLE images (
    image_id INTEGER PRIMARY KEY, path TEXT NOT NULL, label INTEGER REFERENCES classes(class_id),
    width INTEGER, height INTEGER, bytes INTEGER, sha256 TEXT);
CREATE TABLE rejects (image_id INTEGER, path TEXT, code TEXT, message TEXT);
CREATE TABLE predictions (
    model TEXT REFERENCES models(model), image_id INTEGER REFERENCES images(image_id),
    predicted INTEGER REFERENCES classes(class_id), probability REAL, correct INTEGER, PRIMARY KEY (model, image_id));
CREATE TABLE top_patches (
    model TEXT REFERENCES models(model), class_id INTEGER REFERENCES classes(class_id), right_class INTEGER,
    rank INTEGER, patch_id INTEGER, image_id INTEGER REFERENCES images(image_id), logit REAL,
    "row" INTEGER, col INTEGER, x0 INTEGER, y0 INTEGER, x1 INTEGER, y1 INTEGER, picture BLOB,
    PRIMARY KEY (model, class_id, right_class, rank));
"""
_EVIDENCE = """
CREATE TABLE image_evidence (
    model TEXT REFERENCES models(model), class_id INTEGER REFERENCES classes(class_id),
    image_id INTEGER REFERENCES images(image_id), patch_id INTEGER, "row" INTEGER, col INTEGER,
    max_logit REAL, mean_logit REAL, PRIMARY KEY (model, class_id, image_id)) WITHOUT ROWID;
"""
_INDEXES = """
CREATE INDEX images_of_label ON images(label);
CREATE INDEX predictions_of_image ON predictions(image_id);
CREATE INDEX predictions_of_class ON predictions(predicted);
CREATE INDEX top_patches_of_image ON top_patches(image_id);
"""
_QUERIES = {
    "classes": "SELECT class_id, name, wnid FROM classes ORDER BY class_id",
    "models": """
        SELECT model, architecture, parameters, receptive_field, stride, "rows", cols, "precision", weights_sha256
        FROM models ORDER BY receptive_field, model""",
    "images": "SELECT image_id, path, label, width, height, bytes, sha256 FROM images ORDER BY image_id",
    "rejects": "SELECT image_id, path, code, message FROM rejects ORDER BY image_id",
    "predictions": "SELECT model, image_id, predicted, probability, correct FROM predictions ORDER BY model, image_id",
    "image_evidence": """
        SELECT model, class_id, image_id, patch_id, "row", col, max_logit, mean_logit
        FROM image_evidence ORDER BY model, class_id, image_id""",
}


@dataclass(frozen=True)
class Contents:
    """What the database has beside images and predictions.

    Attributes:
        top: so many of each class's strongest patches, in images of the class and of others each, with their pictures.
        image_evidence: a row for each class and image: with 1,000 classes, 1,000 times as many as there are images.
    """

    top: int = 20
    image_evidence: bool = True


def write_sqlite(
    index: Questions, contents: Contents, path: Path, progress: Callable[[str, int, int], None]
) -> dict[str, int]:
    """Write the database.

    Args:
        index: whose.
        contents: what of it.
        path: a `.db`, `.sqlite` or `.sqlite3`.
        progress: hears of which table how many of how many rows are written.

    Returns:
        How many rows each table has.

    Raises:
        OutputError: another ending, there is something else at `path`, or the file cannot be written.
    """
    counts: dict[str, int] = {}
    output.check_ending(path, _ENDINGS)
    if path.exists() and not _is_ours(path):
        raise OutputError(f"{path} is no database that bagindex exported: give another name, or remove it")

    def write(temporary: Path) -> None:
        try:
            with closing(sqlite3.connect(temporary)) as database:
                database.executescript(f"PRAGMA application_id = {_APPLICATION}; {_FAST}" + _TABLES)
                if contents.image_evidence:
                    database.executescript(_EVIDENCE)
                for table, query in _QUERIES.items():
                    if table != "image_evidence" or contents.image_evidence:
                        counts[table] = _copy(index, database, table, query, progress)
                counts["top_patches"] = _insert(database, "top_patches", _top_patches(index, contents.top, progress))
                database.executescript(_INDEXES + "ANALYZE;")
                database.commit()
        except sqlite3.OperationalError as error:
            raise OSError(str(error)) from None

    output.save(path, dict.fromkeys(_ENDINGS, write))
    return counts


def _is_ours(path: Path) -> bool:
    """Whether a file is a database that was written here: only such a one is replaced."""
    try:
        with path.open("rb") as file:
            return int.from_bytes(file.read(72)[68:]) == _APPLICATION
    except OSError:
        return False


def _copy(
    index: Questions, database: sqlite3.Connection, table: str, query: str, progress: Callable[[str, int, int], None]
) -> int:
    catalog = index._catalog
    catalog.bind_views(query)
    total = int(catalog.rows(f"SELECT count(*) FROM {table}")[0][0])

    def seen() -> Iterator[Sequence[Any]]:
        for done, row in enumerate(catalog.stream(query), start=1):
            yield row
            if done % _CHUNK == 0 or done == total:
                progress(table, done, total)

    return _insert(database, table, seen())


def _insert(database: sqlite3.Connection, table: str, rows: Iterator[Sequence[Any]]) -> int:
    first = next(rows, None)
    if first is None:
        return 0
    statement = f"INSERT INTO {table} VALUES ({', '.join('?' * len(first))})"
    database.execute(statement, first)
    return 1 + max(0, database.executemany(statement, rows).rowcount)


def _top_patches(index: Questions, count: int, progress: Callable[[str, int, int], None]) -> Iterator[Sequence[Any]]:
    done, total = 0, len(index.models) * len(index.classes)
    for model in index.models if count else ():
        for record in index.classes:
            for wrong in (False, True):
                found = index.top_patches(record.class_id, wrong_class=wrong, k=count, model=model)
                try:
                    pictures = [render.to_png(Image.fromarray(crop)) for crop in found.crops()]
                except NotKeptError:
                    pictures = [None] * len(found)  # type: ignore[list-item]
                for patch, picture in zip(found, pictures, strict=True):
                    yield (
                        *(model, record.class_id, not wrong, patch.rank, patch.patch_id, patch.image_id, patch.logit),
                        *(patch.row, patch.col, *patch.box, picture),
                    )
            done += 1
            progress("top_patches", done, total)
