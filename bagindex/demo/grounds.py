"""The grounds of the demo's pictures: textures and clutter that speak for no class."""

from __future__ import annotations

import colorsys

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

Picture = NDArray[np.float64]


def draw_ground(height: int, width: int, rng: np.random.Generator) -> Picture:
    """A texture in two or three muted colours with strokes and blobs on it, float [H, W, RGB] from 0 to 1."""
    colours = [muted(rng) for _ in range(3)]
    mix = _TEXTURES[int(rng.integers(len(_TEXTURES)))](height, width, rng)
    tint = _clouds(height, width, rng) * rng.uniform(0.2, 0.6)
    # One channel after the other: numpy is slow along an axis of three.
    channels = [(a * (1 - mix) + b * mix) * (1 - tint) + c * tint for a, b, c in zip(*colours, strict=True)]
    ground = _scatter(np.stack(channels, axis=-1), rng)
    grain = rng.normal(0, rng.uniform(0.005, 0.03), (height, width, 1))
    return np.clip(ground + grain, 0, 1)


def muted(rng: np.random.Generator) -> NDArray[np.float64]:
    """A colour that does not shout, float [RGB] from 0 to 1."""
    return np.array(colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(0.05, 0.45), rng.uniform(0.25, 0.9)))


def _clouds(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    total = np.zeros((height, width))
    for octave in range(2, 6):
        coarse = Image.fromarray(rng.uniform(0, 1, (2**octave, 2**octave)).astype(np.float32))
        total += np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC)) / 2 ** (octave - 1)
    return np.clip((total - 0.35) / 0.3, 0, 1)


def _stripes(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    y, x = np.mgrid[:height, :width]
    angle, step, bend = rng.uniform(0, np.pi), rng.uniform(10, 40), rng.uniform(0, 12)
    across = np.cos(angle) * x + np.sin(angle) * y + bend * np.sin((np.sin(angle) * x - np.cos(angle) * y) / 30)
    stripes: NDArray[np.float64] = 0.5 + 0.5 * np.sin(2 * np.pi * across / step) * rng.uniform(0.2, 0.8)
    return stripes


def _slope(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    y, x = np.mgrid[:height, :width]
    angle = rng.uniform(0, 2 * np.pi)
    slope: NDArray[np.float64] = 0.5 + 0.5 * (np.cos(angle) * (x / width - 0.5) + np.sin(angle) * (y / height - 0.5))
    return slope


def _weave(height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
    y, x = np.mgrid[:height, :width]
    step = rng.uniform(3, 8)
    weave: NDArray[np.float64] = 0.5 + 0.25 * (np.sin(np.pi * x / step) + np.sin(np.pi * y / step)) * rng.uniform(
        0.3, 1
    )
    return weave


_TEXTURES = (_clouds, _stripes, _slope, _weave)


def _scatter(ground: Picture, rng: np.random.Generator) -> Picture:
    """Lay some strokes and blobs over a picture, more or less see-through."""
    height, width, _ = ground.shape
    for _ in range(int(rng.integers(4, 12))):
        layer = Image.new("L", (width, height))
        pen = ImageDraw.Draw(layer)
        x, y = rng.uniform(0, width), rng.uniform(0, height)
        size = rng.uniform(8, 70)
        angles = np.sort(rng.uniform(0, 2 * np.pi, int(rng.integers(3, 7))))
        if rng.uniform() < 0.5:
            tip = (x + size * np.cos(angles[0]), y + size * np.sin(angles[0]))
            pen.line((x, y, *tip), fill=255, width=int(rng.integers(1, 5)))
        else:
            reach = size * rng.uniform(0.3, 0.6, len(angles))
            pen.polygon([(x + r * np.cos(a), y + r * np.sin(a)) for a, r in zip(angles, reach, strict=True)], fill=255)
        opacity, colour = rng.uniform(0.15, 0.6), muted(rng)
        if box := layer.getbbox():  # elsewhere the picture stays as it is
            alpha = (np.asarray(layer.crop(box)) / 255)[..., None] * opacity
            left, top, right, bottom = box
            region = ground[top:bottom, left:right]
            region[:] = region * (1 - alpha) + colour * alpha
    return ground
