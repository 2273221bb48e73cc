"""What a question about evidence costs before and after `bagindex compact`.

    python tests/benchmarks/compact.py FOLDER [--images 50000] [--classes 1000] [--shard N]

generates FOLDER/index anew (see `generated.py`; `evidence` has a row for every patch and class, of all but every 50th
class zeros, which take no space), asks questions that read evidence, compacts it, asks them again, sees that the
answers are the same, prints a table and writes FOLDER/compact.json.

With 50,000 images and 1,000 classes the index takes 4 GB, and 58 GB of zeros are read and hashed three times over: some
minutes. What merging takes of a disk that holds them is so not measured, and the files are in the system's cache.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from bagindex import Index, compact
from common import Row, machine, print_table, repeat, row, write_json
from generated import ASKED, IMAGE_COUNT, OTHER, FileWithHoles, Size, generate

QUESTIONS: Mapping[str, str | dict[str, Any]] = {
    "top-patches, per_image=3": {"per_image": 3},
    "top-patches, wrong class, per_image=3": {"wrong_class": True, "per_image": 3},
    "top-patches, any image, k=100, per_image=3, overlap": {
        "any_class": True,
        "k": 100,
        "per_image": 3,
        "overlap": True,
    },
    "SQL: a class's strongest patch in each row of the grid": f"""
        SELECT "row", max(logit) AS logit FROM evidence WHERE class = '{ASKED}' GROUP BY 1 ORDER BY 1""",
    "SQL: by wrong class": f"""
        SELECT label_name, max(logit) AS logit FROM evidence WHERE class = '{ASKED}' AND NOT correct
        GROUP BY 1 ORDER BY 2 DESC, 1 LIMIT 20""",
    "SQL: one class against another": f"""
        SELECT patch_id, a.logit - b.logit AS margin FROM evidence AS a JOIN evidence AS b USING (patch_id)
        WHERE a.class = '{ASKED}' AND b.class = '{OTHER}' ORDER BY 2 DESC, 1 LIMIT 5""",
}


def ask(index: Index, question: str | dict[str, Any]) -> list[dict[str, Any]]:
    """The answer."""
    if isinstance(question, str):
        return list(index.sql(question).to_dicts())
    return list(index.top_patches(ASKED, **question).to_dicts())


def measure(folder: Path, when: str) -> tuple[list[Row], list[object]]:
    """Times of all questions, and what was answered."""
    rows, answers = [], []
    with Index.open(folder) as index:
        for name, question in QUESTIONS.items():
            answers.append(ask(index, question))
            rows.append(row(f"{name}, {when}", repeat(lambda question=question: ask(index, question), most=15)))  # type: ignore[misc]
    opened = repeat(lambda: _first(folder), most=9)
    return [*rows, row(f"open, and a first top-patches with per_image=3, {when}", opened)], answers


def _first(folder: Path) -> None:
    with Index.open(folder) as index:
        index.top_patches(ASKED, per_image=3)


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, default=IMAGE_COUNT)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--shard", type=int, help="images of a shard; by default as a build takes it")
    arguments = parser.parse_args()
    folder: Path = arguments.folder / "index"
    shutil.rmtree(folder, ignore_errors=True)
    generate(folder, size=Size(arguments.images, arguments.classes, shard=arguments.shard, every_patch=True))
    before, expected = measure(folder, "before")
    compact.ArrayFile = FileWithHoles  # type: ignore[misc, assignment, attr-defined]
    began = time.monotonic()
    with Index.open(folder) as index:
        done = index.compact()
    seconds = round(time.monotonic() - began, 1)
    after, found = measure(folder, "after")
    if found != expected:
        raise RuntimeError("the answers are others")
    counts = {
        "row_groups_before": done.row_groups_before,
        "row_groups_after": done.row_groups_after,
        "merged_bytes": done.bytes,
        "seconds": seconds,
    }
    rows = [each for pair in zip(before, after, strict=True) for each in pair]
    print_table(rows)
    print(counts)
    described = {"images": arguments.images, "classes": arguments.classes, **counts}
    write_json(arguments.folder / "compact.json", {"machine": machine(), **described, "rows": rows})


if __name__ == "__main__":
    main()
