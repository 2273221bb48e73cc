"""The paper's Figure 2: evidence at every pixel, by the patch that has it at its centre.

Without its strides a BagNet sees a patch at every pixel. A convolution that came after strides of 2 · 2 must then take
inputs 4 pixels apart, which is a dilation of 4: strides become dilations, and everything that neighbouring patches
share is computed once. A BagNet crops its residuals at the bottom and on the right; so it does here, since position y
of a block's output starts at the pixel at which position y of its input starts. One that pads has the middle of what
position y sees at pixel y, and pads as far as its dilated convolutions reach.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bagindex.arithmetic import float32
from bagindex.inference import FoldedBagNet, Plain, padding
from bagindex.model import BagNet
from bagindex_schemas.records import Transform

TILE = (64, 256)
"""Rows and columns that are computed at a time: 2048 features for each are 134 MB, and a block holds four such."""


def without_strides(folded: FoldedBagNet) -> FoldedBagNet:
    """A copy that gives the features of the patch at every pixel: [N, 3, H, W] -> [N, H - q + 1, W - q + 1, D].

    Place (y, x) of the result is the patch whose upper left corner is the pixel (y, x). Of a model that pads it is the
    one whose middle is there, and there are [N, H, W, D].
    """
    dense = copy.deepcopy(folded)
    dilation = 1
    for block in dense.blocks:
        stride = 1
        # In a block's order; conv2 and downsample have the same stride.
        for conv in (each for each in block.children() if isinstance(each, nn.Conv2d)):
            conv.dilation = (dilation, dilation)
            conv.padding = tuple(dilation * each for each in padding(conv))
            stride = max(stride, conv.stride[0])
            conv.stride = (1, 1)
        dilation *= stride
    return dense


def dense_evidence(
    model: BagNet,
    transform: Transform,
    pixels: NDArray[np.uint8],
    class_ids: Sequence[int],
    device: torch.device | None = None,
    tile: tuple[int, int] = TILE,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> NDArray[np.float32]:
    """Evidence of the patch around every pixel, in float32 (section 3.3 and Figure 2).

    Args:
        model: on a CPU; it stays as it is.
        transform: whose mean and standard deviation normalise the input.
        pixels: the input before normalisation, uint8 [height, width, RGB], of any size.
        class_ids: classes whose evidence is wanted.
        device: where to compute; by default on the CPU.
        tile: rows and columns of the result that are computed at a time; bounds the memory.
        progress: hears how many of how many tiles are done.

    Returns:
        Logits, float32 [classes, height, width]. [c, y, x] is that of the patch whose middle pixel is (y, x); what it
        would see beyond the image is 0 after normalisation, which is the mean colour, or what the model itself pads
        with in each layer. At the patches of the stored grid it is their evidence. Its mean is not the image's logit.
    """
    place = device or torch.device("cpu")
    network = without_strides(FoldedBagNet(model)).to(place).to(memory_format=torch.channels_last)
    # cuDNN's fused functions are only known to be right without dilations.
    how = None if place.type == "cpu" else Plain
    half = (model.architecture.receptive_field - 1) // 2
    height, width = pixels.shape[:2]
    result = np.empty((len(class_ids), height, width), np.float32)
    with torch.inference_mode(), float32():
        chosen = list(class_ids)
        weight, bias = model.fc.weight[chosen].to(place), model.fc.bias[chosen].to(place)
        # One that pads does so where the image ends; beyond the tile lies what its patches see of the image.
        own = model.architecture.padded
        padded = padded_input(pixels, transform, (0, 0) if own else (half, half), place)
        corners = [(y, x) for y in range(0, height, tile[0]) for x in range(0, width, tile[1])]
        for done, (top, left) in enumerate(corners):
            progress(done, len(corners))
            bottom, right = min(top + tile[0], height), min(left + tile[1], width)
            if own:
                first = max(top - half, 0), max(left - half, 0)
                part = padded[:, :, first[0] : bottom + half, first[1] : right + half]
            else:
                first = top, left
                part = padded[:, :, top : bottom + 2 * half, left : right + 2 * half]
            features = network(part.contiguous(memory_format=torch.channels_last), how)[0]
            features = features[top - first[0] : bottom - first[0], left - first[1] : right - first[1]]
            logits = nn.functional.linear(features, weight, bias)
            result[:, top:bottom, left:right] = logits.permute(2, 0, 1).cpu().numpy()
        progress(len(corners), len(corners))
    return result


def padded_input(
    pixels: NDArray[np.uint8], transform: Transform, border: tuple[int, int], device: torch.device
) -> Tensor:
    """The normalised input with zeros around it, float32 [1, 3, H, W].

    Args:
        pixels: uint8 [height, width, RGB].
        transform: whose mean and standard deviation normalise it.
        border: rows above it and columns before it, and those below and after it.
        device: where it is to be.
    """
    mean, std = (torch.tensor(values, device=device).view(1, 3, 1, 1) for values in (transform.mean, transform.std))
    image = torch.from_numpy(np.array(pixels)).to(device).permute(2, 0, 1)[None]
    normalised = image.float().div_(255).sub_(mean).div_(std)
    return nn.functional.pad(normalised, (*border, *border))
