"""Indexes of earlier formats are read, checked, and go on in the present one; later ones are left alone."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path
from typing import Any

import pytest

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.errors import DamagedIndexError, NewerIndexError
from bagindex.grow import update
from bagindex.store import COPY, IndexDirectory
from bagindex_schemas.records import FORMAT_VERSION
from fakes import LinearCompute, MemorySource
from make_old_index import BROKEN, CLASS_IDS, LABELS, WORDS, answers
from sealing import change_record

REFERENCE = Path(__file__).parent / "reference"
FORMATS = {"1-early": 1, "1": 1, "2": 2}
SETTINGS = BuildSettings(shard_size=2, workers=1)


def unpacked(name: str, folder: Path) -> tuple[Path, dict[str, list[str]]]:
    """An index that an earlier version made, and what that version answered."""
    with tarfile.open(REFERENCE / f"index-format-{name}.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return folder / "index", json.loads((folder / "answers.json").read_text())


def format_on_disk(index: Path) -> int:
    return int(json.loads((index / "index.json").read_text())["format"])


@pytest.mark.parametrize("name", FORMATS)
def test_an_earlier_index_answers_what_it_answered(name: str, tmp_path: Path) -> None:
    path, said = unpacked(name, tmp_path)
    assert format_on_disk(path) == FORMATS[name]
    with Index.open(path) as index:
        assert answers(index, list(said)) == list(said.values())
        assert [(each.image_id, each.logit) for each in index.top_patches("b", wrong_class=True).patches]
        assert index.why(3).values.size
        assert index.info().complete
    assert format_on_disk(path) == FORMATS[name]  # who only asks writes nothing


@pytest.mark.parametrize("name", FORMATS)
def test_an_earlier_index_grows_and_is_of_the_present_format_then(name: str, tmp_path: Path) -> None:
    path, said = unpacked(name, tmp_path)
    directory, compute = IndexDirectory(path), LinearCompute("ab")
    more = MemorySource([*LABELS, "b", None, "a"], BROKEN)
    report = update(directory, more, CLASS_IDS, {"linear": compute}, SETTINGS)
    assert (report.new, report.missing) == (3, ())
    assert format_on_disk(path) == FORMAT_VERSION
    with Index.open(path) as index:
        assert index.verify().problems == []
        for query, before in said.items():
            if query != WORDS:  # which new images ask for anew
                (now,) = answers(index, [query])
                assert set(now) >= set(before)
                assert len(now) > len(before) or "rejects" in query
        index.make_words(4)
        index.compact()
        assert index.verify().problems == []
        first = answers(index, list(said)[:1])[0]
    # What it is now is what is built at once.
    build(IndexDirectory(tmp_path / "new"), more, CLASS_IDS, compute, SETTINGS)
    with Index.open(tmp_path / "new") as index:
        assert answers(index, list(said)[:1])[0] == first


@pytest.mark.parametrize("name", FORMATS)
def test_an_earlier_index_is_verified_repaired_and_changed(name: str, tmp_path: Path) -> None:
    path, said = unpacked(name, tmp_path)
    assert Index.repair(path).left == []
    assert Index.open(path).verify().problems == []
    (tmp_path / "labels.csv").write_text("path,label\n0000.png,b\n")
    with Index.open(path) as index:
        assert index.relabel(tmp_path / "labels.csv") == 1
        assert index.sql("SELECT label_name FROM images WHERE image_id = 0").to_dicts() == [{"label_name": "b"}]
        index.relabel(None)
        assert answers(index, list(said)) == list(said.values())
        assert index.verify().problems == []
    assert format_on_disk(path) == FORMAT_VERSION
    shard = path / "linear" / "shard-00001" / "features.parquet"
    data = shard.read_bytes()
    shard.write_bytes(data[:50] + bytes([data[50] ^ 1]) + data[51:])
    assert any("SHA-256" in problem for problem in Index.open(path).verify().problems)


def _later(record: dict[str, Any]) -> None:
    record["format"] = FORMAT_VERSION + 1
    record["plan"]["galaxy"] = "what this version does not know"


def test_a_later_index_is_left_alone(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    path, _ = unpacked("2", tmp_path)
    change_record(path / "index.json", _later)
    change_record(path / COPY, _later)
    files = {each: each.read_bytes() for each in path.rglob("*") if each.is_file()}
    said = f"has format {FORMAT_VERSION + 1}, which a later bagindex wrote; this one reads up to {FORMAT_VERSION}"
    for command in ("top-patches a", "info", "verify", "repair --yes", "compact", "words -n 2 --again", "remove --yes"):
        ended = run(*command.split(), "-i", path)
        assert ended.status == 1
        assert said in ended.err
        assert "use the version that made it, or a later one" in ended.err
        assert len(ended.err.splitlines()) == 1
    with pytest.raises(NewerIndexError):
        build(IndexDirectory(path), MemorySource(LABELS, BROKEN), CLASS_IDS, LinearCompute("ab"), SETTINGS)
    assert {each: each.read_bytes() for each in path.rglob("*") if each.is_file() and each.name != "LOCK"} == files


def test_a_later_index_stands_in_the_list(tmp_path: Path, run, home_folder: Path) -> None:  # type: ignore[no-untyped-def]
    path, _ = unpacked("2", tmp_path)
    change_record(path / "index.json", _later)
    path.rename(home_folder / "later")
    listed = run("list")
    assert listed.status == 0
    assert "of a later version" in listed.out


def test_a_flipped_bit_of_the_format_is_damage(tmp_path: Path) -> None:
    path, _ = unpacked("2", tmp_path)
    text = (path / "index.json").read_text()
    (path / "index.json").write_text(text.replace('"format": 2', '"format": 6', 1))
    with pytest.raises(DamagedIndexError, match="SHA-256"):
        Index.open(path)


def test_a_record_without_a_copy_is_not_said_to_have_one(tmp_path: Path) -> None:
    path, _ = unpacked("1", tmp_path)
    text = (path / "index.json").read_text()
    (path / "index.json").write_text(text.replace('"shards"', '"shreds"'))
    with pytest.raises(DamagedIndexError, match="put back a copy of your own, or build anew with --restart"):
        Index.open(path)
