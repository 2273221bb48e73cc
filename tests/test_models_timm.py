"""Networks of timm's as models of an index: which are bags of patches, and what is said of the others."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import own_models
from bagindex import Index
from bagindex.errors import SettingsError, WeightsError
from bagindex.models.checking import check
from bagindex.models.finding import find
from bagindex.models.from_timm import make
from test_models import opened, picture, pictures  # noqa: F401  # a fixture


class Small(nn.Module):
    """Built as timm builds networks, its last norm at zero as in fresh ones; a patch sees 12 pixels, 4 apart."""

    def __init__(self, padding: int = 0) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 4, stride=4, padding=padding)
        self.branch = nn.Sequential(nn.Conv2d(8, 8, 3, padding=0), nn.BatchNorm2d(8))
        nn.init.zeros_(self.branch[1].weight)
        self.head = nn.Module()
        self.head.fc = nn.Linear(8, 3)
        self.pretrained_cfg = {"input_size": (3, 40, 44), "mean": (0.5, 0.5, 0.5), "std": (0.2, 0.2, 0.2)}

    def forward_features(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        return x[:, :, 1:-1, 1:-1] + self.branch(x)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.head.fc(self.forward_features(x).mean(dim=(2, 3)))  # type: ignore[operator]
        return found

    def get_classifier(self) -> nn.Module:
        found = self.head.fc
        assert isinstance(found, nn.Module)
        return found


class Global(Small):
    """Weighs patches by the whole image."""

    def forward_features(self, x: Tensor) -> Tensor:
        found = super().forward_features(x)
        return found * torch.sigmoid(found.mean(dim=(2, 3), keepdim=True))


class Flat(Small):
    """Has no grid, as transformers."""

    def forward_features(self, x: Tensor) -> Tensor:
        return super().forward_features(x).flatten(2)


class Deeper(Small):
    """Has a layer between its features and its linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.head.fc = nn.Linear(5, 3)


class Headed(Small):
    """Ends in no linear layer."""

    def get_classifier(self) -> nn.Module:
        return nn.Identity()


class Oblong(Small):
    """Looks further down than to the side."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, (5, 4), stride=4)


KINDS = {"small": Small, "global": Global, "flat": Flat, "deeper": Deeper, "headed": Headed, "oblong": Oblong}


class Timm(ModuleType):
    """What timm offers, as far as it is used; its weights are fetched where it is `online`."""

    online = True

    def is_model(self, name: str) -> bool:
        return name.partition(".")[0] in KINDS

    def list_models(self, pattern: str) -> list[str]:
        return [name for name in KINDS if pattern.strip("*") in name]

    def create_model(self, name: str, pretrained: bool = False) -> nn.Module:
        if pretrained and not self.online:
            raise OSError("no route to host")
        torch.manual_seed(int(pretrained))
        network = KINDS[name.partition(".")[0]]()
        if pretrained:
            nn.init.ones_(network.branch[1].weight)
        return network


@pytest.fixture(autouse=True)
def timm(monkeypatch: pytest.MonkeyPatch) -> Timm:
    """Instead of timm, if that is installed."""
    found = Timm("timm")
    monkeypatch.setitem(sys.modules, "timm", found)
    return found


@pytest.mark.parametrize("pretrained", [True, False])
def test_patches_are_measured_whatever_the_weights(pretrained: bool) -> None:
    model = make("small.a1", pretrained)
    assert (model.name, model.receptive_field, model.stride, model.offset) == ("timm-small-a1", 12, 4, 0)
    assert (model.resize, model.crop, model.classes) == (46, (40, 44), None)
    grid = check(model)
    assert (grid.rows, grid.cols) == (8, 9)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("global", "a cell in the middle of its 8 x 9 sees rows 0 to 40 and columns 0 to 44 of an input of 40 x 44"),
        ("flat", "its features should be [N, D, rows, cols], and are [2, 8, 72]"),
        ("deeper", "other layers between its features and the linear one"),
        ("headed", "it has no linear layer behind its features"),
        ("oblong", "has patches that are no squares"),
        ("glob", "timm has no network 'glob': it has 'global'"),
    ],
)
def test_a_network_that_is_no_bag_of_patches_is_refused(name: str, message: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)):
        find(f"timm:{name}").make()


def test_an_index_of_one(pictures: Path, tmp_path: Path, timm: Timm) -> None:  # noqa: F811
    classes = tmp_path / "classes.txt"
    classes.write_text("\n".join(own_models.CLASSES))
    index = Index.build(pictures, model="timm:small", classes=classes, out=tmp_path / "i", device="cpu")
    record = index.model_records()[0]
    assert (record.name, record.plugin and record.plugin.asked) == ("timm-small", "timm:small")
    assert index.verify().ok
    # It is run again by the index's own weights, for which timm fetches nothing.
    timm.online = False
    network = Timm("timm").create_model("small", True).eval()
    pixels = np.array(index.input_of(picture()), np.float32)
    image = (torch.from_numpy(pixels).permute(2, 0, 1)[None] / 255 - 0.5) / 0.2
    with torch.inference_mode():
        expected = network(image)[0].numpy()
    np.testing.assert_allclose(index.heatmap(picture(), classes=[0, 1, 2]).logits, expected, atol=1e-5)


def test_weights_that_cannot_be_fetched_are_to_be_brought(tmp_path: Path, timm: Timm) -> None:
    timm.online = False
    with pytest.raises(WeightsError, match=r"no route to host; bring .* --model timm:small --weights FILE"):
        find("timm:small").make()
    network = timm.create_model("small")
    save_file(network.state_dict(), tmp_path / "w.safetensors", {"classes": '["a", "b", "c"]'})
    (compute,) = opened("timm:small", weights=(tmp_path / "w.safetensors",))
    assert [each.name for each in compute.classes] == ["a", "b", "c"]
    assert compute.run(np.zeros((1, 40, 44, 3), np.uint8)).logits.shape == (1, 3)
    (tmp_path / "again.safetensors").write_bytes(compute.to_safetensors())
    (again,) = opened("timm:small", weights=(tmp_path / "again.safetensors",))
    assert again.weights_sha256 == compute.weights_sha256
