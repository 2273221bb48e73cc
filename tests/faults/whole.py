"""Small indexes that have every kind of file, to be damaged."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from bagindex import Index, demo
from bagindex.build import BuildSettings, build
from bagindex.images import Rejected
from bagindex.sources import Entry
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Keep
from bagindex_schemas.rejects import RejectCode
from fakes import LinearCompute, MemorySource
from faults import asking
from faults.apart import Apart

CLASSES = ("cat", "dog", "fish")
_LABELS = ("cat", "dog", None, "fish", "cat", "dog", "fish", "cat", "dog", "fish", "cat", None)
_BROKEN = 4
_SIDE = 24


class NoiseSource(MemorySource):
    """Pictures of noise, each another one."""

    def read(self, entry: Entry) -> bytes:
        """A PNG."""
        if entry.size in self.broken:
            raise Rejected(RejectCode.NOT_AN_IMAGE, "broken on purpose")
        data = io.BytesIO()
        pixels = np.random.default_rng(entry.size).integers(0, 256, (self.side, self.side, 3), np.uint8)
        Image.fromarray(pixels).save(data, "PNG")
        return data.getvalue()


def make(root: Path, work: Path) -> None:
    """A torch-free index of a dozen images in two shards: two models, one of them with a level that was filled in,
    other labels, two FAISS indexes, visual words, and a catalog before the last.
    """
    source = NoiseSource(_LABELS, frozenset({_BROKEN}), side=_SIDE)
    directory = IndexDirectory(root)
    class_ids = {name: number for number, name in enumerate(CLASSES)}
    first, second = (
        LinearCompute(CLASSES, side=(_SIDE, _SIDE), dimensions=16, name=name) for name in ("linear", "second")
    )
    second.weight = -second.weight
    settings = BuildSettings(shard_size=6, workers=1)
    build(directory, source, class_ids, first, settings)
    for keep in (Keep.SUMMARY, Keep.EVIDENCE):
        build(directory, source, class_ids, second, BuildSettings(shard_size=6, workers=1, keep=keep))
    _relate(root, work, "IVF4,RaBitQ", 6)
    with Index.open(root) as index:
        index.make_ann("IVF4,Flat", metric="l2", model="linear")


def make_tiny(root: Path, work: Path) -> None:
    """A torch-free index of five images, one model and one shard, with other labels, a FAISS index and visual words."""
    source = NoiseSource(_LABELS[: _BROKEN + 2], frozenset({_BROKEN}), side=_SIDE)
    class_ids = {name: number for number, name in enumerate(CLASSES)}
    compute = LinearCompute(CLASSES, side=(_SIDE, _SIDE), dimensions=16)
    build(IndexDirectory(root), source, class_ids, compute, BuildSettings(workers=1))
    _relate(root, work, "IVF2,Flat", 4)


def _relate(root: Path, work: Path, factory: str, words: int) -> None:
    labels = work / "labels.csv"
    labels.write_text("path,label\n0000.png,dog\n0001.png,\n")
    with Index.open(root) as index:
        index.relabel(labels)
        index.make_ann(factory, model="linear")
        index.make_words(words, model="linear")


def make_real(root: Path, work: Path) -> None:
    """An index of six planted pictures by the demo's BagNet-33, with a FAISS index and visual words."""
    demo.plant(work / "pictures", 1, 5)
    (work / "pictures" / "truth.csv").unlink()
    weights = work / "weights.safetensors"
    weights.write_bytes(demo.weights().read_bytes())
    with Index.build(work / "pictures", weights=weights, out=root, device="cpu") as index:
        index.make_ann("IVF16,RaBitQ")
        index.make_words(8)


MAKERS = {"small": make, "real": make_real, "tiny": make_tiny}
"""Those that there are, by name."""


def made(folder: Path, name: str, apart: Apart) -> Path:
    """Where one of them is below a folder; it is made where it is not there: a fault that ran before has put it back.

    Raises:
        RuntimeError: it cannot be made, or is not sound.
    """
    place = folder / name
    if not place.is_dir():
        place.mkdir()
        came = apart.call(MAKERS[name], place / "index", place, seconds=600)
        found = apart.call(asking.check, place / "index", False)
        answers = apart.call(asking.ask, place / "index")
        wrong = {each: answer for each, answer in (answers.value or {}).items() if answer[0] != "answer"}
        if came.how != "returned" or found.value != [] or answers.how != "returned" or wrong:
            raise RuntimeError(f"the {name} index is not sound to begin with: {came}, {found}, {answers.how}, {wrong}")
    return place / "index"


def catalogs(root: Path) -> list[Path]:
    """The catalogs of an index, the one in force last."""
    return sorted(root.glob("catalog-*.duckdb"), key=lambda path: int(path.stem.partition("-")[2]))


def kinds(root: Path) -> Mapping[str, list[Path]]:
    """The files of an index that count, by kind.

    Not the lock, which holds nothing but a number for people; and not the catalogs before the one in force, which no
    one opens any more (they are there for those who have them open).
    """
    aside = {root / "LOCK", *catalogs(root)[:-1]}
    found: dict[str, list[Path]] = {}
    for path in sorted(root.rglob("*")):
        if path.is_file() and path not in aside:
            found.setdefault(_kind(path.relative_to(root)), []).append(path)
    return found


def _kind(path: Path) -> str:
    if path.name.startswith(("catalog-", "labels-")):
        return path.name.partition("-")[0]
    if path.name == "shard.json":
        return f"shard.json of {'images' if path.parts[0] == 'images' else 'a model'}"
    if path.suffix == ".faiss":
        return f"patches.faiss of {path.parent.name.rpartition('-')[0]}"
    return path.name
