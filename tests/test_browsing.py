"""What can be looked through in an index."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagindex import Index
from bagindex.errors import (
    NotKeptError,
    QueryError,
    SettingsError,
    UnknownClassError,
    UnknownImageError,
    UnknownPatchError,
)
from bagindex.geometry import cut
from wordy import worded_index


def test_pages_are_parts_of_the_whole(planted_index: Index) -> None:
    whole = planted_index.browse_images(limit=1000)
    assert len(whole) == whole.total == 48
    assert [row["image_id"] for row in whole.rows] == list(range(48))
    part = planted_index.browse_images(offset=40, limit=5)
    assert part.rows == whole.rows[40:45]
    assert (part.total, part.offset) == (48, 40)
    assert planted_index.browse_images(offset=100).rows == []
    assert part.to_arrow().to_pylist() == part.to_dicts()
    assert "5 of 48" in str(part)
    for options in ({"offset": -1}, {"limit": 0}):
        with pytest.raises(QueryError):
            planted_index.browse_images(**options)  # type: ignore[arg-type]
    with pytest.raises(UnknownClassError):
        planted_index.browse_images(label="nothing")


def test_classes_are_counted(planted_index: Index) -> None:
    page = planted_index.browse_classes()
    assert sum(row["images"] for row in page.rows) == sum(row["predicted"] for row in page.rows) == 48
    assert planted_index.browse_classes("FISH").total == 1
    assert planted_index.browse_classes("nothing").to_arrow().num_rows == 0


def test_classes_are_sorted(tmp_path: Path) -> None:
    # Labels: 3 cats, 1 dog, no fish, 1 catfish; predictions: cat, dog, catfish, dog, catfish.
    classes = ["fish", "dog", "cat", "Catfish"]
    means = np.eye(4)[[2, 1, 3, 1, 3]]
    labels = ["cat", "cat", "cat", "dog", "Catfish"]
    with worded_index(tmp_path / "i", np.repeat(means[:, None], 6, axis=1), labels, classes=classes) as index:

        def ids(search: str = "", **sort: Any) -> list[int]:
            return [row["class_id"] for row in index.browse_classes(search, **sort).rows]

        rows = index.browse_classes().rows
        assert [(row["images"], row["predicted"], row["correct"]) for row in rows] == [
            *((0, 0, 0), (1, 2, 1), (3, 1, 1), (1, 2, 1)),
        ]
        assert index.right_images() == (3, 5)
        assert ids() == [0, 1, 2, 3]
        assert ids(descending=True) == [3, 2, 1, 0]
        assert ids(order="name") == [2, 3, 1, 0]
        assert ids(order="images", descending=True) == [2, 1, 3, 0]
        assert ids(order="predicted") == [0, 2, 1, 3]
        assert ids(order="correct") == [0, 1, 2, 3]
        assert ids(order="accuracy") == [2, 1, 3, 0]
        assert ids(order="accuracy", descending=True) == [1, 3, 2, 0]
        assert ids("FISH") == [0, 3]
        assert ids("fish", descending=True) == [0, 3]
        assert ids("cat", order="name", descending=True) == [2, 3]  # the name itself comes first
        assert ids("c-at") == ids("cat") == [2, 3]
        assert ids("f", order="images", descending=True, offset=1) == [3]
        with pytest.raises(SettingsError, match="ordered by"):
            index.browse_classes(order="colour")


def test_a_patch(planted_words: Index, planted_index: Index) -> None:
    for patch_id in (0, 1000, 12_000):
        found = planted_words.patch(patch_id, ["tree", "fish", 2], k=1)
        (row,) = planted_words.sql(f"FROM patch_words WHERE patch_id = {patch_id}").to_dicts()
        assert (found["image_id"], found["row"], found["col"]) == (row["image_id"], row["row"], row["col"])
        assert found["box"] == [row[name] for name in ("x0", "y0", "x1", "y1")]
        assert found["word"] == row["word"]
        assert found["word_patches"] == planted_words.words(k=64)[row["word"]].patches
        assert (found["label"], found["correct"]) == (row["label"], row["label"] == row["predicted"])
        logits = planted_words.sql(
            f"SELECT class_id, logit FROM evidence WHERE patch_id = {patch_id} ORDER BY logit DESC, class_id"
        ).to_dicts()
        names = [planted_words.find_class(name).class_id for name in ("tree", "fish", 2)]
        own = [row["predicted"], row["label"]]
        expected = dict.fromkeys([logits[0]["class_id"], *own, *names])
        by_class = {each["class_id"]: each["logit"] for each in logits}
        assert [(each["class_id"], each["logit"]) for each in found["logits"]] == [(i, by_class[i]) for i in expected]
        whole = planted_words.patch(patch_id, k=1000)["logits"]
        assert [each["class_id"] for each in whole] == [each["class_id"] for each in logits]
    assert planted_index.patch(7)["word"] is None
    assert planted_index.patch(7)["word_patches"] is None
    with pytest.raises(UnknownPatchError):
        planted_words.patch(10**9)
    with pytest.raises(UnknownClassError):
        planted_words.patch(7, "nothing")
    with pytest.raises(QueryError, match="-k"):
        planted_words.patch(7, k=0)


def test_a_patch_of_which_little_is_kept(planted_folder: Path, planted_index: Index, tmp_path: Path) -> None:
    for pixels in (True, False):
        with Index.build(
            planted_folder / "pictures",
            weights=planted_folder / "bagnet33.safetensors",
            out=tmp_path / str(pixels),
            keep="summary",
            pixels=pixels,
            limit=6,
        ) as index:
            found = index.patch(700, "fish", k=6)
            assert found["word"] is None
            assert len(found["logits"]) == (6 if pixels else 0)


def test_pixels_are_those_that_patches_are_cut_from(planted_index: Index) -> None:
    found = planted_index.top_patches("fish")
    for patch, crop in zip(found, found.crops(), strict=True):
        assert planted_index.place_of(patch.patch_id) == (patch.image_id, patch.box)
        np.testing.assert_array_equal(cut(planted_index.pixels(patch.image_id), patch.box), crop)
        np.testing.assert_array_equal(planted_index.patch_pixels(patch.patch_id), crop)
    for image_id in (-1, 48, 2**70):
        with pytest.raises(UnknownImageError):
            planted_index.pixels(image_id)
        with pytest.raises(UnknownPatchError):
            planted_index.place_of(image_id * 1000)


def test_an_index_without_pixels(tmp_path: Path) -> None:
    table = np.zeros((3, 6, 3), np.float32)
    with worded_index(tmp_path / "i", table, ["cat", None, "dog"], pixels=False) as index:
        assert not index.keeps_pixels
        with pytest.raises(NotKeptError):
            index.pixels(0)
        assert index.image(1)["correct"] is None
        assert index.browse_images(labelled=False).total == 1
        assert index.image_count == 3
        assert index.right_images() == (1, 2)
