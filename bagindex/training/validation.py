"""How good a model is on pictures that it was not trained on, and the sums that both halves of an epoch keep.

Validation is always in float32, on the inputs that a build would make, so that its accuracy is what an index of the
same pictures gives.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import Tensor
from torch.nn.functional import cross_entropy

from bagindex.arithmetic import float32
from bagindex.decoding import Decoder
from bagindex.images import Rejected
from bagindex.model import BagNet
from bagindex.training.pictures import TrainingData
from bagindex_schemas.records import Transform

_TOP = 5
_BATCH = 16


@dataclass(frozen=True)
class Means:
    """Mean loss, top-1 and top-5 accuracy (shares of 1) over `images` pictures."""

    loss: float
    top1: float
    top5: float
    images: int


@dataclass
class Tally:
    """Sums over pictures, and the files that could not be read."""

    sums: Tensor = field(default_factory=lambda: torch.zeros(4, dtype=torch.float64))
    unreadable: set[str] = field(default_factory=set)

    def add(self, logits: Tensor, labels: Tensor, loss: float) -> None:
        """A batch: logits [N, classes], class ids [N], and its mean loss."""
        top = logits.topk(min(_TOP, logits.shape[1]), dim=1).indices == labels[:, None]
        count = len(labels)
        self.sums += torch.tensor([loss * count, int(top[:, 0].sum()), int(top.sum()), count], dtype=torch.float64)

    def means(self, fabric: Fabric) -> Means:
        """Over all processes."""
        sums: Any = fabric.all_reduce(self.sums, reduce_op="sum")
        loss, top1, top5 = (float(value) for value in sums[:3] / sums[3].clamp(min=1))
        return Means(loss, top1, top5, int(sums[3]))


def validate(fabric: Fabric, model: BagNet, data: TrainingData, transform: Transform, workers: int) -> Tally:
    """Run a model over this process's part of the validation pictures."""
    tally = Tally()
    model.eval()
    for pixels, labels in _batches(fabric, data, transform, workers, tally.unreadable):
        with torch.inference_mode(), float32():
            images = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(fabric.device)
            wanted = torch.from_numpy(labels).to(fabric.device)
            logits = model(normalise(images, transform))
            tally.add(logits, wanted, float(cross_entropy(logits, wanted)))
    return tally


def normalise(images: Tensor, transform: Transform) -> Tensor:
    """uint8 [N, RGB, H, W] -> float32 as the model takes it."""
    mean, std = (torch.tensor(v, device=images.device).view(1, 3, 1, 1) for v in (transform.mean, transform.std))
    return (images.float() / 255 - mean) / std


def _batches(
    fabric: Fabric, data: TrainingData, transform: Transform, workers: int, unreadable: set[str]
) -> Iterator[tuple[Any, Any]]:
    entries = data.validation.entries[fabric.global_rank :: fabric.world_size]
    pixels, labels = [], []
    for entry, picture in Decoder(max(1, workers)).decode(data.validation, entries, transform):
        if isinstance(picture, Rejected):
            unreadable.add(f"{entry.text} ({picture.code})")
            continue
        pixels.append(picture.pixels)
        labels.append(data.label(entry))
        if len(pixels) == _BATCH:
            yield np.stack(pixels), np.array(labels)
            pixels, labels = [], []
    if pixels:
        yield np.stack(pixels), np.array(labels)
