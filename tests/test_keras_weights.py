"""Weights of the Keras release: files as Keras writes them, made of a state dict and read back."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch

from bagindex.errors import SettingsError, WeightsError
from bagindex.keras_weights import read_keras
from bagindex.model import BagNet, Bottleneck
from bagindex.official import is_official
from bagindex.registry import KERAS_SHA256
from bagindex.weights import read_checkpoint
from test_model import UNPADDED, procedural_model


class KerasFile:
    """What `model.save` writes of a BagNet: layers with any names, connected as they are, and their weights."""

    def __init__(self, version: int = 2, epsilon: float = 1e-5, bias: bool = False) -> None:
        self.version, self.epsilon, self.bias = version, epsilon, bias
        self.layers: list[dict[str, Any]] = []
        self.weights: dict[str, dict[str, np.ndarray]] = {}

    def add(self, kind: str, *inputs: str, weights: dict[str, np.ndarray] | None = None, **config: Any) -> str:
        """A layer; its name says nothing of its place."""
        name = f"{(7 * len(self.layers)) % 1009}_{kind.lower()}"
        if self.version == 2:
            nodes: Any = [[[each, 0, 0, {}] for each in inputs]] if inputs else []
        else:
            tensors = [{"class_name": "__keras_tensor__", "config": {"keras_history": [each, 0, 0]}} for each in inputs]
            nodes = [{"args": tensors if len(tensors) == 1 else [tensors], "kwargs": {}}] if inputs else []
        self.layers.append({"class_name": kind, "config": {"name": name, **config}, "inbound_nodes": nodes})
        self.weights[name] = weights or {}
        return name

    def convolve(self, conv: torch.nn.Conv2d, norm: torch.nn.Module | None, before: str) -> str:
        """A convolution and the norm after it."""
        weights = {"kernel": conv.weight.detach().numpy().transpose(2, 3, 1, 0)}
        shift = np.zeros(conv.out_channels, np.float32)
        if self.bias and norm is not None:
            shift = weights["bias"] = np.linspace(-1, 1, conv.out_channels, dtype=np.float32)
        name = self.add("Conv2D", before, weights=weights, padding="valid", strides=list(conv.stride))
        if norm is None:
            return name
        state = {key: value.numpy() for key, value in norm.state_dict().items()}
        values = {
            "gamma": state["weight"],
            "beta": state["bias"],
            "moving_mean": state["running_mean"] + shift,
            "moving_variance": state["running_var"] + np.float32(1e-5 - self.epsilon),
        }
        return self.add("BatchNormalization", name, weights=values, epsilon=self.epsilon, axis=1)

    def block(self, block: Bottleneck, before: str) -> str:
        """The layers of a block, the one beside first."""
        beside = before
        if block.downsample is not None:
            conv, norm = block.downsample
            assert isinstance(conv, torch.nn.Conv2d)
            beside = self.convolve(conv, norm, before)
        out = before
        for number in (1, 2, 3):
            conv, norm = getattr(block, f"conv{number}"), getattr(block, f"bn{number}")
            out = self.convolve(conv, norm, out)
            if number < 3:
                out = self.add("Activation", out, activation="relu")
        cropped = self.add("Lambda", beside) if block.conv2.kernel_size != (1, 1) else beside
        return self.add("Activation", self.add("Add", out, cropped), activation="relu")

    def model(self, model: BagNet) -> KerasFile:
        """All layers of a BagNet."""
        assert model.conv2 is not None
        out = self.convolve(model.conv1, None, self.add("InputLayer"))
        out = self.add("Activation", self.convolve(model.conv2, model.bn1, out), activation="relu")
        for block in (each for each in model.modules() if isinstance(each, Bottleneck)):
            out = self.block(block, out)
        linear = {"kernel": model.fc.weight.detach().numpy().T, "bias": model.fc.bias.detach().numpy()}
        self.add("Dense", self.add("GlobalAveragePooling2D", out), weights=linear)
        return self

    def write(self, path: Path) -> Path:
        """The file."""
        with h5py.File(path, "w") as file:
            file.attrs["keras_version"] = b"2.2.4" if self.version == 2 else "3.0"
            config = json.dumps({"class_name": "Model", "config": {"name": "m", "layers": self.layers}})
            file.attrs["model_config"] = config.encode() if self.version == 2 else config
            group = file.create_group("model_weights")
            group.attrs["layer_names"] = [each["config"]["name"].encode() for each in self.layers]
            for layer, weights in self.weights.items():
                names = [f"{layer}/{name}:0" for name in weights]
                folder = group.create_group(layer)
                folder.attrs["weight_names"] = [each.encode() for each in names]
                for name, value in zip(names, weights.values(), strict=True):
                    folder[name] = value
        return path


@pytest.mark.parametrize("name", UNPADDED)
@pytest.mark.parametrize("version", [2, 3])
def test_weights_come_back(tmp_path: Path, name: str, version: int) -> None:
    model = procedural_model(name, 5, 0.0625)
    path = KerasFile(version).model(model).write(tmp_path / "bagnet.h5")
    checkpoint = read_checkpoint(path, name)
    assert (checkpoint.architecture.name, checkpoint.class_count, checkpoint.width) == (name, 5, 0.0625)
    wanted = {key: value for key, value in model.state_dict().items() if not key.endswith("tracked")}
    assert checkpoint.state.keys() == wanted.keys()
    for key, value in wanted.items():
        assert torch.equal(checkpoint.state[key], value), key
    x = torch.rand((1, 3, 48, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        assert torch.equal(checkpoint.build()(x), model(x))


@pytest.mark.parametrize(("epsilon", "bias"), [(1e-3, False), (1e-5, True), (1e-3, True)])
def test_what_torch_has_no_place_for_is_taken_up(tmp_path: Path, epsilon: float, bias: bool) -> None:
    model = procedural_model("bagnet17", 4, 0.0625)
    path = KerasFile(2, epsilon, bias).model(model).write(tmp_path / "bagnet.h5")
    x = torch.rand((2, 3, 48, 40), generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        torch.testing.assert_close(read_checkpoint(path).build()(x), model(x), rtol=1e-4, atol=1e-5)


def keras() -> KerasFile:
    return KerasFile().model(procedural_model("bagnet9", 3, 0.0625))


def padded(made: KerasFile) -> None:
    next(each for each in made.layers if each["class_name"] == "Conv2D")["config"]["padding"] = "same"


def slower(made: KerasFile) -> None:
    [each for each in made.layers if each["class_name"] == "Conv2D"][4]["config"]["strides"] = [1, 1]


def zeros_around(made: KerasFile) -> None:
    made.layers[0] |= {"class_name": "ZeroPadding2D", "inbound_nodes": []}
    made.layers[0]["config"]["padding"] = [[1, 1], [1, 1]]


def shorter(made: KerasFile) -> None:
    del made.layers[-12:-2]
    made.layers[-2]["inbound_nodes"] = [[[made.layers[-3]["config"]["name"], 0, 0, {}]]]


def deeper(made: KerasFile) -> None:
    made.add("Dense", made.layers[-1]["config"]["name"], weights={"kernel": np.eye(3, dtype=np.float32)})


def without_bias(made: KerasFile) -> None:
    del made.weights[made.layers[-1]["config"]["name"]]["bias"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (padded, r"holds no BagNet: 7_conv2d pads"),
        (slower, r"holds no BagNet: .*_conv2d has another stride than 2"),
        (zeros_around, r"0_inputlayer pads, which no BagNet does"),
        (shorter, r"holds no BagNet: layer4.\d begins with \d convolutions"),
        (deeper, r"holds no BagNet: .*_dense has no place in it"),
        (without_bias, r"holds no BagNet: its linear layer has no bias"),
    ],
)
def test_another_network_is_refused(tmp_path: Path, change: Callable[[KerasFile], None], message: str) -> None:
    made = keras()
    change(made)
    with pytest.raises(WeightsError, match=message):
        read_keras(made.write(tmp_path / "bagnet.h5"))


def linked(file: h5py.File, name: str) -> None:
    del file[name]
    file[name] = h5py.ExternalLink("secret.h5", "/kernel")


def external(file: h5py.File, name: str) -> None:
    shape = file[name].shape
    del file[name]
    file.create_dataset(name, shape, "f4", external=[("secret.bin", 0, 4 * int(np.prod(shape)))])


def huge(file: h5py.File, name: str) -> None:
    del file[name]
    file.create_dataset(name, (2**20, 2**20), "f4", chunks=(64, 64))


def worded(file: h5py.File, name: str) -> None:
    del file[name]
    file[name] = np.array([b"kernel"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (linked, "is a link"),
        (external, "lies in another file"),
        (huge, "for which it is too small"),
        (worded, r"\|S6 values of shape \[1\]"),
    ],
)
def test_a_file_that_leads_elsewhere_or_claims_too_much_is_refused(
    tmp_path: Path, change: Callable[[h5py.File, str], None], message: str
) -> None:
    path = keras().write(tmp_path / "bagnet.h5")
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["kernel"] = np.zeros((1, 1, 3, 4), np.float32)
    (tmp_path / "secret.bin").write_bytes(bytes(4096))
    with h5py.File(path, "a") as file:
        change(file, "model_weights/7_conv2d/7_conv2d/kernel:0")
    with pytest.raises(WeightsError, match=message):
        read_keras(path)


def test_what_is_no_model_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "bagnet.h5"
    path.write_bytes(b"not HDF5 at all")
    with pytest.raises(WeightsError, match=r"bagnet.h5 is not a readable Keras model: "):
        read_keras(path)
    with h5py.File(path, "w") as file:
        file.create_group("model_weights")
    with pytest.raises(WeightsError, match=r"it has no model_config: save the whole model"):
        read_keras(path)
    monkeypatch.setitem(sys.modules, "h5py", None)
    with pytest.raises(SettingsError, match=r"Keras weights need h5py: pip install 'bagindex\[keras\]'"):
        read_keras(path)


def test_the_releases_files_have_imagenets_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "mine.h5"
    path.write_bytes(b"x")
    assert not is_official(path)
    monkeypatch.setattr("bagindex.official.file_sha256", lambda _path: KERAS_SHA256["bagnet17"])
    assert is_official(path)
