"""Weights and indexes that somebody made to do harm: each must be refused with a clear error, run nothing, read and
write nothing outside, and neither hang nor take all memory.
"""

from __future__ import annotations

import hashlib
import random
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from faults import asking, crafted_indexes, crafted_weights, whole
from faults.apart import Apart, Came
from faults.common import Outcome

MEMORY = 4_000_000_000
"""Bytes of address space beyond what a process begins with: reading small weights or a small index takes a tenth."""
PEAK = 1_500_000_000
"""Bytes that it may really have: PyTorch and other libraries take half of that."""
SECONDS = 60.0
_ALWAYS = (asking.OPENING, "info", "top_patches", "crops", "similar")
"""Questions that are asked of each crafted index; in the long run, all are."""


@dataclass(frozen=True)
class Looks:
    """What looks at what is crafted: what reads weights, what checks an index, and what asks it."""

    weights: Callable[[Path], object] = crafted_weights.read
    check: Callable[[Path, bool], list[str]] = asking.check
    ask: Callable[[Path, Sequence[str]], asking.Answers] = asking.ask


_LOOKS = Looks()


def weights(
    folder: Path,
    trials: int,
    seed: int,
    looks: Looks = _LOOKS,
    cases: Mapping[str, crafted_weights.Case] = crafted_weights.CASES,
) -> Outcome:
    """Each crafted file of weights once, or so many of them."""
    outcome = Outcome("hostile weights")
    with Apart(MEMORY, SECONDS, ["bagindex.weights"]) as apart:
        for name in _some(cases, trials, seed):
            place = folder / name.replace(" ", "-").replace("/", "-")
            place.mkdir()
            canary = _Canary(folder / "outside")
            made = apart.call(crafted_weights.make, name, place, canary.folder)
            if made.how != "returned":
                raise RuntimeError(f"{name} cannot be made: {made.how}: {made.said}")
            before = tree(place)
            came = apart.call(looks.weights, made.value)
            problems = [*_unclear(came), *canary.problems()]
            if tree(place) != before:
                problems.append("something was written beside the file")
            outcome.trial(came.how, *(f"{name}: {problem}" for problem in problems))
            shutil.rmtree(place)
    return outcome.done()


def indexes(
    folder: Path,
    trials: int,
    seed: int,
    looks: Looks = _LOOKS,
    cases: Mapping[str, crafted_indexes.Case] = crafted_indexes.CASES,
) -> Outcome:
    """Each crafted index once, or so many of them; with more trials than there are, all questions are asked of each."""
    outcome = Outcome("hostile indexes")
    with Apart() as apart:
        sound = whole.made(folder, "tiny", apart)
    with Apart(MEMORY, SECONDS, ["bagindex.verify", "faiss"]) as apart:
        answers: asking.Answers = apart.call(asking.ask, sound).value
        for name in _some(cases, trials, seed):
            case = cases[name]
            root = folder / "crafted"
            canary = _Canary(folder / "outside")
            shutil.copytree(sound, root)
            changed = apart.call(crafted_indexes.change, name, root, canary.folder)
            if changed.how != "returned":
                raise RuntimeError(f"{name} cannot be made: {changed.how}: {changed.said}")
            before = tree(root)
            found = apart.call(looks.check, root, False)
            names = [] if case.harmless or trials > len(crafted_indexes.CASES) else sorted({*_ALWAYS, *case.refused})
            asked = apart.call(looks.ask, root, [each for each in answers if each in names])
            problems = [*_unsound(case, found, asked, answers), *canary.problems()]
            if tree(root) != before:
                problems.append("something was written into the index")
            outcome.trial("seen" if found.value else "not seen", *(f"{name}: {problem}" for problem in problems))
            shutil.rmtree(root)
    return outcome.done()


def _some(cases: Mapping[str, object], trials: int, seed: int) -> list[str]:
    names = list(cases)
    return names if trials >= len(names) else random.Random(seed).sample(names, trials)


def _unclear(came: Came) -> list[str]:
    """What is wrong with the way in which weights were refused."""
    if came.how != "refused":
        return [f"{came.how}: {came.said}"]
    return [*([f"says several lines: {came.said!r}"] if "\n" in came.said.strip() else []), *_too_much(came)]


def _unsound(case: crafted_indexes.Case, found: Came, asked: Came, sound: asking.Answers) -> list[str]:
    problems = _too_much(found) + _too_much(asked)
    if found.how != "returned":
        problems.append(f"verify {found.how}: {found.said}")
    elif not found.value and not case.harmless:
        problems.append("verify finds nothing")
    if asked.how != "returned":
        return [*problems, f"asking {asked.how}: {asked.said}"]
    answers: asking.Answers = asked.value
    problems += [f"{name} raises {said}" for name, (how, said) in answers.items() if how == "raised"]
    if case.harmless:
        return problems + [f"{name} has no answer" for name in sound if answers.get(name) != sound[name]]
    if answers[asking.OPENING][0] == "answer":
        problems += [f"{name} is not refused" for name in case.refused if answers[name][0] == "answer"]
    return problems


def _too_much(came: Came) -> list[str]:
    return [f"it took {came.peak:,} bytes"] if came.peak > PEAK else []


def tree(root: Path) -> dict[str, str]:
    """All files below a folder, but for the lock, and what is in them."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_symlink():
            found[str(path)] = f"link to {path.readlink()}"
        elif path.is_file() and path.stat().st_size < 2**26:
            found[str(path)] = hashlib.sha256(path.read_bytes()).hexdigest()
        else:
            found[str(path)] = f"mode {path.lstat().st_mode:o}"
    return found


class _Canary:
    """A folder outside that nobody may write to; crafted code that is run makes a file there."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if not folder.is_dir():
            folder.mkdir()
            (folder / "secret.txt").write_text("a person's file\n")
        self._before = tree(folder)

    def problems(self) -> list[str]:
        """What has happened to it."""
        now = tree(self.folder)
        changed = sorted(name for name in now.keys() | self._before.keys() if now.get(name) != self._before.get(name))
        for name in changed:
            if name not in self._before:
                Path(name).unlink()
        return [f"{name} was made or changed" for name in changed]
