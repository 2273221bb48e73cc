"""What is done to an index in its life, a step after the other, each of which may be cut short and made again.

Torch-free where it computes: pictures of one colour, models in numpy (see fakes.py). Visual words take torch and FAISS.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.errors import BagindexError, IncompleteIndexError, IndexNotFoundError, NotKeptError, SettingsError
from bagindex.evidence import Evidence
from bagindex.grow import remove_model, update
from bagindex.merged import own_files, read
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Keep
from fakes import LinearCompute, MemorySource

CLASS_IDS = {"a": 0, "b": 1}
WORDS = 3
LABELS = Path(__file__).with_name("labels.csv")


@dataclass(frozen=True)
class Life:
    """An index and what it is made of.

    Attributes:
        folder: where it is, in a folder of its own, which stands for the disk; `log` is beside that.
        images: so many at first; every seventh is no picture.
        shard: images of a shard.
        grown: so many after an update.
    """

    folder: Path
    images: int = 4
    shard: int = 2
    grown: int = 6

    @property
    def directory(self) -> IndexDirectory:
        """The index's folder."""
        return IndexDirectory(self.folder)

    @property
    def log(self) -> Path:
        """What was computed: lines of a model's name and an image's number."""
        return self.folder.parent.with_name(f"{self.folder.parent.name}.log")

    def source(self, grown: bool = False) -> MemorySource:
        """The pictures."""
        count = self.grown if grown else self.images
        return MemorySource([("a", "b", None)[i % 3] for i in range(count)], frozenset(range(3, count, 7)))

    def compute(self, name: str) -> LinearCompute:
        """A model."""
        return _Logging(self.log, name)


class _Logging(LinearCompute):
    """Writes down which images it computes, outside of the index and at once, so that it outlives its process."""

    def __init__(self, log: Path, name: str) -> None:
        super().__init__("ab", name=name, dimensions=6 if name == "one" else 3)
        self._log = log

    def run(self, pixels: NDArray[np.uint8]) -> Evidence:
        numbers = pixels[:, 0, 0, 0].astype(int) + 256 * pixels[:, 0, 0, 1].astype(int)
        lines = "".join(f"{self.name} {number}\n" for number in numbers)
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(descriptor, lines.encode())
        os.close(descriptor)
        return super().run(pixels)


def _build(life: Life, keep: Keep, model: str, restart: bool = False) -> None:
    settings = BuildSettings(keep=keep, shard_size=life.shard, workers=1, restart=restart)
    build(life.directory, life.source(), CLASS_IDS, life.compute(model), settings)


def first(life: Life) -> None:
    """Build it, summaries only."""
    _build(life, Keep.SUMMARY, "one")


def fill(life: Life) -> None:
    """Fill in evidence and features."""
    _build(life, Keep.FEATURES, "one")


def second(life: Life) -> None:
    """Add a model."""
    _build(life, Keep.FEATURES, "two")


def grow(life: Life) -> None:
    """Add pictures, for all models."""
    models = {name: life.compute(name) for name in life.directory.manifest().models}
    update(life.directory, life.source(grown=True), CLASS_IDS, models, BuildSettings(workers=1))


def compact(life: Life) -> None:
    """Merge the evidence of shards."""
    with Index.open(life.folder) as index:
        index.compact()


def neighbours(life: Life) -> None:
    """Make a FAISS index."""
    with Index.open(life.folder) as index:
        index.make_ann("IVF2,Flat", model="one")


def words(life: Life) -> None:
    """Make visual words."""
    with Index.open(life.folder) as index:
        index.make_words(WORDS, model="one")


def relabel(life: Life) -> None:
    """Give other labels."""
    with Index.open(life.folder) as index:
        index.relabel(LABELS)


def restore(life: Life) -> None:
    """Go back to the labels that there were."""
    with Index.open(life.folder) as index:
        index.relabel(None)


def remove(life: Life) -> None:
    """Take a model away."""
    try:
        remove_model(life.directory, "two")
    except SettingsError:  # it was taken away before
        if "two" in life.directory.manifest().models:
            raise


def restart(life: Life) -> None:
    """Begin anew, with features at once."""
    _build(life, Keep.FEATURES, "one", restart=True)


STEPS: Mapping[str, Callable[[Life], None]] = {
    step.__name__: step
    for step in (first, fill, second, grow, compact, neighbours, words, relabel, restore, remove, restart)
}
"""All steps, in an order in which they can follow each other."""


@dataclass(frozen=True)
class State:
    """What an index is.

    Attributes:
        refused: why it cannot be asked, the error's name; None where it can.
        answers: what it answers, by question.
        files: SHA-256 of each file that is not derived.
        leftovers: temporary files.
        problems: what `verify` and the shards' hashes say.
    """

    refused: str | None = None
    answers: Mapping[str, object] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    leftovers: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()


def look(life: Life, verify: bool = False) -> State:
    """What the index is now. It is asked as a reader asks it; an error that is no clean refusal is a problem."""
    refused, answers, problems = None, {}, []
    try:
        with Index.open(life.folder) as index:
            answers = _ask(index)
            if verify:
                problems += index.verify().problems
    except (IndexNotFoundError, IncompleteIndexError) as error:
        refused = type(error).__name__
    except Exception as error:
        problems.append(f"the index cannot be asked: {type(error).__name__}: {error}")
    problems += _unsound(life.directory)
    return State(refused, answers, kept_files(life.folder), _leftovers(life.folder), tuple(problems))


def look_and_go_on(step: str, life: Life) -> tuple[State, State]:
    """See what the index is, make a step, and see what it came to."""
    left = look(life)
    STEPS[step](life)
    return left, look(life)


def kept_files(folder: Path) -> dict[str, str]:
    """Hashes of everything but the lock, and what is derived and may be laid out in another way each time."""
    found = {}
    for path in sorted(folder.rglob("*")) if folder.exists() else ():
        name = path.relative_to(folder).as_posix()
        derived = path.name in ("LOCK", "CURRENT") or path.suffix == ".duckdb" or "/derived/" in name
        if path.is_file() and not derived and ".tmp-" not in name:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def shards_of(files: Mapping[str, str]) -> dict[str, str]:
    """Those of the files that are committed shards'."""
    return {name: value for name, value in files.items() if "/shard-" in name}


def computed(life: Life) -> Sequence[tuple[str, int]]:
    """The models and images that were computed since the log was begun."""
    if not life.log.exists():
        return []
    pairs = (line.split() for line in life.log.read_text().splitlines())
    return [(model, int(number)) for model, number in pairs]


def _ask(index: Index) -> dict[str, object]:
    """Something of every part of the index, and no more: it is asked thousands of times."""
    answers: dict[str, object] = {}
    for model, record in index._catalog.models.items():
        answers[f"{model} keeps"] = str(record.keep)
        answers[f"{model} a"] = index.top_patches("a", any_class=True, k=99, model=model).to_dicts()
        if "evidence" in record.keep.tables:
            several = index.top_patches("a", any_class=True, k=99, per_image=2, model=model)
            answers[f"{model} several"] = several.to_dicts()
        if model == "one" and "features" in record.keep.tables:
            answers["one similar"] = index.similar(0, model=model, other_images=True).to_dicts()
            with suppress(NotKeptError):
                answers["one words"] = index.words("a", model=model).to_dicts()
    return answers


def _unsound(directory: IndexDirectory) -> list[str]:
    """What of the committed shards is not what their records say; there must be nothing, at any time."""
    if not directory.exists():
        return []  # what is there is left from an index that is being removed
    problems = []
    for record in sorted(directory.root.rglob("shard.json")):
        folder = record.parent
        if ".tmp-" in folder.as_posix():
            continue
        try:
            series = folder.parent.relative_to(directory.root).as_posix()
            files = own_files(directory, series, int(folder.name[-5:]))
        except BagindexError as error:
            problems.append(str(error))
            continue
        for name, each in files.items():
            if hashlib.sha256((folder / name).read_bytes()).hexdigest() != each.sha256:
                problems.append(f"{folder / name} is committed and damaged")
    for record in sorted(directory.root.rglob("merged.json")):
        if ".tmp-" in record.as_posix():
            continue
        try:
            merged = read(directory, record.parent).files
        except BagindexError as error:
            problems.append(str(error))
            continue
        for name, each in merged.items():
            if hashlib.sha256((record.parent / name).read_bytes()).hexdigest() != each.sha256:
                problems.append(f"{record.parent / name} is committed and damaged")
    for folder in directory.root.rglob("shard-?????"):
        if ".tmp-" not in folder.as_posix() and not (folder / "shard.json").exists():
            problems.append(f"{folder} is committed without a record")
    return problems


def _leftovers(folder: Path) -> tuple[str, ...]:
    return tuple(sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.tmp-*")))
