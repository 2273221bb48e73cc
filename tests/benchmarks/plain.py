"""A BagNet as one writes it from the paper (section 2, appendix A.1): no folding, no merging, one image after the other
through torch's defaults. The yardstick of the benchmark of builds.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class Block(nn.Module):
    """A ResNet bottleneck without padding."""

    def __init__(self, inputs: int, channels: int, stride: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, kernel, stride, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, 4 * channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(4 * channels)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or inputs != 4 * channels:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, 4 * channels, 1, stride, bias=False), nn.BatchNorm2d(4 * channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        """[N, C, H, W] -> [N, C', H', W']."""
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        residual = x if self.downsample is None else self.downsample(x)
        return self.relu(out + residual[:, :, : out.shape[2], : out.shape[3]])


class PlainBagNet(nn.Module):
    """BagNet-9, -17 or -33 with the authors' names of parameters."""

    def __init__(self, patch: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 1, bias=False)
        self.conv2 = nn.Conv2d(64, 64, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(64, momentum=0.001)
        self.relu = nn.ReLU(inplace=True)
        large = {9: 2, 17: 3, 33: 4}[patch]
        inputs = 64
        for number, (blocks, stride) in enumerate(zip((3, 4, 6, 3), (2, 2, 2, 1), strict=True)):
            layer = []
            for block in range(blocks):
                first = block == 0
                layer.append(
                    Block(inputs, 64 * 2**number, stride if first else 1, 3 if first and number < large else 1)
                )
                inputs = 256 * 2**number
            setattr(self, f"layer{number + 1}", nn.Sequential(*layer))
        self.fc = nn.Linear(inputs, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Patch logits: normalised images [N, 3, H, W] -> [N, rows, cols, classes]."""
        x = self.relu(self.bn1(self.conv2(self.conv1(x))))
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: Tensor = self.fc(x.permute(0, 2, 3, 1))
        return logits


def load(state: dict[str, Tensor], patch: int) -> PlainBagNet:
    """The model with a checkpoint's weights, for inference."""
    model = PlainBagNet(patch, len(state["fc.bias"]))
    model.load_state_dict(state, strict=False)
    return model.float().eval()


def rate(model: nn.Module, images: Tensor, batch: int, seconds: float) -> float:
    """Images per second over whole batches of the images, again and again for so long at least."""
    import time

    batches = [images[start : start + batch] for start in range(0, len(images) - batch + 1, batch)]
    with torch.inference_mode():
        model(batches[0])
        done, place = 0, 0
        began = time.perf_counter()
        while time.perf_counter() - began < seconds:
            model(batches[place % len(batches)])
            done, place = done + batch, place + 1
        return done / (time.perf_counter() - began)
