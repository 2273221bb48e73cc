"""Textures: statistics that are reached, and what is told of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bagindex import Index
from bagindex.errors import QueryError, SettingsError
from bagindex.experiments import texturise
from bagindex.experiments.judging import right
from bagindex.experiments.networks import Network
from bagindex.experiments.textures import Statistics, distance, gram, synthesise, texture_layers
from bagindex.experiments.texturise import choose

models = pytest.importorskip("torchvision.models")
CPU = torch.device("cpu")


class Small(nn.Module):
    """Built like a VGG."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.features = nn.Sequential(
            *(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
            *(nn.Conv2d(8, 16, 3, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(2)),
        )
        self.classifier = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x).mean(dim=(2, 3)))


def network(module: nn.Module | None = None, name: str = "small", published: bool = False) -> Network:
    module = (module or Small()).eval().requires_grad_(False)
    return Network(name, module, (0, 1, 2), "", f"{name} with weights", published)


def picture() -> np.ndarray:
    """Stripes of two colours."""
    pixels = np.zeros((24, 24, 3), np.uint8)
    pixels[:, ::4], pixels[:, 1::4] = (220, 40, 30), (220, 40, 30)
    pixels[:, 2::4], pixels[:, 3::4] = (20, 60, 200), (20, 60, 200)
    return pixels


def test_correlations_of_channels_by_hand() -> None:
    features = torch.tensor([[[1.0, 2.0], [0.0, 3.0]], [[2.0, 0.0], [1.0, 1.0]]])
    assert gram(features).tolist() == [[14 / 4, 5 / 4], [5 / 4, 6 / 4]]
    one, twice = gram(features), 2 * gram(features)
    assert float(distance([one], [one])) == 0
    assert float(distance([twice], [one])) == pytest.approx(1)
    # Each layer counts alike, whatever the scale of its features.
    assert float(distance([twice, 100 * one], [one, 100 * one])) == pytest.approx(0.5)


def test_places_do_not_count() -> None:
    features = torch.rand(5, 6, 7, generator=torch.Generator().manual_seed(1))
    moved = features.flatten(1)[:, torch.randperm(42)].reshape(5, 7, 6)
    torch.testing.assert_close(gram(moved), gram(features))


def test_layers_of_vggs_and_resnets() -> None:
    with torch.device("meta"):
        assert texture_layers(models.vgg16()) == (
            "features.1",
            "features.4",
            "features.9",
            "features.16",
            "features.23",
        )
        assert texture_layers(models.vgg11_bn())[:2] == ("features.2", "features.3")
        assert texture_layers(models.resnet18()) == ("relu", "layer1", "layer2", "layer3")
        for other in (models.densenet121(), nn.Linear(3, 3)):
            with pytest.raises(SettingsError, match=f"not with a {type(other).__name__}"):
                texture_layers(other)


def test_a_texture_has_the_images_statistics_and_not_its_places() -> None:
    maker, pixels = network(), picture()
    seen: list[tuple[int, int]] = []
    texture = synthesise(maker, pixels, 60, 5, CPU, lambda *steps: seen.append(steps))
    losses = texture.losses
    assert (np.diff(losses) <= 1e-9).all()
    assert losses[-1] < 0.02 * losses[0]
    assert seen[-1] == (len(losses) - 1, 60)
    assert (texture.pixels.shape, texture.pixels.dtype) == (pixels.shape, np.uint8)
    assert np.abs(texture.pixels.astype(int) - pixels).mean() > 20
    # What is claimed of the pixels that are given back, rounded as they are.
    with torch.no_grad(), Statistics(maker.module, texture_layers(maker.module)) as statistics:
        found, wanted = (statistics(maker.normalise(torch.from_numpy(each)[None])) for each in (texture.pixels, pixels))
    assert float(distance(found, wanted)) == pytest.approx(losses[-1], rel=0.2, abs=1e-3)
    again = synthesise(maker, pixels, 60, 5, CPU)
    np.testing.assert_array_equal(again.pixels, texture.pixels)
    assert not np.array_equal(synthesise(maker, pixels, 3, 6, CPU).pixels, synthesise(maker, pixels, 3, 5, CPU).pixels)


def test_the_network_is_as_it_was_afterwards() -> None:
    maker = network()
    synthesise(maker, picture(), 2, 0, CPU)
    assert maker.logits(torch.zeros(1, 3, 24, 24)).shape == (1, 3)


def test_the_papers_network_goes_first() -> None:
    resnet, vgg, linear = network(models.resnet18(), "resnet18"), network(name="vgg16"), network(nn.Linear(1, 1), "l")
    assert choose([resnet, vgg]) is vgg
    assert choose([linear, resnet]) is resnet
    with pytest.raises(SettingsError, match="not with a Linear"):
        choose([linear])


def test_what_is_right_of_logits() -> None:
    logits = np.array([[3, 2, 1], [1, 1, 0], [0, 5, 9]], np.float32)
    assert right(logits, np.array([0, 1, -1]), 1) == 0.5  # of equal ones the first counts
    assert right(logits, np.array([0, 1, -1]), 2) == 1
    assert right(logits, np.array([-1, -1, -1]), 1) is None


def test_texturising_images_of_an_index(planted_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(texturise, "STEPS", 2)
    torch.manual_seed(0)
    names = [record.name for record in planted_index.classes]
    file, out = tmp_path / "r.safetensors", tmp_path / "out"
    save_file(dict(models.resnet18(num_classes=len(names)).state_dict()), file, {"classes": json.dumps(names)})
    with pytest.raises(QueryError, match="texture synthesis needs a network to compare with"):
        planted_index.reproduce("texturise", out)
    (outcome,) = planted_index.reproduce("texturise", out, against=[f"resnet18={file}"], limit=2, device="cpu").outcomes
    table = {row["network"]: row for row in outcome.tables["texturise"].to_pylist()}
    assert list(table) == ["bagnet33", "resnet18"]
    assert (table["bagnet33"]["images"], table["bagnet33"]["labelled"]) == (2, 2)
    sql = "SELECT avg(CASE WHEN correct THEN 1 ELSE 0 END) AS top1 FROM predictions WHERE image_id IN (0, 24)"
    assert table["bagnet33"]["top1_before"] == planted_index.sql(sql).to_dicts()[0]["top1"]
    images = outcome.tables["images"].to_pylist()
    assert [row["image_id"] for row in images] == [0, 24]
    assert all(row["last_loss"] < row["first_loss"] for row in images)
    assert len(outcome.tables["losses"]) == sum(row["steps"] + 1 for row in images)
    before, after = outcome.beside
    assert (before.paper, after.paper, before.comparable) == (90.1, 79.4, False)
    assert "not VGG-16" in before.why
    assert before.ours == 100 * table["resnet18"]["top5_before"]
    assert {path.name for path in out.glob("*.png")} == {"texturise.png", "texturise-losses.png"}
