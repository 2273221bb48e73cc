"""What the paper reports, and where it stands there. Brendel & Bethge, ICLR 2019 (arXiv:1904.00760)."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

PATCH_SIZES = (9, 17, 33)
"""Pixels of a patch's side of the three BagNets."""

TOP5: Mapping[int, float] = MappingProxyType({17: 80.5, 33: 87.6})
"""Top-5 accuracy on ImageNet's validation images in per cent, by the patch size. The text gives no number for 9."""
TOP5_AT = "section 3, Fig. 1B"

CORRELATION: Mapping[int, float] = MappingProxyType({9: 0.70, 17: 0.79, 33: 0.88})
"""Pearson's correlation of a BagNet's logits with VGG-16's, by the patch size."""
CORRELATION_AT = "Fig. 1C"
CORRELATION_WITH = "vgg16"

RUNTIME: Mapping[str, float] = MappingProxyType({"bagnet33": 155.0, "resnet50": 570.0})
"""Images per second."""
RUNTIME_BATCH = 64
RUNTIME_AT = "section 4.1"

TEXTURISED: Mapping[str, float] = MappingProxyType({"before": 90.1, "after": 79.4})
"""VGG-16's top-5 accuracy in per cent, on images as they are and on textures synthesised from them."""
TEXTURISED_AT = "Fig. 5"

ARCHITECTURE_AT = "Fig. A.1"
"""Where the layers of BagNets are drawn; the receptive fields are the models' names."""
