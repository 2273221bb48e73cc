"""The power goes: what was not brought to the disk is lost, or lost in part, and what is left must be sound.

No machine is switched off for it: the operations of a step are written down once (trials.py), and `replay.Disk` says
what any number of them leaves, at least, at worst, or by chance.
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from faults.common import Outcome
from faults.forks import Conditions
from faults.native import Arming, Kind, read_journal
from faults.replay import Disk, Tree
from faults.trials import DISK, Judge, Reference, attempt, fingerprint, moved, put, references, survived

LEFT = ("least", "names without data", "some")
"""What is left: only what was synchronised; all names, and files' synchronised data only; some of all, by chance."""


def cuts(place: Path, trials: int, seed: int, judge: Judge | None = None) -> Outcome:
    """`trials` cuts after an operation drawn from all, each kind of `LEFT` in turn; and one after the end of each step.

    After a step has said that it is done, all of it must survive. States that `judge` knows are not judged again.
    """
    outcome = Outcome("un-synchronised data dropped")
    rng = random.Random(seed)
    judge = Judge() if judge is None else judge
    points = [(step, at) for step, each in references().items() for at in range(len(each.operations) + 1)]
    drawn = sorted((point, LEFT[n % len(LEFT)]) for n, point in enumerate(_draw(points, trials, rng)))
    for (step, at), left in drawn:
        reference = references()[step]
        tree = _left(_cut(reference, at), left, random.Random(f"{seed} {step} {at}"))
        new, problems = judge.judge(reference, tree, place)
        where = f"seed {seed}, {step} cut after operation {at}, {left}"
        came = "nothing of it lost" if at == len(reference.operations) else left
        outcome.trial(f"{came}{'' if new else ', as before'}", *(f"{where}: {problem}" for problem in problems))
    for reference in references().values():
        disk, known = _cut(reference, len(reference.operations)), set()
        for left in LEFT:
            tree = _left(disk, left, rng)
            problems = [] if fingerprint(tree) in known else survived(reference, put(tree, place))
            known.add(fingerprint(tree))
            outcome.trial("done, and whole", *(f"{reference.step} done, {left}: {problem}" for problem in problems))
    return outcome.done()


def after_kills(place: Path, trials: int, seed: int) -> Outcome:
    """Killed, gone on with to the end, and only then cut: what the killed one did not synchronise must survive, too.

    Half of the kills are right after a rename, by which what was written counts.
    """
    outcome = Outcome("a kill, then going on, then un-synchronised data dropped")
    rng = random.Random(seed)
    points = [(step, at) for step, each in references().items() for at in range(1, len(each.operations))]
    renamed = [(step, at) for step, at in points if references()[step].operations[at - 1].kind is Kind.RENAME]
    for step, at in [*_draw(renamed, trials // 2, rng), *_draw(points, trials - trials // 2, rng)]:
        reference = references()[step]
        disk = _cut(reference, at)
        life = put(disk.now(), place)
        with tempfile.NamedTemporaryFile() as journal:
            attempt(step, life, Conditions(Arming(str(life.folder.parent), journal=journal.name))).result()
            for operation in read_journal(Path(journal.name)):
                disk.apply(moved(operation, life.folder.parent))
        problems = survived(reference, put(disk.least(), place))
        outcome.trial("done, and whole", *(f"seed {seed}, {step} killed after operation {at}: {p}" for p in problems))
    return outcome.done()


def _draw(points: list[tuple[str, int]], trials: int, rng: random.Random) -> list[tuple[str, int]]:
    whole, rest = divmod(trials, len(points))
    return points * whole + rng.sample(points, rest)


def _cut(reference: Reference, at: int) -> Disk:
    disk = reference.disk(DISK)
    for operation in reference.operations[:at]:
        disk.apply(operation)
    return disk


def _left(disk: Disk, left: str, rng: random.Random) -> Tree:
    if left == "least":
        return disk.least()
    return disk.names_without_data(rng) if left == "names without data" else disk.some(rng)
