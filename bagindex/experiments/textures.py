"""Textures by the method of Gatys et al. (2015): an image that has the same feature statistics as another at several
depths of a network, wherever in it they come from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bagindex.arithmetic import float32
from bagindex.errors import SettingsError
from bagindex.experiments.networks import Network

_STAGES = 4
"""Depths at which a VGG's pools are taken; what comes later sees most of an image."""
_MEMORY = 20
"""Steps back that the optimiser knows of."""


@dataclass(frozen=True, eq=False)
class Texture:
    """A texture, and how it came about.

    Attributes:
        pixels: uint8 [H, W, RGB].
        losses: at the beginning and after each step, float64 [steps + 1].
    """

    pixels: NDArray[np.uint8]
    losses: NDArray[np.float64]


def texture_layers(module: nn.Module) -> tuple[str, ...]:
    """The layers of a VGG or a ResNet of torchvision's whose statistics make a texture, in order: of a VGG the first
    rectifier and the pools but the last, as Gatys et al. chose them; of a ResNet what is at the same resolutions.

    Raises:
        SettingsError: it is neither.
    """
    names = {name for name, _ in module.named_children()}
    features = getattr(module, "features", None)
    if isinstance(features, nn.Sequential) and "classifier" in names:
        kinds = [(f"features.{name}", each) for name, each in features.named_children()]
        pools = [name for name, each in kinds if isinstance(each, nn.MaxPool2d)][:_STAGES]
        rectifiers = [name for name, each in kinds if isinstance(each, nn.ReLU)][:1]
        if len(pools) > 1 and rectifiers:
            return (*rectifiers, *pools)
    if names >= {"relu", "layer1", "layer2", "layer3"}:
        return ("relu", "layer1", "layer2", "layer3")
    raise SettingsError(f"textures are made with a VGG or a ResNet, not with a {type(module).__name__}")


def gram(features: Tensor) -> Tensor:
    """Correlations of channels over all places: [C, H, W] -> [C, C], the mean of the products."""
    flat = features.flatten(1)
    return flat @ flat.T / flat.shape[1]


def distance(found: Sequence[Tensor], wanted: Sequence[Tensor]) -> Tensor:
    """How far correlations are from those that are wanted, over their size: 0 for the same, and about 1 for none. All
    layers count alike, whatever the scale of their features.
    """
    each = [((one - other) ** 2).sum() / (other**2).sum() for one, other in zip(found, wanted, strict=True)]
    return torch.stack(each).mean()


class Statistics:
    """The correlations of a network's features at some layers, for normalised images [1, 3, H, W]. A context manager,
    which takes off what it puts on the network.
    """

    def __init__(self, module: nn.Module, layers: Sequence[str]) -> None:
        self._module = module
        self._layers = layers
        self._outputs: dict[str, Tensor] = {}
        modules = dict(module.named_modules())
        self._handles = [modules[name].register_forward_hook(self._keep(name, name == layers[-1])) for name in layers]

    def __enter__(self) -> Statistics:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def __call__(self, image: Tensor) -> list[Tensor]:
        """One for each layer, [C, C]."""
        with suppress(_Enough):
            self._module(image)
        return [gram(self._outputs[name][0]) for name in self._layers]

    def _keep(self, name: str, last: bool) -> Callable[[nn.Module, object, Tensor], None]:
        def keep(_module: nn.Module, _inputs: object, output: Tensor) -> None:
            self._outputs[name] = output
            if last:
                raise _Enough

        return keep


class _Enough(Exception):  # noqa: N818 (not an error: what comes after is of no use)
    pass


def synthesise(
    network: Network,
    pixels: NDArray[np.uint8],
    steps: int,
    seed: int,
    device: torch.device,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Texture:
    """A texture with the statistics of an image, by L-BFGS within the range of pixels, from noise.

    Args:
        network: whose features, on `device`; a VGG or a ResNet.
        pixels: the image, uint8 [H, W, RGB].
        steps: of the optimiser at most.
        seed: of the noise.
        device: where the network is.
        progress: hears how many of how many steps are done.

    Raises:
        SettingsError: the network is neither.
    """
    from scipy.optimize import Bounds, minimize  # type: ignore[import-untyped]

    layers = texture_layers(network.module)
    shape = pixels.shape
    # The optimiser's first step has the length 1: with this unit, an eighth of the pixels' range for all of them.
    unit = 255 * np.sqrt(pixels.size) / 8
    losses: list[float] = []
    last = [0.0]
    with Statistics(network.module, layers) as statistics, float32():
        with torch.no_grad():
            wanted = statistics(network.normalise(torch.from_numpy(pixels.copy())[None].to(device)))

        def loss(values: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
            image = torch.from_numpy((unit * values).reshape(shape).astype(np.float32)).to(device).requires_grad_()
            found = distance(statistics(network.normalise(image[None])), wanted)
            (gradient,) = torch.autograd.grad(found, image)
            last[0] = float(found.detach())
            return last[0], unit * gradient.cpu().numpy().astype(np.float64).ravel()

        def stepped(values: NDArray[np.float64]) -> None:
            del values
            losses.append(last[0])
            progress(len(losses), steps)

        start = np.random.default_rng(seed).uniform(0, 255, pixels.size) / unit
        first, _ = loss(start)
        # Gradients are small numbers that say nothing of whether it is done: it takes the steps that it may.
        options = {"maxiter": steps, "maxfun": 2 * steps + 20, "maxcor": _MEMORY, "ftol": 0.0, "gtol": 0.0}
        bounds = Bounds(np.zeros(pixels.size), np.full(pixels.size, 255 / unit))
        found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, callback=stepped, options=options)
    texture = np.rint(unit * found.x.reshape(shape)).clip(0, 255).astype(np.uint8)
    return Texture(texture, np.array([first, *losses]))
