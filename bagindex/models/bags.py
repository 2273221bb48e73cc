"""Bags of patches, BagNets and others, as networks of image logits."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bagindex.inference import FoldedBagNet
from bagindex.model import BagNet
from bagindex.models.computing import Patches
from bagindex.models.interface import PatchModel


class BagOfPatches(nn.Module):
    """A model as a network of image logits (section 2): [N, 3, H, W] -> [N, classes].

    Args:
        patches: normalised images -> features, [N, rows, cols, D].
        linear: the linear layer.
    """

    def __init__(self, patches: nn.Module, linear: nn.Linear) -> None:
        super().__init__()
        self.patches = patches
        self.fc = linear

    def evidence(self, x: Tensor) -> Tensor:
        """The logits of every patch: [N, 3, H, W] -> [N, rows, cols, classes]."""
        logits: Tensor = self.fc(self.patches(x.contiguous(memory_format=torch.channels_last)))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        """The mean of the patches' logits."""
        return self.evidence(x).mean(dim=(1, 2))


class Folded(BagOfPatches):
    """A folded BagNet."""

    def __init__(self, model: BagNet) -> None:
        super().__init__(FoldedBagNet(model), model.fc)


class Own(BagOfPatches):
    """A model that is no BagNet; see `bagindex.models`."""

    def __init__(self, model: PatchModel) -> None:
        super().__init__(Patches(model), model.linear)
        self._network = (model.network,)  # no submodule again

    @property
    def network(self) -> nn.Module:
        """The model's own network, with its own layers' names."""
        return self._network[0]
