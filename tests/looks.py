"""Pictures that look as they did, for tests."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

SHRUNK = 4
"""References are so much smaller than what is drawn."""


def look_at(png: bytes, name: str) -> None:
    """Compare with the reference of that name: blurred, so that other versions of fonts and libraries may draw letters
    a little differently.
    """
    with Image.open(io.BytesIO(png)) as picture:
        assert picture.format == "PNG"
        drawn = picture.convert("RGB")
    with Image.open(Path(__file__).parent / "reference" / f"{name}.png") as picture:
        expected = np.asarray(picture.convert("RGB"), np.float64)
    assert abs(drawn.width / SHRUNK - expected.shape[1]) < 8
    assert abs(drawn.height / SHRUNK - expected.shape[0]) < 2
    small = np.asarray(drawn.resize(expected.shape[1::-1], Image.Resampling.BOX), np.float64)
    difference = np.abs(small - expected).mean(axis=2)
    assert difference.mean() < 2
    assert (difference > 60).mean() < 0.01
