"""Shards computed in this process, one after the other; each keeps all cores, or the GPU, busy."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager

from bagindex.engines.engine import Heard, Hearing, Job, Workers
from bagindex.images import Rejected
from bagindex.pipeline import Pipeline
from bagindex.plan import Work
from bagindex.precision import Choice
from bagindex.profile import Profile
from bagindex.sources import Entry
from bagindex.tasks import Task, Tasks
from bagindex_schemas.records import AskedPrecision, IndexManifest


class LocalEngine:
    """This process."""

    @contextmanager
    def start(self, job: Job, profile: Profile) -> Iterator[Workers]:
        """See `bagindex.engines.engine.Engine`."""
        with Pipeline(job.directory, job.source, job.models, job.decoder, profile) as pipeline:
            yield _Local(job, pipeline)


class _Local:
    count = 1

    def __init__(self, job: Job, pipeline: Pipeline) -> None:
        self._pipeline = pipeline
        self.environments = {name: compute.environment for name, compute in job.models.items()}

    def choose(
        self, name: str, asked: AskedPrecision, images: int, sample: Sequence[Entry], progress: Callable[[int], None]
    ) -> Choice:
        return self._pipeline.choose(name, asked, images, sample, progress)

    def run(
        self, manifest: IndexManifest, work: Sequence[Work], tasks: Tasks, hearing: Hearing
    ) -> Generator[tuple[Task, int], None, None]:
        for each in work:
            task = tasks.begin(each)
            try:
                images = self._run(manifest, task, hearing)
            except BaseException:
                tasks.drop(task)
                raise
            yield task, images

    def _run(self, manifest: IndexManifest, task: Task, hearing: Hearing) -> int:
        shard, heard = task.work.shard, Heard()

        def advanced(files: int) -> None:
            heard.files += files
            hearing.files(shard, heard)

        def rejected(entry: Entry, why: Rejected) -> None:
            heard.rejects.append((entry, why))
            hearing.rejects(shard, heard)

        return self._pipeline.run(manifest, task, rejected, advanced)
