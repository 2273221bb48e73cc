"""What the experiments with attribution methods have in common: networks whose decisions are explained, and maps that
explain them, made by attribution methods, and by the evidence that BagNets find for the same class.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bagindex.attribution.method import AT_ONCE, Method, image_seed
from bagindex.attribution.plain import plain
from bagindex.compute import find_device
from bagindex.dense import dense_evidence
from bagindex.errors import AttributionError
from bagindex.experiments.against import networks, own_networks
from bagindex.experiments.experiment import Setting
from bagindex.experiments.networks import Network
from bagindex.weights import read_checkpoint

PAPERS = ("saliency", "integrated-gradients", "lrp-epsilon", "deeplift")
"""The attribution methods of the paper's Table 1 and Figure A.2."""
RANDOM = "random"
"""The method that knows nothing."""
Reduce = Callable[[NDArray[np.float32]], NDArray[Any]]
"""What is kept of maps: float32 [n, H, W] -> [n, …]."""


@dataclass(frozen=True, eq=False)
class Explained:
    """A network's decisions about some images, which maps explain.

    Attributes:
        network: which.
        leading: the class with the largest logit of each image, a class of the index, int64 [N].
        probability: of that class, float64 [N].
    """

    network: Network
    leading: NDArray[np.int64]
    probability: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Maps:
    """Maps of some images by one method, or by one BagNet's evidence.

    Attributes:
        name: of the method; of a BagNet, its name and `heatmap`.
        parameters: what they depend on.
        values: how much each pixel speaks for the leading class, or what was kept of that, [N, …].
        seconds: that an image took, on average.
    """

    name: str
    parameters: Mapping[str, Any]
    values: NDArray[Any]
    seconds: float

    @property
    def settings(self) -> str:
        """The parameters, as a table has them."""
        return json.dumps(dict(self.parameters), sort_keys=True)


def explained_networks(setting: Setting, image_ids: NDArray[np.int64]) -> list[Explained]:
    """The chosen BagNets and the networks to compare with, and what they decide.

    Raises:
        BagindexError: a network or the pixels cannot be had.
    """
    return [_explained(setting, network, image_ids) for network in (*own_networks(setting), *networks(setting))]


def _explained(setting: Setting, network: Network, image_ids: NDArray[np.int64]) -> Explained:
    network.module.to(find_device(setting.device))
    try:
        with torch.inference_mode():
            logits = [network.logits(inputs_of(setting, network, [each])) for each in image_ids.tolist()]
    finally:
        network.module.to("cpu")
    probability, leading = torch.softmax(torch.cat(logits).double(), dim=1).cpu().max(dim=1)
    return Explained(network, leading.numpy(), probability.numpy())


def inputs_of(setting: Setting, network: Network, image_ids: Sequence[int]) -> Tensor:
    """A network's inputs, normalised, float32 [n, 3, H, W], on the experiment's device."""
    found = setting.pixels(image_ids)
    pixels = torch.from_numpy(np.stack([found[image_id] for image_id in image_ids]))
    return network.normalise(pixels.to(find_device(setting.device)))


def heatmaps(
    setting: Setting, image_ids: NDArray[np.int64], explained: Sequence[Explained], keep: Reduce
) -> list[list[Maps]]:
    """The chosen BagNets' evidence at every pixel (Figure 2) for the class that leads, for each network. A BagNet sees
    an image once, whatever classes are asked for.

    Raises:
        BagindexError: weights or pixels cannot be had.
    """
    device, transform = find_device(setting.device), setting.catalog.manifest.plan.transform
    found: list[list[Maps]] = [[] for _ in explained]
    for record in setting.records:
        model = read_checkpoint(setting.index._directory.weights_path(record), record.architecture).build()
        kept: list[list[NDArray[Any]]] = [[] for _ in explained]
        started = time.monotonic()
        for place, image_id in enumerate(image_ids.tolist()):
            setting.progress(f"{record.name}: evidence at every pixel", place, len(image_ids))
            wanted = [int(each.leading[place]) for each in explained]
            classes = sorted(set(wanted))
            evidence = dense_evidence(model, transform, setting.pixels([image_id])[image_id], classes, device)
            for part, class_id in zip(kept, wanted, strict=True):
                part.append(keep(evidence[classes.index(class_id)][None]))
        setting.progress(f"{record.name}: evidence at every pixel", len(image_ids), len(image_ids))
        seconds = (time.monotonic() - started) / len(image_ids)
        parameters = {"weights_sha256": record.weights_sha256, "dense": True, "beyond_the_edge": 0}
        for maps, part in zip(found, kept, strict=True):
            maps.append(Maps(f"{record.name} heatmap", parameters, np.concatenate(part), seconds))
    return found


def attributions(
    setting: Setting, explained: Explained, image_ids: NDArray[np.int64], methods: Sequence[Method], keep: Reduce
) -> tuple[list[Maps], list[str]]:
    """Maps of a network's decisions by attribution methods, and what is to be said of those that cannot do it.

    Raises:
        AttributionError: none of them can.
    """
    network, device = explained.network, find_device(setting.device)
    found: list[Maps] = []
    failed: list[str] = []
    network.module.to(device)
    try:
        ready = plain(network.module, inputs_of(setting, network, image_ids[:1].tolist()))
        for method in methods:
            try:
                found.append(_attributed(setting, explained, ready, image_ids, method, keep))
            except AttributionError as error:
                failed.append(f"{method.name} of {network.name} was left out: {error}.")
    finally:
        network.module.to("cpu")
    if failed and all(maps.name == RANDOM for maps in found):
        raise AttributionError(failed[0].rstrip("."))
    return found, failed


def _attributed(
    setting: Setting,
    explained: Explained,
    ready: nn.Module,
    image_ids: NDArray[np.int64],
    method: Method,
    keep: Reduce,
) -> Maps:
    network, device = explained.network, find_device(setting.device)
    what, at_once, total = f"{network.name}: {method.name}", AT_ONCE[device.type], len(image_ids)
    classes = np.array(network.places, np.int64)[explained.leading]
    kept, seconds = [], 0.0
    for start in range(0, total, at_once):
        setting.progress(what, start, total)
        some = slice(start, start + at_once)
        inputs = inputs_of(setting, network, image_ids[some].tolist())
        started = time.monotonic()
        chosen = torch.from_numpy(classes[some]).to(device)
        maps = method.attribute(ready, inputs, chosen, seed=image_seed(setting.seed, int(image_ids[start])))
        kept.append(keep(maps.cpu().numpy()))
        seconds += time.monotonic() - started
    setting.progress(what, total, total)
    return Maps(method.name, method.parameters, np.concatenate(kept), seconds / total)
