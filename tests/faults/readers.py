"""Readers of an index that is built, updated, relabelled and made again beneath them: each answer is that of one state.

Some open it and keep it open, others open it for a few questions; several in a process, and several processes.
"""

from __future__ import annotations

import multiprocessing
import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from multiprocessing.context import ForkServerContext
from pathlib import Path

from bagindex import Index
from bagindex.errors import IncompleteIndexError, IndexNotFoundError
from faults.common import Outcome
from faults.states import QUESTIONS, Expected, Progress, Reader, Step, begin, expected, steps, told

STEPS = 12
"""States after the first, of each race."""
_PROCESSES = 2
_QUESTIONS = (4, 30, 10_000)
"""Questions of one opening, of three readers in each process: the last keeps the index open."""
_PAUSE = 0.04
"""Seconds between questions, at most."""
_PRELOADED = ("bagindex.similarity.making", "bagindex.similarity.search", "bagindex.words.results", "faiss")


@dataclass
class Heard:
    """What a reader was told: how many answers, and what was wrong with them."""

    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def add(self, other: Heard) -> None:
        """What another was told, too."""
        self.counts += other.counts
        self.problems += other.problems


def readers(folder: Path, trials: int, seed: int, *, states: int = STEPS, processes: int = _PROCESSES) -> Outcome:
    """Races of one writer and several readers, three in each process, through states of their own."""
    outcome = Outcome("readers while an index is made")
    with process_pool(processes) as pool:
        for trial in range(trials):
            chance = random.Random(f"{seed}-{trial}")
            place = folder / str(trial)
            place.mkdir()
            heard = _race(place, steps(chance, states), chance.randrange(2**32), pool, processes)
            where = f"race {trial} of seed {seed}: "
            outcome.trial("read", *(where + problem for problem in heard.problems))
            outcome.counts += heard.counts
            shutil.rmtree(place)
    return outcome.done()


def process_pool(processes: int, prepare: Callable[[], None] | None = None) -> ProcessPoolExecutor:
    """Some processes that wait for work, and call `prepare` first; see `forkserver`."""
    return ProcessPoolExecutor(processes, forkserver(), prepare)


def forkserver() -> ForkServerContext:
    """Processes that are forked from a clean one, which has imported what they need."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__, *_PRELOADED])
    return context


def _race(folder: Path, taken: Sequence[Step], seed: int, pool: ProcessPoolExecutor, processes: int) -> Heard:
    known = expected(folder / "quiet", taken)
    progress = Progress(folder / "progress")
    index = folder / "index"
    reading = [pool.submit(read, index, known, progress.path, seed + number) for number in range(processes)]
    try:
        progress.take(1, lambda: begin(index))
        for state, step in enumerate(taken, start=2):
            progress.take(state, partial(step.take, index))
    finally:
        progress.end()
    heard = Heard()
    for each in reading:
        heard.add(each.result(120))
    return heard


def read(folder: Path, known: Expected, progress: Path, seed: int) -> Heard:
    """Read in threads until nothing more comes."""
    heard = {most: Heard() for most in _QUESTIONS}
    shared = Progress(progress)
    threads = [
        threading.Thread(target=_read, args=(folder, known, shared, random.Random(seed + most), each, most))
        for most, each in heard.items()
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    whole = Heard()
    for each in heard.values():
        whole.add(each)
    return whole


def _read(folder: Path, known: Expected, progress: Progress, chance: random.Random, heard: Heard, most: int) -> None:
    """Open the index, ask up to `most` questions, and open it again, until nothing more comes."""
    last = False
    while not last:
        last = progress.over
        reader = Reader(known, progress)
        try:
            index = Index.open(folder)
        except (IndexNotFoundError, IncompleteIndexError):
            heard.counts["not there yet"] += 1
            if progress.done:
                heard.problems.append("an index that was there is not found")
            time.sleep(0.02)
            continue
        with index:
            try:
                index.info()
            except Exception as error:
                heard.problems.append(f"info() raised {type(error).__name__}: {error}")
            for _ in range(min(most, len(QUESTIONS)) if last else most):
                if not _ask(index, reader, chance.choice(list(QUESTIONS)), heard) or (progress.over and not last):
                    break
                time.sleep(chance.uniform(0, _PAUSE))
        heard.counts["opened"] += 1


def _ask(index: Index, reader: Reader, question: str, heard: Heard) -> bool:
    """Whether the reader goes on."""
    try:
        answer = told(index, question)
    except Exception as error:  # a traceback for the person who asked
        heard.problems.append(f"{question!r} raised {type(error).__name__}: {error}")
        return False
    if answer.startswith("IncompleteIndexError") and reader.may_be_unbuilt:
        heard.counts["not there yet"] += 1
        time.sleep(0.02)
        return False
    if answer.startswith("OutdatedError") and reader.may_be_outdated:
        heard.counts["told to open it again"] += 1
        return False
    heard.counts["answered"] += 1
    problem = reader.hears(question, answer)
    if problem is not None:
        heard.problems.append(problem)
    return problem is None
