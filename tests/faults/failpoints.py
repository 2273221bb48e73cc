"""A build killed at every place where it changes a file: before, after, and in the middle of a write."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.common import Outcome
from faults.forks import Conditions
from faults.native import Arming, Fault, Kind
from faults.replay import read_tree
from faults.shares import drawn
from faults.steps import STEPS
from faults.trials import DISK, Judge, Reference, attempt, begin, is_temporary, references

_KNOWN = "the same as one before, but for what is temporary"


@dataclass(frozen=True)
class _Point:
    step: str
    at: int
    fault: Fault

    def __str__(self) -> str:
        return f"{self.step}, {self.fault.name} operation {self.at}"


def every_state(
    place: Path, trials: int, seed: int, of: Sequence[str] = tuple(STEPS), judge: Judge | None = None
) -> Outcome:
    """What a kill leaves, at every operation of steps, whatever `trials` and `seed`.

    A killed process leaves what it did until then. So the operations of a step, written down once, give what a kill
    between any two of them leaves. Each state is opened and gone on with, those that `judge` knows once. In the middle
    of a write, too: all but the lock is written under a temporary name.
    """
    outcome = Outcome("a kill between any two operations")
    judge = Judge() if judge is None else judge
    for reference in [references()[step] for step in of]:
        disk = reference.disk(DISK)
        for number, operation in enumerate(reference.operations, start=1):
            if operation.error:
                continue
            disk.apply(operation)
            if operation.kind is Kind.SYNC or all(map(is_temporary, filter(None, (operation.path, operation.other)))):
                outcome.trial(_KNOWN)
                continue
            new, problems = judge.judge(reference, disk.now(), place)
            where = f"{reference.step}, after operation {number} ({operation.kind.name} {operation.path})"
            outcome.trial("judged" if new else _KNOWN, *(f"{where}: {problem}" for problem in problems))
    return outcome.done()


def killed(place: Path, trials: int, seed: int, judge: Judge | None = None) -> Outcome:
    """SIGKILL before and after an operation, and in the middle of a write; all points, or `trials` drawn from them."""
    outcome = Outcome("SIGKILL before, after and in every operation")
    points = [
        _Point(reference.step, at, fault)
        for reference in references().values()
        for at, operation in enumerate(reference.operations, start=1)
        for fault in _faults(operation.kind)
    ]
    judge = Judge() if judge is None else judge
    for point in drawn(points, trials, seed):
        reference = references()[point.step]
        came, problems = _kill(reference, point, judge, place)
        outcome.trial(came, *(f"{point}: {problem}" for problem in problems))
    return outcome.done()


def _kill(reference: Reference, point: _Point, judge: Judge, place: Path) -> tuple[str, list[str]]:
    life = begin(reference, place)
    root = str(life.folder.parent)
    # Writes are counted apart: threads take turns, so that the n-th operation of all may be another one each time.
    kinds, at = Kind(255), point.at
    if point.fault is Fault.KILL_HALF:
        kinds, at = Kind.WRITE, sum(each.kind is Kind.WRITE for each in reference.operations[: point.at])
    ended = attempt(point.step, life, Conditions(Arming(root, point.fault, at, kinds)))
    if not ended.killed:
        # Another order of the threads may come to one operation fewer; then the step is done.
        if ended.failure is not None:
            return "failed", [f"it failed before it was killed:\n{ended.failure.trace}"]
        return "came to its end", []
    new, problems = judge.judge(reference, read_tree(life.folder.parent), place)
    return f"killed, {'judged' if new else _KNOWN}", problems


def _faults(kind: Kind) -> tuple[Fault, ...]:
    around = (Fault.KILL_BEFORE, Fault.KILL_AFTER)
    return (*around, Fault.KILL_HALF) if kind is Kind.WRITE else around
