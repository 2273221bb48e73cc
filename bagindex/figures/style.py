"""How figures look: fonts, colours, sizes; and how they become files."""

from __future__ import annotations

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from bagindex.fonts import FAMILIES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

INK = "#18181b"
FAINT = "#71717a"
RULE = "#d4d4d8"
PAPER = "#ffffff"
RIGHT = "#0072b2"
WRONG = "#d55e00"
"""Colours of images of the class and of others: blue and vermilion of Okabe and Ito, apart for colour-blind eyes."""
FOR, AGAINST = "#b2182b", "#2166ac"
"""Colours of what speaks for a class and against it: near the ends of the map's."""
DIVERGING = "RdBu_r"
"""Evidence for a class is red, against it blue, none white; equally dark on both sides, in print and for most eyes."""
TEXT = 8.0
SMALL = 6.5
TITLE = 9.0
"""Points. A figure is drawn at the size at which it is printed."""
DPI = 300
FORMATS = ("png", "svg", "pdf")


@contextmanager
def style() -> Iterator[None]:
    """matplotlib's settings for all figures; draw and save inside."""
    import matplotlib
    from matplotlib.font_manager import fontManager

    there = {font.name for font in fontManager.ttflist}
    settings = {
        # The generic name at the end is for an SVG on a machine that has none of these.
        "font.family": [*(family for family in FAMILIES if family in there), "sans-serif"],
        "font.sans-serif": [FAMILIES[0]],
        "font.size": TEXT,
        "axes.titlesize": TITLE,
        "axes.labelsize": TEXT,
        "axes.edgecolor": RULE,
        "axes.labelcolor": INK,
        "axes.linewidth": 0.6,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "xtick.labelsize": SMALL,
        "ytick.labelsize": SMALL,
        "xtick.color": FAINT,
        "ytick.color": FAINT,
        "text.color": INK,
        "text.hinting": "no_hinting",  # or a text is wider the fewer dots there are per inch
        "text.parse_math": False,  # a class may be called "$5"
        "figure.facecolor": PAPER,
        "savefig.facecolor": PAPER,
        "image.interpolation": "nearest",
        "svg.fonttype": "none",
        "svg.hashsalt": "bagindex",
        "pdf.fonttype": 42,
    }
    with matplotlib.rc_context(settings), warnings.catch_warnings():  # type: ignore[arg-type]
        # Characters that no font here has show as boxes; a figure is no place to warn of each.
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def new_figure(width: float, height: float) -> Figure:
    """An empty figure of so many inches, of no window system: figures are made in threads and services too."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height))


def to_picture(figure: Figure, width: int | None = None) -> Image.Image:
    """A figure as a picture, at most so many pixels wide; by default at `DPI`."""
    from PIL import Image

    inches = float(figure.get_figwidth())
    dpi = DPI if width is None else max(1, min(DPI, int(width / inches)))
    return Image.open(io.BytesIO(to_bytes(figure, "png", dpi)))


def to_bytes(figure: Figure, kind: str, dpi: int = DPI) -> bytes:
    """A figure as a `png`, `svg` or `pdf` file; the same figure gives the same bytes."""
    data = io.BytesIO()
    metadata = {"png": {"Software": None}, "svg": {"Date": None}, "pdf": {"CreationDate": None}}[kind]
    figure.savefig(data, format=kind, dpi=dpi, metadata=metadata)
    return data.getvalue()
