"""Ray's actors at work on a build: started, told, heard, replaced where they are lost, and ended."""

from __future__ import annotations

import pickle
import secrets
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from itertools import count
from typing import TYPE_CHECKING, Any

from bagindex import __version__
from bagindex.engines.engine import Heard, Hearing, Job
from bagindex.engines.layout import Layout
from bagindex.engines.probe import Probe
from bagindex.engines.schedule import LOSSES, Schedule
from bagindex.engines.worker import Equipment, Opened, Ran, Worker
from bagindex.errors import BagindexError, EngineError
from bagindex.plan import Work
from bagindex.precision import Choice
from bagindex.profile import Profile
from bagindex.sources import Entry
from bagindex.tasks import Task, Tasks
from bagindex.text import first_line
from bagindex_schemas.records import AskedPrecision, Environment, IndexManifest

if TYPE_CHECKING:
    from types import ModuleType

_AHEAD = 3
"""Shards for each worker that may be done before the one whose turn it is: one that is begun again holds up nobody."""
_LOOK_SECONDS = 1.0
_PATIENCE = 20.0
"""Seconds after which the person hears that there is no room in the cluster yet."""
_END_SECONDS = 5.0
_ENDS = {"low on memory": "its machine ran out of memory", "node has died": "its machine is gone"}
"""What Ray says of a worker's end, and what a person is told."""


class _LostError(Exception):
    """A worker has ended, or is out of reach."""


@dataclass
class _Call:
    """Something that a worker does: an attempt at a shard (`task`, at a place of `schedule`), or a comparison."""

    attempt: int
    task: Task | None = None
    place: int = 0
    schedule: object = None
    heard: Heard = field(default_factory=Heard)


@dataclass
class _Hand:
    """An actor: `answer` is Ray's reference to what it does now, `hearing` to how far it is."""

    actor: Any
    answer: Any
    opened: Opened | None = None
    call: _Call | None = None
    hearing: Any = None

    @property
    def idle(self) -> bool:
        """Whether it can be told something."""
        return self.opened is not None and self.answer is None


class Actors:
    """The workers of a build on a Ray that is connected; see `bagindex.engines.engine.Workers`.

    Args:
        ray: the module.
        job: what they work on.
        probe: what they must see.
        layout: how many, and what each takes.
        profile: where the time goes.
        note: hears what a person should know.

    Raises:
        EngineError: a model or the source cannot be pickled.
    """

    def __init__(
        self, ray: ModuleType, job: Job, probe: Probe, layout: Layout, profile: Profile, note: Callable[[str], None]
    ) -> None:
        self.environments: Mapping[str, Environment] = {}
        self.count = layout.workers
        self._ray = ray
        self._layout = layout
        self._probe = probe
        self._profile = profile
        self._note = note
        directory = replace(job.directory, root=job.directory.root.absolute())
        decoder = replace(job.decoder, workers=layout.cpus)
        equipment = Equipment(directory, job.source.reader(), job.models, decoder)
        try:
            self._payload = ray.put(ray.cloudpickle.dumps(equipment))
        except (TypeError, pickle.PicklingError) as error:
            raise EngineError(
                f"the model or the source cannot be sent to other processes ({first_line(error)}): give --engine local"
            ) from error
        self._tasks: Tasks | None = None
        # Numbers that no other build has had: a folder in the making is nobody else's.
        self._attempts = count(secrets.randbits(60))
        self._failures = 0
        self._waiting_since = time.monotonic()
        self._hands = [self._hire() for _ in range(layout.workers)]

    def open(self) -> None:
        """Wait for the first worker; the others may come later.

        Raises:
            EngineError: none can be had.
        """
        while not any(hand.opened for hand in self._hands):
            self._look()

    def close(self) -> None:
        """End the workers, and remove what they were writing."""
        for hand in self._hands:
            with suppress(Exception):
                self._ray.kill(hand.actor)
        busy = [hand for hand in self._hands if hand.answer is not None and hand.opened is not None]
        with suppress(Exception):  # until they have ended, they may still write
            self._ray.wait([hand.answer for hand in busy], num_returns=len(busy), timeout=_END_SECONDS)
        for hand in busy:
            self._drop(hand.call)

    def choose(
        self, name: str, asked: AskedPrecision, images: int, sample: Sequence[Entry], progress: Callable[[int], None]
    ) -> Choice:
        """See `bagindex.engines.engine.Workers`."""
        losses = 0
        while losses < LOSSES:
            hand = self._idle()
            call = hand.call = _Call(next(self._attempts))
            hand.answer = hand.actor.choose.remote(call.attempt, name, asked, images, sample)
            outcome: object = None
            while outcome is None:
                outcome = next((found for done, found in self._look() if done is call), None)
                if call.heard.files:
                    progress(call.heard.files)
            if isinstance(outcome, Choice):
                return outcome
            if not isinstance(outcome, _LostError):
                raise _exception(outcome)
            losses += 1
        raise EngineError(f"{LOSSES} workers were lost while precisions were compared: give --precision fp32")

    def run(
        self, manifest: IndexManifest, work: Sequence[Work], tasks: Tasks, hearing: Hearing
    ) -> Generator[tuple[Task, int], None, None]:
        """See `bagindex.engines.engine.Workers`."""
        self._tasks = tasks
        told = self._ray.put(manifest)
        schedule = Schedule[tuple[Task, int]](work, _AHEAD * self.count)
        heard: dict[int, Heard] = {}
        try:
            while not schedule.over:
                self._assign(schedule, work, told)
                for call, outcome in self._look():
                    if call.schedule is schedule and call.task is not None:
                        self._ended(schedule, call.place, call.task, outcome)
                        heard[call.place] = call.heard
                    else:
                        self._drop(call)
                for call in [hand.call for hand in self._hands if hand.call and hand.call.schedule is schedule]:
                    heard[call.place] = call.heard
                for place, found in heard.items():
                    hearing.files(work[place].shard, found)
                while not schedule.over:
                    turn = schedule.turn
                    hearing.rejects(work[turn].shard, heard.get(turn, Heard()))
                    made = schedule.take()
                    if made is None:
                        break
                    heard.pop(turn, None)
                    if isinstance(made, Exception):
                        raise made
                    yield made
        finally:
            for task, _ in schedule.rest():
                tasks.drop(task)

    def _assign(self, schedule: Schedule[tuple[Task, int]], work: Sequence[Work], told: Any) -> None:
        """Tell those that have nothing to do."""
        assert self._tasks is not None
        for hand in self._hands:
            if not hand.idle:
                continue
            place = schedule.next()
            if place is None:
                return
            attempt = next(self._attempts)
            try:
                task = self._tasks.begin(work[place], attempt)
            except BagindexError as error:
                schedule.ended(place, error)
                return
            hand.call = _Call(attempt, task, place, schedule)
            folders = {series: folder.absolute() for series, folder in task.folders.items()}
            hand.answer = hand.actor.run.remote(attempt, told, replace(task, folders=folders))

    def _ended(self, schedule: Schedule[tuple[Task, int]], place: int, task: Task, outcome: object) -> None:
        """What has come of an attempt."""
        assert self._tasks is not None
        if isinstance(outcome, Ran):
            self._profile.merge(outcome.spent, self.count)
            schedule.ended(place, (task, outcome.images))
            return
        self._tasks.drop(task)
        if isinstance(outcome, _LostError):
            self._note(f"a worker was lost over shard {task.work.shard} ({outcome}): another one does it again")
            schedule.lost(place, str(outcome))
        else:
            schedule.ended(place, _exception(outcome))

    def _look(self) -> list[tuple[_Call, object]]:
        """What was ended since the last look, or after a second nothing; workers that come or are lost are seen to."""
        for hand in self._hands:
            if hand.call is not None and hand.hearing is None:
                hand.hearing = hand.actor.hear.remote(hand.call.attempt)
        answers = {hand.answer: hand for hand in self._hands if hand.answer is not None}
        hearings = {hand.hearing: hand for hand in self._hands if hand.hearing is not None}
        if not answers:
            return []
        ready, _ = self._ray.wait([*answers, *hearings], num_returns=1, timeout=_LOOK_SECONDS)
        ended: list[tuple[_Call, object]] = []
        for reference in ready:
            found = self._get(reference)
            if reference in hearings:
                hand = hearings[reference]
                hand.hearing = None
                if isinstance(found, Heard) and hand.call is not None:
                    hand.call.heard = found
                continue
            hand = answers[reference]
            call, hand.answer, hand.call = hand.call, None, None
            hand.hearing = None  # it would be about this call, and come after the next one has begun
            if isinstance(found, _LostError):
                self._replace(hand, found)
            elif call is None:
                self._welcome(hand, found)
            if call is not None:
                if isinstance(found, Ran):
                    call.heard = found.heard
                ended.append((call, found))
        self._say_where_we_wait()
        return ended

    def _get(self, reference: Any) -> object:
        """What a worker answers, or what it raised, or that it is lost.

        Raises:
            EngineError: Ray itself is gone.
        """
        errors = self._ray.exceptions
        lost = (errors.RayActorError, errors.NodeDiedError, errors.WorkerCrashedError, errors.OutOfMemoryError)
        try:
            found: object = self._ray.get(reference)
        except errors.RayTaskError as error:
            return error.cause if isinstance(error.cause, Exception) else error
        except (*lost, errors.ObjectLostError) as error:
            text = str(error).lower()
            return _LostError(next((said for words, said in _ENDS.items() if words in text), "its process ended"))
        except errors.RayError as error:
            raise EngineError(
                f"Ray fails ({type(error).__name__}): see to it, and run the same command again; what is committed "
                "stays"
            ) from error
        return found

    def _hire(self) -> _Hand:
        """Have Ray start an actor, as soon as there is room for it."""
        options = {"num_cpus": self._layout.cpus, "num_gpus": self._layout.gpus, "memory": self._layout.memory}
        actor = self._ray.remote(Worker).options(max_concurrency=2, **options).remote()
        return _Hand(actor, actor.open.remote(self._payload, self._probe, self._layout.gpus))

    def _replace(self, hand: _Hand, lost: _LostError) -> None:
        """Have another worker instead of one that is lost.

        Raises:
            EngineError: they end before they can do anything.
        """
        if hand.opened is None:
            self._failures += 1
            if self._failures == LOSSES:
                raise EngineError(
                    f"{LOSSES} of Ray's workers were lost before they were ready ({lost}): is bagindex installed on "
                    "all machines, and is there enough memory? Ray's logs say more"
                )
        with suppress(Exception):  # it may only be out of reach
            self._ray.kill(hand.actor)
        self._hands[self._hands.index(hand)] = self._hire()

    def _welcome(self, hand: _Hand, found: object) -> None:
        """Take in a worker that is ready.

        Raises:
            BagindexError: it is not, or not like the others.
        """
        if not isinstance(found, Opened):
            raise _exception(found)
        if found.version != __version__:
            raise EngineError(f"{found.machine} has bagindex {found.version}, and this is {__version__}: install that")
        if self.environments and found.environments != self.environments:
            raise EngineError(
                f"{found.machine} computes in another environment than the other machines, which gives other bytes: "
                f"{found.environments} there, {self.environments} elsewhere; make them alike"
            )
        self.environments = found.environments
        self._failures = 0
        hand.opened = found

    def _idle(self) -> _Hand:
        while not any(hand.idle for hand in self._hands):
            for call, _ in self._look():
                self._drop(call)
        return next(hand for hand in self._hands if hand.idle)

    def _drop(self, call: _Call | None) -> None:
        if call is not None and call.task is not None and self._tasks is not None:
            self._tasks.drop(call.task)

    def _say_where_we_wait(self) -> None:
        if any(hand.opened for hand in self._hands):
            self._waiting_since = time.monotonic()
        elif time.monotonic() - self._waiting_since > _PATIENCE:
            self._note("waiting for room in the cluster, or for its machines")
            self._waiting_since = float("inf")


def _exception(found: object) -> Exception:
    return found if isinstance(found, Exception) else RuntimeError(f"a worker answers {found!r}")
