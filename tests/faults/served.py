"""A running `bagindex serve`, steady requests, and an index that is updated, relabelled and made again beneath it.

No request fails, each answer is that of one state, and whoever asks after a change gets the new one. Processes that run
SQL are killed meanwhile: that costs the query that each was at, and no other.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx

from faults.common import Outcome
from faults.states import FIRST, SQL, Expected, Progress, Reader, Step, begin, digest, expected, steps

STEPS = 8
"""States after the first, of each race."""
CLIENTS = 3
_PAUSE = 0.02
"""Seconds between a client's requests, at most."""
KILLED = ("the query broke the process that ran it", "the process for safe SQL does not start")
"""What is said of a query whose process was killed: at work, or twice while it started."""
_WHERE = "label_name = 'a' AND predicted < 2"
API = "/api/v1"


@dataclass(frozen=True)
class Asked:
    """A request: what is asked, with its parameters, or SQL."""

    path: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sql: str | None = None

    def send(self, client: httpx.Client, index: str) -> httpx.Response:
        """Ask a service about one of its indexes."""
        if self.sql is not None:
            return client.post(f"{API}{self.path}", params={"index": index}, json={"sql": self.sql})
        return client.get(f"{API}{self.path}", params={**self.parameters, "index": index})


REQUESTS: Mapping[str, Asked] = {
    **{name: Asked("/sql", sql=sql) for name, sql in SQL.items()},
    "top patches": Asked("/top-patches", {"class": "a", "images": "wrong_class", "k": 5}),
    "top patches where": Asked("/top-patches", {"class": "b", "images": "any", "where": _WHERE}),
    "similar": Asked("/similar", {"patch": 8, "k": 50, "overlap": True}),
    "similar to few": Asked("/similar", {"patch": 1, "k": 3, "class": "a"}),
    "patch": Asked("/patches/12", {"class": "a"}),
    "picture of a patch": Asked("/patches/12.png"),
    "picture of a later patch": Asked(f"/patches/{4 * FIRST + 1}.png"),
    "picture": Asked("/images/9.png"),
    "image": Asked("/images/3"),
    "images": Asked("/images", {"k": 100}),
    "words": Asked("/words", {"class": "a"}),
    "word": Asked("/words/1", {"class": "b"}),
    "why": Asked("/why", {"image": 3}),
    "flip": Asked("/flip", {"image": 3}),
    "confusions": Asked("/confusions"),
    "matrix": Asked("/confusion-matrix"),
    "tables": Asked("/tables"),
}
"""What is asked, by its name."""


class Server:
    """A `bagindex serve` in a process of its own."""

    def __init__(self, process: subprocess.Popen[str], address: str) -> None:
        self.process = process
        self.address = address

    @property
    def pid(self) -> int:
        """Its process."""
        return self.process.pid

    def workers(self) -> Sequence[int]:
        """The processes that run SQL for it."""
        found = []
        for task in Path(f"/proc/{self.pid}/task").iterdir():
            with _going():
                found += [int(child) for child in (task / "children").read_text().split()]
        return found


@contextmanager
def serving(*indexes: Path, workers: int = 2) -> Iterator[Server]:
    """Serve some indexes on this machine, until the end of the `with`; so many processes run SQL about each.

    What the server writes to its log is in `server.log` beside the first of them.
    """
    given = [word for index in indexes for word in ("-i", str(index))]
    command = [sys.executable, "-m", "bagindex_cli", "serve", *given, "--port", "0", "--workers-sql", str(workers)]
    with (
        indexes[0].with_name("server.log").open("w") as log,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as process,
    ):
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            yield Server(process, said.rsplit(" ", 1)[-1].strip().rstrip("/"))
        finally:
            process.terminate()
            process.wait(30)


def answer_of(response: httpx.Response, index: str) -> str:
    """An answer as a text: the same for the same."""
    if not response.headers["content-type"].endswith("json"):
        return digest([response.status_code, response.content.hex()])
    said = response.json()
    for differing in ("milliseconds", "request_id"):
        said.pop(differing, None)
    if response.is_error:
        return f"{response.status_code} {said['code']}: {said['detail']}".replace(index, "INDEX")
    return digest(said)


def serve(folder: Path, trials: int, seed: int, *, states: int = STEPS, workers: int = 2) -> Outcome:
    """Races of one writer and several clients of one server, each through states of its own."""
    outcome = Outcome("an index that changes beneath a server")
    quiet, index = folder / "looked-at-by-nobody", folder / "looked-at"
    for each in (quiet, index):
        begin(each)
    with serving(quiet, index, workers=workers) as server:
        for trial in range(trials):
            chance = random.Random(f"{seed}-{trial}")
            race = Race(server.address, index, quiet, server.workers if trial % 2 == 0 else None)
            race.run(steps(chance, states), chance, folder / f"progress-{trial}")
            where = f"race {trial} of seed {seed}: "
            outcome.trial("served", *(where + problem for problem in race.problems))
            outcome.counts += race.counts
        if server.process.poll() is not None:
            outcome.problems.append(f"the server ended with {server.process.returncode}")
    return outcome.done()


class Race:
    """Clients, and changes of what they ask about.

    Args:
        address: of who serves both indexes.
        index, quiet: both are begun anew, and the second goes through the states with nobody looking on.
        workers: gives the processes that run SQL, which are killed; None: none are.
    """

    def __init__(
        self, address: str, index: Path, quiet: Path, workers: Callable[[], Sequence[int]] | None = None
    ) -> None:
        self._address = address
        self._index = index
        self._quiet = quiet
        self._workers = workers
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []
        self._heard = threading.Lock()

    def run(self, taken: Sequence[Step], chance: random.Random, progress: Path) -> None:
        """Go through the states."""
        with httpx.Client(base_url=self._address, timeout=60) as client:
            known = expected(self._quiet, taken, partial(_ask_all, client), restart=True)
        begin(self._index, restart=True)
        shared = Progress(progress)
        shared.take(1, lambda: None)
        threads = [
            threading.Thread(target=self._ask, args=(known, shared, random.Random(chance.random())))
            for _ in range(CLIENTS)
        ]
        if self._workers is not None:
            killing = (self._workers, shared, random.Random(chance.random()))
            threads.append(threading.Thread(target=self._kill, args=killing))
        for thread in threads:
            thread.start()
        try:
            for state, step in enumerate(taken, start=2):
                shared.take(state, partial(step.take, self._index))
                self._wait_for(chance.randint(0, 3 * CLIENTS))
        finally:
            shared.end()
            for thread in threads:
                thread.join()
        lost, kills = self.counts["killed query"], self.counts["kill"]
        if lost > kills:
            self.problems.append(f"{lost} queries were lost to {kills} kills")

    def _wait_for(self, answers: int) -> None:
        """Let clients hear so much of a state, but not for ever."""
        enough, until = self.counts["answer"] + answers, time.monotonic() + 5
        while self.counts["answer"] < enough and time.monotonic() < until:
            time.sleep(0.01)

    def _ask(self, known: Expected, progress: Progress, chance: random.Random) -> None:
        with httpx.Client(base_url=self._address, timeout=60) as client:
            over = False
            while not over:
                over = progress.over  # and then once more
                name = chance.choice(list(REQUESTS))
                reader = Reader(known, progress)
                try:
                    answer = answer_of(REQUESTS[name].send(client, self._index.name), self._index.name)
                except httpx.HTTPError as error:
                    self._hear("failed", f"{name!r} had no answer: {error!r}")
                    continue
                if self._workers is not None and any(said in answer for said in KILLED):
                    self._hear("killed query", None)
                else:
                    self._hear("answer", reader.hears(name, answer))
                time.sleep(chance.uniform(0, _PAUSE))

    def _kill(self, workers: Callable[[], Sequence[int]], progress: Progress, chance: random.Random) -> None:
        while not progress.over:
            time.sleep(chance.uniform(0.05, 0.5))
            found = workers()
            if found:
                with _going():
                    os.kill(chance.choice(found), signal.SIGKILL)
                    self._hear("kill", None)

    def _hear(self, what: str, problem: str | None) -> None:
        with self._heard:
            self.counts[what] += 1
            if problem is not None:
                self.problems.append(problem)


def _ask_all(client: httpx.Client, folder: Path) -> Mapping[str, str]:
    return {name: answer_of(asked.send(client, folder.name), folder.name) for name, asked in REQUESTS.items()}


@contextmanager
def _going() -> Iterator[None]:
    """Around what is asked of a process that may end at any moment."""
    with suppress(ProcessLookupError, FileNotFoundError):
        yield
