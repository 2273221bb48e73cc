"""The computing part of a build: workers, the precisions that they compute in, and the shards that they make."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Self

import numpy as np

from bagindex.batches import PrecisionRefusedError
from bagindex.compute import Compute
from bagindex.engines.engine import Engine, Hearing, Job, Workers
from bagindex.errors import TooManyRejectsError
from bagindex.images import Rejected
from bagindex.observer import BuildObserver
from bagindex.plan import Work
from bagindex.precision import sample_size
from bagindex.profile import Profile
from bagindex.sources import Entry, Source
from bagindex.store import IMAGES, IndexDirectory
from bagindex.tasks import Tasks
from bagindex_schemas.records import Environment, IndexManifest, ModelRecord

if TYPE_CHECKING:
    from bagindex.build import BuildSettings


class Computation:
    """Computes what an index owes, with an engine's workers, which end with the context. The caller holds the lock.

    Args:
        directory, source, models, settings, observer: as for `bagindex.build.build`, the models by name.
        work: what is owed; where it is nothing, no worker is started.
        engine: where it is computed.

    Attributes:
        computed: images so far.
        profile: where the time goes.
    """

    def __init__(
        self,
        directory: IndexDirectory,
        source: Source,
        models: Mapping[str, Compute],
        settings: BuildSettings,
        observer: BuildObserver,
        work: Sequence[Work],
        engine: Engine,
    ) -> None:
        self.computed = 0
        self.profile = Profile()
        self._directory = directory
        self._source = source
        self._settings = settings
        self._observer = observer
        self._work = work
        self._engine = engine
        self._job = Job(directory, source, models, settings.decoder)
        self._open = ExitStack()
        self._workers: Workers | None = None

    def __enter__(self) -> Self:
        """Start the workers.

        Raises:
            EngineError: the engine has none.
        """
        if self._work:
            self._workers = self._open.enter_context(self._engine.start(self._job, self.profile))
        self.profile.begin()
        return self

    def __exit__(self, *_: object) -> None:
        """End the workers."""
        self._open.close()

    @property
    def at_a_time(self) -> int:
        """How many shards are computed at a time."""
        return self._workers.count if self._workers else 1

    def with_environments(self, manifest: IndexManifest, new: Collection[str]) -> IndexManifest:
        """The manifest with what the shards of new models depend on; of known ones, say so where it is another now."""
        models = dict(manifest.models)
        for name, now in self._workers.environments.items() if self._workers else ():
            if name in new:
                models[name] = models[name].model_copy(update={"environment": now})
            elif changes := _changes(models[name].environment, now):
                self._observer.note(
                    f"going on under other settings ({'; '.join(changes)}): new shards record theirs, "
                    "and may differ in the last digits from what the first settings would have given"
                )
        return manifest.model_copy(update={"models": models})

    def with_precision(self, manifest: IndexManifest, new: Collection[str]) -> IndexManifest:
        """The manifest with the precision that each of some new models runs in."""
        models = dict(manifest.models)
        if self._workers:
            models |= {name: self._decided(self._workers, models[name]) for name in new}
        return manifest.model_copy(update={"models": models})

    def run(self, manifest: IndexManifest) -> None:
        """Compute and commit all of it, shard by shard.

        A shard whose own images show that a precision gives other evidence is done again in float32, and so is what
        follows.
        """
        tasks = Tasks(self._directory, manifest, self._source)
        limit = _RejectLimit(self._directory, self._settings.max_rejects)
        hearing = Hearing(self._observer.advanced, limit.count)
        todo = list(self._work)
        while todo and self._workers:
            try:
                with closing(self._workers.run(manifest, tuple(todo), tasks, hearing)) as made:
                    for task, images in made:
                        with self.profile.clock("commit").busy():
                            tasks.commit(task)
                        self.computed += images
                        del todo[0]
            except PrecisionRefusedError as refused:
                manifest = self._fall_back(manifest, refused)

    def _decided(self, workers: Workers, record: ModelRecord) -> ModelRecord:
        """A model's entry with the precision that it runs in."""
        asked = self._settings.precision
        images = sum(each.span.count for each in self._work if record.name in dict(each.series))
        entries = self._source.entries
        size = min(sample_size(asked, images), len(entries))
        drawn = np.random.default_rng(0).choice(len(entries), size, replace=False)
        started = self.profile.seconds
        chosen = workers.choose(
            record.name,
            asked,
            images,
            [entries[place] for place in sorted(drawn)],
            lambda done: self._observer.compared(done, size),
        )
        if chosen.comparisons:
            self.profile.clock("compare precisions").add(self.profile.seconds - started)
            compared = "; ".join(map(str, chosen.comparisons))
            self._observer.note(f"{record.name} computes in {chosen.precision}, {chosen.reason} ({compared})")
        found = {
            "precision": chosen.precision,
            "precision_reason": chosen.reason,
            "comparisons": chosen.comparisons,
            "environment": record.environment.model_copy(update={"precision": chosen.precision}),
        }
        return record.model_copy(update=found)

    def _fall_back(self, manifest: IndexManifest, refused: PrecisionRefusedError) -> IndexManifest:
        """Go on in float32, now and when the build goes on another time."""
        record = manifest.models[refused.model]
        reason = f"{record.precision} gave other evidence in shard {refused.comparison.shard}"
        comparisons = (*record.comparisons, refused.comparison)
        changed = record.model_copy(
            update={"precision": "fp32", "precision_reason": reason, "comparisons": comparisons}
        )
        manifest = manifest.model_copy(update={"models": {**manifest.models, refused.model: changed}})
        self._directory.write_manifest(manifest)
        self._observer.note(
            f"{refused.model}: {refused.comparison}; this shard is done again in float32, and so is what follows"
        )
        return manifest


class _RejectLimit:
    """Stops the build when more files than allowed, in all shards together, cannot be indexed."""

    def __init__(self, directory: IndexDirectory, most: int | None) -> None:
        self._most = most
        self._found = directory.totals(IMAGES)[0]["rejects"]

    def count(self, entry: Entry, rejected: Rejected) -> None:
        self._found += 1
        if self._most is not None and self._found > self._most:
            allowed = f"no more than {self._most} such files are" if self._most else "no such file is"
            raise TooManyRejectsError(
                f"{entry.text} cannot be indexed ({rejected.code}: {rejected.message}), and {allowed} allowed: mend or "
                "remove it, or build without --strict and --max-errors; what is committed stays"
            )


def _changes(then: Environment, now: Environment) -> list[str]:
    """In what two environments differ, in words; precision is asked about on its own."""
    before, after = (each.model_dump(exclude={"precision"}) for each in (then, now))
    return [f"{key} {before[key]} then, {after[key]} now" for key in before if before[key] != after[key]]
