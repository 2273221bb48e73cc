"""Pictures of patches and images as PNG files, kept for a while, with what browsers need to keep them longer."""

from __future__ import annotations

import io
import re
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Generic, TypeVar

from starlette.responses import Response

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bagindex.geometry import Box

_Value = TypeVar("_Value")
_YEAR = 31_536_000
_MARK = (213, 94, 0)
_drawing = threading.Lock()


@contextmanager
def drawing() -> Iterator[None]:
    """One figure at a time: matplotlib's settings are the whole process's."""
    with _drawing:
        yield


class Kept(Generic[_Value]):
    """The values that were last asked for, up to so many bytes.

    Args:
        most: bytes of all values.
        size: bytes of one.
    """

    def __init__(self, most: int, size: Callable[[_Value], int]) -> None:
        self._most = most
        self._size = size
        self._lock = threading.Lock()
        self._values: OrderedDict[Hashable, _Value] = OrderedDict()
        self.bytes = 0

    def get(self, key: Hashable) -> _Value | None:
        """The value, or None."""
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: Hashable, value: _Value) -> None:
        """Keep a value, and drop what was not asked for the longest."""
        with self._lock:
            before = self._values.pop(key, None)
            self.bytes += self._size(value) - (0 if before is None else self._size(before))
            self._values[key] = value
            while self.bytes > self._most and self._values:
                self.bytes -= self._size(self._values.popitem(last=False)[1])


def encode(pixels: NDArray[np.uint8]) -> bytes:
    """A PNG file of pixels, uint8 [height, width, RGB]."""
    from PIL import Image

    data = io.BytesIO()
    # The strongest compression takes four times as long, and saves a few per cent of a photograph.
    Image.fromarray(pixels).save(data, "PNG", compress_level=4)
    return data.getvalue()


def with_box(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """A copy with a frame around a box, which leaves the pixels in it as they are."""
    import numpy as np

    height, width = pixels.shape[:2]
    x0, y0, x1, y1 = box
    framed = pixels.copy()
    for colour, far in ((_MARK, 1), ((255, 255, 255), 2)):
        left, top, right, bottom = x0 - far, y0 - far, x1 + far - 1, y1 + far - 1
        rows = slice(max(0, top), min(height, bottom + 1))
        columns = slice(max(0, left), min(width, right + 1))
        for y in (top, bottom):
            if 0 <= y < height:
                framed[y, columns] = np.array(colour, np.uint8)
        for x in (left, right):
            if 0 <= x < width:
                framed[rows, x] = np.array(colour, np.uint8)
    return framed


def tag(version: str, *parts: object) -> str:
    """The ETag of a picture: what its pixels depend on."""
    return '"' + re.sub(r"[^A-Za-z0-9_.,-]", "_", "-".join(map(str, (version, *parts)))) + '"'


def known(header: str | None, etag: str) -> bool:
    """Whether an If-None-Match header has a tag."""
    if not header:
        return False
    given = {each.strip().removeprefix("W/") for each in header.split(",")}
    return etag in given or "*" in given


def unchanged(etag: str, headers: dict[str, str]) -> Response:
    """The client has it already."""
    return Response(status_code=304, headers={"ETag": etag, **headers})


def keeping(version: str, asked: str | None) -> dict[str, str]:
    """How long a picture may be kept.

    Under an address that names the version of the index's pixels, for ever. Under one that does not, a browser asks
    each time whether it is the same: another index may be served there tomorrow.
    """
    if asked == version:
        return {"Cache-Control": f"private, max-age={_YEAR}, immutable"}
    return {"Cache-Control": "private, no-cache"}
