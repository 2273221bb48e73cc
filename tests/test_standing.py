"""What an opened index answers from: one state of it, whatever comes, and a clear word where that state is gone."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from bagindex import Index, catalog
from bagindex.build import BuildSettings, build
from bagindex.errors import IncompleteIndexError, IndexNotFoundError, OutdatedError, UnknownImageError
from bagindex.grow import remove_index, update
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource
from wordy import write_words

CLASS_IDS = {"a": 0, "b": 1}
COMPUTE = LinearCompute("ab")
COUNTS = "SELECT (SELECT count(*) FROM images) AS images, (SELECT count(*) FROM pixels) AS pixels"


def make(folder: Path, images: int = 8, label: str = "a", **settings: bool) -> None:
    build(
        IndexDirectory(folder),
        MemorySource([label] * images),
        CLASS_IDS,
        COMPUTE,
        BuildSettings(shard_size=4, workers=1, **settings),
    )


def grow(folder: Path, images: int) -> None:
    settings = BuildSettings(workers=1)
    update(IndexDirectory(folder), MemorySource(["a"] * images), CLASS_IDS, {"linear": COMPUTE}, settings)


def words(folder: Path, count: int) -> None:
    with Index.open(folder) as index:
        images = index.sql("SELECT count(*) AS n FROM images").to_dicts()[0]["n"]
        of_patches = [[(image + patch) % count for patch in range(4)] for image in range(images)]
        import numpy as np

        write_words(index, count, np.array(of_patches))


def test_images_that_come_later_are_not_seen(tmp_path: Path) -> None:
    make(tmp_path / "i")
    with Index.open(tmp_path / "i") as reader:
        near = reader.similar(0, k=100, overlap=True)
        grow(tmp_path / "i", 12)
        with Index.open(tmp_path / "i") as index:
            index.make_ann("Flat")
            assert index.sql(COUNTS).to_dicts() == [{"images": 12, "pixels": 12}]
            assert len(index.similar(0, k=100, overlap=True)) == 47
        assert reader.sql(COUNTS).to_dicts() == [{"images": 8, "pixels": 8}]
        assert reader.similar(0, k=100, overlap=True).patches == near.patches
        with pytest.raises(UnknownImageError):
            reader.pixels(11)


def test_words_are_those_of_the_catalog(tmp_path: Path) -> None:
    make(tmp_path / "i")
    words(tmp_path / "i", 3)
    with Index.open(tmp_path / "i") as reader:
        assert len(reader.sql("FROM words")) == 3
        words(tmp_path / "i", 5)
        assert len(reader.words()) == len(reader.sql("FROM words")) == 3
        assert reader.words_made() == 3
        with Index.open(tmp_path / "i") as late:
            assert len(late.words()) == len(late.sql("FROM words")) == late.words_made() == 5


def test_who_needs_what_was_replaced_twice_is_told_to_open_again(tmp_path: Path) -> None:
    make(tmp_path / "i")
    words(tmp_path / "i", 3)
    with Index.open(tmp_path / "i") as reader, Index.open(tmp_path / "i") as asked:
        assert len(reader.sql("FROM words")) == 3
        assert len(asked.words()) == len(asked.sql("FROM patch_words")) // 4 - 5 == 3
        for count in (4, 5, 6):
            words(tmp_path / "i", count)
        assert len(reader.sql("FROM words")) == 3  # which the catalog has
        for ask in (reader.words, lambda: reader.sql("FROM patch_words"), lambda: asked.sql("FROM patch_words")):
            with pytest.raises(OutdatedError, match=r"has changed since it was opened, .* open it again"):
                ask()
        for ask in (lambda: reader.patch(0), lambda: reader.why(0)):
            with pytest.raises(OutdatedError):
                ask()
        assert len(asked.words()) == 3  # read before they went
        assert len(reader.top_patches("a")) == 7


def test_an_index_that_is_begun_anew_is_another(tmp_path: Path) -> None:
    make(tmp_path / "i")
    with Index.open(tmp_path / "i") as reader:
        assert len(reader.top_patches("a")) == 7
        make(tmp_path / "i", 6, "b", restart=True)
        # While the old catalog is open in this process, the new one has another path.
        with Index.open(tmp_path / "i") as index:
            assert index.sql("SELECT count(*) AS n, min(label_name) AS l FROM images").to_dicts() == [
                {"n": 6, "l": "b"}
            ]
            assert index.verify().ok
        with pytest.raises(OutdatedError, match="was begun anew since it was opened: open it again"):
            reader.similar(0)
        reader.close()
        assert len(reader.top_patches("b")) == 6


def test_an_index_that_is_removed_says_so(tmp_path: Path) -> None:
    make(tmp_path / "i")
    with Index.open(tmp_path / "i") as reader:
        assert len(reader.top_patches("a")) == 7
        remove_index(IndexDirectory(tmp_path / "i"))
        assert not (tmp_path / "i").exists()
        with pytest.raises(OutdatedError, match="was removed or begun anew since it was opened"):
            reader.top_patches("a")
        reader.close()
        with pytest.raises((IndexNotFoundError, IncompleteIndexError)):
            reader.top_patches("a")


def test_an_unfinished_index_has_no_pixels_yet(tmp_path: Path) -> None:
    make(tmp_path / "i")
    (tmp_path / "i" / "CURRENT").unlink()
    with Index.open(tmp_path / "i") as index, pytest.raises(IncompleteIndexError):
        index.pixels(0)


def test_a_shard_that_lacks_what_a_model_makes_of_it_is_not_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An update that is killed between two commits of one shard, and then something else that makes a catalog."""
    make(tmp_path / "i")
    with monkeypatch.context() as patched:
        patched.setattr(catalog, "update", lambda _: None)
        grow(tmp_path / "i", 12)
    shutil.rmtree(tmp_path / "i" / "linear" / "shard-00002")
    with Index.open(tmp_path / "i") as index:
        index.make_ann("Flat")
    (tmp_path / "labels.csv").write_text("path,label\n0001.png,b\n")
    with Index.open(tmp_path / "i") as index:
        index.relabel(tmp_path / "labels.csv")
        assert index.sql(COUNTS).to_dicts() == [{"images": 8, "pixels": 8}]
        near = index.similar(0, k=100, overlap=True)
        assert (len(near), near.exact) == (31, True)
        assert "another state" not in near.how
    grow(tmp_path / "i", 12)
    with Index.open(tmp_path / "i") as index:
        assert index.sql(COUNTS).to_dicts() == [{"images": 12, "pixels": 12}]
        assert "another state" in index.similar(0).how
        assert index.verify().ok


def test_a_model_that_is_being_added_hides_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path / "i")
    grow(tmp_path / "i", 12)
    with monkeypatch.context() as patched:
        patched.setattr(catalog, "update", lambda _: None)
        second, settings = LinearCompute("ab", name="two"), BuildSettings(shard_size=4, workers=1)
        build(IndexDirectory(tmp_path / "i"), MemorySource(["a"] * 12), CLASS_IDS, second, settings)
    whole = tmp_path / "i" / "two" / "shard-00002"
    whole.rename(tmp_path / "kept")
    with Index.open(tmp_path / "i") as index:
        index.relabel(None)
        assert index.sql("SELECT count(*) AS images FROM images").to_dicts() == [{"images": 12}]
        assert list(index.sql("SELECT model FROM models")) == [{"model": "linear"}]
    (tmp_path / "kept").rename(whole)
    with Index.open(tmp_path / "i") as index:
        index.relabel(None)
        assert index.sql("SELECT count(DISTINCT image_id) AS n FROM evidence WHERE model = 'two'").to_dicts() == [
            {"n": 12}
        ]
