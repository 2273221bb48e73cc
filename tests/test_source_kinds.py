"""What holds for each kind of source that is more than a folder: it is listed, read, left and gone on with."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bagindex import Index
from bagindex.images import read_picture
from bagindex.observer import BuildObserver
from bagindex.sources import Entry, Source, describe
from bagindex.sources.opening import SourceOptions, open_source, reader_at
from bagindex_schemas.records import Transform
from replicas import (
    CLASSES,
    Stopped,
    Stopping,
    as_arrow,
    as_crops,
    as_parquet,
    as_tars,
    built,
    indexed,
    items,
    model,
    pack,
)
from test_build import contents

COUNT = 100
TRANSFORM = Transform(resize=16, crop_height=16, crop_width=16)
MADE: dict[str, Callable[[Path], Path]] = {
    "arrow": lambda folder: as_arrow(folder, items(COUNT)),
    "crops": lambda folder: as_crops(folder, items(COUNT)),
    "parquet": lambda folder: as_parquet(folder, items(COUNT)),
    "webdataset": lambda folder: as_tars(folder, items(COUNT)),
}


def opened(place: object, **options: object) -> Source:
    return open_source(SourceOptions(place, **options), BuildObserver())  # type: ignore[arg-type]


@pytest.fixture(params=sorted(MADE))
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return MADE[request.param](tmp_path / "set")


def test_it_is_known_by_what_is_there(place: Path, request: pytest.FixtureRequest) -> None:
    source = opened(place)
    assert source.kind == request.node.callspec.params["place"]
    assert [entry.path for entry in source.entries] == sorted(entry.path for entry in source.entries)
    assert [entry.label for entry in source.entries] == [CLASSES[number % 2] for number in range(COUNT)]
    assert describe(source) == describe(opened(place))


def test_a_source_without_a_label_says_so(tmp_path: Path) -> None:
    class Heard(BuildObserver):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, text: str) -> None:
            self.notes.append(text)

    def said(place: Path, **options: str) -> list[str]:
        heard = Heard()
        open_source(SourceOptions(place, **options), heard)  # type: ignore[arg-type]
        return [note for note in heard.notes if not note.startswith("listing")]

    pictures = [item.data for item in items(12)]
    pq.write_table(pa.table({"pic": pictures, "kind": ["bear"] * 12}), tmp_path / "a.parquet")
    which = "--label-column says which column has them"
    assert said(tmp_path / "a.parquet") == [f"none of the 12 images has a label: {which} (kind)"]
    assert said(tmp_path / "a.parquet", label_column="kind") == []
    tar = pack(tmp_path / "s.tar", {"a.png": pictures[0] or b"", "a.json": b'{"kind": "bear"}'})
    assert said(tar) == [f"none of the 1 images has a label: {which} (json, kind)"]
    (tmp_path / "flat").mkdir()
    (tmp_path / "flat" / "a.png").write_bytes(pictures[0] or b"")
    assert said(tmp_path / "flat") == ["none of the 1 images has a label"]


def test_another_process_reads_the_same(place: Path) -> None:
    source = opened(place)
    again = pickle.loads(pickle.dumps(source.reader()))
    expected = [read_picture(item.data or b"", TRANSFORM).pixels.tolist() for item in items(COUNT)]
    found = [source.read(entry) for entry in source.entries]
    assert [read_picture(data, TRANSFORM).pixels.tolist() for data in found] == expected
    assert [again.read(entry) for entry in reversed(source.entries)] == found[::-1]


def test_a_build_that_was_cut_off_ends_with_the_same_bytes(place: Path, tmp_path: Path) -> None:
    built(place, tmp_path / "whole")
    with pytest.raises(Stopped):
        Index.build(place, out=tmp_path / "cut", compute=Stopping(CLASSES), ann="none")
    report = built(place, tmp_path / "cut")
    assert 0 < report.computed < COUNT
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")
    assert [label for _, label in indexed(tmp_path / "cut")] == [CLASSES[number % 2] for number in range(COUNT)]


def test_an_index_without_pixels_reads_its_source_again(place: Path, tmp_path: Path) -> None:
    built(place, tmp_path / "i", pixels=False, keep="summary")
    assert built(place, tmp_path / "i", pixels=False, keep="evidence").computed == COUNT
    with Index.open(tmp_path / "i") as index:
        assert index.verify().ok


def test_an_update_finds_nothing_new(place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    built(place, tmp_path / "i")
    monkeypatch.setattr("bagindex.prepare.open_stored_models", lambda *_: {"linear": model()})
    with Index.open(tmp_path / "i") as index:
        report = index.update(place)
    assert (report.new, report.changed, report.missing) == (0, (), ())


def test_an_experiment_reads_it_by_the_paths_of_an_index(place: Path) -> None:
    source = opened(place)
    reader = reader_at(place, BuildObserver())
    for entry in source.entries[::9]:
        assert reader.read(Entry(entry.path, None)) == source.read(entry)
