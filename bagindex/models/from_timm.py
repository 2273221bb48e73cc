"""Networks of timm's that are bags of patches, which few are: what a cell of their features sees is measured."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import torch
from torch import Tensor, nn

from bagindex.errors import SettingsError, WeightsError
from bagindex.models.interface import IMAGENET, PatchModel
from bagindex.text import first_line, some

_INPUTS = 2
"""Random ones whose gradients are looked at: behind a maximum or a rectifier, some pixels have none."""


class Headless(nn.Module):
    """A network of timm's whose last layer stands apart, so that its features and its logits can be had."""

    def __init__(self, network: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self._last = next(name for name, each in network.named_modules() if each is classifier)
        network.set_submodule(self._last, nn.Identity())
        self.network = network
        self.fc = classifier

    def renamed(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict of timm's with the names of this module's; one that has them already stays as it is."""
        if "fc.weight" in state and any(key.startswith("network.") for key in state):
            return dict(state)
        return {
            f"fc{key.removeprefix(self._last)}" if key.startswith(f"{self._last}.") else f"network.{key}": tensor
            for key, tensor in state.items()
        }

    def features(self, x: Tensor) -> Tensor:
        """What is averaged: [N, 3, H, W] -> [N, D, rows, cols]."""
        found: Tensor = self.network.forward_features(x)  # type: ignore[operator]
        return found

    def forward(self, x: Tensor) -> Tensor:
        """The network's own logits: [N, 3, H, W] -> [N, classes]."""
        found: Tensor = self.fc(self.network(x))
        return found


def library(name: str) -> ModuleType:
    """timm, which has a network of that name.

    Raises:
        SettingsError: it has not, or is not installed.
    """
    try:
        import timm
    except ImportError:
        raise SettingsError("a network of timm's needs timm: pip install 'bagindex[timm]'") from None
    if not timm.is_model(name):
        near = timm.list_models(f"*{name.partition('.')[0]}*")
        raise SettingsError(f"timm has no network {name!r}" + (f": it has {some(near)}" if near else ""))
    found: ModuleType = timm
    return found


def make(name: str, pretrained: bool = True) -> PatchModel:
    """A network of timm's as a bag of patches.

    Args:
        name: which.
        pretrained: with the weights that timm fetches for it.

    Raises:
        SettingsError: there is none such, or it is no bag of patches.
        WeightsError: its weights cannot be fetched.
    """
    timm = library(name)
    try:
        network = timm.create_model(name, pretrained=pretrained).eval()
    except Exception as error:  # its hub's client raises whatever its network does
        raise WeightsError(
            f"timm cannot fetch the weights of {name}: {first_line(error)}; bring its state dict as a file, and give "
            f"--model timm:{name} --weights FILE"
        ) from None
    settings: dict[str, Any] = network.pretrained_cfg
    classifier = network.get_classifier() if hasattr(network, "get_classifier") else None
    if not isinstance(classifier, nn.Linear) or not hasattr(network, "forward_features"):
        raise SettingsError(f"timm:{name} is no bag of patches: it has no linear layer behind its features")
    _, height, width = settings["input_size"]
    whole = Headless(network, classifier)
    field, stride, offset = measure(f"timm:{name}", whole, (height, width))
    return PatchModel(
        name="timm-" + "".join(each if each.isalnum() else "-" for each in name.lower()),
        network=whole,
        receptive_field=field,
        stride=stride,
        offset=offset,
        classes=IMAGENET if classifier.out_features == 1000 else None,
        resize=round(min(height, width) / settings.get("crop_pct", 0.875)),
        crop=(height, width),
        mean=tuple(settings["mean"]),
        std=tuple(settings["std"]),
    )


def measure(name: str, network: Headless, shape: tuple[int, int]) -> tuple[int, int, int]:
    """Receptive field, stride and offset of a network's patches, by gradients: where the input's is not zero, a cell
    looks. Its weights do not count, since others may take their place, and fresh ones are often zero.

    Args:
        name: for people.
        network: ready for inference; it stays as it is.
        shape: height and width of its input.

    Raises:
        SettingsError: its cells see more than a patch, or patches that are no squares at equal distances.
    """
    generator = torch.Generator().manual_seed(0)
    count = network.fc.in_features
    network = copy.deepcopy(network).requires_grad_(False)
    for parameter in network.parameters():
        scale = parameter[0].numel() ** -0.5 if parameter.ndim > 1 else 0.1
        parameter.normal_(0 if parameter.ndim > 1 else 0.5, scale, generator=generator)
    inputs = torch.randn((_INPUTS, 3, *shape), generator=generator).requires_grad_()
    features = network.features(inputs)
    if features.ndim != 4 or min(features.shape[2:]) < 2:
        raise SettingsError(
            f"{name} is no bag of patches: its features should be [N, D, rows, cols], and are {list(features.shape)}"
        )
    if features.shape[1] != count:
        raise SettingsError(f"{name} is no bag of patches: it has other layers between its features and the linear one")
    rows, cols = features.shape[2:]
    weights = torch.randn(features.shape[:2], generator=generator)
    row, col = rows // 2, cols // 2
    seen = []
    for cell in ((row - 1, col - 1), (row, col)):
        (gradient,) = torch.autograd.grad((features[:, :, *cell] * weights).sum(), inputs, retain_graph=True)
        at = gradient.abs().sum(dim=(0, 1)).nonzero()
        if not len(at):
            raise SettingsError(f"{name} is no bag of patches: its features do not depend on its input")
        seen.append((*at.min(dim=0).values.tolist(), *(at.max(dim=0).values + 1).tolist()))
    (top, left, bottom, right), (next_top, next_left, _, _) = seen
    if min(top, left) == 0 or bottom == shape[0] or right == shape[1]:
        raise SettingsError(
            f"{name} is no bag of patches: a cell in the middle of its {rows} x {cols} sees rows {top} to {bottom} and "
            f"columns {left} to {right} of an input of {shape[0]} x {shape[1]}, to its border"
        )
    field, stride = right - left, next_left - left
    offset = left - stride * (col - 1)
    if (bottom - top, next_top - top, top - stride * (row - 1)) != (field, stride, offset) or stride < 1:
        raise SettingsError(f"{name} has patches that are no squares at equal distances, which bagindex cannot show")
    return field, stride, offset
