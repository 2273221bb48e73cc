"""Builds by Ray, with one worker and two, against a build in one process.

    python tests/benchmarks/engines.py SOURCE --weights FILE [--images 256] [--rounds 3] [--device auto] [--out FOLDER]

SOURCE and FILE are what `bagindex build` takes. Every round builds the same images with everything kept: in one
process, with one worker of Ray's that has all cores, with two that share them, and with two of which one is killed
in the middle. Images per second are from the time when the first worker is ready to the last committed shard; starting
Ray and loading models is told on its own. Whether the files are the same, byte by byte, is checked each time. Prints a
table and writes FOLDER/engines.json.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from common import machine, print_table, write_json

KINDS = ("local", "ray, 1 worker", "ray, 2 workers", "ray, 2 workers, one killed")


def build(arguments: argparse.Namespace) -> dict[str, float]:
    """Build once, in this process; what was measured."""
    from bagindex import Index

    workers = {KINDS[1]: 1, KINDS[2]: 2, KINDS[3]: 2}.get(arguments.kind)
    options: dict[str, Any] = {} if workers is None else {"engine": "ray", "workers": workers}
    if arguments.kind == KINDS[3]:
        threading.Thread(target=_kill, args=(arguments.out / "index",), daemon=True).start()
    started = time.perf_counter()
    index = Index.build(
        arguments.source,
        weights=arguments.weights,
        limit=arguments.images,
        device=arguments.device,
        precision=arguments.precision,
        out=arguments.out / "index",
        ann="none",
        **options,
    )
    seconds = time.perf_counter() - started
    report = index.build_report
    if report is None or report.images_per_second is None:
        raise RuntimeError("nothing was built")
    return {"images_per_s": report.images_per_second, "whole_s": seconds, "computing_s": report.seconds}


def _kill(index: Path) -> None:
    """Kill one of this build's workers once a shard is committed: they write into folders of the index."""
    while not list(index.glob("*/shard-?????")):
        time.sleep(0.05)
    os.kill(_workers()[0], signal.SIGKILL)


def _workers() -> list[int]:
    """Ray's workers below this process."""
    parents: dict[int, int] = {}
    names: dict[int, bytes] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parents[int(folder.name)] = int((folder / "stat").read_bytes().rpartition(b")")[2].split()[1])
                names[int(folder.name)] = (folder / "cmdline").read_bytes()
            except OSError:  # it has ended
                continue

    def ours(process: int) -> bool:
        while process > 1 and process != os.getpid():
            process = parents.get(process, 0)
        return process == os.getpid()

    return sorted(process for process, name in names.items() if name.startswith(b"ray::Worker") and ours(process))


def digest(folder: Path) -> str:
    """Of all committed files and index.json."""
    found = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.suffix != ".duckdb" and path.name not in ("LOCK", "CURRENT"):
            found.update(f"{path.relative_to(folder)} {hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
    return found.hexdigest()


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("source")
    parser.add_argument("--weights", required=True)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--out", type=Path, default=Path())
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.kind:
        print(json.dumps(build(arguments)))
        return
    started = machine()
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in KINDS}
    digests: dict[str, set[str]] = {kind: set() for kind in KINDS}
    for number in range(arguments.rounds):
        for kind in KINDS:
            with tempfile.TemporaryDirectory(dir=arguments.out) as folder:
                command = [sys.executable, __file__, *sys.argv[1:], "--out", folder, "--kind", kind]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout.splitlines()
                found[kind].append(json.loads(output[-1]))
                digests[kind].add(digest(Path(folder) / "index"))
            print(f"round {number + 1}: {kind}: {found[kind][-1]}", file=sys.stderr, flush=True)
    rates = {kind: statistics.median(each["images_per_s"] for each in runs) for kind, runs in found.items()}
    rows: list[dict[str, object]] = [
        {
            "engine": kind,
            "images_per_s": round(rates[kind], 2),
            "least": round(min(each["images_per_s"] for each in runs), 2),
            "most": round(max(each["images_per_s"] for each in runs), 2),
            "of_local": round(rates[kind] / rates[KINDS[0]], 2),
            "starting_s": round(statistics.median(each["whole_s"] - each["computing_s"] for each in runs), 1),
            "n": len(runs),
            "same_bytes": digests[kind] == digests[KINDS[0]] and len(digests[kind]) == 1,
        }
        for kind, runs in found.items()
    ]
    print_table(rows)
    write_json(arguments.out / "engines.json", {"machine": started, "images": arguments.images, "rates": rows})


if __name__ == "__main__":
    main()
