"""What an attribution method is: it says of every pixel how much it speaks for a class."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from bagindex.arithmetic import float32
from bagindex.attribution.plain import PlainNetwork, plain
from bagindex.errors import AttributionError, BagindexError
from bagindex.text import first_line


@dataclass(frozen=True, eq=False)
class Request:
    """What a method is given.

    Attributes:
        network: the network, of modules that hooks can be put on; see `bagindex.attribution.plain`.
        inputs: normalised images, float32 [N, 3, H, W].
        classes: the class of each whose logit is accounted for, int64 [N].
        baseline: what an input without evidence looks like, float32 [N, 3, H, W].
        seed: of what is drawn at random; torch's and numpy's generators begin with it.
    """

    network: PlainNetwork
    inputs: Tensor
    classes: Tensor
    baseline: Tensor
    seed: int


AT_ONCE = {"cpu": 1, "cuda": 8}
"""Images that a method takes at a time, by the kind of device: some hold all that a network computes, several times."""
VARIANTS_AT_ONCE = {"cpu": 8, "cuda": 64}
"""Inputs that the network takes at a time, of the many that a method makes of one, by the kind of device."""
Run = Callable[[Request], Tensor]
"""The attributions of a request: [N, 3, H, W], or what of it is summed already, or coarser: [N, ..., h, w]."""


@dataclass(frozen=True, eq=False)
class Method:
    """An attribution method with its parameters.

    Attributes:
        name: what it is asked for by, with the parameters that were given: `smoothgrad(samples=50)`.
        title: what it does.
        origin: whose it is: `bagindex`, `captum`, `zennit`, or an import path.
        parameters: all that it depends on.
        run: what does it.
        version: of the library that it comes from; of a function of the user's, the first digits of its file's SHA-256.
    """

    name: str
    title: str
    origin: str
    run: Run
    parameters: Mapping[str, Any] = field(default_factory=dict)
    version: str = ""

    def attribute(
        self, network: nn.Module, inputs: Tensor, classes: Tensor, *, seed: int = 0, baseline: Tensor | None = None
    ) -> Tensor:
        """How much each pixel speaks for a class, by this method.

        Args:
            network: float32 [N, 3, H, W] -> logits [N, C], for inference; it stays as it is. Where it is asked more
                than once, `bagindex.attribution.plain.plain` makes it ready once.
            inputs: normalised images, float32 [N, 3, H, W], on its device.
            classes: a class for each, int64 [N], on its device.
            seed: of what is drawn at random.
            baseline: what an input without evidence looks like, float32 of the inputs' shape; by default zeros, which
                is the mean colour.

        Returns:
            Attributions, signed where the method's are, summed over the channels: float32 [N, H, W], on that device.

        Raises:
            AttributionError: the method cannot do this on this network.
        """
        ready = plain(network, inputs[:1])
        given = torch.zeros_like(inputs) if baseline is None else baseline
        request = Request(ready, inputs.detach(), classes, given.detach(), seed)
        try:
            with _seeded(seed), _unwarned(), float32():
                found = self.run(request)
        except (BagindexError, torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # methods are others' code
            raise AttributionError(f"{self.name} failed: {type(error).__name__}: {first_line(error)}") from error
        return self._as_map(found, inputs)

    def _as_map(self, found: object, inputs: Tensor) -> Tensor:
        count, _, height, width = inputs.shape
        if not isinstance(found, Tensor) or found.ndim < 3 or len(found) != count:
            shape = tuple(found.shape) if isinstance(found, Tensor) else type(found).__name__
            raise AttributionError(f"{self.name} gives {shape}, and not a tensor [{count}, {height}, {width}]")
        if not torch.isfinite(found).all():
            raise AttributionError(f"{self.name} gives values that are not finite")
        summed = found.detach().float().flatten(1, -3).sum(dim=1) if found.ndim > 3 else found.detach().float()
        if summed.shape[1:] != (height, width):
            # Of a layer: as Captum's `LayerAttribution.interpolate` lays it over the input.
            summed = nn.functional.interpolate(
                summed[:, None], (height, width), mode="bilinear", align_corners=False
            ).squeeze(1)
        return summed


def image_seed(seed: int, image_id: int) -> int:
    """A seed for an image, or for a batch that begins with it: what is drawn for it does not depend on the others."""
    return int(np.random.SeedSequence([seed, image_id]).generate_state(1)[0])


def library(name: str, method: str) -> ModuleType:
    """A library that a method comes from, or a module of it.

    Raises:
        AttributionError: it is not installed.
    """
    try:
        with _unwarned():
            return import_module(name)
    except ImportError:
        raise AttributionError(
            f"{method} needs {name.partition('.')[0]}: pip install 'bagindex[attribution]'"
        ) from None


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Methods draw from the generators that all share; these are as they were afterwards."""
    before = np.random.get_state()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        np.random.seed(seed % 2**32)
        try:
            yield
        finally:
            np.random.set_state(before)


@contextmanager
def _unwarned() -> Iterator[None]:
    """Captum warns of what it does to a network: here that is a copy."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
