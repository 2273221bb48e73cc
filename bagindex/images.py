"""From the bytes of a picture file to the model's input. Imports Pillow and little else, for the processes that decode.

The rules: EXIF rotation is applied; the first frame of an animation is taken; transparency is laid over white; grey,
palette, CMYK and YCbCr become RGB as Pillow converts them; 16-bit grey is scaled (65535 becomes 255), not cut off;
colour profiles are not applied (torchvision does not either).
"""

from __future__ import annotations

import hashlib
import io
import re
import struct
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image, ImageOps, UnidentifiedImageError

from bagindex.geometry import Cut, Placement, place
from bagindex_schemas.rejects import RejectCode

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MAX_PIXELS = 178_956_970
"""Pictures with more pixels are taken for decompression bombs (Pillow's own limit for an error)."""
MIN_SIDE = 8
"""A picture with a shorter side has less in it than one step of the patch grid."""
MAX_ASPECT = 100
"""A picture more elongated than this would become enormous when its shorter side is resized."""
_BAND = 1 << 22
"""Pixels that are converted at a time."""

# Only formats that Pillow decodes by itself: EPS and the like start other programs. A Pillow may be built without some.
Image.init()
_FORMATS = tuple(
    sorted(
        {"AVIF", "BMP", "DIB", "GIF", "ICO", "JPEG", "JPEG2000", "PNG", "PPM", "TGA", "TIFF", "WEBP"} & set(Image.OPEN)
    )
)
_MAGIC = re.compile(
    rb"\xff\xd8\xff|\x89PNG\r\n\x1a\n|GIF8[79]a|II[*+]\x00|MM\x00[*+]|RIFF....WEBP"
    rb"|\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51|....ftypavi[fs]",
    re.DOTALL,
)
_CUT_SHORT = ("truncated", "unexpected end", "end of file", "not enough image data")

# Pillow warns of large pictures and damaged metadata: on the terminal, and without the file's name. Large pictures are
# refused by MAX_PIXELS below.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Rejected(Exception):  # noqa: N818 (not an error: the build goes on)
    """A file that cannot be indexed, with the code and the message for the `rejects` table."""

    def __init__(self, code: RejectCode, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.message = message

    def __reduce__(self) -> tuple[type[Rejected], tuple[RejectCode, str]]:
        """For other processes: an exception is pickled as its text, unless it says otherwise."""
        return Rejected, (self.code, self.message)


@dataclass(frozen=True)
class Picture:
    """A decoded picture: `pixels` is the model's input before normalisation, uint8 [height, width, RGB]."""

    pixels: NDArray[np.uint8]
    placement: Placement
    bytes: int
    sha256: str


def read_picture(data: bytes, transform: Cut) -> Picture:
    """Decode `data` in this process, and cut the model's input out of it; `bagindex.decoders` does so in another.

    Raises:
        Rejected: it is no picture, or none that can be indexed.
    """
    import numpy as np

    crop, placement = cut(data, transform)
    return Picture(np.array(crop, dtype=np.uint8), placement, len(data), hashlib.sha256(data).hexdigest())


def cut(data: bytes, transform: Cut | None, most: int = MAX_PIXELS) -> tuple[Image.Image, Placement]:
    """The model's input before normalisation, RGB, and where in the picture, of so many pixels at most, it lies.

    Without a transform, it is the whole picture.

    Raises:
        Rejected: it is no picture, or none that can be indexed.
    """
    image = open_picture(data, most)
    if transform is None:
        return image, Placement(image.width, image.height, image.width, image.height, 0, 0)
    placement = place(transform, image.width, image.height)
    if placement.resized_width * placement.resized_height > MAX_PIXELS:
        size = f"{placement.resized_width} x {placement.resized_height}"
        raise Rejected(RejectCode.TOO_LARGE, f"{size} after the resize is over {MAX_PIXELS:,} pixels")
    resized = image.resize((placement.resized_width, placement.resized_height), resample=Image.Resampling.BILINEAR)
    left, top = placement.crop_left, placement.crop_top
    return resized.crop((left, top, left + transform.crop_width, top + transform.crop_height)), placement


def open_picture(data: bytes, most: int = MAX_PIXELS) -> Image.Image:
    """Decode `data`, of so many pixels at most: RGB, upright, whole.

    Raises:
        Rejected: it is no picture, or none that can be indexed.
    """
    if not data:
        raise Rejected(RejectCode.EMPTY, "the file is empty")
    try:
        return _decode(data, most)
    except (Rejected, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise Rejected(RejectCode.TOO_LARGE, f"more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:  # decoders raise whatever they like on hostile input
        raise _failure(data, error) from None


def to_rgb(image: Image.Image) -> Image.Image:
    """An RGB copy of any picture, by the rules of this module.

    Raises:
        Rejected: its pixel values have no stated range (float and 32-bit pictures) or colours (CIE Lab).
    """
    # Pillow reads 16-bit PGM, and no other 16-bit format, as mode I; anywhere else that is 32-bit integers.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PPM"):
        return _in_bands(image, _grey16)
    if image.mode in ("I", "F", "LAB", "HSV"):
        raise Rejected(RejectCode.UNSUPPORTED, f"pixel format {image.mode} has no fixed meaning as RGB")
    if image.has_transparency_data or image.mode in ("RGBa", "La"):
        return _in_bands(image, _over_white)
    return image.convert("RGB")


def _in_bands(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """What a conversion of all pixels to RGB gives, a band at a time, since it may need many times their memory."""
    found = Image.new("RGB", image.size)
    rows = max(1, _BAND // image.width)
    for top in range(0, image.height, rows):
        band = image.crop((0, top, image.width, min(image.height, top + rows)))
        found.paste(convert(band), (0, top))
    return found


def _over_white(image: Image.Image) -> Image.Image:
    over = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", over.size, "white"), over).convert("RGB")


def _decode(data: bytes, most: int) -> Image.Image:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
        if image.width * image.height > most:
            raise Rejected(RejectCode.TOO_LARGE, f"{image.width} x {image.height} is over {most:,} pixels")
        if min(image.size) < MIN_SIDE:
            raise Rejected(RejectCode.TOO_SMALL, f"{image.width} x {image.height}: a side is under {MIN_SIDE} pixels")
        if max(image.size) > MAX_ASPECT * min(image.size):
            raise Rejected(
                RejectCode.TOO_ELONGATED,
                f"{image.width} x {image.height} is more elongated than {MAX_ASPECT}:1",
            )
        image.load()
        return upright(image)


def upright(image: Image.Image) -> Image.Image:
    """An RGB copy of any picture, turned as its EXIF data says.

    Raises:
        Rejected: as for `to_rgb`.
    """
    rgb = to_rgb(image)
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception:  # damaged EXIF says nothing about the picture: leave it as it is
        orientation = 1
    if orientation not in (2, 3, 4, 5, 6, 7, 8):
        return rgb
    # exif_transpose takes the orientation from the copy's own EXIF, which `convert` may have dropped.
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb.info = {"exif": exif.tobytes()}
    return ImageOps.exif_transpose(rgb)


def _grey16(image: Image.Image) -> Image.Image:
    import numpy as np

    values = np.asarray(image).astype(np.int64)
    grey = ((values * 255 + 32767) // 65535).astype(np.uint8)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _failure(data: bytes, error: Exception) -> Rejected:
    # Of a WebP file that is cut short, the decoder says no more than that it cannot be read.
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        (size,) = struct.unpack("<I", data[4:8])
        if size + 8 > len(data):
            return Rejected(RejectCode.TRUNCATED, f"{len(data):,} of {size + 8:,} bytes are there")
    if isinstance(error, UnidentifiedImageError):
        if _MAGIC.match(data):
            return Rejected(RejectCode.DAMAGED, "starts like a picture but cannot be opened")
        return Rejected(RejectCode.NOT_AN_IMAGE, "no picture format that bagindex reads")
    text = " ".join(str(error).split()) or type(error).__name__
    cut = isinstance(error, EOFError) or any(words in text.lower() for words in _CUT_SHORT)
    return Rejected(RejectCode.TRUNCATED if cut else RejectCode.DAMAGED, text)
