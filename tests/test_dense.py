"""The stride-1 model is the model, patch by patch."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from bagindex.dense import dense_evidence, without_strides
from bagindex.geometry import make_grid
from bagindex.inference import FoldedBagNet, OneDNN, Plain
from bagindex.model import BagNet
from bagindex.registry import ARCHITECTURES, STRIDE
from bagindex_schemas.records import Transform
from test_model import PADDED, SOME, UNPADDED, procedural_model

TRANSFORM = Transform(resize=64, crop_height=43, crop_width=50)


def picture(height: int = 43, width: int = 50) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)


def normalised(pixels: np.ndarray) -> torch.Tensor:
    mean, std = (np.array(values, np.float32) for values in (TRANSFORM.mean, TRANSFORM.std))
    return torch.from_numpy((pixels.astype(np.float32) / 255 - mean) / std).permute(2, 0, 1)[None].contiguous()


def patch_by_patch(model: BagNet, pixels: np.ndarray) -> np.ndarray:
    """Every patch cut out of the padded image and run alone through the unfolded model; [C, height, width]."""
    size = model.architecture.receptive_field
    half = (size - 1) // 2
    padded = torch.nn.functional.pad(normalised(pixels), (half, half, half, half))
    height, width = pixels.shape[:2]
    patches = torch.cat([padded[:, :, y : y + size, x : x + size] for y in range(height) for x in range(width)])
    with torch.inference_mode():
        logits = torch.cat([model(part) for part in patches.split(256)])
    return logits.T.reshape(-1, height, width).numpy()


@pytest.mark.parametrize("name", UNPADDED)
def test_is_patch_by_patch(name: str) -> None:
    model = procedural_model(name, 5, 0.125)
    pixels = picture()
    expected = patch_by_patch(model, pixels)
    found = dense_evidence(model, TRANSFORM, pixels, [0, 1, 2, 3, 4])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", SOME)
@pytest.mark.parametrize("size", [(72, 81), (64, 101)])
def test_holds_the_grid(name: str, size: tuple[int, int]) -> None:
    model = procedural_model(name, 4, 0.25)
    pixels = picture(*size)
    with torch.inference_mode():
        grid = model.fc(model.features(normalised(pixels)))[0].permute(2, 0, 1).numpy()
    q, offset = ARCHITECTURES[name].receptive_field, ARCHITECTURES[name].offset
    shape = make_grid(q, STRIDE, *size, offset)
    dense = dense_evidence(model, TRANSFORM, pixels, [0, 1, 2, 3])
    assert dense.shape == (4, *size)
    p = offset + (q - 1) // 2
    found = dense[:, p : p + 8 * shape.rows : 8, p : p + 8 * shape.cols : 8]
    np.testing.assert_allclose(found, grid, rtol=1e-4, atol=1e-5 * np.abs(grid).max())


@pytest.mark.parametrize("how", [OneDNN, Plain])
@pytest.mark.parametrize("name", SOME)
def test_fused_dilations_are_plain_dilations(name: str, how: type[Plain]) -> None:
    model = procedural_model(name, 3, 0.5)
    folded = FoldedBagNet(model)
    x = normalised(picture()).contiguous(memory_format=torch.channels_last)
    dense = without_strides(folded).to(memory_format=torch.channels_last)
    lost = 0 if ARCHITECTURES[name].padded else ARCHITECTURES[name].receptive_field - 1
    with torch.inference_mode():
        found, plain = dense(x, how), dense(x, Plain)
        strided = folded(x, Plain)
    assert found.shape[1:3] == (43 - lost, 50 - lost)
    torch.testing.assert_close(found, plain, rtol=1e-5, atol=1e-6 * float(plain.max()))
    torch.testing.assert_close(found[:, ::8, ::8], strided, rtol=1e-4, atol=1e-5 * float(strided.max()))


@pytest.mark.parametrize("name", PADDED)
def test_a_padded_model_is_patch_by_patch_where_the_patches_lie_in_the_image(name: str) -> None:
    model = procedural_model(name, 3, 0.125)
    pixels = picture()
    half = (ARCHITECTURES[name].receptive_field - 1) // 2
    image = normalised(pixels)
    found = dense_evidence(model, TRANSFORM, pixels, [0, 1, 2])
    for y, x in [(half, half), (half + 3, half + 5), (42 - half, 49 - half)]:
        # In the middle of a canvas: the cell at 40 pixels sees the patch, and no padding.
        canvas = torch.zeros((1, 3, 81, 81))
        patch = image[:, :, y - half : y + half + 1, x - half : x + half + 1]
        canvas[:, :, 40 - half : 41 + half, 40 - half : 41 + half] = patch
        with torch.inference_mode():
            expected = model.fc(model.features(canvas)[0, 5, 5]).numpy()
        np.testing.assert_allclose(found[:, y, x], expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("name", ["bagnet17", "bagnet17v2"])
def test_tiles_and_choice_of_classes_change_nothing(name: str) -> None:
    model = procedural_model(name, 6, 0.125)
    pixels = picture()
    whole = dense_evidence(model, TRANSFORM, pixels, range(6))
    heard: list[tuple[int, int]] = []
    tiled = dense_evidence(model, TRANSFORM, pixels, [4, 1], tile=(10, 17), progress=lambda *steps: heard.append(steps))
    np.testing.assert_allclose(tiled, whole[[4, 1]], rtol=1e-5, atol=1e-6 * np.abs(whole).max())
    assert heard[0] == (0, 15)
    assert heard[-1] == (15, 15)


def test_an_input_smaller_than_a_patch_still_has_a_patch_around_each_pixel() -> None:
    model = procedural_model("bagnet33", 2, 0.125)
    pixels = picture(9, 12)
    expected = patch_by_patch(model, pixels)
    found = dense_evidence(model, TRANSFORM, pixels, [0, 1])
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())


def test_the_model_itself_keeps_its_strides() -> None:
    folded = FoldedBagNet(procedural_model("bagnet9", 2, 0.125))
    before = [conv.stride for conv in folded.modules() if isinstance(conv, torch.nn.Conv2d)]
    without_strides(folded)
    assert [conv.stride for conv in folded.modules() if isinstance(conv, torch.nn.Conv2d)] == before
    assert (2, 2) in before
