"""What bagindex asks of a bag-of-patches model of one's own: features, a linear layer, and where patches lie."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagindex.errors import SettingsError
from bagindex.registry import ARCHITECTURES
from bagindex.text import first_line
from bagindex_schemas.records import LARGEST_INPUT, MODEL_NAME, Transform

if TYPE_CHECKING:
    from torch import Tensor, nn

IMAGENET = "imagenet"
"""Stands for ImageNet's 1,000 classes."""


@dataclass(frozen=True, eq=False)
class PatchModel:
    """A model that classifies an image by the mean of what it makes of square patches of it.

    Patch (row, col) sees the pixels [offset + stride · col, … + receptive_field) × [offset + stride · row, …) of the
    input, as far as there are any, and no others. That is checked when the model is used; see `bagindex.models.check`.

    Attributes:
        name: what an index calls it: small letters, digits, - and _.
        network: a torch module. Its `features`, a method or module, makes float [N, D, rows, cols] of normalised
            images, float [N, 3, height, width]; its `fc` is the `nn.Linear` layer from D features to the classes'
            logits, with a bias; and called with images, it gives its own logits of them, [N, classes]. It is run by
            several threads at a time, and must not keep anything of one image for another.
        receptive_field: pixels of a patch's side.
        stride: pixels from one patch to the next.
        offset: pixel at which the first patch begins; below 0 for a network that pads. What it pads with counts as the
            mean colour, where patches are shown.
        classes: their names, in the order of the logits, or `imagenet`; None: they are given by `--classes`.
        resize: pixels of the shorter side of the resized picture.
        crop: side of the input that is cut out of its middle, or height and width.
        mean, std: what the input is normalised by (RGB, of values in [0, 1]).

    Raises:
        SettingsError: a value is none that there can be.
    """

    name: str
    network: nn.Module
    receptive_field: int
    stride: int
    offset: int = 0
    classes: Sequence[str] | str | None = None
    resize: int = 256
    crop: int | tuple[int, int] = 224
    mean: tuple[float, float, float] = Transform.model_fields["mean"].default
    std: tuple[float, float, float] = Transform.model_fields["std"].default

    def __post_init__(self) -> None:
        """See whether it can be."""
        if not re.fullmatch(MODEL_NAME, self.name) or self.name == "images" or self.name in ARCHITECTURES:
            raise SettingsError(
                f"a model of one's own cannot be called {self.name!r}: use small letters, digits, - and _, and no "
                "BagNet's name"
            )
        if not (1 <= self.receptive_field <= LARGEST_INPUT and 1 <= self.stride <= LARGEST_INPUT):
            raise SettingsError(
                f"{self.name}: receptive_field and stride are numbers of pixels from 1 to {LARGEST_INPUT}"
            )
        if self.receptive_field <= -self.offset:
            raise SettingsError(f"{self.name}: with offset {self.offset} its first patch sees no pixel of the input")
        self.transform  # noqa: B018  # raises

    @property
    def transform(self) -> Transform:
        """The way from a picture to the input.

        Raises:
            SettingsError: there is no such input.
        """
        height, width = (self.crop, self.crop) if isinstance(self.crop, int) else self.crop
        try:
            return Transform(resize=self.resize, crop_height=height, crop_width=width, mean=self.mean, std=self.std)
        except ValueError as error:
            raise SettingsError(f"{self.name}: resize, crop, mean and std say no input: {first_line(error)}") from None

    @property
    def linear(self) -> nn.Linear:
        """The linear layer.

        Raises:
            SettingsError: it has none with a bias.
        """
        from torch import nn

        found = getattr(self.network, "fc", None)
        if not isinstance(found, nn.Linear) or found.bias is None:
            raise SettingsError(f"{self.name}: its network needs `fc`, an nn.Linear layer with a bias (zeros will do)")
        return found

    def features(self, inputs: Tensor) -> Tensor:
        """Features of normalised images, float [N, 3, height, width] -> float [N, D, rows, cols].

        Raises:
            SettingsError: the network gives none such.
        """
        make: Callable[[Tensor], object] | None = getattr(self.network, "features", None)
        if not callable(make):
            raise SettingsError(f"{self.name}: its network needs `features`, a method or module")
        return self._tensor("features", make(inputs), (len(inputs), self.linear.in_features, None, None))

    def logits(self, inputs: Tensor) -> Tensor:
        """The network's own logits of normalised images, float [N, 3, height, width] -> float [N, classes].

        Raises:
            SettingsError: the network gives none such.
        """
        return self._tensor("own logits", self.network(inputs), (len(inputs), self.linear.out_features))

    def _tensor(self, what: str, found: object, shape: tuple[int | None, ...]) -> Tensor:
        from torch import Tensor

        wanted = ", ".join("·" if side is None else str(side) for side in shape)
        if not isinstance(found, Tensor):
            raise SettingsError(f"{self.name}: its {what} should be a tensor [{wanted}], not {type(found).__name__}")
        sides = list(found.shape)
        if len(sides) != len(shape) or any(want not in (None, side) for want, side in zip(shape, sides, strict=True)):
            raise SettingsError(f"{self.name}: its {what} should be [{wanted}], and are {sides}")
        return found
