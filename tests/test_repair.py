"""`bagindex repair`: what is damaged is dropped and made again, what is sound is not touched."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import pytest

from bagindex import Index, catalog
from bagindex.build import BuildSettings, build
from bagindex.catalog import current
from bagindex.errors import DamagedIndexError, IncompleteIndexError, IndexNotFoundError, LockedError
from bagindex.store import COPY, CURRENT, IndexDirectory
from bagindex.verify import verify
from bagindex_schemas.records import Keep
from conftest import Result
from fakes import LinearCompute, MemorySource
from test_build import contents

LABELS = ["a", "b", None, "a", "b", "a"]


def whole(folder: Path, keep: Keep = Keep.FEATURES) -> None:
    settings = BuildSettings(shard_size=2, workers=1, keep=keep)
    build(IndexDirectory(folder), MemorySource(LABELS), {"a": 0, "b": 1}, LinearCompute("ab"), settings)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with everything: two keep levels, a FAISS index, words, other labels."""
    folder = tmp_path_factory.mktemp("repair") / "index"
    whole(folder, Keep.EVIDENCE)
    whole(folder)
    with Index.open(folder) as index:
        index.make_ann("Flat")
        index.make_words(3)
        (folder.parent / "labels.csv").write_text("path,label\n0000.png,b\n")
        index.relabel(folder.parent / "labels.csv")
        assert index.verify().ok
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "index"))


def flip(path: Path) -> None:
    """Change a bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 16
    path.write_bytes(data)


def test_a_sound_index_is_left_as_it_is(folder: Path) -> None:
    before = contents(folder)
    report = Index.repair(folder)
    assert (report.ok, report.found, report.restored, report.remade, report.left, report.owed) == (
        *(True, [], [], [], []),
        0,
    )
    assert contents(folder) == before


def test_a_catalog_that_is_made_again_is_there_all_the_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = IndexDirectory(folder)
    damaged = current(directory)
    with Index.open(folder) as reader:
        before = reader.top_patches("a").patches
        data = damaged.read_bytes()
        damaged.unlink()  # what the reader has open stays as it was
        damaged.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        monkeypatch.setattr(catalog, "drop", lambda _: pytest.fail("it is gone for a while"))
        report = Index.repair(folder)
        assert (report.found, report.remade) == (["the catalog"], ["the catalog"])
        assert reader.top_patches("a").patches == before
    assert current(directory) != damaged
    with Index.open(folder) as index:
        assert index.verify().ok


@pytest.mark.parametrize(
    "name",
    [
        "images/shard-00001/images.parquet",
        "images/shard-00001/pixels.parquet",
        "images/shard-00001/shard.json",
        "linear/shard-00000/predictions.parquet",
        "linear/shard-00002/evidence.parquet",
        "linear/features/shard-00001/features.parquet",
    ],
)
def test_a_damaged_shard_is_dropped_and_built_again(folder: Path, name: str) -> None:
    before = contents(folder)
    flip(folder / name)
    report = Index.repair(folder)
    shard = str(Path(name).parent)
    assert (report.ok, report.found, report.owed) == (True, [shard], 1)
    assert contents(folder) == {path: sha for path, sha in before.items() if not path.startswith(shard + "/")}
    whole(folder)
    assert contents(folder) == before
    assert Index.open(folder).verify().ok


def test_damaged_weights_are_written_again_by_a_build(folder: Path) -> None:
    before = contents(folder)
    flip(folder / "linear" / "model.safetensors")
    assert Index.repair(folder).found == ["linear/model.safetensors"]
    whole(folder)
    assert contents(folder) == before
    assert Index.open(folder).verify().ok


@pytest.mark.parametrize("damaged", ["index.json", COPY])
def test_index_json_and_its_copy_make_up_for_each_other(folder: Path, damaged: str) -> None:
    before = contents(folder)
    flip(folder / damaged)
    report = Index.repair(folder)
    # A writer makes the copy again by itself.
    assert report.restored == (["index.json"] if damaged == "index.json" else [])
    assert contents(folder) == before
    assert (folder / COPY).read_bytes() == (folder / "index.json").read_bytes()


@pytest.mark.parametrize("damaged", ["index.json", CURRENT, "linear/shard-00001/shard.json"])
def test_who_does_not_agree_has_nothing_changed(folder: Path, damaged: str) -> None:
    flip(folder / damaged)
    before = contents(folder)
    asked: list[str] = []
    report = Index.repair(folder, agree=lambda found: asked.extend(found) or False)
    assert not report.ok
    assert asked == report.found != []
    assert (report.restored, report.remade) == ([], [])
    assert contents(folder) == before


def test_a_missing_catalog_is_no_unfinished_build(folder: Path) -> None:
    (folder / CURRENT).unlink()
    with pytest.raises(IncompleteIndexError, match=r"all of its shards and no catalog.*`bagindex repair`"):
        Index.open(folder).top_patches("a")
    assert Index.repair(folder).remade == ["the catalog"]
    assert Index.open(folder).verify().ok


def test_a_build_that_goes_on_or_was_stopped_is_not_damaged(folder: Path) -> None:
    IndexDirectory(folder).drop(folder / "linear" / "shard-00001")
    (folder / CURRENT).unlink()
    report = verify(IndexDirectory(folder))
    assert report.unfinished
    assert not report.damage.catalog
    assert Index.repair(folder).found == []
    (folder / "images" / "shard-00000" / "images.parquet").unlink()
    assert not verify(IndexDirectory(folder)).unfinished


def test_shards_without_any_record_are_named(folder: Path) -> None:
    for name in ("index.json", COPY):
        (folder / name).unlink()
    with pytest.raises(IndexNotFoundError, match=r"has shards, but neither index\.json nor index-copy\.json"):
        Index.open(folder)


def test_with_neither_nothing_is_done(folder: Path) -> None:
    flip(folder / "index.json")
    flip(folder / COPY)
    before = contents(folder)
    with pytest.raises(DamagedIndexError, match=r"index-copy\.json is damaged.*--restart"):
        Index.repair(folder)
    assert contents(folder) == before


@pytest.mark.parametrize("kind", ["patches", "words"])
def test_what_is_derived_is_made_again(folder: Path, kind: str) -> None:
    with Index.open(folder) as index:
        expected = index.words(k=3).to_dicts()
    for path in (folder / "linear" / "derived" / f"{kind}-1").iterdir():
        if path.suffix != ".json":
            flip(path)
    report = Index.repair(folder)
    assert report.found == [f"linear/derived/{kind}"]
    assert any("similar" in each if kind == "patches" else "words" in each for each in report.remade)
    with Index.open(folder) as index:
        assert index.verify().ok
        assert index.words(k=3).to_dicts() == expected
        assert "Flat" in str(index.info().models[0].derived[0])


def test_a_damaged_catalog_is_made_again(folder: Path) -> None:
    flip(current(IndexDirectory(folder)))
    assert any("SHA-256" in problem for problem in Index.open(folder).verify().problems)
    assert Index.repair(folder).remade == ["the catalog"]
    assert Index.open(folder).verify().ok
    (folder / "CURRENT").write_text("nonsense")
    assert Index.repair(folder).remade == ["the catalog"]
    assert Index.open(folder).verify().ok


def test_what_only_a_person_can_mend_is_said(folder: Path) -> None:
    (labels,) = folder.glob("labels-*.parquet")
    flip(labels)
    (folder / "linear" / "shard-00000" / "stranger").write_text("mine")
    flip(current(IndexDirectory(folder)))
    report = Index.repair(folder)
    assert not report.ok
    assert any("bagindex relabel" in problem for problem in report.left)
    assert any("stranger does not belong" in problem for problem in report.left)
    assert (folder / "linear" / "shard-00000" / "stranger").read_text() == "mine"
    (folder / "linear" / "shard-00000" / "stranger").unlink()
    Index.open(folder).relabel(None)
    assert Index.open(folder).verify().ok


def test_nothing_is_dropped_without_agreement(folder: Path) -> None:
    flip(folder / "linear" / "shard-00000" / "predictions.parquet")
    before = contents(folder)
    asked: list[list[str]] = []
    report = Index.repair(folder, agree=lambda damaged: bool(asked.append(list(damaged))))
    assert (report.ok, report.agreed, asked) == (False, False, [["linear/shard-00000"]])
    assert contents(folder) == before


def test_another_writer_is_not_disturbed(folder: Path) -> None:
    with IndexDirectory(folder).writing(), pytest.raises(LockedError):
        Index.repair(folder)


def test_old_answers_are_there_until_the_build(folder: Path) -> None:
    with Index.open(folder) as index:
        expected = index.top_patches("a").patches
    flip(folder / "linear" / "shard-00000" / "evidence.parquet")
    Index.repair(folder)
    with Index.open(folder) as index:
        assert index.top_patches("a").patches == expected
        with pytest.raises(DamagedIndexError, match=r"evidence\.parquet is missing: run `bagindex repair`"):
            index.sql("SELECT count(*) FROM evidence")


def test_the_command(folder: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    sound: Result = run("repair", "-i", folder)
    assert (sound.status, "sound, nothing to mend" in sound.out) == (0, True)
    flip(folder / "linear" / "shard-00000" / "predictions.parquet")
    dry: Result = run("repair", "-i", folder, "--dry-run")
    assert dry.status == 1
    assert "damaged: linear/shard-00000\nnothing was dropped" in dry.out
    monkeypatch.setattr("sys.stdin", io.StringIO(""))
    unsure: Result = run("repair", "-i", folder)
    assert (unsure.status, "give --yes" in unsure.out) == (1, True)
    done: Result = run("repair", "-i", folder, "--yes")
    assert done.status == 0
    assert "run the same `bagindex build` command again: it makes the 1 shard that is missing" in done.out


@pytest.mark.parametrize(("data", "names"), [(True, {"records", "hashes", "what is derived is as it was made"})])
def test_verify_looks_at_bytes_alone_where_that_is_asked(folder: Path, data: bool, names: set[str]) -> None:
    report = Index.open(folder).verify(data=data)
    assert report.ok
    assert {check.name for check in report.checks if check.checked} == names
    flip(folder / "linear" / "shard-00000" / "predictions.parquet")
    assert not Index.open(folder).verify(data=data).ok


def test_verify_of_a_sample_finds_what_lies_in_it(folder: Path) -> None:
    path = folder / "linear" / "shard-00001" / "predictions.parquet"
    flip(path)
    reports = [Index.open(folder).verify(sample=0.34) for _ in range(40)]
    assert {report.shards for report in reports} == {1}
    # Of three shards one: that none of 40 draws, or all, find it has a chance of 1 in 10 million.
    assert {report.ok for report in reports} == {True, False}
    assert not Index.open(folder).verify().ok
    path.write_bytes(path.read_bytes()[:-1])
    assert not Index.open(folder).verify(sample=0.01).ok  # sizes are looked at everywhere


def test_the_command_verify_takes_a_sample(folder: Path, run) -> None:  # type: ignore[no-untyped-def]
    found: Result = run("verify", "-i", folder, "--data", "--sample", "10%")
    assert (found.status, "sound, of 1 of its 3 shards that were looked into" in found.out) == (0, True)
    assert [run("verify", "-i", folder, "--sample", wrong).status for wrong in ("0%", "101%", "many")] == [1, 1, 2]
