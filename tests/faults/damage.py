"""Files of an index that are cut short, changed, exchanged or gone: `verify` must find each, and no question may answer
otherwise than it did, unless nothing that is cheap could have told.
"""

from __future__ import annotations

import os
import random
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice, pairwise
from pathlib import Path

from faults import asking, whole
from faults.apart import Apart, Came
from faults.common import Outcome

PAGE = 4096
_ASKED = 29
"""Of so many flips, after one all questions are asked: a number that the kinds of file are no multiple of."""
_ASKED_CUTS = 7
"""Of so many cuts likewise."""
_REAL = 20
"""Of so many flips, one is in the index of a real model."""
_LONG = 1000
"""Trials from which on a real model's index is damaged, too."""
_PATIENCE = 20.0
"""Seconds after which a look at a small index is taken to hang."""


@dataclass(frozen=True)
class Looks:
    """What looks at a damaged index: what `verify` finds of it, as --data or whole, and what questions answer."""

    check: Callable[[Path, bool], list[str]] = asking.check
    ask: Callable[[Path], asking.Answers] = asking.ask


_LOOKS = Looks()


@dataclass
class _Subject:
    """An index to be damaged, and what a sound one answers.

    Attributes:
        name: what problems call it.
        root: the index.
        answers: what it answers while it is sound.
    """

    name: str
    root: Path
    apart: Apart
    looks: Looks
    answers: asking.Answers

    @classmethod
    def make(cls, name: str, folder: Path, apart: Apart, looks: Looks) -> _Subject:
        root = whole.made(folder, name, apart)
        return cls(name, root, apart, looks, apart.call(looks.ask, root).value)

    def look(
        self, what: str, outcome: Outcome, kind: str, *, questions: bool = True, silent: bool = True, data: bool = True
    ) -> None:
        """See what `verify` and the questions say of the index as it is now.

        Args:
            what: was done to it.
            outcome: hears of it.
            kind: of file, or of damage.
            questions: ask them.
            silent: they may answer otherwise.
            data: only hashes are checked.
        """
        problems = []
        found = self.apart.call(self.looks.check, self.root, data)
        if found.how != "returned":
            problems.append(f"{what}: verify {found.how}: {found.said}")
        elif not found.value:
            problems.append(f"{what}: verify finds nothing")
        else:
            outcome.counts["found by verify"] += 1
        came = self.apart.call(self.looks.ask, self.root) if questions else Came("returned")
        answers: asking.Answers = came.value or {}
        if came.how != "returned":
            problems.append(f"{what}: asking {came.how}: {came.said}")
        problems += [f"{what}: {name} raises {said}" for name, (how, said) in answers.items() if how == "raised"]
        opened = answers.get(asking.OPENING)
        if opened is not None and opened[0] == "refused":
            outcome.counts["seen on opening"] += 1
        if questions:
            other = self._compare(answers, outcome, kind)
            problems += [] if silent else [f"{what}: {name} has another answer" for name in other]
        outcome.trial(kind, *problems)

    def _compare(self, answers: asking.Answers, outcome: Outcome, kind: str) -> list[str]:
        other = [name for name, answer in answers.items() if answer[0] == "answer" and answer != self.answers[name]]
        if other:
            outcome.counts[f"asked, served silently: {kind}"] += 1
            outcome.counts["asked, served silently"] += 1
        elif any(how == "refused" for how, _ in answers.values()):
            outcome.counts["asked, seen"] += 1
        else:
            outcome.counts["asked, answers the same"] += 1
        return other

    @contextmanager
    def changed(self, path: Path, data: bytes) -> Iterator[None]:
        """A file with another content, for a while: another file, so that what is mapped stays as it was."""
        sound = path.read_bytes()
        _put(path, data)
        try:
            yield
        finally:
            _put(path, sound)

    @contextmanager
    def kept(self) -> Iterator[None]:
        """Put the whole index back afterwards."""
        aside = self.root.with_name("aside")
        shutil.copytree(self.root, aside, symlinks=True)
        try:
            yield
        finally:
            shutil.rmtree(self.root)
            aside.rename(self.root)


def _put(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{path.name}.new")
    temporary.write_bytes(data)
    os.replace(temporary, path)


def _subjects(folder: Path, apart: Apart, looks: Looks, real: bool) -> list[_Subject]:
    names = ["small", *(["real"] if real else [])]
    return [_Subject.make(name, folder, apart, looks) for name in names]


def truncations(folder: Path, trials: int, seed: int, looks: Looks = _LOOKS) -> Outcome:
    """Every kind of file cut to nothing, to every 4 KiB, and by its last byte.

    With fewer trials than there are cuts, a sample in which every kind is cut to nothing and by its last byte first.
    A file that is cut short must be found by `verify`, and no question, where they are asked, may answer otherwise than
    before: sizes are looked at by whoever opens a file.
    """
    outcome = Outcome("files cut short")
    rng = random.Random(seed)
    with Apart() as apart:
        subjects = _subjects(folder, apart, looks, real=trials >= _LONG)
        first, cuts = [], []
        for subject in subjects:
            for kind, paths in whole.kinds(subject.root).items():
                for path in paths:
                    size = path.stat().st_size
                    ends = [(subject, kind, path, length) for length in (0, size - 1)]
                    (first if path == paths[0] else cuts).extend(ends)
                    cuts += [(subject, kind, path, length) for length in range(PAGE, size - 1, PAGE)]
        rng.shuffle(cuts)
        for trial, (subject, kind, path, length) in enumerate((first + cuts)[:trials]):
            what = f"{subject.name} index, {path.relative_to(subject.root)} cut to {length} bytes"
            with subject.changed(path, path.read_bytes()[:length]):
                subject.look(what, outcome, kind, questions=trial % _ASKED_CUTS == 0, silent=False)
    return outcome.done()


def flips(folder: Path, trials: int, seed: int, looks: Looks = _LOOKS) -> Outcome:
    """A bit of a file is another, in every kind of file as often: `verify` must find it.

    Of the questions after some of them, those that answer otherwise than before are counted: "served silently".
    """
    outcome = Outcome("bits flipped")
    rng = random.Random(seed)
    with Apart() as apart:
        subjects = _subjects(folder, apart, looks, real=trials >= _LONG)
        for trial in range(trials):
            subject = subjects[-1] if trial % _REAL == 0 else subjects[0]
            kinds = whole.kinds(subject.root)
            kind = sorted(kinds)[trial % len(kinds)]
            path = rng.choice(kinds[kind])
            data = bytearray(path.read_bytes())
            place, bit = rng.randrange(len(data)), rng.randrange(8)
            data[place] ^= 1 << bit
            what = f"{subject.name} index, {path.relative_to(subject.root)}, bit {bit} of byte {place} flipped"
            with subject.changed(path, bytes(data)):
                subject.look(what, outcome, kind, questions=trial % _ASKED == 0)
    return outcome.done()


def misplaced(folder: Path, trials: int, seed: int, looks: Looks = _LOOKS) -> Outcome:
    """Bytes after a file's end, files exchanged, missing, or of another kind: each once, or so many of them."""
    outcome = Outcome("files exchanged, missing, or other than files")
    rng = random.Random(seed)
    with Apart(seconds=_PATIENCE) as apart:
        (subject,) = _subjects(folder, apart, looks, real=False)
        done = list(_misplacements(subject.root))
        rng.shuffle(done)
        for kind, what, change in islice(done, trials):
            with subject.kept():
                change()
                subject.look(what, outcome, kind, silent=kind in ("exchanged", "gone"), data=False)
    return outcome.done()


def _misplacements(root: Path) -> Iterator[tuple[str, str, Callable[[], object]]]:
    """What is done, in words, and what does it."""
    kinds = whole.kinds(root)
    for paths in kinds.values():
        path = paths[0]
        name = str(path.relative_to(root))
        yield "appended", f"a byte after the end of {name}", _doing(_append, path, b"\0")
        yield "appended", f"a kilobyte after the end of {name}", _doing(_append, path, bytes(1024))
        yield "missing", f"no {name}", _doing(path.unlink)
        yield "a folder", f"a folder in place of {name}", _doing(_fold, path)
        yield "a pipe", f"a pipe in place of {name}", _doing(_pipe, path)
    for paths in kinds.values():
        for one, other in pairwise(paths):
            names = f"{one.relative_to(root)} and {other.relative_to(root)}"
            yield "exchanged", f"{names} exchanged", _doing(_exchange, one, other)
            yield "exchanged", f"{names} the same", _doing(shutil.copyfile, one, other)
    for one, other in pairwise(_folders(root)):
        if one.parent.name == other.parent.name or one.name == other.name:
            names = f"{one.relative_to(root)} and {other.relative_to(root)}"
            yield "exchanged", f"folders {names} exchanged", _doing(_exchange, one, other)
    for path in _folders(root):
        name = str(path.relative_to(root))
        yield "empty", f"{name} empty", _doing(_empty, path)
        # Without a FAISS index, none was made. Of words, the catalog tells.
        if not path.name.startswith("patches"):
            kind = "gone" if path.name.startswith("words") else "missing"
            yield kind, f"no {name}", _doing(shutil.rmtree, path)
        yield "a file", f"a file in place of {name}", _doing(_unfold, path)
    old, new = whole.catalogs(root)[-2:]
    yield "exchanged", "the catalog before the last under the name of the last", _doing(shutil.copyfile, old, new)
    yield "exchanged", "CURRENT names the catalog before the last", _doing(_rename_in, root / "CURRENT", old, new)


def _folders(root: Path) -> Sequence[Path]:
    return sorted(
        path.parent for name in ("shard", "patches", "patches-l2", "words") for path in root.rglob(f"{name}.json")
    )


def _doing(function: Callable[..., object], *args: object) -> Callable[[], object]:
    return lambda: function(*args)


def _append(path: Path, data: bytes) -> None:
    with path.open("ab") as file:
        file.write(data)


def _fold(path: Path) -> None:
    path.unlink()
    path.mkdir()


def _pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def _unfold(path: Path) -> None:
    shutil.rmtree(path)
    path.write_bytes(b"")


def _empty(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


def _exchange(one: Path, other: Path) -> None:
    aside = one.with_name("exchanged")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def _rename_in(path: Path, old: Path, new: Path) -> None:
    path.write_text(path.read_text().replace(new.name, old.name))
