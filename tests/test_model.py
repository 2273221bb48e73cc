"""BagNets against the authors' figures, and the facts that make their evidence exact."""

from __future__ import annotations

import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from bagindex.geometry import make_grid, patch_box
from bagindex.inference import FoldedBagNet
from bagindex.model import BagNet
from bagindex.registry import ARCHITECTURES, STRIDE

NAMES = sorted(ARCHITECTURES)
UNPADDED = [name for name in NAMES if not ARCHITECTURES[name].padded]
PADDED = [name for name in NAMES if ARCHITECTURES[name].padded]
SOME = [*UNPADDED, "bagnet17v2"]
"""Where each of them takes seconds: what pads is the same code for all."""
MEAN = torch.tensor((0.485, 0.456, 0.406)).view(1, 3, 1, 1)
STD = torch.tensor((0.229, 0.224, 0.225)).view(1, 3, 1, 1)


def procedural(key: str, shape: tuple[int, ...]) -> Tensor:
    """The reference's weights: see reference/README.md beside the figures."""
    z = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape, dtype=np.float32)
    if key == "input":
        values = np.clip(0.5 + 0.25 * z, 0, 1)
    elif key.endswith("running_var"):
        values = 1 + 0.1 * np.abs(z)
    elif key.endswith(("running_mean", "bias")):
        values = 0.1 * z
    elif len(shape) == 4:
        values = z * np.sqrt(2 / (shape[1] * shape[2] * shape[3]))
    elif len(shape) == 2:
        values = z * np.sqrt(1 / shape[1])
    elif key.endswith("bn3.weight"):
        values = 0.3 + 0.05 * z
    else:
        values = 0.7 + 0.1 * z
    return torch.from_numpy(values.astype(np.float32))


def procedural_model(name: str, classes: int, width: float = 1.0) -> BagNet:
    model = BagNet(ARCHITECTURES[name], classes, width).eval()
    state = {
        key: torch.zeros((), dtype=torch.long) if key.endswith("tracked") else procedural(key, tuple(value.shape))
        for key, value in model.state_dict().items()
    }
    model.load_state_dict(state)
    return model


@pytest.mark.parametrize(
    ("name", "parameters"), [("bagnet9", 15_688_744), ("bagnet17", 16_213_032), ("bagnet33", 18_310_184)]
)
@pytest.mark.parametrize("folded", [False, True])
def test_reference(shared: Path, name: str, parameters: int, folded: bool) -> None:
    reference = np.load(shared / "reference" / f"{name}.npz")
    model = procedural_model(name, 1000)
    assert sum(p.numel() for p in model.parameters()) == parameters
    x = (procedural("input", (2, 3, 224, 224)) - MEAN) / STD
    with torch.inference_mode():
        features = FoldedBagNet(model)(x) if folded else model.features(x)
        patch_logits = model.fc(features)
    assert features.shape[1:3] == tuple(reference["grid"])
    corners = [(0, 0), (0, -1), (-1, 0), (-1, -1), (5, 7)]
    found = {
        "image_logits": patch_logits.mean(dim=(1, 2)),
        "patch_logits_first_20_classes": patch_logits[..., :20],
        "features_at_corners": torch.stack([features[:, row, col] for row, col in corners], dim=1),
    }
    for key, values in found.items():
        assert np.abs(values.numpy() - reference[key]).max() < 1e-4, key


@pytest.mark.parametrize("name", UNPADDED)
@pytest.mark.parametrize("size", [(224, 224), (72, 101)])
def test_patch_run_alone_equals_its_cell(name: str, size: tuple[int, int]) -> None:
    model = procedural_model(name, 7, width=0.25)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((1, 3, *size), dtype=np.float32))
    with torch.inference_mode():
        features = model.features(x)[0]
        grid = make_grid(model.architecture.receptive_field, STRIDE, *size)
        assert features.shape == (grid.rows, grid.cols, model.feature_size)
        for row, col in {(0, 0), (grid.rows - 1, grid.cols - 1), (0, grid.cols - 1), (grid.rows // 2, 1)}:
            x0, y0, x1, y1 = patch_box(grid, row, col)
            alone = model.features(x[:, :, y0:y1, x0:x1])
            assert alone.shape == (1, 1, 1, model.feature_size)
            torch.testing.assert_close(alone[0, 0, 0], features[row, col], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", UNPADDED)
def test_a_patch_sees_its_box_and_nothing_else(name: str) -> None:
    model = procedural_model(name, 3, width=0.25)
    x = torch.zeros((1, 3, 80, 64), requires_grad=True)
    features = model.features(x + 0.1)
    features[0, 2, 1].sum().backward()
    assert x.grad is not None
    seen = torch.nonzero(x.grad.abs().sum(dim=(0, 1)))
    grid = make_grid(model.architecture.receptive_field, STRIDE, 80, 64)
    x0, y0, x1, y1 = patch_box(grid, 2, 1)
    assert (seen.min(0).values.tolist(), seen.max(0).values.tolist()) == ([y0, x0], [y1 - 1, x1 - 1])


def test_forward_is_the_mean_of_patch_logits() -> None:
    model = procedural_model("bagnet9", 4, width=0.25)
    x = torch.rand((2, 3, 40, 48))
    with torch.inference_mode():
        by_hand = torch.stack([model.fc(f.reshape(-1, model.feature_size)).mean(0) for f in model.features(x)])
        torch.testing.assert_close(model(x), by_hand)
