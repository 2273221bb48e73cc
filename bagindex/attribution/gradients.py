"""Methods that need no library: chance, and the gradient times the input."""

from __future__ import annotations

import torch
from torch import Tensor

from bagindex.attribution.method import Request


def random(request: Request) -> Tensor:
    """Numbers drawn from a normal distribution, [N, H, W]: what scores chance."""
    count, _, height, width = request.inputs.shape
    # On the CPU, so that they are the same wherever the network is.
    return torch.randn(count, height, width).to(request.inputs.device)


def gradient_input(request: Request) -> Tensor:
    """The gradient times what the input is beyond the baseline, [N, 3, H, W]: of a linear network, exact."""
    return gradient(request) * (request.inputs - request.baseline)


def gradient(request: Request) -> Tensor:
    """The gradients of the classes' logits with respect to the inputs, [N, 3, H, W]."""
    inputs = request.inputs.clone().requires_grad_()
    logits = request.network(inputs).gather(1, request.classes[:, None])
    found: Tensor = torch.autograd.grad(logits.sum(), inputs)[0]
    return found
