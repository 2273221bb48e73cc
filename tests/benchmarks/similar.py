"""Similar patches: making the FAISS index (seconds, memory, bytes), and questions with it and without (recall, times).

    python tests/benchmarks/similar.py INDEX [--ann auto] [--queries 200] [--json FILE]

The index for similar patches of INDEX is made again; it should be of one model with features.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from bagindex import Index
from common import PeakMemory, forget, machine, print_table, repeat, row, write_json

GOALS = {"seconds": 60.0, "share": 0.10, "recall": 0.99, "milliseconds": 10.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("index")
    parser.add_argument("--ann", default="auto")
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--make", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.make:
        print(json.dumps(make(options.index, options.ann)))
        return
    command = [sys.executable, __file__, options.index, "--ann", options.ann, "--make"]
    made = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    with Index.open(options.index) as index:
        rows = list(questions(index, options.queries))
    print(
        f"{made['what']}\npeak memory beyond what was imported: {made['memory'] / 1e9:.2f} GB; "
        f"{made['bytes']:,} bytes, {made['bytes'] / made['patches']:.0f} a patch, "
        f"{100 * made['share']:.2f} % of the features (goal {100 * GOALS['share']:.0f} %); "
        f"{made['seconds']:.1f} s (goal {GOALS['seconds']:.0f})\n"
    )
    print_table(rows)
    if options.json:
        write_json(options.json, {"machine": machine(), "made": made, "questions": rows})


def make(which: str, ann: str) -> dict[str, object]:
    """Make the index in this process: what was made, in which time and memory."""
    with Index.open(which) as index:
        index.similar(0, exact=True, k=1)  # everything is imported
        started = time.perf_counter()
        with PeakMemory() as memory:
            record = index.make_ann(ann)
        seconds = time.perf_counter() - started
        features = index.info().models[0].table_bytes["features"]
    return {
        "what": str(record),
        "seconds": seconds,
        "memory": memory.bytes,
        "bytes": record.bytes,
        "patches": record.patches,
        "share": record.bytes / features,
    }


def questions(index: Index, count: int):  # type: ignore[no-untyped-def]
    """A row for each kind of question."""
    patches = index.info().models[0].patches
    chosen = np.random.default_rng(7).choice(patches, count, replace=False).tolist()
    kinds: dict[str, dict[str, object]] = {
        "similar": {},
        "similar, overlap": {"overlap": True},
        "similar, other_images": {"other_images": True},
        "similar, k=100": {"k": 100},
    }
    for what, options in kinds.items():
        times, truth_times, agree, approximate = [], [], [], 0
        for patch in chosen:
            started = time.perf_counter()
            found = index.similar(patch, **options)  # type: ignore[arg-type]
            times.append(1000 * (time.perf_counter() - started))
            started = time.perf_counter()
            truth = index.similar(patch, exact=True, **options)  # type: ignore[arg-type]
            truth_times.append(1000 * (time.perf_counter() - started))
            same = {each.patch_id for each in found} & {each.patch_id for each in truth}
            agree.append(len(same) / max(1, len(truth)))
            approximate += not found.exact
        measured = row(what, times, None if options else GOALS["milliseconds"])
        yield {**measured, "recall": round(statistics.mean(agree), 4), "by_ann": approximate}
        yield {**row(f"{what}, exact", truth_times), "recall": None, "by_ann": 0}
    label = index.classes[0].name
    for what, filters in {"class_": {"class_": label}, "where": {"where": "width < height"}}.items():
        queries = iter(chosen)
        times = repeat(lambda: index.similar(next(queries), **filters), most=50)  # noqa: B023
        yield {**row(f"similar, {what}", times), "recall": None, "by_ann": 0}
    cold = []
    for patch in chosen[:20]:
        index.close()  # what is mapped stays in memory
        forget(index.path)
        cold += repeat(lambda: index.similar(patch), most=1, least=1)  # noqa: B023
    yield {**row("similar, index opened anew, not in the page cache", cold), "recall": None, "by_ann": 20}


if __name__ == "__main__":
    main()
