"""A network in the form that attribution methods can take hold of.

They change how a signal goes back through rectifiers, sums and means, and find these as modules of the network. A
network has them as functions too, works in place, or uses one module in several places: then the methods' hooks are
passed by without a word, and what comes out is another method's. So a network is traced, and made of modules, each in
one place.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.shape_prop import ShapeProp
from torch.nn.utils.fusion import fuse_conv_bn_eval

from bagindex.arithmetic import float32
from bagindex.errors import AttributionError
from bagindex.inference import Plain
from bagindex.models.bags import Folded
from bagindex.text import first_line

_RELU = frozenset({torch.relu, torch.relu_, nn.functional.relu, nn.functional.relu_, "relu", "relu_"})
_ADD = frozenset({operator.add, operator.iadd, torch.add, "add", "add_"})
_MEAN = frozenset({torch.mean, "mean"})
_POOL = frozenset({nn.functional.adaptive_avg_pool2d})
_TOLERANCE = 1e-3
"""How far the logits may be from the network's own, of the largest."""


class Sum(nn.Module):
    """The sum over the last axis, in the form that a rule for it needs: of one input."""

    def forward(self, stacked: Tensor) -> Tensor:
        """[..., n] -> [...]."""
        return stacked.sum(dim=-1)


class Add(nn.Module):
    """The sum of two signals, as of a block and what goes around it."""

    def __init__(self) -> None:
        super().__init__()
        self.sum = Sum()

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        """Of equal shapes, or such as fit each other."""
        if not self.sum._forward_hooks:
            return one + other  # a copy of both less
        both = torch.broadcast_tensors(one, other)  # type: ignore[no-untyped-call]
        found: Tensor = self.sum(torch.stack(both, dim=-1))
        return found


class Mean(nn.Module):
    """The mean over some axes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__()
        self.args, self.kwargs = args, kwargs

    def forward(self, x: Tensor) -> Tensor:
        """As `Tensor.mean` with these arguments."""
        return x.mean(*self.args, **self.kwargs)


class PlainNetwork(fx.GraphModule):
    """A network made of modules; the same function as the one that it was made of, to rounding, with batch norms merged
    into the convolutions before them. Gradients go to its input; its weights have none.
    """

    @property
    def calls(self) -> Iterator[fx.Node]:
        """What it does, one after the other."""
        return (node for node in self.graph.nodes if node.op not in ("placeholder", "get_attr", "output"))

    def layer(self, name: str | None) -> nn.Module:
        """A part by its name; by default the last whose results lie in places of the image, before their mean is taken.

        Raises:
            AttributionError: there is none such.
        """
        parts = [str(node.target) for node in self.graph.nodes if node.op == "call_module"]
        if name is not None:
            if name not in parts:
                raise AttributionError(f"this network has no part {name!r}: its last are {', '.join(parts[-6:])}")
            return self.get_submodule(name)
        found = None
        for node in self.graph.nodes:
            shape = getattr(node.meta.get("tensor_meta"), "shape", ())
            if node.op == "call_module" and len(shape) == 4 and min(shape[1:]) > 1:
                module = self.get_submodule(node.target)
                if isinstance(module, nn.ReLU | nn.Conv2d | nn.BatchNorm2d | Add):
                    found = node.target
        if found is None:
            raise AttributionError("this network has no part with places of the image: give layer='NAME'")
        return self.get_submodule(str(found))


def plain(network: nn.Module, example: Tensor) -> PlainNetwork:
    """A network as its modules; one that is so already is given back as it is.

    Args:
        network: [N, 3, H, W] -> logits [N, C], for inference; it stays as it is.
        example: an input that it takes, float32 [1, 3, H, W], on its device.

    Raises:
        AttributionError: it cannot be taken apart.
    """
    if isinstance(network, PlainNetwork):
        return network
    root = copy.deepcopy(network).requires_grad_(False).eval()
    if isinstance(root, Folded):
        root = _Unfused(root)
    try:
        tracer = fx.Tracer()
        graph = tracer.trace(root)
        for module in root.modules():
            if hasattr(module, "inplace"):
                setattr(module, "inplace", False)  # noqa: B010 - of whatever module
        made = PlainNetwork(root, graph)
        with torch.no_grad(), float32():
            _rewrite(made, example)
            found, expected = made(example), network(example)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:  # a network's own code runs here
        raise AttributionError(
            f"this network cannot be taken apart, which attribution methods need: {first_line(error)}"
        ) from None
    if not torch.allclose(found, expected, rtol=_TOLERANCE, atol=_TOLERANCE * float(expected.abs().max())):
        raise AttributionError("this network cannot be taken apart: its parts, put together, give other logits")
    return made


class _Unfused(nn.Module):
    """A folded BagNet, whose fused convolutions know no gradients, by plain ones."""

    def __init__(self, folded: Folded) -> None:
        super().__init__()
        self.patches, self.fc = folded.patches, folded.fc

    def forward(self, x: Tensor) -> Tensor:
        """[N, 3, H, W] -> [N, classes]."""
        logits: Tensor = self.fc(self.patches(x, Plain)).mean(dim=(1, 2))
        return logits


def _rewrite(made: PlainNetwork, example: Tensor) -> None:
    ShapeProp(made).propagate(example)
    seen: set[str] = set()
    for node in list(made.graph.nodes):
        if node.op == "call_module":
            # A module that is used again gets a copy for each place: a shallow one would share its hooks.
            if node.target in seen:
                _replace(made, node, copy.deepcopy(made.get_submodule(node.target)), node.args)
            seen.add(str(node.target))
        elif node.target in _RELU:
            _replace(made, node, nn.ReLU(), node.args[:1])
        elif node.target in _ADD and len(node.args) == 2 and all(_is_tensor(each) for each in node.args):
            _replace(made, node, Add(), node.args)
        elif node.target in _MEAN:
            _replace(made, node, Mean(*node.args[1:], **node.kwargs), node.args[:1])
        elif node.target in _POOL:
            _replace(made, node, nn.AdaptiveAvgPool2d(*node.args[1:]), node.args[:1])
    _merge_norms(made)
    made.graph.lint()
    made.delete_all_unused_submodules()
    made.recompile()
    ShapeProp(made).propagate(example)


def _is_tensor(value: object) -> bool:
    return isinstance(value, fx.Node) and "tensor_meta" in value.meta


def _replace(made: PlainNetwork, node: fx.Node, module: nn.Module, args: tuple[Any, ...]) -> None:
    """Let a module do what a node does."""
    name = f"{node.name}_part"
    made.add_submodule(name, module.eval())
    with made.graph.inserting_after(node):
        found = made.graph.call_module(name, args)
    found.meta = dict(node.meta)
    node.replace_all_uses_with(found)
    made.graph.erase_node(node)


def _merge_norms(made: PlainNetwork) -> None:
    """Merge batch norms into the convolutions before them, where nothing else comes of these."""
    for node in list(made.graph.nodes):
        before = node.args[0] if node.op == "call_module" and node.args else None
        if not isinstance(before, fx.Node) or before.op != "call_module" or len(before.users) != 1:
            continue
        norm, conv = made.get_submodule(str(node.target)), made.get_submodule(str(before.target))
        if isinstance(norm, nn.BatchNorm2d) and isinstance(conv, nn.Conv2d) and norm.running_mean is not None:
            parent, _, name = str(before.target).rpartition(".")
            setattr(made.get_submodule(parent), name, fuse_conv_bn_eval(conv, norm))
            node.replace_all_uses_with(before)
            made.graph.erase_node(node)
