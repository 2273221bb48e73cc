"""Squares are masked in the order of their attribution, and the right answer is known."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
import torch
from torch import Tensor

from bagindex.attribution.masking import mask, probabilities, square_sums, strongest_first

SIDE = 4
ROWS, COLS = 2, 4


def inputs(images: int = 3, height: int = ROWS * SIDE, width: int = COLS * SIDE) -> Tensor:
    return torch.from_numpy(np.random.default_rng(5).normal(0, 1, (images, 3, height, width)).astype(np.float32))


class Linear:
    """A network whose evidence is known: a class's logit is a weighted sum of the pixels, and a bias."""

    weight = torch.from_numpy(np.random.default_rng(6).normal(0, 0.15, (2, 3, ROWS * SIDE, COLS * SIDE)).astype("f4"))
    bias = torch.tensor([0.3, -0.2])

    def __call__(self, x: Tensor) -> Tensor:
        return torch.einsum("nchw,kchw->nk", x, self.weight) + self.bias

    def margins(self, x: Tensor, classes: np.ndarray) -> np.ndarray:
        """By how much each pixel speaks for the class rather than for the other one, [N, H, W]."""
        maps = torch.einsum("nchw,kchw->nkhw", x, self.weight).numpy()
        rows = np.arange(len(x))
        return maps[rows, classes] - maps[rows, 1 - classes]


def test_squares_by_hand() -> None:
    maps = np.arange(30, dtype=np.float32).reshape(1, 5, 6)
    assert square_sums(maps, 2).tolist() == [[[14, 22, 30], [62, 70, 78]]]  # the last row is in none
    assert strongest_first(np.array([[[1.0, 3.0], [2.0, 3.0]], [[0.0, 0.0], [-1.0, 5.0]]])).tolist() == [
        [1, 3, 2, 0],
        [3, 0, 1, 2],
    ]


def test_small_differences_of_large_sums_count() -> None:
    maps = np.full((1, 8, 16), 1e6, np.float32)
    maps[0, 0, 15] += 1
    assert strongest_first(square_sums(maps, 8)).tolist() == [[1, 0]]


def test_what_is_masked_and_what_is_not() -> None:
    x = inputs(2, 5, 6)
    before = x.clone()
    found = mask(x, np.array([[0, 5], [1, 2]]), value=7.0, side=2)
    assert (x == before).all()
    masked = (found == 7).all(dim=1)
    assert masked.int().tolist() == [
        [[1, 1, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 1, 1], [0, 0, 0, 0, 0, 0]],
        [[0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 1, 1], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 0, 0]],
    ]
    assert (found.movedim(1, 3)[~masked] == x.movedim(1, 3)[~masked]).all()


def test_probabilities_are_those_of_the_evidence_that_is_left() -> None:
    """Of a linear network it is known what a masked square takes away."""
    network, x = Linear(), inputs()
    classes = network(x).argmax(dim=1).numpy()
    sums = square_sums(network.margins(x, classes), SIDE)
    order = strongest_first(sums)
    counts = range(ROWS * COLS + 1)
    found = probabilities(network, x, classes, order, counts, side=SIDE)
    for image, class_id in enumerate(classes):
        margin = float(network.bias[class_id] - network.bias[1 - class_id])
        left = margin + sums[image].sum() - np.concatenate([[0], np.cumsum(sums[image].ravel()[order[image]])])
        np.testing.assert_allclose(found[image], 1 / (1 + np.exp(-left)), rtol=1e-4)
    # With everything masked the bias is left, and without anything the network's own answer.
    np.testing.assert_allclose(found[:, 0], torch.softmax(network(x), 1).max(dim=1).values, rtol=1e-5)


def test_no_other_squares_cost_the_class_more() -> None:
    """Against all choices of as many squares: the exact evidence is the best order that there is."""
    network, x = Linear(), inputs()
    classes = network(x).argmax(dim=1).numpy()
    order = strongest_first(square_sums(network.margins(x, classes), SIDE))
    for count in (1, 3, 6):
        (found,) = probabilities(network, x, classes, order, [count], side=SIDE).T
        every = [
            probabilities(network, x, classes, np.tile(each, (len(x), 1)), [count], side=SIDE)[:, 0]
            for each in combinations(range(ROWS * COLS), count)
        ]
        np.testing.assert_allclose(found, np.min(every, axis=0), rtol=1e-6)
        assert (found < np.mean(every, axis=0)).all()


@pytest.mark.parametrize("value", [0.0, -1.5])
def test_what_masked_pixels_become(value: float) -> None:
    network, x = Linear(), inputs(1)
    all_squares = np.arange(ROWS * COLS)[None]
    (found,) = probabilities(network, x, np.array([1]), all_squares, [ROWS * COLS], value, SIDE)
    expected = torch.softmax(network(torch.full_like(x, value)), 1)[0, 1]
    assert found[0] == pytest.approx(float(expected), rel=1e-5)
