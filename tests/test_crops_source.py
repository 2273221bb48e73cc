"""Boxes of pictures as images of their own."""

from __future__ import annotations

import io
import json
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagindex.decoders import pool
from bagindex.errors import LabelError, SettingsError, SourceError
from bagindex.images import Picture, Rejected
from bagindex.sources import Entry, Source, crops
from bagindex_schemas.rejects import RejectCode
from replicas import built, rejected
from test_source_kinds import opened

PIXELS = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def listing(folder: Path, *lines: str, header: str = "path,x0,y0,x1,y1,label") -> Path:
    """A CSV file beside the picture `a.png`."""
    Image.fromarray(PIXELS).save(folder / "a.png")
    (folder / "boxes.csv").write_text("\n".join([header, *lines]))
    return folder / "boxes.csv"


def pixels(source: Source, place: int = 0) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(source.read(source.entries[place]))))


def code(source: Source, entry: Entry) -> RejectCode:
    with pytest.raises(Rejected) as caught:
        source.read(entry)
    return caught.value.code


def test_a_box_is_its_pixels(tmp_path: Path) -> None:
    source = opened(listing(tmp_path, "a.png,10,5,42,37,bear", "a.png,0,0,60,40,"))
    assert [(entry.text, entry.label) for entry in source.entries] == [
        ("a.png#0,0,60,40", None),
        ("a.png#10,5,42,37", "bear"),
    ]
    assert np.array_equal(pixels(source), PIXELS)
    assert np.array_equal(pixels(source, 1), PIXELS[5:37, 10:42])


def test_a_box_may_be_given_by_its_size_and_in_parts_of_pixels(tmp_path: Path) -> None:
    path = listing(tmp_path, "bear,a.png,9.6,5.2,31.9,32", header="what,path,x,y,width,height")
    source = opened(path, label_column="what")
    assert (source.entries[0].text, source.entries[0].label) == ("a.png#10,5,42,37", "bear")


def test_a_box_is_of_the_upright_picture(tmp_path: Path) -> None:
    path = listing(tmp_path, "turned.png,0,0,10,20,")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(PIXELS).save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(pixels(opened(path)), np.rot90(PIXELS, -1)[:20, :10])


def test_what_is_not_in_the_picture_is_left_out(tmp_path: Path) -> None:
    source = opened(listing(tmp_path, "a.png,-5,30,20,50,", "a.png,60,0,80,20,"))
    assert np.array_equal(pixels(source), PIXELS[30:, :20])
    assert code(source, source.entries[1]) == RejectCode.TOO_SMALL


@pytest.mark.parametrize(
    ("box", "said"),
    [
        ("20,20,10,30", r"boxes\.csv, line 3: the box is empty: x1 \(10\) is to be beyond x0 \(20\)"),
        ("20,20,30,20.4", r"boxes\.csv, line 3: the box is empty: y1 \(20\) is to be beyond y0 \(20\)"),
    ],
)
def test_an_empty_box_is_said_to_be_empty(box: str, said: str, tmp_path: Path) -> None:
    source = opened(listing(tmp_path, "a.png,1,1,9,9,", f"a.png,{box},"))
    assert code_of_listing(source) == [RejectCode.TOO_SMALL]
    assert re.fullmatch(said, str(source.entries[1].rejected))


def test_coco(tmp_path: Path) -> None:
    listing(tmp_path)
    found = {
        "images": [{"id": 7, "file_name": "a.png"}],
        "annotations": [{"image_id": 7, "category_id": 2, "bbox": [10.2, 4.9, 32, 32]}],
        "categories": [{"id": 2, "name": "bear"}],
    }
    (tmp_path / "instances.json").write_text(json.dumps(found))
    source = opened(tmp_path / "instances.json")
    assert [(entry.text, entry.label) for entry in source.entries] == [("a.png#10,5,42,37", "bear")]
    for wrong, said in (
        ({"image_id": 8}, "annotation 0: needs image_id"),
        ({"bbox": [1, 2, 3]}, "annotation 0: needs image_id, category_id and bbox"),
        ({"bbox": [1, 2, 3, float("nan")]}, "annotation 0: .* is no box of a picture"),
    ):
        changed = {**found, "annotations": [{**found["annotations"][0], **wrong}]}
        (tmp_path / "wrong.json").write_text(json.dumps(changed))
        with pytest.raises(SourceError, match=said):
            opened(tmp_path / "wrong.json")
    for text in ("{", "[]", '{"images": 3}'):
        (tmp_path / "wrong.json").write_text(text)
        with pytest.raises(SourceError, match=r"wrong\.json is no JSON file with COCO's"):
            opened(tmp_path / "wrong.json")


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    path = listing(tmp_path, "a.png,0,0,10,10,")
    (tmp_path / "lists").mkdir()
    moved = path.rename(tmp_path / "lists" / "boxes.csv")
    assert code_of_listing(opened(moved)) == [RejectCode.MISSING]
    assert np.array_equal(pixels(opened(moved, data=tmp_path)), PIXELS[:10, :10])
    with pytest.raises(SourceError, match="nowhere is not there: say with --data"):
        opened(moved, data=tmp_path / "nowhere")


def code_of_listing(source: Source) -> list[RejectCode]:
    return [entry.rejected.code for entry in source.entries if entry.rejected]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("a.png,1,2,x,4,", r"boxes\.csv, line 2: x1 is 'x', where pixels are to be"),
        ("a.png,1,2,inf,4,", r"line 2: .* is no box of a picture"),
        ("../a.png,1,2,3,4,", r"line 2: '\.\./a\.png' is not below"),
        ("/a.png,1,2,3,4,", r"line 2: '/a\.png' is not below"),
        (",1,2,3,4,", r"line 2: '' is not below"),
        ("a.png,1,2,3,4,\n./a.png,1,2,3,4,", r"line 3: this box of a\.png is listed twice"),
    ],
)
def test_a_row_that_is_wrong_is_named(tmp_path: Path, line: str, said: str) -> None:
    with pytest.raises((SourceError, LabelError), match=said):
        opened(listing(tmp_path, line))


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="columns path,x0,y0,x1,y1 or path,x,y,width,height; it has path,x,y"):
        opened(listing(tmp_path, "a.png,1,2", header="path,x,y"))
    with pytest.raises(LabelError, match="needs a first line with the columns path"):
        opened(listing(tmp_path, "1,2", header="x,y"))
    with pytest.raises(SourceError, match=r"boxes\.csv lists no boxes"):
        opened(listing(tmp_path))
    with pytest.raises(SettingsError, match="leave out --split: a list of boxes takes"):
        opened(listing(tmp_path, "a.png,0,0,10,10,"), split="train")


def test_a_picture_is_decoded_once_for_its_boxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = opened(listing(tmp_path, *(f"a.png,{n},0,{n + 10},10," for n in range(40))))
    decoded: list[int] = []
    decode = pool.decode
    lock = threading.Lock()

    def counted(data: bytes, *options: object) -> Picture:
        with lock:
            decoded.append(len(data))
        return decode(data, *options)  # type: ignore[arg-type]

    monkeypatch.setattr(crops.pool, "decode", counted)
    with ThreadPoolExecutor(8) as threads:
        assert len(set(threads.map(source.read, source.entries))) == 40
    assert len(decoded) == 1


def test_few_decoded_pictures_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = listing(tmp_path, *(f"{n}.png,0,0,10,10," for n in range(5)))
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes((tmp_path / "a.png").read_bytes())
    monkeypatch.setattr(crops, "_KEPT_BYTES", 2 * PIXELS.nbytes)
    source = opened(path)
    for entry in source.entries:
        source.read(entry)
    assert list(source.files._decoded) == [b"3.png", b"4.png"]  # type: ignore[attr-defined]


def test_boxes_that_cannot_be_indexed_are_rejected(tmp_path: Path) -> None:
    lines = ["a.png,0,0,30,30,", "a.png,0,0,7,30,", "gone.png,0,0,9,9,", "text.png,0,0,9,9,", "text.png,1,1,9,9,"]
    path = listing(tmp_path, *lines)
    (tmp_path / "text.png").write_bytes(b"text")
    assert built(path, tmp_path / "i").images == 1
    assert rejected(tmp_path / "i") == {
        "a.png#0,0,7,30": "too_small",
        "gone.png#0,0,9,9": "missing",
        "text.png#0,0,9,9": "not_an_image",
        "text.png#1,1,9,9": "not_an_image",
    }


def test_a_picture_that_has_changed_is_told(tmp_path: Path) -> None:
    path = listing(tmp_path, "a.png,0,0,30,30,", "a.png,1,0,30,30,")
    source = opened(path)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes() + b" ")
    assert code(source, source.entries[0]) is RejectCode.CHANGED
    built(path, tmp_path / "i")
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes() + b" ")
    with pytest.raises(SettingsError, match="the source's files, their sizes or labels have changed"):
        built(path, tmp_path / "i")


def test_links_are_followed_only_if_that_is_said(tmp_path: Path) -> None:
    path = listing(tmp_path, "link.png,0,0,30,30,")
    (tmp_path / "link.png").symlink_to("a.png")
    source = opened(path)
    assert code(source, source.entries[0]) is RejectCode.SYMLINK
    assert np.array_equal(pixels(opened(path, follow_symlinks=True)), PIXELS[:30, :30])
