"""A decoder process whose codecs do what a picture says; all other pictures it decodes.

For tests: `monkeypatch.setattr(process, "WORKER", "faults.codecs")`.
"""

from __future__ import annotations

import ctypes
import os
import re
import resource
import signal
import time

from PIL import Image

from bagindex.decoders import worker
from bagindex.geometry import Placement

CRASH = b"CRASH"
HANG = b"HANG"
"""As a codec does that has let go of the interpreter."""
HOLD = b"HOLD"
"""As one that has not."""
ABORT = b"ABORT"
MEMORY = b"MEMORY"
SLOW = b"SLOW"
"""What follows is the picture, which takes a while."""


def dies(times: int, marks: os.PathLike[str]) -> bytes:
    """A picture whose process dies so many times before it is decoded; it counts in an empty folder."""
    return b"DIES %d %s" % (times, os.fsencode(marks))


def main() -> None:
    """Decode, or not."""
    decode = worker.cut

    def cut(data: bytes, transform: worker.Cut, most: int) -> tuple[Image.Image, Placement]:
        word, _, rest = data.partition(b" ")
        if word == CRASH:
            ctypes.string_at(0)
        elif word == HANG:
            time.sleep(3600)
        elif word == HOLD:
            re.match(r"(a+)+$", "a" * 60 + "b")
        elif word == ABORT:
            os.abort()
        elif word == MEMORY:
            bytearray(resource.getrlimit(resource.RLIMIT_AS)[0])
        elif word == SLOW:
            time.sleep(0.05)
            return decode(rest, transform, most)
        elif word == b"DIES":
            times, _, marks = rest.partition(b" ")
            for mark in range(int(times)):
                path = os.path.join(marks, b"%d" % mark)
                if not os.path.exists(path):
                    os.mkdir(path)  # no file can grow here
                    os.kill(os.getpid(), signal.SIGKILL)
            size = transform.crop_width, transform.crop_height
            return Image.new("RGB", size, (1, 2, 3)), Placement(*size, *size, 0, 0)
        return decode(data, transform, most)

    worker.cut = cut
    worker.main()
