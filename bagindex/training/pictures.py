"""The pictures of a training, and the random crops that are taken of them.

A crop is a function of (seed, epoch, picture) alone: neither the number of workers nor an interruption changes what the
model sees.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler
from torchvision.transforms import v2

from bagindex.errors import LabelError, SourceError
from bagindex.images import Rejected, open_picture
from bagindex.observer import BuildObserver
from bagindex.sources import Entry, Reader, Source, describe
from bagindex.sources.folders import Layout, open_folder
from bagindex.sources.opening import SourceOptions, open_source, splits_of
from bagindex.text import some
from bagindex.training.recipe import input_size
from bagindex_schemas.training import Recipe

_VALIDATION = ("val", "validation", "valid")


@dataclass(frozen=True)
class Pictures:
    """The pictures of a split that have labels and may be read."""

    kind: str
    name: str
    location: str
    entries: Sequence[Entry]
    files: Reader

    def reader(self) -> Reader:
        """What reads them."""
        return self.files

    def read(self, entry: Entry) -> bytes:
        """A picture's file; raises `Rejected` when it cannot be had."""
        return self.files.read(entry)


@dataclass(frozen=True)
class TrainingData:
    """The two splits of a data set; `class_ids` are the places of the folders' names in their sorted list."""

    name: str
    class_ids: Mapping[str, int]
    train: Pictures
    validation: Pictures

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes, in the order of the logits."""
        return tuple(self.class_ids)

    @property
    def fingerprint(self) -> str:
        """Changes with every path, size and label of either split."""
        return f"{describe(self.train).fingerprint}-{describe(self.validation).fingerprint}"

    def label(self, entry: Entry) -> int:
        """Class id of a picture of either split."""
        return self.class_ids[entry.label or ""]


def open_data(folder: Path) -> TrainingData:
    """List `train/` and `val/` (or `validation/`) of a data set, both in ImageFolder layout, or its splits of these
    names, where it is Parquet files, a saved data set or tar archives.

    Raises:
        SourceError: a split is missing or holds no pictures.
        LabelError: fewer than two classes, or the validation split has one that the other has not.
    """
    train, validation = _held(folder) or _folders(folder)
    classes = sorted({entry.label for entry in train.entries if entry.label is not None})
    if len(classes) < 2:
        raise LabelError(f"{train.name} has one class, {some(classes)}: a model needs two to tell apart")
    if unknown := sorted({entry.label for entry in validation.entries if entry.label is not None} - set(classes)):
        raise LabelError(f"{validation.name} has classes that train/ has no pictures of: {some(unknown)}")
    class_ids = {name: place for place, name in enumerate(classes)}
    return TrainingData(folder.resolve().name, class_ids, _readable(train), _readable(validation))


def _folders(folder: Path) -> tuple[Source, Source]:
    if not folder.is_dir():
        raise SourceError(f"{folder} is no folder: give one that holds train/ and val/")
    names = [name for name in _VALIDATION if (folder / name).is_dir()]
    if not (folder / "train").is_dir() or len(names) != 1:
        missing = [name for name, there in (("train/", (folder / "train").is_dir()), ("val/", names)) if not there]
        found = "more than one of the latter is there" if len(names) > 1 else f"{' and '.join(missing)} not found"
        raise SourceError(
            f"{folder} should hold train/ and val/ or validation/, each with a folder for each class: {found}"
        )
    return open_folder(folder / "train", layout=Layout.FOLDERS), open_folder(folder / names[0], layout=Layout.FOLDERS)


def _held(place: Path) -> tuple[Source, Source] | None:
    """The splits where they are in files that hold many pictures."""
    if not place.exists() or (splits := splits_of(place)) is None:
        return None
    names = [name for name in _VALIDATION if name in splits]
    if "train" not in splits or len(names) != 1:
        raise SourceError(f"{place} should hold the splits train and validation: it has {some(splits) or 'none'}")
    train, validation = (open_source(SourceOptions(place, split=name), BuildObserver()) for name in ("train", names[0]))
    return train, validation


def _readable(source: Source) -> Pictures:
    # What the listing has refused already (links, sockets) has no place in a training.
    entries = [entry for entry in source.entries if entry.rejected is None and entry.label is not None]
    if not entries:
        raise SourceError(f"no pictures in {source.name}")
    return Pictures(source.kind, source.name, source.location, entries, source.reader())


class Draw(NamedTuple):
    """One picture, by its place among the entries, in one epoch."""

    epoch: int
    place: int


class Batch(NamedTuple):
    """Pictures uint8 [N, RGB, size, size], class ids int64 [N], and the paths of files that could not be read."""

    images: Tensor
    labels: Tensor
    rejected: list[str]


class RandomCrops(Dataset[tuple[Tensor, int] | str]):
    """Training pictures by `Draw`: uint8 [RGB, size, size] and the class id, or the path of what cannot be read."""

    def __init__(self, data: TrainingData, recipe: Recipe) -> None:
        self._source = data.train
        self._labels = [data.label(entry) for entry in data.train.entries]
        self._recipe = recipe

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self._labels)

    def __getitem__(self, draw: Draw) -> tuple[Tensor, int] | str:
        """Read, crop and mirror one picture."""
        entry = self._source.entries[draw.place]
        try:
            picture = open_picture(self._source.read(entry))
        except Rejected as rejected:
            return f"{entry.text} ({rejected.code})"
        size = input_size(self._recipe, draw.epoch)
        crop = v2.Compose(
            [
                v2.RandomResizedCrop(size, scale=(self._recipe.min_scale, 1.0)),
                v2.RandomHorizontalFlip(0.5 if self._recipe.flip else 0.0),
                v2.PILToTensor(),
            ]
        )
        with torch.random.fork_rng(devices=[]):  # torchvision draws from torch's global generator
            words = np.random.SeedSequence([self._recipe.seed, draw.epoch, draw.place]).generate_state(2, np.uint32)
            torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
            return crop(picture), self._labels[draw.place]


class Shuffle(Sampler[list[Draw]]):
    """This process's part of each step's batch, from the epoch `first` to the last.

    Batches are full: what is left over at an epoch's end, another few each time, is left out, but for data sets smaller
    than a batch.
    """

    def __init__(self, count: int, recipe: Recipe, first: int, rank: int = 0, world: int = 1) -> None:
        self._count, self._recipe, self._first = count, recipe, first
        self._rank, self._world = rank, world
        self.steps = max(1, count // recipe.batch_size)
        """Steps of an epoch."""

    def __len__(self) -> int:
        """Steps of all epochs."""
        return self.steps * (self._recipe.epochs - self._first)

    def __iter__(self) -> Iterator[list[Draw]]:
        """The draws of each step."""
        size = self._recipe.batch_size
        for epoch in range(self._first, self._recipe.epochs):
            order = np.random.default_rng([self._recipe.seed, epoch]).permutation(self._count)
            for step in range(self.steps):
                batch = order[step * size : (step + 1) * size]
                yield [Draw(epoch, int(place)) for place in batch[self._rank :: self._world]]


def training_batches(data: TrainingData, recipe: Recipe, shuffle: Shuffle, workers: int) -> DataLoader[Any]:
    """The batches of all epochs to come, as `Batch`, read ahead by worker processes (0: by this one)."""
    return DataLoader(
        RandomCrops(data, recipe),
        batch_sampler=shuffle,
        num_workers=workers,
        collate_fn=_collate,
        pin_memory=torch.cuda.is_available(),
        persistent_workers=workers > 0,
        worker_init_fn=_outlive_sigterm,
    )


def _outlive_sigterm(_worker: int) -> None:
    """Leave it to the first process, which gets the signal too, to end a training in good order."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


def _collate(drawn: Sequence[tuple[Tensor, int] | str]) -> Batch:
    read = [item for item in drawn if not isinstance(item, str)]
    images = torch.stack([image for image, _ in read]) if read else torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    return Batch(images, torch.tensor([label for _, label in read]), [item for item in drawn if isinstance(item, str)])
