"""The build: what it writes, that it goes on where it was stopped, and what it refuses."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from bagindex import Index
from bagindex.build import BuildReport, BuildSettings, build
from bagindex.errors import (
    EvidenceRangeError,
    IncompleteIndexError,
    LockedError,
    SettingsError,
    SpaceError,
    TooManyRejectsError,
)
from bagindex.observer import BuildObserver
from bagindex.plan import Estimate
from bagindex.store import COPY, IndexDirectory
from bagindex.tables import write_image_evidence
from bagindex_schemas import tables
from bagindex_schemas.records import Keep
from fakes import LinearCompute, MemorySource

LABELS = ["a", "b", "a", None, "b", "a", "b", "a", "b", None]
CLASS_IDS = {"a": 0, "b": 1}
BROKEN = frozenset({2, 9})


def run(folder: Path, compute: LinearCompute | None = None, **settings: object) -> BuildReport:
    return build(
        IndexDirectory(folder),
        MemorySource(LABELS, BROKEN),
        CLASS_IDS,
        compute or LinearCompute("ab"),
        BuildSettings(**{"shard_size": 4, "workers": 2, **settings}),  # type: ignore[arg-type]
    )


def contents(folder: Path) -> dict[str, str]:
    """Hashes of everything but the lock, the copy of index.json, and the catalog, which DuckDB lays out as it likes."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in ("LOCK", "CURRENT", COPY) and path.suffix != ".duckdb"
    }


@pytest.mark.parametrize("keep", list(Keep))
def test_tables(tmp_path: Path, keep: Keep) -> None:
    compute = LinearCompute("ab")
    report = run(tmp_path / "i", compute, keep=keep)
    assert (report.images, report.rejects, report.patches) == (8, {"not_an_image": 2}, {"linear": 32})
    shards = sorted((tmp_path / "i" / "linear").glob("shard-*"))
    names = keep.tables
    for shard in shards:
        assert {path.stem for path in shard.glob("*.parquet")} == names
        schemas = {
            "predictions": tables.predictions(2),
            "image_evidence": tables.IMAGE_EVIDENCE,
            "evidence": tables.EVIDENCE,
            "features": tables.features(compute.feature_size),
        }
        for name in names:
            assert pq.read_schema(shard / f"{name}.parquet").equals(schemas[name])
    images = pq.read_table([s / "images.parquet" for s in sorted((tmp_path / "i" / "images").glob("shard-*"))])
    assert images["image_id"].to_pylist() == [0, 1, 3, 4, 5, 6, 7, 8]
    assert images["label"].to_pylist() == [0, 1, None, 1, 0, 1, 0, 1]


def test_evidence_has_one_row_group_per_class_and_features_one_per_image(tmp_path: Path) -> None:
    run(tmp_path / "i")
    shard = tmp_path / "i" / "linear" / "shard-00000"
    evidence = pq.ParquetFile(shard / "evidence.parquet")
    assert [evidence.read_row_group(i)["class_id"].unique().to_pylist() for i in range(evidence.num_row_groups)] == [
        [0],
        [1],
    ]
    features = pq.ParquetFile(shard / "features.parquet")
    assert features.num_row_groups == 3


@pytest.mark.parametrize(
    ("images", "classes", "groups"),
    [(25_000, 5, [75_000, 50_000]), (200_000, 2, [200_000] * 2), (3, 4, [12]), (0, 2, [0])],
)
def test_row_groups_of_image_evidence_hold_whole_classes(
    images: int, classes: int, groups: list[int], tmp_path: Path
) -> None:
    values = np.arange(classes * images, dtype=np.float32).reshape(classes, images)
    ids = np.arange(images)
    write_image_evidence(tmp_path, ids, values, np.tile(ids * 4, (classes, 1)), -values)
    file = pq.ParquetFile(tmp_path / "image_evidence.parquet")
    assert [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)] == groups
    table = file.read()
    assert table["class_id"].to_pylist() == np.repeat(np.arange(classes), images).tolist()
    assert table["image_id"].to_pylist() == ids.tolist() * classes
    assert table["patch_id"].to_pylist() == (ids * 4).tolist() * classes
    assert np.array_equal(table["max_logit"].to_numpy(), values.ravel())
    assert np.array_equal(table["mean_logit"].to_numpy(), -values.ravel())


def test_features_are_an_array_in_the_file(tmp_path: Path) -> None:
    compute = LinearCompute("ab", side=(24, 16), dimensions=5)
    run(tmp_path / "i", compute)
    shard = tmp_path / "i" / "linear" / "shard-00001"
    record = json.loads((shard / "shard.json").read_text())
    data = (shard / "features.parquet").read_bytes()
    features = pq.ParquetFile(shard / "features.parquet")
    assert len(record["feature_offsets"]) == features.num_row_groups == 4
    for group, offset in enumerate(record["feature_offsets"]):
        decoded = np.stack(features.read_row_group(group)["feature"].to_numpy())
        raw = np.frombuffer(data, np.float16, decoded.size, offset).reshape(decoded.shape)
        np.testing.assert_array_equal(raw, decoded)


def test_same_command_again_does_nothing(tmp_path: Path) -> None:
    run(tmp_path / "i")
    before = contents(tmp_path / "i")
    report = run(tmp_path / "i")
    assert report.computed == 0
    assert report.images_per_second is None
    assert contents(tmp_path / "i") == before


class _StopAt(BuildObserver):
    def __init__(self, files: int) -> None:
        self.left = files

    def advanced(self, files: int) -> None:
        self.left -= files
        if self.left <= 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [1, 3, 4, 5, 8, 9, 10])
@pytest.mark.parametrize("pixels", [True, False])
def test_stopped_build_goes_on_to_the_same_bytes(tmp_path: Path, stop: int, pixels: bool) -> None:
    run(tmp_path / "whole", pixels=pixels)
    source, compute = MemorySource(LABELS, BROKEN), LinearCompute("ab")
    settings = BuildSettings(shard_size=4, workers=2, pixels=pixels)
    folder = IndexDirectory(tmp_path / "i")
    with pytest.raises(KeyboardInterrupt):
        build(folder, source, CLASS_IDS, compute, settings, _StopAt(stop))
    assert not list(folder.root.rglob("*.tmp-*"))
    with pytest.raises(IncompleteIndexError, match="same `bagindex build` command again"):
        Index.open(folder.root).top_patches("a")
    committed = len(list(folder.root.glob("images/shard-*")))
    report = build(folder, source, CLASS_IDS, compute, settings)
    assert report.computed == sum(i // 4 >= committed and i not in BROKEN for i in range(len(LABELS)))
    assert contents(folder.root) == contents(tmp_path / "whole")


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("lost", ["linear", "images"])
def test_lost_shard_is_made_again(tmp_path: Path, pixels: bool, lost: str) -> None:
    import shutil

    run(tmp_path / "i", pixels=pixels)
    before = contents(tmp_path / "i")
    shutil.rmtree(tmp_path / "i" / lost / "shard-00001")
    assert run(tmp_path / "i", pixels=pixels).computed == 4
    assert contents(tmp_path / "i") == before


@pytest.mark.parametrize("pixels", [True, False])
def test_second_model(tmp_path: Path, pixels: bool) -> None:
    run(tmp_path / "i", pixels=pixels)
    before = contents(tmp_path / "i")
    run(tmp_path / "i", LinearCompute("ab", name="other", dimensions=3), pixels=pixels)
    after = contents(tmp_path / "i")
    assert {key: after[key] for key in before if key != "index.json"} == {
        key: value for key, value in before.items() if key != "index.json"
    }
    with Index.open(tmp_path / "i") as index:
        assert {row["model"] for row in index.sql("SELECT DISTINCT model FROM evidence")} == {"linear", "other"}
        assert index.top_patches("a", model="other")[0].model == "other"
        assert index.verify().ok


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keep": Keep.SUMMARY}, "--keep features then, which has all of summary"),
        ({"pixels": False}, "--pixels then"),
        ({"limit": 5}, "10 files then, 5 now: `bagindex update` adds new ones"),
        ({"compute": LinearCompute("abc")}, "class list"),
        ({"compute": LinearCompute("ab", side=(24, 16))}, "input 16 x 16 of 16 pixels then, 16 x 24 of 24 pixels now"),
    ],
)
def test_other_settings_are_refused(tmp_path: Path, change: dict[str, object], message: str) -> None:
    run(tmp_path / "i")
    before = contents(tmp_path / "i")
    with pytest.raises(SettingsError, match=message) as caught:
        run(tmp_path / "i", **change)  # type: ignore[arg-type]
    assert "--restart" in str(caught.value)
    assert contents(tmp_path / "i") == before
    run(tmp_path / "i", restart=True, **change)  # type: ignore[arg-type]
    assert contents(tmp_path / "i") != before


def test_other_weights_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "i")
    other = LinearCompute("ab")
    other.weights_sha256 = "1" * 64
    with pytest.raises(SettingsError, match="other weights"):
        run(tmp_path / "i", other)


def test_changed_source_is_refused(tmp_path: Path) -> None:
    run(tmp_path / "i")
    changed = MemorySource(["b", *LABELS[1:]], BROKEN)
    with pytest.raises(SettingsError, match="labels have changed"):
        build(IndexDirectory(tmp_path / "i"), changed, CLASS_IDS, LinearCompute("ab"), BuildSettings(shard_size=4))


def test_labels_that_mean_something_else_now_are_refused(tmp_path: Path) -> None:
    run(tmp_path / "i")
    source, settings = MemorySource(LABELS, BROKEN), BuildSettings(shard_size=4)
    with pytest.raises(SettingsError, match="--class-map"):
        build(IndexDirectory(tmp_path / "i"), source, {"a": 1, "b": 0}, LinearCompute("ab"), settings)


def test_estimate_is_near_the_truth(planted_folder: Path, tmp_path: Path) -> None:
    totals = []

    class Listen(BuildObserver):
        def planned(self, estimate: Estimate, free: int) -> None:
            totals.append(estimate.total)

    weights = planted_folder / "bagnet33.safetensors"
    index = Index.build(planted_folder / "pictures", weights=weights, out=tmp_path, pixels=False, observer=Listen())
    assert totals == [pytest.approx(index.info().bytes, rel=0.1)]


def test_other_environment_is_recorded_and_said(tmp_path: Path) -> None:
    notes: list[str] = []

    class Notes(_StopAt):
        def note(self, text: str) -> None:
            notes.append(text)

    source, settings = MemorySource(LABELS, BROKEN), BuildSettings(shard_size=4)
    directory = IndexDirectory(tmp_path / "i")
    with pytest.raises(KeyboardInterrupt):
        build(directory, source, CLASS_IDS, LinearCompute("ab"), settings, Notes(5))
    build(directory, source, CLASS_IDS, LinearCompute("ab", batch_size=2), settings, Notes(99))
    assert ["batch_size 3 then, 2 now" in note for note in notes] == [True]
    batches = [directory.shard_manifest("linear", n).environment for n in range(3)]
    assert [environment.batch_size for environment in batches if environment] == [3, 2, 2]


def test_rejects_stop_the_build_only_when_asked(tmp_path: Path) -> None:
    with pytest.raises(TooManyRejectsError, match=r"0002.png cannot be indexed \(not_an_image"):
        run(tmp_path / "strict", max_rejects=0)
    with pytest.raises(TooManyRejectsError, match=r"0009.png"):
        run(tmp_path / "one", max_rejects=1)
    assert len(list((tmp_path / "one" / "images").glob("shard-*"))) == 2
    assert run(tmp_path / "two", max_rejects=2).images == 8
    # A build that was stopped so can be finished without the limit.
    assert run(tmp_path / "one").computed == 1


def test_disk_too_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = LinearCompute("ab", dimensions=20_000)
    monkeypatch.setattr(IndexDirectory, "free_bytes", lambda _: 2_000_000)
    with pytest.raises(SpaceError, match=r"--keep evidence .*--keep summary") as caught:
        run(tmp_path / "i", wide)
    assert "--keep features" not in str(caught.value)
    assert not (tmp_path / "i" / "index.json").exists()
    run(tmp_path / "i", wide, keep=Keep.SUMMARY)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_values_that_cannot_be_stored_stop_the_build(tmp_path: Path, bad: float) -> None:
    compute = LinearCompute("ab")
    compute.bias[1] = bad
    with pytest.raises(EvidenceRangeError, match="logit"):
        run(tmp_path / "i", compute)
    assert not list((tmp_path / "i").rglob("shard-*"))


def test_one_writer(tmp_path: Path) -> None:
    directory = IndexDirectory(tmp_path / "i")
    with directory.writing(), pytest.raises(LockedError, match="process"):
        run(tmp_path / "i")
    run(tmp_path / "i")


def test_folder_with_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("three years of work")
    with pytest.raises(SettingsError, match=r"thesis\.txt"):
        run(tmp_path)
    with pytest.raises(SettingsError, match=r"thesis\.txt"):
        run(tmp_path, restart=True)
    assert (tmp_path / "thesis.txt").read_text() == "three years of work"


def test_restart_leaves_what_is_not_ours(tmp_path: Path) -> None:
    run(tmp_path / "i")
    (tmp_path / "i" / "notes").mkdir()
    (tmp_path / "i" / "notes" / "thesis.txt").write_text("three years of work")
    run(tmp_path / "i", restart=True)
    assert (tmp_path / "i" / "notes" / "thesis.txt").read_text() == "three years of work"


def test_nothing_of_time_or_host_in_a_shard(tmp_path: Path) -> None:
    run(tmp_path / "one")
    run(tmp_path / "two")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


def test_a_source_without_a_single_image(tmp_path: Path) -> None:
    source = MemorySource(["a", "b"], frozenset({0, 1}))
    report = build(IndexDirectory(tmp_path / "i"), source, CLASS_IDS, LinearCompute("ab"), BuildSettings())
    assert report.images == 0
    with Index.open(tmp_path / "i") as index:
        assert len(index.top_patches("a")) == 0
        assert index.verify().ok


@pytest.mark.parametrize(("code", "advice"), [(errno.ENOSPC, "make room"), (errno.EFBIG, "allow larger files")])
def test_a_disk_that_fills_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, advice: str) -> None:
    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    settings, source = BuildSettings(shard_size=4), MemorySource(LABELS, BROKEN)
    with monkeypatch.context() as patch:
        patch.setattr("bagindex.array_file.os.write", full)
        with pytest.raises(SpaceError, match=f"{advice}.* and run the same command again"):
            build(IndexDirectory(tmp_path / "i"), source, CLASS_IDS, LinearCompute("ab"), settings)
    build(IndexDirectory(tmp_path / "i"), source, CLASS_IDS, LinearCompute("ab"), settings)
    run(tmp_path / "whole")
    assert contents(tmp_path / "i") == contents(tmp_path / "whole")
