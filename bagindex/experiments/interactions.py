"""How far parts of an image act on each other: the paper's Equation 1 and Figure 6.

Every second square of every second row of an image is replaced by its mean colour (its DC component), all of them at
once and each alone. Where the network's logit is a sum over parts that are nearer to each other than the squares are,
the change of the one is the sum of the changes of the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagindex.compute import find_device
from bagindex.errors import QueryError
from bagindex.experiments import drawing
from bagindex.experiments.against import networks, own_networks
from bagindex.experiments.correlation import pearson
from bagindex.experiments.experiment import Beside, Outcome, Setting
from bagindex.experiments.networks import Network
from bagindex.experiments.predicted import AT_ONCE
from bagindex.geometry import Box

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SIZES = (16, 24, 32, 48, 64)
"""Pixels of a square's side, and so between neighbouring squares."""
IMAGES = 16
"""Taken where no number is asked for: each is run 108 times, at 224 × 224 pixels."""
Forward = Callable[[Tensor], Tensor]
"""Logits of normalised inputs, [N, 3, H, W] -> [N, C]."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """What becomes of a network's logits when squares of images are replaced.

    Attributes:
        network: its name.
        size: pixels of a square's side.
        squares: how many are replaced in an image.
        joint: by how much each logit falls when all are, float64 [N, C].
        summed: the sum of what it falls by when each is alone, float64 [N, C].
        predicted: the class with the largest logit of each image as it is, int64 [N].
    """

    network: str
    size: int
    squares: int
    joint: NDArray[np.float64]
    summed: NDArray[np.float64]
    predicted: NDArray[np.int64]

    @property
    def own(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The joint and the summed change of the predicted class's logit, [N] each."""
        rows = np.arange(len(self.predicted))
        return self.joint[rows, self.predicted], self.summed[rows, self.predicted]


def squares(height: int, width: int, size: int) -> tuple[Box, ...]:
    """Every second square of every second row of a grid over an image, whole ones only."""
    tops, lefts = range(0, height - size + 1, 2 * size), range(0, width - size + 1, 2 * size)
    return tuple((left, top, left + size, top + size) for top in tops for left in lefts)


def flatten(image: Tensor, boxes: Sequence[Box]) -> Tensor:
    """A copy of an image [3, H, W] in which each box has its mean colour."""
    changed = image.clone()
    for x0, y0, x1, y1 in boxes:
        changed[:, y0:y1, x0:x1] = image[:, y0:y1, x0:x1].mean(dim=(1, 2), keepdim=True)
    return changed


def changes(forward: Forward, image: Tensor, boxes: Sequence[Box], at_once: int = 8) -> tuple[Tensor, Tensor, Tensor]:
    """Both sides of Equation 1 for one image, and its logits, float64 [C] each.

    Args:
        forward: the network.
        image: normalised, [3, H, W].
        boxes: what is replaced.
        at_once: images that the network takes at a time.

    Returns:
        By how much the logits fall when all boxes are replaced; the sum of what they fall by when each is; the logits.
    """
    versions: list[Sequence[Box]] = [(), boxes, *((box,) for box in boxes)]
    parts = []
    for start in range(0, len(versions), at_once):
        batch = torch.stack([flatten(image, each) for each in versions[start : start + at_once]])
        parts.append(forward(batch).double())
    logits, together, *alone = torch.cat(parts)
    return logits - together, (logits - torch.stack(alone)).sum(dim=0), logits


def run(setting: Setting) -> Outcome:
    """Measure it of the chosen BagNets and of the networks to compare with.

    Raises:
        QueryError: the inputs are too small for two squares.
        BagindexError: a network or the pixels cannot be had.
    """
    image_ids = setting.few(IMAGES)
    transform = setting.catalog.manifest.plan.transform
    height, width = transform.crop_height, transform.crop_width
    sizes = [size for size in SIZES if len(squares(height, width, size)) > 1]
    if not sizes:
        raise QueryError(f"inputs of {width} × {height} pixels are too small for squares of {min(SIZES)} pixels")
    all_networks = [*own_networks(setting), *networks(setting)]
    found = [each for network in all_networks for each in _measure(setting, network, image_ids, sizes)]
    fields = {record.name: record.grid.receptive_field for record in setting.records}
    return Outcome(
        experiment="interactions",
        title=f"Changes of the logits of {len(image_ids):,} images when squares of them are replaced by their mean",
        tables={"interactions": _table(found)},
        figures={"interactions": _figure(found, fields)},
        beside=_beside(found, fields),
        remarks=(
            "The class is the one that the network predicts for the whole image. Squares of p pixels are p pixels "
            "apart: from p = q − 1 on, no patch of a BagNet-q sees two of them.",
        ),
        settings={"images": len(image_ids), "sizes": sizes},
    )


def _measure(
    setting: Setting, network: Network, image_ids: NDArray[np.int64], sizes: Sequence[int]
) -> list[Interactions]:
    device = find_device(setting.device)
    rows: dict[int, list[tuple[Tensor, Tensor, Tensor]]] = {size: [] for size in sizes}
    network.module.to(device)
    try:
        for done, image_id in enumerate(image_ids.tolist()):
            setting.progress(f"{network.name}: replacing squares of images", done, len(image_ids))
            pixels = torch.from_numpy(np.array(setting.pixels([image_id])[image_id])).to(device)
            image = network.normalise(pixels[None])[0]
            for size, results in rows.items():
                boxes = squares(image.shape[1], image.shape[2], size)
                with torch.inference_mode():
                    results.append(changes(network.logits, image, boxes, AT_ONCE[device.type]))
        setting.progress(f"{network.name}: replacing squares of images", len(image_ids), len(image_ids))
    finally:
        network.module.to("cpu")
    height, width = pixels.shape[:2]
    found = []
    for size, results in rows.items():
        joint, summed, logits = (torch.stack(each).cpu().numpy() for each in zip(*results, strict=True))
        count = len(squares(height, width, size))
        found.append(Interactions(network.name, size, count, joint, summed, logits.argmax(axis=1)))
    return found


def _table(found: Sequence[Interactions]) -> pa.Table:
    rows = []
    for each in found:
        joint, summed = each.own
        rows.append(
            {
                "network": each.network,
                "size": each.size,
                "squares": each.squares,
                "images": len(joint),
                "pearson": pearson(joint, summed),
                "pearson_all_classes": pearson(each.joint, each.summed),
                "joint_mean": float(joint.mean()),
                "joint_deviation": float(joint.std()),
                "summed_mean": float(summed.mean()),
                "summed_deviation": float(summed.std()),
                "largest_difference": float(np.abs(each.joint - each.summed).max()),
            }
        )
    return pa.Table.from_pylist(rows)


def _beside(found: Sequence[Interactions], fields: dict[str, int]) -> tuple[Beside, ...]:
    """What Equation 1 says of a BagNet, for the smallest squares that are far enough apart; it holds for any images."""
    rows = []
    for name, field in fields.items():
        apart = [each for each in found if each.network == name and each.size >= field - 1]
        if apart:
            ours = pearson(*apart[0].own)
            text = f"Pearson's r of joint and summed change, {apart[0].size} pixels apart ({name})"
            rows.append(Beside(text, 1.0, "Eq. 1", ours, True))
    return tuple(rows)


def _figure(found: Sequence[Interactions], fields: dict[str, int]) -> Figure:
    names = list(dict.fromkeys(each.network for each in found))
    least = min(pearson(*each.own) for each in found)
    with drawing.plot("size of the squares, and between them (pixels)", "Pearson's r") as (figure, axes):
        for name, colour in zip(names, drawing.colours(len(names)), strict=True):
            mine = [each for each in found if each.network == name]
            values = [pearson(*each.own) for each in mine]
            axes.plot([each.size for each in mine], values, color=colour, marker="o", markersize=3.5, label=name)
            if name in fields:
                axes.axvline(fields[name], color=colour, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set_ylim(least - 0.1 * (1 - least), 1 + 0.1 * (1 - least) + 1e-6)
        sizes = sorted({each.size for each in found})
        axes.set_xticks(sizes, [str(size) for size in sizes])
        drawing.legend(axes)
    return figure
