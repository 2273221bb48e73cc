"""Which images and classes of two indexes are the same, and what either has alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import duckdb
import numpy as np
from numpy.typing import NDArray

from bagindex.catalog import Catalog
from bagindex.errors import QueryError
from bagindex_schemas.records import ClassRecord, ModelRecord

if TYPE_CHECKING:
    from bagindex.opened import Opened

_BATCH = 100_000
"""Rows that go from one DuckDB to another at a time."""
_MATCH = """
CREATE TABLE by_content AS
    SELECT one.image_id AS a, other.image_id AS b
    FROM (SELECT image_id, sha256, row_number() OVER same_content AS turn FROM a WINDOW same_content AS
          (PARTITION BY sha256 ORDER BY path, image_id)) AS one
    JOIN (SELECT image_id, sha256, row_number() OVER same_content AS turn FROM b WINDOW same_content AS
          (PARTITION BY sha256 ORDER BY path, image_id)) AS other USING (sha256, turn);
CREATE TABLE pairs AS
    SELECT a, b, true AS same FROM by_content
    UNION ALL
    SELECT one.image_id, other.image_id, false
    FROM (FROM a ANTI JOIN by_content ON by_content.a = a.image_id) AS one
    JOIN (FROM b ANTI JOIN by_content ON by_content.b = b.image_id) AS other USING (path);
CREATE TABLE matched AS
    SELECT pairs.a, pairs.b, pairs.same, one.path, one.label AS label_a, other.label AS label_b,
           one.predicted AS predicted_a, other.predicted AS predicted_b,
           one.probability AS probability_a, other.probability AS probability_b,
           one.is_right AS right_a, other.is_right AS right_b, one.among AS among_a, other.among AS among_b
    FROM pairs JOIN a AS one ON one.image_id = pairs.a JOIN b AS other ON other.image_id = pairs.b;
"""


@dataclass(frozen=True, eq=False)
class Side:
    """One of the two that are compared: a model of an index.

    Attributes:
        index: the index.
        catalog: its catalog.
        record: the model.
    """

    index: Opened
    catalog: Catalog
    record: ModelRecord

    @property
    def name(self) -> str:
        """What it is called, for people."""
        return f"{self.index.name}:{self.record.name}"

    @property
    def classes(self) -> tuple[ClassRecord, ...]:
        """Its classes, in the order of the logits."""
        return self.catalog.manifest.plan.classes


@dataclass(frozen=True, eq=False)
class Matched:
    """What of two sides is the same.

    Attributes:
        a, b: ids of the matched images, int64 [M] each, by ascending ids of the first.
        same: whether their files have the same content, bool [M]; others have the same path.
        only_a, only_b: how many images either side has alone.
        classes: pairs of the ids of the classes that have the same name.
        classes_a, classes_b: names of classes that either side has alone.
    """

    a: NDArray[np.int64]
    b: NDArray[np.int64]
    same: NDArray[np.bool_]
    only_a: int
    only_b: int
    classes: tuple[tuple[int, int], ...]
    classes_a: tuple[str, ...]
    classes_b: tuple[str, ...]

    def __len__(self) -> int:
        """How many images are matched."""
        return len(self.a)


@contextmanager
def joined(a: Side, b: Side) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory with what both sides have of each image, and table `matched` with both beside each other.
    Images are the same by their files' content, the first of several with the first; what is left, by the path.
    """
    with duckdb.connect() as connection:
        for name, side in (("a", a), ("b", b)):
            _copy(connection, name, side)
        connection.execute(_MATCH)
        yield connection


def _copy(connection: duckdb.DuckDBPyConnection, name: str, side: Side) -> None:
    """Images of one side, with what was predicted, by the names of the classes."""
    sql = f"""
        SELECT i.image_id, i.path, i.sha256, i.label_name AS label, c.name AS predicted, p.probability,
               i.label = p.predicted AS is_right, list_contains(p.top5, i.label) AS among
        FROM images AS i JOIN {side.catalog.relation(side.record, "predictions")} AS p USING (image_id)
        JOIN classes AS c ON c.class_id = p.predicted"""
    with side.catalog.readable() as source:
        incoming = source.sql(sql).to_arrow_reader(_BATCH)
        connection.register("incoming", incoming)
        connection.execute(f"CREATE TABLE {name} AS FROM incoming")
        connection.unregister("incoming")


def read_matched(connection: duckdb.DuckDBPyConnection, a: Side, b: Side) -> Matched:
    """What `joined` found.

    Raises:
        QueryError: the two have no image in common.
    """
    rows = connection.execute("SELECT a, b, same FROM matched ORDER BY a").fetchnumpy()
    if not len(rows["a"]):
        raise QueryError(f"{a.name} and {b.name} have no image in common, neither by content nor by path")
    counts = connection.execute("SELECT (SELECT count(*) FROM a), (SELECT count(*) FROM b)").fetchall()[0]
    classes, classes_a, classes_b = match_names(a.classes, b.classes)
    return Matched(
        a=np.asarray(rows["a"], np.int64),
        b=np.asarray(rows["b"], np.int64),
        same=np.asarray(rows["same"], np.bool_),
        only_a=int(counts[0]) - len(rows["a"]),
        only_b=int(counts[1]) - len(rows["a"]),
        classes=classes,
        classes_a=classes_a,
        classes_b=classes_b,
    )


def match_names(
    a: Sequence[ClassRecord], b: Sequence[ClassRecord]
) -> tuple[tuple[tuple[int, int], ...], tuple[str, ...], tuple[str, ...]]:
    """Classes of the same name, as pairs of ids, and the names that either side has alone."""
    ids_a, ids_b = ({record.name: record.class_id for record in records} for records in (a, b))
    return (
        tuple((class_id, ids_b[name]) for name, class_id in ids_a.items() if name in ids_b),
        tuple(name for name in ids_a if name not in ids_b),
        tuple(name for name in ids_b if name not in ids_a),
    )
