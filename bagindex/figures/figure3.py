"""The paper's Figure 3, from arrays: for each class its strongest patches in right and in wrong images, by model.

Figures are laid out in the pixels of a 300-dpi print, so that a pixel of a patch is a whole number of those and stays
sharp; text is vector text in SVG and PDF.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bagindex.errors import OutputError
from bagindex.figures.style import (
    DPI,
    FAINT,
    INK,
    RIGHT,
    RULE,
    SMALL,
    TEXT,
    WRONG,
    new_figure,
    style,
    to_bytes,
)
from bagindex.figures.text import inches, printable, shorten, wrap

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _MORE_WIDTH = 7.0, 2.5
"""Inches: of a figure of one model, and what each further model adds."""
_LARGEST, _SMALLEST = 0.81, 0.36
"""Inches of a patch with its border."""
_PAGE = 9.5
"""Inches: the height of a page of a PDF."""
_NAMES, _LEAST_NAMES, _AFTER_NAMES = 270, 60, 30
_SIDEWORD = 34
_MARGIN = 24
_GAP = 14
_MODEL_GAP = 60
_CLASS_GAP = 46
_BORDER = 5
_LINE = 31
_UNDER = 9
_HEAD = 56
_MOST_SIDE, _MOST_PIXELS = 2**16 - 1, 300_000_000
_MOST_LETTERS = 80


@dataclass(frozen=True)
class Tile:
    """A patch, uint8 [q, q, RGB], and the lines that stand under it, the last of them in grey."""

    pixels: NDArray[np.uint8]
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Strip:
    """Patches beside each other; `remark` stands where there are fewer than were asked for."""

    tiles: Sequence[Tile]
    remark: str = ""


@dataclass(frozen=True)
class Row:
    """A class: a strip for each model from images of the class, and one from images of others."""

    name: str
    right: Sequence[Strip]
    wrong: Sequence[Strip]


def to_png(rows: Sequence[Row], models: Sequence[str]) -> bytes:
    """One picture, however tall.

    Raises:
        OutputError: it is larger than a picture can be.
    """
    with style():
        layout = _Layout.of(rows, models)
        width, height = layout.width, layout.height(rows)
        if max(width, height) > _MOST_SIDE or width * height > _MOST_PIXELS:
            raise OutputError(
                "this figure is too large for one picture: ask for fewer classes or patches, or for .html"
            )
        return to_bytes(_draw(rows, models, layout), "png")


def to_svg(rows: Sequence[Row], models: Sequence[str]) -> bytes:
    """One drawing, however tall."""
    with style():
        return to_bytes(_draw(rows, models, _Layout.of(rows, models)), "svg")


def to_pdf(rows: Sequence[Row], models: Sequence[str]) -> bytes:
    """Pages that a class is never broken over, each with the models' names on top."""
    from matplotlib.backends.backend_pdf import PdfPages

    data = io.BytesIO()
    with style(), PdfPages(data, metadata={"CreationDate": None}) as pages:
        layout = _Layout.of(rows, models)
        for page in layout.pages(rows):
            pages.savefig(_draw(page, models, layout), dpi=DPI)
    return data.getvalue()


@dataclass(frozen=True)
class _Layout:
    """Pixels: a patch with its border, and the classes' names; patches beside each other, models, and lines under
    right and under wrong patches.
    """

    side: int
    names: int
    places: int
    models: int
    lines: tuple[int, int]

    @classmethod
    def of(cls, rows: Sequence[Row], models: Sequence[str]) -> _Layout:
        strips = [
            (strip, right) for row in rows for right in (True, False) for strip in (row.right, row.wrong)[not right]
        ]
        places = max([1, *(len(strip.tiles) + bool(strip.remark) for strip, _ in strips)])
        lines = [
            max([1, *(len(tile.lines) for strip, right in strips if right is wanted for tile in strip.tiles)])
            for wanted in (True, False)
        ]
        nominal = _WIDTH + _MORE_WIDTH * (len(models) - 1)
        widest = max((inches(line, TEXT) for row in rows for line in _wrap(row.name).splitlines()), default=0)
        names = max(_LEAST_NAMES, int(widest * DPI)) + _AFTER_NAMES
        free = nominal * DPI - 2 * _MARGIN - names - len(models) * (_SIDEWORD + _MODEL_GAP) + _MODEL_GAP
        wanted = int(free / len(models) + _GAP) // places - _GAP
        wanted = int(min(max(wanted, _SMALLEST * DPI), _LARGEST * DPI)) - 2 * _BORDER
        fields = {tile.pixels.shape[0] for strip, _ in strips for tile in strip.tiles}
        return cls(common_side(fields, wanted) + 2 * _BORDER, names, places, len(models), (lines[0], lines[1]))

    @property
    def column(self) -> int:
        return self.places * (self.side + _GAP) - _GAP

    @property
    def width(self) -> int:
        return 2 * _MARGIN + self.names + self.models * (_SIDEWORD + self.column + _MODEL_GAP) - _MODEL_GAP

    @property
    def subrows(self) -> tuple[int, int]:
        first, second = (self.side + _UNDER + lines * _LINE for lines in self.lines)
        return first + _GAP, second

    def height(self, rows: Sequence[Row]) -> int:
        return 2 * _MARGIN + _HEAD + len(rows) * (sum(self.subrows) + _CLASS_GAP) - _CLASS_GAP

    def pages(self, rows: Sequence[Row]) -> Iterator[Sequence[Row]]:
        each = max(1, int(_PAGE * DPI - _HEAD - 2 * _MARGIN + _CLASS_GAP) // (sum(self.subrows) + _CLASS_GAP))
        for first in range(0, len(rows), each):
            yield rows[first : first + each]


def common_side(fields: set[int], wanted: int) -> int:
    """A size, of about `wanted` pixels, into which whole multiples of all these numbers of pixels fit well."""

    def loss(side: int) -> float:
        rest = max((side % field for field in fields), default=0)
        return rest / side + 0.1 * abs(side - wanted) / wanted

    least = max([1, int(0.75 * wanted), *fields])
    return min(range(least, max(least, int(1.15 * wanted)) + 1), key=loss)


def enlarge(pixels: NDArray[np.uint8], side: int, colour: str) -> NDArray[np.uint8]:
    """A patch, uint8 [q, q, RGB], at the largest whole multiple that fits, in a frame of `side` pixels: uint8
    [side, side, RGB].
    """
    from matplotlib.colors import to_rgb

    frame = np.empty((side, side, 3), np.uint8)
    frame[:] = np.round(np.array(to_rgb(colour)) * 255)
    factor = max(1, (side - 2 * _BORDER) // pixels.shape[0])
    large = pixels.repeat(factor, axis=0).repeat(factor, axis=1)
    first = (side - large.shape[0]) // 2
    frame[first : first + large.shape[0], first : first + large.shape[1]] = large
    return frame


def _draw(rows: Sequence[Row], models: Sequence[str], layout: _Layout) -> Figure:
    width, height = layout.width, layout.height(rows)
    # A hundredth of a pixel more, since half a pixel less than a whole number would be cut to one pixel less.
    figure = new_figure((width + 0.01) / DPI, (height + 0.01) / DPI)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    first, step = _MARGIN + layout.names + _SIDEWORD, layout.column + _SIDEWORD + _MODEL_GAP
    lefts = [first + number * step for number in range(len(models))]
    for left, model in zip(lefts, models, strict=True):
        middle = left + layout.column / 2
        axes.text(middle, _MARGIN, _fit(model, layout.column), size=TEXT, weight="bold", ha="center", va="top")
    top = _MARGIN + _HEAD
    for number, row in enumerate(rows):
        if number:
            y = top - _CLASS_GAP / 2
            axes.plot([_MARGIN, width - _MARGIN], [y, y], color=RULE, linewidth=0.4)
        middle = top + layout.subrows[0] - _GAP / 2
        axes.text(_MARGIN, middle, _wrap(row.name), size=TEXT, va="center", linespacing=1.25)
        for strips, colour, word in ((row.right, RIGHT, "right class"), (row.wrong, WRONG, "wrong class")):
            for left, strip in zip(lefts, strips, strict=True):
                shown = _fit(word, layout.side) if _fit(word, layout.side) == word else word.split()[0]
                x, y = left - _SIDEWORD + 2, top + layout.side / 2
                axes.text(x, y, shown, size=SMALL, color=colour, rotation=90, ha="left", va="center")
                _draw_strip(axes, strip, left, top, layout, colour)
            top += layout.subrows[0] if colour == RIGHT else layout.subrows[1] + _CLASS_GAP
    axes.set_xlim(0, width + 0.01)
    axes.set_ylim(height + 0.01, 0)
    return figure


def _draw_strip(axes: Axes, strip: Strip, left: int, top: int, layout: _Layout, colour: str) -> None:
    side = layout.side
    for tile in strip.tiles:
        frame = enlarge(tile.pixels, side, colour)
        extent = (left, left + side, top + side, top)
        axes.imshow(frame, extent=extent, interpolation="none", aspect="auto", resample=False)
        for number, line in enumerate(tile.lines):
            ink = FAINT if number == len(tile.lines) - 1 else INK
            y = top + side + _UNDER + number * _LINE
            axes.text(left + side / 2, y, _fit(line, side + 2), size=SMALL, color=ink, ha="center", va="top")
        left += side + _GAP
    if strip.remark:
        room = (layout.places - len(strip.tiles)) * (side + _GAP) - _GAP
        text = _wrap(strip.remark, room - 16, SMALL, 4)
        axes.text(left + 8, top + side / 2, text, size=SMALL, color=FAINT, style="italic", va="center", linespacing=1.3)


@lru_cache(4096)
def _fit(text: str, width: int, size: float = SMALL) -> str:
    return shorten(printable(text)[:_MOST_LETTERS], width / DPI, size)


@lru_cache(4096)
def _wrap(text: str, width: int = _NAMES, size: float = TEXT, most: int = 4) -> str:
    """Lines that fit into so many dots, the last one cut where there would be more than `most`."""
    return "\n".join(wrap(printable(text)[: most * _MOST_LETTERS], width / DPI, size, most))
