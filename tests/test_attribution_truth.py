"""What is true of a BagNet's patches, and how maps are compared with it."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bagindex.errors import AttributionError
from bagindex.evaluation import scores
from bagindex.evaluation.truth import BLUR_PIXELS, Truth, boxes, cells, contributions, make_baseline
from bagindex.geometry import make_grid, patch_box
from bagindex.models.bags import Folded
from test_model import procedural, procedural_model

GRID = make_grid(9, 8, 30, 47)


def truth(count: int = 2) -> Truth:
    """Contributions of both signs."""
    values = np.random.default_rng(0).normal(size=(count, GRID.rows, GRID.cols))
    return Truth(GRID, (30, 47), values)


def test_contributions_add_up_to_the_logit_less_that_of_the_baseline() -> None:
    model = procedural_model("bagnet9", 3, 0.125)
    network = Folded(model)
    x, baseline = (procedural(key, (2, 3, 30, 47)) for key in ("input", "running_var"))
    classes = torch.tensor([2, 0])
    with torch.no_grad():
        found = contributions(network.evidence(x), network.evidence(baseline), classes)
        expected = (model(x) - model(baseline)).gather(1, classes[:, None])[:, 0]
        model.fc.bias += 7
        biased = contributions(network.evidence(x), network.evidence(baseline), classes)
    assert found.shape == (2, GRID.rows, GRID.cols)
    np.testing.assert_allclose(found.sum((1, 2)), expected.numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(biased, found, atol=1e-6)


def test_a_patch_that_is_as_in_the_baseline_contributes_nothing() -> None:
    network = Folded(procedural_model("bagnet9", 3, 0.125))
    baseline = torch.zeros(1, 3, 30, 47)
    x = baseline.clone()
    x[:, :, 10:14, 20:23] = 2.0
    with torch.no_grad():
        (found,) = contributions(network.evidence(x), network.evidence(baseline), torch.tensor([1]))
    for row, col in np.ndindex(found.shape):
        x0, y0, x1, y1 = patch_box(GRID, row, col)
        sees = x0 < 23 and x1 > 20 and y0 < 14 and y1 > 10
        assert (abs(found[row, col]) > 1e-6) == sees


def test_maps_cells_and_boxes_by_hand() -> None:
    found = truth()
    slow, middles = np.zeros((2, 30, 47)), np.zeros((2, 30, 47))
    for row, col in np.ndindex(GRID.rows, GRID.cols):
        x0, y0, x1, y1 = patch_box(GRID, row, col)
        share = found.contributions[:, row, col]
        slow[:, y0:y1, x0:x1] += share[:, None, None] / 81
        middles[:, y0 + 4, x0 + 4] += share
    np.testing.assert_allclose(found.maps(), slow, atol=1e-14)
    assert np.array_equal(found.middles(), middles)
    assert (found.maps()[:, 25:] == 0).all()
    np.testing.assert_allclose(found.maps().sum((1, 2)), found.contributions.sum((1, 2)))
    noise = np.random.default_rng(1).normal(size=(2, 30, 47))
    in_cells, in_boxes = cells(noise, GRID), boxes(noise, GRID)
    assert in_cells.shape == (2, 3, 5)  # patches see 25 × 41 pixels: of the last row and column of cells only one
    assert in_boxes.shape == (2, GRID.rows, GRID.cols)
    assert in_cells[1, 2, 4] == pytest.approx(noise[1, 16:24, 32:40].sum())
    x0, y0, x1, y1 = patch_box(GRID, 2, 1)
    assert in_boxes[0, 2, 1] == pytest.approx(noise[0, y0:y1, x0:x1].sum())


def test_baselines() -> None:
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 60, 60, 3), dtype=np.uint8))
    assert (make_baseline(pixels, "black") == 0).all()
    assert (make_baseline(pixels, "white") == 255).all()
    blurred = make_baseline(pixels, "blur")
    assert blurred.shape == pixels.shape
    assert float(blurred.std()) < 10 < float(pixels.float().std()) / 5
    point = torch.zeros(1, 101, 101, 3)
    point[0, 50, 50] = 255
    spread = make_baseline(point, "blur")[0, :, :, 0]
    assert float(spread[50, 60] / spread[50, 50]) == pytest.approx(np.exp(-(10**2) / 2 / BLUR_PIXELS**2), rel=1e-2)
    with pytest.raises(AttributionError, match="--baseline is one of mean, black, white, blur, not 'grey'"):
        make_baseline(pixels, "grey")


def test_rank_correlation_with_ties() -> None:
    found = np.array([[1.0, 2, 3, 4], [4, 3, 2, 1], [5, 5, 5, 5], [1, 1, 2, 2]])
    true = np.array([[10.0, 20, 30, 90]] * 4)
    np.testing.assert_allclose(scores.rank_correlation(found, true), [1, -1, 0, 4 / np.sqrt(20)])


def test_the_strongest_share_what_is_left_for_equal_ones() -> None:
    found = scores.strongest(np.array([[3.0, 1, 2, 0], [1, 1, 1, 1], [5, 2, 2, 0]]), 2)
    assert found.tolist() == [[1, 0, 1, 0], [0.5] * 4, [1, 0.5, 0.5, 0]]


def test_overlap_pointing_and_mass_by_hand() -> None:
    true = np.array([[9.0, 8, 1, 0]] * 4)
    found = np.array([[2.0, 1, 0, -5], [1, 0, 5, 2], [0, 0, 0, 0], [-1, -2, -3, -4]])
    assert scores.overlap(found, true, 2).tolist() == [1, 0, 0.5, 1]
    assert scores.pointing(found, true, 2).tolist() == [1, 0, 0.5, 1]
    assert scores.mass(found, true, 2).tolist() == [1, 1 / 8, 0.5, 0.5]


def test_random_numbers_score_chance() -> None:
    generator = np.random.default_rng(0)
    true, found = generator.normal(size=(2, 4000, 60))
    k = 6
    for score, chance in ((scores.rank_correlation, 0.0),):
        assert score(found, true).mean() == pytest.approx(chance, abs=0.01)
    for among in (scores.overlap, scores.pointing, scores.mass):
        assert among(found, true, k).mean() == pytest.approx(k / 60, abs=0.015)
