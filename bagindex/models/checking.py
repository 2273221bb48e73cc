"""Whether a model of one's own is what it says: patches that see their boxes only, and logits that are their mean."""

from __future__ import annotations

import torch
from torch import Tensor

from bagindex.arithmetic import float32
from bagindex.errors import SettingsError
from bagindex.geometry import Box, padding_colour, patch_box, place_grid
from bagindex.invariants import FLOAT_ERROR
from bagindex.models.interface import PatchModel
from bagindex.text import first_line
from bagindex_schemas.records import Grid, Transform

_INSIDE = 3
"""Patches beside the four corners' and the middle one that are looked at."""


def check(model: PatchModel, transform: Transform | None = None) -> Grid:
    """See whether a model is what it says, on random inputs, on the CPU in float32.

    It must give finite features, the same each time and whatever is beside the image in its batch; a feature must not
    change when all pixels outside the patch's box do, and must when those inside do; and the mean of the patches'
    logits must be what the network itself gives.

    Args:
        model: its network stays as it is, but is brought to the CPU, in float32 and for evaluation.
        transform: whose input it gets; by default its own.

    Returns:
        The grid of its patches over that input.

    Raises:
        SettingsError: it is not, with the reason.
    """
    used = transform or model.transform
    shape = used.crop_height, used.crop_width
    generator = torch.Generator().manual_seed(0)
    image, other = (torch.randn((1, 3, *shape), generator=generator) for _ in range(2))
    model.network.cpu().float().eval()
    try:
        with torch.inference_mode(), float32():
            features = model.features(image)
            grid = _grid(model, features, used)
            scale = _check_repeated(model, features, image, other)
            _check_boxes(model, grid, features, image, other, scale)
            _check_mean(model, features, image)
    except torch.OutOfMemoryError:
        raise
    except (RuntimeError, TypeError, ValueError, AssertionError, NotImplementedError) as error:
        raise SettingsError(
            f"{model.name} cannot be run on an input of {shape[1]} x {shape[0]} pixels: {first_line(error)}"
        ) from None
    return grid


def _grid(model: PatchModel, features: Tensor, transform: Transform) -> Grid:
    shape = transform.crop_height, transform.crop_width
    cells = features.shape[2], features.shape[3]
    if min(cells) < 1:
        raise SettingsError(f"{model.name} has no patch in an input of {shape[1]} x {shape[0]} pixels")
    field, stride, colour = model.receptive_field, model.stride, padding_colour(transform.mean)
    grid = place_grid(field, stride, cells, shape, model.offset, colour)
    x0, y0, x1, y1 = patch_box(grid, grid.rows - 1, grid.cols - 1)
    if x0 >= x1 or y0 >= y1:
        raise SettingsError(
            f"{model.name} gives {cells[0]} x {cells[1]} patches, the last of which would lie beyond the input: say "
            "its real receptive_field, stride and offset"
        )
    return grid


def _check_repeated(model: PatchModel, features: Tensor, image: Tensor, other: Tensor) -> float:
    """See whether features are finite and always the same; the largest magnitude of one."""
    if not bool(torch.isfinite(features).all()):
        raise SettingsError(f"{model.name} gives features that are not finite")
    scale = float(features.abs().max())
    for beside, what in ((image, "when it is run again"), (torch.cat([image, other]), "beside another in its batch")):
        change = float((model.features(beside)[:1] - features).abs().max())
        if not change <= FLOAT_ERROR * scale:
            raise SettingsError(
                f"{model.name} gives an image other features {what}: it must not draw at random or look at others"
            )
    return scale


def _check_boxes(model: PatchModel, grid: Grid, features: Tensor, image: Tensor, other: Tensor, scale: float) -> None:
    depends = False
    for row, col in _cells(grid):
        box = patch_box(grid, row, col)
        before = features[0, :, row, col]
        outside = model.features(_replaced(other, image, box))[0, :, row, col]
        change = float((outside - before).abs().max())
        if not change <= FLOAT_ERROR * scale:
            raise SettingsError(
                f"{model.name} is not the bag of patches that it says: the feature of patch (row {row}, col {col}) "
                f"changes by {100 * change / scale:.2g} % of the largest when pixels outside its box {list(box)} do; "
                "say its real receptive_field, stride and offset, if it has any"
            )
        inside = model.features(_replaced(image, other, box))[0, :, row, col]
        depends = depends or float((inside - before).abs().max()) > FLOAT_ERROR * scale
    if not depends:
        raise SettingsError(f"{model.name} gives patches the same features whatever they show")


def _cells(grid: Grid) -> list[tuple[int, int]]:
    rows, cols = grid.rows, grid.cols
    generator = torch.Generator().manual_seed(1)
    drawn = [divmod(int(cell), cols) for cell in torch.randint(grid.patches, (_INSIDE,), generator=generator)]
    corners = [(0, 0), (0, cols - 1), (rows - 1, 0), (rows - 1, cols - 1)]
    return list(dict.fromkeys([(rows // 2, cols // 2), *corners, *drawn]))


def _replaced(around: Tensor, within: Tensor, box: Box) -> Tensor:
    """An image that is another one in a box."""
    x0, y0, x1, y1 = box
    mixed = around.clone()
    mixed[:, :, y0:y1, x0:x1] = within[:, :, y0:y1, x0:x1]
    return mixed


def _check_mean(model: PatchModel, features: Tensor, image: Tensor) -> None:
    patches = model.linear(features.permute(0, 2, 3, 1))
    own, mean = model.logits(image), patches.mean(dim=(1, 2))
    if not bool(torch.isfinite(patches).all()):
        raise SettingsError(f"{model.name} gives logits that are not finite")
    size = max(float(patches.abs().max()), float(own.abs().max()))
    change = float((own - mean).abs().max())
    if not change <= 10 * FLOAT_ERROR * size:
        raise SettingsError(
            f"{model.name} is no linear bag of patches: its own logits differ from the mean of its patches' by "
            f"{100 * change / size:.2g} % of the largest; a norm or an activation between the mean and `fc` does that"
        )
