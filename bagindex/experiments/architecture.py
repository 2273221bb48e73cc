"""What BagNets are made of: the paper's Figure A.1, found out by probing; see `bagindex.experiments.layers`."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
from torch import nn

from bagindex.experiments import drawing, paper
from bagindex.experiments.against import own_networks
from bagindex.experiments.experiment import Beside, Outcome, Setting
from bagindex.experiments.layers import Layer, probe
from bagindex.experiments.networks import network_module
from bagindex.geometry import patch_box
from bagindex.model import BagNet
from bagindex.models.bags import BagOfPatches, Own
from bagindex.models.finding import find, is_own
from bagindex.registry import ARCHITECTURES
from bagindex_schemas.records import Grid, ModelRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Architecture:
    """A network's layers, for inputs of a size.

    Attributes:
        name: the network's.
        height, width: of its input, pixels.
        layers: in the order in which they run.
    """

    name: str
    height: int
    width: int
    layers: tuple[Layer, ...]

    @property
    def parameters(self) -> int:
        """Numbers that are learnt."""
        return sum(layer.parameters for layer in self.layers)

    @property
    def flops(self) -> int:
        """Floating-point operations of convolutions and linear layers for one image."""
        return sum(layer.flops for layer in self.layers)

    @property
    def field(self) -> int | None:
        """Pixels of the side of what a cell of the last layer with places sees; None where it is not known."""
        placed = [layer for layer in self.layers if layer.rows > 1]
        return placed[-1].field if placed else None

    @property
    def words(self) -> str:
        """In a sentence."""
        sees = "more than can be measured" if self.field is None else f"{self.field} × {self.field} pixels"
        return (
            f"{self.name} at {self.width} × {self.height} pixels: {self.parameters:,} parameters, "
            f"{self.flops / 1e9:.2f} GFLOP, and cells that see {sees}"
        )

    def to_dicts(self) -> list[dict[str, Any]]:
        """The layers as JSON objects have them."""
        return [asdict(layer) for layer in self.layers]


def describe(name: str, classes: int = 1000, size: int = 224) -> Architecture:
    """Probe a BagNet, or a network of torchvision's, without any weights; or a model of one's own, which must be what
    it says.

    Args:
        name: which.
        classes: how many it tells apart; a model of one's own has its own.
        size: pixels of the side of its input.

    Raises:
        SettingsError: there is none such, it cannot be probed at that size, or is not what it says.
    """
    if is_own(name):
        from bagindex.models.checking import check

        model = find(name).make()
        check(model, model.transform.model_copy(update={"crop_height": size, "crop_width": size}))
        return Architecture(model.name, size, size, probe(lambda: _without_weights(model.network), size, size))
    return Architecture(name, size, size, probe(lambda: network_module(name, classes), size, size))


def blind_beyond(module: BagOfPatches, grid: Grid, shape: tuple[int, int], seed: int) -> tuple[float, float]:
    """How far a patch's logits move when all pixels beyond its box are exchanged, and when those of its border are,
    both over their largest value: for the one not at all, for the other they do.

    Args:
        module: the model, with its weights.
        grid: its patches.
        shape: height and width of its input.
        seed: of the pixels, and of which patch.
    """
    generator = np.random.default_rng(seed)
    image, other = (torch.from_numpy(generator.standard_normal((1, 3, *shape), dtype=np.float32)) for _ in range(2))
    row, col = int(generator.integers(grid.rows)), int(generator.integers(grid.cols))
    x0, y0, x1, y1 = patch_box(grid, row, col)
    around, border = other.clone(), image.clone()
    around[:, :, y0:y1, x0:x1] = image[:, :, y0:y1, x0:x1]
    border[:, :, y0:y1, x0:x1] = other[:, :, y0:y1, x0:x1]
    border[:, :, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1] = image[:, :, y0 + 1 : y1 - 1, x0 + 1 : x1 - 1]
    with torch.inference_mode():
        before, *after = (module.evidence(each)[0, row, col] for each in (image, around, border))
    beyond, within = (float((each - before).abs().max() / before.abs().max()) for each in after)
    return beyond, within


def run(setting: Setting) -> Outcome:
    """Probe the chosen models, and try with their weights that patches see their boxes and nothing else."""
    transform = setting.catalog.manifest.plan.transform
    shape = transform.crop_height, transform.crop_width
    found: list[Architecture] = []
    beside = []
    for record, network in zip(setting.records, own_networks(setting), strict=True):
        setting.progress("probing architectures", len(found), len(setting.records))
        found.append(_of_record(record, network.module, len(setting.classes), shape))
        beside.append(
            Beside(
                f"receptive field of {record.name}, pixels",
                float(record.grid.receptive_field),
                paper.ARCHITECTURE_AT,
                None if found[-1].field is None else float(found[-1].field),
                True,
            )
        )
        if isinstance(network.module, BagOfPatches):
            beyond, within = blind_beyond(network.module, record.grid, shape, setting.seed)
            for text, expected, ours in (("beyond", 0.0, beyond), ("at the edge of", None, within)):
                quantity = f"relative change of a patch's logits when all pixels {text} its box change ({record.name})"
                where = "" if expected is None else "section 2, by construction"
                beside.append(Beside(quantity, expected, where, ours, expected is not None))
    setting.progress("probing architectures", len(found), len(found))
    return Outcome(
        experiment="architecture",
        title=f"Architectures, for inputs of {shape[1]} × {shape[0]} pixels and {len(setting.classes)} classes",
        tables={
            "architecture": pa.Table.from_pylist(
                [{"model": each.name} | row for each in found for row in each.to_dicts()]
            )
        },
        figures={"architecture": _figure(found)},
        beside=tuple(beside),
        remarks=tuple(f"{each.words}." for each in found),
    )


def _of_record(record: ModelRecord, module: nn.Module, classes: int, shape: tuple[int, int]) -> Architecture:
    def make() -> nn.Module:
        if isinstance(module, Own):
            return _without_weights(module.network)
        return BagNet(ARCHITECTURES[record.architecture], classes, record.width)

    return Architecture(record.name, *shape, probe(make, *shape))


def _without_weights(network: nn.Module) -> nn.Module:
    return copy.deepcopy(network).to("meta")


@dataclass(frozen=True)
class Stage:
    """Layers of one name's beginning, as the figure shows them: lines of text, and what its cells see."""

    name: str
    lines: tuple[str, ...]


def stages(layers: Sequence[Layer]) -> tuple[Stage, ...]:
    """The stem, the layers of blocks, and the linear layer of a BagNet, with what was measured of each."""
    groups: dict[str, list[Layer]] = {}
    for layer in layers:
        head = layer.name.split(".")[0]
        groups.setdefault("stem" if head.startswith("conv") else head, []).append(layer)
    found = []
    for name, members in groups.items():
        last = members[-1]
        main = [layer for layer in members if "downsample" not in layer.name]
        blocks: dict[str, list[str]] = {}
        for layer in main:
            blocks.setdefault(layer.name.rpartition(".")[0], []).append(layer.kind)
        kernels = [", ".join(each) for each in blocks.values()]
        counted = dict.fromkeys(kernels, 0)
        for each in kernels:
            counted[each] += 1
        lines = [f"{count} × ({each})" if count > 1 else each for each, count in counted.items()]
        apart = f"{last.step} pixel{'s' if last.step != 1 else ''} apart"
        lines.append(f"{last.channels} × {last.rows} × {last.cols}, {apart}")
        lines.append(f"sees {last.field} × {last.field} pixels")
        lines.append(
            f"{sum(each.parameters for each in members) / 1e6:.2f} M parameters, "
            f"{sum(each.flops for each in members) / 1e9:.2f} GFLOP"
        )
        found.append(Stage(name, tuple(lines)))
    return tuple(found)


def _figure(found: Sequence[Architecture]) -> Figure:
    columns: Mapping[str, Sequence[tuple[str, Sequence[str]]]] = {
        each.name: [(stage.name, stage.lines) for stage in stages(each.layers)] for each in found
    }
    return drawing.columns(columns)
