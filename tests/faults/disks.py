"""A disk that is full, fails or turns read-only at the n-th operation: a clear error, nothing lost, going on works."""

from __future__ import annotations

import errno
import itertools
import os
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from faults.common import Outcome
from faults.forks import Conditions, Ended
from faults.native import ANY, Arming, Fault, Kind
from faults.replay import read_tree
from faults.shares import drawn
from faults.steps import STEPS, Life
from faults.trials import Judge, Reference, attempt, begin, examine, references, survived

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""These are a `SpaceError`."""
_NOBODY = 65534


@dataclass(frozen=True)
class _Point:
    """The `at`-th of some operations of a step fails."""

    step: str
    at: int
    kinds: Kind
    error: int
    for_good: bool

    def __str__(self) -> str:
        which = "and all later ones" if self.for_good else "alone"
        return f"{self.step}, {errno.errorcode[self.error]} at the {self.at}th {self.kinds!r}, {which}"


_BOTH = (False, True)
_WAYS: Sequence[tuple[Kind, Sequence[tuple[int, bool]]]] = (
    (Kind.WRITE | Kind.TRUNCATE, list(itertools.product((*FULL[:2], errno.EIO), _BOTH))),
    (Kind.SYNC, list(itertools.product((errno.EIO,), _BOTH))),
    (Kind.CREATE | Kind.FOLDER, list(itertools.product((errno.ENOSPC,), _BOTH))),
    (Kind.RENAME, list(itertools.product((errno.EIO,), _BOTH))),
    (ANY, [(errno.EROFS, True)]),
)
"""What fails, with which errors, and whether for good: the n-th operation in the n-th way, over and over."""


def failing(place: Path, trials: int, seed: int, judge: Judge | None = None) -> Outcome:
    """An operation fails, alone or with all later ones: every one in one of `_WAYS`, or `trials` drawn from these.

    The step says what is wrong in a `BagindexError`, or manages all the same; what was there can be read as before;
    made again, the step comes to what it comes to undisturbed. States that `judge` knows are not judged again.
    """
    outcome = Outcome("a disk that is full, fails or turns read-only")
    judge = Judge() if judge is None else judge
    for point in drawn(_all(_WAYS), trials, seed):
        reference = references()[point.step]
        life = begin(reference, place)
        arming = Arming(str(life.folder.parent), Fault.FAIL, point.at, point.kinds, point.error, point.for_good)
        ended = attempt(point.step, life, Conditions(arming))
        came, problems = _said(ended, point.error)
        if ended.failure is None:
            problems += survived(reference, life)
        else:
            _, found = judge.judge(reference, read_tree(life.folder.parent), place)
            problems += found
        outcome.trial(came, *(f"{point}: {problem}" for problem in problems))
    return outcome.done()


def short(place: Path, trials: int, seed: int) -> Outcome:
    """The system writes half of what it was asked to, as it may: at every write, or at `trials` drawn from all."""
    outcome = Outcome("a write that is done by half")
    for point in drawn(_all([(Kind.WRITE, [(errno.EIO, False)])]), trials, seed):
        reference = references()[point.step]
        life = begin(reference, place)
        arming = Arming(str(life.folder.parent), Fault.SHORT, point.at, Kind.WRITE)
        ended = attempt(point.step, life, Conditions(arming))
        came, problems = ("written in two parts", []) if ended.failure is None else _said(ended, errno.ENOSPC)
        problems += survived(reference, life) if ended.failure is None else examine(reference, life)
        outcome.trial(came, *(f"{point.step}, write {point.at} is done by half: {problem}" for problem in problems))
    return outcome.done()


def limits(place: Path, trials: int, seed: int, of: Sequence[str] = tuple(STEPS)) -> Outcome:
    """A limit on files' sizes, and a folder that may not be written to: in steps, whatever `trials` and `seed`."""
    outcome = Outcome("a file-size limit; a read-only folder")
    # Not in `place`, into which only its owner may go.
    with tempfile.TemporaryDirectory(prefix="bagindex-faults-") as folder:
        os.chmod(folder, 0o755)
        for reference in [references()[step] for step in of]:
            for size in (0, 3000, 100_000):
                life = begin(reference, Path(folder))
                ended = attempt(reference.step, life, Conditions(file_size=size))
                came, problems = _said(ended, errno.EFBIG)
                problems += examine(reference, life) if ended.failure is not None else survived(reference, life)
                where = f"{reference.step}, files of {size} bytes at most"
                outcome.trial(f"file size, {came}", *(f"{where}: {problem}" for problem in problems))
            came, problems = _read_only(reference, begin(reference, Path(folder)))
            outcome.trial(f"read-only, {came}", *(f"{reference.step}, read-only: {problem}" for problem in problems))
    return outcome.done()


def _read_only(reference: Reference, life: Life) -> tuple[str, list[str]]:
    before = read_tree(life.folder.parent)
    privileged = os.geteuid() == 0  # and may do everything
    _may_write(life, False)
    ended = attempt(reference.step, life, Conditions(user=_NOBODY if privileged else None))
    _may_write(life, True)
    came, problems = _said(ended, errno.EACCES)
    if ended.failure is None:
        problems.append("it was done in a read-only folder")
    if read_tree(life.folder.parent) != before:
        problems.append("a read-only folder was changed")
    return came, problems + examine(reference, life)


def _all(ways: Sequence[tuple[Kind, Sequence[tuple[int, bool]]]]) -> list[_Point]:
    points = []
    for reference in references().values():
        for kinds, errors in ways:
            count = sum(bool(operation.kind & kinds) for operation in reference.operations)
            for at, (error, for_good) in zip(range(1, count + 1), itertools.cycle(errors), strict=False):
                points.append(_Point(reference.step, at, kinds, error, for_good))
    return points


def _said(ended: Ended, error: int) -> tuple[str, list[str]]:
    """What a step said of a failure, and what is wrong with that."""
    if ended.signal is not None:
        return "killed", [f"signal {ended.signal} ended it"]
    failure = ended.failure
    if failure is None:
        return "done all the same", []
    problems = []
    if not failure.public:
        problems.append(f"no error for people: {failure.kind}: {failure.message}\n{failure.trace}")
    elif error in FULL and failure.kind != "SpaceError":
        problems.append(f"{failure.kind} does not say that the disk is full: {failure.message}")
    if "\n" in failure.message or ": " not in failure.message:
        problems.append(f"the error is not one line that says what to do: {failure.message}")
    return failure.kind, problems


def _may_write(life: Life, allowed: bool) -> None:
    """Let the index and the folder that it is in be written to, or not."""
    top = life.folder.parent
    for path in (top, *top.rglob("*")):
        modes = (0o755, 0o644) if allowed else (0o555, 0o444)
        path.chmod(modes[0 if path.is_dir() else 1])
