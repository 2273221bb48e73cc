"""What the build asks of a model, and how a BagNet answers."""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from bagindex.arithmetic import float32
from bagindex.errors import SettingsError
from bagindex.geometry import make_grid, padding_colour, patch_box
from bagindex.registry import STRIDE, Architecture
from bagindex_schemas.records import ClassRecord, Environment, Grid, Plugin, Precision, Transform

if TYPE_CHECKING:
    import torch
    from torch import nn

    from bagindex.evidence import Evidence
    from bagindex.weights import Checkpoint


GPU_STREAMS = 2
GPU_BATCH = 64
"""Images at a time on a GPU, unless it is said."""


@dataclass(frozen=True)
class PatchOutput:
    """What a model says about a batch: `features` float32 [N, patches, D] and `logits` float32 [N, patches, C].

    Patches are in row-major order of the grid.
    """

    features: NDArray[np.float32]
    logits: NDArray[np.float32]


class Compute(Protocol):
    """A patch model at work, in one precision. The build knows nothing else of models.

    Attributes:
        workers: how many threads may call `run` at a time, so that the device never waits for one of them.
        candidates: precisions that may be faster than float32 on this device.
        plugin: where the model is from; None: it is a BagNet.
    """

    name: str
    architecture: str
    plugin: Plugin | None
    width: float
    parameters: int
    feature_size: int
    classes: tuple[ClassRecord, ...]
    transform: Transform
    grid: Grid
    weights_sha256: str
    environment: Environment
    workers: int
    candidates: tuple[Precision, ...]

    def at(self, precision: Precision) -> Self:
        """The same model in another precision.

        Raises:
            SettingsError: the device has none such.
        """

    def pool(self) -> AbstractContextManager[Executor]:
        """`workers` threads in which this model, and others on its device, can be run beside each other."""

    def run(self, pixels: NDArray[np.uint8]) -> Evidence:
        """Run the model on inputs before normalisation, uint8 [N, height, width, RGB].

        Raises:
            EvidenceRangeError: the model gives values that cannot be stored.
        """

    def to_safetensors(self) -> bytes:
        """The weights as a file for the index; `fc.weight` [C, D] and `fc.bias` [C] are the linear layer."""


def bagnet_grid(architecture: Architecture, transform: Transform) -> Grid:
    """Grid of a BagNet over the input of a transform.

    Raises:
        SettingsError: the input is smaller than one patch.
    """
    shape = transform.crop_height, transform.crop_width
    return make_grid(architecture.receptive_field, STRIDE, *shape, architecture.offset, padding_colour(transform.mean))


class TorchCompute:
    """A patch model in torch on one device. Its features are in the precision asked for; the linear layer, means and
    maxima are in float32 always.

    On a CPU, every worker is one core with a batch of its own: cores that share a batch wait for each other at each of
    50 convolutions, and for long when one of them also decodes a picture. On a GPU, every worker is a stream, so that
    one's copies run beside the other's kernels.
    """

    plugin: Plugin | None = None

    def __init__(
        self,
        *,
        name: str,
        architecture: str,
        width: float,
        parameters: int,
        network: nn.Module,
        linear: nn.Linear,
        classes: tuple[ClassRecord, ...],
        transform: Transform,
        grid: Grid,
        weights_sha256: str,
        device: torch.device,
        batch_size: int | None,
    ) -> None:
        """
        Args:
            name, architecture, width, parameters, classes, transform, grid, weights_sha256: as of `Compute`.
            network: float32, ready for inference: normalised images [N, 3, H, W] -> features [N, rows, cols, D].
            linear: the linear layer.
            device: where it runs.
            batch_size: images at a time; by default what suits the device.
        """
        import torch

        self.name = name
        self.architecture = architecture
        self.width = width
        self.parameters = parameters
        self.feature_size = linear.in_features
        self.classes = classes
        self.transform = transform
        self.grid = grid
        self._seen = transform.crop_height, transform.crop_width
        self.weights_sha256 = weights_sha256
        self.workers = torch.get_num_threads() if device.type == "cpu" else GPU_STREAMS
        self.candidates = candidates(device)
        # On a CPU, activations of more than two images fall out of the caches and the model slows down.
        self.environment = _environment(device, batch_size or (2 if device.type == "cpu" else GPU_BATCH))
        self._device = device
        self._dtype = torch.float32
        self._float32 = self._model = network.to(device).to(memory_format=torch.channels_last)
        self._linear = linear.to(device).requires_grad_(False)
        self._mean = torch.tensor(transform.mean, device=device).view(1, 3, 1, 1)
        self._std = torch.tensor(transform.std, device=device).view(1, 3, 1, 1)

    def at(self, precision: Precision) -> Self:
        """The same model in another precision; what can be shared is.

        Raises:
            SettingsError: TensorFloat-32 on a CPU.
        """
        import torch

        if precision == self.environment.precision:
            return self
        if precision == "tf32" and self._device.type == "cpu":
            raise SettingsError("tf32 is for GPUs: give --device cuda, or --precision auto, fp32 or bf16")
        other = copy.copy(self)
        other.environment = self.environment.model_copy(update={"precision": precision})
        other._dtype = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
        halved = other._dtype != torch.float32
        other._model = copy.deepcopy(self._float32).to(other._dtype) if halved else self._float32
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)  # the workers' streams do not wait for this one
        return other

    @contextmanager
    def pool(self) -> Iterator[Executor]:
        """`workers` threads with a core or a stream each, in which models on this device can be run."""
        import torch

        def enter() -> None:
            if self._device.type == "cpu":
                torch.set_num_threads(1)
            else:
                _worker.stream = torch.cuda.Stream(self._device)  # type: ignore[no-untyped-call]

        threads = ThreadPoolExecutor(self.workers, "model", enter)
        try:
            yield threads
        finally:
            threads.shutdown(cancel_futures=True)
            # What a thread sets for itself is also what threads that are yet to come begin with.
            torch.set_num_threads(torch.get_num_threads())

    def run(self, pixels: NDArray[np.uint8]) -> Evidence:
        """Run the model on inputs before normalisation, uint8 [N, height, width, RGB].

        Raises:
            EvidenceRangeError: the model gives values that cannot be stored.
        """
        import torch

        from bagindex.reduction import reduce, upload

        with torch.inference_mode(), float32(self.environment.precision == "tf32"), _stream():
            images = upload(pixels[:, : self._seen[0], : self._seen[1]], self._device).permute(0, 3, 1, 2)
            normalised = images.float().div_(255).sub_(self._mean).div_(self._std).to(self._dtype)
            features = self._model(normalised.contiguous(memory_format=torch.channels_last)).flatten(1, 2).contiguous()
            return reduce(features, self._linear(features.float()))


class BagNetCompute(TorchCompute):
    """A BagNet on one device, folded."""

    def __init__(
        self,
        name: str,
        checkpoint: Checkpoint,
        classes: tuple[ClassRecord, ...],
        transform: Transform,
        device: torch.device,
        batch_size: int | None = None,
        elsewhere: str = "auto",
    ) -> None:
        """
        Args:
            name, checkpoint, classes, transform: the model.
            device: where it runs.
            batch_size: images at a time; by default what suits the device.
            elsewhere: where it runs when it is sent to another process, as for `find_device`.
        """
        from bagindex.inference import FoldedBagNet

        model = checkpoint.build()
        super().__init__(
            name=name,
            architecture=checkpoint.architecture.name,
            width=checkpoint.width,
            parameters=sum(parameter.numel() for parameter in model.parameters()),
            network=FoldedBagNet(model),
            linear=model.fc,
            classes=classes,
            transform=transform,
            grid=bagnet_grid(checkpoint.architecture, transform),
            weights_sha256=checkpoint.sha256,
            device=device,
            batch_size=batch_size,
        )
        # Nothing sees the last rows and columns of most inputs: 7 of 224.
        _, _, right, bottom = patch_box(self.grid, self.grid.rows - 1, self.grid.cols - 1)
        self._seen = bottom, right
        self._checkpoint = checkpoint
        self._elsewhere = elsewhere, batch_size

    def __reduce__(self) -> tuple[Callable[..., BagNetCompute], tuple[object, ...]]:
        """For other processes, which load it anew, in float32, on a device of their own."""
        return _elsewhere, (self.name, self._checkpoint, self.classes, self.transform, *self._elsewhere)

    def to_safetensors(self) -> bytes:
        """The checkpoint, with classes and transform in its metadata."""
        from bagindex.weights import to_safetensors

        return to_safetensors(self._checkpoint, self.classes, self.transform)


def _elsewhere(
    name: str,
    checkpoint: Checkpoint,
    classes: tuple[ClassRecord, ...],
    transform: Transform,
    device: str,
    batch_size: int | None,
) -> BagNetCompute:
    return BagNetCompute(name, checkpoint, classes, transform, find_device(device), batch_size, device)


_worker = threading.local()


def _stream() -> AbstractContextManager[object]:
    """The stream of a worker's thread, where it has one."""
    import torch

    stream = getattr(_worker, "stream", None)
    return nullcontext() if stream is None else torch.cuda.stream(stream)


def check_device(name: str) -> None:
    """See whether a GPU that is asked for is there, also where it will turn out that nothing is to be computed.

    Raises:
        SettingsError: there is no such device.
    """
    if name not in ("auto", "cpu"):  # which are there, and need no torch to know it
        find_device(name)


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


def candidates(device: torch.device) -> tuple[Precision, ...]:
    """Precisions that the device has units for; without them, they are slower than float32 by far."""
    import torch

    if device.type == "cuda":
        return ("tf32", "fp16", "bf16") if torch.cuda.get_device_capability(device) >= (8, 0) else ("fp16",)
    # Not in all versions that bagindex runs with; without it, float32 is never wrong.
    has: Mapping[str, object] = getattr(torch.cpu, "get_capabilities", dict)()
    units = {"fp16": ("avx512_fp16", "amx_fp16"), "bf16": ("avx512_bf16", "amx_bf16", "bf16", "sve_bf16")}
    return tuple(precision for precision in ("fp16", "bf16") if any(has.get(unit) for unit in units[precision]))


def _environment(device: torch.device, batch_size: int) -> Environment:
    import PIL
    import torch

    versions = {"torch": torch.__version__, "numpy": np.__version__, "pillow": PIL.__version__}
    if torch.version.cuda and device.type == "cuda":
        versions |= {
            "cuda": torch.version.cuda,
            "cudnn": str(torch.backends.cudnn.version()),  # type: ignore[no-untyped-call]
        }
    return Environment(device=device.type, threads=1, batch_size=batch_size, precision="fp32", versions=versions)
