"""How many images a BagNet takes in a second, beside another network: section 4.1 of the paper.

Every network sees the same: a batch of 64 random inputs of the index's size that is on the device already, in float32,
without gradients. After one batch to warm up, batches are timed one by one, each until the device has finished, and the
median counts. Weights are of no matter to it, so that networks that are not there are timed with random ones.
"""

from __future__ import annotations

import platform
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import pyarrow as pa
import torch

from bagindex.arithmetic import float32
from bagindex.compute import find_device
from bagindex.experiments import drawing, paper
from bagindex.experiments.against import networks, own_networks
from bagindex.experiments.experiment import Beside, Outcome, Setting
from bagindex.experiments.networks import RANDOM, NetworkOptions, open_network
from bagindex.figures.style import SMALL
from bagindex.figures.text import inches, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import nn

BESIDE = "resnet50"
"""The network that the paper times beside a BagNet."""
_LEAST, _MOST, _ENOUGH = 3, 50, 10.0
"""Batches that are timed, and seconds after which these are enough."""
_NAME = 1.2
"""Inches that a name may take beside its bar."""
_LONG = 60.0
"""Seconds after which they are enough however few they are."""


@dataclass(frozen=True)
class Timing:
    """How long batches took.

    Attributes:
        name: the network's.
        form: how it is run, for people.
        batch: images in a batch.
        seconds: of each batch.
    """

    name: str
    form: str
    batch: int
    seconds: tuple[float, ...]

    @property
    def rate(self) -> float:
        """Images per second, by the median."""
        return self.batch / median(self.seconds)


def time_batches(step: Callable[[], object], clock: Callable[[], float] = time.perf_counter) -> tuple[float, ...]:
    """Seconds of each of some calls: 3 at least and 50 at most, of 10 seconds in all; fewer where a minute is over. The
    call before them is not counted.
    """
    step()
    found: list[float] = []
    while len(found) < _MOST and (len(found) < _LEAST or sum(found) < _ENOUGH) and sum(found) < _LONG:
        started = clock()
        step()
        found.append(clock() - started)
    return tuple(found)


def run(setting: Setting) -> Outcome:
    """Time each chosen model, ResNet-50, and the networks that were asked for.

    Raises:
        SettingsError: there is no such device, torchvision is not installed, or a network takes no such inputs.
        WeightsError, LabelError: a network that was asked for cannot be had, or has other classes.
    """
    transform = setting.catalog.manifest.plan.transform
    device = find_device(setting.device)
    own, others = own_networks(setting), list(networks(setting))
    if BESIDE not in [each.name for each in others]:
        others.append(open_network(RANDOM + BESIDE, NetworkOptions(setting.classes)))
    shape = paper.RUNTIME_BATCH, 3, transform.crop_height, transform.crop_width
    inputs = torch.randn(shape, generator=torch.Generator().manual_seed(setting.seed)).to(device)
    found: list[Timing] = []
    every = [
        *((each.name, "batch norms folded, as indexes are built", each.module) for each in own),
        *((each.name, each.origin, each.module) for each in others),
    ]
    for number, (name, form, module) in enumerate(every):
        setting.progress("timing networks", number, len(every))
        found.append(Timing(name, form, shape[0], _time(module, inputs, device)))
    setting.progress("timing networks", len(every), len(every))
    where = f"{device_text(device)}, float32, batches of {shape[0]}, inputs of {shape[3]} × {shape[2]} pixels"
    return Outcome(
        experiment="runtime",
        title=f"Images per second on {where}",
        tables={"runtime": pa.Table.from_pylist([_row(each) for each in found])},
        figures={"runtime": _figure(found)},
        beside=_beside(found, shape, device, {each.name: each.width for each in setting.records}),
        remarks=(
            "The same protocol for all: inputs are on the device, one batch to warm up, the median of the others. "
            "BagNets have their batch norms folded, as indexes are built.",
        ),
        settings={
            "device_name": device_text(device),
            "precision": "fp32",
            "batch": shape[0],
            "threads": torch.get_num_threads(),
        },
    )


def _time(module: nn.Module, inputs: torch.Tensor, device: torch.device) -> tuple[float, ...]:
    module.to(device)

    def step() -> None:
        module(inputs)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    try:
        with torch.inference_mode(), float32():
            return time_batches(step)
    finally:
        module.to("cpu")


def device_text(device: torch.device) -> str:
    """What the device is, for people."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    threads = torch.get_num_threads()
    name = found[1].strip() if found else platform.processor() or platform.machine()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"


def _row(timing: Timing) -> dict[str, object]:
    return {
        "network": timing.name,
        "form": timing.form,
        "images_per_second": timing.rate,
        "batch": timing.batch,
        "batches": len(timing.seconds),
        "fastest": timing.batch / min(timing.seconds),
        "slowest": timing.batch / max(timing.seconds),
    }


def _beside(
    found: Sequence[Timing], shape: tuple[int, ...], device: torch.device, widths: Mapping[str, float]
) -> tuple[Beside, ...]:
    rates = {each.name: each.rate for each in found}
    why = f"timed on another machine: {device_text(device)}"
    if shape[2:] != (224, 224):
        why += f"; inputs of {shape[3]} × {shape[2]} pixels, not 224 × 224"
    reasons = {
        name: f"{why}; {name} is {widths[name]:g} times as wide as the paper's" if widths.get(name, 1) != 1 else why
        for name in rates
    }
    lines = [
        Beside(
            f"images per second, {name}",
            paper.RUNTIME.get(name),
            paper.RUNTIME_AT,
            rate,
            False,
            reasons[name],
            "images/s",
        )
        for name, rate in rates.items()
    ]
    for name in rates.keys() & {"bagnet33"}:
        ratio = paper.RUNTIME[BESIDE] / paper.RUNTIME[name]
        lines.append(
            Beside(
                f"{BESIDE}'s rate over {name}'s",
                round(ratio, 2),
                f"{paper.RUNTIME_AT}, of both",
                rates[BESIDE] / rates[name],
                False,
                reasons[name],
            )
        )
    return tuple(lines)


def _figure(found: Sequence[Timing]) -> Figure:
    names = [shorten(each.name, _NAME, SMALL) for each in found]
    left = 0.2 + max(inches(name, SMALL) for name in names)
    with drawing.plot("images per second", "", height=0.7 + 0.3 * len(found), left=left) as (figure, axes):
        places = range(len(found))
        axes.set_yticks(places, names)
        axes.barh(places, [each.rate for each in found], height=0.6, color=drawing.FIRST)
        for place, each in enumerate(found):
            axes.annotate(f" {each.rate:.3g}", (each.rate, place), va="center", fontsize=SMALL)
        axes.set_xlim(0, 1.2 * max(each.rate for each in found))
        axes.invert_yaxis()
        axes.grid(axis="y", visible=False)
    return figure
