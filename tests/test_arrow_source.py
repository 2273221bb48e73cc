"""Data sets that `datasets` has saved to a disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from bagindex.errors import SourceError
from bagindex.images import Rejected
from bagindex.observer import BuildObserver
from bagindex.sources.opening import reader_at
from bagindex_schemas.rejects import RejectCode
from replicas import CLASSES, Item, as_arrow, items, table
from test_source_kinds import opened


def test_sizes_and_labels_are_listed(tmp_path: Path) -> None:
    pictures = [*items(8), Item("only-a-path.png", None, -1)]
    source = opened(as_arrow(tmp_path / "set", pictures, files=1))
    assert [entry.size for entry in source.entries] == [len(item.data or b"") for item in pictures]
    assert [entry.label for entry in source.entries] == [CLASSES[n % 2] for n in range(8)] + [None]
    assert source.entries[7].text == "data-00000-of-00001.arrow/000007-007.png"
    with pytest.raises(Rejected) as caught:
        source.read(source.entries[8])
    assert caught.value.code is RejectCode.MISSING


def test_splits_are_chosen(tmp_path: Path) -> None:
    as_arrow(tmp_path / "train", items(3))
    as_arrow(tmp_path / "test", items(2))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    with pytest.raises(SourceError, match="holds the splits 'train', 'test': choose one with --split"):
        opened(tmp_path)
    with pytest.raises(SourceError, match="has no split 'val': it has 'train', 'test'"):
        opened(tmp_path, split="val")
    source = opened(tmp_path, split="test")
    assert [entry.path[:10] for entry in source.entries] == [b"test/data-"] * 2
    assert (source.name, source.location != opened(tmp_path, split="train").location) == (f"{tmp_path.name}-test", True)
    assert reader_at(tmp_path, BuildObserver()).read(source.entries[0]) == source.read(source.entries[0])


def test_only_one_split_is_not_chosen(tmp_path: Path) -> None:
    as_arrow(tmp_path / "train", items(3))
    (tmp_path / "dataset_dict.json").write_text('{"splits": ["train"]}')
    assert len(opened(tmp_path).entries) == 3
    with pytest.raises(SourceError, match="no split 'test'"):
        opened(tmp_path / "train", split="test")


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("state.json", "{", "state.json is damaged"),
        ("state.json", "[]", "state.json is damaged"),
        ("state.json", "{}", "state.json names no files"),
        ("state.json", '{"_data_files": [{"filename": "../elsewhere.arrow"}]}', "state.json names no files"),
        ("state.json", '{"_data_files": [{"filename": "gone.arrow"}]}', "cannot read .*gone.arrow: No such file"),
        ("dataset_dict.json", '{"splits": 3}', "dataset_dict.json names no splits"),
        ("dataset_dict.json", '{"splits": ["train"]}', "cannot read .*train/state.json: No such file"),
    ],
)
def test_what_is_damaged_is_named(tmp_path: Path, name: str, text: str, said: str) -> None:
    folder = as_arrow(tmp_path / "set", items(2))
    (folder / name).write_text(text)
    with pytest.raises(SourceError, match=said):
        opened(folder)


def test_a_file_that_is_cut_short_is_named(tmp_path: Path) -> None:
    folder = as_arrow(tmp_path / "set", items(20), files=1)
    path = folder / "data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(SourceError, match=r"data-00000-of-00001\.arrow is damaged, or no Arrow file"):
        opened(folder)
    path.write_bytes(b"")
    with pytest.raises(SourceError, match=r"data-00000-of-00001\.arrow is damaged, or no Arrow file"):
        opened(folder)


def test_a_file_that_changes_while_it_is_read_stops_the_build(tmp_path: Path) -> None:
    folder = as_arrow(tmp_path / "set", items(20), files=1)
    source = opened(folder)
    assert source.read(source.entries[0])
    path = folder / "data-00000-of-00001.arrow"
    path.write_bytes(path.read_bytes()[:-1500])
    with pytest.raises(SourceError, match="has changed since it was listed"):
        source.read(source.entries[0])


def test_a_file_alone_and_a_file_with_an_index_of_its_batches(tmp_path: Path) -> None:
    rows = table(items(9))
    with pa.ipc.new_file(tmp_path / "a.arrow", rows.schema) as file:
        file.write_table(rows, max_chunksize=4)
    source = opened(tmp_path / "a.arrow")
    assert [source.read(entry) for entry in source.entries] == [item.data for item in items(9)]
    assert opened(tmp_path).entries == source.entries


def test_what_datasets_saves(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    rows = table(items(10))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
    made = datasets.Dataset(rows.replace_schema_metadata(None)).cast(features)
    made.save_to_disk(str(tmp_path / "one"), num_shards=2)
    datasets.DatasetDict({"train": made, "test": made.select([3, 1])}).save_to_disk(str(tmp_path / "two"))
    made.to_parquet(str(tmp_path / "three.parquet"))
    for source in (opened(tmp_path / "one"), opened(tmp_path / "three.parquet")):
        assert [source.read(entry) for entry in source.entries] == [item.data for item in items(10)]
        assert [entry.label for entry in source.entries] == [CLASSES[n % 2] for n in range(10)]
    chosen = opened(tmp_path / "two", split="test")
    assert [chosen.read(entry) for entry in chosen.entries] == [items(10)[3].data, items(10)[1].data]
