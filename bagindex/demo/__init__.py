"""A demonstration that needs nothing: pictures of planted evidence, a small BagNet that knows them, and their index.

Because it is known what was planted where, it can be said of every top patch whether it lies on something that speaks
for its class.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path

from bagindex.demo.planting import CLASSES, TRUTH, Planted, plant, read_truth
from bagindex.errors import SettingsError
from bagindex.figures import figure3
from bagindex.geometry import shared_area
from bagindex.index import Index, PathLike
from bagindex.observer import BuildObserver
from bagindex.results import PlacedPatch, TopPatches

__all__ = [
    "CLASSES",
    "SHEET",
    "SPLITS",
    "DemoReport",
    "Subrow",
    "find_planted",
    "plant",
    "read_truth",
    "run",
    "seed_of",
    "subrows",
    "weights",
]

PICTURES = 50
"""Pictures of each class in the demo."""
WRONG = 0.25
"""Share of them that hold something that speaks for another class: more than the model was trained on, so that there
is something to find."""
SPLITS = ("train", "validation")
SHEET = "top-patches.png"
"""The file below the demo's folder that shows the top patches."""
_K = 7
_SHARE = 0.25


@dataclass(frozen=True)
class Subrow:
    """The top patches of a class in images of it, or in images of others, and what was planted under each."""

    class_name: str
    right: bool
    patches: TopPatches
    planted: tuple[Planted | None, ...]

    @property
    def found(self) -> Counter[str]:
        """How many patches lie on which motif or shortcut of the class."""
        return Counter(each.motif for each in self.planted if each is not None and each.belongs_to == self.class_name)

    @property
    def elsewhere(self) -> Counter[str]:
        """How many lie on what belongs to another class, or on nothing."""
        others = (each for each in self.planted if each is None or each.belongs_to != self.class_name)
        return Counter("nothing" if each is None else each.motif for each in others)


@dataclass(frozen=True)
class DemoReport:
    """The demo's index, and both subrows of each class; `sheet` is the picture of them."""

    index: Index
    pictures: Path
    sheet: Path
    subrows: tuple[Subrow, ...]

    def share(self, right: bool) -> tuple[int, int]:
        """Of all top patches in right (or wrong) images, how many lie on a motif or shortcut of their class."""
        rows = [row for row in self.subrows if row.right is right]
        return sum(row.found.total() for row in rows), sum(len(row.patches) for row in rows)


def run(folder: PathLike, observer: BuildObserver | None = None) -> DemoReport:
    """Plant pictures, index them and ask for both subrows of every class; what is there already is taken as it is.

    Writes `pictures/`, `index/` and `top-patches.png` below `folder`.

    Raises:
        SettingsError: the folder holds something else.
    """
    place = Path(folder)
    pictures, sheet = place / "pictures", place / SHEET
    others = {path.name for path in place.iterdir()} - {"pictures", "index", sheet.name} if place.is_dir() else set()
    if others or (place.exists() and not place.is_dir()):
        raise SettingsError(f"{place} holds something else: give an empty or new folder")
    observer = observer or BuildObserver()
    if not (pictures / TRUTH).exists():
        observer.note(f"drawing {PICTURES * len(CLASSES)} pictures with planted evidence")
        plant(pictures, PICTURES, seed=0, wrong=WRONG)
    truth = read_truth(pictures)
    with as_file(weights()) as file:
        index = Index.build(pictures, weights=file, out=place / "index", observer=observer)
    found = subrows(index, truth)
    rows = [
        figure3.Row(right.class_name, [_strip(right)], [_strip(wrong)])
        for right, wrong in zip(found[::2], found[1::2], strict=True)
    ]
    sheet.write_bytes(figure3.to_png(rows, index.models))
    return DemoReport(index, pictures, sheet, found)


def subrows(index: Index, truth: Iterable[Planted]) -> tuple[Subrow, ...]:
    """Both subrows of every class, that of right images first."""
    return tuple(_subrow(index, each.name, right, truth) for each in CLASSES for right in (True, False))


def seed_of(split: str, seed: int) -> int:
    """The seed of a split of a data set, which is neither the demo's own (0) nor that of any other split."""
    return 1 + len(SPLITS) * seed + SPLITS.index(split)


def weights() -> Traversable:
    """The demo's BagNet-33, of a quarter of the authors' width; README says how it was trained."""
    return files("bagindex.demo") / "bagnet33.safetensors"


def find_planted(patch: PlacedPatch, truth: Iterable[Planted]) -> Planted | None:
    """What was planted where a patch looks: the motif that it shares most pixels with.

    They share at least a quarter of the smaller of their boxes.
    """
    best, most = None, 0.0
    x0, y0, x1, y1 = patch.source_box
    for planted in truth:
        if planted.path != patch.path:
            continue
        area = shared_area(patch.source_box, planted.box)
        smaller = min((x1 - x0) * (y1 - y0), (planted.x1 - planted.x0) * (planted.y1 - planted.y0))
        if area > most and area >= _SHARE * smaller:
            best, most = planted, area
    return best


def _subrow(index: Index, name: str, right: bool, truth: Iterable[Planted]) -> Subrow:
    patches = index.top_patches(name, right_class=right, wrong_class=not right, k=_K)
    return Subrow(name, right, patches, tuple(find_planted(patch, truth) for patch in patches))


def _strip(row: Subrow) -> figure3.Strip:
    """A subrow with what was planted under each patch, instead of its logit."""
    tiles = []
    for patch, planted, crop in zip(row.patches, row.planted, row.patches.crops(), strict=True):
        motif = "nothing" if planted is None else planted.motif.replace("_", " ")
        tiles.append(figure3.Tile(crop, (motif,) if row.right else (patch.label_name or "", motif)))
    return figure3.Strip(tiles)
