"""What a terminal's encoding lacks is written as an escape, and is no error."""

from __future__ import annotations

import codecs
import sys

_NAME = "bagindex-escape"


def escape_what_is_lacking() -> None:
    """Have stdout write the characters that its encoding lacks as JSON does, `\\u00fc`: so JSON stays JSON."""
    codecs.register_error(_NAME, _escape)
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None and codecs.lookup(sys.stdout.encoding or "ascii").name != "utf-8":
        reconfigure(errors=_NAME)


def _escape(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = zip(units[::2], units[1::2], strict=True)
    return "".join(f"\\u{high << 8 | low:04x}" for high, low in pairs), error.end
