"""Parquet files of pictures in an object store."""

from __future__ import annotations

from pathlib import Path

import pytest

from bagindex.errors import SourceError, StoreError
from bagindex.observer import BuildObserver
from bagindex.sources import describe
from bagindex.sources.opening import reader_at
from replicas import as_parquet, built, indexed, items
from stores import Store
from test_source_kinds import opened


def test_they_are_what_they_are_on_a_disk(store: Store, tmp_path: Path) -> None:
    here = opened(as_parquet(tmp_path / "set", items(30)))
    url = store.upload(tmp_path / "set", "set")
    there = opened(url)
    assert there.entries == here.entries
    assert (there.kind, there.name, there.bounded) == ("parquet", "set", True)  # type: ignore[attr-defined]
    assert describe(there).fingerprint == describe(here).fingerprint
    assert [there.read(entry) for entry in there.entries] == [here.read(entry) for entry in here.entries]
    assert built(url, tmp_path / "i").images == 30
    assert [path for path, _ in indexed(tmp_path / "i")] == [entry.text for entry in here.entries]


def test_one_file_and_splits(store: Store, tmp_path: Path) -> None:
    as_parquet(tmp_path / "set", items(4), "train", 1)
    as_parquet(tmp_path / "set", items(3), "test", 1)
    url = store.upload(tmp_path / "set", "set")
    with pytest.raises(SourceError, match="holds the splits 'test', 'train': choose one with --split"):
        opened(url)
    test = opened(url, split="test")
    assert len(test.entries) == 3
    alone = opened(f"{url}/data/train-00000-of-00001.parquet")
    assert (len(alone.entries), alone.name) == (4, "train-00000-of-00001")
    with pytest.raises(SourceError, match=r"gone\.parquet does not exist"):
        opened(f"{url}/gone.parquet")
    assert reader_at(url, BuildObserver()).read(test.entries[2]) == items(3)[2].data


def test_an_object_that_changes_while_it_is_read_stops_the_build(store: Store, tmp_path: Path) -> None:
    as_parquet(tmp_path / "set", items(14), files=1)
    source = opened(store.upload(tmp_path / "set", "set"))
    source.read(source.entries[0])
    as_parquet(tmp_path / "set", items(14, 3), files=1)
    store.upload(tmp_path / "set", "set")
    with pytest.raises(SourceError, match=r"s3://.*\.parquet has changed since it was listed"):
        source.read(source.entries[13])


def test_a_store_that_fails_costs_no_picture(store: Store, tmp_path: Path) -> None:
    source = opened(store.upload(as_parquet(tmp_path / "set", items(3), files=1), "set"))
    store.fail("denied", times=9, method="GET")
    with pytest.raises(StoreError):
        source.read(source.entries[0])


def test_what_is_not_read_from_a_store_is_said(store: Store, tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "a.tar").write_bytes(b"")
    url = store.upload(tmp_path / "set", "set")
    for place in (url, f"{url}/a.tar"):
        with pytest.raises(SourceError, match="folders of pictures and Parquet files are read; copy it here"):
            opened(place)
