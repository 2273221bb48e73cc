"""What can be looked through in an index."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bagindex import Index
from bagindex.errors import NotKeptError, QueryError, UnknownClassError, UnknownImageError, UnknownPatchError
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
