"""A whole build against a BagNet as one writes it from the paper, and against our own model alone.

    python tests/benchmarks/build.py SOURCE --weights FILE [--images 256] [--rounds 3] [--out FOLDER]

SOURCE and FILE are what `bagindex build` takes, of a model of full width. Each figure is taken in a process of its own,
and every round takes each of them once, so that a machine that is busier for a while is so for all. The build goes from
files to committed shards with everything kept; the plain model and our own one only run forward, on the same images,
decoded before. Prints a table and writes FOLDER/build.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import machine, print_table, write_json

PLAIN_BATCHES = (1, 2, 4, 8, 64)
PAPER_BATCH = 64
GOALS = {"fp32": (3.0, 1.3, 0.85), "bf16": (6.5, 2.6, 0.75)}
"""Of a build: times the plain model at the paper's batch, times it at its best batch, share of our model alone."""
SECONDS = 6.0


def plain(arguments: argparse.Namespace) -> float:
    """Images per second of the plain model at a batch size, forward, float32."""
    import torch

    import plain as yardstick
    from bagindex.weights import read_checkpoint

    checkpoint = read_checkpoint(Path(arguments.weights))
    model = yardstick.load(dict(checkpoint.state), checkpoint.architecture.receptive_field)
    return yardstick.rate(model, torch.from_numpy(inputs(arguments, arguments.batch)), arguments.batch, SECONDS)


def alone(arguments: argparse.Namespace) -> float:
    """Images per second of our own model as a build runs it, but forward only."""
    import torch

    from bagindex.observer import BuildObserver
    from bagindex.prepare import ModelOptions, open_models
    from bagindex.stages import in_order

    (base,) = open_models([], [arguments.weights], ModelOptions(), BuildObserver())
    compute: Any = base.at(arguments.precision)
    size, height, width = compute.environment.batch_size, *compute._seen
    images = torch.from_numpy(inputs(arguments, 16))[:, :, :height, :width].to(compute._model.stem.weight.dtype)
    batches = [
        images[start : start + size].contiguous(memory_format=torch.channels_last) for start in range(0, 16, size)
    ]

    def run(number: int) -> int:
        with torch.inference_mode():
            compute._model(batches[number % len(batches)])
        return size

    with compute.pool() as pool:
        list(in_order(pool, run, range(2 * compute.workers), compute.workers))
        began, done = time.perf_counter(), 0
        for count in in_order(pool, run, iter(int, 1), 2 * compute.workers):
            done += count
            if time.perf_counter() - began > SECONDS:
                return done / (time.perf_counter() - began)
    raise AssertionError("the loop ends by itself only")


def inputs(arguments: argparse.Namespace, least: int) -> Any:
    """At least so many of the images as normalised model inputs, float32 [N, 3, 224, 224]."""
    import numpy as np

    from bagindex.decoding import Decoder
    from bagindex.images import Rejected
    from bagindex.observer import BuildObserver
    from bagindex.plan import spread
    from bagindex.sources.opening import SourceOptions, open_source
    from bagindex_schemas.records import Transform

    source = open_source(SourceOptions(arguments.source), BuildObserver())
    transform = Transform(resize=256, crop_height=224, crop_width=224)
    entries = [source.entries[i] for i in spread(len(source.entries), max(least, 16))]
    decoded = (picture for _, picture in Decoder(1).decode(source, entries, transform))
    pixels = np.stack([picture.pixels for picture in decoded if not isinstance(picture, Rejected)])
    normalised = (pixels.astype(np.float32) / 255 - np.float32(transform.mean)) / np.float32(transform.std)
    return np.ascontiguousarray(normalised.transpose(0, 3, 1, 2))


def build(arguments: argparse.Namespace) -> float:
    """Images per second from the first file to the last committed shard."""
    from bagindex import Index

    folder = Path(tempfile.mkdtemp(dir=arguments.out))
    try:
        index = Index.build(
            arguments.source,
            weights=arguments.weights,
            precision=arguments.precision,
            limit=arguments.images,
            out=folder / "index",
        )
        if index.build_report is None or index.build_report.images_per_second is None:
            raise RuntimeError("nothing was built")
        return index.build_report.images_per_second
    finally:
        shutil.rmtree(folder)


TASKS: dict[str, Callable[[argparse.Namespace], float]] = {"plain": plain, "alone": alone, "build": build}


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--task", choices=TASKS, help=argparse.SUPPRESS)
    parser.add_argument("--batch", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--precision", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(TASKS[arguments.task](arguments)))
        return
    kinds = [("plain", "--batch", batch) for batch in PLAIN_BATCHES]
    kinds += [(task, "--precision", precision) for precision in GOALS for task in ("alone", "build")]
    rates: dict[tuple[str, Any], list[float]] = {(task, value): [] for task, _, value in kinds}
    started = machine()
    for number in range(arguments.rounds):
        for task, option, value in kinds:
            command = [sys.executable, __file__, *sys.argv[1:], "--task", task, option, str(value)]
            found = float(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()[-1])
            rates[task, value].append(found)
            print(f"round {number + 1}: {task} {value}: {found:.1f} images/s", file=sys.stderr, flush=True)
    medians = {key: statistics.median(values) for key, values in rates.items()}
    best = max(PLAIN_BATCHES, key=lambda batch: medians["plain", batch])
    rows: list[dict[str, object]] = [
        {"what": _name(*key), "images_per_s": round(medians[key], 1), "least": round(min(values), 1)}
        | {"most": round(max(values), 1), "n": len(values)}
        for key, values in rates.items()
    ]
    ratios: list[dict[str, object]] = []
    for precision, goals in GOALS.items():
        beside = {
            f"plain, batch {PAPER_BATCH}": ("plain", PAPER_BATCH),
            f"plain, its best batch ({best})": ("plain", best),
            f"our model alone, {precision}": ("alone", precision),
        }
        for (what, key), goal in zip(beside.items(), goals, strict=True):
            ratio = medians["build", precision] / medians[key]
            ratios.append(
                {"build": precision, "against": what, "ratio": round(ratio, 2), "goal": goal, "met": ratio >= goal}
            )
    print_table(rows)
    print()
    print_table(ratios)
    write_json(arguments.out / "build.json", {"machine": started, "rates": rows, "ratios": ratios})


def _name(task: str, value: object) -> str:
    return {
        "plain": f"plain model, forward, fp32, batch {value}",
        "alone": f"our model, forward, {value}",
        "build": f"whole build, {value}",
    }[task]


if __name__ == "__main__":
    main()
