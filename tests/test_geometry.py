"""Geometry against torchvision, and against counting."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torchvision.transforms import v2

from bagindex.errors import SettingsError
from bagindex.geometry import (
    locate,
    make_grid,
    patch_box,
    patch_ids,
    place,
    shared_area,
    to_source,
)
from bagindex.images import read_picture
from bagindex_schemas.records import Transform


@pytest.mark.parametrize(("q", "side", "patches"), [(9, 224, 27), (17, 224, 26), (33, 224, 24), (33, 112, 10)])
def test_grid_of_the_paper(q: int, side: int, patches: int) -> None:
    grid = make_grid(q, 8, side, side)
    assert (grid.rows, grid.cols) == (patches, patches)


def test_input_smaller_than_a_patch() -> None:
    with pytest.raises(SettingsError, match="smaller than one patch"):
        make_grid(33, 8, 32, 224)


@given(width=st.integers(8, 300), height=st.integers(8, 300), crop=st.tuples(st.integers(1, 40), st.integers(1, 40)))
def test_transform_is_torchvisions(width: int, height: int, crop: tuple[int, int]) -> None:
    import io

    transform = Transform(resize=max(crop) + 3, crop_height=crop[0], crop_width=crop[1])
    pixels = np.random.default_rng(width * 1000 + height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    image = Image.fromarray(pixels)
    data = io.BytesIO()
    image.save(data, "PNG")
    expected = v2.CenterCrop(crop)(v2.Resize(transform.resize)(image))
    found = read_picture(data.getvalue(), transform)
    np.testing.assert_array_equal(found.pixels, np.asarray(expected))
    assert (found.placement.width, found.placement.height) == (width, height)


@given(
    q=st.sampled_from([9, 17, 33]),
    height=st.integers(33, 120),
    width=st.integers(33, 120),
    image=st.integers(0, 10**9),
    data=st.data(),
)
def test_ids_and_boxes(q: int, height: int, width: int, image: int, data: st.DataObject) -> None:
    grid = make_grid(q, 8, height, width)
    row = data.draw(st.integers(0, grid.rows - 1))
    col = data.draw(st.integers(0, grid.cols - 1))
    patch_id = image * grid.patches + row * grid.cols + col
    assert locate(grid, patch_id) == (image, row, col)
    assert patch_ids(grid, np.array([image]))[row * grid.cols + col] == patch_id
    x0, y0, x1, y1 = patch_box(grid, row, col)
    assert 0 <= x0 < x1 <= width
    assert 0 <= y0 < y1 <= height
    assert (x1 - x0, y1 - y0) == (q, q)


def test_box_in_the_source() -> None:
    # 400 × 600 is resized to 256 × 384 and cut to 224 × 224 from (16, 80).
    placement = place(Transform(resize=256, crop_height=224, crop_width=224), 400, 600)
    assert (placement.crop_left, placement.crop_top) == (16, 80)
    assert to_source((0, 0, 32, 16), placement) == (25.0, 125.0, 75.0, 150.0)


def test_overlap() -> None:
    assert shared_area((0, 0, 9, 9), (8, 8, 17, 17)) == 1
    assert shared_area((0, 0, 9, 9), (2.5, 3, 4.5, 20)) == 12
    assert shared_area((0, 0, 8, 8), (8, 0, 16, 8)) == 0
    assert shared_area((0, 0, 8, 8), (20, 20, 28, 28)) == 0
