"""Data sets of torchvision's, by name: it fetches and checks them, and says which pictures have which labels."""

from __future__ import annotations

import inspect
import os
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex.errors import SettingsError, SourceError
from bagindex.images import Rejected
from bagindex.sources import Entry, ListedSource, Reader, place_hash
from bagindex.sources.datasets import datasets_folder
from bagindex.sources.folders import FolderSource, Layout
from bagindex.sources.plain import as_ppm, ppm_bytes
from bagindex.text import did_you_mean, first_line, near
from bagindex_schemas.rejects import RejectCode

_PREFIX = "torchvision:"
_NAMES = {
    name.lower(): name
    for name in (
        *("CIFAR10", "CIFAR100", "Country211", "DTD", "EuroSAT", "FGVCAircraft", "FashionMNIST", "Flowers102"),
        *("Food101", "GTSRB", "KMNIST", "MNIST", "OxfordIIITPet", "STL10", "SUN397", "SVHN", "StanfordCars", "USPS"),
    )
}
"""Those that give each picture one label, as files or in arrays that are read here."""
_SPLITS = ("test", "val", "valid")
"""Without --split, the first of these that a data set has: what a model was not trained on."""
_DIGITS = 6


@dataclass(frozen=True)
class _Asked:
    """A data set, where it is kept, and which split is meant."""

    name: str
    root: Path
    split: str | None


class ArrayReader:
    """Reads pictures out of a data set's array, uint8 [N, height, width, RGB], [N, RGB, height, width] or grey."""

    def __init__(self, asked: _Asked, pixels: NDArray[np.uint8]) -> None:
        self._asked = asked
        self._pixels = pixels

    def __reduce__(self) -> tuple[Callable[[_Asked], ArrayReader], tuple[_Asked]]:
        """For other processes, which load the data set anew."""
        return _loaded_again, (self._asked,)

    def read(self, entry: Entry) -> bytes:
        """A picture as a PPM file.

        Raises:
            Rejected: there is no such picture.
        """
        place = int(entry.path.partition(b".")[0])
        if place >= len(self._pixels):
            raise Rejected(RejectCode.MISSING, "not there")
        pixels = self._pixels[place]
        return as_ppm(pixels.transpose(1, 2, 0) if _channels_first(self._pixels) else pixels)


def open_torchvision(place: str, split: str | None, data: Path | None, ids: bool = False) -> ListedSource:
    """List a data set, which torchvision fetches where it is not here.

    Args:
        place: `torchvision:NAME`; upper and lower case are the same.
        split: as torchvision calls it; by default `test`, `val` or `valid`, whichever it has.
        data: the folder that torchvision keeps it in; by default see `bagindex.sources.datasets`.
        ids: labels are taken as numbers, whatever they are called.

    Raises:
        SettingsError: there is no such data set or split.
        SourceError: torchvision is not installed, or cannot fetch or read it.
    """
    asked_name = place.lower().removeprefix(_PREFIX)
    name = _NAMES.get(asked_name)
    if name is None:
        hint = did_you_mean([_PREFIX + each for each in near(asked_name, _NAMES)])
        known = f"of torchvision's data sets, {', '.join(_NAMES)} are"
        raise SettingsError(f"{place!r} is not read here: {hint or known}")
    asked = _Asked(name, (datasets_folder() if data is None else data).absolute(), split)
    dataset, split = _load(asked, download=True)
    if ids:
        dataset.classes = None
    entries, rows = _files(dataset, asked.root) or _array(dataset, replace(asked, split=split))
    entries.sort(key=lambda entry: entry.path)
    called = "-".join((name.lower(), *([split] if split else [])))
    return ListedSource("torchvision", called, place_hash(asked.root / called), entries, rows)


def _load(asked: _Asked, download: bool) -> tuple[Any, str | None]:
    """The data set, and which split it is."""
    try:
        import torchvision.datasets as known
    except ImportError:
        raise SourceError(f"{_PREFIX}{asked.name.lower()} needs torchvision: pip install torchvision") from None
    kind = getattr(known, asked.name)
    takes = inspect.signature(kind.__init__).parameters
    if "train" in takes and asked.split not in (None, "train", "test"):
        raise SettingsError(f"{asked.name} has no split {asked.split!r}: --split takes train or test")
    if not {"train", "split"} & takes.keys() and asked.split is not None:
        raise SettingsError(f"{asked.name} has no splits: leave out --split")
    if "train" in takes:
        split = asked.split or "test"
        return _make(kind, asked, download, train=split == "train"), split
    if "split" not in takes:
        return _make(kind, asked, download), None
    refused = ""
    for split in (asked.split,) if asked.split else _SPLITS:
        try:
            return _make(kind, asked, download, split=split), split
        except ValueError as error:  # a split that it does not have, for one
            refused = refused or first_line(error)
    raise SettingsError(f"{asked.name} cannot be opened: {refused}")


def _make(kind: Any, asked: _Asked, download: bool, **options: object) -> Any:
    try:
        asked.root.mkdir(parents=True, exist_ok=True)
        with redirect_stdout(sys.stderr):  # it prints what it fetches
            return kind(str(asked.root), download=download, **options)
    except ValueError:
        raise
    except Exception as error:  # of all that torchvision fetches with, and reads
        raise SourceError(
            f"torchvision cannot give {asked.name} ({first_line(error)}): {_bring(kind, asked.root)}"
        ) from None


def _bring(kind: Any, root: Path) -> str:
    """What to do where there is no network: which file, and where to."""
    url = next((found for found in (getattr(kind, name, None) for name in ("url", "_URL")) if found), "its publisher")
    file = getattr(kind, "filename", None)
    if file is not None:
        return f"bring {file} from {url} and put it into {root}"
    return f"bring its files from {url} and put them where torchvision's {kind.__name__} looks for them in {root}"


def _files(dataset: Any, root: Path) -> tuple[list[Entry], Reader] | None:
    """The pictures where they are files."""
    samples = getattr(dataset, "_samples", None) or getattr(dataset, "samples", None)
    if samples is None:
        files = getattr(dataset, "_image_files", None) or getattr(dataset, "_images", None)
        if files is None:
            return None
        samples = zip(files, dataset._labels, strict=True)
    labels = _labels(dataset)
    entries = [_file(Path(path), root, labels(label)) for path, label in samples]
    return entries, FolderSource(root, Layout.FLAT, root.name, (), follow_symlinks=True)


def _file(path: Path, root: Path, label: str | None) -> Entry:
    name = os.fsencode(os.path.relpath(path, root))
    try:
        return Entry(name, path.stat().st_size, label)
    except OSError:
        return Entry(name, 0, label, Rejected(RejectCode.MISSING, "not there"))


def _array(dataset: Any, asked: _Asked) -> tuple[list[Entry], Reader]:
    """The pictures where they are in an array."""
    pixels = np.asarray(dataset.data)
    if pixels.dtype != np.uint8 or pixels.ndim not in (3, 4):
        raise SourceError(
            f"torchvision's {asked.name} has {pixels.dtype} {list(pixels.shape)}: no pixels are like that"
        )
    height, width = pixels.shape[2:] if _channels_first(pixels) else pixels.shape[1:3]
    found = getattr(dataset, "targets", None)
    labels = _labels(dataset)
    entries = [
        Entry(b"%0*d.ppm" % (_DIGITS, place), ppm_bytes(height, width), labels(label))
        for place, label in enumerate(np.asarray(dataset.labels if found is None else found).tolist())
    ]
    return entries, ArrayReader(asked, pixels)


def _labels(dataset: Any) -> Callable[[int], str | None]:
    """What a label's number means: a class's name where the data set has names; -1 is none."""
    names = getattr(dataset, "classes", None)
    return lambda number: None if number < 0 else str(number) if names is None else str(names[number])


def _channels_first(pixels: NDArray[np.uint8]) -> bool:
    return pixels.ndim == 4 and pixels.shape[1] == 3 and pixels.shape[3] != 3


def _loaded_again(asked: _Asked) -> ArrayReader:
    dataset, _ = _load(asked, download=False)
    return ArrayReader(asked, np.asarray(dataset.data))
