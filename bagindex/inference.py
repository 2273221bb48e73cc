"""A BagNet as it is run: the same function as `bagindex.model.BagNet`, with less to do.

Batch norms are merged into the convolutions before them, and the two convolutions of the stem, which have nothing
between them, into one. Residuals are added and rectified while a convolution's results are still in the cache, by
functions of oneDNN and cuDNN that torch itself uses for compiled models; here they cost no compilation.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from bagindex.model import BagNet, Bottleneck


class FoldedBagNet(nn.Module):
    """The features of a BagNet, for inference only.

    Args:
        model: float32, on a CPU; it stays as it is. Weights are merged in float64, so that nothing is lost twice.
    """

    def __init__(self, model: BagNet) -> None:
        super().__init__()
        stem = model.conv1.weight
        if model.conv2 is not None:
            # conv1 is 1 × 1: a sum over its 64 outputs of the products of both weights is one 3 × 3 convolution.
            stem = torch.einsum("omhw,mi->oihw", model.conv2.weight.double(), stem.double()[:, :, 0, 0])
        self.stem = _convolution(stem, model.conv1, model.bn1)
        self.blocks = nn.ModuleList(_Block(block) for block in model.modules() if isinstance(block, Bottleneck))
        self.requires_grad_(False).eval()

    def forward(self, x: Tensor, how: type[Plain] | None = None) -> Tensor:
        """Patch features of normalised images: [N, 3, H, W] -> [N, rows, cols, feature_size], in the weights' dtype.

        `how` it convolves is otherwise what is fastest.
        """
        convolve = how or fastest(x.device.type, x.dtype)
        x = convolve.relu(self.stem, x)
        for block in self.blocks:
            x = block(x, convolve)
        return x.permute(0, 2, 3, 1)


class _Block(nn.Module):
    def __init__(self, block: Bottleneck) -> None:
        super().__init__()
        self.conv1 = _convolution(block.conv1.weight, block.conv1, block.bn1)
        self.conv2 = _convolution(block.conv2.weight, block.conv2, block.bn2)
        self.conv3 = _convolution(block.conv3.weight, block.conv3, block.bn3)
        self.downsample: nn.Conv2d | None = None
        if block.downsample is not None:
            conv, norm = block.downsample
            if not isinstance(conv, nn.Conv2d):
                raise TypeError("downsample begins with a convolution")
            self.downsample = _convolution(conv.weight, conv, norm)

    def forward(self, x: Tensor, convolve: type[Plain]) -> Tensor:
        out = convolve.relu(self.conv2, convolve.relu(self.conv1, x))
        rows, cols = out.shape[2:]
        # An unpadded 3 × 3 convolution is smaller; the authors cut the residual at the bottom and on the right.
        if self.downsample is None:
            residual = x[:, :, :rows, :cols]
        else:
            down, right = self.downsample.stride
            residual = self.downsample(x[:, :, : (rows - 1) * down + 1, : (cols - 1) * right + 1])
        return convolve.add_relu(self.conv3, out, residual)


class Plain:
    """Convolutions and what follows them, one after the other: works anywhere."""

    @staticmethod
    def relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
        """relu(conv(x))."""
        return torch.relu_(conv(x))

    @staticmethod
    def add_relu(conv: nn.Conv2d, x: Tensor, residual: Tensor) -> Tensor:
        """relu(conv(x) + residual); the residual's memory may take the result."""
        return torch.relu_(conv(x).add_(residual))


class OneDNN(Plain):
    """In one step each, on a CPU."""

    @staticmethod
    def relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
        """relu(conv(x))."""
        result: Tensor = torch.ops.mkldnn._convolution_pointwise(
            x, conv.weight, conv.bias, padding(conv), conv.stride, conv.dilation, conv.groups, "relu", [None], ""
        )
        return result

    @staticmethod
    def add_relu(conv: nn.Conv2d, x: Tensor, residual: Tensor) -> Tensor:
        """relu(conv(x) + residual), in the residual's memory."""
        residual = residual.contiguous(memory_format=torch.channels_last)
        shape = padding(conv), conv.stride, conv.dilation, conv.groups
        result: Tensor = torch.ops.mkldnn._convolution_pointwise_.binary(
            residual, x, conv.weight, conv.bias, *shape, "add", 1.0, "relu", [None], ""
        )
        return result


class CuDNN(Plain):
    """In one step each, on an NVIDIA GPU."""

    @staticmethod
    def relu(conv: nn.Conv2d, x: Tensor) -> Tensor:
        """relu(conv(x))."""
        result: Tensor = torch.cudnn_convolution_relu(
            x, conv.weight, conv.bias, conv.stride, padding(conv), conv.dilation, conv.groups
        )
        return result

    @staticmethod
    def add_relu(conv: nn.Conv2d, x: Tensor, residual: Tensor) -> Tensor:
        """relu(conv(x) + residual)."""
        residual = residual.contiguous(memory_format=torch.channels_last)
        result: Tensor = torch.cudnn_convolution_add_relu(
            x, conv.weight, residual, 1.0, conv.bias, conv.stride, padding(conv), conv.dilation, conv.groups
        )
        return result


_FUSED: dict[str, type[Plain]] = {"cpu": OneDNN, "cuda": CuDNN}


@cache
def fastest(device: str, dtype: torch.dtype) -> type[Plain]:
    """How to convolve on a kind of device: fused functions are not part of torch's interface, so they must show that
    they are there and give what the plain ones give.
    """
    fused = _FUSED.get(device, Plain)
    x, residual = (
        torch.linspace(start, 1, 64 * 9, device=device, dtype=dtype)
        .view(1, 64, 3, 3)
        .contiguous(memory_format=torch.channels_last)
        for start in (-1, -2)
    )
    with torch.inference_mode():
        for kernel, border in ((1, 0), (3, 0), (3, 1)):
            conv = nn.Conv2d(64, 64, kernel, padding=border, device=device, dtype=dtype)
            conv = conv.to(memory_format=torch.channels_last)
            conv.weight.copy_(torch.linspace(-0.1, 0.1, conv.weight.numel()).view(conv.weight.shape))
            cells = 4 - kernel + 2 * border
            cut = residual[:, :, :cells, :cells]
            expected = Plain.relu(conv, x), Plain.add_relu(conv, x, cut)
            try:
                found = fused.relu(conv, x), fused.add_relu(conv, x, cut.clone())
            except (AttributeError, RuntimeError, TypeError):
                return Plain
            tolerance = max(4 * torch.finfo(dtype).eps, 1e-5)
            for one, other in zip(expected, found, strict=True):
                if not torch.allclose(one, other, rtol=tolerance, atol=tolerance * float(one.abs().max())):
                    return Plain
    return fused


def padding(conv: nn.Conv2d) -> tuple[int, ...]:
    """Pixels on each side; torch also takes words for them, which no convolution here is made with."""
    return () if isinstance(conv.padding, str) else conv.padding


def _convolution(weight: Tensor, like: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """A convolution of some weights, with another's stride and padding, and the batch norm after it, as one."""
    if not isinstance(norm, nn.BatchNorm2d) or norm.running_mean is None or norm.running_var is None:
        raise TypeError(f"expected a batch norm with statistics, not {type(norm).__name__}")
    mean, variance = norm.running_mean.double(), norm.running_var.double()
    scale, shift = (None if each is None else each.double() for each in (norm.weight, norm.bias))
    fused, bias = fuse_conv_bn_weights(weight.double(), None, mean, variance, norm.eps, scale, shift)
    outputs, inputs, height, width = weight.shape
    conv = nn.Conv2d(inputs, outputs, (height, width))
    conv.stride, conv.padding = like.stride, like.padding
    conv.weight, conv.bias = nn.Parameter(fused.float()), nn.Parameter(bias.float())
    return conv
