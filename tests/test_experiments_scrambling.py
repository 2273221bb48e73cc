"""Images whose tiles are shuffled: a BagNet's patches go with them, and only the seams are new."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from bagindex import Index
from bagindex.errors import QueryError
from bagindex.experiments import scrambling
from bagindex.experiments.scrambling import scramble, shuffled, tile_sizes, within_tiles
from bagindex.geometry import make_grid
from test_against import setting
from test_model import NAMES, procedural_model


def test_tiles_change_places_and_the_rest_stays() -> None:
    pixels = np.arange(5 * 4 * 3, dtype=np.uint8).reshape(5, 4, 3)
    found = scramble(pixels, 2, np.array([3, 0, 2, 1]))
    np.testing.assert_array_equal(found[:2, :2], pixels[2:4, 2:])
    np.testing.assert_array_equal(found[:2, 2:], pixels[:2, :2])
    np.testing.assert_array_equal(found[2:4, :2], pixels[2:4, :2])
    np.testing.assert_array_equal(found[2:4, 2:], pixels[:2, 2:])
    np.testing.assert_array_equal(found[4], pixels[4])
    np.testing.assert_array_equal(scramble(pixels, 2, np.arange(4)), pixels)


def test_an_order_is_another_than_the_one_there_is() -> None:
    generator = np.random.default_rng(0)
    for _ in range(20):
        assert shuffled(2, generator).tolist() == [1, 0]
    assert sorted(shuffled(9, generator)) == list(range(9))


def test_tiles_are_multiples_of_the_stride() -> None:
    assert tile_sizes(224, 224, 8) == (112, 56, 32, 16)
    assert tile_sizes(100, 60, 8) == (24, 8)
    assert tile_sizes(15, 15, 8) == ()


@pytest.mark.parametrize("name", NAMES)
def test_a_patch_within_a_tile_keeps_its_evidence(name: str) -> None:
    """In float64 all but exactly, whatever the model; patches across a seam do not."""
    model = procedural_model(name, 3, width=0.125).double()
    field, height, width, tile = model.architecture.receptive_field, 101, 88, 40
    pixels = np.random.default_rng(2).integers(0, 256, (height, width, 3), dtype=np.uint8)
    order = np.array([2, 0, 3, 1])
    offset = model.architecture.offset
    grid = make_grid(field, 8, height, width, offset)
    to, origin = within_tiles(grid, height, width, tile, order)
    assert len(set(to.tolist())) == len(to) == 4 * ((tile - field) // 8 + 1) ** 2
    assert len(set(origin.tolist())) == len(origin)
    found = []
    with torch.inference_mode():
        for each in (pixels, scramble(pixels, tile, order)):
            inputs = torch.from_numpy(each).permute(2, 0, 1)[None].double() / 255 - 0.5
            found.append(model.fc(model.features(inputs)).flatten(1, 2)[0].numpy())
    before, after = found
    largest = np.abs(before).max()
    assert np.abs(after[to] - before[origin]).max() < 1e-12 * largest
    seams = np.setdiff1d(np.arange(grid.patches), to)
    last = 2 * tile - field - offset
    inside = seams[(seams // grid.cols * 8 <= last) & (seams % grid.cols * 8 <= last)]
    assert (np.abs(after[inside] - before[inside]).max(axis=1) > 1e-6 * largest).all()


def test_scrambling_of_an_index(planted_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrambling, "PARTS", (2, 7))
    (outcome,) = planted_index.reproduce(
        "scrambling", tmp_path, against=["random:shufflenet_v2_x0_5"], limit=4, device="cpu", seed=3
    ).outcomes
    rows = {(row["network"], row["tile"]): row for row in outcome.tables["scrambling"].to_pylist()}
    assert [tile for _, tile in rows] == [None, 80, 16] * 2
    whole, halves, small = (rows["bagnet33", tile] for tile in (None, 80, 16))
    assert (whole["predicted_as_before"], whole["pearson_with_before"], whole["images"]) == (1, pytest.approx(1), 4)
    sql = "SELECT avg(CASE WHEN correct THEN 1 ELSE 0 END) AS top1 FROM predictions WHERE image_id IN (0, 12, 24, 36)"
    assert whole["top1"] == planted_index.sql(sql).to_dicts()[0]["top1"]
    # 6 × 6 of 16 × 16 patches in each of four tiles; none of 33 pixels in one of 16.
    assert halves["patches_within_tiles"] == 4 * 36 / 256
    assert halves["largest_change_within_tiles"] < 1e-5
    assert (small["patches_within_tiles"], small["largest_change_within_tiles"]) == (0, None)
    other = rows["shufflenet_v2_x0_5", 80]
    assert (other["patches_within_tiles"], other["largest_change_within_tiles"]) == (None, None)
    assert other["pearson_with_before"] < 1
    (beside,) = outcome.beside
    assert (beside.paper, beside.ours, beside.comparable) == (0.0, halves["largest_change_within_tiles"], True)
    assert (tmp_path / "scrambling.png").is_file()
    assert (tmp_path / "scrambling-images.png").is_file()


def test_inputs_too_small_for_tiles(tmp_path: Path) -> None:
    given = setting(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scrambling, "PARTS", (3,))
        with pytest.raises(QueryError, match="inputs of 16 × 16 pixels are too small for tiles"):
            scrambling.run(given)
