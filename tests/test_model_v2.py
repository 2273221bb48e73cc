"""BagNets v2 against another writing of them, and what their padding makes of patches."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, relu

from bagindex import Index
from bagindex.errors import WeightsError
from bagindex.geometry import alone, is_whole, make_grid, patch_box, patch_pixels, whole_box
from bagindex.model import BagNet
from bagindex.official import fetch
from bagindex.registry import ARCHITECTURES, STRIDE
from bagindex.weights import pack, read_checkpoint
from bagindex_schemas.records import Grid, IndexManifest, Transform
from test_model import PADDED, procedural, procedural_model

KERNELS = {"bagnet9v2": (3, 3, 1, 1), "bagnet17v2": (3, 3, 3, 1), "bagnet33v2": (3, 3, 3, 3)}
"""Of the first block of each of the four layers."""


def by_hand(state: Mapping[str, Tensor], kernels: tuple[int, ...], x: Tensor) -> tuple[Tensor, set[str]]:
    """What weights of a BagNet v2 make of normalised images by torch's plain functions, [N, D, rows, cols]; and their
    keys that were used.
    """
    used = set()

    def convolve(x: Tensor, key: str, stride: int = 1) -> Tensor:
        used.add(f"{key}.weight")
        weight = state[f"{key}.weight"]
        return conv2d(x, weight, stride=stride, padding=(weight.shape[-1] - 1) // 2)

    def normalise(x: Tensor, key: str) -> Tensor:
        parts = [f"{key}.{part}" for part in ("running_mean", "running_var", "weight", "bias")]
        used.update(parts)
        return batch_norm(x, *(state[part] for part in parts))

    x = relu(normalise(convolve(x, "conv1"), "bn1"))
    for layer, (blocks, stride, kernel) in enumerate(zip((3, 4, 6, 3), (2, 2, 2, 1), kernels, strict=True), start=1):
        for number in range(blocks):
            key, step = f"layer{layer}.{number}", stride if number == 0 else 1
            assert state[f"{key}.conv2.weight"].shape[-1] == (kernel if number == 0 else 1)
            out = relu(normalise(convolve(x, f"{key}.conv1"), f"{key}.bn1"))
            out = relu(normalise(convolve(out, f"{key}.conv2", step), f"{key}.bn2"))
            out = normalise(convolve(out, f"{key}.conv3"), f"{key}.bn3")
            if number == 0:
                x = normalise(convolve(x, f"{key}.downsample.0", step), f"{key}.downsample.1")
            x = relu(x + out)
    return x, used


@pytest.mark.parametrize("name", PADDED)
@pytest.mark.parametrize("size", [(224, 224), (61, 90)])
def test_is_what_its_authors_define(name: str, size: tuple[int, int]) -> None:
    model = procedural_model(name, 5, width=0.25)
    x = procedural("input", (2, 3, *size)) - 0.5
    state = model.state_dict()
    with torch.inference_mode():
        expected, used = by_hand(state, KERNELS[name], x)
        found = model.features(x)
        torch.testing.assert_close(found.permute(0, 3, 1, 2), expected, rtol=1e-5, atol=1e-5)
        pooled = expected.mean(dim=(2, 3)) @ state["fc.weight"].T + state["fc.bias"]
        torch.testing.assert_close(model(x), pooled, rtol=1e-4, atol=1e-5)
    assert {key for key in state if not key.endswith("tracked")} == used | {"fc.weight", "fc.bias"}
    grid = make_grid(ARCHITECTURES[name].receptive_field, STRIDE, *size, ARCHITECTURES[name].offset)
    assert found.shape[1:3] == (grid.rows, grid.cols) == (-(-size[0] // 8), -(-size[1] // 8))


def test_has_as_many_parameters_as_its_authors() -> None:
    """Theirs have one 3 × 3 convolution of 3 channels where a BagNet has a 1 × 1 and a 3 × 3 one of 64."""
    first = 3 * 64 * 9 - (3 * 64 + 64 * 64 * 9)
    for name, parameters in (("bagnet9v2", 15_688_744), ("bagnet17v2", 16_213_032), ("bagnet33v2", 18_310_184)):
        with torch.device("meta"):
            model = BagNet(ARCHITECTURES[name], 1000)
        assert sum(each.numel() for each in model.parameters()) == parameters + first


@pytest.mark.parametrize("name", PADDED)
def test_a_padded_models_patch_sees_its_box_and_nothing_else(name: str) -> None:
    model = procedural_model(name, 3, width=0.25)
    grid = make_grid(ARCHITECTURES[name].receptive_field, STRIDE, 80, 64, ARCHITECTURES[name].offset)
    for row, col in [(0, 0), (5, 3), (9, 7), (0, 4)]:
        x = torch.zeros((1, 3, 80, 64), requires_grad=True)
        model.features(x + 0.1)[0, row, col].sum().backward()
        assert x.grad is not None
        seen = torch.nonzero(x.grad.abs().sum(dim=(0, 1)))
        x0, y0, x1, y1 = patch_box(grid, row, col)
        assert (seen.min(0).values.tolist(), seen.max(0).values.tolist()) == ([y0, x0], [y1 - 1, x1 - 1])


@pytest.mark.parametrize("name", PADDED)
def test_a_padded_models_patch_run_alone_equals_its_cell(name: str) -> None:
    model = procedural_model(name, 3, width=0.25)
    q = ARCHITECTURES[name].receptive_field
    grid = make_grid(q, STRIDE, 80, 64, ARCHITECTURES[name].offset)
    place, cell, cols = alone(grid)
    x = procedural("input", (1, 3, 80, 64)) - 0.5
    with torch.inference_mode():
        features = model.features(x)[0]
        for row, col in [(2, 2), (5, 3), (7, 5)]:
            assert is_whole(grid, row, col)
            x0, y0, x1, y1 = patch_box(grid, row, col)
            canvas = torch.full((1, 3, place + q, place + q), 3.0)
            canvas[:, :, place:, place:] = x[:, :, y0:y1, x0:x1]
            found = model.features(canvas)[0]
            assert found.shape[:2] == (cols, cols)
            torch.testing.assert_close(found[cell, cell], features[row, col], rtol=1e-4, atol=1e-5)


def test_boxes_end_where_the_input_does() -> None:
    grid = make_grid(33, 8, 224, 224, -16, (1, 2, 3))
    assert (grid.rows, grid.cols, grid.offset) == (28, 28, -16)
    assert whole_box(grid, 0, 27) == (200, -16, 233, 17)
    assert patch_box(grid, 0, 27) == (200, 0, 224, 17)
    whole = [(row, col) for row in range(28) for col in range(28) if is_whole(grid, row, col)]
    assert whole[0] == (2, 2)
    assert len(whole) == 24 * 24
    pixels = np.random.default_rng(0).integers(4, 256, (224, 224, 3), np.uint8)
    shown = patch_pixels(pixels, grid, 0, 27)
    assert shown.shape == (33, 33, 3)
    assert (shown[16:, :24] == pixels[:17, 200:]).all()
    assert (shown[:16] == (1, 2, 3)).all()
    assert (shown[:, 24:] == (1, 2, 3)).all()
    assert (patch_pixels(pixels, grid, 2, 3) == pixels[0:33, 8:41]).all()


def test_a_patch_wider_than_the_input_stands_in_the_middle_of_its_padding() -> None:
    grid = make_grid(33, 8, 9, 12, -16, (1, 2, 3))
    pixels = np.full((9, 12, 3), 200, np.uint8)
    shown = patch_pixels(pixels, grid, 1, 0)
    assert patch_box(grid, 1, 0) == (0, 0, 12, 9)
    assert (shown[8:17, 16:28] == 200).all()
    assert (shown == 200).sum() == 3 * 9 * 12


def test_weights_say_which_they_are(tmp_path: Path) -> None:
    for name in PADDED:
        path = tmp_path / f"{name}.safetensors"
        transform = Transform(resize=9, crop_height=9, crop_width=9)
        state = procedural_model(name, 2, 0.0625).state_dict()
        path.write_bytes(pack(state, ARCHITECTURES[name], ["a", "b"], transform))
        assert read_checkpoint(path).architecture.name == name
    torch.save(procedural_model("bagnet9v2", 3, 0.0625).state_dict(), tmp_path / "bagnet9_imagenet_pretrained.pt")
    assert read_checkpoint(tmp_path / "bagnet9_imagenet_pretrained.pt", "bagnet9v2").class_count == 3
    with pytest.raises(WeightsError, match="--model says bagnet9, but the weights are those of a bagnet9v2"):
        read_checkpoint(tmp_path / "bagnet9_imagenet_pretrained.pt", "bagnet9")


def test_weights_without_an_address_are_to_be_brought() -> None:
    with pytest.raises(WeightsError, match=r"bring them from https://github.com/berenslab/bagnetsv2, and give --wei"):
        fetch("bagnet33v2")


@pytest.fixture(scope="module")
def v2_index(padded: Path) -> Iterator[Index]:
    with Index.open(padded) as found:
        yield found


def test_an_index_of_a_padded_model_is_what_it_should_be(v2_index: Index) -> None:
    grid = v2_index.model_records()[0].grid
    assert (grid.rows, grid.cols, grid.offset) == (12, 14, -8)
    report = v2_index.verify()
    assert report.problems == []
    assert next(check.checked for check in report.checks if "alone" in check.name)


def test_a_padded_models_patches_have_boxes_and_pictures_that_agree(v2_index: Index) -> None:
    rows = v2_index.sql('SELECT DISTINCT "row", col, x0, y0, x1, y1 FROM evidence').to_dicts()
    grid = v2_index.model_records()[0].grid
    assert len(rows) == grid.patches
    for row in rows:
        assert (row["x0"], row["y0"], row["x1"], row["y1"]) == patch_box(grid, row["row"], row["col"])
    heatmap = v2_index.heatmap(0)
    assert heatmap.boxes()[0, 0].tolist() == [0, 0, 9, 9]
    assert heatmap.boxes()[-1, -1].tolist() == [96, 80, 112, 96]
    assert heatmap.figure() is not None
    assert v2_index.patch_pixels(0).shape == (17, 17, 3)
    assert (v2_index.patch_pixels(0)[0, 0] == (124, 116, 104)).all()  # the mean colour
    assert (v2_index.patch_pixels(0)[8:, 8:] == v2_index.pixels(0)[:9, :9]).all()
    patches = v2_index.top_patches(0, k=5)
    assert {crop.shape for crop in patches.crops()} == {(17, 17, 3)}
    found = v2_index.similar(image=0, at=(1, 22))  # where the input begins in the picture
    assert (found.asked.row, found.asked.col, found.asked.box) == (0, 0, (0, 0, 9, 9))


def test_a_dense_heatmap_of_a_padded_model_holds_the_grid(v2_index: Index) -> None:
    dense, grid = v2_index.heatmap(3, dense=True), v2_index.heatmap(3)
    assert dense.values.shape[1:] == (96, 112)
    np.testing.assert_allclose(dense.values[:, ::8, ::8], grid.values, rtol=2e-3, atol=2e-3 * np.abs(grid.values).max())


def test_pictures_of_a_padded_model_can_be_drawn(v2_index: Index, tmp_path: Path) -> None:
    for number, answer in enumerate(
        (v2_index.heatmap(3), v2_index.explain(3), v2_index.why(3), v2_index.top_patches(0, k=3), v2_index.figure3([0]))
    ):
        answer.save(tmp_path / f"{number}.png")
        assert (tmp_path / f"{number}.png").stat().st_size > 1000


def test_what_an_index_says_of_models_that_do_not_pad_is_as_before(planted_index: Index) -> None:
    written = json.loads((planted_index.path / "index.json").read_text())["models"]["bagnet33"]
    before = {"receptive_field": 33, "stride": 8, "rows": 16, "cols": 16}
    assert written["grid"] == before
    read = Grid.model_validate(before)
    assert (read.offset, read.padding) == (0, None)
    assert patch_box(read, 15, 0) == whole_box(read, 15, 0) == (0, 120, 33, 153)


def test_what_an_index_says_of_padding_is_checked(v2_index: Index) -> None:
    text = (v2_index.path / "index.json").read_text()
    manifest = json.loads(text)
    del manifest["record_sha256"]
    IndexManifest.model_validate(manifest)
    for key, value, message in (
        ("offset", -17, "do not lie in the input"),
        ("rows", 14, "do not lie in the input"),
        ("padding", {"height": 96, "width": 96, "colour": [0, 0, 0]}, "pads another input"),
        ("padding", None, "do not lie in the input"),
    ):
        changed = json.loads(json.dumps(manifest))
        changed["models"]["bagnet17v2"]["grid"][key] = value
        with pytest.raises(ValidationError, match=message):
            IndexManifest.model_validate(changed)
