"""What an attribution method should find: how much each patch of a BagNet contributes to a logit, which is known.

A logit is the mean of the patches' logits. So what a patch contributes, beyond an input without evidence (the
baseline), is its logit less that of its place in the baseline, over the number of patches. That is exact, and adds up
to the logit less the baseline's; the linear layer's bias is in both, and in neither of the differences.

Within its patch, where a contribution comes from is not known. So contributions are laid over their patches evenly:
that is a convention, and a method may know better. `middles` says how much it weighs: a map as true as the even one,
with each contribution in its patch's middle. Attributions and the even map are compared as sums in *cells* of the
patches' stride, where the convention weighs much, and in the patches' *boxes*, where it weighs little. (Boxes overlap,
so that what a map has in a patch's box is not that patch's contribution; even the true map's agrees with it only in
part.)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagindex.errors import AttributionError
from bagindex_schemas.records import Grid

MEAN, BLACK, WHITE, BLUR = "mean", "black", "white", "blur"
BASELINES = (MEAN, BLACK, WHITE, BLUR)
"""What an input without evidence looks like: the colour that normalisation makes zero, black, white, or the input
blurred.
"""
BLUR_PIXELS = 10.0
"""Standard deviation of the blur: of a patch of 33 pixels little more than its mean colour is left."""


@dataclass(frozen=True, eq=False)
class Truth:
    """What patches contribute to a logit of each of N images.

    Attributes:
        grid: the patches.
        shape: height and width of the input.
        contributions: float64 [N, rows, cols].
    """

    grid: Grid
    shape: tuple[int, int]
    contributions: NDArray[np.float64]

    def maps(self) -> NDArray[np.float64]:
        """Each contribution laid evenly over its patch, float64 [N, H, W]; what no patch sees is zero."""
        q, step = self.grid.receptive_field, self.grid.stride
        rows, cols = self.contributions.shape[1:]
        down, right = (rows - 1) * step + q, (cols - 1) * step + q
        # Differences at the corners of the boxes, summed up from the upper left.
        corners = np.zeros((len(self.contributions), down + 1, right + 1))
        share = self.contributions / q**2
        last_row, last_col = (rows - 1) * step + 1, (cols - 1) * step + 1
        for top, left, sign in ((0, 0, 1), (q, 0, -1), (0, q, -1), (q, q, 1)):
            corners[:, top : top + last_row : step, left : left + last_col : step] += sign * share
        found = np.zeros((len(share), *self.shape))
        found[:, :down, :right] = corners.cumsum(axis=1).cumsum(axis=2)[:, :down, :right]
        return found

    def middles(self) -> NDArray[np.float64]:
        """Each contribution at its patch's middle pixel, float64 [N, H, W]."""
        step, first = self.grid.stride, (self.grid.receptive_field - 1) // 2
        rows, cols = self.contributions.shape[1:]
        found = np.zeros((len(self.contributions), *self.shape))
        found[:, first : first + rows * step : step, first : first + cols * step : step] = self.contributions
        return found


def contributions(evidence: Tensor, of_baseline: Tensor, classes: Tensor) -> NDArray[np.float64]:
    """What each patch contributes to the logit of a class, float64 [N, rows, cols].

    Args:
        evidence: of all patches, [N, rows, cols, C].
        of_baseline: that of the baseline's, [N or 1, rows, cols, C].
        classes: one for each image, int64 [N].
    """
    chosen = classes.view(-1, 1, 1, 1).expand(-1, *evidence.shape[1:3], 1)
    beyond = (evidence.double() - of_baseline.double()).gather(3, chosen)[..., 0]
    found: NDArray[np.float64] = (beyond / beyond[0].numel()).cpu().numpy()
    return found


def make_baseline(pixels: Tensor, kind: str) -> Tensor:
    """What inputs would be without evidence, before normalisation: float32 [N, H, W, RGB], from 0 to 255.

    Args:
        pixels: the inputs, [N, H, W, RGB].
        kind: `black`, `white` or `blur`; `mean` is zero after normalisation.

    Raises:
        AttributionError: there is none such.
    """
    if kind in (BLACK, WHITE):
        return torch.full(pixels.shape, 255.0 * (kind == WHITE), device=pixels.device)
    if kind != BLUR:
        raise AttributionError(f"--baseline is one of {', '.join(BASELINES)}, not {kind!r}")
    from scipy.ndimage import gaussian_filter  # type: ignore[import-untyped]

    blurred = gaussian_filter(pixels.float().cpu().numpy(), (0, BLUR_PIXELS, BLUR_PIXELS, 0), mode="nearest")
    return torch.from_numpy(blurred).to(pixels.device)


def cells(maps: NDArray[np.floating], grid: Grid) -> NDArray[np.float64]:
    """Maps summed in squares of the patches' stride: [N, H, W] -> float64 [N, rows, cols].

    Only squares that the patches see all of: beyond, at the lower and the right border, the truth is zero by
    construction, and nothing to be found.
    """
    step = grid.stride
    rows, cols = (((count - 1) * step + grid.receptive_field) // step for count in (grid.rows, grid.cols))
    whole = maps[:, : rows * step, : cols * step].astype(np.float64)
    found: NDArray[np.float64] = whole.reshape(len(maps), rows, step, cols, step).sum(axis=(2, 4))
    return found


def boxes(maps: NDArray[np.floating], grid: Grid) -> NDArray[np.float64]:
    """Maps summed over each patch's box: [N, H, W] -> float64 [N, rows, cols]."""
    q, step = grid.receptive_field, grid.stride
    sums = np.pad(maps.astype(np.float64), ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
    rows, cols = (grid.rows - 1) * step + 1, (grid.cols - 1) * step + 1

    def at(top: int, left: int) -> NDArray[np.float64]:
        return sums[:, top : top + rows : step, left : left + cols : step]

    return at(q, q) - at(0, q) - at(q, 0) + at(0, 0)
