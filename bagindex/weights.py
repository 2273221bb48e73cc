"""Reading and writing checkpoints: the authors' state dict, with what is known about it.

`.safetensors` files may carry metadata: `model` (architecture), `classes` (JSON list of names, in the order of the
logits), `resize` and `crop` (pixels; `crop` is a number or HEIGHTxWIDTH), `training` (how they were made, a
`TrainingRecord`). `.pth` and `.pth.tar` files are read with torch's restricted unpickler only; a file that needs more
is refused, for it could run any code. `.h5` files are those of the Keras release; see `bagindex.keras_weights`.
"""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import struct
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from bagindex.errors import LabelError, WeightsError
from bagindex.keras_weights import read_keras
from bagindex.labels import check_classes
from bagindex.model import BagNet
from bagindex.pickles import CodeError, check_pickle
from bagindex.registry import ARCHITECTURES, Architecture
from bagindex.store import file_sha256
from bagindex.text import first_line
from bagindex_schemas.records import LARGEST_INPUT, LARGEST_RESIZE, ClassRecord, Transform
from bagindex_schemas.training import TrainingRecord

_COUNTER = "num_batches_tracked"
_WIDEST = 64
"""Factor on the channels of the authors' models."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint: weights as they are on disk, and what the file says about them (None where it says nothing)."""

    state: Mapping[str, Tensor]
    sha256: str
    architecture: Architecture
    width: float
    class_count: int
    classes: tuple[ClassRecord, ...] | None
    transform: Transform | None
    training: TrainingRecord | None = None

    def build(self) -> BagNet:
        """The model, in float32, ready for inference.

        Raises:
            WeightsError: a tensor is missing, has the wrong shape or is not finite.
        """
        with torch.device("meta"):
            model = BagNet(self.architecture, self.class_count, self.width)
        fill(model, self.state, self.architecture.name, self.class_count)
        return model


def read_checkpoint(path: Path, model: str | None = None) -> Checkpoint:
    """Read a `.safetensors`, `.pth`, `.pt`, `.pth.tar` or `.h5` file.

    Args:
        path: the file.
        model: the architecture that it is meant to be; taken from the file when None.

    Raises:
        WeightsError: it cannot be read, would run code, or is another model than `model`.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}: give --weights FILE")
    state, metadata = read_state(path)
    architecture = _architecture(state, metadata.get("model"), model)
    linear, stem = state.get("fc.weight"), state.get("conv1.weight")
    if not has_stem(state):
        raise WeightsError(f"{path.name} holds no BagNet: conv2.weight is missing")
    if linear is None or stem is None or (linear.ndim, stem.ndim) != (2, 4) or not linear.numel() or not stem.numel():
        raise WeightsError(f"{path.name} holds no BagNet: fc.weight or conv1.weight is missing or misshapen")
    if stem.shape[0] > 64 * _WIDEST:
        raise WeightsError(f"{path.name}: conv1.weight has {stem.shape[0]:,} channels, more than any BagNet")
    return Checkpoint(
        state=state,
        sha256=file_sha256(path),
        architecture=architecture,
        width=stem.shape[0] / 64,
        class_count=linear.shape[0],
        classes=named_classes(metadata, linear.shape[0], path.name),
        transform=_transform(metadata, path.name),
        training=_training(metadata),
    )


def has_stem(state: Mapping[str, Tensor]) -> bool:
    """Whether weights begin as a BagNet's, or a BagNet v2's; a ResNet has the same layers, but another stem."""
    return "conv2.weight" in state or ("conv1.weight" in state and state["conv1.weight"].shape[-2:] == (3, 3))


def read_state(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The state dict that a `.safetensors`, `.pth`, `.pt` or `.pth.tar` file holds, of whatever network, or a `.h5`
    file of a BagNet in Keras; and what a safetensors file says about it.

    Raises:
        SettingsError: what reads HDF5 is not installed.
        WeightsError: it cannot be read, would run code, or holds more than plain tensors of its own size.
    """
    if not path.is_file():
        raise WeightsError(f"no weights at {path}")
    if path.name.endswith(".safetensors"):
        state, metadata = _read_safetensors(path)
    elif path.name.endswith((".pth", ".pt", ".pth.tar")):
        state, metadata = _read_pickle(path), {}
    elif path.name.endswith((".h5", ".hdf5")):
        state, metadata = read_keras(path), {}
    else:
        raise WeightsError(f"{path.name}: weights end in .safetensors, .pth, .pt, .pth.tar or .h5")
    size = path.stat().st_size
    for key, tensor in state.items():
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested or tensor.device.type != "cpu":
            raise WeightsError(f"{path.name}: {key} is no plain tensor: save the weights as such")
        if tensor.numel() * tensor.element_size() > size:
            raise WeightsError(f"{path.name}: {key} has shape {list(tensor.shape)}, for which the file is too small")
    return state, metadata


def fill(module: nn.Module, state: Mapping[str, Tensor], name: str, classes: int) -> None:
    """Give a module on the meta device the weights of a checkpoint, in float32, and make it ready for inference.

    Args:
        module: it takes no memory before its shapes are known to be those of the file: a few bytes may claim any size.
        state: tensors that stand in a file.
        name, classes: what the module is, for people.

    Raises:
        WeightsError: a tensor is missing, has no place or the wrong shape, or is not finite.
    """
    wanted = module.state_dict()
    if hidden := sorted(key for key, _ in module.named_buffers() if key not in wanted):
        raise WeightsError(f"a {name} cannot be had from a state dict alone, which lacks {hidden[0]}")
    check_state(wanted, state, name, classes)
    counters = {key: torch.zeros_like(wanted[key], device="cpu") for key in wanted if key.endswith(_COUNTER)}
    module.to_empty(device="cpu").load_state_dict({**counters, **state})
    module.float().eval()


def check_state(wanted: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str, classes: int) -> None:
    """See whether a checkpoint holds the weights that a module wants; counters of batches may be missing.

    Args:
        wanted: the module's state dict, of which the shapes count.
        state: tensors that stand in a file.
        name, classes: what the module is, for people.

    Raises:
        WeightsError: a tensor is missing, has no place or the wrong shape, or is not finite.
    """
    # Checkpoints of old torch versions have none; inference does not use them.
    optional = {key for key in wanted if key.endswith(_COUNTER)}
    if missing := sorted(wanted.keys() - state.keys() - optional):
        raise WeightsError(f"these weights are no {name}: {missing[0]} is missing")
    if extra := sorted(state.keys() - wanted.keys()):
        raise WeightsError(f"these weights are no {name}: {extra[0]} has no place in it")
    for key, tensor in state.items():
        if tensor.shape != wanted[key].shape:
            raise WeightsError(
                f"{key} has shape {list(tensor.shape)}, but a {name} with {classes} classes has "
                f"{list(wanted[key].shape)} there"
            )
        if wanted[key].is_floating_point() and not tensor.is_floating_point():
            raise WeightsError(f"{key} holds {tensor.dtype} values: give the weights in floating point")
        if not bool(torch.isfinite(tensor.float()).all()):
            raise WeightsError(f"{key} holds values that are not finite: the weights are damaged")


def to_safetensors(checkpoint: Checkpoint, classes: tuple[ClassRecord, ...], transform: Transform) -> bytes:
    """The checkpoint as a `.safetensors` file: the same bytes each time, readable by `read_checkpoint`."""
    names = [record.name for record in classes]
    return pack(checkpoint.state, checkpoint.architecture, names, transform, checkpoint.training)


def pack(
    state: Mapping[str, Tensor],
    architecture: Architecture,
    classes: Sequence[str],
    transform: Transform,
    training: TrainingRecord | None = None,
) -> bytes:
    """A `.safetensors` file of a BagNet's weights and what is known about them."""
    return pack_as(state, architecture.name, classes, transform, training)


def pack_as(
    state: Mapping[str, Tensor],
    model: str,
    classes: Sequence[str],
    transform: Transform,
    training: TrainingRecord | None = None,
) -> bytes:
    """A `.safetensors` file of the weights of whatever model, and what is known about them."""
    metadata = {
        "model": model,
        "classes": json.dumps(list(classes), ensure_ascii=False),
        "resize": str(transform.resize),
        "crop": f"{transform.crop_height}x{transform.crop_width}",
    }
    if training is not None:
        metadata["training"] = training.model_dump_json()
    return sort_header(save({key: value.contiguous() for key, value in state.items()}, metadata))


def state_sha256(state: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights that come from no file: of their names and bytes, sorted by name."""
    digest = hashlib.sha256()
    for key, tensor in sorted(state.items()):
        digest.update(key.encode() + tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def sort_header(data: bytes) -> bytes:
    """Put a safetensors file's metadata in order: the library writes it in a different one in every process."""
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    try:
        with safe_open(os.fspath(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise WeightsError(
            f"{path} is not a readable safetensors file ({error}): it may be cut off, fetch or copy it again"
        ) from None


def _read_pickle(path: Path) -> dict[str, Tensor]:
    with path.open("rb") as file:
        if not file.read(4).startswith((b"PK\x03\x04", b"\x80")):
            raise WeightsError(f"{path} is no torch checkpoint: download or save it again")
    try:
        check_pickle(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch comments on how old files were pickled
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except (CodeError, pickle.UnpicklingError):
        raise WeightsError(
            f"{path} holds more than tensors, and loading it could run any code: it is refused. "
            "Save its state dict alone, or as .safetensors"
        ) from None
    except Exception as error:  # torch raises several kinds on files that are no checkpoints
        raise WeightsError(f"{path} is not a readable checkpoint, or cut short: {first_line(error)}") from None
    if isinstance(loaded, dict) and isinstance(loaded.get("state_dict"), dict):
        loaded = loaded["state_dict"]
    if not isinstance(loaded, dict) or not loaded or not all(isinstance(v, Tensor) for v in loaded.values()):
        raise WeightsError(f"{path} holds no state dict")
    # DataParallel, with which the authors trained, puts this before every key.
    return {str(key).removeprefix("module."): value for key, value in loaded.items()}


def _architecture(state: Mapping[str, Tensor], stated: str | None, asked: str | None) -> Architecture:
    kernels = [state.get(f"layer{i}.0.conv2.weight") for i in range(1, 5)]
    count = sum(kernel is not None and kernel.shape[-1:] == (3,) for kernel in kernels)
    kind = count, "conv2.weight" not in state
    found = next((each for each in ARCHITECTURES.values() if (each.layers_with_3x3, each.padded) == kind), None)
    if found is None or any(kernel is None for kernel in kernels):
        raise WeightsError(f"these weights are no BagNet that bagindex knows ({', '.join(ARCHITECTURES)})")
    for name, origin in ((asked, "--model says"), (stated, "the file's metadata says")):
        if name is not None and name != found.name:
            raise WeightsError(f"{origin} {name}, but the weights are those of a {found.name}")
    return found


def named_classes(metadata: Mapping[str, str], count: int, name: str) -> tuple[ClassRecord, ...] | None:
    """The classes that a safetensors file's metadata names; None where it names none.

    Raises:
        WeightsError: they are no names, or not `count` of them.
    """
    if "classes" not in metadata:
        return None
    try:
        names = json.loads(metadata["classes"])
        if not isinstance(names, list) or not all(isinstance(text, str) for text in names):
            raise TypeError(metadata["classes"][:80])
        if len(names) == count:
            return check_classes([ClassRecord(class_id=i, name=text) for i, text in enumerate(names)], name)
    except (ValueError, TypeError, RecursionError, LabelError) as error:
        raise WeightsError(f"{name}: its `classes` metadata is no list of names: {first_line(error)}") from None
    raise WeightsError(f"{name} has {count} logits, but its metadata names {len(names)} classes")


def _training(metadata: Mapping[str, str]) -> TrainingRecord | None:
    try:
        return TrainingRecord.model_validate_json(metadata.get("training", ""))
    except ValidationError:  # nothing, or another tool's: the weights are as good without
        return None


def _transform(metadata: Mapping[str, str], name: str) -> Transform | None:
    if "resize" not in metadata and "crop" not in metadata:
        return None
    try:
        height, _, width = metadata["crop"].partition("x")
        return Transform(resize=int(metadata["resize"]), crop_height=int(height), crop_width=int(width or height))
    except (KeyError, ValueError):
        raise WeightsError(
            f"{name}: its `resize` and `crop` metadata are not both numbers of pixels, up to {LARGEST_RESIZE:,} and "
            f"{LARGEST_INPUT:,}"
        ) from None
