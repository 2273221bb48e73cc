"""What a convolutional network is made of, found out by probing it rather than by formulas.

Operations are those that torch performs, counted as they are dispatched. What a cell of a layer sees is measured by
gradients: where the input's is not zero, the cell looks. For that, channels count for nothing: there is one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from bagindex.errors import SettingsError
from bagindex.text import first_line

Make = Callable[[], nn.Module]
"""Makes the network, on whatever device is the default."""
HEIGHTS, WIDTH = (97, 801), 97
"""Pixels of inputs that are probed one after the other, for as long as there are layers whose cells see more. They need
not be what the network is meant for, and what cells see is as wide as it is high."""
_FAINT = 1e-3
"""Of the input that is probed with: activations that saturate must not."""
_NORMS = nn.BatchNorm2d | nn.GroupNorm | nn.LayerNorm
_PLACED = nn.Conv2d | nn.Linear | nn.MaxPool2d | nn.AvgPool2d
"""What is a layer in a list of them."""


@dataclass(frozen=True)
class Layer:
    """A layer of a network.

    Attributes:
        name: as in the state dict.
        kind: what it is, with its kernel.
        stride: its own.
        channels, rows, cols: of its output; one row and column where it has no places.
        step: pixels of the input between what neighbouring cells see; None where that cannot be measured.
        field: pixels of the side of what a cell sees; None: all of any input, or more than can be measured.
        parameters: numbers that are learnt, with those of a norm that comes after it.
        flops: floating-point operations for one image, two for each multiplication and addition; None until counted.
    """

    name: str
    kind: str
    stride: int
    channels: int
    rows: int
    cols: int
    step: int | None
    field: int | None
    parameters: int
    flops: int


def probe(make: Make, height: int, width: int) -> tuple[Layer, ...]:
    """The layers of a network in the order in which they run, for inputs of a size.

    Args:
        make: makes it.
        height, width: of the input, pixels.

    Raises:
        SettingsError: it does not take such inputs, or is no convolutional network.
    """
    with torch.device("meta"):
        module = make().eval()
    layers = _count(module, height, width)
    seen: dict[str, tuple[int, int]] = {}
    for high in HEIGHTS:
        wanted = [layer.name for layer in layers if layer.name not in seen and layer.rows > 1]
        if wanted:
            with torch.device("meta"):
                copy = make().eval()
            try:
                seen |= _fields(copy, high, wanted)
            except (RuntimeError, AssertionError, ValueError) as error:
                raise SettingsError(f"what the layers see cannot be probed: {first_line(error)}") from None
    return tuple(
        replace(layer, field=seen[layer.name][0], step=seen[layer.name][1]) if layer.name in seen else layer
        for layer in layers
    )


def _count(module: nn.Module, height: int, width: int) -> list[Layer]:
    """Layers with their operations, without what they see; nothing is computed."""
    outputs: dict[str, Tensor] = {}
    order: list[str] = []
    modules = dict(module.named_modules())
    names = {each: name for name, each in modules.items()}

    def note(each: nn.Module, _inputs: object, output: Tensor) -> None:
        order.append(names[each])
        outputs[names[each]] = output

    handles = [each.register_forward_hook(note) for each in modules.values() if isinstance(each, _PLACED | _NORMS)]
    counter = FlopCounterMode(display=False)
    try:
        with counter, torch.no_grad():
            module(torch.zeros(1, 3, height, width, device="meta"))
    except (RuntimeError, AssertionError, ValueError) as error:
        raise SettingsError(
            f"the network does not take inputs of {width} × {height} pixels: {first_line(error)}"
        ) from None
    finally:
        for handle in handles:
            handle.remove()
    root = type(module).__name__
    counts = {name.removeprefix(f"{root}."): sum(each.values()) for name, each in counter.get_flop_counts().items()}
    layers: list[Layer] = []
    for name in order:
        each = modules[name]
        parameters = sum(parameter.numel() for parameter in each.parameters(recurse=False))
        if isinstance(each, _NORMS):
            if layers:
                layers[-1] = replace(layers[-1], parameters=layers[-1].parameters + parameters)
            continue
        channels, rows, cols = _shape(each, outputs[name])
        layers.append(
            Layer(name, _kind(each), _stride(each), channels, rows, cols, None, None, parameters, counts.get(name, 0))
        )
    return layers


def _fields(module: nn.Module, height: int, wanted: Sequence[str]) -> dict[str, tuple[int, int]]:
    """What a cell in the middle of each layer sees, and how far from it what the next one sees; without the layers of
    which it sees as far as the input's border.
    """
    probed = _one_channel(module)
    outputs: dict[str, Tensor] = {}
    modules = dict(probed.named_modules())
    for name in wanted:
        modules[name].register_forward_hook(lambda _each, _inputs, output, name=name: outputs.update({name: output}))
    image = torch.full((1, 1, height, WIDTH), _FAINT, dtype=torch.float64, requires_grad=True)
    probed(image)
    found = {}
    for name in wanted:
        output = outputs[name]
        # A linear layer that has places has its channels last.
        cells = output[0, ..., 0] if isinstance(modules[name], _Mean) else output[0].sum(dim=0)
        if cells.ndim != 2 or min(cells.shape) < 2:
            continue
        row, col = cells.shape[0] // 2, cells.shape[1] // 2
        (start, _), (next_start, end) = _seen(image, cells[row - 1, col - 1]), _seen(image, cells[row, col])
        if start > 0 and end < height:
            found[name] = end - next_start, next_start - start
    return found


def _seen(image: Tensor, cell: Tensor) -> tuple[int, int]:
    """The first row of the input that a cell sees, and the one after the last."""
    (gradient,) = torch.autograd.grad(cell, image, retain_graph=True)
    rows = gradient[0, 0].sum(dim=1).nonzero()
    return int(rows[0]), int(rows[-1]) + 1


class _Mean(nn.Module):
    """In a linear layer's place, since it looks at the same cells: the mean of all its inputs."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(dim=-1, keepdim=True)


class _Window(nn.Module):
    """In a convolution's place, or a pool's: the mean of what it looks at, and of all channels."""

    def __init__(self, module: nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d) -> None:
        super().__init__()
        self.kernel = _pair(module.kernel_size)
        self.stride, self.padding = _pair(module.stride), _pair(module.padding)
        self.dilation = _pair(getattr(module, "dilation", 1))

    def forward(self, x: Tensor) -> Tensor:
        rows, cols = self.kernel
        weight = torch.full((1, 1, rows, cols), 1 / (rows * cols), dtype=x.dtype)
        return nn.functional.conv2d(x.mean(dim=1, keepdim=True), weight, None, self.stride, self.padding, self.dilation)


def _one_channel(module: nn.Module) -> nn.Module:
    """A network on the meta device as one with a channel, through which every input has a positive effect on all that
    looks at it: no gradient is zero by chance, behind a rectifier or where a pool looks away.
    """
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, nn.Linear):
                setattr(parent, name, _Mean())
            elif isinstance(child, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
                setattr(parent, name, _Window(child))
            elif isinstance(child, _NORMS):
                setattr(parent, name, nn.Identity())
    module = module.to_empty(device="cpu").double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1)
    return module.eval().requires_grad_(False)


def _shape(module: nn.Module, output: Tensor) -> tuple[int, int, int]:
    """Channels, rows and columns of an output."""
    if output.ndim == 2:
        return output.shape[1], 1, 1
    if output.ndim != 4:
        raise SettingsError("only convolutional networks can be probed: this one has layers without rows and columns")
    if isinstance(module, nn.Linear):  # a BagNet's has a place for each patch, and channels last
        return output.shape[3], output.shape[1], output.shape[2]
    return output.shape[1], output.shape[2], output.shape[3]


def _kind(module: nn.Module) -> str:
    if isinstance(module, nn.Linear):
        return "linear"
    rows, cols = _pair(getattr(module, "kernel_size", 1))
    if isinstance(module, nn.Conv2d):
        return f"{rows} × {cols}" + (f", {module.groups} groups" if module.groups > 1 else "")
    return f"{'maximum' if isinstance(module, nn.MaxPool2d) else 'mean'} of {rows} × {cols}"


def _stride(module: nn.Module) -> int:
    return _pair(getattr(module, "stride", 1))[0]


def _pair(value: object) -> tuple[int, int]:
    """What torch takes as a number or as two."""
    if isinstance(value, int):
        return value, value
    if isinstance(value, tuple) and len(value) == 2:
        return int(value[0]), int(value[1])
    raise SettingsError(f"a layer with {value!r} cannot be probed")
