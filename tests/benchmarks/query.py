"""Questions to an index of ImageNet-val's size: 50,000 images, 1,000 classes, BagNet-33's grid of 24 × 24 patches.

    python tests/benchmarks/query.py FOLDER

generates FOLDER/index where it is not there yet (2.5 GB, a minute, 3 GB of memory; see `generated.py` for what is in it
and what is not), times opening it, top-patches by every filter, README's SQL examples and the command, prints a table
and writes FOLDER/query.json.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from bagindex import Index
from common import Row, forget, machine, print_table, repeat, row, write_json
from generated import ASKED, CLASSES, IMAGE_COUNT, OTHER, WHOLE, generate

Options = dict[str, Any]
"""Arguments of `Index.top_patches`."""

FROM_IMAGE_EVIDENCE = 10.0
FROM_EVIDENCE = 1000.0
OPENING = 50.0
COMMAND = 600.0
"""Goals, in milliseconds, on two cores."""


def sql_examples() -> list[str]:
    """README's examples, about classes that ImageNet has."""
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    blocks = re.findall(r"^```sql\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)
    queries = [query.strip() for block in blocks for query in block.split(";") if query.strip()]
    return [query.replace("'fish'", f"'{ASKED}'").replace("'tree'", f"'{OTHER}'") for query in queries]


def check(index: Index) -> None:
    """Stop unless top-patches from `image_evidence` is what plain SQL over `evidence` gives."""
    for class_id in WHOLE[:3]:
        name = CLASSES[class_id].name
        asked: dict[str, Options] = {
            "correct": {"right_class": True},
            "NOT correct": {"wrong_class": True},
            "true": {"any_class": True},
        }
        for condition, options in asked.items():
            rows = index.sql(
                f"""
                WITH strongest AS (
                    SELECT image_id, max(logit) AS logit FROM evidence
                    WHERE class_id = {class_id} AND {condition} GROUP BY image_id
                )
                SELECT min(e.patch_id) AS patch_id, e.logit FROM evidence AS e JOIN strongest USING (image_id, logit)
                WHERE class_id = {class_id} GROUP BY image_id, e.logit ORDER BY e.logit DESC, patch_id LIMIT 100"""
            ).to_dicts()
            found = [(patch.patch_id, patch.logit) for patch in index.top_patches(name, k=100, **options)]
            if found != [(each["patch_id"], each["logit"]) for each in rows]:
                raise RuntimeError(f"{name}, {condition}: image_evidence and evidence give two answers")


def top_patches_questions() -> dict[str, tuple[Options, float]]:
    """Arguments and goal of each question."""
    fast: dict[str, Options] = {
        "right class": {},
        "wrong class": {"wrong_class": True},
        "any image": {"any_class": True},
        f"wrong class, predicted as {ASKED}": {"wrong_class": True, "predicted_as": ASKED},
        "wrong class, misclassified": {"wrong_class": True, "misclassified": True},
        "wrong class, where path LIKE": {"wrong_class": True, "where": "path LIKE '%7.JPEG'"},
        "wrong class, where width": {"wrong_class": True, "where": "width > 500"},
        "wrong class, where probability": {"wrong_class": True, "where": "probability > 0.9"},
        "wrong class, where predicted_name": {"wrong_class": True, "where": "predicted_name LIKE '%fish%'"},
        "wrong class, all of them": {
            "wrong_class": True,
            "predicted_as": ASKED,
            "misclassified": True,
            "where": "width > 300 AND probability < 0.9",
        },
        "wrong class, k=100": {"wrong_class": True, "k": 100},
    }
    slow: dict[str, Options] = {
        "right class, per_image=3": {"per_image": 3},
        "wrong class, per_image=3": {"wrong_class": True, "per_image": 3},
        "any image, per_image=3, overlap": {"any_class": True, "per_image": 3, "overlap": True},
        "wrong class, k=100, per_image=3": {"wrong_class": True, "k": 100, "per_image": 3},
    }
    return {name: (options, FROM_IMAGE_EVIDENCE) for name, options in fast.items()} | {
        name: (options, FROM_EVIDENCE) for name, options in slow.items()
    }


FRESH = """
import json, sys, time
folder, class_, options = json.loads(sys.argv[1])
times = [time.perf_counter()]
def lap():
    times.append(time.perf_counter())
from bagindex import Index
import duckdb, bagindex.catalog, bagindex.top_patches
lap()
index = Index.open(folder)
index.top_patches(class_, **options)
lap()
index.top_patches(class_, **options)
lap()
import pyarrow
lap()
index.sql("SELECT count(*) FROM images")
lap()
print(json.dumps([1000 * (after - before) for before, after in zip(times, times[1:])]))
"""
"""A process that asks once, twice, and then in SQL; prints milliseconds."""


def fresh(folder: Path, options: Options) -> list[float]:
    """Milliseconds of each step of `FRESH`."""
    line = [sys.executable, "-c", FRESH, json.dumps([str(folder), ASKED, options])]
    found: list[float] = json.loads(subprocess.run(line, check=True, stdout=subprocess.PIPE).stdout)
    return found


def command(folder: Path, *words: str) -> Callable[[], object]:
    """The command `bagindex` as a whole process."""
    line = [sys.executable, "-m", "bagindex_cli", *words, "-i", str(folder)]
    return lambda: subprocess.run(line, check=True, stdout=subprocess.DEVNULL)


def measure(folder: Path) -> Iterator[Row]:
    """All rows of the table."""

    def opening() -> None:
        with Index.open(folder) as opened:
            opened.sql("SELECT count(*) FROM images")

    def opening_and_asking() -> None:
        with Index.open(folder) as opened:
            opened.top_patches(ASKED, wrong_class=True)

    yield row("open: Index.open", repeat(lambda: Index.open(folder)), OPENING)
    yield row("open: and count the images", repeat(opening), OPENING)
    yield row("open: and top-patches, wrong class", repeat(opening_and_asking), OPENING)
    with Index.open(folder) as index:
        for name, (options, goal) in top_patches_questions().items():
            ask = _question(index, options)
            ask()
            yield row(f"top-patches: {name}", repeat(ask), goal)
        answer = index.top_patches(ASKED, wrong_class=True, k=100)
        yield row("to_arrow, 100 patches", repeat(answer.to_arrow))
        yield row("print, 100 patches", repeat(lambda: str(answer)))
        for query in sql_examples():
            title = query.splitlines()[0].removeprefix("-- ")
            yield row(f"sql: {title}", repeat(_query(index, query), most=9, seconds=30))
    yield from _fresh_rows(folder)
    wrong_class = command(folder, "top-patches", ASKED, "--wrong-class")
    several = command(folder, "top-patches", ASKED, "--per-image", "3")
    yield row("command: top-patches --wrong-class", repeat(wrong_class, most=20), COMMAND)
    yield row("command: top-patches --per-image 3", repeat(several, most=10))
    if hasattr(os, "posix_fadvise"):
        cold = []
        for _ in range(9):
            forget(folder)
            cold += repeat(wrong_class, most=1, least=1)
        yield row("command: top-patches --wrong-class, index not in the page cache", cold, COMMAND)


def _fresh_rows(folder: Path) -> list[Row]:
    rows = []
    imports, first, again, arrow, sql = zip(*(fresh(folder, {"wrong_class": True}) for _ in range(9)), strict=True)
    rows.append(row("fresh process: import bagindex and DuckDB", imports))
    rows.append(row("fresh process: open and top-patches, wrong class", first, OPENING))
    rows.append(row("fresh process: the same question again", again, FROM_IMAGE_EVIDENCE))
    rows.append(row("fresh process: import PyArrow, for SQL", arrow))
    rows.append(row("fresh process: count the images in SQL", sql))
    _, first, again, _, _ = zip(*(fresh(folder, {"per_image": 3}) for _ in range(9)), strict=True)
    rows.append(row("fresh process: open and top-patches, per_image=3", first, FROM_EVIDENCE))
    rows.append(row("fresh process: the same question again", again, FROM_EVIDENCE))
    return rows


def _question(index: Index, options: Options) -> Callable[[], object]:
    return lambda: index.top_patches(ASKED, **options)


def _query(index: Index, query: str) -> Callable[[], object]:
    return lambda: index.sql(query)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    folder: Path = arguments.folder / "index"
    began = time.monotonic()
    generate(folder)
    generated = round(time.monotonic() - began, 1)
    with Index.open(folder) as index:
        check(index)
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    print(f"{IMAGE_COUNT:,} images, {len(CLASSES):,} classes, {size / 1e9:.1f} GB, generated or found in {generated} s")
    described = machine()
    print(json.dumps(described))
    rows = []
    for each in measure(folder):
        rows.append(each)
        print(f"{each['what']}: {each['median_ms']} ms", file=sys.stderr, flush=True)
    print_table(rows)
    write_json(arguments.folder / "query.json", {"machine": described, "index_bytes": size, "rows": rows})


if __name__ == "__main__":
    main()
