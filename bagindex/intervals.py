"""How sure shares of images are, and differences of shares. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt

import numpy as np
from numpy.typing import NDArray

_QUANTILE = 1.959963984540054
"""Of the normal distribution, beyond which on either side 2.5 % lie."""
_DRAWS = 1000
_PART = 100
"""Draws that are made at a time."""


def bootstrap(values: NDArray[np.floating], seed: int) -> NDArray[np.float64]:
    """95 % intervals of means over images, from means of images drawn anew, with repetition.

    Args:
        values: of N images, [N, …].
        seed: of what is drawn.

    Returns:
        The lower and the upper ends, float64 [2, …].
    """
    generator = np.random.default_rng(seed)
    images = len(values)
    drawn = [
        np.tensordot(generator.multinomial(images, np.full(images, 1 / images), _PART) / images, values, axes=1)
        for _ in range(_DRAWS // _PART)
    ]
    ends: NDArray[np.float64] = np.percentile(np.concatenate(drawn), (2.5, 97.5), axis=0)
    return ends


def wilson(right: float, of: int) -> tuple[float, float]:
    """Wilson's 95 % confidence interval of a share, `right` out of `of` > 0."""
    share, z = right / of, _QUANTILE
    middle = share + z * z / (2 * of)
    half = z * sqrt(share * (1 - share) / of + z * z / (4 * of * of))
    scale = 1 + z * z / of
    # At the ends the interval is closed, and rounding would take it beyond.
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


@dataclass(frozen=True)
class Paired:
    """How often two models are right about the same images.

    Attributes:
        images: labelled images.
        right_a, right_b: in how many each is right.
        lost, won: images of which only the first is right, and only the second.
    """

    images: int
    right_a: int
    right_b: int
    lost: int
    won: int

    @property
    def change(self) -> float:
        """By how much the share that is right is larger for the second."""
        return (self.won - self.lost) / self.images

    @property
    def interval(self) -> tuple[float, float]:
        """The change's 95 % confidence interval: Wald's for pairs with half an image more in each of the four cells
        (Agresti and Min, 2005), which is right for few images too.
        """
        images, lost, won = self.images + 2, self.lost + 0.5, self.won + 0.5
        middle = (won - lost) / images
        half = _QUANTILE * sqrt(lost + won - (won - lost) ** 2 / images) / images
        return max(-1.0, middle - half), min(1.0, middle + half)

    @property
    def p_value(self) -> float:
        """McNemar's exact test: how probable it is that so many more of the images on which only one is right fall to
        one side, were both sides as probable.
        """
        from scipy.stats import binomtest  # type: ignore[import-untyped]

        one_sided = self.lost + self.won
        return float(binomtest(self.won, one_sided).pvalue) if one_sided else 1.0
