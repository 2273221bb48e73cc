"""Break things on purpose, at length: `python tests/faults/run.py FOLDER [FAULT ...] [--part 0.1] [--jobs 8]`.

Prints a row for each fault, then each problem that was found, and writes both to FOLDER/faults.json, which grows with
every fault. Exit status 1 where there are problems.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_TESTS = Path(__file__).resolve().parent.parent
# Also where this is read again, in a process of a pool.
sys.path[:] = [str(_TESTS), *(place for place in sys.path if place not in (str(_TESTS), str(_TESTS / "faults")))]

from benchmarks.common import machine  # noqa: E402
from faults import (  # noqa: E402
    archives,
    builders,
    changes,
    clocks,
    cuts,
    damage,
    decoders,
    disks,
    failpoints,
    fuzz,
    hostile,
    kills,
    pictures,
    readers,
    real,
    served,
    signals,
    soak,
)
from faults.common import Outcome  # noqa: E402
from faults.shares import VARIABLE, How, Share  # noqa: E402

Fault = Callable[[Path, int, int], Outcome]
"""Given an empty folder, a number of trials and a seed."""

FAULTS: Mapping[str, tuple[Fault, int, How]] = {
    "kills": (kills.torch_free, 2_000, "trials"),
    "real-kills": (real.builds, 200, "trials"),
    "workers": (real.workers, 20, "trials"),
    "states": (failpoints.every_state, 1, "once"),
    "failpoints": (failpoints.killed, 100_000, "points"),
    "cuts": (cuts.cuts, 500, "once"),
    "cuts-after-kills": (cuts.after_kills, 100, "trials"),
    "failing-disks": (disks.failing, 100_000, "points"),
    "short-writes": (disks.short, 100_000, "points"),
    "limits": (disks.limits, 1, "once"),
    "truncations": (damage.truncations, 100_000, "once"),
    "flips": (damage.flips, 10_000, "trials"),
    "misplaced": (damage.misplaced, 1_000, "once"),
    "hostile-weights": (hostile.weights, 1_000, "once"),
    "hostile-indexes": (hostile.indexes, 1_000, "once"),
    "fuzzed": (fuzz.fuzz, 20_000, "trials"),
    "builders": (builders.builders, 40, "trials"),
    "readers": (readers.readers, 30, "trials"),
    "served": (served.serve, 30, "trials"),
    "soak": (soak.soak, 20 * 60, "once"),
    "bad-input": (pictures.kinds, 20, "trials"),
    "jpeg-truncations": (pictures.truncations, 100_000, "once"),
    "picture-flips": (pictures.flips, 5_000, "trials"),
    "largest-pictures": (pictures.largest, 5, "once"),
    "archive-members": (archives.members, 5, "once"),
    "archives": (archives.archives, 5_000, "trials"),
    "changed-sources": (changes.changes, 120, "trials"),
    "decoders": (decoders.decoders, 35, "trials"),
    "signals": (signals.signals, 45, "trials"),
    "memory": (signals.memory, 20, "trials"),
    "clock": (clocks.clocks, 4, "once"),
}
"""Each fault, how many trials the long run makes of it, and what a process's share of them is."""


def main() -> int:
    """Run the faults that are asked for, one after the other, in one process or in several."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the indexes to be broken are made; it must not exist")
    parser.add_argument("faults", nargs="*", choices=[[], *FAULTS], metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--part", type=float, default=1.0, help="so much of the long run's trials")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=1, help="so many processes at once, each with its share")
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)
    if asked.jobs > 1:
        outcomes = _shared(asked.folder, asked.faults, asked.part, asked.seed, asked.jobs)
        for outcome in outcomes:
            _show(outcome)
        _write(asked.folder, asked.seed, outcomes)
    else:
        outcomes = _run(asked.folder, asked.faults or list(FAULTS), asked.part, asked.seed)
    return int(any(outcome.problems for outcome in outcomes))


def _run(folder: Path, faults: Sequence[str], part: float, seed: int) -> list[Outcome]:
    """This process's share of faults."""
    outcomes: list[Outcome] = []
    for number, name in enumerate(faults):
        fault, trials, how = FAULTS[name]
        mine = Share.here().trials(how, number, max(1, round(part * trials)), seed)
        if mine is None:
            continue
        place = folder / name
        place.mkdir()
        outcomes.append(fault(place, *mine))
        _show(outcomes[-1])
        _write(folder, seed, outcomes)
    return outcomes


def _shared(folder: Path, faults: Sequence[str], part: float, seed: int, jobs: int) -> list[Outcome]:
    """The faults in several processes, put together; a process that ends without its faults is a problem of its own."""
    processes = []
    for index in range(jobs):
        place = folder / f"share-{index}"
        command = [sys.executable, __file__, str(place), *faults, "--part", str(part), "--seed", str(seed)]
        with folder.joinpath(f"share-{index}.log").open("wb") as log:
            environment = {**os.environ, VARIABLE: str(Share(index, jobs)), "OMP_NUM_THREADS": "1"}
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
    crashed = []
    try:
        crashed = [index for index, process in enumerate(processes) if process.wait() not in (0, 1)]
    except KeyboardInterrupt:  # what is done by then counts
        for process in processes:
            process.terminate()
    found: dict[str, Outcome] = {}
    for path in sorted(folder.glob("share-*/faults.json")):
        for record in json.loads(path.read_text())["faults"]:
            outcome = found.setdefault(record["fault"], Outcome(record["fault"]))
            outcome.trials += record["trials"]
            outcome.counts.update(record["counts"])
            outcome.problems += record["problems"]
            outcome.seconds = max(outcome.seconds, record["seconds"])
    if crashed:
        problems = [f"share {index} ended by itself: see {folder / f'share-{index}.log'}" for index in crashed]
        found["processes"] = Outcome("processes", len(crashed), Counter({"crashed": len(crashed)}), problems)
    return list(found.values())


def _show(outcome: Outcome) -> None:
    print(*(f"{key}: {value}" for key, value in outcome.to_dict().items()), sep=" | ", flush=True)
    for problem in outcome.problems:
        print(f"    {problem}", flush=True)


def _write(folder: Path, seed: int, outcomes: Sequence[Outcome]) -> None:
    faults = [
        {**outcome.to_dict(), "counts": dict(outcome.counts), "problems": outcome.problems} for outcome in outcomes
    ]
    report = {"machine": machine(), "seed": seed, "faults": faults}
    (folder / "faults.json").write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    sys.exit(main())
