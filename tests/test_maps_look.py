"""Heatmaps and explanations look as they did."""

from __future__ import annotations

import numpy as np
import pytest

from bagindex.figures.explain import Block, Side, explain_figure
from bagindex.figures.heatmap import Overlay, Panel, heatmap_figure
from bagindex.figures.style import style, to_bytes
from bagindex.geometry import cut
from looks import look_at

HEIGHT, WIDTH, CELLS, STEP, BORDER = 120, 160, (12, 16), 8, 12


def picture() -> np.ndarray:
    """A disk on a slope, uint8 [height, width, RGB]."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    disk = (y - 60) ** 2 + (x - 90) ** 2 < 40**2
    slope = np.stack([x, 200 - x, y], axis=2).astype(np.float64)
    return np.where(disk[..., None], (240, 200, 40), slope).astype(np.uint8)


def values(phase: float) -> np.ndarray:
    y, x = np.mgrid[: CELLS[0], : CELLS[1]]
    found: np.ndarray = (8 * np.sin(y / 2 + phase) * np.cos(x / 3 - phase)).astype(np.float32)
    return found


def overlay(beneath: str) -> Overlay:
    return Overlay((HEIGHT, WIDTH), (BORDER, BORDER), STEP, picture(), beneath, 0.9)


@pytest.mark.parametrize(("beneath", "shared"), [("edges", False), ("image", True)])
def test_heatmap(beneath: str, shared: bool) -> None:
    names = ("dress", "American Staffordshire terrier", "日本語")
    panels = [Panel(name, f"+{i}.25 · 9{i} %", values(i), 8.0 if shared else 4.0 + i) for i, name in enumerate(names)]
    with style():
        figure = heatmap_figure(panels, overlay(beneath), "a/picture.jpg · bagnet33", ("labelled dress", ""), shared)
        look_at(to_bytes(figure, "png"), f"heatmap-{beneath}")


def test_explanation() -> None:
    boxes = [(8 * i, 16 * i, 8 * i + 33, 16 * i + 33) for i in range(3)]
    crops = [cut(picture(), box) for box in boxes]
    numbers = ["+9.5", "+8.0", "−7.5"]
    sides = [Side(name, "+1.50 · 60 %", values(i), boxes, crops, numbers) for i, name in enumerate("ABC")]
    words = "The image is labelled A and predicted B. " + "B leads by 1.50. " * 12
    block = Block("a/picture.jpg · bagnet33", ("labelled A", "predicted B"), sides, 8.0, words, overlay("edges"), 3)
    with style():
        look_at(to_bytes(explain_figure([block]), "png"), "explain")
