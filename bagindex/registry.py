"""The models that bagindex knows by name. Nothing else does; and nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass

STRIDE = 8
"""Pixels from one patch of a BagNet to the next."""


@dataclass(frozen=True)
class Architecture:
    """A BagNet: the first `layers_with_3x3` of its four layers hold one 3 × 3 convolution each.

    `weights_file` is what its authors call the weights that they trained on ImageNet.
    """

    name: str
    receptive_field: int
    layers_with_3x3: int
    weights_file: str


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("bagnet9", 9, 2, "bagnet8-34f4ccd2.pth.tar"),
        Architecture("bagnet17", 17, 3, "bagnet16-105524de.pth.tar"),
        Architecture("bagnet33", 33, 4, "bagnet32-2ddd53ed.pth.tar"),
    )
}
