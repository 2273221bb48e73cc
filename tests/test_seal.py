"""Records on disk: what a seal notices, and what a record may say."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.errors import BagindexError, DamagedIndexError
from bagindex.seal import read_record, sealed
from bagindex.store import COPY, IndexDirectory
from bagindex_schemas.records import CatalogRecord, FileRecord, IndexManifest, ShardManifest
from fakes import LinearCompute, MemorySource
from sealing import change_record

RECORD = CatalogRecord(catalog="catalog-7.duckdb", file=FileRecord(bytes=5, sha256="a" * 64))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "index"
    settings = BuildSettings(shard_size=2, workers=1)
    build(IndexDirectory(path), MemorySource(["a", "b", None]), {"a": 0, "b": 1}, LinearCompute("ab"), settings)
    return path


def test_what_is_written_is_read(tmp_path: Path) -> None:
    (tmp_path / "r").write_bytes(sealed(RECORD))
    assert read_record(tmp_path / "r", CatalogRecord, "") == RECORD


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    data = sealed(RECORD)
    path = tmp_path / "r"
    damaged = [data[:length] for length in range(len(data))]
    damaged += [
        data[:place] + bytes([data[place] ^ 1 << bit]) + data[place + 1 :]
        for place in range(len(data))
        for bit in range(8)
    ]
    for each in damaged:
        path.write_bytes(each)
        with pytest.raises(DamagedIndexError, match=r"what to do$"):
            read_record(path, CatalogRecord, "what to do")


def test_records_of_earlier_versions_have_no_seal(folder: Path) -> None:
    index = IndexDirectory(folder)
    manifest = index.manifest().model_copy(update={"format": 1})
    (folder / "index.json").write_text(manifest.model_dump_json(indent=1))
    (folder / COPY).unlink()
    shard = folder / "linear" / "shard-00000" / "shard.json"
    shard.write_text(index.shard_manifest("linear", 0).model_dump_json(indent=1))
    with Index.open(folder) as opened:
        assert opened.top_patches("a").patches
        # The catalog was made from a record of format 3; all else is as it was.
        assert opened.verify().ok
    index.write_manifest(manifest)
    assert index.manifest().format == 3


def test_a_record_is_no_pipe_and_no_link(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "r").write_bytes(sealed(RECORD))
    (tmp_path / "link").symlink_to("r")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "link", "folder"):
        with pytest.raises(DamagedIndexError, match="cannot read"):
            read_record(tmp_path / name, CatalogRecord, "")


def _name(record: dict[str, Any], name: str) -> None:
    record["models"][name] = record["models"].pop("linear") | {"name": name}


@pytest.mark.parametrize(
    "change",
    [
        lambda record: _name(record, "../../elsewhere"),
        lambda record: _name(record, "/tmp"),
        lambda record: _name(record, "images"),
        lambda record: _name(record, "a\0b"),
        lambda record: record["models"].update(other=record["models"]["linear"]),
        lambda record: record["plan"]["shards"].reverse(),
        lambda record: record["plan"]["shards"][1].update(first=1),
        lambda record: record["plan"]["shards"][0].update(count=10**18),
        lambda record: record["plan"]["shards"][0].update(first=-1),
        lambda record: record["models"]["linear"]["grid"].update(rows=10**9),
        lambda record: record["models"]["linear"].update(width=float("nan")),
        lambda record: record["models"]["linear"].update(feature_size=10**12),
        lambda record: record["models"]["linear"].update(file_sha256="../x"),
        lambda record: record["plan"]["transform"].update(crop_width=10**9),
        lambda record: record.update(relabelling={"file": "../labels.parquet", "sha256": "0" * 64, "images": 1}),
        lambda record: record.update(more=1),
    ],
)
def test_a_strangers_index_cannot_lead_elsewhere_or_ask_for_any_memory(
    folder: Path, change: Callable[[dict[str, Any]], object]
) -> None:
    change_record(folder / "index.json", change)
    with pytest.raises(DamagedIndexError, match=r"index\.json is damaged"):
        Index.open(folder)


@pytest.mark.parametrize("name", ["../../secret", "/etc/passwd", "a/b", "..", "", "a\0b"])
def test_a_strangers_shard_cannot_name_other_files(folder: Path, name: str) -> None:
    path = folder / "linear" / "shard-00000" / "shard.json"
    change_record(path, lambda record: record["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))
    with pytest.raises(DamagedIndexError, match=r"shard\.json is damaged"):
        IndexDirectory(folder).shard_manifest("linear", 0)
    assert read_record(folder / "images" / "shard-00000" / "shard.json", ShardManifest, "").shard == 0


@pytest.mark.parametrize(
    "name",
    ["index.json", "CURRENT", "images", "linear", "linear/shard-00000", "linear/shard-00000/features.parquet"],
)
def test_links_are_not_followed(folder: Path, tmp_path: Path, name: str) -> None:
    moved = tmp_path / "moved"
    (folder / name).rename(moved)
    (folder / name).symlink_to(moved)
    with pytest.raises(BagindexError, match=r"symbolic link|no regular file|cannot read"), Index.open(folder) as index:
        index.sql("SELECT (SELECT count(*) FROM features) + (SELECT count(*) FROM pixels)")
    if name != "index.json":
        assert not Index.open(folder).verify().ok


@pytest.mark.parametrize("hard", [True, False])
def test_the_lock_is_no_link_to_another_file(folder: Path, tmp_path: Path, hard: bool) -> None:
    precious = tmp_path / "precious"
    precious.write_text("what must not be lost")
    (folder / "LOCK").unlink()
    (folder / "LOCK").hardlink_to(precious) if hard else (folder / "LOCK").symlink_to(precious)
    with pytest.raises(BagindexError, match=r"LOCK is a link|symbolic links"), IndexDirectory(folder).writing():
        pass
    assert precious.read_text() == "what must not be lost"


def test_a_lost_copy_is_written_by_the_next_writer(folder: Path) -> None:
    for damage in (lambda path: path.unlink(), lambda path: path.write_text("{")):
        damage(folder / COPY)
        assert any(COPY in problem for problem in Index.open(folder).verify().problems)
        with IndexDirectory(folder).writing():
            pass
        assert read_record(folder / COPY, IndexManifest, "") == IndexDirectory(folder).manifest()


def test_a_lost_index_json_is_not_taken_for_an_empty_folder(folder: Path) -> None:
    """A build that took it so would remove everything."""
    (folder / "index.json").unlink()
    settings = BuildSettings(shard_size=2, workers=1)
    with pytest.raises(DamagedIndexError, match="run `bagindex repair`"):
        build(IndexDirectory(folder), MemorySource(["a", "b", None]), {"a": 0, "b": 1}, LinearCompute("ab"), settings)
    assert Index.repair(folder).restored == ["index.json"]
    assert Index.open(folder).verify().ok


def test_seals_of_many_records(tmp_path: Path) -> None:
    rng = random.Random(3)
    for number in range(50):
        size = rng.randrange(2**40)
        record = CatalogRecord(catalog=f"catalog-{number}.duckdb", file=FileRecord(bytes=size, sha256="b" * 64))
        (tmp_path / "r").write_bytes(sealed(record))
        assert read_record(tmp_path / "r", CatalogRecord, "") == record
