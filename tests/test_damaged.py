"""A question to a damaged index is refused by the name of the file, or answered as before; it fails in no other way."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from bagindex import Index
from bagindex.arrays import UNREADABLE, array_offsets, open_checked
from bagindex.catalog import current
from bagindex.errors import BagindexError, DamagedIndexError, LabelError, SettingsError
from bagindex.labels import check_classes
from bagindex.prepare import scale
from bagindex.store import IndexDirectory
from bagindex_cli import app
from bagindex_schemas import tables
from bagindex_schemas.records import ClassRecord, Transform
from faults import crafted_indexes, whole
from faults.apart import Apart


@pytest.fixture(scope="module")
def sound(damage_folder: Path) -> Path:
    """An index of two shards. Not to be changed."""
    with Apart() as apart:
        return whole.made(damage_folder, "small", apart)


@pytest.fixture
def root(sound: Path, tmp_path: Path) -> Path:
    """The same, to be damaged."""
    shutil.copytree(sound, tmp_path / "index")
    return tmp_path / "index"


def exchange(one: Path, other: Path) -> None:
    aside = one.with_name("aside")
    one.rename(aside)
    other.rename(one)
    aside.rename(other)


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


def evidence_of_two(index: Index) -> object:
    return index.top_patches("cat", per_image=2, model="linear")


def test_evidence_that_is_cut_short(root: Path) -> None:
    path = root / "linear" / "shard-00000" / "evidence.parquet"
    path.write_bytes(path.read_bytes()[:-1])
    for question in (evidence_of_two, lambda index: index.heatmap(0, model="linear")):
        with Index.open(root) as index, pytest.raises(DamagedIndexError, match=r"evidence\.parquet"):
            question(index)


@pytest.mark.parametrize(
    ("folder", "question"),
    [
        ("linear", lambda index: index.similar(0, model="linear")),
        ("images", lambda index: index.top_patches("cat", model="linear").crops()),
    ],
)
def test_shards_that_are_exchanged(root: Path, folder: str, question: Callable[[Index], object]) -> None:
    exchange(root / folder / "shard-00000", root / folder / "shard-00001")
    with Index.open(root) as index, pytest.raises(DamagedIndexError, match="belongs to another shard"):
        question(index)


def test_pixels_of_another_shard(root: Path) -> None:
    one, other = (root / "images" / f"shard-0000{number}" for number in (0, 1))
    exchange(one / "pixels.parquet", other / "pixels.parquet")
    for shard in (one, other):
        crafted_indexes.mend(shard)
    with Index.open(root) as index, pytest.raises(DamagedIndexError, match=r"the pixels of image \d+ are missing"):
        index.top_patches("cat", k=20, model="linear").crops()


def test_a_flipped_bit_in_pixels_is_seen_as_they_are_read(root: Path) -> None:
    path = root / "images" / "shard-00000" / "pixels.parquet"
    metadata = pq.read_metadata(path).row_group(0).column(1)
    flip(path, metadata.data_page_offset + metadata.total_compressed_size // 2)
    with Index.open(root) as index, pytest.raises(DamagedIndexError, match=r"pixels\.parquet cannot be read"):
        index.pixels(0)


def test_every_flipped_bit_of_a_footer_is_seen_or_harmless(root: Path) -> None:
    path = root / "linear" / "shard-00000" / "evidence.parquet"
    data = path.read_bytes()
    offsets = array_offsets(path, 2, 2, tables.EVIDENCE)
    seen = 0
    for place in range(len(data) - 8 - int.from_bytes(data[-8:-4], "little"), len(data), 3):
        flip(path, place)
        try:
            assert array_offsets(path, 2, 2, tables.EVIDENCE) == offsets, place
        except UNREADABLE:
            seen += 1
        path.write_bytes(data)
    assert seen > 50


def test_columns_of_another_type(root: Path) -> None:
    path = root / "images" / "shard-00000" / "pixels.parquet"
    table = pq.read_table(path)
    pq.write_table(table.rename_columns(["image_id", "pixel"]), path)
    with pytest.raises(ValueError, match="its columns are not those of this table"):
        open_checked(path, tables.PIXELS)


def test_a_missing_shard_of_images_is_no_whole_index(root: Path) -> None:
    assert Index.open(root).info().complete
    shutil.rmtree(root / "images" / "shard-00001")
    assert not Index.open(root).info().complete


def test_a_catalog_whose_tables_are_views_is_not_asked(root: Path) -> None:
    crafted_indexes.change("images that are a view", root, root.parent)
    with Index.open(root) as index, pytest.raises(DamagedIndexError, match="its images are not those of an index"):
        index.sql("FROM images")


def test_macros_of_a_catalog_do_what_they_are_made_to_do(root: Path) -> None:
    path = current(IndexDirectory(root))
    with Index.open(root) as index:
        sound = index.sql("FROM evidence_of('cat') ORDER BY ALL").to_dicts()
    with duckdb.connect(path) as connection:
        connection.execute("CREATE OR REPLACE MACRO evidence_of(class, model := NULL) AS TABLE SELECT 42 AS logit")
    crafted_indexes.name_catalog(root, path)
    with Index.open(root) as index:
        assert index.sql("FROM evidence_of('cat') ORDER BY ALL").to_dicts() == sound


def test_a_name_that_leads_out_of_the_index(root: Path) -> None:
    for name in ("..", "../other", "linear/../../other"):
        with pytest.raises(DamagedIndexError, match="is no place in"):
            IndexDirectory(root).inside(name)


def test_names_that_no_catalog_can_hold() -> None:
    for name in ("a\0b", "\ud800"):
        with pytest.raises(LabelError, match="has a class whose name is no text"):
            check_classes([ClassRecord(class_id=0, name=name)], "the list")


def test_pictures_are_not_resized_beyond_measure() -> None:
    small = Transform(resize=256, crop_height=64, crop_width=64)
    with pytest.raises(SettingsError, match="resized to 16384 pixels, more than 8192"):
        scale(small, (4096, 4096))


def test_control_characters_of_a_file_do_not_reach_the_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def fail() -> None:
        raise BagindexError("it says \x1b]0;x\x07")

    monkeypatch.setattr(app, "app", fail)
    monkeypatch.setattr(sys, "argv", ["bagindex"])
    with pytest.raises(SystemExit):
        app.main()
    assert capsys.readouterr().err == "bagindex: it says \\x1b]0;x\\x07\n"
