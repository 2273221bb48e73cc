"""What an index costs: the arithmetic, README's table of it, and `bagindex plan`."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bagindex import Index
from bagindex.compute import Compute
from bagindex.costs import Cost, Means, Prices, Question, cost
from bagindex.errors import SettingsError, SourceError
from bagindex.geometry import make_grid
from bagindex.observer import BuildObserver
from bagindex.plan import EXACT, Estimate, cut, estimate, owed, shard_size, similar_bytes
from bagindex.registry import ARCHITECTURES, STRIDE
from bagindex.text import bytes_text
from bagindex_schemas.records import (
    ClassRecord,
    Environment,
    IndexManifest,
    Keep,
    ModelRecord,
    Plan,
    ShardRange,
    SourceRecord,
    Transform,
)
from fakes import LinearCompute, MemorySource

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()
SPLITS = {"val": 50_000, "train": 1_281_167}
PARAMETERS = {"bagnet9": 15_688_744, "bagnet17": 16_213_032, "bagnet33": 18_310_184}
PIXEL_BYTES = 100_000.0
"""Of an image, as README says."""


def imagenet(images: int, model: str, keep: Keep) -> Cost:
    """The cost of an index of so many images of 224 × 224 pixels, with 1,000 classes."""
    transform = Transform(resize=256, crop_height=224, crop_width=224)
    plan = Plan(
        source=SourceRecord(kind="flat", name="", location="", fingerprint="", files=images, listed=images),
        transform=transform,
        classes=tuple(ClassRecord(class_id=number, name=str(number)) for number in range(1000)),
        labels={},
        pixels=True,
        shards=cut(images, shard_size(images)),
    )
    weights = 4 * PARAMETERS[model]
    record = ModelRecord(
        name=model,
        architecture=model,
        width=1.0,
        parameters=PARAMETERS[model],
        feature_size=2048,
        grid=make_grid(ARCHITECTURES[model].receptive_field, STRIDE, 224, 224),
        levels=(Keep.SUMMARY,),
        weights_sha256="0" * 64,
        file_bytes=weights,
        file_sha256="0" * 64,
        environment=Environment(device="cuda", threads=1, batch_size=64, precision="fp32", versions={}),
    )
    return cost(IndexManifest(plan=plan, models={}), record, keep, PIXEL_BYTES, weights)


def readme_rows() -> Iterator[str]:
    """The rows of README's table."""
    for split, images in SPLITS.items():
        for model in PARAMETERS:
            for keep in Keep:
                found = imagenet(images, model, keep)
                sizes = [found.bytes[name] for name in ("features", "similar", "evidence", "pixels", "summary")]
                cells = [bytes_text(size) if size else "" for size in [*sizes, found.estimate.total]]
                yield "| " + " | ".join([split, model, str(keep), *cells]) + " |"


def test_the_table_in_the_readme_is_what_comes_out() -> None:
    rows = list(readme_rows())
    assert len(rows) == 18
    assert [row for row in rows if row not in README] == []


def test_the_questions_in_the_readme_are_what_comes_out() -> None:
    found = {split: imagenet(images, "bagnet33", Keep.FEATURES).questions for split, images in SPLITS.items()}
    for val, train in zip(found["val"], found["train"], strict=True):
        cells = [f"{bytes_text(each.bytes) if each.bytes else '0'}, {each.requests:,}" for each in (val, train)]
        assert f"| {val.question} | {' | '.join(cells)} |" in README


@pytest.mark.parametrize("model", PARAMETERS)
def test_bytes_are_what_the_formats_say(model: str) -> None:
    found = imagenet(50_000, model, Keep.FEATURES).estimate
    rows, cols = {"bagnet9": (27, 27), "bagnet17": (26, 26), "bagnet33": (24, 24)}[model]
    assert found.patches == 50_000 * rows * cols
    assert found.tables["features"] == pytest.approx(2 * 2048 * found.patches, rel=0.005)
    assert found.tables["evidence"] == pytest.approx(2 * 1000 * found.patches, rel=0.005)
    assert found.scratch == max(2 * 1000 * 4096 * rows * cols, found.tables["similar"])


def test_shards_that_are_computed_at_a_time_have_scratch_files_each() -> None:
    compute = LinearCompute("ab")
    manifest = imagenet(10_000, "bagnet33", Keep.FEATURES)
    assert manifest.estimate.scratch > 0
    plan = plan_of(compute, 20)
    work = owed(plan, ["linear"], {})
    one, two = (estimate(plan, work, 0.0, 0, at_a_time) for at_a_time in (1, 2))
    assert two.scratch == 2 * one.scratch > 0
    assert two.tables == one.tables


def plan_of(compute: LinearCompute, images: int) -> IndexManifest:
    record = ModelRecord(
        name=compute.name,
        architecture=compute.architecture,
        width=1.0,
        parameters=compute.parameters,
        feature_size=compute.feature_size,
        grid=compute.grid,
        levels=(Keep.FEATURES,),
        weights_sha256="0" * 64,
        file_bytes=0,
        file_sha256="0" * 64,
        environment=compute.environment,
    )
    plan = Plan(
        source=SourceRecord(kind="flat", name="", location="", fingerprint="", files=images, listed=images),
        transform=compute.transform,
        classes=compute.classes,
        labels={},
        pixels=True,
        shards=(ShardRange(first=0, count=images),),
    )
    return IndexManifest(plan=plan, models={compute.name: record})


def test_the_faiss_index_counts_from_where_it_is_made() -> None:
    assert similar_bytes(EXACT, 2048) == 0
    # 55.5 MB were measured of 196,416 patches.
    assert similar_bytes(196_416, 2048) == pytest.approx(55.5e6, rel=0.03)


def test_hours_and_money() -> None:
    question = Question("anything", 2 * 10**9, 3000)
    assert question.seconds(10**8) == 20
    assert question.price(Prices()) is None
    assert question.price(Prices(gigabyte=0.5, requests=0.1)) == pytest.approx(1.3)
    found = Cost("m", Keep.SUMMARY, Estimate(7200, 0, {"pixels": 36 * 10**9}, 0), ())
    assert found.hours(2.0) == 1
    assert found.writing(1e9) == float("inf")
    large = Cost("m", Keep.FEATURES, Estimate(1000, 0, {"features": 10**9, "evidence": 6 * 10**8}, 0), ())
    assert large.writing(2.4e9) == 2000  # evidence, twice
    assert found.upload_hours(10**7) == 1
    assert found.month(Prices()) is None
    assert found.month(Prices(month=0.02)) == pytest.approx(0.72)
    for bad in ({"devices": 0}, {"network": 0}):
        with pytest.raises(SettingsError):
            Means(**bad)


def test_planning_writes_nothing_and_says_what_a_build_says(
    planted_folder: Path, tmp_path: Path, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    estimates: list[Estimate] = []

    class Listen(BuildObserver):
        def planned(self, estimate: Estimate, free: int) -> None:
            estimates.append(estimate)

    weights, pictures = planted_folder / "bagnet33.safetensors", planted_folder / "pictures"
    planned = Index.plan(pictures, weights=weights, out=tmp_path / "i", means=Means(2, 10**8, Prices(hour=3.0)))
    assert not (tmp_path / "i").exists()
    Index.build(pictures, weights=weights, out=tmp_path / "i", observer=Listen())
    assert [each.keep for each in planned.costs] == list(Keep)
    assert planned.costs[0].estimate == estimates[0]
    assert planned.images == 48
    assert {speed.precision for speed in planned.speeds} >= {"fp32"}
    assert all(speed.images_per_second > 0 for speed in planned.speeds)
    (row, *_) = planned.to_dicts()
    assert planned.writing is not None
    writing = planned.costs[0].writing(planned.writing)
    slowest = min(planned.speeds[0].images_per_second, planned.decoding, writing)
    assert row["hours_fp32"] == pytest.approx(48 / slowest / 2 / 3600)
    assert row["price_fp32"] == pytest.approx(row["hours_fp32"] * 2 * 3)
    assert row["fits"]
    assert row["total"] == sum(row[name] for name in ("features", "similar", "evidence", "pixels", "summary"))


def test_the_command(planted_folder: Path, tmp_path: Path, run: Any) -> None:
    options = [planted_folder / "pictures", "--weights", planted_folder / "bagnet33.safetensors", "--limit", 12]
    options += ["--out", tmp_path / "i", "--keep", "evidence", "--keep", "summary"]
    found = json.loads(run("plan", *options, "--format", "json").out)
    assert [row["keep"] for row in found["costs"]] == ["evidence", "summary"]
    assert found["images"] == 12
    rows = list(csv.DictReader(io.StringIO(run("plan", *options, "--format", "csv").out)))
    assert [(row["keep"], row["images"], row["features"]) for row in rows] == [
        ("evidence", "12", "0"),
        ("summary", "12", "0"),
    ]
    told = run("plan", *options, "--network", "1MB", "--price-requests", "1").out
    assert "12 images in 1 shards" in told
    assert "all evidence of a class" in told
    assert "bagnet33 in fp32:" in told
    assert "upload_hours" in told
    assert not (tmp_path / "i").exists()


def test_a_source_without_a_picture_is_said(tmp_path: Path) -> None:
    compute: Compute = LinearCompute("ab")
    (tmp_path / "notes.txt").write_text("no picture")
    with pytest.raises(SourceError, match=r"none of 1 files that were tried can be indexed \(not_an_image"):
        Index.plan(tmp_path, layout="flat", compute=compute)


def test_what_does_not_fit_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from bagindex.build import BuildSettings
    from bagindex.planning import make
    from bagindex.store import IndexDirectory

    monkeypatch.setattr(IndexDirectory, "free_bytes", lambda _: 2_000_000)
    source, compute = MemorySource(["a"] * 10), LinearCompute("ab", dimensions=20_000)
    planned = make(IndexDirectory(tmp_path), source, {"a": 0}, [compute], list(Keep), Means(), BuildSettings())
    assert [row["fits"] for row in planned.to_dicts()] == [False, True, True]
