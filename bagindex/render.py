"""Arrays in, pictures out. Pure functions."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_SIDE = 176
_GUTTER = 14
_INK = (24, 24, 27)
_FAINT = (113, 113, 122)
_PAPER = (255, 255, 255)
_PER_ROW = 10
_TEXT = 13
_LINE = 17


@dataclass(frozen=True)
class Caption:
    """What stands under a patch: rank and logit, the image's label, what the model predicts, the patch's id."""

    rank: int
    logit: float
    label: str | None
    predicted: str
    patch_id: int

    def lines(self) -> tuple[tuple[str, tuple[int, int, int]], ...]:
        """Lines of text and their colours."""
        return (
            (f"{self.rank} · {self.logit:.2f}", _INK),
            ("unlabelled" if self.label is None else self.label, _INK),
            (f"predicted {self.predicted}", _FAINT),
            (f"patch {self.patch_id}", _FAINT),
        )


def patch_sheet(crops: Sequence[NDArray[np.uint8]], captions: Sequence[Caption], title: str) -> Image.Image:
    """Patches in rows of up to ten, enlarged, with a caption under each.

    Args:
        crops: the patches' pixels, uint8 [q, q, RGB].
        captions: what is written under them, in the same order.
        title: what is written above.
    """
    scale = max(1, round(_SIDE / crops[0].shape[0])) if len(crops) else 1
    side = crops[0].shape[0] * scale + 2 if len(crops) else _SIDE
    per_row = min(_PER_ROW, max(1, len(crops)))
    rows = -(-len(crops) // per_row) if len(crops) else 1
    head = 2 * _GUTTER + _LINE
    step = side + 4 * _LINE + _GUTTER
    title_width = int(_font(_TEXT + 2).getlength(title))
    width = max(_GUTTER + per_row * (side + _GUTTER), title_width + 2 * _GUTTER)
    sheet = Image.new("RGB", (width, head + rows * step if len(crops) else head + 2 * _LINE), _PAPER)
    draw = ImageDraw.Draw(sheet)
    draw.text((_GUTTER, _GUTTER), title, fill=_INK, font=_font(_TEXT + 2))
    if not len(crops):
        draw.text((_GUTTER, head), "no such patch", fill=_FAINT, font=_font(_TEXT))
    for i, (crop, caption) in enumerate(zip(crops, captions, strict=True)):
        x = _GUTTER + i % per_row * (side + _GUTTER)
        y = head + i // per_row * step
        # Nearest neighbour: every square is one pixel that the model saw.
        picture = Image.fromarray(crop).resize((side - 2, side - 2), Image.Resampling.NEAREST)
        draw.rectangle((x, y, x + side - 1, y + side - 1), outline=_INK)
        sheet.paste(picture, (x + 1, y + 1))
        for number, (text, colour) in enumerate(caption.lines()):
            draw.text((x, y + side + 3 + number * _LINE), _fit(text, side), fill=colour, font=_font(_TEXT))
    return sheet


def to_png(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    data = io.BytesIO()
    picture.save(data, "PNG", optimize=True)
    return data.getvalue()


def _fit(text: str, width: int) -> str:
    text = " ".join(text.split())
    if _font(_TEXT).getlength(text) <= width:
        return text
    while text and _font(_TEXT).getlength(text + "…") > width:
        text = text[:-1]
    return text + "…"


@lru_cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
