"""The models that bagindex knows by name, and whose weights. Nothing else does; and nothing here needs torch."""

from __future__ import annotations

from dataclasses import dataclass

STRIDE = 8
"""Pixels from one patch of a BagNet to the next."""


@dataclass(frozen=True)
class Architecture:
    """A BagNet: the first `layers_with_3x3` of its four layers hold one 3 × 3 convolution each.

    `weights_file` is what its authors call the weights that they trained on ImageNet, where those have an address.
    `padded`: one of the BagNets v2 of Berens lab, whose 3 × 3 convolutions pad their input by a pixel of zeros.
    """

    name: str
    receptive_field: int
    layers_with_3x3: int
    weights_file: str | None
    padded: bool = False

    @property
    def offset(self) -> int:
        """Pixel at which the first patch begins: a padded BagNet's has its middle on the first pixel."""
        return -(self.receptive_field - 1) // 2 if self.padded else 0


ARCHITECTURES = {
    architecture.name: architecture
    for architecture in (
        Architecture("bagnet9", 9, 2, "bagnet8-34f4ccd2.pth.tar"),
        Architecture("bagnet17", 17, 3, "bagnet16-105524de.pth.tar"),
        Architecture("bagnet33", 33, 4, "bagnet32-2ddd53ed.pth.tar"),
        Architecture("bagnet9v2", 9, 2, None, padded=True),
        Architecture("bagnet17v2", 17, 3, None, padded=True),
        Architecture("bagnet33v2", 33, 4, None, padded=True),
    )
}
V2_URL = "https://github.com/berenslab/bagnetsv2"
"""Where the BagNets v2 are published, with their weights beside the code."""


@dataclass(frozen=True)
class Published:
    """Weights that somebody publishes.

    Attributes:
        model: the model's name.
        file: the file's name, which ends in the beginning of its SHA-256.
        folder: the address of the folder that it is published in.
    """

    model: str
    file: str
    folder: str

    @property
    def sha256_start(self) -> str:
        """The first digits of its SHA-256."""
        return self.file.rpartition("-")[2].partition(".")[0]


BAGNETS_URL = (
    "https://bitbucket.org/wielandbrendel/bag-of-feature-pretrained-models/raw/249e8fa82c0913623a807d9d35eeab9da7dcc2a8"
)
"""Where the authors of BagNets publish theirs."""
KERAS_SHA256 = {
    "bagnet9": "5b70adc7c4ff77d932dbba485a5ea1d333a65e777a45511010f22e304a2fdd69",
    "bagnet17": "b262dfee15a86c91e6aa21bfd86505ecd20a539f7f7c72439d5b1d352dd98a1d",
    "bagnet33": "96d8842eec8b8ce5b3bc6a5f4ff3c8c0278df3722c12bc84408e1487811f8f0f",
}
"""Of their Keras release (bagnet8.h5, bagnet16.h5, bagnet32.h5), as its code has them."""
NETWORKS_URL = "https://download.pytorch.org/models"
"""Where torchvision's are published."""
NETWORKS = {
    "vgg16": "vgg16-397923af.pth",
    "resnet50": "resnet50-0676ba61.pth",
    "resnet152": "resnet152-394f9c45.pth",
    "densenet169": "densenet169-b2777c0a.pth",
}
"""The networks that the paper compares BagNets with, and the files of torchvision's first weights of them, which are
those of the paper's time (IMAGENET1K_V1)."""


def published() -> dict[str, Published]:
    """All published weights that are known by name: the BagNets', then those of networks to compare with."""
    bagnets = [
        Published(each.name, each.weights_file, BAGNETS_URL) for each in ARCHITECTURES.values() if each.weights_file
    ]
    networks = [Published(name, file, NETWORKS_URL) for name, file in NETWORKS.items()]
    return {each.model: each for each in (*bagnets, *networks)}
