"""Layer-wise relevance propagation, by Zennit's rules.

A layer's relevance is shared out among its inputs by what they add to it. Of the network's parts, as `plain` makes
them, each that mixes signals has a rule: convolutions and linear layers the one that the method is named for, sums and
means each summand's share. Rectifiers, maxima and changes of shape hand on what they get. Where a network does other
things, nothing is said rather than something wrong.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx, nn

from bagindex.attribution.method import Request, library
from bagindex.attribution.plain import Add, Mean, PlainNetwork, Sum
from bagindex.errors import AttributionError

_STABILIZER = 1e-6
"""Added to a sum that is divided by, with its sign; Zennit's."""
_PASS = (nn.ReLU, nn.ReLU6, nn.Dropout, nn.Identity, nn.Flatten, nn.MaxPool2d, Add)
_MEANS = (Sum, Mean, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
_LINEAR = (nn.Conv2d, nn.Linear, nn.BatchNorm2d)
_SHAPES = frozenset({"permute", "flatten", "view", "reshape", "contiguous", "squeeze", "cat", "getitem", "getattr"})
"""Functions that put values elsewhere, and change none."""


def epsilon(request: Request, *, epsilon: float) -> Tensor:
    """ε-LRP: every layer shares out by z_ij / (z_j + ε), biases included, [N, 3, H, W]."""
    rules = library("zennit.rules", "lrp-epsilon")
    return _propagate(request, rules.Epsilon(epsilon), rules.Epsilon(epsilon))


def epsilon_plus(request: Request, *, epsilon: float) -> Tensor:
    """Convolutions share out among what adds to them (z⁺), linear layers by ε, [N, 3, H, W]. Where nothing adds to a
    convolution's signal, its share is lost.
    """
    rules = library("zennit.rules", "lrp-epsilon-plus")
    return _propagate(request, rules.ZPlus(), rules.Epsilon(epsilon))


def _propagate(request: Request, convolution: Any, linear: Any) -> Tensor:
    """Send the classes' logits back through the network."""
    _check(request.network)
    rules, core, types = (library(f"zennit.{name}", "LRP") for name in ("rules", "core", "types"))
    shares, passes = rules.Norm(_STABILIZER), rules.Pass()

    def rule(_context: object, _name: str, module: nn.Module) -> Any:
        if isinstance(module, _MEANS):
            return shares
        if isinstance(module, types.Convolution):
            return convolution
        if isinstance(module, nn.Linear | nn.BatchNorm2d):
            return linear
        return passes if isinstance(module, types.Activation) else None

    inputs = request.inputs.clone().requires_grad_()
    with core.Composite(rule).context(request.network) as hooked:
        logits = hooked(inputs).gather(1, request.classes[:, None])
        found: Tensor = torch.autograd.grad(logits, inputs, grad_outputs=logits.detach())[0]
    return found


def _check(network: PlainNetwork) -> None:
    """Whether there is a rule for all that a network does.

    Raises:
        AttributionError: there is none for something.
    """
    for node in network.calls:
        if "tensor_meta" not in node.meta:
            continue  # arithmetic of sizes
        if isinstance(node.target, str) and node.op == "call_module":
            module = network.get_submodule(node.target)
            if not isinstance(module, _PASS + _MEANS + _LINEAR):
                raise AttributionError(f"LRP has no rule for {type(module).__name__} ({node.target})")
        elif _name(node) not in _SHAPES:
            raise AttributionError(f"LRP has no rule for {_name(node)}")


def _name(node: fx.Node) -> str:
    return node.target if isinstance(node.target, str) else node.target.__name__
