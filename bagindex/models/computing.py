"""A model of one's own at work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bagindex.compute import TorchCompute, find_device
from bagindex.errors import SettingsError
from bagindex.models.checking import check
from bagindex.models.finding import Found
from bagindex.models.interface import PatchModel
from bagindex.models.weights import put, state_of, stored_model, with_weights
from bagindex.store import IndexDirectory
from bagindex.text import first_line
from bagindex.weights import pack_as, state_sha256
from bagindex_schemas.records import ClassRecord, Grid, ModelRecord, Plan, Transform

if TYPE_CHECKING:
    from bagindex.evidence import Evidence


class Patches(nn.Module):
    """The features of a model, channels last: normalised images [N, 3, H, W] -> [N, rows, cols, D]."""

    def __init__(self, model: PatchModel) -> None:
        super().__init__()
        self.network = model.network

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        features: Tensor = self.network.features(x)  # type: ignore[operator]
        return features.permute(0, 2, 3, 1)


class PatchModelCompute(TorchCompute):
    """A model of one's own on one device. It gets float32 unless another precision is asked for."""

    def __init__(
        self,
        model: PatchModel,
        found: Found,
        grid: Grid,
        classes: tuple[ClassRecord, ...],
        transform: Transform,
        device: torch.device,
        batch_size: int | None = None,
        elsewhere: str = "auto",
    ) -> None:
        """
        Args:
            model: the model, on a CPU, which is this object's own.
            found: where it is from, and what makes it in another process.
            grid: of its patches over the transform's input.
            classes, transform: the index's.
            device, batch_size, elsewhere: as for `bagindex.compute.BagNetCompute`.
        """
        self._state = state_of(model)
        self._found = found
        self._elsewhere = elsewhere, batch_size
        linear = model.linear
        super().__init__(
            name=model.name,
            architecture=found.plugin.asked,
            width=1.0,
            parameters=sum(parameter.numel() for parameter in model.network.parameters()),
            network=Patches(model).float().eval().requires_grad_(False),
            linear=linear,
            classes=classes,
            transform=transform,
            grid=grid,
            weights_sha256=state_sha256(self._state),
            device=device,
            batch_size=batch_size,
        )
        self.plugin = found.plugin
        # What halves its numbers need not do for a network that nobody knows; TensorFloat-32 is a switch of torch's.
        self.candidates = tuple(each for each in self.candidates if each == "tf32")

    def __reduce__(self) -> tuple[Callable[..., PatchModelCompute], tuple[object, ...]]:
        """For other processes, which make it anew, in float32, on a device of their own."""
        given = self._found, self._state, self.grid, self.classes, self.transform, *self._elsewhere
        return _elsewhere, given

    def run(self, pixels: NDArray[np.uint8]) -> Evidence:
        """Run the model on inputs before normalisation, uint8 [N, height, width, RGB].

        Raises:
            EvidenceRangeError: the model gives values that cannot be stored.
            SettingsError: it cannot be run so.
        """
        try:
            return super().run(pixels)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            raise SettingsError(
                f"{self.name} cannot be run in {self.environment.precision}: {first_line(error)}; give --precision fp32"
            ) from None

    def to_safetensors(self) -> bytes:
        """The network's state dict, with classes and transform in its metadata."""
        return pack_as(self._state, self.name, [record.name for record in self.classes], self.transform)


def open_found(
    found: Found,
    file: Path | None,
    choose: Callable[[PatchModel], tuple[tuple[ClassRecord, ...], Transform]],
    device: torch.device,
    batch_size: int | None,
    elsewhere: str,
) -> PatchModelCompute:
    """A model that a person asked for, after it has shown that it is what it says.

    Args:
        found: where it is from.
        file: weights for it; None: it brings them.
        choose: its classes and input.
        device, batch_size, elsewhere: as for `PatchModelCompute`.

    Raises:
        SettingsError: it is not what it says, or cannot be had.
        WeightsError: the file's weights are not its own.
    """
    model = found.make(bare=file is not None)
    if file is not None:
        model = with_weights(model, file)
    classes, transform = choose(model)
    grid = check(model, transform)
    return PatchModelCompute(model, found, grid, classes, transform, device, batch_size, elsewhere)


def open_stored(
    directory: IndexDirectory, record: ModelRecord, plan: Plan, device: torch.device, batch_size: int
) -> PatchModelCompute:
    """A model of an index, from the weights that it keeps.

    Raises:
        SettingsError, WeightsError: as for `stored_model`.
    """
    model, found = stored_model(directory, record)
    return PatchModelCompute(model, found, record.grid, plan.classes, plan.transform, device, batch_size)


def _elsewhere(
    found: Found,
    state: dict[str, Tensor],
    grid: Grid,
    classes: tuple[ClassRecord, ...],
    transform: Transform,
    device: str,
    batch_size: int | None,
) -> PatchModelCompute:
    model = found.make(bare=True)
    put(model, state)
    place = find_device(device)
    return PatchModelCompute(model, found, grid, classes, transform, place, batch_size, device)
