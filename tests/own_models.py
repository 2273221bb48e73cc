"""Small bag-of-patches models of a user's, and some that are not what they say."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from bagindex import PatchModel

CLASSES = ("fish", "stone", "tree")


class Network(nn.Module):
    """Patches of 8 pixels, 4 apart; with `padding` they begin before the input."""

    def __init__(self, classes: int = 3, padding: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 8, 4, stride=4, padding=padding),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 2),
        )
        self.fc = nn.Linear(12, classes)

    def features(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, 12, rows, cols]."""
        found: Tensor = self.body(x)
        return found

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        found: Tensor = self.fc(self.features(x).mean(dim=(2, 3)))
        return found


def model(network: nn.Module | None = None, **changed: Any) -> PatchModel:
    """A model of the planted pictures' classes, with weights that are the same each time."""
    torch.manual_seed(4)
    given: dict[str, Any] = {"receptive_field": 8, "stride": 4, "classes": CLASSES, "resize": 48, "crop": (40, 44)}
    return PatchModel("tiny", Network() if network is None else network, **{**given, **changed})


def tiny() -> PatchModel:
    """Without padding."""
    return model()


def padded() -> PatchModel:
    """With padding of two pixels."""
    torch.manual_seed(4)
    return model(Network(padding=2), offset=-2)


def other_patches() -> PatchModel:
    """Of another geometry, under the name of the first."""
    torch.manual_seed(4)
    return model(Network(padding=2), offset=-2)


def failing() -> PatchModel:
    """Cannot be made."""
    raise OSError("no such network drive")


NOT_A_MODEL = 17


class Spoilt(Network):
    """Cannot be run."""

    def features(self, x: Tensor) -> Tensor:
        """Fails."""
        raise AttributeError("no such layer")


def spoilt() -> PatchModel:
    """Can be made, but not run."""
    return model(Spoilt())


class Gated(Network):
    """Patches are weighed by what the whole image is."""

    def features(self, x: Tensor) -> Tensor:
        """Looks at all."""
        found = super().features(x)
        return found * torch.sigmoid(found.mean(dim=(2, 3), keepdim=True))


class Drawing(Network):
    """Drops features at random, always."""

    def features(self, x: Tensor) -> Tensor:
        """Other ones each time."""
        return nn.functional.dropout(super().features(x), 0.5, training=True)


class Batched(Network):
    """Normalises by what is in the batch."""

    def features(self, x: Tensor) -> Tensor:
        """Depends on the other images."""
        found = super().features(x)
        return found - found.mean(dim=0, keepdim=True) / 2


class Infinite(Network):
    """Divides by zero."""

    def features(self, x: Tensor) -> Tensor:
        """Not finite."""
        return super().features(x) / 0


class Blind(Network):
    """Sees nothing."""

    def features(self, x: Tensor) -> Tensor:
        """The same for all patches."""
        return 0 * super().features(x) + 1


class Squashed(Network):
    """Not linear behind the mean."""

    def forward(self, x: Tensor) -> Tensor:
        """Rectified before the linear layer."""
        found: Tensor = self.fc(torch.relu(self.features(x).mean(dim=(2, 3))))
        return found


class Last(Network):
    """Has its channels last."""

    def features(self, x: Tensor) -> Tensor:
        """[N, rows, cols, D]."""
        return super().features(x).permute(0, 2, 3, 1)


class Narrow(Network):
    """Takes five channels."""

    def features(self, x: Tensor) -> Tensor:
        """Fails."""
        return super().features(torch.cat([x, x], dim=1))


class Listed(Network):
    """Gives a list."""

    def features(self, x: Tensor) -> Any:
        """No tensor."""
        return [super().features(x)]


class Unbiased(Network):
    """Has no bias."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(12, 3, bias=False)
