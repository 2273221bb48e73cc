"""Captum's methods, those that bagindex has a name for and any other by its class."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from bagindex.attribution.method import VARIANTS_AT_ONCE, Request, Run, library
from bagindex.errors import AttributionError


def saliency(request: Request) -> Tensor:
    """The magnitude of the gradient, [N, 3, H, W]."""
    return _method("Saliency", request).attribute(request.inputs, target=request.classes, abs=True)  # type: ignore[no-any-return]


def integrated_gradients(request: Request, *, steps: int) -> Tensor:
    """The gradient's mean on the way from the baseline to the input, times the way, [N, 3, H, W]."""
    found: Tensor = _method("IntegratedGradients", request).attribute(
        request.inputs,
        baselines=request.baseline,
        target=request.classes,
        n_steps=steps,
        internal_batch_size=max(len(request.inputs), _at_once(request)),
    )
    return found


def smoothgrad(request: Request, *, samples: int, noise: float) -> Tensor:
    """The gradient's mean over noisy inputs, [N, 3, H, W]."""
    attr = library("captum.attr", "smoothgrad")
    found: Tensor = attr.NoiseTunnel(attr.Saliency(request.network)).attribute(
        request.inputs,
        target=request.classes,
        nt_type="smoothgrad",
        nt_samples=samples,
        nt_samples_batch_size=max(1, _at_once(request) // len(request.inputs)),
        stdevs=noise,
        abs=False,
    )
    return found


def gradient_shap(request: Request, *, samples: int, noise: float) -> Tensor:
    """The gradient's mean at random places on the way from the baseline to noisy inputs, times it, [N, 3, H, W]."""
    method = _method("GradientShap", request)
    # One image at a time: it draws from all baselines that it is given, and an image may have one of its own.
    parts = [
        method.attribute(
            request.inputs[i : i + 1],
            baselines=request.baseline[i : i + 1],
            target=request.classes[i : i + 1],
            n_samples=samples,
            stdevs=noise,
        )
        for i in range(len(request.inputs))
    ]
    return torch.cat(parts)


def guided_backprop(request: Request) -> Tensor:
    """The gradient, of which rectifiers let only positive parts back, [N, 3, H, W]."""
    return _method("GuidedBackprop", request).attribute(request.inputs, target=request.classes)  # type: ignore[no-any-return]


def deeplift(request: Request) -> Tensor:
    """DeepLIFT by its rescale rule: what each part of the network does beyond the baseline, [N, 3, H, W]."""
    found: Tensor = _method("DeepLift", request).attribute(
        request.inputs, baselines=request.baseline, target=request.classes
    )
    return found


def occlusion(request: Request, *, window: int, stride: int) -> Tensor:
    """By how much the logit falls when a square has the baseline's pixels, the mean over the squares at a pixel,
    [N, 3, H, W].
    """
    size = min(window, *request.inputs.shape[2:])
    found: Tensor = _method("Occlusion", request).attribute(
        request.inputs,
        sliding_window_shapes=(3, size, size),
        strides=(3, min(stride, size), min(stride, size)),
        baselines=request.baseline,
        target=request.classes,
        perturbations_per_eval=max(1, _at_once(request) // len(request.inputs)),
    )
    # Captum gives each of the three channels the whole difference.
    return found / 3


def gradcam(request: Request, *, layer: str | None) -> Tensor:
    """A layer's channels, weighted by their mean gradients, summed and rectified, [N, 1, h, w]."""
    attr = library("captum.attr", "gradcam")
    method = attr.LayerGradCam(request.network, request.network.layer(layer))
    found: Tensor = method.attribute(request.inputs, target=request.classes, relu_attributions=True)
    return found


def guided_gradcam(request: Request, *, layer: str | None) -> Tensor:
    """Guided backpropagation times Grad-CAM, [N, 3, H, W]."""
    attr = library("captum.attr", "guided-gradcam")
    method = attr.GuidedGradCam(request.network, request.network.layer(layer))
    found: Tensor = method.attribute(request.inputs, target=request.classes, interpolate_mode="bilinear")
    return found


def any_of(name: str, given: Mapping[str, Any]) -> Run:
    """Any attribution class of Captum's by its name.

    Args:
        name: of the class; one of a layer's takes `layer`, by default the last that has places of the image.
        given: arguments of the class and of its `attribute`, by their names.

    Raises:
        AttributionError: Captum has no such class, or it knows no such argument.
    """
    asked = f"captum:{name}"
    attr = library("captum.attr", asked)
    found = getattr(attr, name, None)
    if (
        not inspect.isclass(found)
        or not issubclass(found, attr.Attribution)
        or issubclass(found, attr.NeuronAttribution)
    ):
        raise AttributionError(f"Captum has no attribution class {name!r} for the inputs or a layer of a network")
    kind: Any = found
    making, asking = (set(inspect.signature(each).parameters) for each in (kind, kind.attribute))
    if unknown := set(given) - making - asking:
        raise AttributionError(f"{asked} knows no {min(unknown)!r}: it has {', '.join(sorted(making | asking))}")

    def run(request: Request) -> Tensor:
        network, rest = request.network, dict(given)
        layer = rest.pop("layer", None)
        if "layer" in making:
            rest["layer"] = network.layer(layer)
        method = kind(network, **{key: value for key, value in rest.items() if key in making})
        more = {key: value for key, value in rest.items() if key in asking and key not in making}
        if "baselines" in asking:
            more.setdefault("baselines", request.baseline)
        attributed = method.attribute(request.inputs, target=request.classes, **more)
        return attributed  # type: ignore[no-any-return]

    return run


def _method(name: str, request: Request) -> Any:
    return getattr(library("captum.attr", name), name)(request.network)


def _at_once(request: Request) -> int:
    """Inputs that the network takes at a time, of the many that a method makes of one."""
    return VARIANTS_AT_ONCE[request.inputs.device.type]
