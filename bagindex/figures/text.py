"""Lines of text that fit."""

from __future__ import annotations

from bisect import bisect_right
from functools import lru_cache

from bagindex.figures.style import SMALL, TEXT

_SAFE = 0.99
"""Of a width that text may fill: letters are set at whole dots."""


@lru_cache(maxsize=4096)
def inches(text: str, size: float = TEXT) -> float:
    """How wide a text of one line is at so many points, by the fonts' metrics."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return float(width) / 72


def fits(text: str, width: float, size: float = TEXT) -> bool:
    """Whether a line of text is no wider than so many inches."""
    return inches(text, size) <= _SAFE * width


def shorten(text: str, width: float, size: float = TEXT) -> str:
    """A text that fits into so many inches at so many points, cut with an ellipsis where it does not."""
    text = " ".join(text.split())
    if fits(text, width, size):
        return text
    kept = bisect_right(range(len(text)), _SAFE * width, key=lambda end: inches(text[:end].rstrip() + "…", size)) - 1
    return text[: max(kept, 0)].rstrip() + "…"


def wrap(text: str, width: float, size: float = SMALL, most: int | None = None) -> list[str]:
    """A text in lines that fit into so many inches; a word that does not is cut, and so is a line after `most`."""
    words = text.split()
    lines: list[str] = []
    while words:
        taken = 1
        if most is not None and len(lines) == most - 1:
            taken = len(words)
        while taken < len(words) and fits(" ".join(words[: taken + 1]), width, size):
            taken += 1
        lines.append(shorten(" ".join(words[:taken]), width, size))
        words = words[taken:]
    return lines


def printable(text: str) -> str:
    """A text on one line, without the characters that no file of letters may hold."""
    return " ".join("".join(c if c.isprintable() else " " if c.isspace() else "\ufffd" for c in text).split())
