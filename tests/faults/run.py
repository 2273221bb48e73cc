"""Break things on purpose, at length: `python tests/faults/run.py FOLDER [FAULT ...] [--part 0.1]`.

Prints a row for each fault, then each problem that was found, and writes both to FOLDER/faults.json. Exit status 1
where there are problems.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
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

Fault = Callable[[Path, int, int], Outcome]
"""Given an empty folder, a number of trials and a seed."""

FAULTS: Mapping[str, tuple[Fault, int]] = {
    "kills": (kills.torch_free, 2_000),
    "real-kills": (real.builds, 200),
    "workers": (real.workers, 20),
    "states": (failpoints.every_state, 1),
    "failpoints": (failpoints.killed, 100_000),
    "cuts": (cuts.cuts, 500),
    "cuts-after-kills": (cuts.after_kills, 100),
    "failing-disks": (disks.failing, 100_000),
    "short-writes": (disks.short, 100_000),
    "limits": (disks.limits, 1),
    "truncations": (damage.truncations, 100_000),
    "flips": (damage.flips, 10_000),
    "misplaced": (damage.misplaced, 1_000),
    "hostile-weights": (hostile.weights, 1_000),
    "hostile-indexes": (hostile.indexes, 1_000),
    "fuzzed": (fuzz.fuzz, 20_000),
    "builders": (builders.builders, 40),
    "readers": (readers.readers, 30),
    "served": (served.serve, 30),
    "soak": (soak.soak, 20 * 60),
    "bad-input": (pictures.kinds, 20),
    "jpeg-truncations": (pictures.truncations, 100_000),
    "picture-flips": (pictures.flips, 5_000),
    "largest-pictures": (pictures.largest, 5),
    "archive-members": (archives.members, 5),
    "archives": (archives.archives, 5_000),
    "changed-sources": (changes.changes, 120),
    "decoders": (decoders.decoders, 35),
    "signals": (signals.signals, 45),
    "memory": (signals.memory, 20),
    "clock": (clocks.clocks, 4),
}
"""Each fault, and how many trials the long run makes of it."""


def main() -> int:
    """Run the faults that are asked for, one after the other."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="where the indexes to be broken are made; it must not exist")
    parser.add_argument("faults", nargs="*", choices=[[], *FAULTS], metavar="FAULT", help=", ".join(FAULTS))
    parser.add_argument("--part", type=float, default=1.0, help="so much of the long run's trials")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    asked.folder.mkdir(parents=True)
    outcomes = []
    for name in asked.faults or FAULTS:
        fault, trials = FAULTS[name]
        place = asked.folder / name
        place.mkdir()
        outcome = fault(place, max(1, round(asked.part * trials)), asked.seed)
        outcomes.append(outcome)
        print(*(f"{key}: {value}" for key, value in outcome.to_dict().items()), sep=" | ", flush=True)
        for problem in outcome.problems:
            print(f"    {problem}", flush=True)
    report = {
        "machine": machine(),
        "seed": asked.seed,
        "faults": [{**outcome.to_dict(), "problems": outcome.problems} for outcome in outcomes],
    }
    (asked.folder / "faults.json").write_text(json.dumps(report, indent=1))
    return int(any(outcome.problems for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
