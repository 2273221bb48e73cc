"""Build, kill, resume, query and serve together for a while: nothing fails that may not, and nothing grows.

A server runs the whole time over an index that is built, killed, gone on with, grown, relabelled, verified, damaged and
repaired, while clients ask. What the server takes of the machine is sampled: at the end it may not be more than before.
"""

from __future__ import annotations

import csv
import io
import itertools
import os
import random
import signal
import statistics
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from multiprocessing.context import ForkServerProcess
from pathlib import Path

import httpx
from PIL import Image

from bagindex import Index, demo
from bagindex.errors import BagindexError, SettingsError
from faults.common import Outcome
from faults.readers import forkserver
from faults.served import API, KILLED, REQUESTS, Asked, Server, serving
from faults.states import FIRST, SHARD, Step, begin

CLIENTS = 2
_PAUSE = 0.1
"""Seconds between a client's requests, at most."""
_WITH_MODEL = 60
"""From so many seconds on, a model runs, too."""
_EXPLAINED_EVERY = 5.0
_JUDGED = 60
"""From so many seconds on it is judged whether anything grows."""
_MOST_FILES = 60
"""Then the index is begun anew, so that what the server takes of the machine has no reason to grow."""
_WHILE_DAMAGED = frozenset({"damaged-index", "cannot-answer", "incomplete-index", "outdated-index"})
_WHILE_BEGUN_ANEW = frozenset({"unknown-index", "incomplete-index", "outdated-index", "damaged-index"})
_ALWAYS = frozenset({"not-kept", "unknown-patch", "unknown-image"})
"""Codes of problems that a request may have: of what there is not (yet) in the index; in the other two, of an index
that was just damaged, or is just being built.
"""


@dataclass(frozen=True)
class Sample:
    """What a server and its index take of the machine.

    Attributes:
        seconds: since the beginning.
        resident, workers_resident: megabytes of memory of the server, and of the processes that run SQL for it.
        files, workers_files: that they have open, together.
        threads: of the server.
        workers: how many such processes there are.
        disk: megabytes of the index.
        temporary: files and folders of ours in the system's folder for them, and with a temporary name in the index.
    """

    seconds: float
    resident: float
    files: int
    threads: int
    workers: int
    workers_resident: float
    workers_files: int
    disk: float
    temporary: int


SLACK: Mapping[str, float] = {
    "resident": 16,
    "files": 8,
    "threads": 4,
    "workers": 1,
    "workers_resident": 64,
    "workers_files": 8,
    "disk": 1,
    "temporary": 2,
}
"""What is flat: the median of a run's last third is at most a tenth, and so much, more than that of the second third.
(In the first, libraries are loaded and caches filled.)
"""


def growing(samples: Sequence[Sample]) -> list[str]:
    """What is not flat."""
    third = len(samples) // 3
    if not third:
        return ["there are too few samples to tell"]
    problems = []
    for name, slack in SLACK.items():
        middle, last = (
            statistics.median(getattr(sample, name) for sample in part)
            for part in (samples[third : 2 * third], samples[2 * third :])
        )
        if last > 1.1 * middle + slack:
            problems.append(f"{name} grows: {middle:g} in the second third, {last:g} in the last")
    return problems


def soak(folder: Path, trials: int, seed: int) -> Outcome:
    """Do it for `trials` seconds; `samples.csv` in the folder has what was sampled."""
    outcome = Outcome("build, kill, resume, query and serve, seconds")
    begin(folder / "index")
    planted = _planted(folder) if trials >= _WITH_MODEL else None
    with serving(folder / "index", *([planted] if planted else [])) as server:
        run = _Soak(server, folder / "index", planted, random.Random(seed))
        samples = run.run(trials)
        if server.process.poll() is not None:
            outcome.problems.append(f"the server ended with {server.process.returncode}")
    with (folder / "samples.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [each.name for each in fields(Sample)])
        writer.writeheader()
        writer.writerows(asdict(sample) for sample in samples)
    outcome.trials = trials
    outcome.counts += run.counts
    outcome.problems += run.problems + (growing(samples) if trials >= _JUDGED else [])
    return outcome.done()


def _planted(folder: Path) -> Path:
    """The index of some of the demo's pictures, and of its model, which explains pictures that are sent."""
    demo.plant(folder / "pictures", 2, 5)
    (folder / "pictures" / "truth.csv").unlink()
    return Index.build(folder / "pictures", weights=demo.weights(), out=folder / "planted").path


class _Soak:
    def __init__(self, server: Server, index: Path, planted: Path | None, chance: random.Random) -> None:
        self._server = server
        self._index = index
        self._planted = planted
        self._chance = chance
        self._files = FIRST
        self._began = 0.0
        self._over = threading.Event()
        self._allowed = _ALWAYS
        self._said = threading.Lock()
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def run(self, seconds: int) -> list[Sample]:
        """Do everything for so many seconds."""
        samples: list[Sample] = []
        self._warm()
        self._began = time.monotonic()
        threads = [
            threading.Thread(target=self._ask, args=(random.Random(self._chance.random()),)) for _ in range(CLIENTS)
        ]
        threads.append(threading.Thread(target=self._sample, args=(samples, max(0.1, min(5, seconds / 60)))))
        if self._planted is not None:
            threads.append(threading.Thread(target=self._explain, args=(self._planted,)))
        for thread in threads:
            thread.start()
        try:
            while time.monotonic() < self._began + seconds:
                self._do(self._chance.choice(list(_ACTIONS)))
                time.sleep(self._chance.uniform(0, 0.3))
        finally:
            self._over.set()
            for thread in threads:
                thread.join()
        self._check_end()
        if self.counts["killed query"] > self.counts["kill of SQL"]:
            self._count("problem", "more queries were lost than processes killed")
        return samples

    def _warm(self) -> None:
        """Ask everything once, of an index that has everything: libraries are loaded when they are needed."""
        self.ann()
        self.words()
        forkserver().Process(target=list).start()
        with httpx.Client(base_url=self._server.address, timeout=60) as client:
            for name in REQUESTS:
                self._send(client, name)

    def _do(self, action: str) -> None:
        try:
            _ACTIONS[action](self)
        except BagindexError as error:
            self._count(action, f"{action} was refused: {type(error).__name__}: {error}")
        except Exception as error:
            self._count(action, f"{action} failed: {type(error).__name__}: {error}")
        else:
            self._count(action)

    def _count(self, what: str, problem: str | None = None) -> None:
        with self._said:
            self.counts[what] += 1
            if problem is not None:
                self.problems.append(f"after {time.monotonic() - self._began:.1f} s: {problem}")

    def _in_process(self, work: Callable[[], object], seconds: float | None = None) -> bool:
        """Do something in a process of its own, which is killed after some seconds; whether it came to its end."""
        process: ForkServerProcess = forkserver().Process(target=work)  # type: ignore[assignment]
        process.start()
        process.join(seconds)
        process.kill()
        process.join()
        if process.exitcode not in (0, -signal.SIGKILL):
            raise RuntimeError(f"it ended with {process.exitcode}")
        return process.exitcode == 0

    def grow(self) -> None:
        """New files; the process is killed at some moment, and another one goes on."""
        if self._files >= _MOST_FILES:
            self._begin_anew()
            return
        self._files += self._chance.randint(1, 2 * SHARD)
        step = Step("grow", self._files)
        for _ in range(3):
            if self._in_process(Killable(step, self._index), self._chance.uniform(0.02, 0.5)):
                return
            self._count("killed update")
        step.take(self._index)

    def _begin_anew(self) -> None:
        """The first state again; killed, and gone on with."""
        self._allowed = _ALWAYS | _WHILE_BEGUN_ANEW
        self._files = FIRST
        if not self._in_process(BeginAnew(self._index), self._chance.uniform(0.02, 0.5)):
            self._count("killed build")
        try:
            begin(self._index)
        except SettingsError:  # it was killed before anything was removed
            begin(self._index, restart=True)
        self._settle()

    def _settle(self) -> None:
        """What was asked until now may still be answered as of before."""
        time.sleep(1.0)
        self._allowed = _ALWAYS

    def relabel(self) -> None:
        """Other labels, or the original ones."""
        Step(*self._chance.choice([("relabel", self._chance.randint(1, 99)), ("restore", 0)])).take(self._index)

    def words(self) -> None:
        """Visual words."""
        Step("words", self._chance.randint(3, 9)).take(self._index)

    def ann(self) -> None:
        """The FAISS index."""
        Step("ann", 1).take(self._index)

    def catalog(self) -> None:
        """The catalog."""
        Step("catalog").take(self._index)

    def verify(self) -> None:
        """All is sound."""
        with Index.open(self._index) as index:
            for problem in index.verify().problems:
                self._count("problem", f"verify: {problem}")

    def damage(self) -> None:
        """A bit of a shard flips; `repair` drops the shard, and a build makes it again."""
        self._allowed = _ALWAYS | _WHILE_DAMAGED
        path = self._chance.choice(sorted(self._index.glob("linear/shard-*/*.parquet")))
        with path.open("r+b") as file:
            place = self._chance.randrange(path.stat().st_size)
            (byte,) = os.pread(file.fileno(), 1, place)
            os.pwrite(file.fileno(), bytes([byte ^ 1 << self._chance.randrange(8)]), place)
        report = Index.repair(self._index)
        if not report.found or report.left:
            self._count("problem", f"repair after a flipped bit in {path}: {report}")
        begin(self._index, files=self._files)
        self._settle()

    def kill_sql(self) -> None:
        """A process that runs SQL is killed."""
        workers = self._server.workers()
        if workers:
            with suppress(ProcessLookupError):
                os.kill(self._chance.choice(workers), signal.SIGKILL)
                self._count("kill of SQL")

    def _check_end(self) -> None:
        with Index.open(self._index) as index:
            for problem in index.verify().problems:
                self._count("problem", f"verify at the end: {problem}")
        for name in self._index.rglob("*.tmp-*"):
            self._count("problem", f"{name} is left over")

    def _ask(self, chance: random.Random) -> None:
        with httpx.Client(base_url=self._server.address, timeout=60) as client:
            while not self._over.is_set():
                name = chance.choice([*REQUESTS, _CONSISTENT])
                allowed = self._allowed
                try:
                    answer = self._send(client, name)
                except httpx.HTTPError as error:
                    self._count("failed", f"{name!r} had no answer: {error!r}")
                    continue
                self._judge(name, answer, allowed | self._allowed)
                self._over.wait(chance.uniform(0, _PAUSE))

    def _explain(self, planted: Path) -> None:
        """Send pictures to be explained by the model of another index."""
        pictures = sorted((planted.parent / "pictures").rglob("*.jpg"))
        with httpx.Client(base_url=self._server.address, timeout=60) as client:
            for number in itertools.count():
                sent = Image.open(pictures[number % len(pictures)]).rotate(number % 360)
                data = io.BytesIO()
                sent.save(data, "PNG")
                answer = client.post(
                    f"{API}/explain", params={"index": planted.name}, files={"picture": ("a.png", data.getvalue())}
                )
                if answer.is_success:
                    self._count("explained picture")
                else:
                    self._count("failed", f"a picture was not explained: {answer.status_code} {answer.text}")
                if self._over.wait(_EXPLAINED_EVERY):
                    return

    def _send(self, client: httpx.Client, name: str) -> httpx.Response:
        if name == _CONSISTENT:
            return Asked("/sql", sql=_SUMS).send(client, self._index.name)
        return REQUESTS[name].send(client, self._index.name)

    def _judge(self, name: str, answer: httpx.Response, allowed: frozenset[str]) -> None:
        if answer.is_success:
            self._count("answer")
            if name == _CONSISTENT and answer.json()["rows"] != [[True] * 5]:
                self._count("mix", f"an answer is of several states: {answer.json()['rows']}")
            return
        said = answer.json()
        if said["code"] in allowed or said["detail"].startswith("this index has no "):
            self._count("answer that there is none")
        elif any(text in said["detail"] for text in KILLED):
            self._count("killed query")
        else:
            self._count("failed", f"{name!r} failed: {answer.status_code} {said['code']}: {said['detail']}")

    def _sample(self, samples: list[Sample], every: float) -> None:
        while not self._over.wait(every):
            samples.append(sample(self._server.pid, self._server.workers(), self._index, self._began))


_CONSISTENT = "sums"
_SUMS = """SELECT count(*) = (SELECT count(*) FROM predictions), 4 * count(*) = (SELECT count(*) FROM features),
    8 * count(*) = (SELECT count(*) FROM evidence), count(*) = (SELECT count(*) FROM pixels),
    8 * count(label) = (SELECT count(label) FROM evidence) FROM images"""

_ACTIONS: Mapping[str, Callable[[_Soak], None]] = {
    "update": _Soak.grow,
    "update again": _Soak.grow,
    "labels": _Soak.relabel,
    "words": _Soak.words,
    "FAISS index": _Soak.ann,
    "catalog": _Soak.catalog,
    "verify": _Soak.verify,
    "damage and repair": _Soak.damage,
    "look for SQL to kill": _Soak.kill_sql,
}


@dataclass(frozen=True)
class Killable:
    """A step, for a process of its own."""

    step: Step
    index: Path

    def __call__(self) -> None:
        """Take it."""
        self.step.take(self.index)


@dataclass(frozen=True)
class BeginAnew:
    """The first state, for a process of its own."""

    index: Path

    def __call__(self) -> None:
        """Build it."""
        begin(self.index, restart=True)


def sample(server: int, workers: Sequence[int], index: Path, began: float) -> Sample:
    """What is taken now, by the processes of these ids."""
    resident, files = zip(*(_taken(pid) for pid in workers), strict=True) if workers else ((), ())
    own = _taken(server)
    threads = len(list(Path(f"/proc/{server}/task").iterdir()))
    spilled = list(Path(tempfile.gettempdir()).glob(f"bagindex-*{server}*"))
    return Sample(
        seconds=round(time.monotonic() - began, 2),
        resident=own[0],
        files=own[1],
        threads=threads,
        workers=len(workers),
        workers_resident=sum(resident),
        workers_files=sum(files),
        disk=_size(index),
        temporary=len(spilled) + len(list(index.rglob("*.tmp-*"))),
    )


def _taken(process: int) -> tuple[float, int]:
    """Megabytes of memory of a process, and how many files it has open; nothing of one that has ended."""
    try:
        pages = int(Path(f"/proc/{process}/statm").read_text().split()[1])
        return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20, 1), len(os.listdir(f"/proc/{process}/fd"))
    except (FileNotFoundError, ProcessLookupError):
        return 0.0, 0


def _size(folder: Path) -> float:
    total = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.lstat(os.path.join(place, name)).st_size
    return round(total / 2**20, 3)
