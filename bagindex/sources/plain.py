"""Pixels as a file: PPM, whose bytes are the same wherever it is written."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def as_ppm(pixels: NDArray[np.uint8]) -> bytes:
    """A PPM file of pixels, uint8 [height, width, RGB], or [height, width] for grey."""
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[:, :, None], 3, axis=2)
    return _head(pixels.shape) + pixels.tobytes()


def ppm_bytes(height: int, width: int) -> int:
    """Bytes of such a file."""
    return len(_head((height, width))) + 3 * height * width


def _head(shape: tuple[Any, ...]) -> bytes:
    return b"P6\n%d %d\n255\n" % (shape[1], shape[0])
