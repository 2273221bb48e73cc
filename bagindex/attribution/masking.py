"""What becomes of a network's decision when the parts with most attribution are masked: the paper's Figure 8.

An image is cut into squares. A map says of each pixel how much it speaks for a class, and a square counts by the sum of
its pixels. Squares are masked in that order, the first of equal ones first, and the network is asked again: the more a
map knows of what the network decides on, the sooner its class is less probable.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SQUARE = 8
"""Pixels of a square's side."""
MASKED = 100
"""How many squares of an image are masked in the paper's Table 1."""
VALUE = 0.0
"""What masked pixels become, after normalisation: the mean colour that a network's inputs are normalised by."""
Forward = Callable[[Tensor], Tensor]
"""Logits of normalised inputs, [N, 3, H, W] -> [N, C]."""


def square_sums(maps: NDArray[np.floating], side: int = SQUARE) -> NDArray[np.float64]:
    """The sum over each whole square: [N, H, W] -> float64 [N, rows, cols]. What is over at the bottom and on the right
    is in none.
    """
    count, height, width = maps.shape
    rows, cols = height // side, width // side
    whole = maps[:, : rows * side, : cols * side].astype(np.float64)
    sums: NDArray[np.float64] = whole.reshape(count, rows, side, cols, side).sum(axis=(2, 4))
    return sums


def strongest_first(sums: NDArray[np.float64]) -> NDArray[np.int64]:
    """The order in which squares are masked: [N, rows, cols] -> places row by row, int64 [N, rows · cols]."""
    order: NDArray[np.int64] = np.argsort(-sums.reshape(len(sums), -1), axis=1, kind="stable").astype(np.int64)
    return order


def mask(inputs: Tensor, squares: NDArray[np.int64], value: float = VALUE, side: int = SQUARE) -> Tensor:
    """Copies of inputs [N, 3, H, W] in which some squares have one value.

    Args:
        inputs: normalised.
        squares: which, for each image, by their places row by row, int64 [N, n].
        value: what their pixels become, in all channels.
        side: of a square, in pixels.
    """
    rows, cols = inputs.shape[2] // side, inputs.shape[3] // side
    chosen = torch.zeros(len(inputs), rows * cols, dtype=torch.bool)
    chosen.scatter_(1, torch.from_numpy(squares), True)
    pixels = chosen.view(-1, 1, rows, cols).repeat_interleave(side, 2).repeat_interleave(side, 3)
    changed = inputs.clone()
    changed[:, :, : rows * side, : cols * side].masked_fill_(pixels.to(inputs.device), value)
    return changed


def probabilities(
    forward: Forward,
    inputs: Tensor,
    classes: NDArray[np.int64],
    order: NDArray[np.int64],
    counts: Sequence[int],
    value: float = VALUE,
    side: int = SQUARE,
) -> NDArray[np.float64]:
    """How probable a class stays when more and more squares are masked, float64 [N, counts].

    Args:
        forward: the network.
        inputs: normalised, [N, 3, H, W].
        classes: the class of each image, int64 [N].
        order: the order in which its squares are masked, int64 [N, squares].
        counts: how many of them are; 0 leaves the image as it is.
        value: what their pixels become.
        side: of a square, in pixels.
    """
    rows = np.arange(len(inputs))
    found = np.empty((len(inputs), len(counts)))
    with torch.inference_mode():
        for place, count in enumerate(counts):
            logits = forward(mask(inputs, order[:, :count], value, side))
            found[:, place] = torch.softmax(logits.double(), dim=1).cpu().numpy()[rows, classes]
    return found
