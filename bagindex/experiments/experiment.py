"""What an experiment is, what it is given, and what comes out of it."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bagindex.errors import NotKeptError, QueryError
from bagindex_schemas.records import ClassRecord, ModelRecord

if TYPE_CHECKING:
    import pyarrow as pa
    from matplotlib.figure import Figure
    from PIL import Image

    from bagindex.catalog import Catalog
    from bagindex.experiments.questions import ExperimentQuestions
    from bagindex.sources import Reader
    from bagindex.stored import StoredEvidence

Progress = Callable[[str, int, int], None]
"""Hears what is being done, and how many of how many steps of it are done."""
Note = Callable[[str], None]
"""Hears what a person should know."""


class Needs(StrEnum):
    """What an experiment cannot do without."""

    STORED = "stored evidence"
    MODEL = "a model"
    NETWORKS = "networks"


@dataclass(frozen=True)
class Beside:
    """A figure of the paper's, and ours.

    Attributes:
        quantity: what it is a figure of.
        paper: the paper's; None where it prints none.
        where: where it stands in the paper; nothing where it does not.
        ours: what was measured here; None where that could not be done.
        comparable: whether both are measurements of the same thing.
        why: why they are not; nothing where they are.
        unit: `%`, `images/s`, or nothing.
    """

    quantity: str
    paper: float | None
    where: str
    ours: float | None
    comparable: bool
    why: str = ""
    unit: str = ""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What comes out of an experiment.

    Attributes:
        experiment: its name.
        title: what was done, in a line.
        tables: its numbers, by a name; that of the experiment itself is the main one's.
        figures: its plots in the paper's form, by a name likewise; drawn by matplotlib, or pictures.
        beside: the paper's figures beside ours.
        remarks: what must be said of the numbers, a sentence or more each.
        settings: what they depend on.
        seconds: how long it took.
    """

    experiment: str
    title: str
    tables: Mapping[str, pa.Table]
    figures: Mapping[str, Figure | Image.Image]
    beside: tuple[Beside, ...]
    remarks: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


@dataclass(frozen=True, eq=False)
class Labelled:
    """Images with a label: their ids, ascending, and their labels' class ids, int64 [N] each."""

    image_ids: NDArray[np.int64]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        """How many there are."""
        return len(self.labels)


@dataclass(frozen=True, eq=False)
class Setting:
    """What an experiment is given.

    Attributes:
        index: the open index, to ask it whatever a person can ask.
        catalog: its catalog, for questions of ours.
        models: the names of the models that were chosen, from the smallest patches to the largest; at least one.
        image_ids: the images that count, int64 [N], ascending: all, or `limit` evenly spread.
        limit: how many images were asked for; None means all.
        against: networks to compare with, as the person names them; see `bagindex.experiments.networks`.
        predictions: files of predictions to compare with.
        device: where models run: `auto`, `cpu`, `cuda` or `cuda:N`.
        seed: of what is drawn at random.
        folder: where the results go, and what of them can be kept for a later run.
        progress, note: hear of the work.
        source: where the indexed files are now, for an index that keeps no pixels.
        class_list: the classes of networks whose weights name none: a file, or `imagenet`.
        sparing: whether slow experiments are to take few images, whatever `limit` is.
    """

    index: ExperimentQuestions
    catalog: Catalog
    models: tuple[str, ...]
    image_ids: NDArray[np.int64]
    limit: int | None
    against: tuple[str, ...]
    predictions: tuple[Path, ...]
    device: str
    seed: int
    folder: Path
    progress: Progress
    note: Note
    source: str | os.PathLike[str] | None = None
    class_list: str | None = None
    sparing: bool = False

    @property
    def classes(self) -> tuple[ClassRecord, ...]:
        """The index's classes, in the order of the logits."""
        return self.catalog.manifest.plan.classes

    @property
    def records(self) -> tuple[ModelRecord, ...]:
        """The chosen models."""
        return tuple(self.catalog.models[name] for name in self.models)

    @property
    def record(self) -> ModelRecord:
        """The chosen model with the largest patches, for experiments with one: the paper's are mostly on BagNet-33."""
        return self.records[-1]

    @property
    def chosen(self) -> str:
        """An SQL condition on `image_id`: that the image is one of those that count."""
        return "true" if self.limit is None else f"image_id IN ({', '.join(map(str, self.image_ids.tolist()))})"

    def few(self, most: int) -> NDArray[np.int64]:
        """Images for what runs a model hundreds of times on each, int64 [n], ascending: all that were asked for; where
        nobody said how many, or all experiments are run, at most `most`, on a CPU a quarter of it, evenly spread.
        """
        if self.limit is not None and not self.sparing:
            return self.image_ids
        from bagindex.compute import find_device

        return spread_images(self.image_ids, most if find_device(self.device).type == "cuda" else -(-most // 4))

    def columns(self, query: str) -> dict[str, NDArray[Any]]:
        """The columns of a query over the index's tables and views, [rows] each; NULL is not allowed for."""
        self.catalog.bind_views(query)
        return self.catalog.columns(query)

    def labelled(self) -> Labelled:
        """The labelled ones of the images that count.

        Raises:
            QueryError: none has a label.
        """
        rows = self.columns(
            f"SELECT image_id, label FROM images WHERE label IS NOT NULL AND {self.chosen} ORDER BY image_id"
        )
        if not len(rows["image_id"]):
            raise QueryError("no image of this index has a label: `bagindex relabel` gives them labels")
        return Labelled(np.asarray(rows["image_id"], np.int64), np.asarray(rows["label"], np.int64))

    def evidence(self, record: ModelRecord) -> StoredEvidence:
        """A model's stored evidence.

        Raises:
            NotKeptError: the index keeps none.
        """
        return self.index._stored_evidence(record)

    def pixels(self, image_ids: Iterable[int]) -> dict[int, NDArray[np.uint8]]:
        """Inputs of some images, uint8 [height, width, RGB], before normalisation: those that are stored, or else of
        the source's files again.

        Raises:
            NotKeptError: the index keeps none, and nothing says where the source is.
            SourceError: a file is not what was indexed.
        """
        wanted = list(image_ids)
        if self.catalog.manifest.plan.pixels:
            return self.index._pixels(wanted)
        if self.source is None:
            raise NotKeptError(
                "this index keeps no pixels to run a network on: say where the indexed files are with --source SOURCE"
            )
        from bagindex.experiments.predicted import from_source

        rows = self.columns(
            f"SELECT image_id, path, sha256 FROM images WHERE image_id IN ({', '.join(map(str, wanted))})"
        )
        images = dict(zip(rows["image_id"].tolist(), zip(rows["path"], rows["sha256"], strict=True), strict=True))
        return dict(from_source(self._reader, self.source, images, self.catalog.manifest.plan.transform)(wanted))

    @cached_property
    def _reader(self) -> Reader:
        """What reads the source's files."""
        from bagindex.observer import BuildObserver
        from bagindex.sources.opening import reader_at

        return reader_at(self.source or "", BuildObserver())


@dataclass(frozen=True)
class Experiment:
    """An experiment of the paper's.

    Attributes:
        name: what it is called in commands; the module of the same name has its `run`.
        title: what it is.
        section: where it stands in the paper.
        needs: what it cannot do without.
    """

    name: str
    title: str
    section: str
    needs: Needs

    def run(self, setting: Setting) -> Outcome:
        """Do it.

        Raises:
            BagindexError: what it needs is not there; the text says what to bring.
        """
        module = import_module(f"bagindex.experiments.{self.name}")
        started = time.monotonic()
        outcome: Outcome = module.run(setting)
        return replace(outcome, settings={**_settings(setting), **outcome.settings}, seconds=time.monotonic() - started)


def _settings(setting: Setting) -> dict[str, Any]:
    return {
        "index": setting.index.name,
        "source": setting.catalog.manifest.source.name,
        "images": len(setting.image_ids),
        "limit": setting.limit,
        "classes": len(setting.classes),
        "models": {
            each.name: {
                "receptive_field": each.grid.receptive_field,
                "weights_sha256": each.weights_sha256,
                "precision": each.precision,
            }
            for each in setting.records
        },
        "against": [*setting.against, *(path.name for path in setting.predictions)],
        "device": setting.device,
        "seed": setting.seed,
    }


def spread_images(image_ids: NDArray[np.int64], limit: int | None) -> NDArray[np.int64]:
    """`limit` of some images, evenly spread, or all of them, int64 [n]."""
    from bagindex.plan import spread

    return image_ids[np.asarray(spread(len(image_ids), limit), np.int64)]
