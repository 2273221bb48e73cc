"""What figures of evidence are put together from: colours over a picture, panels, colour bars. Sizes are in inches."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.figures.style import DIVERGING, FAINT, INK, RULE, SMALL
from bagindex.figures.text import printable, shorten
from bagindex.geometry import Box
from bagindex.text import minus_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PERCENTILE = 99.0
"""A map's colours end at this percentile of its magnitudes: single patches must not make all others pale."""
GUTTER = 0.14
LINE = 0.135
"""Of small text."""
BAR = 0.07
TICKS = 0.17
_FINER = 2
"""Overlays have so many pixels for one of the input's: then the borders of patches of odd size lie between pixels."""
_DARKEST = 0.5
"""What black becomes beneath colours, of 1: they would not show on it."""
_EDGE = 0.55


def colour_limits(values: NDArray[np.float32], shared: bool = False) -> NDArray[np.float32]:
    """Where the colours end, on both sides of zero: float32 [C], each above zero.

    Args:
        values: float [C, rows, cols].
        shared: one limit for all classes.
    """
    magnitudes = np.abs(values).reshape(1 if shared else len(values), -1)
    limits: NDArray[np.floating] = np.percentile(magnitudes, PERCENTILE, axis=1)
    limits = np.where(limits > 0, limits, magnitudes.max(axis=1))
    limits = np.where(limits > 0, limits, 1.0)
    ends: NDArray[np.float32] = np.broadcast_to(limits, len(values)).astype(np.float32)
    return ends


def edges(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much of an edge each pixel is, from 0 to 1: float32 [height, width], from grey levels 0 to 255."""
    from scipy.ndimage import gaussian_gradient_magnitude  # type: ignore[import-untyped]

    slope = gaussian_gradient_magnitude(grey, 3.0, mode="nearest")
    # A picture without edges must not show its noise: a slope of 4 grey levels a pixel is an edge in any.
    strong = max(float(np.percentile(slope, 99)), 4.0)
    drawn: NDArray[np.float32] = np.clip(slope / strong, 0, 1).astype(np.float32) ** 2
    return drawn


def overlay(
    values: NDArray[np.float32],
    limit: float,
    shape: tuple[int, int],
    first: tuple[float, float],
    step: int,
    pixels: NDArray[np.uint8] | None = None,
    beneath: str = "none",
    alpha: float = 1.0,
) -> NDArray[np.uint8]:
    """A map in colours, over the image in grey, its edges, or white.

    Args:
        values: logits, float [rows, cols].
        limit: logit of the darkest colour.
        shape: height and width of the input in pixels.
        first: y and x of the upper left corner of the first value's square in the input.
        step: side of each value's square.
        pixels: the input, uint8 [height, width, RGB]; needed unless `beneath` is `none`.
        beneath: `image`, `edges` or `none`.
        alpha: strength of the colours, 0 to 1.

    Returns:
        uint8 [2 · height, 2 · width, RGB]. Colours multiply what is beneath: where the evidence is zero, or where no
        patch has its middle, it shows as it is.
    """
    from matplotlib import colormaps

    height, width = _FINER * shape[0], _FINER * shape[1]
    ground: NDArray[np.floating] = np.ones((height, width), np.float32)
    if pixels is not None and beneath != "none":
        grey = _grey(pixels)
        ground = _DARKEST + (1 - _DARKEST) * grey / 255 if beneath == "image" else 1 - _EDGE * edges(grey)
    side = _FINER * step
    colours = colormaps[DIVERGING](np.clip(values / limit, -1, 1) / 2 + 0.5)[..., :3].astype(np.float32)
    squares = np.repeat(np.repeat(1 - alpha * (1 - colours), side, 0), side, 1)
    top, left = round(_FINER * first[0]), round(_FINER * first[1])
    # Where the model pads its input, the first and last squares lie beyond it in part.
    squares = squares[max(-top, 0) : max(height - top, 0), max(-left, 0) : max(width - left, 0)]
    top, left = max(top, 0), max(left, 0)
    picture = np.repeat(ground[..., None], 3, 2)
    picture[top : top + len(squares), left : left + squares.shape[1]] *= squares
    levels: NDArray[np.uint8] = np.rint(255 * np.clip(picture, 0, 1)).astype(np.uint8)
    return levels


def _grey(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Enlarged, 0 to 255."""
    from PIL import Image

    size = (_FINER * pixels.shape[1], _FINER * pixels.shape[0])
    picture = Image.fromarray(np.array(pixels)).convert("L").resize(size, Image.Resampling.BICUBIC)
    return np.asarray(picture, dtype=np.float32)


def panel_size(shape: tuple[int, int], side: float) -> tuple[float, float]:
    """Width and height of a panel for an input of `shape` (height, width) whose longer side is `side`."""
    scale = side / max(shape)
    return shape[1] * scale, shape[0] * scale


def place(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at so many inches from the figure's upper left corner, with nothing drawn in them."""
    total_width, total_height = figure.get_size_inches()
    bottom = total_height - top - height
    axes = figure.add_axes((left / total_width, bottom / total_height, width / total_width, height / total_height))
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(True)
        spine.set_color(RULE)
    return axes


def write(
    figure: Figure, left: float, top: float, text: str, width: float, colour: str = INK, size: float = SMALL
) -> None:
    """A line of text whose upper end is `top` inches below the figure's; cut where it is wider than `width`."""
    total_width, total_height = figure.get_size_inches()
    figure.text(
        left / total_width,
        1 - (top + 0.6 * LINE) / total_height,
        shorten(printable(text), width, size),
        color=colour,
        fontsize=size,
        ha="left",
        va="center_baseline",
    )


def show(axes: Axes, picture: NDArray[np.uint8], shape: tuple[int, int], smooth: bool = False) -> None:
    """A picture that fills its axes, whose coordinates are pixels of the input of `shape` (height, width)."""
    axes.imshow(
        picture, extent=(0, shape[1], shape[0], 0), aspect="auto", interpolation="antialiased" if smooth else "nearest"
    )


def outline(axes: Axes, boxes: Sequence[Box], colour: str = INK) -> None:
    """Patches' borders, numbered by rank."""
    from matplotlib.patches import Rectangle

    for rank, (x0, y0, x1, y1) in enumerate(boxes, start=1):
        for line, edge in ((1.6, "white"), (0.7, colour)):
            axes.add_patch(
                Rectangle((x0, y0), x1 - x0, y1 - y0, fill=False, linewidth=line, edgecolor=edge, joinstyle="miter")
            )
        tag(axes, x0, y0, rank, colour)


def tag(axes: Axes, x: float, y: float, rank: int, colour: str = INK) -> None:
    """A rank, in a small box at a patch's upper left corner."""
    axes.annotate(
        str(rank),
        (x, y),
        (1.6, -1.6),
        textcoords="offset points",
        fontsize=5.5,
        color="white",
        ha="left",
        va="top",
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8},
    )


def colour_bar(figure: Figure, left: float, top: float, width: float, limit: float) -> None:
    """A colour bar from -limit to limit, with ticks at zero and at a round number on both sides."""
    axes = place(figure, left, top, width, BAR)
    axes.imshow(np.linspace(-1, 1, 256)[None], cmap=DIVERGING, extent=(-limit, limit, 0, 1), aspect="auto")
    tick = round_below(limit)
    axes.set_xticks([-tick, 0, tick], [f"−{tick:g}", "0", f"+{tick:g}"])
    axes.tick_params(length=2, width=0.6, pad=1.5, labelsize=SMALL, color=RULE, labelcolor=FAINT)


def number(value: float, digits: int = 2) -> str:
    """A logit with its sign, with a minus that is as wide as the plus."""
    return minus_text(f"{value:+.{digits}f}")


def percent(probability: float) -> str:
    """A probability for people; one that is not certain is not 0 or 100 %."""
    share = 100 * probability
    if share < 0.1:
        return "< 0.1 %"
    return "> 99.9 %" if share > 99.9 else f"{share:.1f} %"


def round_below(limit: float) -> float:
    """A number of one digit, the largest that is some way below `limit` > 0: its tick has room beside it."""
    most = 0.85 * limit
    power = 10.0 ** np.floor(np.log10(most))
    return float(f"{max(each for each in (1, 2, 3, 4, 5, 6, 8) if each * power <= most * (1 + 1e-9)) * power:.1g}")
