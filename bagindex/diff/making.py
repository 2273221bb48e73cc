"""Two models of indexes are compared."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from bagindex.diff.drawing import FlippedImage
from bagindex.diff.evidence import Agreement, differences, same_patches
from bagindex.diff.matching import Side, joined, read_matched
from bagindex.diff.result import KINDS, Diff
from bagindex.diff.settings import differing
from bagindex.diff.vocabularies import compare_words
from bagindex.errors import QueryError
from bagindex.figures.maps import colour_limits, overlay
from bagindex.intervals import Paired

_FLIPS = f"""
SELECT CASE WHEN right_a AND NOT right_b THEN '{KINDS[0]}' WHEN right_b AND NOT right_a THEN '{KINDS[1]}'
            ELSE '{KINDS[2]}' END AS kind,
       path, a AS image_id_a, b AS image_id_b, label_a, label_b, predicted_a, predicted_b, probability_a, probability_b
FROM matched WHERE predicted_a <> predicted_b
ORDER BY list_position(['{"', '".join(KINDS)}'], kind), probability_b DESC, a
"""
_COUNTS = """
SELECT count(*), count(*) FILTER ({a}), count(*) FILTER ({b}), count(*) FILTER ({a} AND NOT {b}),
       count(*) FILTER ({b} AND NOT {a})
FROM matched WHERE label_a IS NOT NULL AND label_b IS NOT NULL
"""
_SETTINGS = pa.schema([("setting", pa.string()), ("a", pa.string()), ("b", pa.string())])
_EVIDENCE = pa.schema(
    [
        ("class", pa.string()),
        *((name, pa.float64()) for name in ("correlation", "relative_l2", "mean_change", "largest_change")),
        ("image_id_a", pa.int64()),
        ("cell", pa.int64()),
        ("rank_correlation", pa.float64()),
        ("top", pa.int64()),
        ("shared", pa.int64()),
        ("overlap", pa.float64()),
    ]
)


def make(a: Side, b: Side, k: int, progress: Callable[[int, int], None]) -> Diff:
    """Compare two models.

    Args:
        a, b: the two.
        k: how many of each class's strongest patches are compared.
        progress: hears how many of how many classes' evidence is compared.

    Raises:
        QueryError: they have no image in common, or `k` is out of range.
    """
    if k < 1:
        raise QueryError("-k starts at 1")
    with joined(a, b) as connection:
        matched = read_matched(connection, a, b)
        flips = connection.sql(_FLIPS).to_arrow_table()
        top1, top5 = _paired(connection, "right"), _paired(connection, "among")
        relabelled = connection.execute(
            "SELECT count(*) FROM matched WHERE label_a IS DISTINCT FROM label_b"
        ).fetchall()[0][0]
    why = same_patches(a, b)
    evidence = None if why else (a.index._stored_evidence(a.record), b.index._stored_evidence(b.record))
    found = list(differences(a, b, matched, k, evidence, progress))
    return Diff(
        a=a.name,
        b=b.name,
        settings=pa.Table.from_pylist(differing(a, b), schema=_SETTINGS),
        images=len(matched),
        by_path=int((~matched.same).sum()),
        only_a=matched.only_a,
        only_b=matched.only_b,
        classes=len(matched.classes),
        classes_a=matched.classes_a,
        classes_b=matched.classes_b,
        relabelled=int(relabelled),
        top1=top1,
        top5=top5,
        flips=flips,
        evidence=pa.Table.from_pylist([each.to_dict() for each in found], schema=_EVIDENCE),
        whole=_whole([each.agreement for each in found], [each.shared / each.top for each in found]),
        patches=why,
        words_compared=compare_words(a, b),
        _pictures=lambda rows: [_flipped(a, b, row) for row in rows],
    )


def _paired(connection: duckdb.DuckDBPyConnection, what: str) -> Paired | None:
    """How often both have a label right, or among the first five; None where no image has labels on both sides."""
    row = connection.execute(_COUNTS.format(a=f"{what}_a", b=f"{what}_b")).fetchall()[0]
    return Paired(*map(int, row)) if row[0] else None


def _whole(agreements: Sequence[Agreement], overlaps: Sequence[float]) -> Mapping[str, float | None]:
    """Of all classes together; nothing where they have no class in common."""
    if not agreements:
        return {}
    every = Agreement()
    for each in agreements:
        every.merge(each)
    return {
        "evidence, correlation": every.correlation,
        "evidence, relative L2 norm of the change": every.relative,
        "evidence, mean change": every.shift,
        "evidence, largest change": every.largest,
        "strongest patches of a class that are the same, mean share": float(np.mean(overlaps)),
    }


def _flipped(a: Side, b: Side, row: Mapping[str, Any]) -> FlippedImage:
    pictures, lines = [], []
    for side, name in ((a, "a"), (b, "b")):
        evidence = side.index._evidence_of(row[f"image_id_{name}"], side.record.name)
        grid, pixels = side.record.grid, evidence.pixels
        if name == "a" and pixels is not None:
            pictures.append(np.array(pixels))
            label = row["label_a"]
            lines.append((row["kind"], "unlabelled" if label is None else f"labelled {label}"))
        values = evidence.patches([side.index.find_class(row[f"predicted_{name}"]).class_id])
        limit = float(colour_limits(values)[0])
        first, beneath = (grid.border, grid.border), "none" if pixels is None else "edges"
        pictures.append(overlay(values[0], limit, evidence.shape, first, grid.stride, pixels, beneath))
        lines.append((f"{row[f'predicted_{name}']}, {100 * row[f'probability_{name}']:.1f} %", side.name))
    return FlippedImage(row["kind"], tuple(pictures), tuple(lines))
