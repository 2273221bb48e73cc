"""BagNets as their authors define them (Brendel & Bethge, ICLR 2019, appendix A.1 and Figure A.1).

A ResNet-50 without padding in which only the first block of some layers has a 3 × 3 convolution, so that an output cell
sees q × q pixels and nothing else. State-dict keys and shapes are those of the authors' checkpoints.

So are those of the BagNets v2 of Berens lab (github.com/berenslab/bagnetsv2), which are the same but for two things:
the stem is one 3 × 3 convolution, and 3 × 3 convolutions pad, so that no residual is cropped and a cell's patch has its
middle at a multiple of the stride.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bagindex.registry import Architecture

BLOCKS = (3, 4, 6, 3)
STRIDES = (2, 2, 2, 1)
"""Of the four layers: how many blocks each has, and the stride of its first."""
_EXPANSION = 4


class Bottleneck(nn.Module):
    """1 × 1, k × k (k = 1 or 3) and 1 × 1 convolution around a residual, which is cropped where they do not pad."""

    def __init__(
        self, inputs: int, channels: int, stride: int, kernel: int, downsample: bool, padded: bool = False
    ) -> None:
        super().__init__()
        outputs = channels * _EXPANSION
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(channels)
        padding = kernel // 2 if padded else 0
        self.conv2 = nn.Conv2d(channels, channels, kernel, stride=stride, padding=padding, bias=False)
        self.bn2: nn.Module = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, outputs, 1, bias=False)
        self.bn3: nn.Module = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False), nn.BatchNorm2d(outputs))
            if downsample
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W']."""
        out = torch.relu_(self.bn1(self.conv1(x)))
        out = torch.relu_(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        residual = x if self.downsample is None else self.downsample(x)
        # An unpadded 3 × 3 convolution is smaller; the authors cut the residual at the bottom and on the right.
        residual = residual[:, :, : out.shape[2], : out.shape[3]]
        out += residual
        return torch.relu_(out)


class BagNet(nn.Module):
    """A BagNet of any number of classes and any width.

    Args:
        architecture: which member of the family.
        classes: number of classes.
        width: factor on every layer's channels; 1 is the authors' model, whose features have 2048 dimensions.
    """

    def __init__(self, architecture: Architecture, classes: int, width: float = 1.0) -> None:
        super().__init__()
        self.architecture = architecture
        base = round(64 * width)
        padded = architecture.padded
        self.conv1 = nn.Conv2d(3, base, 3, padding=1, bias=False) if padded else nn.Conv2d(3, base, 1, bias=False)
        self.conv2 = None if padded else nn.Conv2d(base, base, 3, bias=False)
        self.bn1: nn.Module = nn.BatchNorm2d(base)
        inputs = base
        for i, (blocks, stride) in enumerate(zip(BLOCKS, STRIDES, strict=True)):
            channels = base * 2**i
            kernel = 3 if i < architecture.layers_with_3x3 else 1
            layer = [Bottleneck(inputs, channels, stride, kernel, downsample=True, padded=padded)]
            inputs = channels * _EXPANSION
            layer += [Bottleneck(inputs, channels, 1, 1, downsample=False) for _ in range(1, blocks)]
            self.add_module(f"layer{i + 1}", nn.Sequential(*layer))
        self.feature_size = inputs
        self.fc = nn.Linear(inputs, classes)

    def features(self, x: Tensor) -> Tensor:
        """Patch features of normalised images: float [N, 3, H, W] -> float [N, rows, cols, feature_size]."""
        x = self.conv1(x) if self.conv2 is None else self.conv2(self.conv1(x))
        x = torch.relu_(self.bn1(x))
        for i in range(1, 5):
            x = self.get_submodule(f"layer{i}")(x)
        return x.permute(0, 2, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Image logits, the mean of the patch logits (section 2): [N, 3, H, W] -> [N, classes]."""
        logits: Tensor = self.fc(self.features(x)).mean(dim=(1, 2))
        return logits
