"""Networks to compare with: where they come from, whose classes they have, and what is refused."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from bagindex import fetching, official
from bagindex.errors import LabelError, SettingsError, WeightsError
from bagindex.experiments import networks
from bagindex.experiments.networks import Network, NetworkOptions, open_network, open_networks
from bagindex.labels import imagenet_classes
from bagindex.store import file_sha256
from fakes import class_records
from test_model import procedural_model

models = pytest.importorskip("torchvision.models")
NAMES = ("hat", "shoe", "dress")
SMALL = "shufflenet_v2_x0_5"


def options(names: tuple[str, ...] = NAMES, class_list: str | None = None) -> NetworkOptions:
    return NetworkOptions(class_records(names), class_list)


def small(classes: int = 3, name: str = SMALL) -> nn.Module:
    torch.manual_seed(1)
    module: nn.Module = models.get_model(name, num_classes=classes)
    return module.eval()


def save(module: nn.Module, path: Path, **metadata: str) -> Path:
    save_file({key: value.contiguous() for key, value in module.state_dict().items()}, path, metadata or None)
    return path


def inputs(side: int = 64) -> Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_normal((2, 3, side, side), dtype=np.float32))


def logits(network: Network) -> Tensor:
    with torch.inference_mode():
        return network.logits(inputs())


@pytest.mark.parametrize("name", [SMALL, "squeezenet1_1"])  # a linear layer at the end, and a convolution
def test_a_networks_weights_come_from_a_file_in_the_indexs_order(name: str, tmp_path: Path) -> None:
    module = small(name=name)
    file = save(module, tmp_path / "w.safetensors", classes=json.dumps(["dress", "hat", "shoe"]))
    network = open_network(f"{name}={file}", options())
    assert (network.name, network.published, network.sha256) == (name, False, file_sha256(file))
    assert network.origin == f"{name} with the weights of w.safetensors"
    with torch.inference_mode():
        expected = module(inputs())[:, [1, 2, 0]]
    torch.testing.assert_close(logits(network), expected, rtol=0, atol=0)


def test_a_torch_file_needs_a_class_list(tmp_path: Path) -> None:
    file = tmp_path / "w.pth"
    torch.save(small().state_dict(), file)
    with pytest.raises(LabelError, match="does not name its 3 classes: give --classes FILE"):
        open_network(f"{SMALL}={file}", options())
    (tmp_path / "classes.txt").write_text("shoe\nhat\ndress\n")
    network = open_network(f"{SMALL}={file}", options(class_list=str(tmp_path / "classes.txt")))
    assert network.places == (1, 0, 2)


@pytest.mark.parametrize("theirs", [["hat", "shoe", "skirt"], ["hat", "shoe", "dress", "skirt"]])
def test_other_classes_are_refused(theirs: list[str], tmp_path: Path) -> None:
    file = save(small(len(theirs)), tmp_path / "w.safetensors", classes=json.dumps(theirs))
    with pytest.raises(LabelError, match=r"w.safetensors has . classes, 'hat', .* both must have the same"):
        open_network(f"{SMALL}={file}", options())


def test_a_bagnet_is_compared_with_like_any_network(tmp_path: Path) -> None:
    model = procedural_model("bagnet9", 3, 0.125)
    file = save(model, tmp_path / "b.safetensors", classes=json.dumps(NAMES))
    network = open_network(f"bagnet9={file}", options())
    with torch.inference_mode():
        torch.testing.assert_close(logits(network), model(inputs()), rtol=1e-4, atol=1e-5)
    with pytest.raises(WeightsError, match="those of a bagnet9"):
        open_network(f"bagnet17={file}", options())


def test_a_file_may_say_what_network_it_is_of(tmp_path: Path) -> None:
    names = json.dumps(NAMES)
    said = save(small(), tmp_path / "s.safetensors", classes=names, model=SMALL)
    bare = save(small(), tmp_path / "n.safetensors", classes=names)
    bagnet = save(procedural_model("bagnet9", 3, 0.125), tmp_path / "b.safetensors", classes=names)
    network = open_network(f"mine={said}", options())
    assert (network.name, network.origin) == ("mine", f"{SMALL} with the weights of s.safetensors")
    torch.testing.assert_close(logits(network), logits(open_network(f"{SMALL}={bare}", options())), rtol=0, atol=0)
    assert open_network(f"other={bagnet}", options()).origin == "bagnet9 with the weights of b.safetensors"
    with pytest.raises(SettingsError, match=r"n.safetensors does not say what network it is of: give NAME=FILE"):
        open_network(f"mine={bare}", options())


def test_random_weights_are_the_same_each_time_and_say_so() -> None:
    state = torch.get_rng_state()
    one, other = (open_network(f"random:{SMALL}", options()) for _ in range(2))
    torch.testing.assert_close(logits(one), logits(other), rtol=0, atol=0)
    assert (one.origin, one.published, one.sha256) == (f"{SMALL} with random weights", False, other.sha256)
    assert torch.equal(state, torch.get_rng_state())
    assert open_network("random:bagnet9", options()).logits(inputs()).shape == (2, 3)


def test_inputs_are_normalised_as_the_network_wants_them() -> None:
    network = Network("n", nn.Identity(), (0,), "", "", False, (0.5, 0.25, 0.0), (0.5, 0.25, 2.0))
    pixels = torch.tensor([[[[255, 0, 51]]]], dtype=torch.uint8)
    torch.testing.assert_close(network.normalise(pixels)[0, :, 0, 0], torch.tensor([1.0, -1.0, 0.1]))


def test_published_weights_are_fetched_into_the_folder_of_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of a network that is not among the paper's, too; torchvision says what their file is called."""
    module = small(1000)
    torch.save(module.state_dict(), tmp_path / "w.pth")
    start = file_sha256(tmp_path / "w.pth")[:8]
    weights = models.get_model_weights(SMALL).IMAGENET1K_V1
    published = networks.Published(SMALL, f"{SMALL}-{start}.pth", "https://nowhere.invalid/models")
    monkeypatch.setattr(networks, "_published", lambda name: (published, weights.transforms()))
    monkeypatch.setattr(fetching, "_BACK_OFF", ())
    imagenet = NetworkOptions(imagenet_classes())
    place = official.weights_folder() / published.file
    with pytest.raises(WeightsError) as caught:
        open_network(SMALL, imagenet)
    assert f"bring {place.name} (its SHA-256 begins with {start})" in str(caught.value)
    assert str(caught.value).endswith(f"and put it at {place}")
    (tmp_path / "w.pth").rename(place)
    network = open_network(SMALL, imagenet)
    assert (network.published, network.places) == (True, tuple(range(1000)))
    assert network.origin == f"{SMALL} with torchvision's weights (IMAGENET1K_V1)"
    # Brought by another way, they are the same weights.
    assert open_network(f"{SMALL}={place}", imagenet).published


def test_nothing_is_fetched_for_an_index_of_other_classes() -> None:
    for name in ("vgg16", "bagnet33"):
        with pytest.raises(LabelError, match="has 1000 classes, 'tench'"):
            open_network(name, options())


def test_torchvisions_files_are_those_that_are_known_by_name() -> None:
    from bagindex.registry import NETWORKS, published

    for name in NETWORKS:
        found = networks._published(name)
        assert found is not None
        assert found[0] == published()[name]


def test_old_names_of_densenets_layers() -> None:
    with torch.device("meta"):
        state = models.densenet121(num_classes=2).state_dict()
    old = {re.sub(r"(denselayer\d+\.(?:norm|conv))([12])", r"\1.\2", key): value for key, value in state.items()}
    assert old.keys() != state.keys()
    assert networks._today(old).keys() == networks._today(state).keys() == state.keys()


@pytest.mark.parametrize(
    ("asked", "error", "text"),
    [
        ("resnet51", SettingsError, "no network 'resnet51' to compare with: did you mean 'resnet50' or"),
        ("vgg61", SettingsError, "no network 'vgg61' to compare with: did you mean 'vgg19' or 'vgg16' or"),
        ("nothing", SettingsError, "no network 'nothing' to compare with: the paper's are vgg16, resnet50"),
        ("random:resnet51", SettingsError, "no network 'resnet51'"),
        ("inception_v3", SettingsError, "no network 'inception_v3'"),
        ("mine=/nowhere.pth", WeightsError, "no weights at /nowhere.pth: say where they are, as in mine=FILE"),
        ("vgg16=", SettingsError, "--against takes NAME, NAME=FILE"),
        ("vgg 16", SettingsError, "--against takes NAME, NAME=FILE"),
        ("vgg16=/nowhere.pth", WeightsError, "no weights at /nowhere.pth: say where they are, as in vgg16=FILE"),
    ],
)
def test_what_is_no_network(asked: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        open_network(asked, options())


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    file = save(small(), tmp_path / "w.safetensors", classes=json.dumps(NAMES))
    with pytest.raises(WeightsError, match=r"these weights are no resnet18: bn1.bias is missing"):
        open_network(f"resnet18={file}", options())
    with pytest.raises(WeightsError, match=r"w.safetensors is no vgg16: classifier.6.weight is missing"):
        open_network(f"vgg16={file}", options())


def test_two_networks_of_one_name(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="two networks are called 'vgg16'"):
        open_networks(["vgg16", "random:vgg16"], options())


def test_inputs_that_a_network_cannot_take() -> None:
    network = Network("five", nn.Conv2d(5, 3, 1), (0, 1, 2), "", "", False)
    with pytest.raises(SettingsError, match=r"five cannot take inputs of 64 × 64 pixels: .* 5, "):
        network.logits(inputs())


@pytest.mark.parametrize(("asked", "extra"), [("vgg16", "reproduce"), ("timm:vit", "timm")])
def test_what_is_not_installed_is_named(asked: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("torchvision", "timm"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(SettingsError, match=re.escape(f"pip install 'bagindex[{extra}]'")):
        open_network(asked, options())


class _Timm(ModuleType):
    """What timm offers, as far as it is used."""

    def __init__(self, online: bool) -> None:
        super().__init__("timm")
        self.online = online

    def is_model(self, name: str) -> bool:
        return name == "tiny.a1"

    def list_models(self, pattern: str) -> list[str]:
        return ["tiny.a1"] if pattern == "*tiny*" else []

    def create_model(self, name: str, pretrained: bool = False, num_classes: int = 1000) -> nn.Module:
        if pretrained and not self.online:
            raise OSError("no route to host")
        module = small(num_classes)
        module.pretrained_cfg = SimpleNamespace()  # type: ignore[assignment]
        module.pretrained_cfg = {"num_classes": num_classes, "mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}  # type: ignore[assignment]
        return module


def test_a_network_of_timms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", _Timm(online=True))
    network = open_network("timm:tiny.a1", NetworkOptions(imagenet_classes()))
    assert (network.name, network.mean, network.published) == ("tiny.a1", (0.5, 0.5, 0.5), False)
    file = save(small(), tmp_path / "w.safetensors", classes=json.dumps(NAMES))
    network = open_network(f"timm:tiny.a1={file}", options())
    assert (network.sha256, network.mean) == (file_sha256(file), (0.5, 0.5, 0.5))
    with pytest.raises(SettingsError, match=r"timm has no network 'tiny.a2': it has 'tiny.a1'"):
        open_network("timm:tiny.a2", options())
    monkeypatch.setitem(sys.modules, "timm", _Timm(online=False))
    with pytest.raises(WeightsError, match=r"no route to host; bring its state dict as a file, and give timm:tiny"):
        open_network("timm:tiny.a1", options())
