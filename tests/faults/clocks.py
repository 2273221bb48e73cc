"""A wall clock that is set back and forward by a year all the time: deadlines and bytes do not depend on it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from bagindex import Index, demo
from bagindex.build import BuildSettings
from bagindex.build import build as build_index
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource
from faults import native
from faults.common import Outcome
from faults.steps import kept_files

_SOURCE = Path(__file__).with_name("clock.c")
_LONGEST = 300.0
_YEAR = 31_536_000


def clocks(folder: Path, trials: int, seed: int, real: bool = True) -> Outcome:
    """Builds with such a clock, every other one of a `real` model, against one with a sound clock."""
    outcome = Outcome("the clock set back and forward by a year at every look")
    commands = {"torch-free": [sys.executable, "-c", "from faults import clocks; clocks.build()"]}
    if real:
        demo.plant(folder / "pictures", 4, 5)
        options = ("--weights", str(demo.weights()), "--image-size", "64", "--ann", "IVF8,RaBitQ")
        command = [sys.executable, "-c", "from faults import clocks; clocks.command()"]
        commands["real"] = [*command, "build", str(folder / "pictures"), *options, "--out"]
    expected = {}
    for name, command in commands.items():
        _run(command, folder / name, {})
        expected[name] = kept_files(folder / name)
    shim = {"LD_PRELOAD": str(native.compiled(_SOURCE))}
    for trial in range(trials):
        name = list(commands)[trial % len(commands)]
        place = folder / f"index-{trial}"
        problems = []
        try:
            _run(commands[name], place, shim)
            if kept_files(place) != expected[name]:
                problems.append("it comes to other files")
            with Index.open(place) as index:
                problems += index.verify().problems
        except (RuntimeError, subprocess.TimeoutExpired) as error:
            problems.append(str(error))
        outcome.trial(name, *(f"trial {trial}, {name}: {each}" for each in problems))
        shutil.rmtree(place, ignore_errors=True)
    return outcome.done()


def build() -> None:
    """Build a small index at the path that is given last."""
    _check()
    source = MemorySource([("a", "b", None)[number % 3] for number in range(60)], frozenset(range(0, 60, 17)))
    settings = BuildSettings(shard_size=20, workers=2)
    build_index(IndexDirectory(Path(sys.argv[-1])), source, {"a": 0, "b": 1}, LinearCompute("ab"), settings)


def command() -> None:
    """Run the command line."""
    from bagindex_cli import main

    _check()
    main()


def _check() -> None:
    """The clock is what it is meant to be.

    Raises:
        RuntimeError: it is not.
    """
    seen = {round((time.time() - os.stat("/proc/self").st_ctime) / _YEAR) for _ in range(12)}
    if seen != ({-1, 0, 1} if "LD_PRELOAD" in os.environ else {0}):
        raise RuntimeError(f"the clock is off by {seen} years")


def _run(command: Sequence[str], place: Path, environment: dict[str, str]) -> None:
    path = str(Path(__file__).resolve().parent.parent)
    done = subprocess.run(
        [*command, str(place)],
        env={**os.environ, **environment, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=_LONGEST,
    )
    if done.returncode:
        raise RuntimeError(f"it ends with {done.returncode}: {done.stderr[-500:]}")
