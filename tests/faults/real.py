"""Real builds, with torch and pictures, killed: `bagindex build` as a process, or only processes that work for it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bagindex import Index, demo
from faults import steps
from faults.common import Outcome
from faults.forks import Conditions, server

_PICTURES = 35
"""Of each of the demo's six classes: enough for four shards."""
_SIDE = "64"
"""Of the model's input, so that what is killed is more than one long computation."""


def builds(
    place: Path, trials: int, seed: int, pictures: Path | None = None, options: Sequence[str] | None = None
) -> Outcome:
    """SIGKILL of `bagindex build` at a random moment, and the same command again, until it is done, `trials` kills.

    The process is forked from one that has imported torch, so that the seconds are spent on building.

    Args:
        place, trials, seed: as for all faults.
        pictures: the source; by default planted evidence.
        options: the model's, for the command; by default the demo's.
    """
    outcome = Outcome("SIGKILL of `bagindex build`, with torch")
    command = _command(place, pictures, options)
    seconds, expected = _undisturbed(command, place)
    rng = random.Random(seed)
    folder, done = place / "index-0", 0
    while outcome.trials < trials:
        had = steps.shards_of(steps.kept_files(folder))
        conditions = Conditions(kill_after=rng.uniform(0, seconds))
        ended = server().under(conditions, run, [*command, "--out", str(folder)])
        has = steps.shards_of(steps.kept_files(folder))
        problems = []
        if not had.items() <= has.items():
            problems.append("committed shards are lost or changed")
        if not has.items() <= expected.items():
            problems.append("committed shards are not what they are without a kill")
        where = f"seed {seed}, kill {outcome.trials + 1}"
        if ended.killed:
            came = "killed before the first shard" if not has else "killed after some shards"
            outcome.trial(came, *(f"{where}: {problem}" for problem in problems))
            continue
        problems += _judged(ended.result(), folder, expected)
        outcome.problems += [f"{where}, done: {problem}" for problem in problems]
        done += 1
        folder = place / f"index-{done}"
    last = server().under(Conditions(), run, [*command, "--out", str(folder)])
    outcome.problems += [f"seed {seed}, at the end: {problem}" for problem in _judged(last.result(), folder, expected)]
    outcome.counts["builds that came to their end"] = done + 1
    return outcome.done()


def workers(
    place: Path, trials: int, seed: int, pictures: Path | None = None, options: Sequence[str] | None = None
) -> Outcome:
    """SIGKILL of one of the processes that work for a build, at a random moment: the build goes on by itself.

    `trials` builds. One that has no such process counts as such, and is no problem.
    """
    outcome = Outcome("SIGKILL of a build's workers alone")
    command = _command(place, pictures, options)
    seconds, expected = _undisturbed(command, place)
    rng = random.Random(seed)
    for trial in range(trials):
        folder = place / f"index-{trial}"
        moments = sorted(rng.uniform(0, seconds) for _ in range(3))
        arguments = [sys.executable, "-m", "bagindex_cli", *command, "--out", str(folder)]
        killed = 0
        with subprocess.Popen(arguments, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
            # Before there are workers, a process of its own imports torch.
            while process.poll() is None and not _children(process.pid):
                time.sleep(0.01)
            began = time.monotonic()
            for moment in moments:
                with suppress(subprocess.TimeoutExpired):
                    process.wait(max(0, began + moment - time.monotonic()))
                children = _children(process.pid)
                if children:
                    with suppress(ProcessLookupError):
                        os.kill(rng.choice(children), signal.SIGKILL)
                        killed += 1
            _, said = process.communicate()
        came = "workers killed" if killed else "no worker was there"
        problems = _judged((process.returncode, said), folder, expected)
        outcome.trial(came, *(f"seed {seed}, build {trial}, {killed} workers killed: {each}" for each in problems))
    return outcome.done()


def run(arguments: Sequence[str]) -> tuple[int, str]:
    """The command line in this process: its exit status, and what it says of errors."""
    from bagindex_cli import main

    sys.argv = ["bagindex", *arguments]
    status = 0
    with tempfile.TemporaryFile() as said, open(os.devnull, "wb") as nothing:
        os.dup2(nothing.fileno(), 1)
        os.dup2(said.fileno(), 2)
        try:
            main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        sys.stderr.flush()
        said.seek(0)
        return status, said.read().decode()


def _command(place: Path, pictures: Path | None, options: Sequence[str] | None) -> list[str]:
    if pictures is None:
        pictures = place / "pictures"
        demo.plant(pictures, _PICTURES, 5, wrong=0.25)
        (pictures / "truth.csv").unlink()
        options = ["--weights", str(demo.weights()), "--image-size", _SIDE]
    return ["build", str(pictures), *(options or ())]


def _undisturbed(command: Sequence[str], place: Path) -> tuple[float, dict[str, str]]:
    """How long the command takes without a fault, and the files that it makes.

    The first run does not count: the process that forks imports torch in it, for all later ones.
    """
    seconds = 0.0
    for name in ("first", "undisturbed"):
        started = time.monotonic()
        status, _ = server().run(run, [*command, "--out", str(place / name)])
        seconds = time.monotonic() - started
        if status:
            raise RuntimeError(f"bagindex {' '.join(command)} ends with {status} without a fault")
    return seconds, steps.kept_files(place / "undisturbed")


def _judged(ended: tuple[int, str], folder: Path, expected: dict[str, str]) -> list[str]:
    """What is wrong with a build that came to its end."""
    status, said = ended
    if status:
        return [f"exit status {status}: {said[-500:]}"]
    problems = list(server().run(_verify, folder))
    if steps.kept_files(folder) != expected:
        problems.append("its files are not those of a build without a kill")
    problems += [f"{path} is left" for path in folder.rglob("*.tmp-*")]
    return problems


def _verify(folder: Path) -> Sequence[str]:
    with Index.open(folder) as index:
        return index.verify().problems


def _children(process: int) -> list[int]:
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found
