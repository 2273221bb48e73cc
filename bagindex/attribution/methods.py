"""The attribution methods that there are, and those that a person brings, by what they are asked for with."""

from __future__ import annotations

import ast
import hashlib
import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType
from typing import Any

from torch import Tensor

from bagindex.attribution import captums, gradients, lrp
from bagindex.attribution.method import Method, Request, Run, library
from bagindex.errors import AttributionError
from bagindex.importing import failure, load
from bagindex.text import did_you_mean, first_line, near

CAPTUM = "captum:"
"""Before the name of a class of Captum's."""
_ASKED = re.compile(r"(?P<name>[^()]+?)\s*(?:\((?P<given>.*)\))?\s*", re.DOTALL)


@dataclass(frozen=True)
class Known:
    """A method that bagindex has a name for.

    Attributes:
        name: what it is asked for by.
        title: what it does.
        origin: `bagindex`, or the library whose it is.
        run: what does it, of a request and the parameters.
        parameters: them, and what they are where nothing else is asked for.
    """

    name: str
    title: str
    origin: str
    run: Callable[..., Tensor]
    parameters: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_there(self) -> bool:
        """Whether its library is installed."""
        return self.origin == "bagindex" or find_spec(self.origin) is not None


METHODS: Mapping[str, Known] = MappingProxyType(
    {
        each.name: each
        for each in (
            Known("random", "random numbers", "bagindex", gradients.random),
            Known("saliency", "magnitude of the gradient", "captum", captums.saliency),
            Known("gradient-input", "gradient × (input − baseline)", "bagindex", gradients.gradient_input),
            Known(
                "integrated-gradients",
                "mean gradient on the way from the baseline, × (input − baseline)",
                "captum",
                captums.integrated_gradients,
                {"steps": 32},
            ),
            Known(
                "smoothgrad",
                "mean gradient of noisy inputs",
                "captum",
                captums.smoothgrad,
                {"samples": 16, "noise": 0.5},
            ),
            Known(
                "gradient-shap",
                "mean gradient between the baseline and noisy inputs, × (input − baseline)",
                "captum",
                captums.gradient_shap,
                {"samples": 16, "noise": 0.1},
            ),
            Known("guided-backprop", "gradient, its positive parts only", "captum", captums.guided_backprop),
            Known("deeplift", "DeepLIFT, rescale rule", "captum", captums.deeplift),
            Known("lrp-epsilon", "ε-LRP", "zennit", lrp.epsilon, {"epsilon": 1e-6}),
            Known(
                "lrp-epsilon-plus",
                "LRP, z⁺ in convolutions, ε in linear layers",
                "zennit",
                lrp.epsilon_plus,
                {"epsilon": 1e-6},
            ),
            Known(
                "occlusion",
                "fall of the logit when a square is the baseline's",
                "captum",
                captums.occlusion,
                {"window": 32, "stride": 16},
            ),
            Known("gradcam", "Grad-CAM of a layer", "captum", captums.gradcam, {"layer": None}),
            Known("guided-gradcam", "Grad-CAM × guided backprop", "captum", captums.guided_gradcam, {"layer": None}),
        )
    }
)
"""In the order in which they are listed."""


def find(asked: str) -> Method:
    """A method, and its parameters.

    Args:
        asked: a name of `METHODS`; `captum:CLASS`, any attribution class of Captum's; or `MODULE:FUNCTION`, one of the
            user's own. Parameters stand behind it, as in `smoothgrad(samples=50)`, and are numbers, texts, booleans,
            None, or tuples of these.

            A function of the user's is called as `function(network, inputs, classes, baseline=…, seed=…)`, with what
            `Request` has, and the parameters as further keywords, and gives a tensor [N, 3, H, W] or [N, H, W].

    Raises:
        AttributionError: there is none such, its library is not installed, or it has no such parameter.
    """
    name, given = parse(asked)
    if name in METHODS:
        return _known(METHODS[name], given)
    if name.startswith(CAPTUM):
        run = captums.any_of(name.removeprefix(CAPTUM), given)
        title = f"Captum's {name.removeprefix(CAPTUM)}"
        return Method(_text(name, given), title, "captum", run, given, version("captum"))
    if ":" in name:
        function = _own(name, given)
        return Method(_text(name, given), name, name, _calling(function, given), given, _digest(function))
    hint = did_you_mean(near(name, METHODS)) or f"it is one of {', '.join(METHODS)}, {CAPTUM}CLASS or MODULE:FUNCTION"
    raise AttributionError(f"there is no attribution method {name!r}: {hint}")


def split(asked: str) -> list[str]:
    """What stands between the commas of a list of methods, those inside of brackets aside."""
    parts, depth, start = [], 0, 0
    for place, letter in enumerate(f"{asked},"):
        depth += (letter in "([{") - (letter in ")]}")
        if letter == "," and depth <= 0:
            parts.append(asked[start:place].strip())
            start = place + 1
    return [part for part in (*parts, asked[start:].strip()) if part]


def parse(asked: str) -> tuple[str, dict[str, Any]]:
    """The name of a method and its parameters; what stands there is read, and never run.

    Raises:
        AttributionError: they are not written as `name(key=value, ...)`.
    """
    match = _ASKED.fullmatch(asked.strip())
    wrong = AttributionError(f"{asked!r} is not written as NAME or NAME(key=value, ...)")
    if match is None:
        raise wrong
    try:
        call = ast.parse(f"_({match['given'] or ''})", mode="eval").body
        if isinstance(call, ast.Call) and not isinstance(call.func, ast.Name):
            raise wrong
        if not isinstance(call, ast.Call) or call.args or any(each.arg is None for each in call.keywords):
            raise wrong
        given = {str(each.arg): ast.literal_eval(each.value) for each in call.keywords}
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError):
        raise wrong from None
    if not all(map(_is_plain, given.values())):
        raise AttributionError(f"{asked!r}: parameters are numbers, texts, booleans, None, and tuples of these")
    return match["name"], given


def _is_plain(value: object) -> bool:
    if isinstance(value, tuple | list):
        return all(map(_is_plain, value))
    return value is None or isinstance(value, bool | int | float | str)


def _known(known: Known, given: Mapping[str, Any]) -> Method:
    for key, value in given.items():
        if key not in known.parameters:
            there = ", ".join(known.parameters) or "none"
            raise AttributionError(f"{known.name} has no parameter {key!r}: there is {there}")
        _check(known, key, value)
    if known.origin != "bagindex":
        library(known.origin, known.name)
    parameters = {**known.parameters, **given}
    # Captum takes no whole number for one that need not be whole.
    parameters |= {key: float(parameters[key]) for key, usual in known.parameters.items() if isinstance(usual, float)}
    run = partial(known.run, **parameters)
    return Method(_text(known.name, given), known.title, known.origin, run, parameters, version(known.origin))


def _check(known: Known, key: str, value: Any) -> None:
    """Whether a parameter may be that: of the kind that it is by default, and not negative."""
    usual = known.parameters[key]
    kinds: tuple[type, ...] = (str,) if usual is None else (int,) if isinstance(usual, int) else (int, float)
    fits = isinstance(value, kinds) and not isinstance(value, bool)
    if not fits or (isinstance(value, int | float) and not (value > 0 if isinstance(usual, int) else 0 <= value < 1e9)):
        what = "a layer's name" if usual is None else "a whole number from 1" if isinstance(usual, int) else "a number"
        raise AttributionError(f"{known.name}: {key} is {what}, not {value!r}")


def _own(name: str, given: Mapping[str, Any]) -> Callable[..., Any]:
    """A function of the user's, by its import path."""
    try:
        function = load(name, here=True)
    except Exception as error:  # a module's own code runs here
        raise AttributionError(f"{name} cannot be had: {failure(name, error)}") from None
    if not callable(function):
        raise AttributionError(f"{name} is no function")
    try:
        inspect.signature(function).bind(None, None, None, baseline=None, seed=0, **given)
    except (TypeError, ValueError) as error:
        raise AttributionError(
            f"{name} cannot be called with (network, inputs, classes, baseline=, seed=) and its parameters: "
            f"{first_line(error)}"
        ) from None
    found: Callable[..., Any] = function
    return found


def _calling(function: Callable[..., Any], given: Mapping[str, Any]) -> Run:
    def run(request: Request) -> Tensor:
        found: Tensor = function(
            request.network, request.inputs, request.classes, baseline=request.baseline, seed=request.seed, **given
        )
        return found

    return run


def _digest(function: Callable[..., Any]) -> str:
    """What tells whether a function has been changed."""
    try:
        return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()[:12]
    except (TypeError, OSError):
        return ""


def _text(name: str, given: Mapping[str, Any]) -> str:
    return f"{name}({', '.join(f'{key}={value!r}' for key, value in given.items())})" if given else name


def listed() -> Sequence[dict[str, Any]]:
    """A row for each method that has a name."""
    return [
        {
            "method": each.name,
            "what": each.title,
            "from": each.origin,
            "parameters": ", ".join(f"{key}={value!r}" for key, value in each.parameters.items()),
            "installed": each.is_there,
        }
        for each in METHODS.values()
    ]
