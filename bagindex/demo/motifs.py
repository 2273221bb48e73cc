"""The motifs that are planted into the demo's pictures: small drawings, each a formula on the unit square.

A motif is a function of `u` (to the right) and `v` (downwards), float [H, W] from -1 to 1, and a random generator. It
gives where the drawing is, bool [H, W], and its shade, float [H, W] from 0 (the first of its two colours) to 1.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Drawing = tuple[NDArray[np.bool_], Floats]
Motif = Callable[[Floats, Floats, np.random.Generator], Drawing]

_OVERSAMPLING = 4
_LETTERS = {
    "A": [(-0.7, 0.9), (0.0, -0.9), (0.7, 0.9), (0.42, 0.25), (-0.42, 0.25)],
    "E": [(0.6, -0.85), (-0.55, -0.85), (-0.55, 0.0), (0.4, 0.0), (-0.55, 0.0), (-0.55, 0.85), (0.6, 0.85)],
    "K": [(-0.5, -0.9), (-0.5, 0.9), (-0.5, 0.15), (0.6, -0.9), (-0.05, -0.2), (0.65, 0.9)],
}
_DIGITS = {
    "2": [(-0.55, -0.5), (-0.3, -0.82), (0.3, -0.82), (0.55, -0.45), (0.4, -0.05), (-0.6, 0.85), (0.65, 0.85)],
    "4": [(0.3, 0.9), (0.3, -0.9), (-0.65, 0.35), (0.7, 0.35)],
    "7": [(-0.6, -0.8), (0.6, -0.8), (-0.15, 0.9)],
}


@dataclass(frozen=True)
class Stamp:
    """A motif drawn at some size and angle: coverage and shade, float [H, W] from 0 to 1."""

    coverage: Floats
    shade: Floats


def stamp(motif: Motif, size: float, angle: float, rng: np.random.Generator) -> Stamp:
    """Draw a motif, antialiased, its unit square `size` pixels wide and turned by `angle` radians."""
    side = int(np.ceil(size * (abs(np.cos(angle)) + abs(np.sin(angle))))) + 2
    places = (np.arange(side * _OVERSAMPLING) + 0.5) / _OVERSAMPLING - side / 2
    x, y = np.meshgrid(places, places)
    u, v = (np.cos(angle) * x + np.sin(angle) * y) * 2 / size, (np.cos(angle) * y - np.sin(angle) * x) * 2 / size
    inside, shade = motif(u, v, rng)
    there = (inside & (np.maximum(abs(u), abs(v)) <= 1)).astype(np.float64)
    coverage = _shrink(there)
    return Stamp(coverage, _shrink(there * np.clip(shade, 0, 1)) / np.maximum(coverage, 1e-9))


def _shrink(values: Floats) -> Floats:
    side = len(values) // _OVERSAMPLING
    means: Floats = values.reshape(side, _OVERSAMPLING, side, _OVERSAMPLING).mean((1, 3))
    return means


def ring(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """A ring with a sheen."""
    r, thickness = np.hypot(u, v), rng.uniform(0.14, 0.2)
    return abs(r - 0.78) < thickness, 0.5 + 0.5 * np.cos(np.arctan2(v, u) + 1)


def links(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """Two links of a chain."""
    left, right = (abs(np.hypot(u - side * 0.36, v * 1.1) - 0.48) < 0.14 for side in (-1, 1))
    over = right & ~(left & (v < 0))
    return left | right, np.where(over, 0.85, 0.1)


def leaf(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """A leaf with its veins."""
    veins = (abs(v) < 0.06) | (np.mod(u - 0.9 * abs(v), 0.38) < 0.09)
    return abs(v) < rng.uniform(0.5, 0.62) * (1 - u**2), np.where(veins, 1.0, np.where(v > 0, 0.3, 0.0))


def twig(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """A twig of a fir with its needles."""
    stem = (abs(v) < 0.08) & (abs(u) < 0.95)
    needles = (np.mod(u + 0.8 * abs(v), 0.3) < 0.12) & (abs(v) < 0.75 - 0.3 * u) & (abs(u) < 0.85) & (abs(v) < 0.9)
    return stem | needles, np.where(stem, 1.0, 0.3 * abs(v))


def letter(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """A capital letter."""
    return _stroke(u, v, _LETTERS[str(rng.choice(list(_LETTERS)))], 0.17), 0.3 + 0.3 * v


def digit(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """A digit."""
    return _stroke(u, v, _DIGITS[str(rng.choice(list(_DIGITS)))], 0.17), 0.3 - 0.3 * v


def scales(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """Scales of a fish, each over the ones below it."""
    shade = np.ones_like(u)
    for row in range(5, -6, -1):
        near = abs(v - 0.28 * row) < 0.34
        across, along, under = u[near], v[near] - 0.28 * row, shade[near]
        for column in range(-4, 5):
            distance = np.hypot(across - 0.5 * column - 0.25 * (row % 2), along) / 0.34
            under = np.where(distance < 1, distance**3, under)
        shade[near] = under
    return np.hypot(u, v) < 0.98, shade


def fin(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """A fin with its rays."""
    r, angle = np.hypot(u, v - 0.9), np.arctan2(u, 0.9 - v)
    return (abs(angle) < 0.72) & (r < 1.7 - 0.12 * np.cos(angle * 18)), 0.5 + 0.5 * np.cos(angle * 18)


def stitches(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """A zigzag seam between two rows of stitches."""
    zigzag = abs(v - 0.5 * (abs(np.mod(u * 1.9, 2) - 1) * 2 - 1)) < 0.17
    rows = (abs(abs(v) - 0.85) < 0.09) & (np.mod(u, 0.42) < 0.27)
    return zigzag | rows, np.where(zigzag, 0.1, 0.9)


def cross_stitches(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """Nine cross stitches."""
    a, b = (np.mod((each + 1) * 1.5, 1) * 2 - 1 for each in (u, v))
    cell = np.floor((u + 1) * 1.5) + np.floor((v + 1) * 1.5)
    return (abs(abs(a) - abs(b)) < 0.3) & (np.maximum(abs(a), abs(b)) < 0.8), np.mod(cell, 2)


def shingles(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """Rows of shingles with round lower edges."""
    row = np.floor((v + 1) * 2)
    a, b = np.mod(u * 1.6 + 0.5 * np.mod(row, 2), 1) - 0.5, np.mod((v + 1) * 2, 1)
    gap = (abs(a) > 0.44) | (b > 0.55 + 0.4 * np.sqrt(np.maximum(0, 1 - 4 * a**2)))
    return np.maximum(abs(u), abs(v)) < 0.97, np.where(gap, 1.0, 0.45 * (1 - b))


def pantiles(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """Rows of S-shaped roof tiles."""
    edge = np.mod(v + 0.12 * np.sin(u * 11), 0.62) < 0.1
    return np.maximum(abs(u), abs(v)) < 0.97, np.where(edge, 1.0, 0.4 + 0.4 * np.sin(u * 11))


def fingers(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """Four fingers of a hand that holds something up."""
    inside, shade = np.zeros(u.shape, bool), np.zeros_like(u)
    for middle, tip in ((-0.73, -0.45), (-0.25, -0.85), (0.24, -0.95), (0.72, -0.6)):
        across, along = u - middle, np.minimum(v - tip - 0.22, 0)
        finger = np.hypot(across, along) < 0.22
        nail = np.hypot(across / 0.12, (v - tip - 0.17) / 0.13) < 1
        inside |= finger
        shade = np.where(finger, np.where(nail, 0.0, 0.25 + 3.2 * abs(across) * (abs(across) > 0.1)), shade)
    return inside, shade


def button(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """A button with four holes."""
    r = np.hypot(u, v)
    holes = np.hypot(abs(u) - 0.27, abs(v) - 0.27) < 0.15
    return (r < 0.97) & ~holes, np.where(abs(r - 0.72) < 0.07, 1.0, 0.15 * (1 - r))


def ladybird(u: Floats, v: Floats, rng: np.random.Generator) -> Drawing:
    """A ladybird from above."""
    body, head = np.hypot(u / 0.85, (v - 0.12) / 0.82) < 1, np.hypot(u / 0.45, (v + 0.72) / 0.28) < 1
    spots = np.zeros(u.shape, bool)
    for x, y in ((0.42, -0.2), (0.3, 0.5), (0.6, 0.2)):
        spots |= np.hypot(abs(u) - x, v - y) < 0.14
    return body | head, np.where(body & ~spots & (abs(u) > 0.05), 0.0, 1.0)


def _stroke(u: Floats, v: Floats, points: Sequence[tuple[float, float]], width: float) -> NDArray[np.bool_]:
    """Where a broken line through `points` passes, `width` to either side."""
    inside = np.zeros(u.shape, bool)
    for (x0, y0), (x1, y1) in pairwise(points):
        length = np.hypot(x1 - x0, y1 - y0)
        along = np.clip(((u - x0) * (x1 - x0) + (v - y0) * (y1 - y0)) / length**2, 0, 1)
        inside |= np.hypot(u - x0 - along * (x1 - x0), v - y0 - along * (y1 - y0)) < width
    return inside
