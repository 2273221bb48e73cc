"""What safe SQL costs over SQL in this process.

    python tests/benchmarks/sandbox.py INDEX [--json FILE]

INDEX needs visual words.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import suppress
from pathlib import Path

from bagindex import Index
from bagindex.sandbox.pool import Limits, SqlPool, TimeLimitError
from common import Row, machine, print_table, repeat, row, write_json

CALLS = 50
GOAL = 5.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("index", type=Path)
    parser.add_argument("--json", type=Path, default=Path("sandbox.json"))
    arguments = parser.parse_args()
    rows: list[Row] = []
    with Index.open(arguments.index) as index, SqlPool(index.path, workers=1, limits=Limits(seconds=60)) as pool:
        name = index.classes[0].name
        for what, sql in {
            "one row": "SELECT 1",
            "accuracy by class": "SELECT label_name, avg(correct::INTEGER) AS accuracy FROM predictions GROUP BY 1",
            "confusions": "FROM confusions()",
            "strongest of a class": f"FROM evidence_of('{name}') ORDER BY logit DESC LIMIT 10",
            "evidence by row": f"SELECT \"row\", avg(logit) FROM evidence WHERE class = '{name}' GROUP BY 1",
            "words of a class": f"FROM words_of('{name}') ORDER BY right_contribution DESC LIMIT 10",
            "1,000 rows of evidence": "FROM evidence LIMIT 1000",
            "10,000 rows of evidence": "FROM evidence LIMIT 10000",
        }.items():
            here, there = [], []
            for _ in range(CALLS):  # in turn, so that the machine's moods are shared
                for found, work in ((here, lambda sql=sql: index.sql(sql)), (there, lambda sql=sql: pool.run(sql))):
                    found += repeat(work, most=1, least=1)
            rows += [row(f"{what}: here", here), row(f"{what}: safe", there)]
            extra = statistics.median(there) - statistics.median(here)
            rows.append(row(f"{what}: difference of the medians", [extra], GOAL))
    starts = []
    for _ in range(10):
        with SqlPool(arguments.index, workers=1) as pool:
            pool.run("SELECT 1")
            starts.append(pool.processes[0].start_milliseconds)
    rows.append(row("start of a worker", starts))
    with SqlPool(arguments.index, workers=1, limits=Limits(seconds=0.5)) as pool:
        replaced = []
        for _ in range(5):
            with suppress(TimeLimitError):
                pool.run("SELECT 1")
            began = time.perf_counter()
            with suppress(TimeLimitError):
                pool.run("SELECT count(*) FROM range(1000000000000)")
            replaced.append((time.perf_counter() - began) * 1000 - 500)
    rows.append(row("stopping a query, beyond its 500 ms", replaced))
    print_table(rows)
    write_json(arguments.json, {"machine": machine(), "rows": rows})


if __name__ == "__main__":
    main()
