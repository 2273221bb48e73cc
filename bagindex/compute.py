"""What the build asks of a model, and how a BagNet answers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
from numpy.typing import NDArray

from bagindex.errors import SettingsError
from bagindex.geometry import make_grid
from bagindex_schemas.records import ClassRecord, Environment, Grid, Transform

if TYPE_CHECKING:
    import torch

    from bagindex.weights import Checkpoint


@dataclass(frozen=True)
class PatchOutput:
    """What a model says about a batch: `features` float32 [N, patches, D] and `logits` float32 [N, patches, C].

    Patches are in row-major order of the grid.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]


class Compute(Protocol):
    """A patch model at work. The build knows nothing else of models."""

    name: str
    architecture: str
    width: float
    parameters: int
    feature_size: int
    classes: tuple[ClassRecord, ...]
    transform: Transform
    grid: Grid
    weights_sha256: str
    environment: Environment

    def run(self, pixels: NDArray[np.uint8]) -> PatchOutput:
        """Run the model on inputs before normalisation, uint8 [N, height, width, RGB]."""

    def to_safetensors(self) -> bytes:
        """The weights as a file for the index; `fc.weight` [C, D] and `fc.bias` [C] are the linear layer."""


class BagNetCompute:
    """A BagNet in float32 on one device, batch norms folded."""

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        classes: tuple[ClassRecord, ...],
        transform: Transform,
        device: torch.device,
        batch_size: int | None = None,
    ) -> None:
        import torch

        from bagindex.model import fold_batch_norms
        from bagindex.registry import STRIDE

        model = checkpoint.build()
        self.name = name
        self.architecture = checkpoint.architecture.name
        self.width = checkpoint.width
        self.parameters = sum(parameter.numel() for parameter in model.parameters())
        self.feature_size = model.feature_size
        self.classes = classes
        self.transform = transform
        self.grid = make_grid(
            checkpoint.architecture.receptive_field, STRIDE, transform.crop_height, transform.crop_width
        )
        self.weights_sha256 = checkpoint.sha256
        self._checkpoint = checkpoint
        self._device = device
        self._model = fold_batch_norms(model).to(device).to(memory_format=torch.channels_last)
        self._mean = torch.tensor(transform.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(transform.std, device=device).view(1, 3, 1, 1)
        # On a CPU, activations of more than two images fall out of the caches and the model slows down.
        self.environment = _environment(device, batch_size or (2 if device.type == "cpu" else 64))

    def run(self, pixels: NDArray[np.uint8]) -> PatchOutput:
        """Run the model on inputs before normalisation, uint8 [N, height, width, RGB]."""
        import torch

        with torch.inference_mode(), exact_float32():
            images = torch.from_numpy(pixels).to(self._device).permute(0, 3, 1, 2)
            normalised = images.float().div_(255).sub_(self._mean).div_(self._std)
            features = self._model.features(normalised.contiguous(memory_format=torch.channels_last))
            features = features.flatten(1, 2).contiguous()
            logits = self._model.fc(features)
            return PatchOutput(features.cpu().numpy(), logits.cpu().numpy())

    def to_safetensors(self) -> bytes:
        """The checkpoint, with classes and transform in its metadata."""
        from bagindex.weights import to_safetensors

        return to_safetensors(self._checkpoint, self.classes, self.transform)


def find_device(name: str) -> torch.device:
    """The device called `auto`, `cpu`, `cuda` or `cuda:N`.

    Raises:
        SettingsError: there is no such device.
    """
    import torch

    if name == "auto":
        return torch.device("cuda:0" if torch.cuda.is_available() else "cpu")
    if name == "cpu":
        return torch.device("cpu")
    kind, _, number = name.partition(":")
    if kind != "cuda" or (number and not number.isdecimal()):
        raise SettingsError(f"--device takes auto, cpu, cuda or cuda:N, not {name!r}")
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if int(number or 0) >= count:
        found = f"this machine has {count}" if count else "torch finds none on this machine"
        raise SettingsError(f"there is no GPU {name}: {found}; use --device cpu")
    return torch.device("cuda", int(number or 0))


@contextmanager
def exact_float32() -> Iterator[None]:
    """Float32 that is float32: TensorFloat-32, cuDNN's default, costs accuracy. No kernel is chosen by its time."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _environment(device: torch.device, batch_size: int) -> Environment:
    import PIL
    import torch

    versions = {"torch": torch.__version__, "numpy": np.__version__, "pillow": PIL.__version__}
    if torch.version.cuda and device.type == "cuda":
        versions |= {
            "cuda": torch.version.cuda,
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        }
    return Environment(
        device=device.type,
        threads=torch.get_num_threads(),
        batch_size=batch_size,
        precision="fp32",
        versions=versions,
    )
