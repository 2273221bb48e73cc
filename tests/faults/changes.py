"""Files of a source that change, grow, shrink, go, or become something else while they are indexed."""

from __future__ import annotations

import hashlib
import os
import random
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.errors import SettingsError, SourceError
from bagindex.grow import update
from bagindex.observer import BuildObserver
from bagindex.sources import Source
from bagindex.sources.archives import TarSource
from bagindex.sources.folders import Layout, open_folder
from bagindex.store import IndexDirectory
from bagindex_schemas.rejects import RejectCode
from fakes import LinearCompute
from faults.archives import pack
from faults.common import Outcome
from test_build import contents

_FILES = 12
_SHARD = 4
_SETTINGS = BuildSettings(shard_size=_SHARD, workers=2)


def changes(folder: Path, trials: int, seed: int) -> Outcome:
    """A file changes when so many shards of three are committed: each way, in a build that goes on, in one that stops
    and is gone on with, and an archive.
    """
    outcome = Outcome("source files changed or gone in mid-build")
    hows, ways = (_going_on, _resumed, _archive), list(_CHANGES)
    for trial in range(trials):
        # The first few have each change once, and three times as many each change in each way.
        way, how = ways[trial % len(ways)], hows[trial % len(hows)]
        place = folder / str(trial)
        (place / "pictures").mkdir(parents=True)
        for number in range(_FILES):
            (place / "pictures" / f"{number:02}.ppm").write_bytes(_picture(number))
        came, problems = how(place, way, random.Random(f"{seed}-{trial}"))
        where = f"trial {trial} of seed {seed}, {how.__name__.strip('_')}, {way}: "
        outcome.trial(came, *(where + problem for problem in problems))
        shutil.rmtree(place)
    return outcome.done()


def _replaced(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def _link(path: Path) -> None:
    (path.parent.parent / "elsewhere.ppm").write_bytes(_picture(99))
    path.symlink_to(path.parent.parent / "elsewhere.ppm")


_CHANGES: Mapping[str, tuple[Callable[[Path], object], RejectCode | None]] = {
    "grown": (lambda path: path.write_bytes(path.read_bytes() + b"more"), RejectCode.CHANGED),
    "cut short": (lambda path: os.truncate(path, 40), RejectCode.CHANGED),
    "emptied": (lambda path: os.truncate(path, 0), RejectCode.CHANGED),
    "another of its size": (lambda path: path.write_bytes(_picture(88)), None),
    "gone": (os.unlink, RejectCode.MISSING),
    "a folder": (lambda path: _replaced(path, Path.mkdir), RejectCode.NOT_REGULAR),
    "a symlink": (lambda path: _replaced(path, _link), RejectCode.SYMLINK),
    "a FIFO": (lambda path: _replaced(path, os.mkfifo), RejectCode.NOT_REGULAR),
}
"""What is done to a file, and why it is not indexed then."""


def _picture(number: int) -> bytes:
    """One colour; all are of the same size."""
    return b"P6 16 16 255\n" + bytes((number, 7, 0)) * 256


@dataclass
class _Then(BuildObserver):
    """Does something once, when so many files are dealt with."""

    files: int
    do: Callable[[], object]
    done: int = field(default=0)

    def advanced(self, files: int) -> None:
        self.done += files
        if self.done == self.files:
            self.do()


def _build(place: Path, source: Source, observer: BuildObserver | None = None) -> None:
    build(IndexDirectory(place / "index"), source, {}, LinearCompute("ab"), _SETTINGS, observer)


def _pictures(place: Path) -> Source:
    return open_folder(place / "pictures", layout=Layout.FLAT)


def _choose(way: str, chance: random.Random) -> tuple[int, int]:
    """How many shards are committed when it happens, and to which file."""
    return chance.randrange(1, _FILES // _SHARD), chance.randrange(_FILES)


def _going_on(place: Path, way: str, chance: random.Random) -> tuple[str, list[str]]:
    change, code = _CHANGES[way]
    shards, victim = _choose(way, chance)
    path = place / "pictures" / f"{victim:02}.ppm"
    before = hashlib.sha256(path.read_bytes()).hexdigest()
    _build(place, _pictures(place), _Then(shards * _SHARD, lambda: change(path)))
    dealt_with = victim < shards * _SHARD
    problems = []
    with Index.open(place / "index") as index:
        problems += index.verify().problems
        rejects = {row["path"]: row["code"] for row in index.sql("SELECT path, code FROM rejects").to_dicts()}
        hashes = {row["path"]: row["sha256"] for row in index.sql("SELECT path, sha256 FROM images").to_dicts()}
    expected = {} if dealt_with or code is None else {path.name: code.value}
    if rejects != expected:
        problems.append(f"rejects are {rejects}, not {expected}")
    if path.name in hashes:
        now = before if dealt_with else hashlib.sha256(path.read_bytes()).hexdigest()
        if hashes[path.name] != now:
            problems.append("the recorded hash is of another content than was read")
    problems += _updated(place, path, dealt_with, way)
    return "indexed before" if dealt_with else f"rejected, {code}" if code else "indexed as it was then", problems


def _updated(place: Path, path: Path, dealt_with: bool, way: str) -> list[str]:
    """`update` notices what became of a file, and takes it up where it is one of another content that was rejected."""
    code = _CHANGES[way][1]
    report = update(IndexDirectory(place / "index"), _pictures(place), {}, {"linear": LinearCompute("ab")}, _SETTINGS)
    found = ("new" if report.new else "", "changed" if report.changed else "", "missing" if report.missing else "")
    if not dealt_with:
        # Where something of its name is there that is no file, the listing has it as a reject of no bytes.
        expected = ("new" if code not in (None, RejectCode.MISSING) and not path.is_dir() else "", "", "")
    else:
        gone = not path.exists() or path.is_dir()
        expected = ("", "" if gone else "changed", "missing" if gone else "")
    return [] if found == expected else [f"update finds {found}, and not {expected}"]


def _resumed(place: Path, way: str, chance: random.Random) -> tuple[str, list[str]]:
    change, code = _CHANGES[way]
    shards, victim = _choose(way, chance)
    path = place / "pictures" / f"{victim:02}.ppm"
    data = path.read_bytes()

    def stop() -> None:
        raise KeyboardInterrupt

    with suppress(KeyboardInterrupt):
        _build(place, _pictures(place), _Then(shards * _SHARD + 1, stop))
    change(path)
    problems = []
    try:
        _build(place, _pictures(place))
        came = "gone on with"
        if code is not None:
            problems.append("it goes on, from another source")
    except SettingsError as error:
        came = "refused"
        named = f"'{path.name}'" in str(error)
        if code is None or "--restart" not in str(error) or (victim < shards * _SHARD and not named):
            problems.append(f"it is refused so: {error}")
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(data)
    if came == "refused":
        _build(place, _pictures(place))
        (place / "whole").mkdir()
        build(IndexDirectory(place / "whole"), _pictures(place), {}, LinearCompute("ab"), _SETTINGS)
        if contents(place / "index") != contents(place / "whole"):
            problems.append("put back, it comes to other files")
    return came, problems


def _archive(place: Path, way: str, chance: random.Random) -> tuple[str, list[str]]:
    shards, victim = _choose(way, chance)
    path = place / "pictures.tar"
    pictures = {each.name: each.read_bytes() for each in sorted((place / "pictures").iterdir())}
    whole = pack(pictures)
    path.write_bytes(whole)
    other = {
        "grown": lambda: path.write_bytes(whole + bytes(1024)),
        "cut short": lambda: os.truncate(path, 3000),
        "emptied": lambda: os.truncate(path, 0),
        "another of its size": lambda: path.write_bytes(pack({**pictures, f"{victim:02}.ppm": _picture(77)})),
    }
    do = other.get(way, lambda: _CHANGES[way][0](path))
    try:
        _build(place, TarSource(path), _Then(shards * _SHARD, do))
        # What is replaced is still read as it was: the archive is open.
        came, problems = "read as it was", ["an archive that has changed is read on"] if way in other else []
    except SourceError as error:
        came, problems = "refused", []
        if way not in other or "has changed since it was listed" not in str(error) or "same command" not in str(error):
            problems.append(f"it is refused so: {error}")
    if path.is_dir():
        path.rmdir()
    path.unlink(missing_ok=True)
    path.write_bytes(whole)
    _build(place, TarSource(path))
    build(IndexDirectory(place / "clean"), TarSource(path), {}, LinearCompute("ab"), _SETTINGS)
    if contents(place / "index") != contents(place / "clean"):
        problems.append("put back, it comes to other files")
    return f"archive {came}", problems
