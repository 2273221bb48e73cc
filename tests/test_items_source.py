"""Pictures that a program gives."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagindex import Index, Items
from bagindex.errors import DiskError, LabelError, SettingsError, SourceError
from bagindex.observer import BuildObserver
from bagindex.sources.items import SpooledItems, open_items
from fakes import MemorySource
from replicas import CLASSES, Stopped, Stopping, built, indexed, items, model, rejected
from test_build import contents

COUNT = 100
PIXELS = np.random.default_rng(3).integers(0, 256, (20, 30, 3), dtype=np.uint8)


def stream(count: int = COUNT) -> Iterator[tuple[str, object, object]]:
    """Items that can be had once."""
    for item in items(count):
        yield item.name, item.data, CLASSES[item.label]


def spool(tmp_path: Path, *given: tuple[str, object, object]) -> SpooledItems:
    return open_items(given, tmp_path / "items" / "a.tar", True, BuildObserver().note)


def spools() -> list[str]:
    folder = Path(os.environ["BAGINDEX_CACHE"]) / "items"
    return [path.name for path in folder.iterdir()] if folder.is_dir() else []


def test_a_stream_becomes_an_index_and_leaves_nothing(tmp_path: Path) -> None:
    assert built(stream(10), tmp_path / "i").images == 10
    assert list(indexed(tmp_path / "i")) == [(item.name, CLASSES[item.label]) for item in items(10)]
    assert spools() == []
    assert built(stream(10), tmp_path / "i").computed == 0


def test_a_build_goes_on_with_a_stream_that_cannot_be_had_again(tmp_path: Path) -> None:
    built(stream(), tmp_path / "whole")
    with pytest.raises(Stopped):
        Index.build(stream(), out=tmp_path / "cut", compute=Stopping(CLASSES), ann="none")
    assert len(spools()) == 2  # the pictures and their labels
    report = built((), tmp_path / "cut")
    assert 0 < report.computed < COUNT
    # The records have a hash of the place, which differs.
    whole, cut = (contents(tmp_path / name) for name in ("whole", "cut"))
    assert {name: cut[name] for name in cut if name.endswith(".parquet")} == {
        name: whole[name] for name in whole if name.endswith(".parquet")
    }
    assert spools() == []


def test_a_restart_takes_new_items(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        Index.build(stream(), out=tmp_path / "i", compute=Stopping(CLASSES), ann="none")
    assert built(stream(7), tmp_path / "i", restart=True).images == 7


def test_items_that_were_wrong_are_not_kept(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="'cat'"):
        built([("a.png", PIXELS, "cat")], tmp_path / "i")
    assert spools() == []
    assert built([("a.png", PIXELS, "bear")], tmp_path / "i").images == 1
    with pytest.raises(SettingsError, match="1 files then, 2 now"):
        built([("a.png", PIXELS, "bear"), ("b.png", PIXELS, "bear")], tmp_path / "i")
    assert spools() == []


def test_a_plan_keeps_nothing(tmp_path: Path) -> None:
    planned = Index.plan(stream(3), out=tmp_path / "i", compute=model())
    assert (planned.images, spools()) == (3, [])


def test_an_update_takes_a_stream(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(stream(5), tmp_path / "i")
    monkeypatch.setattr("bagindex.prepare.open_stored_models", lambda *_: {"linear": model()})
    with Index.open(tmp_path / "i") as index:
        report = index.update([*list(stream(8))[1:]])
    assert (report.new, report.changed, report.missing) == (3, (), ("000.png",))
    assert spools() == []


def test_an_index_of_items_needs_a_place() -> None:
    with pytest.raises(SettingsError, match="give it a name, or say with `out` where it is"):
        Index.build(stream(), compute=model())
    with pytest.raises(SettingsError, match="leave out --layout: what a program gives takes no such options"):
        Index.build(stream(), compute=model(), name="i", layout="flat")


def test_pictures_may_be_bytes_images_and_arrays(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = io.BytesIO()
    Image.fromarray(PIXELS).save(jpeg, "PNG", exif=exif)
    given = {
        "a/array": PIXELS,
        "bytes": bytearray(b"as they are"),
        "grey": PIXELS[:, :, 0],
        "image": Image.fromarray(PIXELS),
        "turned": Image.open(io.BytesIO(jpeg.getvalue())),
    }
    source = spool(tmp_path, *((name, picture, None) for name, picture in given.items()))
    found = {entry.text: source.read(entry) for entry in source.entries}
    assert found["bytes"] == b"as they are"
    read = {name: np.array(Image.open(io.BytesIO(data))) for name, data in found.items() if name != "bytes"}
    assert np.array_equal(read["a/array"], PIXELS)
    assert np.array_equal(read["image"], PIXELS)
    assert np.array_equal(read["grey"], PIXELS[:, :, :1].repeat(3, 2))
    assert np.array_equal(read["turned"], np.rot90(PIXELS, -1))


def test_a_label_may_be_a_number_or_none(tmp_path: Path) -> None:
    labels = ("bear", None, "", 7, np.int64(8))
    source = spool(tmp_path, *((f"{n}", b"", label) for n, label in enumerate(labels)))
    assert [entry.label for entry in source.entries] == ["bear", None, None, "7", "8"]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([("a", PIXELS)], r"item 0 is tuple: give \(name, picture, label\)"),
        ([("a", "b.png", None)], "the item 'a' is str: give bytes, a PIL image or an array"),
        ([("a", PIXELS.astype(float), None)], r"the item 'a': an array is uint8 .*, not float64 \[20, 30, 3\]"),
        ([("a", PIXELS.transpose(2, 0, 1), None)], r"not uint8 \[3, 20, 30\]"),
        ([("a", PIXELS, 0.5)], "an item's label is a class's name, its number or None, not float"),
        ([("a", PIXELS, True)], "not bool"),
        ([("a", b"", None), ("a", b"", None)], "two items are called 'a'"),
        *([([(name, b"", None)], "an item cannot be called") for name in ("", "/a", "../a", "a/../b", ".a", "a/", 3)]),
        ([], "there are no items"),
    ],
)
def test_items_that_are_none_are_named(tmp_path: Path, given: list[tuple[str, object, object]], said: str) -> None:
    with pytest.raises(SourceError, match=said):
        spool(tmp_path, *given)
    assert list((tmp_path / "items").iterdir()) == []


def test_a_program_that_fails_is_told_from_a_disk_that_does(tmp_path: Path) -> None:
    def failing() -> Iterator[tuple[str, object, object]]:
        yield "a", PIXELS, None
        raise FileNotFoundError("no b.png")

    with pytest.raises(SourceError, match=r"item 1 cannot be had: no b\.png"):
        open_items(failing(), tmp_path / "a.tar", True, print)
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"cannot write items down in .*file: .*set BAGINDEX_CACHE"):
        open_items(stream(1), tmp_path / "file" / "a.tar", True, print)


def test_pictures_that_cannot_be_indexed_are_rejected(tmp_path: Path) -> None:
    whole = io.BytesIO()
    Image.fromarray(PIXELS).save(whole, "JPEG")
    given: Iterable[tuple[str, object, object]] = [
        ("cut", Image.open(io.BytesIO(whole.getvalue()[:-100])), None),
        ("empty", b"", None),
        ("float", Image.new("F", (20, 20)), None),
        ("good", PIXELS, "bear"),
        ("text", b"text", None),
    ]
    assert built(given, tmp_path / "i").images == 1
    assert rejected(tmp_path / "i") == {
        "cut": "damaged",
        "empty": "empty",
        "float": "unsupported",
        "text": "not_an_image",
    }


def test_items_by_name_are_asked_for_when_they_are_needed(tmp_path: Path) -> None:
    pictures = {item.name: item.data for item in items(4)}
    source = Items([(name, "bear") for name in [*pictures, "gone.png"]], pictures.__getitem__, name="mine")
    index = Index.build(source, compute=model())
    assert (index.path.name, index.info().images, spools()) == ("mine", 4, [])
    assert list(indexed(index.path)) == [(name, "bear") for name in pictures]
    assert rejected(index.path) == {"gone.png": "missing"}
    with pytest.raises(SourceError, match="there are no items"):
        Items([], pictures.__getitem__)


def test_a_build_of_nothing_but_rejects_is_an_error_and_leaves_them(tmp_path: Path) -> None:
    def give(name: str) -> bytes:
        raise ValueError(f"no key for {name}\nor none")

    message = "could not be given: ValueError: no key for a.png"
    with pytest.raises(SourceError, match=rf"none of the 2 files .*a\.png \(io_error: {message}\).*'FROM rejects'"):
        built(Items([("a.png", None), ("b.png", None)], give), tmp_path / "i")
    with Index.open(tmp_path / "i") as index:
        assert [row["message"] for row in index.sql("FROM rejects")] == [message, message.replace("a.png", "b.png")]
    with pytest.raises(SourceError, match=r"missing: not there: KeyError: 'a\.png'"):
        built(Items([("a.png", None)], {}.__getitem__), tmp_path / "j")


def test_a_source_of_ones_own_is_taken_as_it_is(tmp_path: Path) -> None:
    assert built(MemorySource(["apple", "bear", None]), tmp_path / "i").images == 3
