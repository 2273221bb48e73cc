"""Running a training on the devices that are asked for, with Lightning Fabric."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from lightning_fabric import Fabric
from torch.multiprocessing.spawn import ProcessException

from bagindex import errors
from bagindex.compute import find_device
from bagindex.errors import BagindexError, SettingsError
from bagindex.training.loop import Job, run
from bagindex_schemas.training import EpochRecord, Precision

if TYPE_CHECKING:
    from multiprocessing.queues import SimpleQueue

_PRECISIONS: dict[Precision, Any] = {
    "fp32": "32-true",
    "tf32": "32-true",
    "bf16": "bf16-mixed",
    "fp16": "16-mixed",
}


@dataclass(frozen=True)
class Devices:
    """Where a training runs: `name` as `bagindex.compute.find_device` has it, `count` of them.

    Raises:
        SettingsError: there are none such, or they lack the precision.
    """

    name: str
    count: int
    precision: Precision

    def __post_init__(self) -> None:
        """Look whether they are there."""
        place = self.place
        if self.count < 1:
            raise SettingsError("--devices starts at 1")
        if place.type == "cuda" and self.count > torch.cuda.device_count():
            raise SettingsError(f"--devices {self.count}: this machine has {torch.cuda.device_count()} GPUs")
        if place.type == "cpu" and self.precision in ("fp16", "tf32"):
            raise SettingsError(f"--precision {self.precision} needs a GPU: take fp32 or bf16")

    @property
    def place(self) -> torch.device:
        """The first of them."""
        return find_device(self.name)


def launch(job: Job, devices: Devices) -> tuple[EpochRecord, ...]:
    """Train, in a process for each device where there are several.

    Raises:
        SettingsError: a step has fewer pictures than there are devices.
        TrainingError, SourceError: see `bagindex.training.loop.run`.
    """
    smallest = min(job.recipe.batch_size, len(job.data.train.entries))
    if devices.count > smallest:
        raise SettingsError(f"--devices {devices.count} cannot share a step of {smallest} pictures")
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    place, precision = devices.place, _PRECISIONS[devices.precision]
    if devices.count == 1:
        chosen: Any = 1 if place.type == "cpu" else [place.index or 0]
        alone = Fabric(accelerator=place.type, devices=chosen, precision=precision)
        alone.launch()
        return run(alone, job)
    fabric = Fabric(accelerator=place.type, devices=devices.count, strategy="ddp_spawn", precision=precision)
    problems = torch.multiprocessing.get_context("spawn").SimpleQueue()
    try:
        # A partial function: Fabric looks into arguments, and refuses frozen dataclasses there.
        epochs: tuple[EpochRecord, ...] = fabric.launch(partial(_run_reporting, job=job, problems=problems))
        return epochs
    except ProcessException:
        if problems.empty():
            raise
        kind, text = problems.get()
        raise getattr(errors, kind)(text) from None


def _run_reporting(fabric: Fabric, job: Job, problems: SimpleQueue[tuple[str, str]]) -> tuple[EpochRecord, ...]:
    """Run, and say what is wrong before the exception becomes text on its way to the first process."""
    try:
        return run(fabric, job)
    except BagindexError as error:
        problems.put((type(error).__name__, str(error)))
        raise
    finally:
        # Fabric leaves this to the interpreter's end, except with NCCL. A thread of the group that then still holds a
        # tensor ends the process with SIGABRT (pytorch/pytorch#179291), and a training that was done counts as failed.
        torch.distributed.destroy_process_group()
