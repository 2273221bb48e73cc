"""What a build asks of an engine, and what is common to engines."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from bagindex.compute import Compute
from bagindex.decoding import Decoder
from bagindex.images import Rejected
from bagindex.plan import Work
from bagindex.precision import Choice
from bagindex.profile import Profile
from bagindex.sources import Entry, Source
from bagindex.store import IndexDirectory
from bagindex.tasks import Task, Tasks
from bagindex_schemas.records import AskedPrecision, Environment, IndexManifest


@dataclass(frozen=True)
class Job:
    """What is the same for all shards of a build.

    Attributes:
        directory: the index; who starts an engine holds its lock.
        source: the images.
        models: those at work, by name, in float32.
        decoder: decodes pictures.
    """

    directory: IndexDirectory
    source: Source
    models: Mapping[str, Compute]
    decoder: Decoder


@dataclass
class Heard:
    """What is known of a shard while it is computed: so many files are dealt with, and which were rejected."""

    files: int = 0
    rejects: list[tuple[Entry, Rejected]] = field(default_factory=list)


class Hearing:
    """Tells a build what is heard of its shards, each file once, however often its shard is begun.

    Args:
        advanced: hears that so many more files are dealt with.
        rejected: hears of each file that is not indexed, in the order of the source; may raise to stop the build.
    """

    def __init__(self, advanced: Callable[[int], None], rejected: Callable[[Entry, Rejected], None]) -> None:
        self._advanced = advanced
        self._rejected = rejected
        self._files: Counter[int] = Counter()
        self._rejects: Counter[int] = Counter()

    def files(self, shard: int, heard: Heard) -> None:
        """So far of a shard, of any."""
        new = heard.files - self._files[shard]
        if new > 0:
            self._files[shard] += new
            self._advanced(new)

    def rejects(self, shard: int, heard: Heard) -> None:
        """So far of the shard whose turn it is."""
        for entry, rejected in heard.rejects[self._rejects[shard] :]:
            self._rejects[shard] += 1
            self._rejected(entry, rejected)


class Workers(Protocol):
    """Who computes the shards of a build."""

    @property
    def environments(self) -> Mapping[str, Environment]:
        """What each model's shards depend on, here."""

    @property
    def count(self) -> int:
        """How many shards are computed at a time."""

    def choose(
        self, name: str, asked: AskedPrecision, images: int, sample: Sequence[Entry], progress: Callable[[int], None]
    ) -> Choice:
        """The precision of a model for so many images, as `bagindex.precision.choose` finds it.

        Args:
            name: the model's.
            asked: what was asked for.
            images: how many are to be computed.
            sample: files that may be computed in several precisions; see `bagindex.precision.sample_size`.
            progress: hears how many are.

        Raises:
            SettingsError, EvidenceRangeError: as there.
        """

    def run(
        self, manifest: IndexManifest, work: Sequence[Work], tasks: Tasks, hearing: Hearing
    ) -> Generator[tuple[Task, int], None, None]:
        """Compute shards.

        Yields:
            Each of them, complete, in order, to be committed, and how many images it has.

        Raises:
            PrecisionRefusedError: a shard's precision gives other evidence. All before it are done, none after it.
            BagindexError: a shard cannot be made; likewise.
        """


class Engine(Protocol):
    """Where shards are computed."""

    def start(self, job: Job, profile: Profile) -> AbstractContextManager[Workers]:
        """Start workers, which end with the context.

        Args:
            job: what they work on.
            profile: where the time goes.

        Raises:
            EngineError: there are none to be had.
        """
