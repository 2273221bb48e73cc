"""An index that goes from state to state, and what its readers may be told on the way: the answers of one state each.

The states are gone through once with nobody looking on, and all questions are asked in each of them. When the same is
done again among readers, every answer must be one of those, and of a state that could be in force.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import random
import struct
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bagindex import Index, catalog
from bagindex.build import BuildSettings, build
from bagindex.errors import BagindexError
from bagindex.grow import update
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource
from wordy import write_words

CLASS_IDS = {"a": 0, "b": 1}
FIRST = 14
"""Files of the first state."""
IMAGES = FIRST - 1
"""Those that are pictures."""
SHARD = 4
_COMPUTE = LinearCompute("ab", side=(16, 16), dimensions=16)
_SETTINGS = BuildSettings(shard_size=SHARD, workers=1)


def source(images: int) -> MemorySource:
    """So many pictures, of which one is none."""
    return MemorySource([("a", "b", None)[i % 3] for i in range(images)], frozenset({5}))


def begin(folder: Path, restart: bool = False, files: int = FIRST) -> int:
    """Build the first state (or another, which has so many files), or go on with it; how many images were computed."""
    settings = BuildSettings(shard_size=SHARD, workers=1, restart=restart)
    return build(IndexDirectory(folder), source(files), CLASS_IDS, _COMPUTE, settings).computed


@dataclass(frozen=True)
class Step:
    """What makes the next state of one: `kind` and a number, which says of what size. `clusters` are visual words that
    are found, which takes longer than the rest of it.
    """

    kind: str
    number: int = 0

    def take(self, folder: Path) -> None:
        """Do it."""
        directory = IndexDirectory(folder)
        match self.kind:
            case "grow":
                models = {_COMPUTE.name: _COMPUTE}
                update(directory, source(self.number), CLASS_IDS, models, _SETTINGS)
            case "relabel":
                labels = folder.with_name(f"{folder.name}-{self.number}-{os.getpid()}.csv")
                rows = [f"{i:04d}.png,{'ab'[(i + self.number) % 2]}" for i in range(self.number % 5, FIRST) if i != 5]
                labels.write_text("\n".join(["path,label", *rows]))
                with Index.open(folder) as index:
                    index.relabel(labels)
            case "restore":
                with Index.open(folder) as index:
                    index.relabel(None)
            case "words":
                with directory.writing(), Index.open(folder) as index:
                    (images,) = index.sql("SELECT count(*) AS count FROM images").to_dicts()
                    patches = np.arange(images["count"] * _COMPUTE.grid.patches).reshape(images["count"], -1)
                    write_words(index, self.number, patches % self.number)
            case "clusters":
                with Index.open(folder) as index, _one_thread():
                    index.make_words(self.number)
            case "ann":
                with Index.open(folder) as index:
                    index.make_ann("Flat" if self.number else "none")
            case "compact":
                with Index.open(folder) as index:
                    index.compact()
            case "catalog":
                with directory.writing():
                    catalog.update(directory, anew=True)

    def __str__(self) -> str:
        """For people."""
        return f"{self.kind} {self.number}" if self.number else self.kind


@contextmanager
def _one_thread() -> Iterator[None]:
    """FAISS takes longer to start threads than to cluster so little."""
    import faiss

    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def steps(rng: random.Random, count: int) -> list[Step]:
    """What is done one after the other: each kind comes again and again, so that what is kept of the old goes."""
    found: list[Step] = []
    images = FIRST
    while len(found) < count:
        kinds = ["grow", "relabel", "words", "ann", "compact", "catalog"]
        rng.shuffle(kinds)
        for kind in kinds:
            number = 0
            if kind == "grow":
                images += rng.randint(1, 2 * SHARD)
                number = images
            elif kind == "words":
                number = rng.randint(3, 9)
            elif kind == "ann":
                number = int(rng.random() < 0.8)
            elif kind == "relabel":
                number = rng.randint(1, 99)
                kind = "restore" if rng.random() < 0.2 else "relabel"
            found.append(Step(kind, 0 if kind == "restore" else number))
    return found[:count]


_COUNTS = """SELECT (SELECT count(*) FROM images), (SELECT count(*) FROM predictions), (SELECT count(*) FROM evidence),
    (SELECT count(*) FROM features), (SELECT count(*) FROM pixels), (SELECT count(*) FROM image_evidence),
    (SELECT count(*) FILTER (label = 0) FROM evidence), (SELECT count(*) FILTER (label = 0) FROM images),
    (SELECT count(*) FROM rejects)"""
_WORDS = """SELECT (SELECT count(*) FROM words), (SELECT count(*) FROM patch_words), (SELECT sum(patches) FROM words),
    (SELECT sum(mean_logit) FROM word_evidence), (SELECT sum(label) FROM patch_words)"""
SQL: Mapping[str, str] = {
    "counts": _COUNTS,
    "labels": "SELECT image_id, label_name, original_label FROM images ORDER BY 1",
    "evidence": "SELECT label, correct, count(*), sum(logit::DOUBLE) FROM evidence_of('a') GROUP BY ALL ORDER BY ALL",
    "words in SQL": _WORDS,
}
"""Questions in SQL."""
_Question = Callable[[Index], Any]
QUESTIONS: Mapping[str, _Question] = {
    **{name: lambda index, sql=sql: index.sql(sql).to_dicts() for name, sql in SQL.items()},
    "top patches": lambda index: index.top_patches("a", wrong_class=True, k=5).to_dicts(),
    "top patches of a prediction": lambda index: index.top_patches(
        "b", any_class=True, where="predicted = 0"
    ).to_dicts(),
    "similar": lambda index: index.similar(8, k=50, overlap=True).to_dicts(),
    "similar to few": lambda index: index.similar(1, k=3, class_="a").to_dicts(),
    "words": lambda index: index.words("a").to_dicts(),
    "word": lambda index: index.word(1, "b").to_dict(),
    "why": lambda index: index.why(3).to_dict(),
    "without": lambda index: index.without([0]).to_dict(),
    "confusions": lambda index: index.confusions().to_dicts(),
    "pixels": lambda index: index.pixels(9).sum(axis=(0, 1)).tolist(),
    "the last image's pixels": lambda index: index.pixels(FIRST).sum(axis=(0, 1)).tolist(),
    "patch": lambda index: index.patch(12, ["a"]),
}
"""What is asked, by its name."""


def told(index: Index, question: str) -> str:
    """An answer as a text: two that are the same are the same text. A refusal is an answer, too.

    Raises:
        Exception: something that bagindex does not raise on purpose.
    """
    try:
        answer = QUESTIONS[question](index)
    except BagindexError as error:
        return f"{type(error).__name__}: {str(error).replace(str(index.path), 'INDEX')}"
    return digest(answer)


def digest(answer: object) -> str:
    """A short text for an answer: the same for the same."""
    text = json.dumps(answer, sort_keys=True, default=_plain)
    return f"{hashlib.sha256(text.encode()).hexdigest()[:16]} {text[:60]}"


def _plain(value: object) -> object:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else str(value)


@dataclass(frozen=True)
class Expected:
    """What is answered in each state.

    Attributes:
        taken: the steps from each state to the next.
        answers: to each question, in each state.
    """

    taken: Sequence[Step]
    answers: Mapping[str, Sequence[str]]

    def states(self, question: str, answer: str) -> set[int]:
        """The states in which a question is answered so; the first that was built is number 1."""
        return {state for state, each in enumerate(self.answers[question], start=1) if each == answer}

    def words_made(self, first: int, last: int) -> int:
        """How often visual words were made on the way from one state to another."""
        return sum(step.kind == "words" for step in self.taken[max(0, first - 1) : last - 1])


def expected(
    folder: Path,
    taken: Sequence[Step],
    ask: Callable[[Path], Mapping[str, str]] | None = None,
    *,
    restart: bool = False,
) -> Expected:
    """What is answered in each state, with nobody else there.

    Args:
        folder: where the states are gone through.
        taken: the steps after the first state.
        ask: asks all questions.
        restart: there is an index already, which is begun anew.
    """
    ask = ask or _ask_all
    begin(folder, restart)
    found = [ask(folder)]
    for step in taken:
        step.take(folder)
        found.append(ask(folder))
    return Expected(taken, {question: [each[question] for each in found] for question in found[0]})


def _ask_all(folder: Path) -> Mapping[str, str]:
    with Index.open(folder) as index:
        return {question: told(index, question) for question in QUESTIONS}


class Progress:
    """How far a writer is, for all processes to see: a file of three numbers."""

    def __init__(self, path: Path) -> None:
        self.path = path
        if not path.exists():
            path.write_bytes(bytes(24))
        with path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 24)

    @property
    def begun(self) -> int:
        """The last state that may be in force."""
        return self._get(0)

    @property
    def done(self) -> int:
        """The first state that may be in force."""
        return self._get(1)

    @property
    def over(self) -> bool:
        """Whether nothing more comes."""
        return bool(self._get(2))

    def take(self, state: int, step: Callable[[], object]) -> None:
        """Make a state the one in force."""
        self._set(0, state)
        step()
        self._set(1, state)

    def end(self) -> None:
        """Nothing more comes."""
        self._set(2, 1)

    def _get(self, place: int) -> int:
        return int(struct.unpack_from("<q", self._map, 8 * place)[0])

    def _set(self, place: int, value: int) -> None:
        struct.pack_into("<q", self._map, 8 * place, value)


class Reader:
    """What a reader was told since it opened the index: all of it must be of one state.

    Args:
        known: the answers of each state.
        progress: which states can be in force.
    """

    def __init__(self, known: Expected, progress: Progress) -> None:
        self._known = known
        self._progress = progress
        self._first = progress.done
        """The state in force when the index is opened; the one that is asked may be a later one."""
        self._states: set[int] | None = None
        self._said: list[str] = []

    @property
    def may_be_unbuilt(self) -> bool:
        """Whether there may have been no index yet."""
        return self._first < 1 and self._states is None

    @property
    def may_be_outdated(self) -> bool:
        """Whether something of its state may be gone: visual words, of which those before are kept."""
        first = min(self._states) if self._states else self._first
        return self._known.words_made(first, self._progress.begun) >= 2

    def hears(self, question: str, answer: str) -> str | None:
        """What is wrong with an answer; None where nothing is."""
        at_most = self._progress.begun
        fits = self._known.states(question, answer)
        if self._states is None:  # the state is that of the first question
            self._states = set(range(self._first, at_most + 1))
        left = self._states & fits
        if left:
            self._states = left
            self._said.append(f"{question} of {_range(fits)}")
            return None
        asked = f"{question!r}: {answer}"
        if not fits:
            return f"of no state (it should be one of {_range(self._states)}): {asked}"
        before = ", ".join(self._said[-4:]) or "nothing"
        return f"of another state, {_range(fits)} and not {_range(self._states)} (before: {before}): {asked}"


def _range(states: set[int]) -> str:
    return f"{min(states)}-{max(states)}" if len(states) > 1 else str(*states)
