"""torchvision's data sets by name, on replicas of what it keeps on a disk."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from bagindex.errors import SettingsError, SourceError
from bagindex.sources import Source
from fakes import number_png
from replicas import indexed, model
from test_source_kinds import opened

datasets = pytest.importorskip("torchvision.datasets")
RNG = np.random.default_rng(4)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")


def pixels(source: Source) -> list[np.ndarray]:
    return [np.array(Image.open(io.BytesIO(source.read(entry)))) for entry in source.entries]


def as_mnist(root: Path, values: np.ndarray, labels: list[int]) -> None:
    """MNIST's test set."""
    folder = root / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for split, count in (("t10k", len(labels)), ("train", 1)):
        images = struct.pack(">4i", 0x803, count, *values.shape[1:]) + values[:count].tobytes()
        numbers = struct.pack(">2i", 0x801, count) + bytes(labels[:count])
        for name, data in ((f"{split}-images-idx3-ubyte", images), (f"{split}-labels-idx1-ubyte", numbers)):
            (folder / name).write_bytes(data)
            (folder / f"{name}.gz").write_bytes(gzip.compress(data))


def test_grey_pictures_in_an_array(tmp_path: Path) -> None:
    values = RNG.integers(0, 256, (3, 28, 28), dtype=np.uint8)
    as_mnist(tmp_path, values, [3, 0, 9])
    source = opened("torchvision:MNIST", data=tmp_path)
    assert (source.kind, source.name) == ("torchvision", "mnist-test")
    assert [(entry.text, entry.label) for entry in source.entries] == [
        ("000000.ppm", "3 - three"),
        ("000001.ppm", "0 - zero"),
        ("000002.ppm", "9 - nine"),
    ]
    assert np.array_equal(pixels(source), values[:, :, :, None].repeat(3, 3))
    assert [entry.size for entry in source.entries] == [len(source.read(entry)) for entry in source.entries]
    again = pickle.loads(pickle.dumps(source.reader()))
    assert [again.read(entry) for entry in source.entries] == [source.read(entry) for entry in source.entries]
    assert len(opened("torchvision:mnist", data=tmp_path, split="train").entries) == 1


def as_cifar10(root: Path, monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """CIFAR-10, of two pictures in each batch."""
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    values = RNG.integers(0, 256, (2, 3, 32, 32), dtype=np.uint8)
    batch = pickle.dumps({"data": values.reshape(2, -1), "labels": [6, 1]})
    meta = pickle.dumps({"label_names": [f"class {n}" for n in range(10)]})
    names = [f"data_batch_{n}" for n in range(1, 6)]
    for name, data in (*((name, batch) for name in (*names, "test_batch")), ("batches.meta", meta)):
        (folder / name).write_bytes(data)
    md5 = hashlib.md5(batch).hexdigest()
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [[name, md5] for name in names])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [["test_batch", md5]])
    told = {"filename": "batches.meta", "key": "label_names", "md5": hashlib.md5(meta).hexdigest()}
    monkeypatch.setattr(datasets.CIFAR10, "meta", told)
    return values


def test_colour_pictures_in_an_array(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = as_cifar10(tmp_path, monkeypatch)
    source = opened("torchvision:cifar10", data=tmp_path)
    assert [entry.label for entry in source.entries] == ["class 6", "class 1"]
    assert np.array_equal(pixels(source), values.transpose(0, 2, 3, 1))
    assert len(opened("torchvision:cifar10", data=tmp_path, split="train").entries) == 10


def test_colours_may_come_first_and_labels_without_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = RNG.integers(0, 256, (32, 32, 3, 2), dtype=np.uint8)
    savemat(tmp_path / "test_32x32.mat", {"X": values, "y": np.array([[10], [4]])})
    md5 = hashlib.md5((tmp_path / "test_32x32.mat").read_bytes()).hexdigest()
    split = {"test": ["http://127.0.0.1:9/", "test_32x32.mat", md5]}
    monkeypatch.setattr(datasets.SVHN, "split_list", split)
    source = opened("torchvision:svhn", data=tmp_path)
    assert [entry.label for entry in source.entries] == ["0", "4"]
    assert np.array_equal(pixels(source), values.transpose(3, 0, 1, 2))
    with pytest.raises(SettingsError, match="SVHN cannot be opened: Unknown value 'extra'"):
        opened("torchvision:svhn", data=tmp_path, split="extra")


def as_food101(root: Path) -> None:
    """Food-101: files, and a list of them by class."""
    folder = root / "food-101"
    (folder / "meta").mkdir(parents=True)
    for split, count in (("test", 2), ("train", 1)):
        listed = {name: [f"{name}/{split}{n}" for n in range(count)] for name in ("apple", "bear")}
        (folder / "meta" / f"{split}.json").write_text(json.dumps(listed))
        for number, name in enumerate(name for names in listed.values() for name in names):
            path = folder / "images" / f"{name}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(number_png(number, 16))


def test_files(tmp_path: Path) -> None:
    as_food101(tmp_path)
    (tmp_path / "food-101/images/bear/test1.jpg").unlink()
    source = opened("torchvision:food101", data=tmp_path)
    assert [(entry.text, entry.label) for entry in source.entries] == [
        (f"food-101/images/{name}/test{n}.jpg", name) for name in ("apple", "bear") for n in (0, 1)
    ]
    assert [source.read(entry) for entry in source.entries[:3]] == [number_png(n, 16) for n in range(3)]
    assert [entry.rejected.message for entry in source.entries if entry.rejected] == ["not there"]


def test_folders_without_splits(tmp_path: Path) -> None:
    for number, name in enumerate(("Forest", "River")):
        (tmp_path / "eurosat" / "2750" / name).mkdir(parents=True)
        (tmp_path / "eurosat" / "2750" / name / "1.jpg").write_bytes(number_png(number, 16))
    source = opened("torchvision:EuroSAT", data=tmp_path)
    assert (source.name, [entry.label for entry in source.entries]) == ("eurosat", ["Forest", "River"])
    with pytest.raises(SettingsError, match="EuroSAT has no splits: leave out --split"):
        opened("torchvision:EuroSAT", data=tmp_path, split="test")


def test_an_index_of_one(tmp_path: Path) -> None:
    from bagindex import Index

    as_food101(tmp_path)
    index = Index.build("torchvision:food101", data=tmp_path, compute=model(), ann="none")
    assert index.path.name == "food101-test"
    assert [label for _, label in indexed(index.path)] == ["apple", "apple", "bear", "bear"]


def test_what_cannot_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"'torchvision:coco' is not read here: .* cifar10, .* are"):
        opened("torchvision:coco")
    with pytest.raises(SettingsError, match=r"CIFAR11' is not read here: did you mean 'torchvision:cifar10'"):
        opened("torchvision:CIFAR11")
    with pytest.raises(SettingsError, match="leave out --layout: a data set of torchvision's takes --data, --split"):
        opened("torchvision:mnist", layout="flat")
    with pytest.raises(SettingsError, match="CIFAR10 has no split 'val': --split takes train or test"):
        opened("torchvision:cifar10", data=tmp_path, split="val")
    said = r"torchvision cannot give CIFAR10 \(.*\): bring cifar-10-python\.tar\.gz from https://.* and put it into "
    with pytest.raises(SourceError, match=said):
        opened("torchvision:cifar10", data=tmp_path)
    with pytest.raises(SourceError, match=r"torchvision cannot give DTD \(.*\): bring its files from .*DTD looks"):
        opened("torchvision:dtd", data=tmp_path)
    monkeypatch.setitem(sys.modules, "torchvision.datasets", None)
    with pytest.raises(SourceError, match="torchvision:mnist needs torchvision: pip install torchvision"):
        opened("torchvision:mnist", data=tmp_path)
