"""Patch grid <-> pixel boxes, model input <-> original picture. Pure functions.

A *box* is `(x0, y0, x1, y1)` in pixels, x to the right, y down, the upper ends excluded.
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


def make_grid(receptive_field: int, stride: int, height: int, width: int) -> Grid:
    """Grid of an unpadded patch model over a `height` × `width` input.

    Raises:
        SettingsError: the input is smaller than one patch.
    """
    from bagindex_schemas.records import Grid  # here, for what decodes pictures has no use for it

    if min(height, width) < receptive_field:
        raise SettingsError(
            f"an input of {width} x {height} pixels is smaller than one patch of "
            f"{receptive_field} x {receptive_field}: give a larger --image-size"
        )
    return Grid(
        receptive_field=receptive_field,
        stride=stride,
        rows=(height - receptive_field) // stride + 1,
        cols=(width - receptive_field) // stride + 1,
    )


def patch_box(grid: Grid, row: int, col: int) -> Box:
    """Pixels of the model's input that patch (`row`, `col`) sees."""
    x0, y0 = col * grid.stride, row * grid.stride
    return (x0, y0, x0 + grid.receptive_field, y0 + grid.receptive_field)


def cell_at(grid: Grid, box: FloatBox) -> tuple[int, int] | None:
    """The cell (row, col) whose patch shares most pixels with a box of the model's input; of equal ones the one whose
    middle is nearest to the box's, then the first. None where no patch shares any. A box may be a point.
    """
    best, found = None, None
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    half = grid.receptive_field / 2
    # A point has no area: it gets a little, so that it lies in patches.
    spread = 0.5 if box[0] == box[2] or box[1] == box[3] else 0.0
    wide = (box[0] - spread, box[1] - spread, box[2] + spread, box[3] + spread)
    for row in range(grid.rows):
        for col in range(grid.cols):
            patch = patch_box(grid, row, col)
            shared = shared_area(patch, wide)
            far = (patch[0] + half - x) ** 2 + (patch[1] + half - y) ** 2
            if shared > 0 and (best is None or (-round(shared, 6), far) < best):
                best, found = (-round(shared, 6), far), (row, col)
    return found


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
