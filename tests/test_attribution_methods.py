"""Attribution methods: what is asked for, what they do to networks, and facts that hold of them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from bagindex.attribution import methods
from bagindex.attribution.method import Method, Request
from bagindex.attribution.methods import METHODS, find, parse, split
from bagindex.attribution.plain import PlainNetwork, plain
from bagindex.errors import AttributionError
from bagindex.experiments.networks import network_module
from bagindex.model import BagNet
from bagindex.models.bags import Folded
from test_model import procedural, procedural_model

SIDE = 25


def inputs(count: int = 2, side: int = SIDE) -> Tensor:
    """Images with something in them."""
    return 4 * (procedural("input", (count, 3, side, side)) - 0.5)


def without_biases(model: BagNet) -> BagNet:
    """A BagNet whose layers add nothing of their own."""
    for name, values in model.state_dict().items():
        if name.endswith(("running_mean", "bias")):
            values.zero_()
    return model


class Shared(nn.Module):
    """A rectifier that works in place, and is in two places."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two, self.fc = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 5, 3), nn.Linear(5, 3)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.relu(self.two(self.relu(self.one(x)))).mean((2, 3)))  # type: ignore[no-any-return]


def networks() -> dict[str, nn.Module]:
    """BagNets as they are defined and as they are run, another network, and one that is hard to take hold of."""
    torch.manual_seed(1)
    other = network_module("resnet18", 3).eval()
    for each in other.modules():
        if isinstance(each, nn.BatchNorm2d) and each.running_mean is not None and each.running_var is not None:
            each.running_mean.normal_(0, 0.1)
            each.running_var.uniform_(0.5, 1.5)
    bagnet = procedural_model("bagnet9", 3, 0.125)
    return {"bagnet": bagnet, "folded": Folded(bagnet), "resnet18": other, "shared": Shared().eval()}


@pytest.fixture(scope="module")
def all_networks() -> dict[str, nn.Module]:
    return networks()


def changes(network: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """By how much the logits are beyond those of the mean colour."""
    with torch.no_grad():
        return (network(x) - network(torch.zeros_like(x))).gather(1, classes[:, None])[:, 0]


@pytest.mark.parametrize("name", ["bagnet", "folded", "resnet18", "shared"])
def test_deeplift_adds_up_to_what_the_logit_is_beyond_the_baselines(
    name: str, all_networks: dict[str, nn.Module]
) -> None:
    """It does so only where its hooks are at each rectifier, and none works in place."""
    network, x, classes = all_networks[name], inputs(), torch.tensor([2, 0])
    found = find("deeplift").attribute(network, x, classes)
    assert found.shape == (2, SIDE, SIDE)
    torch.testing.assert_close(found.sum((1, 2)), changes(network, x, classes), rtol=1e-3, atol=1e-5)
    assert not torch.allclose(found, find("gradient-input").attribute(network, x, classes), rtol=0.1, atol=1e-6)


@pytest.mark.parametrize("name", ["folded", "shared"])
def test_integrated_gradients_add_up_nearly(name: str, all_networks: dict[str, nn.Module]) -> None:
    network, x, classes = all_networks[name], inputs(), torch.tensor([2, 0])
    found = find("integrated-gradients(steps=200)").attribute(network, x, classes)
    expected = changes(network, x, classes)
    torch.testing.assert_close(found.sum((1, 2)), expected, rtol=0.02, atol=0.02 * float(expected.abs().max()))


@pytest.mark.parametrize("name", ["bagnet", "folded", "resnet18", "shared"])
def test_lrp_without_epsilon_is_the_gradient_times_the_input(name: str, all_networks: dict[str, nn.Module]) -> None:
    """Of rectifiers, sums and linear layers: by arithmetic, and only if no part is passed by."""
    network, x, classes = all_networks[name], inputs(), torch.tensor([1, 2])
    found = find("lrp-epsilon(epsilon=1e-9)").attribute(network, x, classes)
    expected = find("gradient-input").attribute(network, x, classes)
    size = float(expected.abs().max())
    assert size > 0
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-3 * size)


@pytest.mark.parametrize("method", ["lrp-epsilon", "lrp-epsilon-plus"])
def test_lrp_keeps_the_logit_where_nothing_else_adds_to_it(method: str) -> None:
    # Wide enough that something adds to each signal: z⁺ loses what is to be shared out among nothing.
    network = Folded(without_biases(procedural_model("bagnet9", 3, 0.5)))
    x, classes = inputs(), torch.tensor([1, 2])
    found = find(method).attribute(network, x, classes)
    with torch.no_grad():
        logits = network(x).gather(1, classes[:, None])[:, 0]
    torch.testing.assert_close(found.sum((1, 2)), logits, rtol=2e-3, atol=1e-6)


def test_guided_backprop_is_at_every_rectifier(monkeypatch: pytest.MonkeyPatch) -> None:
    class Guided(torch.autograd.Function):
        @staticmethod
        def forward(context: Any, x: Tensor) -> Tensor:
            context.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(context: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
            (x,) = context.saved_tensors
            return gradient.clamp(min=0) * (x > 0)

    network = procedural_model("bagnet9", 3, 0.125)
    x, classes = inputs(), torch.tensor([1, 2])
    found = find("guided-backprop").attribute(network, x, classes)
    with monkeypatch.context() as patched:
        patched.setattr(torch, "relu_", Guided.apply)
        own = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(network(own).gather(1, classes[:, None]).sum(), own)
    torch.testing.assert_close(found, expected.sum(1), rtol=1e-3, atol=1e-6)


def test_gradcam_of_a_bagnets_last_layer_is_its_evidence() -> None:
    network = Folded(procedural_model("bagnet9", 3, 0.125))
    x, classes = inputs(), torch.tensor([1, 2])
    request = Request(plain(network, x[:1]), x, classes, torch.zeros_like(x), 0)
    found = find("captum:LayerGradCam(relu_attributions=False)").run(request)[:, 0]
    with torch.no_grad():
        evidence = network.evidence(x) - network.fc.bias
    expected = torch.stack([evidence[0, ..., 1], evidence[1, ..., 2]]) / evidence[0, ..., 0].numel()
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-5)
    assert find("gradcam").attribute(network, x, classes).shape == (2, SIDE, SIDE)
    last = find("gradcam(layer='patches.blocks.3.conv3')").attribute(network, x, classes)
    assert last.shape == (2, SIDE, SIDE)
    with pytest.raises(AttributionError, match=r"this network has no part 'patches': its last are .*fc"):
        find("gradcam(layer='patches')").attribute(network, x, classes)


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_leaves_the_network_as_it_is(name: str) -> None:
    network = Folded(procedural_model("bagnet9", 3, 0.0625))
    before = {key: values.clone() for key, values in network.state_dict().items()}
    ready = plain(network, inputs(1))
    x = inputs()
    few = {"samples": 2, "steps": 2, "window": 8, "stride": 8}
    given = ", ".join(f"{key}={few[key]}" for key in METHODS[name].parameters if key in few)
    method = find(f"{name}({given})")
    found = method.attribute(ready, x, torch.tensor([1, 2]), seed=3)
    assert (found.shape, found.dtype) == ((2, SIDE, SIDE), torch.float32)
    assert float(found.abs().max()) > 0
    torch.testing.assert_close(method.attribute(network, x, torch.tensor([1, 2]), seed=3), found)
    torch.testing.assert_close(x, inputs())
    for key, values in network.state_dict().items():
        assert torch.equal(values, before[key])
    for each in (*network.modules(), *ready.modules()):
        hooks = each._forward_hooks, each._forward_pre_hooks, each._backward_hooks, each._backward_pre_hooks
        assert not any(hooks)
    assert not any(parameter.requires_grad for parameter in network.patches.parameters())


def test_a_baseline_is_what_attributions_begin_from() -> None:
    network, x, classes = procedural_model("bagnet9", 3, 0.125), inputs(), torch.tensor([1, 2])
    for name in ("gradient-input", "integrated-gradients", "deeplift", "gradient-shap(noise=0)", "occlusion"):
        found = find(name).attribute(network, x, classes, baseline=x)
        assert float(found.abs().max()) < 1e-5, name


def test_what_is_drawn_at_random_is_drawn_from_the_seed_and_from_nothing_else() -> None:
    network, x, classes = procedural_model("bagnet9", 3, 0.0625), inputs(), torch.tensor([1, 2])
    torch.manual_seed(5)
    np.random.seed(5)
    states = torch.get_rng_state(), np.random.get_state()[1]
    for name in ("random", "smoothgrad(samples=2)", "gradient-shap(samples=2)"):
        one, same, other = (find(name).attribute(network, x, classes, seed=seed) for seed in (1, 1, 2))
        assert torch.equal(one, same)
        assert not torch.allclose(one, other)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])


def test_a_network_is_made_of_parts_once() -> None:
    network = network_module("resnet18", 3).eval()
    ready = plain(network, inputs(1))
    assert isinstance(ready, PlainNetwork)
    assert plain(ready, inputs(1)) is ready
    kinds = {type(ready.get_submodule(str(node.target))) for node in ready.calls if node.op == "call_module"}
    assert nn.BatchNorm2d not in kinds
    rectifiers = [node.target for node in ready.calls if node.op == "call_module" and "relu" in str(node.target)]
    assert len(rectifiers) == len(set(rectifiers)) == 17
    assert not any(getattr(each, "inplace", False) for each in ready.modules())
    assert network.relu.inplace  # type: ignore[union-attr]


def test_a_network_that_cannot_be_taken_apart() -> None:
    class Deciding(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((2, 3)) if x.sum() > 0 else -x.mean((2, 3))

    with pytest.raises(AttributionError, match="this network cannot be taken apart, which attribution methods need"):
        find("saliency").attribute(Deciding(), inputs(), torch.tensor([1, 2]))


def test_lrp_says_nothing_of_what_it_has_no_rule_for() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.SiLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3))
    with pytest.raises(AttributionError, match=r"LRP has no rule for SiLU \(1\)"):
        find("lrp-epsilon").attribute(network.eval(), inputs(), torch.tensor([1, 2]))

    class Multiplying(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x * x).mean((2, 3))

    with pytest.raises(AttributionError, match="LRP has no rule for mul"):
        find("lrp-epsilon").attribute(Multiplying(), inputs(), torch.tensor([1, 2]))


def test_what_is_asked_for_is_read_and_never_run() -> None:
    assert parse("smoothgrad") == ("smoothgrad", {})
    assert parse(" captum:Occlusion(strides=(3, 8, 8), x='a,b') ") == (
        "captum:Occlusion",
        {"strides": (3, 8, 8), "x": "a,b"},
    )
    for text in ("a(1)", "a(b=c)", "a(b=__import__('os'))", "a(**{})", "a(b=1", "a)b(", "a(b=1)(c=2)", "", "(a=1)"):
        with pytest.raises(AttributionError, match=r"is not written as NAME or NAME\(key=value, \.\.\.\)"):
            parse(text)
    for text in ("a(b=b'c')", "a(b={1})", "a(b=(1, 2j))"):
        with pytest.raises(AttributionError, match="parameters are numbers, texts, booleans"):
            parse(text)


def test_a_list_is_split_outside_of_brackets() -> None:
    assert split("a, b(c=1, d=(2, 3)),e") == ["a", "b(c=1, d=(2, 3))", "e"]
    assert split(" ,a,,") == ["a"]
    assert split("a(b=1") == ["a(b=1"]


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("deeplif", "there is no attribution method 'deeplif': did you mean 'deeplift'?"),
        ("smoothgrad(sample=3)", "smoothgrad has no parameter 'sample': there is samples, noise"),
        ("smoothgrad(samples=0)", "smoothgrad: samples is a whole number from 1, not 0"),
        ("smoothgrad(noise='much')", "smoothgrad: noise is a number, not 'much'"),
        ("gradcam(layer=4)", "gradcam: layer is a layer's name, not 4"),
        ("saliency(a=1)", "saliency has no parameter 'a': there is none"),
        ("captum:Nothing", "Captum has no attribution class 'Nothing'"),
        ("captum:NeuronGradient", "Captum has no attribution class 'NeuronGradient'"),
        ("captum:Saliency(layer='fc')", "captum:Saliency knows no 'layer': it has "),
        ("captum:Saliency(blue=1)", "captum:Saliency knows no 'blue': it has "),
        (
            "no_such_module:f",
            "no_such_module:f cannot be had: ModuleNotFoundError: No module named 'no_such_module'; set PYTHONPATH",
        ),
        ("bagindex.text:nothing", "bagindex.text:nothing cannot be had: AttributeError"),
        ("bagindex.attribution.methods:METHODS", "METHODS is no function"),
        ("bagindex.text:bytes_text", "cannot be called with"),
    ],
)
def test_what_cannot_be_had_is_said_in_a_line(asked: str, said: str) -> None:
    with pytest.raises(AttributionError) as raised:
        find(asked)
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_any_class_of_captums() -> None:
    network, x, classes = procedural_model("bagnet9", 3, 0.0625), inputs(), torch.tensor([1, 2])
    expected = find("gradient-input").attribute(network, x, classes)
    torch.testing.assert_close(find("captum:InputXGradient").attribute(network, x, classes), expected)
    found = find("captum:IntegratedGradients(multiply_by_inputs=False, n_steps=3)")
    assert found.name == "captum:IntegratedGradients(multiply_by_inputs=False, n_steps=3)"
    assert found.attribute(network, x, classes).shape == (2, SIDE, SIDE)
    with pytest.raises(AttributionError, match=r"captum:Occlusion failed: TypeError: .*sliding_window_shapes"):
        find("captum:Occlusion").attribute(network, x, classes)


def test_a_function_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "own_method.py").write_text(
        "import torch\n"
        "def channel(network, inputs, classes, *, baseline, seed, which=0):\n"
        "    return (inputs - baseline)[:, which]\n"
        "def wrong(network, inputs, classes, **rest):\n"
        "    return network(inputs)\n"
        "def endless(network, inputs, classes, **rest):\n"
        "    return inputs / 0 * 0\n"
        "def broken(network, inputs, classes, **rest):\n"
        "    raise ValueError('no\\nway')\n"
    )
    monkeypatch.chdir(tmp_path)
    before = [*sys.path]
    network, x, classes = procedural_model("bagnet9", 3, 0.0625), inputs(), torch.tensor([1, 2])
    method = find("own_method:channel(which=2)")
    assert (method.origin, dict(method.parameters)) == ("own_method:channel", {"which": 2})
    torch.testing.assert_close(method.attribute(network, x, classes), x[:, 2])
    assert len(method.version) == 12
    for name, said in {
        "wrong": "own_method:wrong gives (2, 3), and not a tensor [2, 25, 25]",
        "endless": "own_method:endless gives values that are not finite",
        "broken": "own_method:broken failed: ValueError: no",
    }.items():
        with pytest.raises(AttributionError) as raised:
            find(f"own_method:{name}").attribute(network, x, classes)
        assert str(raised.value) == said
    with pytest.raises(AttributionError, match="cannot be called with"):
        find("own_method:channel(colour=2)")
    assert sys.path == before


def test_a_missing_library_is_named_with_what_brings_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "captum", None)
    monkeypatch.setitem(sys.modules, "captum.attr", None)
    for asked in ("saliency", "captum:Saliency"):
        with pytest.raises(AttributionError, match=r"needs captum: pip install 'bagindex\[attribution\]'"):
            find(asked)
    assert isinstance(find("gradient-input"), Method)


def test_all_methods_are_listed() -> None:
    rows = {row["method"]: row for row in methods.listed()}
    assert list(rows) == list(METHODS)
    assert rows["smoothgrad"]["parameters"] == "samples=16, noise=0.5"
    assert all(row["installed"] for row in rows.values())
