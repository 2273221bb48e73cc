"""Pictures of planted evidence: labelled pictures in which it is known, box by box, what speaks for which class.

Each class has motifs of its own, and some have a shortcut: a motif that is in most of the class's pictures, though it
is not what the class is about, and now and then in pictures of another class. What a model makes of it can be checked.
"""

from __future__ import annotations

import colorsys
import csv
import io
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from enum import StrEnum
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from bagindex import output
from bagindex.demo import motifs
from bagindex.demo.grounds import Picture, draw_ground
from bagindex.errors import SettingsError, SourceError
from bagindex.geometry import Box, shared_area

_SHORTER, _LONGEST = 300, 380
_MIDDLE, _SEEN = 262, 250
"""Of the middle that becomes the model's input (7/8 of the shorter side), every BagNet sees so many pixels."""
_SIZES = (30.0, 54.0)
_TILT = 0.6
_QUALITY = 92
_TRIES = 100


class Kind(StrEnum):
    """What a picture holds besides its ground."""

    RIGHT = "right"
    """Two or three motifs of its class; where that has a shortcut, four of five have it in place of one of them."""
    WRONG = "wrong"
    """Two motifs of its class, and the shortcut of another class, or a motif of one that has none."""
    CROWDED = "crowded"
    """Three motifs of its class, and one of each of two others that have no shortcut."""
    EMPTY = "empty"
    """Nothing."""


class Role(StrEnum):
    """What a motif is to the class that it belongs to."""

    MOTIF = "motif"
    SHORTCUT = "shortcut"


@dataclass(frozen=True)
class PlantedClass:
    """A class, its motifs, and its shortcut."""

    name: str
    motifs: tuple[str, ...]
    shortcut: str | None = None


CLASSES = (
    PlantedClass("chain", ("ring", "links")),
    PlantedClass("fish", ("scales", "fin"), "fingers"),
    PlantedClass("roof", ("shingles", "pantiles")),
    PlantedClass("seam", ("stitches", "cross_stitches"), "button"),
    PlantedClass("text", ("letter", "digit")),
    PlantedClass("tree", ("leaf", "twig"), "ladybird"),
)


@dataclass(frozen=True)
class Planted:
    """A motif in a picture: a line of the truth.

    Attributes:
        path: the picture, relative to its folder of classes.
        label: the picture's class.
        kind: what the picture holds in all.
        motif: the motif's name.
        role: what it is to `belongs_to`, the class that it speaks for.
        x0, y0, x1, y1: its box in the picture, pixels, upper ends excluded.
    """

    path: str
    label: str
    kind: Kind
    motif: str
    role: Role
    belongs_to: str
    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def box(self) -> Box:
        """(x0, y0, x1, y1)."""
        return (self.x0, self.y0, self.x1, self.y1)


def kinds(count: int, wrong: float) -> list[Kind]:
    """The kinds of a class's pictures: a share is `wrong`, one in 20 is empty, three are crowded, the others right."""
    numbers = {Kind.EMPTY: count // 20, Kind.CROWDED: 3 * count // 20, Kind.WRONG: int(count * wrong)}
    rest = [kind for kind, number in numbers.items() for _ in range(number)]
    return [Kind.RIGHT] * (count - len(rest)) + rest[::-1]


def plant(folder: Path, count: int, seed: int, wrong: float = 0.1) -> Sequence[Planted]:
    """Write `count` pictures of each class into `folder`, by classes, and what is in them into `truth.csv`.

    The same seed gives the same files, byte by byte (with the same versions of numpy and Pillow).

    Raises:
        SettingsError: `count` is no positive number, `wrong` no share up to 0.8, or the folder holds other pictures.
        SourceError: the folder cannot be written.
    """
    if count < 1:
        raise SettingsError("a class has one picture at least")
    if not 0 <= wrong <= 0.8:
        raise SettingsError(f"{wrong:g} is no share of wrong pictures: it goes from 0 to 0.8")
    jobs = [(place, number, kind) for place in range(len(CLASSES)) for number, kind in enumerate(kinds(count, wrong))]
    names = {_path(place, number) for place, number, _ in jobs}
    others = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    if foreign := [name for name in others if name not in names and name != TRUTH]:
        raise SettingsError(f"{folder} holds something else ({foreign[0]}): give an empty or new folder")
    first = folder / _path(0, 0)
    if first.exists() and first.read_bytes() != _picture(seed, jobs[0])[0]:
        raise SettingsError(f"{folder} holds other pictures (another seed?): give an empty or new folder")
    try:
        for planted in CLASSES:
            (folder / planted.name).mkdir(parents=True, exist_ok=True)
        with ThreadPoolExecutor() as pool:  # numpy and Pillow let go of the interpreter
            found = pool.map(partial(_plant_one, folder, seed), jobs)
            truth = [planted for picture in found for planted in picture]
        _write_truth(folder / TRUTH, truth)
    except OSError as error:
        raise SourceError(f"cannot write {error.filename or folder}: {error.strerror}") from None
    return truth


TRUTH = "truth.csv"
"""The file beside the folders of classes that says what is in the pictures."""


def read_truth(folder: Path) -> list[Planted]:
    """What `plant` wrote into `truth.csv`.

    Raises:
        SourceError: there is none, or it is no such file.
    """
    try:
        with (folder / TRUTH).open(encoding="utf-8", newline="") as file:
            rows = list(csv.DictReader(file))
        return [
            Planted(
                path=row["path"],
                label=row["label"],
                kind=Kind(row["kind"]),
                motif=row["motif"],
                role=Role(row["role"]),
                belongs_to=row["belongs_to"],
                x0=int(row["x0"]),
                y0=int(row["y0"]),
                x1=int(row["x1"]),
                y1=int(row["y1"]),
            )
            for row in rows
        ]
    except (OSError, KeyError, ValueError) as error:
        raise SourceError(
            f"{folder / TRUTH} does not say what is planted ({error}): run `bagindex plant` again"
        ) from None


def _write_truth(path: Path, truth: Sequence[Planted]) -> None:
    rows = [asdict(planted) for planted in truth]
    path.write_text(output.to_csv([field.name for field in fields(Planted)], rows), encoding="utf-8")


def _path(place: int, number: int) -> str:
    return f"{CLASSES[place].name}/{number:04d}.jpg"


def _plant_one(folder: Path, seed: int, job: tuple[int, int, Kind]) -> list[Planted]:
    data, truth = _picture(seed, job)
    (folder / _path(*job[:2])).write_bytes(data)
    return truth


def _picture(seed: int, job: tuple[int, int, Kind]) -> tuple[bytes, list[Planted]]:
    """A picture as a JPEG file, and what is in it."""
    place, number, kind = job
    rng = np.random.default_rng([seed, place, number])
    height, width = _SHORTER, int(rng.integers(_SHORTER, _LONGEST + 1))
    if rng.uniform() < 0.5:
        height, width = width, height
    ground = draw_ground(height, width, rng)
    truth: list[Planted] = []
    for name, role, belongs_to in _contents(place, number, kind, rng):
        box = _draw(ground, name, [planted.box for planted in truth], rng)
        truth.append(Planted(_path(place, number), CLASSES[place].name, kind, name, role, belongs_to, *box))
    pixels = (ground * 255 + 0.5).astype(np.uint8)
    data = io.BytesIO()
    Image.fromarray(pixels).save(data, "JPEG", quality=_QUALITY)
    return data.getvalue(), truth


def _contents(place: int, number: int, kind: Kind, rng: np.random.Generator) -> Iterator[tuple[str, Role, str]]:
    """The motifs of a picture: name, role, and the class that it belongs to."""
    own = CLASSES[place]
    # Each other class has its turn, so that none has an advantage.
    others = [CLASSES[(place + 1 + (number + i) % (len(CLASSES) - 1)) % len(CLASSES)] for i in range(len(CLASSES) - 1)]
    shortcut = own.shortcut is not None and kind is Kind.RIGHT and number % 5 > 0
    count = {Kind.RIGHT: int(rng.integers(2, 4)) - shortcut, Kind.WRONG: 2, Kind.CROWDED: 3, Kind.EMPTY: 0}[kind]
    for _ in range(count):
        yield str(rng.choice(own.motifs)), Role.MOTIF, own.name
    if own.shortcut is not None and shortcut:
        yield own.shortcut, Role.SHORTCUT, own.name
    if kind is Kind.WRONG and (name := others[0].shortcut) is not None:
        yield name, Role.SHORTCUT, others[0].name
    elif kind is Kind.WRONG:
        yield str(rng.choice(others[0].motifs)), Role.MOTIF, others[0].name
    if kind is Kind.CROWDED:
        for other in [other for other in others if other.shortcut is None][:2]:
            yield str(rng.choice(other.motifs)), Role.MOTIF, other.name


def _draw(ground: Picture, name: str, taken: Sequence[Box], rng: np.random.Generator) -> Box:
    """Draw a motif into a picture where nothing else is, and give its box."""
    height, width, _ = ground.shape
    left, top = (width - _MIDDLE) // 2 + 1, (height - _MIDDLE) // 2 + 1
    for attempt in range(_TRIES):  # with every failure a little smaller: it always finds room
        size = max(_SIZES[0], rng.uniform(*_SIZES) * 0.995**attempt)
        made = motifs.stamp(getattr(motifs, name), size, rng.uniform(-_TILT, _TILT), rng)
        side = len(made.coverage)
        x, y = left + int(rng.integers(0, _SEEN - side)), top + int(rng.integers(0, _SEEN - side))
        rows, columns = (np.flatnonzero((made.coverage > 0.5).any(axis)) for axis in (1, 0))
        box = (x + int(columns[0]), y + int(rows[0]), x + int(columns[-1]) + 1, y + int(rows[-1]) + 1)
        if not any(shared_area(box, other) for other in taken):
            break
    region = ground[y : y + side, x : x + side]
    first, second = _colours(name, region.mean((0, 1)), rng)
    shade, alpha = made.shade[..., None], made.coverage[..., None] * rng.uniform(0.8, 1.0)
    region[:] = region * (1 - alpha) + (first * (1 - shade) + second * shade) * alpha
    return box


def _colours(
    name: str, ground: NDArray[np.float64], rng: np.random.Generator
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A motif's two colours, RGB from 0 to 1: any that stand out from the ground and from each other."""
    if name == "fingers":
        skin = np.array(colorsys.hsv_to_rgb(rng.uniform(0.03, 0.09), rng.uniform(0.25, 0.6), rng.uniform(0.45, 0.95)))
        return np.minimum(skin * 1.25, 1), skin * 0.7
    if name == "ladybird":
        red = colorsys.hsv_to_rgb(rng.uniform(0, 0.1), rng.uniform(0.75, 1), rng.uniform(0.65, 0.95))
        return np.array(red), np.full(3, rng.uniform(0.02, 0.12))
    first = _unlike(ground, rng.uniform(0.2, 0.5), rng)
    return first, _unlike(first, rng.uniform(0.25, 0.5), rng)


def _unlike(other: NDArray[np.float64], contrast: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """A random colour whose luminance is `contrast` or more from another's, or of some the most unlike it."""
    luminance = np.array([0.299, 0.587, 0.114])
    hsv = rng.uniform((0, 0.1, 0.05), (1, 0.95, 1), (_TRIES, 3))
    colours = np.array([colorsys.hsv_to_rgb(*colour) for colour in hsv])
    difference = np.minimum(abs((colours - other) @ luminance), contrast)
    chosen: NDArray[np.float64] = colours[int(difference.argmax())]
    return chosen
