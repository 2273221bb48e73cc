"""`verify` finds what is damaged, and the invariants find numbers that are merely wrong."""

from __future__ import annotations

import random
import shutil
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bagindex import Index, invariants
from bagindex.build import BuildSettings, build
from bagindex.catalog import current
from bagindex.errors import DamagedIndexError
from bagindex.invariants import ShardNumbers, load
from bagindex.shards import hash_files
from bagindex.store import IndexDirectory, file_sha256
from bagindex_schemas import tables
from fakes import LinearCompute, MemorySource
from sealing import change_record

CLASS_IDS = {"a": 0, "b": 1}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    source = MemorySource(["a", "b", None, "a", "b"], frozenset({4}))
    path = tmp_path / "index"
    build(IndexDirectory(path), source, CLASS_IDS, LinearCompute("ab"), BuildSettings(shard_size=3, workers=1))
    return path


def test_real_model(planted_index: Index) -> None:
    report = planted_index.verify()
    assert report.ok
    assert {check.name[0] for check in report.checks if check.name[0].isdigit()} == set("12345")
    assert [check.name for check in report.checks if check.checked == 0] == []


def test_every_kind_of_file_with_a_flipped_bit_is_named(folder: Path) -> None:
    rng = random.Random(1)
    for path in sorted(p for p in folder.rglob("*") if p.suffix in (".parquet", ".safetensors")):
        data = path.read_bytes()
        flipped = bytearray(data)
        flipped[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        path.write_bytes(flipped)
        problems = Index.open(folder).verify().problems
        assert any(str(path.relative_to(folder)) in problem for problem in problems), path
        path.write_bytes(data)
    assert Index.open(folder).verify().ok


def test_truncated_missing_and_extra_files(folder: Path) -> None:
    path = folder / "linear" / "shard-00001" / "evidence.parquet"
    data = path.read_bytes()
    path.write_bytes(data[:-1])
    assert "has" in Index.open(folder).verify().problems[0]
    path.unlink()
    assert "evidence.parquet is missing" in Index.open(folder).verify().problems[0]
    path.write_bytes(data)
    (path.parent / "stranger").write_text("")
    assert "stranger does not belong" in Index.open(folder).verify().problems[0]
    (path.parent / "stranger").unlink()
    shutil.rmtree(path.parent)
    assert "linear/shard-00001 is missing or not built yet" in Index.open(folder).verify().problems[0]


def test_a_damaged_shard_is_mended_as_the_message_says(folder: Path) -> None:
    source = MemorySource(["a", "b", None, "a", "b"], frozenset({4}))
    path = folder / "linear" / "shard-00001" / "predictions.parquet"
    data = bytearray(path.read_bytes())
    data[50] ^= 4
    path.write_bytes(data)
    (problem,) = Index.open(folder).verify().problems
    assert problem.endswith(
        "run `bagindex repair`, and then the same `bagindex build` command again, which makes it anew"
    )
    Index.repair(folder)
    assert Index.open(folder).verify().unfinished
    build(IndexDirectory(folder), source, CLASS_IDS, LinearCompute("ab"), BuildSettings(shard_size=3, workers=1))
    assert Index.open(folder).verify().ok
    (folder / "images" / "shard-00000" / "shard.json").unlink()
    with pytest.raises(DamagedIndexError, match=r"images/shard-00000/shard.json is missing: run `bagindex repair`"):
        build(IndexDirectory(folder), source, CLASS_IDS, LinearCompute("ab"), BuildSettings(shard_size=3, workers=1))


def test_without_a_catalog_it_is_not_sound(folder: Path) -> None:
    (folder / "CURRENT").unlink()
    assert "all of its shards and no catalog" in Index.open(folder).verify().problems[0]


def test_progress(folder: Path) -> None:
    steps: list[tuple[int, int]] = []
    Index.open(folder).verify(lambda done, total: steps.append((done, total)))
    assert steps == [(done, 6) for done in range(1, 7)]


def test_damaged_record(folder: Path) -> None:
    path = folder / "images" / "shard-00000" / "shard.json"
    path.write_text(path.read_text().replace('"shard"', '"shart"'))
    assert "shard.json is damaged" in Index.open(folder).verify().problems[0]


def mend_hash(shard: Path, name: str) -> None:
    """Give a changed file its right hash: a fault of a program, not of a disk."""
    changed = {name: hash_files(shard)[name].model_dump()}
    change_record(shard / "shard.json", lambda record: record["files"].update(changed))


def numbers(folder: Path) -> ShardNumbers:
    directory = IndexDirectory(folder)
    return load(directory, directory.manifest().models["linear"], 0, 2)


def test_wrong_logit_breaks_the_first_invariant(folder: Path) -> None:
    shard = numbers(folder)
    assert invariants.check_means(shard) == (6, [])
    logits = shard.logits.copy()
    logits[1, 1] += 0.01
    _, problems = invariants.check_means(replace(shard, logits=logits))
    assert problems == ["linear/shard-00000: image 1, class 1: the patch logits' mean is not the image's"]


def test_wrong_weight_breaks_the_second_invariant(folder: Path) -> None:
    shard = numbers(folder)
    compute = LinearCompute("ab")
    assert invariants.check_linear(shard, compute.weight, compute.bias) == (24, [])
    weight = compute.weight.copy()
    weight[1] *= 1.01
    _, problems = invariants.check_linear(shard, weight, compute.bias)
    assert problems
    assert all("class 1: feature · W + b is not the evidence" in problem for problem in problems)


@pytest.mark.parametrize("field", ["max_logit", "max_patch", "mean_logit"])
def test_wrong_summary_breaks_the_third_invariant(folder: Path, field: str) -> None:
    shard = numbers(folder)
    assert invariants.check_maxima(shard) == (6, [])
    values = getattr(shard, field).copy()
    values[0, 2] += 1
    _, problems = invariants.check_maxima(replace(shard, **{field: values}))
    assert len(problems) == 1


def test_wrong_feature_breaks_the_fourth_invariant(folder: Path) -> None:
    shard = numbers(folder)
    assert shard.features is not None
    cells = np.array([0, 3])
    stored = shard.features[1][cells].astype(np.float32)
    assert invariants.check_alone(shard, 1, cells, stored) == (2, [])
    wrong = stored.copy()
    wrong[1, 2] += 0.01
    _, problems = invariants.check_alone(shard, 1, cells, wrong)
    assert problems == ["linear/shard-00000: patch 7 of image 1, run alone, does not give its stored feature"]


def test_other_pixels_break_the_fourth_invariant(planted_index: Index, tmp_path: Path) -> None:
    folder = tmp_path / "index"
    shutil.copytree(planted_index.path, folder)
    shard = folder / "images" / "shard-00000"
    columns = pq.read_table(shard / "pixels.parquet").to_pydict()
    columns["pixels"] = columns["pixels"][1:] + columns["pixels"][:1]
    pq.write_table(pa.table(columns, schema=tables.PIXELS), shard / "pixels.parquet", row_group_size=8)
    mend_hash(shard, "pixels.parquet")
    *problems, files = Index.open(folder).verify().problems
    assert problems
    assert all("run alone, does not give its stored feature" in problem for problem in problems)
    assert files.startswith("catalog: its files are not those of the index")


def test_missing_image_breaks_the_fifth_invariant(folder: Path) -> None:
    shard = folder / "images" / "shard-00001"
    table = pq.read_table(shard / "rejects.parquet")
    pq.write_table(table.slice(0, 0), shard / "rejects.parquet")
    mend_hash(shard, "rejects.parquet")
    problems = Index.open(folder).verify().problems
    assert "images/shard-00001: images and rejects are not the files of the plan" in problems


def test_catalog_that_says_something_else(folder: Path) -> None:
    catalog = current(IndexDirectory(folder))
    with duckdb.connect(catalog) as connection:
        connection.execute('UPDATE stored."image_evidence/linear" SET max_logit = max_logit + 1 WHERE class_id = 1')
    found = {"bytes": catalog.stat().st_size, "sha256": file_sha256(catalog)}
    change_record(folder / "CURRENT", lambda record: record.update(file=found))
    problems = Index.open(folder).verify().problems
    assert any("image_evidence of linear" in problem and "not what the shards hold" in problem for problem in problems)


def test_shard_of_another_build_under_a_catalog(folder: Path) -> None:
    shard = folder / "linear" / "shard-00000"
    columns = pq.read_table(shard / "image_evidence.parquet").to_pydict()
    columns["max_logit"][0] += 1
    pq.write_table(pa.table(columns, schema=tables.IMAGE_EVIDENCE), shard / "image_evidence.parquet")
    mend_hash(shard, "image_evidence.parquet")
    problems = Index.open(folder).verify().problems
    assert any("shard-00000/image_evidence.parquet has" in problem for problem in problems)
