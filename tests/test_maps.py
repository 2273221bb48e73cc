"""Which image is meant, and its evidence from wherever it is."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.errors import DamagedIndexError, QueryError
from bagindex.geometry import make_grid, patch_box, shared_area
from bagindex.maps import softmax, strongest
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource

CLASSES = ("cat", "dog", "fish")


def table_index(folder: Path, table: np.ndarray, broken: frozenset[int] = frozenset(), pixels: bool = True) -> Index:
    """Images with a table float32 [images, 6, 3] of evidence, in shards of four."""
    source = MemorySource(["cat"] * len(table), broken, side=24)
    compute = LinearCompute(CLASSES, side=(24, 16), table=table)
    build(
        IndexDirectory(folder),
        source,
        {name: i for i, name in enumerate(CLASSES)},
        compute,
        BuildSettings(shard_size=4, workers=1, pixels=pixels),
    )
    return Index.open(folder)


def test_stored_evidence_is_read_for_any_image_and_class(tmp_path: Path) -> None:
    table = np.random.default_rng(0).normal(0, 3, (11, 6, 3)).astype(np.float32)
    with table_index(tmp_path / "i", table, frozenset({0, 5})) as index:
        for image in (1, 3, 4, 6, 10):
            found = index.heatmap(image, classes=["fish", "cat"])
            expected = table[image].astype(np.float16).astype(np.float32).T.reshape(3, 3, 2)[[2, 0]]
            np.testing.assert_array_equal(found.values, expected)
            np.testing.assert_allclose(found.logits, table[image].mean(axis=0)[[2, 0]], rtol=1e-6)
            np.testing.assert_allclose(found.probabilities, softmax(table[image].mean(axis=0))[[2, 0]], rtol=1e-5)
            assert (found.image.image_id, found.image.name) == (image, f"{image:04d}.png")


def test_an_image_that_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notes.txt").write_text("no picture")
    (tmp_path / "folder").mkdir()
    with table_index(tmp_path / "i", np.zeros((6, 6, 3), np.float32), frozenset({2})) as index:
        for image, words in (
            (2, "image 2, 0002.png, could not be indexed .not_an_image"),
            ("2", "could not be indexed"),
            ("0002.png", "could not be indexed .not_an_image"),
            (6, "no image 6 in this index: ids go up to 5"),
            (-1, "no image -1"),
            (2**70, "no image"),
            ("nowhere.jpg", "'nowhere.jpg' is no image of this index, by id or path, and no file"),
            ("", "'' is "),
            ("folder", "'folder' is a folder"),
            (os.fsdecode(b"gr\xfcn.jpg"), "no image of this index"),
            ("nul\0.jpg", "no image of this index"),
            ("notes.txt", "notes.txt is no picture that can be indexed"),
        ):
            with pytest.raises(QueryError, match=words):
                index.heatmap(image)
        with pytest.raises(QueryError, match="this index has no model"):
            index.heatmap(0, model="vgg16")


def test_one_image_by_all_its_names(planted_index: Index, planted_folder: Path, tmp_path: Path) -> None:
    path = planted_index.sql("SELECT path FROM images WHERE image_id = 7").to_dicts()[0]["path"]
    copy = tmp_path / "copy.png"
    shutil.copy(planted_folder / "pictures" / path, copy)
    expected = planted_index.heatmap(7)
    for image in ("7", np.int64(7), path, planted_folder / "pictures" / path, str(copy)):
        found = planted_index.heatmap(image)
        assert found.image == expected.image
        np.testing.assert_array_equal(found.values, expected.values)
    name = path.rsplit("/", 1)[1]
    same = planted_index.sql(f"SELECT count(*) AS n FROM images WHERE ends_with(path, '/{name}')").to_dicts()[0]["n"]
    if same == 1:
        assert planted_index.heatmap(name).image == expected.image
    else:
        with pytest.raises(QueryError, match="several images"):
            planted_index.heatmap(name)


def test_a_file_is_run_through_the_stored_model(planted_index: Index, planted_folder: Path, tmp_path: Path) -> None:
    path = planted_index.sql("SELECT path FROM images WHERE image_id = 3").to_dicts()[0]["path"]
    other = tmp_path / "other.bmp"  # the same pixels, other bytes
    Image.open(planted_folder / "pictures" / path).convert("RGB").save(other)
    stored = planted_index.heatmap(3, classes=range(6))
    found = planted_index.heatmap(other, classes=range(6))
    assert found.image.image_id is None
    assert found.image.label is None
    assert found.predicted == stored.predicted
    np.testing.assert_array_equal(found.pixels, stored.pixels)
    np.testing.assert_allclose(found.values, stored.values, rtol=2e-3, atol=2e-3)
    np.testing.assert_allclose(found.logits, stored.logits, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("pixels", [True, False])
def test_an_index_of_summaries(planted_index: Index, planted_folder: Path, tmp_path: Path, pixels: bool) -> None:
    index = Index.build(
        planted_folder / "pictures",
        weights=planted_folder / "bagnet33.safetensors",
        out=tmp_path / "index",
        keep="summary",
        pixels=pixels,
        limit=6,
    )
    path = index.sql("SELECT path FROM images LIMIT 1").to_dicts()[0]["path"]
    if pixels:
        found, expected = index.heatmap(path), planted_index.heatmap(path)
        np.testing.assert_allclose(found.values, expected.values, rtol=2e-3, atol=2e-3)
        np.testing.assert_allclose(found.logits, expected.logits, rtol=1e-5, atol=1e-5)
        return
    for ask in (index.heatmap, index.explain):
        with pytest.raises(QueryError, match=r"keeps no pixels to compute it from.*--keep evidence"):
            ask(path)
    file = tmp_path / "file.png"
    Image.new("RGB", (300, 280), "teal").save(file)
    assert index.heatmap(file).pixels is not None


def test_a_damaged_shard_is_said_to_be(tmp_path: Path) -> None:
    index = table_index(tmp_path / "i", np.zeros((5, 6, 3), np.float32))
    (path,) = (tmp_path / "i").glob("linear/shard-00001/evidence.parquet")
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(DamagedIndexError, match="run `bagindex repair`"):
        index.heatmap(4)
    assert index.heatmap(3)


def test_strongest_patches_do_not_overlap() -> None:
    grid = make_grid(33, 8, 96, 120)
    values = np.random.default_rng(2).normal(size=(grid.rows, grid.cols))
    values[0, 0] = values[7, 10] = 9
    cells = strongest(values, grid, 5)
    assert cells[:2] == ((0, 0), (7, 10))  # equal ones in row-major order
    boxes = [patch_box(grid, *cell) for cell in cells]
    assert not any(shared_area(a, b) for i, a in enumerate(boxes) for b in boxes[:i])
    order = [divmod(int(i), grid.cols) for i in np.argsort(-values, axis=None, kind="stable")]
    assert strongest(values, grid, 7, overlap=True) == tuple(order[:7])
    assert len(strongest(values, make_grid(33, 8, 96, 120), 999)) < 12


def test_the_index_comes_before_files(planted_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = planted_index.sql("SELECT path FROM images WHERE image_id = 7").to_dicts()[0]["path"]
    for name in ("7", path, "other.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (200, 200), "teal").save(tmp_path / name, "PNG")
    for name in ("7", path):
        assert planted_index.heatmap(name).image.image_id == 7
        assert planted_index.heatmap(f"./{name}").image.image_id is None
    assert planted_index.heatmap("other.png").image.image_id is None
