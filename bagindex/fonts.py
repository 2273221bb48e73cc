"""Text in pictures: every character in the first font that has it.

matplotlib's DejaVu Sans comes first, taken as a file: importing matplotlib would take longer than drawing. What it
lacks (Chinese, Japanese, Korean, …) is drawn in what the system has; where it has nothing, as boxes.
"""

from __future__ import annotations

import subprocess
import unicodedata
from bisect import bisect
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from PIL import ImageDraw, ImageFont

FAMILIES = (
    *("DejaVu Sans", "Noto Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "IPAexGothic"),
    *("WenQuanYi Zen Hei", "Droid Sans Fallback", "Hiragino Sans", "Arial Unicode MS"),
)
"""The first that has a character shows it; those that are not installed are left out."""
_FILES = (
    *("Arial Unicode.ttf", "Hiragino Sans GB.ttc", "AppleSDGothicNeo.ttc", "NotoSansCJK-Regular.ttc"),
    *("ipaexg.ttf", "wqy-zenhei.ttc", "DroidSansFallbackFull.ttf", "DroidSansFallback.ttf"),
)
"""Looked for in the system's usual folders where there is no fontconfig, as on macOS."""
_NO_CHARACTER = "\U0010ffff"
_ASKED_SIZE = 20

Face = tuple[str, int]
"""A font's file and its place in it; ("", 0) is Pillow's own."""
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int]


def text_width(text: str, size: int) -> float:
    """How many pixels wide a line of text is, `size` pixels high."""
    return sum(_font(face, size).getlength(part) for face, part in _parts(text))


def draw_text(draw: ImageDraw.ImageDraw, place: tuple[float, float], text: str, fill: Colour, size: int) -> None:
    """Draw a line of text; `place` (x, y) is its upper left corner."""
    x, y = place
    first = _font(_first(), size)
    # All fonts stand on the line on which the first one stands.
    baseline = y + first.getmetrics()[0] if isinstance(first, ImageFont.FreeTypeFont) else y
    for face, part in _parts(text):
        font = _font(face, size)
        if isinstance(font, ImageFont.FreeTypeFont):
            draw.text((x, baseline), part, fill=fill, font=font, anchor="ls")
        else:
            draw.text((x, y), part, fill=fill, font=font)
        x += font.getlength(part)


def fit(text: str, size: int, width: float) -> str:
    """A text on one line that fits into so many pixels, cut with an ellipsis where it does not."""
    text = " ".join(text.split())
    if text_width(text, size) <= width:
        return text
    length = bisect(range(1, len(text)), width, key=lambda length: text_width(text[:length] + "…", size))
    return text[:length].rstrip() + "…"


def _parts(text: str) -> Iterator[tuple[Face, str]]:
    """A text on one line in pieces, each in one font."""
    text = " ".join(text.split())
    if text.isascii():
        yield _first(), text
        return
    face, begin = _first(), 0
    for i, character in enumerate(text):
        # Spaces and marks stay with what they follow, so that words are shaped whole.
        if character.isspace() or unicodedata.category(character) in ("Mn", "Mc", "Me", "Cf"):
            continue
        wanted = face if face != _first() and _has(face, character) and not character.isascii() else _face(character)
        if wanted != face:
            if begin < i:
                yield face, text[begin:i]
            face, begin = wanted, i
    yield face, text[begin:]


@cache
def _face(character: str) -> Face:
    """The font that shows a character."""
    for face in _found:
        if _has(face, character):
            return face
    # Asking takes a while; what the system has not for one character, it seldom has for its neighbours.
    block = ord(character) // 128
    if block not in _in_vain:
        for face in (*_from_fontconfig(character), *_from_folders()):
            if _has(face, character):
                _found.append(face)
                return face
        _in_vain.add(block)
    return _first()


@cache
def _first() -> Face:
    matplotlib = find_spec("matplotlib")
    for folder in (matplotlib and matplotlib.submodule_search_locations) or ():
        path = Path(folder) / "mpl-data" / "fonts" / "ttf" / "DejaVuSans.ttf"
        if path.is_file():
            return str(path), 0
    return "", 0


_found: list[Face] = [_first()]
"""The fonts that were taken before."""
_in_vain: set[int] = set()


def _from_fontconfig(character: str) -> Iterator[Face]:
    pattern = f"{','.join(FAMILIES[1:])}:charset={ord(character):x}"
    try:
        answer = subprocess.run(
            ["fc-match", "--format", "%{index} %{file}", pattern], capture_output=True, timeout=10, check=True
        )
        index, file = answer.stdout.decode().split(" ", 1)
        # The upper half of an index names an instance of a variable font.
        face = file, int(index) & 0xFFFF
    except (OSError, subprocess.SubprocessError, ValueError):
        return
    yield face


@cache
def _from_folders() -> tuple[Face, ...]:
    faces = []
    for name in _FILES:
        try:
            faces.append((str(ImageFont.truetype(name, _ASKED_SIZE).path), 0))
        except OSError:
            continue
    return tuple(faces)


@cache
def _has(face: Face, character: str) -> bool:
    """Whether a font has a character: its picture is not the one of a character that does not exist."""
    try:
        font = _font(face, _ASKED_SIZE)
        one, other = font.getmask(character), font.getmask(_NO_CHARACTER)
    except (OSError, UnicodeError):  # fonts of coloured bitmaps have one size only; Pillow's oldest knows Latin-1 only
        return False
    return (one.size, bytes(one)) != (other.size, bytes(other))


@cache
def _font(face: Face, size: int) -> Font:
    path, index = face
    return ImageFont.truetype(path, size, index) if path else ImageFont.load_default(size)
