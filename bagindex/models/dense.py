"""Evidence at every pixel of a model of which nothing is known but its patches: one pass for each shift of the input.

Strides become dilations only where the layers are known; see `bagindex.dense`. Here the input is moved by each number
of pixels below the stride, and of each pass those patches count that lie wholly in the moved input.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from bagindex.arithmetic import float32
from bagindex.dense import padded_input
from bagindex.errors import SettingsError
from bagindex.models.interface import PatchModel
from bagindex.text import first_line
from bagindex_schemas.records import Transform


def shifted_evidence(
    model: PatchModel,
    transform: Transform,
    pixels: NDArray[np.uint8],
    class_ids: Sequence[int],
    device: torch.device,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> NDArray[np.float32]:
    """Evidence of the patch around every pixel, in float32.

    Args:
        model: it is brought to the device.
        transform, pixels, class_ids, progress: as for `bagindex.dense.dense_evidence`.
        device: where to compute.

    Returns:
        Logits, float32 [classes, height, width]. [c, y, x] is that of the patch whose middle pixel is (y, x), of an
        even side the one before the middle; what it would see beyond the image is 0 after normalisation. At the patches
        of the stored grid that lie in the image it is their evidence.

    Raises:
        SettingsError: the model does not take inputs that are larger than its own.
    """
    field, stride = model.receptive_field, model.stride
    half = (field - 1) // 2
    first = -(min(model.offset, 0) // stride)  # the first cell whose patch lies in an input
    before = model.offset + first * stride + half
    height, width = pixels.shape[:2]
    result = np.empty((len(class_ids), height, width), np.float32)
    network = model.network.to(device).eval()
    with torch.inference_mode(), float32():
        chosen = list(class_ids)
        weight, bias = model.linear.weight[chosen], model.linear.bias[chosen]
        padded = padded_input(pixels, transform, (before, field - 1 - half), device)
        shifts = [(down, right) for down in range(min(stride, height)) for right in range(min(stride, width))]
        for done, (down, right) in enumerate(shifts):
            progress(done, len(shifts))
            rows, cols = len(range(down, height, stride)), len(range(right, width, stride))
            try:
                features = model.features(padded[:, :, down:, right:])[0].permute(1, 2, 0)
            except (RuntimeError, AssertionError) as error:
                raise SettingsError(
                    f"{model.name} has no dense heatmap, since it takes no larger inputs than its own: "
                    f"{first_line(error)}"
                ) from None
            logits = nn.functional.linear(features[first : first + rows, first : first + cols], weight, bias)
            if logits.shape[:2] != (rows, cols):
                raise SettingsError(f"{model.name} has no dense heatmap: of a larger input it gives fewer patches")
            result[:, down::stride, right::stride] = logits.permute(2, 0, 1).cpu().numpy()
        progress(len(shifts), len(shifts))
    network.cpu()
    return result
