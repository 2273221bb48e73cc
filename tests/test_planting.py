"""The generator of planted evidence: what it says is what is in the pictures."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagindex.demo import motifs
from bagindex.demo.grounds import draw_ground
from bagindex.demo.planting import CLASSES, Kind, Planted, Role, kinds, plant, read_truth
from bagindex.errors import SettingsError, SourceError
from bagindex.geometry import shared_area

COUNT, WRONG = 20, 0.25
ALL = [*(name for each in CLASSES for name in each.motifs), "fingers", "button", "ladybird"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("planted")
    plant(place, COUNT, 5, WRONG)
    return place


@pytest.fixture(scope="module")
def truth(folder: Path) -> list[Planted]:
    return read_truth(folder)


def test_numbers_are_known(folder: Path, truth: list[Planted]) -> None:
    assert Counter(kinds(40, 0.2)) == {Kind.RIGHT: 24, Kind.WRONG: 8, Kind.CROWDED: 6, Kind.EMPTY: 2}
    assert [len(kinds(count, 0.1)) for count in (1, 7, 19)] == [1, 7, 19]
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.jpg"))
    assert files == [f"{each.name}/{number:04d}.jpg" for each in CLASSES for number in range(COUNT)]
    for each in CLASSES:
        said = Counter({planted.path: planted.kind for planted in truth if planted.label == each.name}.values())
        wanted = Counter(kinds(COUNT, WRONG))
        del wanted[Kind.EMPTY]  # nothing is in it, so that there is nothing to list
        assert said == wanted


def test_contents_are_what_the_kind_says(truth: list[Planted]) -> None:
    own = {each.name: each for each in CLASSES}
    shortcuts: Counter[str] = Counter()
    turns: Counter[str] = Counter()
    for path in {planted.path for planted in truth}:
        here = [planted for planted in truth if planted.path == path]
        kind, label = here[0].kind, own[here[0].label]
        motif = [p for p in here if p.role is Role.MOTIF and p.belongs_to == label.name]
        shortcut = [p for p in here if p.role is Role.SHORTCUT and p.belongs_to == label.name]
        foreign = [p for p in here if p.belongs_to != label.name]
        assert all(p.motif in label.motifs for p in motif)
        assert all(p.motif == own[p.belongs_to].shortcut for p in here if p.role is Role.SHORTCUT)
        counts = (len(motif), len(foreign))
        if kind is Kind.RIGHT:
            assert (len(motif) + len(shortcut), len(foreign)) in ((2, 0), (3, 0))
            shortcuts[label.name] += len(shortcut)
        else:
            assert counts == {Kind.WRONG: (2, 1), Kind.CROWDED: (3, 2)}[kind]
            assert not shortcut
        if kind is Kind.CROWDED:
            assert all(own[p.belongs_to].shortcut is None for p in foreign)
        if kind is Kind.WRONG:
            turns[foreign[0].belongs_to] += 1
            assert foreign[0].role is (Role.SHORTCUT if own[foreign[0].belongs_to].shortcut else Role.MOTIF)
    right = kinds(COUNT, WRONG).count(Kind.RIGHT)
    for each in CLASSES:
        assert shortcuts[each.name] == (right - len(range(0, right, 5)) if each.shortcut else 0)
    assert set(turns) == {each.name for each in CLASSES}
    assert max(turns.values()) - min(turns.values()) <= 2


def test_boxes(folder: Path, truth: list[Planted]) -> None:
    """They lie where every BagNet looks, apart from each other, and hold what makes the picture differ."""
    for path in {planted.path for planted in truth}:
        here = [planted for planted in truth if planted.path == path]
        with Image.open(folder / path) as image:
            width, height = image.size
            pixels = np.asarray(image, dtype=np.float64) / 255
        assert min(width, height) == 300
        # Resized to 183, the middle 160 × 160 becomes the demo's input, of which the first 153 pixels are seen.
        scale = 300 / 183
        left, top = (width - 160 * scale) / 2, (height - 160 * scale) / 2
        for i, each in enumerate(here):
            assert left <= each.x0 < each.x1 <= left + 153 * scale
            assert top <= each.y0 < each.y1 <= top + 153 * scale
            assert min(each.x1 - each.x0, each.y1 - each.y0) >= 6
            assert not any(shared_area(each.box, other.box) for other in here[:i])
            inside = pixels[each.y0 : each.y1, each.x0 : each.x1]
            assert inside.std(axis=(0, 1)).max() > 0.02


def test_same_seed_same_bytes(folder: Path, tmp_path: Path) -> None:
    plant(tmp_path / "again", COUNT, 5, WRONG)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert len(files) == COUNT * len(CLASSES) + 1
    assert all((folder / name).read_bytes() == (tmp_path / "again" / name).read_bytes() for name in files)
    plant(tmp_path / "other", 1, 6)
    assert all(
        (folder / name).read_bytes() != (tmp_path / "other" / name).read_bytes()
        for name in ("truth.csv", "fish/0000.jpg")
    )


def test_pictures_are_planted_over_themselves_only(tmp_path: Path) -> None:
    def contents() -> dict[str, bytes]:
        files = (path for path in tmp_path.rglob("*") if path.is_file())
        return {path.relative_to(tmp_path).as_posix(): path.read_bytes() for path in files}

    plant(tmp_path, 3, 5, WRONG)
    before = contents()
    plant(tmp_path, 3, 5, WRONG)
    assert contents() == before
    with pytest.raises(SettingsError, match="holds something else"):
        plant(tmp_path, 2, 5)
    with pytest.raises(SettingsError, match="another seed"):
        plant(tmp_path, 3, 6, WRONG)
    assert contents() == before


def test_what_cannot_be(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="one picture at least"):
        plant(tmp_path, 0, 1)
    for share in (-0.1, 0.9, float("nan")):
        with pytest.raises(SettingsError, match="no share of wrong pictures"):
            plant(tmp_path, 5, 1, share)
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="cannot write"):
        plant(tmp_path / "file", 1, 1)
    for text in ("", "path,label\na,b\n"):
        (tmp_path / "truth.csv").write_text(text + "x" * bool(text))
        if text:
            with pytest.raises(SourceError, match="bagindex plant"):
                read_truth(tmp_path)
    with pytest.raises(SourceError, match="bagindex plant"):
        read_truth(tmp_path / "nowhere")


@cache
def stamp(name: str, angle: float = 0.0) -> motifs.Stamp:
    return motifs.stamp(getattr(motifs, name), 60, angle, np.random.default_rng(0))


@pytest.mark.parametrize("name", ALL)
def test_motifs(name: str) -> None:
    """A motif fills its square well, in two shades, and turning it changes neither."""
    upright, turned = stamp(name), stamp(name, 0.6)
    for made in (upright, turned):
        assert made.coverage.min() >= 0
        assert made.coverage.max() <= 1
        assert 0 <= made.shade.min() <= made.shade.max() <= 1
        rows, columns = (np.flatnonzero((made.coverage > 0.5).any(axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) > 60 * 0.75
    assert upright.coverage.sum() == pytest.approx(turned.coverage.sum(), rel=0.03)
    # No two motifs of the collection are alike.
    for other in ALL:
        if other != name:
            drawn = stamp(other)
            assert abs(drawn.coverage - upright.coverage).mean() + abs(drawn.shade - upright.shade).mean() > 0.04


def test_a_ring_covers_a_rings_area() -> None:
    for size in (24.0, 51.5):
        made = motifs.stamp(motifs.ring, size, 0.4, np.random.default_rng(1))
        thickness = np.random.default_rng(1).uniform(0.14, 0.2)
        inner, outer = 0.78 - thickness, 0.78 + thickness
        assert made.coverage.sum() == pytest.approx(np.pi * (outer**2 - inner**2) * (size / 2) ** 2, rel=0.02)


def test_grounds_speak_for_no_class() -> None:
    made = [draw_ground(64, 80, np.random.default_rng(seed)) for seed in range(12)]
    assert all(each.shape == (64, 80, 3) and each.min() >= 0 and each.max() <= 1 for each in made)
    assert len({each.tobytes() for each in made}) == 12
    assert np.ptp([each.mean() for each in made]) > 0.1
