"""Weights of the authors' Keras release: HDF5 files of whole models, as `keras.Model.save` writes them.

Its layers are known by how they are connected, as the file's `model_config` says, and not by their names, which a
conversion gave them. Nothing of the file is run: h5py reads numbers out of it, from the file itself and not from others
that it may name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagindex.errors import SettingsError, WeightsError
from bagindex.model import BLOCKS, STRIDES
from bagindex.text import first_line

EPSILON = 1e-5
"""What torch's batch norms add to the variance."""
_LARGEST_CONFIG = 2**26
"""Characters; that of a BagNet has some 100,000."""
Numbers = NDArray[np.float32]


@dataclass
class _Layer:
    """A layer with weights: what it is, what stands in the file, and the layers with weights whose output it gets."""

    name: str
    kind: str
    config: Mapping[str, Any]
    weights: Mapping[str, Numbers]
    before: frozenset[str] = field(default_factory=frozenset)


def read_keras(path: Path) -> dict[str, Tensor]:
    """The state dict of a BagNet in a Keras model's file, as the authors' PyTorch release has it.

    Raises:
        SettingsError: h5py is not installed.
        WeightsError: it cannot be read, or holds no BagNet.
    """
    try:
        import h5py
    except ImportError:
        raise SettingsError("Keras weights need h5py: pip install 'bagindex[keras]'") from None
    try:
        with h5py.File(path, "r") as file:
            layers = _layers(file, path)
    except (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, RecursionError) as error:
        raise WeightsError(f"{path.name} is not a readable Keras model: {first_line(error)}") from None
    try:
        return dict(_state(layers))
    except _NoBagNetError as error:
        raise WeightsError(f"{path.name} holds no BagNet: {error}") from None


class _NoBagNetError(Exception):
    """What stands where something else should."""


def _layers(file: Any, path: Path) -> list[_Layer]:
    """The layers that have weights, in the order in which they run."""
    config = file.attrs.get("model_config")
    if config is None:
        raise ValueError("it has no model_config: save the whole model, with model.save(FILE)")
    text = config.decode() if isinstance(config, bytes) else str(config)
    if len(text) > _LARGEST_CONFIG:
        raise ValueError("its model_config is larger than any BagNet's")
    described = json.loads(text)["config"]["layers"]
    stored = file["model_weights"]
    feeds: dict[str, frozenset[str]] = {}
    layers = []
    for each in described:
        name, kind = str(each["config"]["name"]), str(each["class_name"])
        inputs = frozenset(_inputs(each.get("inbound_nodes", [])))
        before = frozenset().union(*(feeds[one] for one in inputs)) if inputs else frozenset()
        if kind in ("Conv2D", "BatchNormalization", "Dense"):
            layers.append(_Layer(name, kind, each["config"], _numbers(stored, name, path), before))
            feeds[name] = frozenset({name})
        else:
            if kind == "ZeroPadding2D" and np.any(np.array(each["config"].get("padding", 1))):
                raise ValueError(f"{name} pads, which no BagNet does")
            feeds[name] = before
    return layers


def _inputs(nodes: Any) -> Iterator[str]:
    """The layers whose outputs a layer gets, as Keras 2 (`[name, 0, 0, {}]`) or 3 (`keras_history`) writes them."""
    if isinstance(nodes, dict):
        if "keras_history" in nodes:
            yield str(nodes["keras_history"][0])
            return
        for each in nodes.values():
            yield from _inputs(each)
    elif isinstance(nodes, list):
        if len(nodes) >= 3 and isinstance(nodes[0], str) and isinstance(nodes[1], int) and isinstance(nodes[2], int):
            yield nodes[0]
            return
        for each in nodes:
            yield from _inputs(each)


def _numbers(stored: Any, layer: str, path: Path) -> dict[str, Numbers]:
    """A layer's weights by the last part of their names (`kernel`, `gamma`, …), without a `:0` behind it."""
    import h5py

    size = path.stat().st_size
    found: dict[str, Numbers] = {}
    for name in stored[layer].attrs["weight_names"]:
        key = name.decode() if isinstance(name, bytes) else str(name)
        place = f"{layer}/{key}"
        parts = place.split("/")
        # A link may lead into any other file.
        if any(
            not isinstance(stored.get("/".join(parts[: count + 1]), getlink=True), h5py.HardLink)
            for count in range(len(parts))
        ):
            raise ValueError(f"{place} is a link")
        data = stored[place]
        if not isinstance(data, h5py.Dataset) or data.is_virtual or data.external:
            raise ValueError(f"{place} lies in another file")
        if data.dtype.kind != "f" or math.prod(data.shape) * data.dtype.itemsize > size:
            raise ValueError(f"{place} has {data.dtype} values of shape {list(data.shape)}, for which it is too small")
        found[parts[-1].partition(":")[0]] = np.asarray(data[()], np.float32)
    return found


def _state(layers: Sequence[_Layer]) -> Iterator[tuple[str, Tensor]]:
    """Walk along the BagNet that the layers are, and name their weights."""
    graph = _Graph(layers)
    first = graph.after(frozenset(), "Conv2D")
    second = graph.after({first.name}, "Conv2D")
    norm = graph.after({second.name}, "BatchNormalization")
    yield "conv1.weight", _kernel(first, None)
    yield from _folded("conv2", "bn1", second, norm)
    front = frozenset({norm.name})
    for number, blocks in enumerate(BLOCKS, start=1):
        for block in range(blocks):
            key = f"layer{number}.{block}"
            beginnings = sorted(graph.all_after(front, "Conv2D"), key=lambda each: each.weights["kernel"].shape[-1])
            if len(beginnings) != (2 if block == 0 else 1):
                raise _NoBagNetError(f"{key} begins with {len(beginnings)} convolutions")
            conv = beginnings[0]
            for part in (1, 2, 3):
                norm = graph.after({conv.name}, "BatchNormalization")
                stride = STRIDES[number - 1] if block == 0 else 1
                yield from _folded(f"{key}.conv{part}", f"{key}.bn{part}", conv, norm, stride if part == 2 else 1)
                if part < 3:
                    conv = graph.after({norm.name}, "Conv2D")
            front = frozenset({norm.name}) if block == 0 else front | {norm.name}
            if block == 0:
                beside = graph.after({beginnings[1].name}, "BatchNormalization")
                keys = f"{key}.downsample.0", f"{key}.downsample.1"
                yield from _folded(*keys, beginnings[1], beside, STRIDES[number - 1])
                front |= {beside.name}
    last = graph.after(front, "Dense")
    yield "fc.weight", torch.from_numpy(np.ascontiguousarray(last.weights["kernel"].T))
    if "bias" not in last.weights:
        raise _NoBagNetError("its linear layer has no bias")
    yield "fc.bias", torch.from_numpy(last.weights["bias"])
    if graph.left:
        raise _NoBagNetError(f"{min(graph.left)} has no place in it")


class _Graph:
    """Layers by what comes before them."""

    def __init__(self, layers: Sequence[_Layer]) -> None:
        self._layers = layers
        self.left = {each.name for each in layers}

    def all_after(self, before: frozenset[str] | set[str], kind: str) -> list[_Layer]:
        """The layers of a kind that get the output of these layers with weights, and of no others."""
        found = [each for each in self._layers if each.before == before and each.kind == kind]
        if any("kernel" not in each.weights or each.weights["kernel"].ndim not in (2, 4) for each in found) and (
            kind != "BatchNormalization"
        ):
            raise _NoBagNetError(f"{found[0].name} has no kernel")
        self.left -= {each.name for each in found}
        return found

    def after(self, before: frozenset[str] | set[str], kind: str) -> _Layer:
        """The only one."""
        found = self.all_after(before, kind)
        if len(found) != 1:
            raise _NoBagNetError(f"{len(found)} {kind} layers come after {', '.join(sorted(before)) or 'the input'}")
        return found[0]


def _kernel(conv: _Layer, norm: _Layer | None, stride: int = 1) -> Tensor:
    """A convolution's weights, [out, in, rows, cols] from Keras's [rows, cols, in, out]."""
    if norm is None and np.any(conv.weights.get("bias", 0)):
        raise _NoBagNetError(f"{conv.name} has a bias")
    if conv.config.get("padding", "valid") != "valid":
        raise _NoBagNetError(f"{conv.name} pads")
    if list(conv.config.get("strides", [stride, stride])) != [stride, stride]:
        raise _NoBagNetError(f"{conv.name} has another stride than {stride}")
    return torch.from_numpy(np.ascontiguousarray(conv.weights["kernel"].transpose(3, 2, 0, 1)))


def _folded(conv_key: str, norm_key: str, conv: _Layer, norm: _Layer, stride: int = 1) -> Iterator[tuple[str, Tensor]]:
    """A convolution and the batch norm after it. The norm takes up what torch's has no place for: the convolution's
    bias, and another epsilon.
    """
    yield f"{conv_key}.weight", _kernel(conv, norm, stride)
    mean, variance = (norm.weights.get(f"moving_{each}") for each in ("mean", "variance"))
    if mean is None or variance is None or mean.shape != variance.shape:
        raise _NoBagNetError(f"{norm.name} has no statistics")
    epsilon = float(norm.config.get("epsilon", 1e-3))
    values = {
        "weight": norm.weights.get("gamma", np.ones_like(mean)),
        "bias": norm.weights.get("beta", np.zeros_like(mean)),
        "running_mean": mean - conv.weights.get("bias", np.zeros_like(mean)),
        "running_var": (variance.astype(np.float64) + (epsilon - EPSILON)).astype(np.float32),
    }
    for name, value in values.items():
        yield f"{norm_key}.{name}", torch.from_numpy(np.ascontiguousarray(value))
