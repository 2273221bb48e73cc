"""Parquet files of pictures, as Hugging Face publishes data sets."""

from __future__ import annotations

import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bagindex import Index
from bagindex.errors import LabelError, SettingsError, SourceError
from bagindex.images import Rejected
from bagindex.sources import parquet
from bagindex_schemas.rejects import RejectCode
from replicas import CLASSES, Item, as_parquet, built, features, indexed, items, model, rejected, table
from test_source_kinds import opened


def write(path: Path, rows: pa.Table, group: int = 7) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(rows, path, row_group_size=group)
    return path


def test_rows_are_called_by_file_number_and_name(tmp_path: Path) -> None:
    as_parquet(tmp_path, items(3), files=1)
    assert [entry.text for entry in opened(tmp_path).entries] == [
        f"data/train-00000-of-00001.parquet/00000{n}-00{n}.png" for n in range(3)
    ]
    alone = opened(tmp_path / "data" / "train-00000-of-00001.parquet")
    assert alone.entries[2].text == "train-00000-of-00001.parquet/000002-002.png"
    assert alone.name == "train-00000-of-00001"


def test_rows_need_no_name_no_label_and_no_metadata(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.table({"jpg": [item.data for item in items(2)], "height": [16, 16]}))
    source = opened(path)
    assert [(entry.text, entry.label) for entry in source.entries] == [
        ("a.parquet/000000", None),
        ("a.parquet/000001", None),
    ]
    assert source.read(source.entries[1]) == items(2)[1].data


def test_labels_may_be_text_or_numbers_without_names(tmp_path: Path) -> None:
    pictures = [item.data for item in items(3)]
    texts = write(tmp_path / "t.parquet", pa.table({"image": pictures, "label": ["bear", "", None]}))
    assert [entry.label for entry in opened(texts).entries] == ["bear", None, None]
    words = pa.array(["bear", "apple", "bear"]).dictionary_encode()
    coded = write(tmp_path / "d.parquet", pa.table({"image": pictures, "label": words}))
    assert [entry.label for entry in opened(coded).entries] == ["bear", "apple", "bear"]
    numbers = write(tmp_path / "n.parquet", pa.table({"image": pictures, "label": [1, 0, 1]}))
    assert [entry.label for entry in opened(numbers).entries] == ["1", "0", "1"]
    with pytest.raises(LabelError, match=r"'0', '1'; the model knows 'apple', 'bear'\. Say .* with --label-ids"):
        built(numbers, tmp_path / "i")


def test_labels_may_be_the_models_class_ids_if_that_is_said(tmp_path: Path) -> None:
    rows = table(items(3)).replace_schema_metadata(
        {b"huggingface": b'{"info": {"features": {"label": {"names": "?"}}}}'}
    )
    for number, each in enumerate((rows, table(items(3)))):
        path = write(tmp_path / f"{number}.parquet", each)
        assert [entry.label for entry in opened(path, label_ids=True).entries] == ["0", "1", "0"]
        built(path, tmp_path / f"{number}", label_ids=True)
        assert [label for _, label in indexed(tmp_path / f"{number}")] == ["apple", "bear", "apple"]
    path = write(tmp_path / "a.parquet", table([Item("a", items(1)[0].data, -1), Item("b", items(1)[0].data, 7)]))
    assert [entry.label for entry in opened(path, label_ids=True).entries] == [None, "7"]
    with pytest.raises(LabelError, match="'7'; the model knows 'apple', 'bear'"):
        built(path, tmp_path / "i", label_ids=True)


def test_files_may_be_given_one_by_one(tmp_path: Path) -> None:
    as_parquet(tmp_path, items(6), files=3)
    paths = sorted((tmp_path / "data").iterdir())
    source = opened([paths[0], str(paths[2])])
    assert [entry.path[:20] for entry in source.entries] == [b"train-00000-of-00003"] * 2 + [
        b"train-00002-of-00003"
    ] * 2
    with pytest.raises(SourceError, match=r"gone\.parquet does not exist"):
        opened([paths[0], tmp_path / "gone.parquet"])
    with pytest.raises(SourceError, match="several files as a source are all Parquet, Arrow or tar files, not"):
        opened([paths[0], tmp_path / "a.tar"])


def test_a_label_that_is_held_back_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", table([Item("a", b"", -1)]))
    assert [entry.label for entry in opened(path).entries] == [None]


def test_a_label_beyond_the_names_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", table([Item("a", b"", 0), Item("b", b"", 2)]))
    with pytest.raises(LabelError, match=r"a\.parquet, row 1: 2 is no class: there are 2"):
        opened(path)


def test_columns_are_chosen(tmp_path: Path) -> None:
    rows = table(items(2), image="photo", label="fine")
    rows = rows.append_column("mask", pa.array([b"1", b"2"])).append_column("coarse", pa.array(["x", "y"]))
    path = write(tmp_path / "a.parquet", rows)
    assert [entry.label for entry in opened(path).entries] == list(CLASSES)  # what the metadata says
    source = opened(path, image_column="mask", label_column="coarse")
    assert [(source.read(entry), entry.label) for entry in source.entries] == [(b"1", "x"), (b"2", "y")]
    with pytest.raises(SourceError, match="the column 'fine' holds no pictures' files"):
        opened(path, image_column="fine")
    with pytest.raises(SourceError, match="the column 'none' is not there; it has 'photo', 'fine', 'mask', 'coarse'"):
        opened(path, label_column="none")


def test_columns_that_may_be_meant_are_named(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", pa.table({"left": [b"1"], "right": [b"2"]}))
    with pytest.raises(SourceError, match=r"several columns of .* 'left', 'right': choose one with --image-column"):
        opened(path)
    path = write(tmp_path / "b.parquet", pa.table({"text": ["no picture"], "label": [1]}))
    with pytest.raises(SourceError, match="has no column of pictures' files: it has 'text', 'label'"):
        opened(path)


def test_splits_are_chosen(tmp_path: Path) -> None:
    as_parquet(tmp_path, items(2), "train", 1)
    as_parquet(tmp_path, items(3), "validation", 1)
    with pytest.raises(SourceError, match="holds the splits 'train', 'validation': choose one with --split"):
        opened(tmp_path)
    with pytest.raises(SourceError, match="no split 'test': it has 'train', 'validation'"):
        opened(tmp_path, split="test")
    chosen = opened(tmp_path, split="validation")
    assert (len(chosen.entries), chosen.name) == (3, f"{tmp_path.name}-validation")
    assert chosen.location != opened(tmp_path, split="train").location  # each has an index of its own
    assert len(opened(str(tmp_path / "data/train-*.parquet")).entries) == 2


def test_a_folder_of_a_split_tells_it(tmp_path: Path) -> None:
    write(tmp_path / "default/train/0000.parquet", table(items(2)))
    write(tmp_path / "default/test/0000.parquet", table(items(1)))
    assert [entry.text for entry in opened(tmp_path, split="test").entries] == [
        "default/test/0000.parquet/000000-000.png"
    ]


def test_options_of_folders_are_refused(tmp_path: Path) -> None:
    as_parquet(tmp_path, items(1), files=1)
    with pytest.raises(SettingsError, match="leave out --follow-symlinks: Parquet files take"):
        opened(tmp_path, follow_symlinks=True, source_kind="parquet")


def test_pictures_beside_parquet_files_are_ambiguous(tmp_path: Path) -> None:
    as_parquet(tmp_path, items(2), files=1)
    (tmp_path / "apple").mkdir()
    (tmp_path / "apple" / "1.png").write_bytes(items(1)[0].data or b"")
    with pytest.raises(SourceError, match=r"several ways: say .* parquet \(train-.*\) or .* folder \(1\.png"):
        opened(tmp_path)
    assert opened(tmp_path, source_kind="parquet").kind == "parquet"
    assert opened(tmp_path, source_kind="folder").kind == "folders"


def test_a_parquet_file_among_the_pictures_of_a_class_is_nothing(tmp_path: Path) -> None:
    (tmp_path / "apple").mkdir()
    (tmp_path / "apple" / "1.png").write_bytes(items(1)[0].data or b"")
    write(tmp_path / "apple" / "list.parquet", pa.table({"a": [1]}))
    assert opened(tmp_path).kind == "folders"


def test_rows_that_cannot_be_read_are_rejected(tmp_path: Path) -> None:
    pictures = items(6)
    pictures[1] = Item("empty", b"", 0)
    pictures[2] = Item("elsewhere/only-a-path.png", None, 0)
    pictures[4] = Item("text", b"no picture", 1)
    built(write(tmp_path / "a.parquet", table(pictures)), tmp_path / "i")
    assert rejected(tmp_path / "i") == {
        "a.parquet/000001-empty": "empty",
        "a.parquet/000002-only-a-path.png": "missing",
        "a.parquet/000004-text": "not_an_image",
    }
    assert [path[-7:] for path, _ in indexed(tmp_path / "i")] == ["000.png", "003.png", "005.png"]


def damage(path: Path, group: int) -> None:
    """Overwrite the pictures of a row group."""
    column = pq.ParquetFile(path).metadata.row_group(group).column(0)
    with path.open("r+b") as file:
        file.seek(column.data_page_offset)
        before = column.data_page_offset - (column.dictionary_page_offset or column.data_page_offset)
        file.write(b"\xff" * (column.total_compressed_size - before))


def test_a_damaged_row_group_costs_its_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", table(items(21)))
    damage(path, 1)
    report = built(path, tmp_path / "i")
    assert (report.images, report.rejects) == (14, {"damaged": 7})
    assert set(rejected(tmp_path / "i")) == {f"a.parquet/0000{n:02d}-0{n:02d}.png" for n in range(7, 14)}


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + b"x" * 100 + b"PAR1"])
def test_a_damaged_file_is_named(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.parquet").write_bytes(content)
    with pytest.raises(SourceError, match=r"a\.parquet is damaged, or no Parquet file"):
        opened(tmp_path / "a.parquet")


def test_no_rows_and_no_files(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no rows in"):
        opened(write(tmp_path / "a.parquet", table([])))
    with pytest.raises(SourceError, match="does not exist"):
        opened(tmp_path / "b.parquet")
    write(tmp_path / "b-0.parquet", table(items(1)))
    with pytest.raises(SourceError, match=r"names .*b-1\.parquet, which does not exist"):
        opened(str(tmp_path / "b-{0..1}.parquet"))


def test_a_file_that_changes_while_it_is_read_stops_the_build(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", table(items(3)))
    source = opened(path)
    assert source.read(source.entries[0])
    write(path, table(items(4)))
    with pytest.raises(SourceError, match=r"a\.parquet has changed since it was listed"):
        source.read(source.entries[0])


def test_a_file_that_has_changed_is_another_source(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", table(items(3)))
    built(path, tmp_path / "i")
    write(path, table([Item("000.png", b"other", 0), *items(2, 1)]))
    with pytest.raises(SettingsError, match="the source's files, their sizes or labels have changed"):
        built(path, tmp_path / "i")


def test_an_update_takes_new_rows_and_names_changed_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.parquet", table([*items(3), Item("003.png", b"broken", 1)]))
    built(path, tmp_path / "i")
    write(path, table([items(1)[0], Item("001.png", items(1, 9)[0].data, 1), *items(4, 2)]))
    monkeypatch.setattr("bagindex.prepare.open_stored_models", lambda *_: {"linear": model()})
    with Index.open(tmp_path / "i") as index:
        report = index.update(path)
        assert (report.new, report.changed) == (3, ("a.parquet/000001-001.png",))  # the broken one, and two more
        assert index.info().images == 6
        assert index.update(path, contents=False).changed == ()


def test_rows_of_a_large_group_are_read_a_few_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Item(f"{n}", bytes([n]) * 1000, 0) for n in range(200)]
    path = write(tmp_path / "a.parquet", table(rows), group=200)
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 10_000)
    monkeypatch.setattr(parquet, "_KEPT_BYTES", 20_000)
    monkeypatch.setattr(parquet, "_KEPT_ROWS", 20)
    source = opened(path)
    held = 0
    for entry, item in zip(source.entries, rows, strict=True):
        assert source.read(entry) == item.data
        (cursor,) = source.rows._cursors  # type: ignore[attr-defined]
        held = max(held, sum(values.nbytes for _, values in cursor._kept))
    assert held < 60_000
    for place in (199, 0, 100, 99, 3):  # backwards too
        assert source.read(source.entries[place]) == rows[place].data


def test_readers_far_apart_do_not_send_each_other_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [Item(f"{n}", bytes([n]) * 1000, 0) for n in range(200)]
    path = write(tmp_path / "a.parquet", table(rows), group=200)
    monkeypatch.setattr(parquet, "_BATCH_BYTES", 10_000)
    monkeypatch.setattr(parquet, "_KEPT_BYTES", 20_000)
    monkeypatch.setattr(parquet, "_KEPT_ROWS", 20)
    made: list[int] = []
    make = parquet._Cursor.__init__
    monkeypatch.setattr(parquet._Cursor, "__init__", lambda *given: (made.append(0), make(*given))[1])
    source = opened(path)
    for place in range(100):
        for each in (place + 100, place):
            assert source.read(source.entries[each]) == rows[each].data
    assert len(made) == 2


def test_a_row_that_is_not_there_is_missing(tmp_path: Path) -> None:
    source = opened(write(tmp_path / "a.parquet", table(items(1))))
    other = opened(write(tmp_path / "b.parquet", table(items(1))))
    with pytest.raises(Rejected) as caught:
        source.read(other.entries[0])
    assert caught.value.code is RejectCode.MISSING


def test_metadata_that_is_none_is_nothing(tmp_path: Path) -> None:
    for text in (b"no json", b"[]", b'{"info": {"features": 3}}', b'{"info": {"features": {"label": 3}}}'):
        rows = table(items(1)).replace_schema_metadata({b"huggingface": text})
        assert [entry.label for entry in opened(write(tmp_path / "a.parquet", rows)).entries] == ["0"]
    assert features()


def test_the_command_takes_it(run, tmp_path: Path, planted_folder: Path) -> None:  # type: ignore[no-untyped-def]
    pictures = sorted((planted_folder / "pictures").glob("*/*"))[::8]
    rows = pa.table({"image": [each.read_bytes() for each in pictures], "of": [each.parent.name for each in pictures]})
    write(tmp_path / "test-00000-of-00001.parquet", rows)
    weights = planted_folder / "bagnet33.safetensors"
    options = ("--weights", weights, "--label-column", "of", "--split", "test")
    result = run("build", tmp_path, *options, "--keep", "summary", "--out", tmp_path / "i")
    assert (result.status, "Traceback" in result.err) == (0, False), result.err
    assert [label for _, label in indexed(tmp_path / "i")] == [each.parent.name for each in pictures]
    assert run("plan", tmp_path, *options).status == 0
    assert re.search("0 new files", run("update", tmp_path, "-i", tmp_path / "i", *options[2:]).out)
