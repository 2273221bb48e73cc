"""Signals in the middle of real `bagindex build` commands: Ctrl-C, SIGTERM, the system that is out of memory."""

from __future__ import annotations

import random
import shutil
import signal
from pathlib import Path

from bagindex import Index, demo
from bagindex.errors import LockedError
from bagindex.store import IndexDirectory
from fakes import number_png
from faults.commands import MOMENTS, Commands, Ended, Fault
from faults.common import Outcome
from faults.steps import kept_files

_STOPPED = "bagindex: stopped; what is committed stays, and the same command goes on from there"
_IN_TIME = 10.0
_BY_LIBRARIES = (-signal.SIGABRT, 127)
"""Arrow's and the standard library's ends, and glibc's."""
_STATUS = {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -signal.SIGKILL}


def signals(folder: Path, trials: int, seed: int, real: bool = True) -> Outcome:
    """SIGINT, SIGTERM and SIGKILL at each moment of a build in turn; the same command again finishes it.

    With a `real` model, or with one that needs no torch.
    """
    outcome = Outcome("SIGINT, SIGTERM, SIGKILL in mid-build")
    moments, numbers = list(MOMENTS), list(_STATUS)
    worst = 0.0
    with Commands(folder, real) as commands:
        command = _command(folder, real)
        expected = _undisturbed(commands, command, folder / "whole")
        for trial in range(trials):
            # The first few have each moment and each signal; three times as many have each at each.
            moment, number = moments[trial % len(moments)], numbers[trial % len(numbers)]
            chance = random.Random(f"{seed}-{trial}")
            call = chance.randint(1, {"first pictures": 28, "commit": 6, "FAISS": 3}.get(moment, 1))
            delay = 0.0 if trial < len(moments) else chance.uniform(0, 0.05)
            fault = Fault(moment, call, number, delay)
            place = folder / f"index-{trial}"
            ended = commands.run([*command, "--out", str(place)], fault)
            problems = _problems(ended, number)
            worst = max(worst, ended.seconds or 0.0)
            problems += _goes_on(commands, command, place, expected)
            came = "done before it came" if ended.status == 0 else f"{number.name} during {moment}"
            outcome.trial(came, *(f"trial {trial} of seed {seed}, {fault}: {each}" for each in problems))
            shutil.rmtree(place, ignore_errors=True)  # a build may have ended before it was made
    outcome.fault += f" (the slowest ended after {worst:.1f} s)"
    return outcome.done()


def memory(folder: Path, trials: int, seed: int, real: bool = True) -> Outcome:
    """A build whose address space may grow by so many megabytes only.

    Libraries in C++ may end the process by themselves, in words of their own; that is counted apart.
    """
    outcome = Outcome("a build that runs out of memory")
    chance = random.Random(seed)
    with Commands(folder, real) as commands:
        command = _command(folder, real)
        expected = _undisturbed(commands, command, folder / "whole")
        for trial in range(trials):
            room = chance.randint(0, 1_000 if real else 700)
            place = folder / f"index-{trial}"
            ended = commands.run([*command, "--out", str(place)], Fault(memory=room))
            problems = []
            came = {0: "enough", 1: "a clear error"}.get(ended.status, "ended by a library")
            if ended.status not in (0, 1, *_BY_LIBRARIES):
                problems.append(f"exit status {ended.status}: {ended.said[-300:]}")
            if ended.status == 1 and not _clear(ended.said):
                problems.append(f"it says: {ended.said[-300:]}")
            problems += _goes_on(commands, command, place, expected)
            outcome.trial(came, *(f"{room} MB (trial {trial} of seed {seed}): {each}" for each in problems))
            shutil.rmtree(place, ignore_errors=True)  # a build may have ended before it was made
    return outcome.done()


def _clear(said: str) -> bool:
    last = said.splitlines()[-1:]
    return "Traceback" not in said and "this is a bug" not in said and "memory" in "".join(last)


def _command(folder: Path, real: bool) -> list[str]:
    pictures = folder / "pictures"
    if real:
        demo.plant(pictures, 5, 5, wrong=0.25)
        (pictures / "truth.csv").unlink()
    for number in range(0 if real else 30):
        path = pictures / demo.CLASSES[number % 6].name / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(number_png(number, 64))
    options = ("--image-size", "64", "--precision", "bf16", "--ann", "IVF8,RaBitQ", "--workers", "2")
    return ["build", str(pictures), "--weights", str(demo.weights()), *options]


def _undisturbed(commands: Commands, command: list[str], place: Path) -> dict[str, str]:
    ended = commands.run([*command, "--out", str(place)])
    if ended.status:
        raise RuntimeError(f"a build without a fault ends with {ended.status}: {ended.said}")
    return kept_files(place)


def _problems(ended: Ended, number: signal.Signals) -> list[str]:
    """What is wrong with the end of a command that a signal came to."""
    if ended.seconds is None or ended.status == 0:
        return [] if ended.status == 0 else [f"it ended before the signal came, with {ended.status}: {ended.said}"]
    problems = []
    if ended.status != _STATUS[number]:
        problems.append(f"exit status {ended.status}: {ended.said[-500:]}")
    if number is not signal.SIGKILL and (ended.said.count("stopped;") != 1 or _STOPPED not in ended.said.splitlines()):
        problems.append(f"it says: {ended.said[-500:]}")
    if "Traceback" in ended.said or "Exception" in ended.said:
        problems.append(f"it says too much: {ended.said[-1000:]}")
    if ended.seconds > _IN_TIME:
        problems.append(f"it ended after {ended.seconds:.1f} s")
    if ended.children:
        problems.append(f"processes {ended.children} are left")
    return problems


def _goes_on(commands: Commands, command: list[str], place: Path, expected: dict[str, str]) -> list[str]:
    """What is wrong with the same command, run again."""
    problems = []
    if place.exists():
        try:
            with IndexDirectory(place).writing():
                pass
        except LockedError as error:
            problems.append(f"the lock is held: {error}")
    again = commands.run([*command, "--out", str(place)])
    if again.status:
        return [*problems, f"again, it ends with {again.status}: {again.said[-500:]}"]
    if kept_files(place) != expected:
        problems.append("gone on with, it comes to other files")
    problems += [f"{path.name} is left" for path in place.rglob("*.tmp-*")]
    with Index.open(place) as index:
        return problems + list(index.verify().problems)
