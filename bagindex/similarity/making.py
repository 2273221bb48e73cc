"""Making a FAISS index from stored features: trained on a sample, filled in parts, in bounded memory, and measured.

A part holds the codes of some neighbouring images, so many that it takes its share of the memory. Several are made at a
time; then their inverted lists are put together, list by list. An index whose lists cannot be stays in parts, and a
search looks into all of them.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, CancelledError, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex import derived
from bagindex.arrays import to_float32
from bagindex.errors import SettingsError
from bagindex.plan import EXACT
from bagindex.similarity import ann, lists
from bagindex.similarity.trials import NEAREST, Truth, tried
from bagindex.similarity.vectors import prepare
from bagindex.stages import cores
from bagindex.store import IndexDirectory
from bagindex.stored import StoredFeatures
from bagindex.text import bytes_text, first_line
from bagindex_schemas.derived import AnnRecord, Metric, Probing
from bagindex_schemas.records import ModelRecord

MEMORY = 2_000_000_000
"""Bytes that making an index may take, beside what libraries take."""
_LEAST_MEMORY = 64_000_000
_PER_LIST = 64
"""Patches that each inverted list is trained on; FAISS warns below 39."""
_QUERIES = 200
_IMAGES_AT_ONCE = 8
_AT_ONCE = 1 << 20
"""Bytes of an index that are written at once."""
_MOST_MAKERS = 8
"""Threads that make a part each. FAISS works on several cores at once, but what comes before and after is on one."""


@dataclass(frozen=True)
class AnnSettings:
    """What index to make.

    Attributes:
        factory: `auto`, `none`, or a factory string of FAISS.
        memory: bytes that making it may take.
        metric: what is nearest.

    Raises:
        SettingsError: one of them is none.
    """

    factory: str = "auto"
    memory: int = MEMORY
    metric: Metric = "cosine"

    def __post_init__(self) -> None:
        """Check them; a factory string is tried when the index is made."""
        if self.memory < _LEAST_MEMORY:
            raise SettingsError(f"--ann-memory starts at {bytes_text(_LEAST_MEMORY)}")
        if self.metric not in ("cosine", "l2"):
            raise SettingsError(f"--metric is cosine or l2, not {self.metric!r}")

    @classmethod
    def of(cls, factory: str, memory: int | None, metric: str = "cosine") -> AnnSettings:
        """From what a person gives; `memory` None is the default."""
        return cls(factory, MEMORY if memory is None else memory, metric)  # type: ignore[arg-type]  # is checked

    def choose(self, patches: int, dimensions: int) -> str | None:
        """The factory string for so many patches; None: answers are exact without an index."""
        if self.factory == "none" or (self.factory == "auto" and patches <= EXACT):
            return None
        if self.factory != "auto":
            return self.factory
        # Lists as many as lists are long, but fewer where there is no memory to train them.
        lists = 2 ** round(np.log2(max(patches, 1)) / 2 - 0.5)
        trainable = self._sample(dimensions) // (_PER_LIST // 2)
        return f"IVF{max(16, min(lists, trainable))},RaBitQ"

    def sample(self, lists: int, patches: int, dimensions: int) -> int:
        """How many patches an index of so many lists is trained on."""
        return max(1, min(patches, max(lists, 256) * _PER_LIST, self._sample(dimensions)))

    def _sample(self, dimensions: int) -> int:
        return self.memory // 2 // (4 * dimensions)


def up_to_date(directory: IndexDirectory, record: ModelRecord, shards: Sequence[int], settings: AnnSettings) -> bool:
    """Whether the index that is there is what `make` would make of the features of some shards."""
    kind = ann.kind_of(settings.metric)
    found = derived.sound(directory, record.name, kind, AnnRecord)
    if found is None or found[1].asked != settings.factory:
        return False
    return found[1].features_sha256 == derived.features_digest(directory, record, shards)


def make(
    directory: IndexDirectory,
    features: StoredFeatures,
    settings: AnnSettings,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> AnnRecord:
    """Make a model's index. The caller holds the index's lock.

    Args:
        directory: the index's folder.
        features: all features of the model.
        settings: what to make.
        progress: hears how many of how many steps are done.

    Raises:
        SettingsError: FAISS does not know the factory string, or the index does not fit into the memory.
    """
    started = time.monotonic()
    kind = ann.kind_of(settings.metric)
    factory = settings.choose(features.count, features.record.feature_size)
    record = AnnRecord(
        features_sha256=derived.features_digest(directory, features.record, features.shards),
        files={},
        metric=settings.metric,
        asked=settings.factory,
        factory=factory,
        patches=features.count,
    )
    with derived.making(directory, features.record.name, kind) as folder:
        if factory is not None:
            maker = _Maker(features, settings, factory, folder, progress)
            found: dict[str, object] = {
                "lists": maker.lists,
                "sampled": maker.sampled,
                "versions": {"faiss": maker.version},
            }
            trials = maker.fill_and_measure()
            found |= {"queries": len(maker.queries), "seconds": round(time.monotonic() - started, 3)}
            record = record.model_copy(update={**found, "trials": trials})
        return derived.complete(directory, folder, kind, record)


class _Maker:
    def __init__(
        self,
        features: StoredFeatures,
        settings: AnnSettings,
        factory: str,
        folder: Path,
        progress: Callable[[int, int], None],
    ) -> None:
        import faiss

        self._faiss = faiss
        self.version = str(faiss.__version__)
        self._features = features
        self._settings = settings
        self._folder = folder
        self._progress = progress
        self._blocks = -(-len(features.image_ids) // _IMAGES_AT_ONCE)
        dimensions = features.record.feature_size
        try:
            self._index = faiss.index_factory(dimensions, factory, faiss.METRIC_L2)
        except RuntimeError:
            raise SettingsError(
                f"FAISS knows no index {factory!r}: give --ann auto, none, or a factory string such as IVF256,RaBitQ"
            ) from None
        self._ivf = faiss.try_extract_index_ivf(self._index)
        self.lists = 0 if self._ivf is None else int(self._ivf.nlist)
        if self._ivf is None:
            self._check_memory(dimensions)
            self._index = faiss.IndexIDMap2(self._index)
        self._train(factory)

    def _check_memory(self, dimensions: int) -> None:
        try:
            size = int(self._index.sa_code_size())
        except RuntimeError:
            size = 4 * dimensions  # a graph over the features themselves
        if size * self._features.count > self._settings.memory:
            raise SettingsError(
                f"this index takes {bytes_text(size * self._features.count)} of memory: give --ann auto, one with "
                "inverted lists (IVF…), which are kept on the disk, or a larger --ann-memory"
            )

    def _train(self, factory: str) -> None:
        count, dimensions = self._features.count, self._features.record.feature_size
        rng = np.random.default_rng(0)
        self.sampled = self._settings.sample(self.lists, count, dimensions)
        held_out = min(_QUERIES, max(1, count // 4))
        chosen = rng.choice(count, min(count, self.sampled + held_out), replace=False)
        self.queries = np.sort(self._ids(chosen[:held_out]))
        training = chosen[held_out:] if len(chosen) > held_out else chosen
        self.sampled = len(training)
        if self._index.is_trained:
            return
        if self.sampled < self.lists:
            raise SettingsError(
                f"{factory} has {self.lists:,} inverted lists, and there are {self.sampled:,} patches to train them "
                "on: give --ann auto, or fewer lists"
            )
        if self._ivf is not None:
            self._ivf.cp.min_points_per_centroid = 1  # no warnings about few
            self._ivf.cp.seed = 1234
            if self._faiss.get_num_gpus() > 0:
                quantizer = self._faiss.IndexFlatL2(self._ivf.d)
                self._ivf.clustering_index = self._faiss.index_cpu_to_all_gpus(quantizer)
        self._progress(0, self._blocks)  # what is trained long, as OPQ is, says nothing until it is
        sample = np.empty((self.sampled, dimensions), np.float32)
        ids = np.sort(self._ids(training))
        for start in range(0, len(ids), 4096):
            part = ids[start : start + 4096]
            to_float32(self._features.of_patches(part), sample[start : start + len(part)])
        try:
            self._index.train(prepare(sample, self._settings.metric))
        except RuntimeError as error:
            reason = first_line(error).rpartition("Error: ")[2]
            raise SettingsError(f"{factory} cannot be trained ({reason}): give --ann auto or another one") from None

    def _ids(self, chosen: NDArray[np.int64]) -> NDArray[np.int64]:
        """Patch ids of the n-th patches."""
        images, cells = np.divmod(chosen, self._features.patches)
        return self._features.image_ids[images] * self._features.patches + cells

    def fill_and_measure(self) -> tuple[Probing, ...]:
        """Put all features into the index, write it, and try how far it must look."""
        queries = prepare(to_float32(self._features.of_patches(self.queries)), self._settings.metric)
        truth = Truth(self.queries, queries)
        parts = [ann.read(path) for path in self._fill(truth)]
        held = [lists.of_index(part) for part in parts]
        if len(parts) > 1 and None not in held:
            parts = [self._merged(held)]
        opened = ann.Neighbours(parts, self._settings.metric)
        return tried(opened, queries, truth, min(self._features.count, 20 * NEAREST))

    def _fill(self, truth: Truth) -> list[Path]:
        """Make all parts; their files, in order."""
        makers = min(_MOST_MAKERS, cores()) if self._ivf is not None else 1
        images = len(self._features.image_ids)
        step = self._images_of_a_part(makers)
        spans = [range(start, min(start + step, images)) for start in range(0, images, step)]
        trained = self._faiss.serialize_index(self._index)
        threads = max(1, self._faiss.omp_get_max_threads() // max(1, min(makers, len(spans))))
        stopped, done = Event(), Counter[int]()

        def part(number: int) -> Path:
            """Make a part in this thread; FAISS counts threads for each that calls it."""
            self._faiss.omp_set_num_threads(threads)
            index = self._faiss.deserialize_index(trained)
            for ids, halves in self._features.blocks(spans[number], _IMAGES_AT_ONCE):
                if stopped.is_set():
                    raise CancelledError
                block = prepare(to_float32(halves), self._settings.metric)
                index.add_with_ids(block, ids)
                truth.look(ids, block)
                done[number] += 1
            return self._written(index, f"patches-{number}.faiss" if number else "patches.faiss")

        with ThreadPoolExecutor(makers) as pool:
            try:
                parts = [pool.submit(part, number) for number in range(len(spans))]
                waiting = set(parts)
                while waiting:
                    ended, waiting = wait(waiting, timeout=0.2, return_when=FIRST_EXCEPTION)
                    for each in ended:
                        each.result()
                    self._progress(sum(done.values()), self._blocks)
                return [each.result() for each in parts]
            finally:
                stopped.set()
                pool.shutdown(cancel_futures=True)

    def _images_of_a_part(self, makers: int) -> int:
        """So many that each part takes its share of half of the memory, in whole blocks; all where they need none."""
        if self._ivf is None:
            return max(1, len(self._features.image_ids))
        size = self._features.patches * (int(self._ivf.code_size) + lists.ID_BYTES)
        return max(1, self._settings.memory // 2 // makers // size // _IMAGES_AT_ONCE) * _IMAGES_AT_ONCE

    def _merged(self, held: Sequence[Any]) -> Any:
        """One index, with the lists of all parts, in place of them."""
        beside = self._folder / lists.FILE
        lists.merge(held, beside)
        for path in self._folder.glob("patches*.faiss"):
            path.unlink()
        return ann.read(self._written(self._index, "patches.faiss"), beside)

    def _written(self, index: Any, name: str) -> Path:
        path = self._folder / name
        # By our own file: FAISS's does not tell when closing it fails, with what is left to be written.
        with path.open("wb") as file:
            self._faiss.write_index(index, self._faiss.PyCallbackIOWriter(file.write, _AT_ONCE))
        return path
