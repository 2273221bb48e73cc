"""Shards of tar archives, as WebDataset writes them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bagindex.errors import LabelError, SettingsError, SourceError
from bagindex.observer import BuildObserver
from bagindex.sources import webdataset
from bagindex.sources.opening import SourceOptions, open_source
from replicas import CLASSES, as_tars, built, items, pack, rejected
from test_source_kinds import opened

PNG = items(1)[0].data or b""


def labels(path: Path, **options: object) -> dict[str, str | None]:
    return {entry.text: entry.label for entry in opened(path, **options).entries}


def test_members_are_grouped_by_their_names(tmp_path: Path) -> None:
    members = {"a.jpg": b"1", "a.cls": b"bear\n", "in/b.v2.png": b"2", "in/b.cls": b"apple", "in/c.WEBP": b"3"}
    path = pack(tmp_path / "s.tar", {**members, "README.md": b"?", "in/c.txt": b"a caption", "in/c.seg.png": b"4"})
    # b's picture has the ending v2.png, which is none: webdataset too takes what comes after the first dot.
    assert labels(path) == {"s.tar/a.jpg": "bear", "s.tar/in/b": None, "s.tar/in/c.WEBP": None} | {
        "s.tar/in/b": "apple"
    }
    source = opened(path)
    assert [entry.rejected.message for entry in source.entries if entry.rejected] == ["the sample has no picture"]
    assert [source.read(entry) for entry in source.entries if not entry.rejected] == [b"1", b"3"]


def test_labels_come_from_what_is_asked(tmp_path: Path) -> None:
    fields = json.dumps({"label": 7, "name": "bear", "none": None}).encode()
    path = pack(tmp_path / "s.tar", {"a.jpg": PNG, "a.json": fields, "a.txt": b"apple"})
    assert labels(path) == {"s.tar/a.jpg": "7"}
    assert labels(path, label_column="name") == {"s.tar/a.jpg": "bear"}
    assert labels(path, label_column="txt") == {"s.tar/a.jpg": "apple"}
    assert labels(path, label_column="none") == {"s.tar/a.jpg": None}


def test_labels_that_no_sample_has_are_refused(tmp_path: Path) -> None:
    path = pack(tmp_path / "s.tar", {"a.jpg": PNG, "a.json": b'{"kind": "bear"}', "b.jpg": PNG, "b.txt": b"apple"})
    said = r"no sample in .*s\.tar has 'bogus', which --label-column says: it has 'json', 'kind', 'txt'"
    with pytest.raises(SourceError, match=said):
        opened(path, label_column="bogus")
    with pytest.raises(SourceError, match="it has pictures alone"):
        opened(pack(tmp_path / "t.tar", {"a.jpg": PNG}), label_column="cls")
    assert labels(path, label_column="txt") == {"s.tar/a.jpg": None, "s.tar/b.jpg": "apple"}


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.json", b"{", r"s\.tar: the label a\.json is no JSON"),
        ("a.json", b'{"label": [1]}', r"a\.json says \[1\] where a text"),
        ("a.json", b'{"label": true}', r"a\.json says True where a text"),
        ("a.cls", b"\xff", r"a\.cls is not UTF-8 text"),
        ("a.cls", b"x" * 70_000, r"a\.cls is larger than 65,536 bytes"),
    ],
)
def test_a_label_that_is_none_is_named(tmp_path: Path, name: str, data: bytes, said: str) -> None:
    with pytest.raises(LabelError, match=said):
        opened(pack(tmp_path / "s.tar", {"a.jpg": PNG, name: data}))


def test_shards_are_named_by_braces(tmp_path: Path) -> None:
    as_tars(tmp_path / "set", items(6), files=3)
    assert len(opened(str(tmp_path / "set" / "shard-{000001..000002}.tar")).entries) == 4
    assert len(opened(str(tmp_path / "set" / "shard-00000{0,2}.tar")).entries) == 4
    assert len(opened(str(tmp_path / "set" / "*1.tar")).entries) == 2
    source = opened(str(tmp_path / "set" / "shard-{000001..000002}.tar"))
    assert (source.name, source.entries[0].text) == ("shard", "shard-000001.tar/002.png")
    with pytest.raises(SourceError, match=r"names .*shard-000003\.tar, which does not exist"):
        opened(str(tmp_path / "set" / "shard-{000002..000003}.tar"))
    with pytest.raises(SourceError, match=r"counts from 2 down to 1: write \{1\.\.2\}"):
        opened(str(tmp_path / "set" / "shard-{2..1}.tar"))
    with pytest.raises(SourceError, match="names more than 100,000 files"):
        opened(str(tmp_path / "set" / "shard-{0..999999}.tar"))
    with pytest.raises(SourceError, match="names 1,000,000 files: give at most 100,000"):
        opened(str(tmp_path / "set" / "shard-{000..999}-{000..999}.tar"))


def test_more_shards_than_may_stay_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    as_tars(tmp_path / "set", items(12), files=6)
    monkeypatch.setattr(webdataset, "_OPEN", 2)
    source = opened(tmp_path / "set")
    assert [source.read(entry) for entry in source.entries] == [item.data for item in items(12)]
    assert len(source.files._open) == 2  # type: ignore[attr-defined]


def test_splits_are_chosen(tmp_path: Path) -> None:
    for split in ("train", "val"):
        pack(tmp_path / f"photos-{split}-000000.tar", {"a.jpg": PNG})
    with pytest.raises(SourceError, match="the splits 'train', 'validation'"):
        opened(tmp_path)
    assert list(labels(tmp_path, split="validation")) == ["photos-val-000000.tar/a.jpg"]


def test_damaged_archives_are_named(tmp_path: Path) -> None:
    folder = as_tars(tmp_path / "set", items(4), files=2)
    second = folder / "shard-000001.tar"
    data = second.read_bytes()
    second.write_bytes(data[:1024] + b"\xff" * 512 + data[1536:])
    with pytest.raises(SourceError, match=r"shard-000001\.tar is damaged or cut short at byte 1,024"):
        opened(folder)
    second.write_bytes(b"\x1f\x8b" + b"x" * 600)
    with pytest.raises(SourceError, match=r"shard-000001\.tar is no tar archive .*decompress it"):
        opened(folder)
    pack(second, {"a.md": b"?"})
    with pytest.raises(SourceError, match="no pictures in"):
        opened(second)


def test_an_archive_that_is_cut_short_is_told(tmp_path: Path) -> None:
    path = pack(tmp_path / "s.tar", {"a.cls": b"bear", "a.png": PNG, "b.png": PNG * 30})
    path.write_bytes(path.read_bytes()[:3000])
    notes: list[str] = []

    class Heard(BuildObserver):
        def note(self, text: str) -> None:
            notes.append(text)

    source = open_source(SourceOptions(path), Heard())
    assert notes[1].startswith("1 of 1 archives have no end mark")
    assert [entry.rejected.code for entry in source.entries if entry.rejected] == ["truncated"]


def test_samples_that_cannot_be_indexed_are_rejected(tmp_path: Path) -> None:
    members = {"a.png": PNG, "a.cls": b"bear", "b.png": b"", "c.png": b"text", "d.cls": b"bear"}
    built(pack(tmp_path / "s.tar", members), tmp_path / "i")
    assert rejected(tmp_path / "i") == {"s.tar/b.png": "empty", "s.tar/c.png": "not_an_image", "s.tar/d": "missing"}


def test_an_archive_that_changes_while_it_is_read_stops_the_build(tmp_path: Path) -> None:
    source = opened(as_tars(tmp_path / "set", items(2), files=1))
    pack(tmp_path / "set" / "shard-000000.tar", {"000.png": PNG})
    with pytest.raises(SourceError, match=r"shard-000000\.tar has changed since it was listed"):
        source.read(source.entries[0])


def test_what_a_tar_has_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="leave out --image-column: tar archives take"):
        opened(as_tars(tmp_path / "set", items(2)), image_column="x")
    assert set(labels(tmp_path / "set").values()) == set(CLASSES)
