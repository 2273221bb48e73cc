"""Every kind of picture, and every kind of file that is none."""

from __future__ import annotations

import io
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageFile, features

from bagindex.images import MAX_PIXELS, Rejected, read_picture
from bagindex_schemas.records import Transform
from bagindex_schemas.rejects import RejectCode

# As bagindex.images sets it; pytest's own filters come before that.
pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")

WIDTH, HEIGHT = 24, 16
AS_IT_IS = Transform(resize=HEIGHT, crop_height=HEIGHT, crop_width=WIDTH)
STORED_AS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")


def encode(image: Image.Image, kind: str, **options: object) -> bytes:
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def pixels(data: bytes) -> NDArray[np.uint8]:
    return read_picture(data, AS_IT_IS).pixels


def code_of(data: bytes) -> RejectCode | None:
    """Why a file is rejected; None when it is not. Any other exception is an error of bagindex."""
    try:
        read_picture(data, AS_IT_IS)
    except Rejected as rejected:
        return rejected.code
    return None


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_that_claims(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"little"))


def corners() -> Image.Image:
    """Another colour in each quarter, so that every rotation and mirroring shows."""
    array = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    array[:8, :12], array[:8, 12:], array[8:, :12], array[8:, 12:] = (255, 0, 0), (0, 255, 0), (0, 0, 255), 255
    return Image.fromarray(array)


def noise(width: int = 80, height: int = 64) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("JPEG", {"quality": 100, "subsampling": 0}, 2),
        ("PNG", {}, 0),
        ("TIFF", {}, 0),
        ("TIFF", {"compression": "tiff_lzw"}, 0),
        ("WEBP", {"lossless": True}, 0),
        pytest.param("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 4, marks=needs_avif),
    ],
)
def test_exif_orientation(orientation: int, kind: str, options: dict[str, object], tolerance: int) -> None:
    upright = corners()
    stored = upright.transpose(STORED_AS[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    picture = read_picture(encode(stored, kind, exif=exif, **options), AS_IT_IS)
    assert (picture.placement.width, picture.placement.height) == (WIDTH, HEIGHT)
    np.testing.assert_allclose(picture.pixels.astype(int), np.asarray(upright).astype(int), atol=tolerance)


@pytest.mark.parametrize(
    "exif",
    [
        pytest.param(b"Exif\0\0", id="empty"),
        pytest.param(b"Exif\0\0no TIFF header", id="no header"),
        pytest.param(b"Exif\0\0II*\0\xff\xff\xff\xff", id="offset beyond the end"),
        pytest.param(b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", id="cut in the directory"),
        pytest.param(b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 2, 1, 6), id="orientation is text"),
        pytest.param(b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 3, 1, 9), id="orientation 9"),
    ],
)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_damaged_exif_leaves_the_picture_as_it_is(kind: str, exif: bytes) -> None:
    plain = encode(corners(), kind)
    np.testing.assert_array_equal(pixels(encode(corners(), kind, exif=exif)), pixels(plain))


def flat(mode: str, colour: object) -> Image.Image:
    return Image.new(mode, (WIDTH, HEIGHT), colour)  # type: ignore[arg-type]


def half(mode: str, left: object, right: object) -> Image.Image:
    """One colour on the left, another on the right."""
    image = flat(mode, left)
    image.paste(right, (WIDTH // 2, 0, WIDTH, HEIGHT))  # type: ignore[arg-type]
    return image


def palette(*colours: tuple[int, int, int]) -> Image.Image:
    """Colour 0 on the left, colour 1 on the right."""
    image = half("P", 0, 1)
    image.putpalette([value for colour in colours for value in colour])
    return image


@pytest.mark.parametrize(
    ("image", "kind", "options", "left", "right"),
    [
        pytest.param(half("L", 10, 200), "PNG", {}, (10, 10, 10), (200, 200, 200), id="grey"),
        pytest.param(half("1", 0, 1), "PNG", {}, (0, 0, 0), (255, 255, 255), id="1 bit"),
        pytest.param(half("1", 0, 1), "PNG", {"transparency": 0}, (255, 255, 255), (255, 255, 255), id="1 bit, key"),
        pytest.param(half("L", 10, 200), "PNG", {"transparency": 10}, (255, 255, 255), (200, 200, 200), id="grey, key"),
        pytest.param(half("L", 10, 200), "JPEG", {"quality": 100}, (10, 10, 10), (200, 200, 200), id="grey JPEG"),
        pytest.param(palette((9, 8, 7), (1, 2, 3)), "PNG", {}, (9, 8, 7), (1, 2, 3), id="palette"),
        pytest.param(palette((9, 8, 7), (1, 2, 3)), "BMP", {}, (9, 8, 7), (1, 2, 3), id="palette BMP"),
        pytest.param(
            palette((9, 8, 7), (1, 2, 3)), "PNG", {"transparency": 1}, (9, 8, 7), (255, 255, 255), id="palette, key"
        ),
        pytest.param(
            palette((9, 8, 7), (0, 0, 0)),
            "PNG",
            {"transparency": b"\xff\x33"},
            (9, 8, 7),
            (204, 204, 204),
            id="palette, alpha",
        ),
        pytest.param(
            palette((9, 8, 7), (1, 2, 3)), "GIF", {"transparency": 1}, (9, 8, 7), (255, 255, 255), id="GIF, key"
        ),
        pytest.param(
            half("RGBA", (0, 0, 0, 51), (5, 6, 7, 255)), "PNG", {}, (204, 204, 204), (5, 6, 7), id="RGBA over white"
        ),
        pytest.param(
            half("RGBA", (9, 9, 9, 0), (5, 6, 7, 255)), "TIFF", {}, (255, 255, 255), (5, 6, 7), id="RGBA TIFF"
        ),
        pytest.param(half("LA", (0, 51), (7, 255)), "PNG", {}, (204, 204, 204), (7, 7, 7), id="grey and alpha"),
        pytest.param(
            half("RGB", (1, 2, 3), (5, 6, 7)),
            "PNG",
            {"transparency": (1, 2, 3)},
            (255, 255, 255),
            (5, 6, 7),
            id="RGB, key",
        ),
        pytest.param(
            half("CMYK", (0, 255, 255, 0), (0, 0, 0, 0)),
            "JPEG",
            {"quality": 100},
            (254, 0, 0),
            (255, 255, 255),
            id="CMYK",
        ),
        pytest.param(
            half("CMYK", (0, 0, 0, 255), (0, 0, 0, 0)), "TIFF", {}, (0, 0, 0), (255, 255, 255), id="CMYK TIFF"
        ),
        pytest.param(half("YCbCr", (80, 128, 128), (9, 128, 128)), "TIFF", {}, (80, 80, 80), (9, 9, 9), id="YCbCr"),
    ],
)
def test_becomes_rgb(
    image: Image.Image, kind: str, options: dict[str, object], left: tuple[int, ...], right: tuple[int, ...]
) -> None:
    found = pixels(encode(image, kind, **options)).astype(int)
    np.testing.assert_allclose(found[:, : WIDTH // 2], np.broadcast_to(left, (HEIGHT, WIDTH // 2, 3)), atol=1)
    np.testing.assert_allclose(found[:, WIDTH // 2 :], np.broadcast_to(right, (HEIGHT, WIDTH // 2, 3)), atol=1)


def grey16(dtype: type[np.generic] = np.uint16) -> NDArray[np.generic]:
    return np.tile(np.array([0, 257, 32768, 65535], dtype), (HEIGHT, WIDTH // 4))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled(kind: str) -> None:
    assert pixels(encode(Image.fromarray(grey16()), kind))[3, :4].tolist() == [[0] * 3, [1] * 3, [128] * 3, [255] * 3]


def test_16_bit_grey_with_a_transparent_value() -> None:
    data = encode(Image.fromarray(grey16()), "PNG", transparency=257)
    assert pixels(data)[3, :4, 0].tolist() == [0, 255, 128, 255]


@pytest.mark.parametrize(
    "image",
    [
        pytest.param(Image.fromarray(np.full((HEIGHT, WIDTH), 0.5, np.float32)), id="float"),
        pytest.param(Image.fromarray(np.full((HEIGHT, WIDTH), 70000, np.int32)), id="32-bit integers"),
        pytest.param(Image.fromarray(grey16(np.int32)), id="32-bit integers that would fit into 16"),
        pytest.param(flat("LAB", (80, 10, 10)), id="Lab"),
    ],
)
def test_pixels_without_a_meaning_as_rgb(image: Image.Image) -> None:
    with pytest.raises(Rejected, match="has no fixed meaning as RGB") as caught:
        pixels(encode(image, "TIFF"))
    assert caught.value.code is RejectCode.UNSUPPORTED


@pytest.mark.parametrize(
    ("kind", "options"), [("GIF", {}), ("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {}), ("MPO", {})]
)
def test_the_first_frame_is_taken(kind: str, options: dict[str, object]) -> None:
    frames = [flat("RGB", (200, 0, 0)), flat("RGB", (0, 0, 200)), flat("RGB", (0, 200, 0))]
    data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    with Image.open(io.BytesIO(data)) as image:
        assert getattr(image, "n_frames", 1) == 3
    np.testing.assert_allclose(pixels(data).astype(int), np.asarray(frames[0]).astype(int), atol=2)


@pytest.mark.parametrize(
    ("kind", "options", "tolerance"),
    [
        ("BMP", {}, 0),
        ("DIB", {}, 0),
        ("TGA", {"compression": "tga_rle"}, 0),
        ("PPM", {}, 0),
        ("ICO", {"sizes": [(WIDTH, HEIGHT)]}, 0),
        pytest.param(
            "JPEG2000",
            {"irreversible": False},
            0,
            marks=pytest.mark.skipif(not features.check("jpg_2000"), reason="this Pillow reads no JPEG 2000"),
        ),
        pytest.param("AVIF", {"quality": 100, "subsampling": "4:4:4"}, 4, marks=needs_avif),
        ("JPEG", {"quality": 100, "subsampling": 0, "progressive": True}, 2),
    ],
)
def test_other_formats(kind: str, options: dict[str, object], tolerance: int) -> None:
    found = pixels(encode(corners(), kind, **options)).astype(int)
    np.testing.assert_allclose(found, np.asarray(corners()).astype(int), atol=tolerance)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_cut_short(kind: str, options: dict[str, object]) -> None:
    data = encode(noise(), kind, **options)
    assert code_of(data) is None
    lengths = [*range(1, 64), *range(64, len(data), len(data) // 60)]
    found = {length: code_of(data[:length]) for length in lengths}
    allowed = {RejectCode.TRUNCATED, RejectCode.DAMAGED, RejectCode.NOT_AN_IMAGE}
    assert {length: code for length, code in found.items() if code not in allowed} == {}
    late = {code for length, code in found.items() if length > len(data) // 3}
    assert late == {RejectCode.TRUNCATED}


@pytest.mark.parametrize("kind", ["BMP", "ICO", "TGA", "TIFF", pytest.param("AVIF", marks=needs_avif)])
def test_other_formats_cut_short(kind: str) -> None:
    data = encode(noise(), kind)
    found = {code_of(data[:length]) for length in range(1, len(data) * 9 // 10, len(data) // 40)}
    assert found <= {RejectCode.TRUNCATED, RejectCode.DAMAGED, RejectCode.NOT_AN_IMAGE}
    assert code_of(data[: len(data) // 2]) in (RejectCode.TRUNCATED, RejectCode.DAMAGED)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("JPEG", {}),
        ("JPEG", {"progressive": True}),
        ("PNG", {}),
        ("GIF", {}),
        ("WEBP", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        pytest.param("AVIF", {}, marks=needs_avif),
    ],
)
def test_flipped_bits(kind: str, options: dict[str, object]) -> None:
    data = encode(noise(40, 32), kind, **options)
    rng = np.random.default_rng(len(data))
    found = set()
    for _ in range(60):
        wrong = bytearray(data)
        for place in rng.integers(0, len(data), int(rng.integers(1, 6))):
            wrong[place] ^= 1 << int(rng.integers(8))
        found.add(code_of(bytes(wrong)))
    # A PNG's checksums see every flip in its pixels; the other formats decode to something else.
    assert (None in found) == (kind != "PNG")


NOT_INDEXED = [
    (b"", RejectCode.EMPTY, "the file is empty"),
    (b"path,label\na.jpg,tench\n", RejectCode.NOT_AN_IMAGE, "no picture format"),
    (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n", RejectCode.NOT_AN_IMAGE, "no picture format"),
    (b"<svg xmlns='http://www.w3.org/2000/svg' width='90' height='90'/>", RejectCode.NOT_AN_IMAGE, "no picture"),
    (bytes(2000), RejectCode.NOT_AN_IMAGE, "no picture format"),
    (b"\xff\xd8\xff\xe0" + bytes(100), RejectCode.DAMAGED, "starts like a picture"),
    (encode(flat("RGB", 0).resize((7, 90)), "PNG"), RejectCode.TOO_SMALL, "7 x 90: a side is under 8 pixels"),
    (
        encode(flat("1", 0).resize((8, 801)), "PNG"),
        RejectCode.TOO_ELONGATED,
        "8 x 801 is more elongated",
    ),
]
"""Files, why each is rejected, and how the message begins or goes on."""


@pytest.mark.parametrize(
    ("data", "code", "message"),
    NOT_INDEXED,
    ids=["empty", "text", "EPS", "SVG", "zeros", "JPEG header only", "too small", "too elongated"],
)
def test_what_is_not_indexed(data: bytes, code: RejectCode, message: str) -> None:
    with pytest.raises(Rejected, match=message) as caught:
        read_picture(data, AS_IT_IS)
    assert (caught.value.code, caught.value.message) == (code, str(caught.value))


def test_the_most_elongated_picture_is_indexed() -> None:
    picture = read_picture(encode(flat("1", 1).resize((8, 800)), "PNG"), AS_IT_IS)
    assert (picture.placement.resized_width, picture.placement.resized_height) == (16, 1600)


@pytest.mark.parametrize("pillows_limit", [Image.MAX_IMAGE_PIXELS, None])
@pytest.mark.parametrize(
    "data",
    [
        pytest.param(png_that_claims(60_000, 60_000), id="PNG"),
        pytest.param(png_that_claims(1, MAX_PIXELS + 1), id="one column"),
        pytest.param(b"P6 60000 60000 255\n", id="PPM"),
    ],
)
def test_a_bomb_is_not_decoded(data: bytes, pillows_limit: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    loaded: list[object] = []
    monkeypatch.setattr(ImageFile.ImageFile, "load", loaded.append)
    assert code_of(data) is RejectCode.TOO_LARGE
    assert loaded == []


def test_lack_of_memory_is_not_the_pictures_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    def load(_: ImageFile.ImageFile) -> None:
        raise MemoryError

    monkeypatch.setattr(ImageFile.ImageFile, "load", load)
    with pytest.raises(MemoryError):
        read_picture(encode(corners(), "TIFF"), AS_IT_IS)


def test_reading_is_silent_and_needs_no_torch() -> None:
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHII", 8, 1, 0x0112, 2, 1, 6)
    program = (
        "import sys; from bagindex.images import read_picture; from bagindex_schemas.records import Transform; "
        "picture = read_picture(sys.stdin.buffer.read(), Transform(resize=16, crop_height=16, crop_width=24)); "
        "print(picture.pixels.shape, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-W", "default", "-c", program],
        input=encode(corners(), "JPEG", exif=exif),
        capture_output=True,
        check=False,
    )
    assert (done.stdout.decode().strip(), done.stderr.decode()) == ("(16, 24, 3) False", "")
