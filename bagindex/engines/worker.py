"""What runs in each process of Ray's: the models, loaded once, and the function that makes a shard."""

from __future__ import annotations

import os
import pickle
import platform
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass

from bagindex import __version__
from bagindex.compute import Compute
from bagindex.decoding import Decoder
from bagindex.engines.engine import Heard
from bagindex.engines.probe import Probe
from bagindex.images import Rejected
from bagindex.pipeline import Pipeline
from bagindex.precision import Choice
from bagindex.profile import Profile, Spent
from bagindex.sources import Entry, Reader
from bagindex.store import IndexDirectory
from bagindex.tasks import Task
from bagindex_schemas.records import AskedPrecision, Environment, IndexManifest

_ANSWER_SECONDS = 0.5
"""How long who asks how far a worker is waits for the answer, so that it is not asked all the time."""


@dataclass(frozen=True)
class Equipment:
    """What a worker needs for all shards: a `bagindex.engines.engine.Job` without the list of files."""

    directory: IndexDirectory
    reader: Reader
    models: Mapping[str, Compute]
    decoder: Decoder


@dataclass(frozen=True)
class Opened:
    """A worker is ready. `environments`: what each model's shards depend on there."""

    version: str
    machine: str
    process: int
    environments: Mapping[str, Environment]


@dataclass(frozen=True)
class Ran:
    """A shard is complete."""

    images: int
    heard: Heard
    spent: Sequence[Spent]


class Worker:
    """Computes shards, one at a time, in a process of its own, and says how far it is.

    It makes no folder and renames none: it writes into those that it is told, and they are the build's to commit.
    """

    def __init__(self) -> None:
        self._open = ExitStack()
        self._profile = Profile()
        self._pipeline: Pipeline | None = None
        self._attempt = 0
        self._heard = Heard()

    def open(self, payload: bytes, probe: Probe, gpus: float) -> Opened:
        """Load the models.

        Args:
            payload: pickled `Equipment`.
            probe: what is to be seen from here; this process ends with the build that it names.
            gpus: what this process has of a GPU.

        Raises:
            EngineError: the index or the source is not to be seen from here.
            BagindexError: the models cannot be loaded.
        """
        if not gpus:
            os.environ["CUDA_VISIBLE_DEVICES"] = ""
        equipment: Equipment = pickle.loads(payload)
        probe.check(equipment.reader)
        probe.watch()
        models = equipment.models
        self._pipeline = self._open.enter_context(
            Pipeline(equipment.directory, equipment.reader, models, equipment.decoder, self._profile)
        )
        environments = {name: compute.environment for name, compute in models.items()}
        return Opened(__version__, platform.node(), os.getpid(), environments)

    def choose(self, attempt: int, name: str, asked: AskedPrecision, images: int, sample: Sequence[Entry]) -> Choice:
        """See `bagindex.engines.engine.Workers.choose`; `hear` says how many images are compared."""
        heard = self._begin(attempt)

        def progress(done: int) -> None:
            heard.files = done

        return self._ready.choose(name, asked, images, sample, progress)

    def run(self, attempt: int, manifest: IndexManifest, task: Task) -> Ran:
        """Compute a shard; see `bagindex.pipeline.Pipeline.run`."""
        heard = self._begin(attempt)

        def advanced(files: int) -> None:
            heard.files += files

        def rejected(entry: Entry, why: Rejected) -> None:
            heard.rejects.append((entry, why))

        images = self._ready.run(manifest, task, rejected, advanced)
        return Ran(images, heard, self._profile.take())

    def hear(self, attempt: int) -> Heard | None:
        """How far an attempt is; None when it is not under way. Called beside the others, from another thread."""
        time.sleep(_ANSWER_SECONDS)
        heard = self._heard
        return Heard(heard.files, list(heard.rejects)) if attempt == self._attempt else None

    def _begin(self, attempt: int) -> Heard:
        self._attempt, self._heard = attempt, Heard()
        self._profile.take()
        return self._heard

    @property
    def _ready(self) -> Pipeline:
        if self._pipeline is None:
            raise RuntimeError("the worker is not open")
        return self._pipeline
