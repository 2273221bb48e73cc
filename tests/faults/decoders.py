"""Decoder processes that are killed, stopped, crash, hang or want too much memory, in builds that go on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.decoders import pool, process
from bagindex.sources import Entry
from bagindex.store import IndexDirectory
from bagindex_schemas.rejects import RejectCode
from fakes import LinearCompute, number_png
from faults import codecs
from faults.commands import children
from faults.common import Outcome
from test_build import contents

_FILES = 48
_SECONDS = 2.0
_WORKER = "faults.codecs"
_DYING, _DEATHS = 8, 2
"""A picture that is not among those which are decoded to see how much room all take, and the most that may happen."""


def decoders(folder: Path, trials: int, seed: int) -> Outcome:
    """Each kind in turn: what is rejected is what was made to be, and all else is what it is undisturbed."""
    outcome = Outcome("decoder processes that die, hang or are stopped")
    with _told_codecs():
        _build(folder / "whole", _dying(folder, 0))
        whole = contents(folder / "whole")
        for trial in range(trials):
            name = list(_KINDS)[trial % len(_KINDS)]
            chance = random.Random(f"{seed}-{trial}")
            place = folder / str(trial)
            place.mkdir()
            problems = _KINDS[name](place, chance, whole)
            outcome.trial(name, *(f"trial {trial} of seed {seed}, {name}: {problem}" for problem in problems))
            shutil.rmtree(place)
    return outcome.done()


@contextmanager
def _told_codecs() -> Iterator[None]:
    """Processes whose codecs do what a picture says; those that there were are forgotten before and after."""
    with mock.patch.object(process, "WORKER", _WORKER):
        _forget()
        try:
            yield
        finally:
            _forget()


def _forget() -> None:
    while pool._idle:
        pool._idle.pop().kill()


@dataclass(frozen=True)
class _Pictures:
    """Pictures that take a while to be decoded, and some that say what comes of them."""

    told: Mapping[int, bytes]

    kind = name = location = "told"

    @property
    def entries(self) -> Sequence[Entry]:
        return [Entry(b"%02d.png" % number, number) for number in range(_FILES)]

    def read(self, entry: Entry) -> bytes:
        return self.told.get(entry.size) or codecs.SLOW + b" " + number_png(entry.size, 16)


def _dying(folder: Path, times: int) -> _Pictures:
    """Pictures one of which has its process killed so many times before it is decoded."""
    marks = folder / "marks"
    shutil.rmtree(marks, ignore_errors=True)
    marks.mkdir()
    for mark in range(times, _DEATHS):
        (marks / str(mark)).mkdir()
    return _Pictures({_DYING: codecs.dies(_DEATHS, marks)})


def _build(place: Path, pictures: _Pictures) -> None:
    settings = BuildSettings(shard_size=16, workers=2, decoder_timeout=_SECONDS)
    build(IndexDirectory(place), pictures, {}, LinearCompute("ab"), settings)


def _rejects(place: Path) -> tuple[dict[int, str], list[str]]:
    with Index.open(place) as index:
        rows = index.sql("SELECT image_id, code FROM rejects").to_dicts()
        return {row["image_id"]: row["code"] for row in rows}, list(index.verify().problems)


def _told(word: bytes, code: RejectCode) -> Callable[[Path, random.Random, Mapping[str, str]], list[str]]:
    """Two pictures that do so to their process."""

    def kind(place: Path, chance: random.Random, _whole: Mapping[str, str]) -> list[str]:
        victims = chance.sample(range(_FILES), 2)
        _build(place / "index", _Pictures(dict.fromkeys(victims, word)))
        rejects, problems = _rejects(place / "index")
        if rejects != dict.fromkeys(victims, code.value):
            problems.append(f"rejects are {rejects}, and {victims} were to be")
        return problems

    return kind


def _killed(place: Path, chance: random.Random, whole: Mapping[str, str]) -> list[str]:
    sent = _disturbed(place, chance, signal.SIGKILL)
    problems = [] if sent else ["no process was there to be killed"]
    if contents(place / "index") != whole:
        problems.append(f"{sent} kills change the result: {_rejects(place / 'index')}")
    return problems


def _stopped(place: Path, chance: random.Random, whole: Mapping[str, str]) -> list[str]:
    sent = _disturbed(place, chance, signal.SIGSTOP)
    rejects, problems = _rejects(place / "index")
    if not sent:
        problems.append("no process was there to be stopped")
    if not set(rejects.values()) <= {RejectCode.DECODER_TIMEOUT.value} or len(rejects) > sent:
        problems.append(f"{sent} stopped, and rejects are {rejects}")
    return problems


def _disturbed(place: Path, chance: random.Random, number: signal.Signals) -> int:
    """Build while signals are sent, now and then, to one of the processes; how many were."""
    over = threading.Event()
    sent = 0

    def disturb() -> None:
        nonlocal sent
        # Not so often that one picture's process is killed three times in a row.
        while not over.wait(chance.uniform(0.3, 0.8)):
            if found := _workers():
                with suppress(ProcessLookupError):
                    os.kill(chance.choice(found), number)
                    sent += 1

    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        _build(place / "index", _dying(place.parent, _DEATHS if number is signal.SIGKILL else 0))
    finally:
        over.set()
        thread.join()
    return sent


def _workers() -> list[int]:
    """Processes that are ready: one that is killed before it is, again and again, is no picture's matter."""
    ready = []
    for child in children():
        with suppress(OSError):
            told = Path(f"/proc/{child}/cmdline").read_bytes()
            # The last thing that it does before it is ready.
            limited = b"unlimited" not in Path(f"/proc/{child}/limits").read_bytes().split(b"Max address space")[1][:60]
            if _WORKER.encode() in told and limited:
                ready.append(child)
    return ready


_KINDS: Mapping[str, Callable[[Path, random.Random, Mapping[str, str]], list[str]]] = {
    "killed": _killed,
    "crashing pictures": _told(codecs.CRASH, RejectCode.DECODER_CRASHED),
    "stopped": _stopped,
    "hanging pictures": _told(codecs.HANG, RejectCode.DECODER_TIMEOUT),
    "pictures that hold the interpreter": _told(codecs.HOLD, RejectCode.DECODER_TIMEOUT),
    "aborting pictures": _told(codecs.ABORT, RejectCode.DECODER_CRASHED),
    "pictures that want all memory": _told(codecs.MEMORY, RejectCode.TOO_LARGE),
}
