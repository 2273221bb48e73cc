"""Arrays in, pictures out. Pure functions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from bagindex.fonts import draw_text, fit, text_width

_SIDE = 176
_GUTTER = 14
_INK = (24, 24, 27)
_FAINT = (113, 113, 122)
_PAPER = (255, 255, 255)
_PER_ROW = 11
_COARSE_SIDE = 33
_COARSE_GUTTER = 2
_TEXT = 13
_LINE = 17


@dataclass(frozen=True)
class Caption:
    """What stands under a patch: a word or its rank, what it is ranked by, the image's label, what the model predicts,
    the patch's id.
    """

    short: str
    value: str
    label: str | None
    predicted: str
    patch_id: int | None

    def lines(self) -> tuple[tuple[str, tuple[int, int, int]], ...]:
        """Lines of text and their colours."""
        return (
            (f"{self.short} · {self.value}" if self.value else self.short, _INK),
            ("unlabelled" if self.label is None else self.label, _INK),
            (f"predicted {self.predicted}", _FAINT),
            ("" if self.patch_id is None else f"patch {self.patch_id}", _FAINT),
        )


def patch_sheet(
    crops: Sequence[NDArray[np.uint8]], captions: Sequence[Caption], title: str, width: int | None = None
) -> Image.Image:
    """Patches in rows of up to eleven, enlarged, with a caption under each.

    Args:
        crops: the patches' pixels, uint8 [q, q, RGB].
        captions: what is written under them, in the same order.
        title: what is written above.
        width: at most so many pixels wide: fewer patches stand in a row, and a patch is less enlarged.
    """
    room = None if width is None else max(1, width - 2 * _GUTTER)
    side = _enlarged(crops, _SIDE, room and max(1, room - 2)) + 2
    per_row = min(_PER_ROW, max(1, len(crops)))
    if room is not None:
        per_row = min(per_row, max(1, (room + _GUTTER) // (side + _GUTTER)))
        title = fit(title, _TEXT + 2, max(side, room))
    inner = max(per_row * (side + _GUTTER) - _GUTTER, int(text_width(title, _TEXT + 2)) + 1)
    rows = -(-len(crops) // per_row) if len(crops) else 1
    head = 2 * _GUTTER + _LINE
    step = side + 4 * _LINE + _GUTTER
    sheet = Image.new("RGB", (inner + 2 * _GUTTER, head + rows * step if len(crops) else head + 2 * _LINE), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw_text(draw, (_GUTTER, _GUTTER), title, _INK, _TEXT + 2)
    if not len(crops):
        draw_text(draw, (_GUTTER, head), "no such patch", _FAINT, _TEXT)
    for i, (crop, caption) in enumerate(zip(crops, captions, strict=True)):
        x = _GUTTER + i % per_row * (side + _GUTTER)
        y = head + i // per_row * step
        draw.rectangle((x, y, x + side - 1, y + side - 1), outline=_INK)
        sheet.paste(_resized(crop, side - 2), (x + 1, y + 1))
        for number, (text, colour) in enumerate(caption.lines()):
            draw_text(draw, (x, y + side + 3 + number * _LINE), fit(text, _TEXT, side), colour, _TEXT)
    return sheet


def coarse_sheet(crops: Sequence[NDArray[np.uint8]], captions: Sequence[str], width: int) -> Image.Image:
    """Patches for a picture of few pixels, such as one of half characters: hardly enlarged, with a few letters below.

    Args:
        crops: the patches' pixels, uint8 [q, q, RGB].
        captions: the letters, in the same order.
        width: at most so many pixels wide.
    """
    side = _enlarged(crops, _COARSE_SIDE, width)
    per_row = max(1, (width + _COARSE_GUTTER) // (side + _COARSE_GUTTER))
    rows = [list(zip(crops, captions, strict=True))[i : i + per_row] for i in range(0, len(crops), per_row)]
    font = ImageFont.load_default_imagefont()  # made of whole pixels: legible without half tones
    line = 11
    step = side + line + 1
    across = min(per_row, len(crops)) * (side + _COARSE_GUTTER) - _COARSE_GUTTER
    sheet = Image.new("RGB", (max(1, across), max(1, len(rows) * step)), _PAPER)
    draw = ImageDraw.Draw(sheet)
    for number, row in enumerate(rows):
        for place, (crop, caption) in enumerate(row):
            x, y = place * (side + _COARSE_GUTTER), number * step
            sheet.paste(_resized(crop, side), (x, y))
            draw.text((x, y + side), caption, fill=_INK, font=font)
    return sheet


def coarse_strip(crops: Sequence[NDArray[np.uint8]], width: int) -> Image.Image:
    """Patches for a picture of few pixels beside each other, as many as fit into `width` pixels, hardly enlarged."""
    side = _enlarged(crops, _COARSE_SIDE, width)
    fitting = crops[: max(1, (width + _COARSE_GUTTER) // (side + _COARSE_GUTTER))]
    strip = Image.new("RGB", (max(1, len(fitting) * (side + _COARSE_GUTTER) - _COARSE_GUTTER), side), _PAPER)
    for place, crop in enumerate(fitting):
        strip.paste(_resized(crop, side), (place * (side + _COARSE_GUTTER), 0))
    return strip


def stack(pictures: Sequence[Image.Image], headings: Sequence[str]) -> Image.Image:
    """Pictures of few pixels below each other, at the left, each with a heading in letters of whole pixels."""
    font = ImageFont.load_default_imagefont()
    texts = [heading.encode("latin-1", "replace").decode("latin-1") for heading in headings]
    line = 12
    width = max(each.width for each in pictures)
    stacked = Image.new("RGB", (width, sum(each.height + line + _COARSE_GUTTER for each in pictures)), _PAPER)
    draw = ImageDraw.Draw(stacked)
    y = 0
    for each, text in zip(pictures, texts, strict=True):
        draw.text((0, y), text, fill=_INK, font=font)
        stacked.paste(each, (0, y + line))
        y += each.height + line + _COARSE_GUTTER
    return stacked


def _enlarged(crops: Sequence[NDArray[np.uint8]], side: int, room: int | None = None) -> int:
    """A whole multiple of the patches' side, near `side`; less than once only where there is not room for that."""
    if not len(crops):
        return side
    own = int(crops[0].shape[0])
    times = max(1, round(side / own))
    return own * times if room is None else min(own * min(times, max(1, room // own)), room)


def _resized(crop: NDArray[np.uint8], side: int) -> Image.Image:
    picture = Image.fromarray(crop)
    # Nearest neighbour: every square is one pixel that the model saw.
    how = Image.Resampling.NEAREST if side >= picture.width else Image.Resampling.BOX
    return picture.resize((side, side), how)


def to_png(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return data.getvalue()
