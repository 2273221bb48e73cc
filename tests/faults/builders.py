"""Two to eight processes that want to write one index at once: one of them does a piece of work, the others are told
who does it, or find it done.
"""

from __future__ import annotations

import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from bagindex import Index
from bagindex.errors import BagindexError, IndexNotFoundError, LockedError
from bagindex.store import IndexDirectory
from faults.common import Outcome
from faults.readers import process_pool
from faults.states import FIRST, IMAGES, Step, begin, digest, told
from test_build import contents

_MOST = 8
_PATIENCE = 60.0


@dataclass(frozen=True)
class Done:
    """What became of one of them: images that it computed, how often it was told to wait, and what else it was told."""

    work: str
    computed: int = 0
    told_to_wait: int = 0
    error: str = ""
    problem: str = ""


def builders(
    folder: Path, trials: int, seed: int, *, most: int = _MOST, prepare: Callable[[], None] | None = None
) -> Outcome:
    """Races of all kinds, one kind after the other, of up to `most` processes; `prepare` is called in each first."""
    outcome = Outcome("two to eight builders at once")
    clean = folder / "clean"
    begin(clean)
    wanted = contents(clean)
    kinds = list(_KINDS.items())
    with process_pool(most, prepare) as pool:
        for trial in range(trials):
            chance = random.Random(f"{seed}-{trial}")
            name, race = kinds[trial % len(kinds)]
            place = folder / str(trial)
            place.mkdir()
            done, problems = race(Place(place / "index", clean, pool, most), chance)
            outcome.counts.update(_counted(done))
            where = f"race {trial} of seed {seed}, {name}: "
            problems += [f"{each.work}: {each.problem}" for each in done if each.problem]
            if (place / "index").exists():
                problems += _differences(place / "index", wanted)
            outcome.trial(name, *(where + problem for problem in problems))
            shutil.rmtree(place)
    return outcome.done()


@dataclass(frozen=True)
class Place:
    """Where a race is run: an index, a clean one to begin with, and so many processes at most."""

    index: Path
    clean: Path
    pool: ProcessPoolExecutor
    most: int


_Race = Callable[[Place, random.Random], tuple[list[Done], list[str]]]


def _same(place: Place, chance: random.Random) -> tuple[list[Done], list[str]]:
    """The same build, several times: together they compute each image once."""
    done = _at_once(place, ["build"] * chance.randint(2, place.most), chance)
    computed = sum(each.computed for each in done)
    return done, [] if computed == IMAGES else [f"{computed} images were computed, not {IMAGES}"]


def _restart(place: Place, chance: random.Random) -> tuple[list[Done], list[str]]:
    """Builds, and builds that begin anew; of a finished index, or of none."""
    if chance.random() < 0.5:
        shutil.copytree(place.clean, place.index)
    half = place.most // 2
    done = _at_once(place, ["restart"] * chance.randint(1, half) + ["build"] * chance.randint(1, half), chance)
    wrong = [each.computed for each in done if each.work == "restart" and not each.error and each.computed != IMAGES]
    return done, [f"a restart computed {each} images, not {IMAGES}" for each in wrong]


def _remove(place: Place, chance: random.Random) -> tuple[list[Done], list[str]]:
    """Builds and removals. In the end there is a whole index, or none: a last build shows it."""
    shutil.copytree(place.clean, place.index)
    half = place.most // 2
    works = ["build"] * chance.randint(1, half) + ["remove"] * chance.randint(1, half)
    chance.shuffle(works)
    done = _at_once(place, works, chance)
    return [*done, work(place.index, "build", 0.0, 0)], []


def _changes(place: Place, chance: random.Random) -> tuple[list[Done], list[str]]:
    """An update, other labels, words, a FAISS index and a compaction at once, each tried until it is done.

    Then words and the FAISS index are made again: all answers are those of an index where one came after the other.
    """
    index, quiet = place.index, place.index.with_name("quiet")
    for each in (index, quiet):
        shutil.copytree(place.clean, each)
    works = [*_CHANGES, *chance.sample(list(_CHANGES), chance.randint(0, max(0, place.most - len(_CHANGES) - 1)))]
    chance.shuffle(works)
    done = _at_once(place, works, chance, wait=True)
    problems = _stale(index)
    for name in ("update", "relabel"):
        _CHANGES[name].take(quiet)
    told_by: list[dict[str, str]] = []
    for each in (index, quiet):
        for name in ("words", "ann"):
            _CHANGES[name].take(each)
        with Index.open(each) as opened:
            told_by.append({question: told(opened, question) for question in _COMPARED})
            problems += opened.verify().problems
    for question in _COMPARED:
        if told_by[0][question] != told_by[1][question]:
            problems.append(f"{question!r} is answered otherwise")
    shutil.rmtree(index)
    return done, problems


_KINDS: Mapping[str, _Race] = {
    "the same build": _same,
    "build and restart": _restart,
    "build and remove": _remove,
    "changes": _changes,
}
_CHANGES: Mapping[str, Step] = {
    "update": Step("grow", FIRST + 7),
    "relabel": Step("relabel", 3),
    "words": Step("words", 5),
    "ann": Step("ann", 1),
    "compact": Step("compact"),
}
_COMPARED = ("counts", "labels", "evidence", "words in SQL", "words", "similar", "top patches", "why")


def _stale(index: Path) -> list[str]:
    """A FAISS index that says that it is of all features must find all of them."""
    with Index.open(index) as opened:
        last = opened.sql("SELECT max(image_id) AS last FROM images").to_dicts()[0]["last"]
        patches = opened.sql("SELECT count(*) AS patches FROM features").to_dicts()[0]["patches"]
        near = opened.similar(4 * last, k=patches + 1, overlap=True)
        exact = opened.similar(4 * last, k=patches + 1, overlap=True, exact=True)
    if digest(near.to_dicts()) == digest(exact.to_dicts()):
        return []
    return [f"similar finds {len(near)} of {len(exact)} patches: {near.how}"]


def _at_once(place: Place, works: Sequence[str], chance: random.Random, *, wait: bool = False) -> list[Done]:
    """Have all of it done by processes that begin at the same time, within some milliseconds."""
    apart = chance.choice([0.0, 0.02, 0.2])
    begins = time.monotonic() + 0.15
    futures = [
        place.pool.submit(work, place.index, each, begins + chance.uniform(0, apart), _PATIENCE if wait else 0.0)
        for each in works
    ]
    return [each.result(2 * _PATIENCE) for each in futures]


def work(index: Path, what: str, begins: float, patience: float) -> Done:
    """Do it when the time has come; who is told to wait tries again for so many seconds."""
    time.sleep(max(0.0, begins - time.monotonic()))
    until, waited, computed = time.monotonic() + patience, 0, 0
    while True:
        try:
            if what in ("build", "restart"):
                computed = begin(index, restart=what == "restart")
            elif what == "remove":
                Index.open(index).remove()
            else:
                _CHANGES[what].take(index)
        except LockedError as error:
            waited += 1
            if time.monotonic() < until:
                time.sleep(0.02)
                continue
            return Done(what, told_to_wait=waited, error="told to wait", problem=_unclear(error))
        except IndexNotFoundError as error:
            problem = "" if what == "remove" else str(error)
            return Done(what, told_to_wait=waited, error="found none", problem=problem)
        except BagindexError as error:
            return Done(what, error="refused", problem=f"{type(error).__name__}: {error}")
        except Exception as error:
            return Done(what, error="failed", problem=f"{type(error).__name__}: {error}")
        return Done(what, computed, waited)


def _unclear(error: LockedError) -> str:
    """What the message lacks: it is one line that says who writes, and what to do."""
    text = str(error)
    clear = "\n" not in text and "wait until it ends, or stop it" in text and "unknown" not in text
    return "" if clear else f"unclear: {text!r}"


def _counted(done: Sequence[Done]) -> Counter[str]:
    return Counter(each.error or ("computed" if each.computed else "done") for each in done)


def _differences(index: Path, wanted: Mapping[str, str]) -> list[str]:
    """In what an index differs from one that was built with nobody else there."""
    found = contents(index)
    differing = sorted(name for name in {*wanted, *found} if wanted.get(name) != found.get(name))
    problems = [f"{name} is not what a clean build makes" for name in differing]
    if not differing:
        with Index.open(index) as opened:
            problems += opened.verify().problems
    if len(list(index.glob("catalog-*"))) > 2 or IndexDirectory(index).size() > 50_000_000:
        problems.append("files are left over")
    return problems
