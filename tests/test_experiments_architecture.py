"""What networks are made of, as it is measured, against what is known of them."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from bagindex import Index
from bagindex.errors import SettingsError
from bagindex.experiments.architecture import blind_beyond, describe, stages
from bagindex.experiments.layers import Layer, probe
from bagindex.geometry import make_grid
from bagindex.model import BagNet
from bagindex.models.bags import Folded
from bagindex.registry import ARCHITECTURES
from test_model import NAMES, procedural_model


class Residual(nn.Module):
    """Two convolutions around a shortcut, a pool, and a linear layer: what each sees is easily told."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(4)
        self.second = nn.Conv2d(4, 4, 5, padding=2)
        self.pool = nn.MaxPool2d(2)
        self.last = nn.Linear(4, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.first(x)))
        x = self.pool(torch.relu(x + self.second(x)))
        return self.last(x.mean(dim=(2, 3)))


def test_layers_by_hand() -> None:
    first, second, pool, last = probe(Residual, 21, 31)
    assert first == Layer("first", "3 × 3", 2, 4, 10, 15, 2, 3, 4 * 27 + 8, 2 * 27 * 4 * 150)
    assert second == Layer("second", "5 × 5", 1, 4, 10, 15, 2, 11, 4 * 100 + 4, 2 * 100 * 4 * 150)
    assert pool == Layer("pool", "maximum of 2 × 2", 2, 4, 5, 7, 4, 13, 0, 0)
    assert last == Layer("last", "linear", 1, 7, 1, 1, None, None, 35, 2 * 4 * 7)


@pytest.mark.parametrize(
    ("name", "parameters", "side"),
    [("bagnet9", 15_688_744, 27), ("bagnet17", 16_213_032, 26), ("bagnet33", 18_310_184, 24)],
)
def test_bagnets_see_what_they_are_named_for(name: str, parameters: int, side: int) -> None:
    found = describe(name)
    assert (found.field, found.parameters) == (ARCHITECTURES[name].receptive_field, parameters)
    assert 34e9 < found.flops < 35e9
    last = found.layers[-1]
    assert (last.name, last.kind, last.rows, last.cols, last.step) == ("fc", "linear", side, side, 8)
    assert [layer.kind for layer in found.layers].count("3 × 3") == 1 + ARCHITECTURES[name].layers_with_3x3
    assert f"{parameters:,} parameters, " in found.words


@pytest.mark.parametrize(("name", "field"), [("vgg11", 150), ("resnet18", 435), ("squeezenet1_1", None)])
def test_networks_of_torchvisions_against_what_it_says_of_them(name: str, field: int | None) -> None:
    weights = pytest.importorskip("torchvision.models").get_model_weights(name).IMAGENET1K_V1
    found = describe(name)
    assert found.parameters == weights.meta["num_params"]
    # It counts a multiplication and an addition as one, and norms and biases besides.
    assert found.flops / 2e9 == pytest.approx(weights.meta["_ops"], rel=0.01)
    if field is not None:
        assert found.field == field


def test_narrow_models_see_the_same() -> None:
    found = probe(lambda: BagNet(ARCHITECTURES["bagnet17"], 3, 0.25), 72, 96)
    assert (found[-1].field, found[-1].step, found[-1].rows, found[-1].cols) == (17, 8, 7, 10)
    padded = probe(lambda: BagNet(ARCHITECTURES["bagnet17v2"], 3, 0.25), 72, 96)
    assert (padded[-1].field, padded[-1].step, padded[-1].rows, padded[-1].cols) == (17, 8, 9, 12)


@pytest.mark.parametrize("name", NAMES)
def test_patches_see_their_boxes_and_nothing_else(name: str) -> None:
    model = procedural_model(name, 3, width=0.25)
    field, offset = model.architecture.receptive_field, model.architecture.offset
    # The residuals of one that pads are those of the middle, of the others those of a corner: edges count for less.
    least = 1e-5 if model.architecture.padded else 1e-3
    for seed in range(3):
        beyond, within = blind_beyond(Folded(model), make_grid(field, 8, 72, 80, offset), (72, 80), seed)
        assert beyond < least / 10 < least < within


def test_what_cannot_be_probed() -> None:
    with pytest.raises(SettingsError, match="no network 'bagnet8'"):
        describe("bagnet8")
    with pytest.raises(SettingsError, match="does not take inputs of 20 × 20 pixels"):
        describe("bagnet33", size=20)
    with pytest.raises(SettingsError, match="only convolutional networks can be probed"):
        describe("vit_b_16")

    class Halves(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            one, other = x.chunk(2, dim=1)
            return one * other

    with pytest.raises(SettingsError, match="what the layers see cannot be probed"):
        probe(lambda: nn.Sequential(nn.Conv2d(3, 6, 3), Halves()), 8, 8)


def test_stages_of_a_bagnet() -> None:
    found = {stage.name: stage.lines for stage in stages(describe("bagnet17", classes=10).layers)}
    assert list(found) == ["stem", "layer1", "layer2", "layer3", "layer4", "fc"]
    assert found["layer3"][:2] == ("1 × 1, 3 × 3, 1 × 1", "5 × (1 × 1, 1 × 1, 1 × 1)")
    assert found["layer4"][-2] == "sees 17 × 17 pixels"


def test_the_architecture_of_an_indexs_model(planted_index: Index, tmp_path: Path) -> None:
    (outcome,) = planted_index.reproduce("architecture", tmp_path).outcomes
    rows = outcome.tables["architecture"].to_pylist()
    (model,) = planted_index.info().models
    assert sum(row["parameters"] for row in rows) == model.record.parameters
    assert (rows[-1]["rows"], rows[-1]["field"]) == (model.record.grid.rows, 33)
    field, beyond, within = outcome.beside
    assert (field.paper, field.ours, field.comparable) == (33, 33, True)
    assert beyond.ours is not None
    assert within.ours is not None
    assert beyond.ours < 1e-5 < within.ours
    assert (tmp_path / "architecture.png").is_file()


def test_the_command_prints_the_layers(run) -> None:  # type: ignore[no-untyped-def]
    result = run("model", "bagnet9", "--size", 64, "--classes", 10)
    assert result.status == 0
    lines = result.out.splitlines()
    assert re.match(r"bagnet9 at 64 × 64 pixels: 13,660,234 parameters, .* cells that see 9 × 9 pixels", lines[0])
    assert lines[-1].split() == ["fc", "linear", "1", "10", "×", "7", "×", "7", "8", "9", "20490", "2"]
    rows = json.loads(run("model", "bagnet9", "--size", 64, "--format", "json").out)
    assert (rows[-1]["field"], rows[-1]["channels"]) == (9, 1000)
    refused = run("model", "bagnet10")
    assert (refused.status, refused.out) == (1, "")
    assert refused.err.startswith("bagindex: there is no network 'bagnet10' to compare with")
