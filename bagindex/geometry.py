"""Patch grid <-> pixel boxes, model input <-> original picture. Pure functions.

A *box* is `(x0, y0, x1, y1)` in pixels, x to the right, y down, the upper ends excluded. A model that pads its input
has patches that reach beyond it: their boxes end where the input does, and what lies beyond is shown in the colour of
the padding.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from bagindex.errors import SettingsError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bagindex_schemas.records import Grid

Box = tuple[int, int, int, int]
FloatBox = tuple[float, float, float, float]
Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""


class Cut(Protocol):
    """How a model's input is cut out of a picture; a `Transform` says it, and more."""

    @property
    def resize(self) -> int:
        """Pixels of the resized picture's shorter side."""

    @property
    def crop_height(self) -> int:
        """Pixels of the input."""

    @property
    def crop_width(self) -> int:
        """Pixels of the input."""


@dataclass(frozen=True)
class Placement:
    """Where the model's input lies in a picture.

    The picture (`width` × `height`, after EXIF rotation) is resized to `resized_width` × `resized_height`; the input's
    upper left corner is at (`crop_left`, `crop_top`) of that.
    """

    width: int
    height: int
    resized_width: int
    resized_height: int
    crop_left: int
    crop_top: int


def place(transform: Cut, width: int, height: int) -> Placement:
    """Placement of the input in a `width` × `height` picture, as torchvision's `Resize` and `CenterCrop` do it."""
    short, long = min(width, height), max(width, height)
    resized_long = int(transform.resize * long / short)
    resized_width, resized_height = (
        (transform.resize, resized_long) if width <= height else (resized_long, transform.resize)
    )
    return Placement(
        width=width,
        height=height,
        resized_width=resized_width,
        resized_height=resized_height,
        crop_left=round((resized_width - transform.crop_width) / 2.0),
        crop_top=round((resized_height - transform.crop_height) / 2.0),
    )


def to_source(box: Box, placement: Placement) -> FloatBox:
    """Map a box of the model's input onto the picture (float pixels, after EXIF rotation)."""
    x_scale = placement.width / placement.resized_width
    y_scale = placement.height / placement.resized_height
    x0, y0, x1, y1 = box
    return (
        (x0 + placement.crop_left) * x_scale,
        (y0 + placement.crop_top) * y_scale,
        (x1 + placement.crop_left) * x_scale,
        (y1 + placement.crop_top) * y_scale,
    )


def from_source(box: FloatBox, placement: Placement) -> FloatBox:
    """Map a box of the picture (pixels after EXIF rotation) onto the model's input, the inverse of `to_source`."""
    x_scale = placement.resized_width / placement.width
    y_scale = placement.resized_height / placement.height
    x0, y0, x1, y1 = box
    return (
        x0 * x_scale - placement.crop_left,
        y0 * y_scale - placement.crop_top,
        x1 * x_scale - placement.crop_left,
        y1 * y_scale - placement.crop_top,
    )


def make_grid(
    receptive_field: int, stride: int, height: int, width: int, offset: int = 0, colour: Colour = (0, 0, 0)
) -> Grid:
    """Grid of a patch model over a `height` × `width` input.

    Args:
        receptive_field, stride: pixels of a patch's side, and from one patch to the next.
        height, width: of the input.
        offset: where the first patch begins; -p for a model that pads p pixels on each side in all.
        colour: of what it pads with.

    Raises:
        SettingsError: the input is smaller than one patch.
    """
    rows, cols = ((side - 2 * offset - receptive_field) // stride + 1 for side in (height, width))
    if min(rows, cols) < 1:
        raise SettingsError(
            f"an input of {width} x {height} pixels is smaller than one patch of "
            f"{receptive_field} x {receptive_field}: give a larger --image-size"
        )
    return place_grid(receptive_field, stride, (rows, cols), (height, width), offset, colour)


def place_grid(
    receptive_field: int, stride: int, cells: tuple[int, int], shape: tuple[int, int], offset: int, colour: Colour
) -> Grid:
    """Grid of `cells` (rows, cols) over an input of `shape` (height, width); otherwise as `make_grid`."""
    from bagindex_schemas.records import Grid, Padding  # here, for what decodes pictures has no use for it

    ends = (offset + (count - 1) * stride + receptive_field for count in cells)
    beyond = offset < 0 or any(end > side for end, side in zip(ends, shape, strict=True))
    return Grid(
        receptive_field=receptive_field,
        stride=stride,
        rows=cells[0],
        cols=cells[1],
        offset=offset,
        padding=Padding(height=shape[0], width=shape[1], colour=colour) if beyond else None,
    )


def padding_colour(mean: tuple[float, float, float]) -> Colour:
    """What zeros of an input are as a colour, from what is subtracted of it (RGB, of values in [0, 1])."""
    red, green, blue = (round(255 * each) for each in mean)
    return red, green, blue


def whole_box(grid: Grid, row: int, col: int) -> Box:
    """The box of patch (`row`, `col`) with what of it lies beyond the model's input."""
    x0, y0 = grid.offset + col * grid.stride, grid.offset + row * grid.stride
    return (x0, y0, x0 + grid.receptive_field, y0 + grid.receptive_field)


def patch_box(grid: Grid, row: int, col: int) -> Box:
    """Pixels of the model's input that patch (`row`, `col`) sees."""
    box = whole_box(grid, row, col)
    if grid.padding is None:
        return box
    width, height = grid.padding.width, grid.padding.height
    return (max(box[0], 0), max(box[1], 0), min(box[2], width), min(box[3], height))


def is_whole(grid: Grid, row: int, col: int) -> bool:
    """Whether patch (`row`, `col`) lies in the input, so that nothing but pixels makes its feature."""
    return patch_box(grid, row, col) == whole_box(grid, row, col)


def cell_at(grid: Grid, box: FloatBox) -> tuple[int, int] | None:
    """The cell (row, col) whose patch shares most pixels with a box of the model's input; of equal ones the one whose
    middle is nearest to the box's, then the first. None where no patch shares any. A box may be a point.
    """
    best, found = None, None
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    middle = grid.offset + grid.receptive_field / 2
    # A point has no area: it gets a little, so that it lies in patches.
    spread = 0.5 if box[0] == box[2] or box[1] == box[3] else 0.0
    wide = (box[0] - spread, box[1] - spread, box[2] + spread, box[3] + spread)
    for row in range(grid.rows):
        for col in range(grid.cols):
            patch = patch_box(grid, row, col)
            shared = shared_area(patch, wide)
            far = (col * grid.stride + middle - x) ** 2 + (row * grid.stride + middle - y) ** 2
            if shared > 0 and (best is None or (-round(shared, 6), far) < best):
                best, found = (-round(shared, 6), far), (row, col)
    return found


def alone(grid: Grid) -> tuple[int, int, int]:
    """Where a patch stands in the smallest square input in which one of a BagNet's lies as a whole: the pixel at which
    it begins, to the input's end, the row and column of its cell, and how many columns there are.
    """
    cell = -(min(grid.offset, 0) // grid.stride)
    place = grid.offset + cell * grid.stride
    return place, cell, (place - 2 * grid.offset) // grid.stride + 1


def patch_pixels(pixels: NDArray[np.uint8], grid: Grid, row: int, col: int) -> NDArray[np.uint8]:
    """The pixels of patch (`row`, `col`) of a model's input, uint8 [q, q, RGB] from [height, width, RGB]; what lies
    beyond the input has the colour that the model pads with.
    """
    import numpy as np

    inner = cut(pixels, patch_box(grid, row, col))
    if grid.padding is None or is_whole(grid, row, col):
        return inner
    left, top, _, _ = whole_box(grid, row, col)
    shown = np.full((grid.receptive_field, grid.receptive_field, 3), grid.padding.colour, np.uint8)
    x, y = max(-left, 0), max(-top, 0)
    shown[y : y + inner.shape[0], x : x + inner.shape[1]] = inner
    return shown


def cut(pixels: NDArray[np.uint8], box: Box) -> NDArray[np.uint8]:
    """The pixels in a box, [height, width, RGB] from [height, width, RGB]; a view."""
    x0, y0, x1, y1 = box
    return pixels[y0:y1, x0:x1]


def locate(grid: Grid, patch_id: int) -> tuple[int, int, int]:
    """`(image_id, row, col)` of a patch."""
    image_id, cell = divmod(patch_id, grid.patches)
    row, col = divmod(cell, grid.cols)
    return image_id, row, col


def patch_ids(grid: Grid, image_ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """Ids of all patches of the images, image by image, shape (images · rows · cols,)."""
    import numpy as np

    first = image_ids.astype(np.int64) * grid.patches
    ids: NDArray[np.int64] = (first[:, None] + np.arange(grid.patches, dtype=np.int64)).reshape(-1)
    return ids


def shared_area(a: FloatBox, b: FloatBox) -> float:
    """Pixels that two boxes share."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    return max(width, 0) * max(height, 0)
