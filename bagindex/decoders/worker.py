"""The process that decodes: bytes and a transform come in, pixels or the reason why not go out.

It imports Pillow and little else, so that many may be started, and killed.
"""

from __future__ import annotations

import hashlib
import time
from dataclasses import astuple
from typing import NamedTuple

from bagindex.images import Rejected, cut
from bagindex.processes import frames, inside
from bagindex_schemas.rejects import RejectCode

MEMORY = 6 * 2**30
"""Bytes of its address space: a JPEG 2000 picture of as many pixels as are taken needs 3.4 GiB, others less."""
_MOST_TOLD = 1 << 16
_MOST_DATA = (1 << 32) - 1
_IDLE = 60.0
"""Seconds after which a process ends that nobody has asked."""


class Cut(NamedTuple):
    """As `bagindex.geometry.Cut`."""

    resize: int
    crop_height: int
    crop_width: int


def main() -> None:
    """Decode until stdin ends, or nobody asks for a while."""
    answers = inside.own_answers()
    inside.end_with_parent()
    inside.die_first()
    inside.limit(MEMORY)
    frames.send_json(answers, ready=True)
    while True:
        try:
            told = frames.receive_json(0, _MOST_TOLD, time.monotonic() + _IDLE)
            _, data = frames.receive(0, _MOST_DATA)
        except (EOFError, frames.LateError):
            return
        inside.give_up_after(told["seconds"] + 1)
        said, pixels = _decode(data, told["cut"] and Cut(*told["cut"]), told["most"])
        inside.give_up_after(0)
        frames.send_json(answers, **said)
        frames.send(answers, frames.Kind.BYTES, pixels)


def _decode(data: bytes, transform: Cut | None, most: int) -> tuple[dict[str, object], bytes]:
    try:
        crop, placement = cut(data, transform, most)
        return {"placement": astuple(placement), "sha256": hashlib.sha256(data).hexdigest()}, crop.tobytes()
    except Rejected as rejected:
        return {"code": rejected.code, "message": rejected.message}, b""
    except MemoryError:
        return {"code": RejectCode.TOO_LARGE, "message": "does not fit into memory"}, b""
