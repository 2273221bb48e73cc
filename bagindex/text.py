"""Wording that several modules share."""

from __future__ import annotations

import re
from collections.abc import Sequence


def path_text(path: bytes) -> str:
    """A path's bytes as valid Unicode; what is not UTF-8 shows as `\\xNN`."""
    return path.decode("utf-8", "backslashreplace")


def bytes_text(count: float) -> str:
    """A number of bytes for people, in powers of 1000: `812 MB`."""
    for unit in ("bytes", "kB", "MB"):
        if count < 999.5:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} GB" if count < 999.5 else f"{count / 1000:.3g} TB"


def parse_bytes(text: str) -> int | None:
    """A number of bytes from what people write: `2GB`, `500 MB`, `1.5G`, `64000000`; None where it is none."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)b?\s*", text, re.IGNORECASE)
    if match is None:
        return None
    return int(float(match[1]) * 1000 ** " kmgt".index(match[2].lower() or " "))


def first_line(error: Exception) -> str:
    """The first line of an error's text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def logit_text(logit: float, digits: int = 2) -> str:
    """A logit for people, with a real minus sign."""
    return minus_text(f"{logit:.{digits}f}")


def minus_text(number: str) -> str:
    """A written number with a minus as wide as a plus; what was rounded to zero has no sign."""
    return number.replace("-", "−") if float(number) else number.lstrip("+-")


def some(names: Sequence[str], most: int = 6) -> str:
    """The first few names, quoted, and how many there are."""
    shown = ", ".join(repr(name) for name in names[:most])
    return f"{shown}, … ({len(names)} in all)" if len(names) > most else shown


def differs_text(predicted: str, recorded: str) -> str:
    """What to say where the sums of stored evidence predict another class than the model did; else nothing."""
    if predicted == recorded:
        return ""
    return f"The model predicted {recorded}: the two tie within the rounding."


def rounding_text(rounding: float) -> str:
    """What rounding took away, with its sign."""
    return f"{rounding:+.2g}".replace("-", "−")


def share_text(share: float | None, digits: int = 1) -> str:
    """A share of a sum for people, which may be negative or more than all; of nothing, no text."""
    if share is None:
        return ""
    return minus_text(f"{100 * share:.{0 if abs(share) >= 10 else digits}f}") + " %"


def offset_text(offset: int) -> str:
    """Where a patch grid begins, where that is not at the input's first pixel."""
    return f", from pixel {offset} on" if offset else ""
