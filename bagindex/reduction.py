"""What `bagindex.evidence.reduce` does, in torch: where the model runs, before anything is copied from there."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagindex.evidence import Evidence, check_range, predictions


def reduce(features: Tensor, logits: Tensor) -> Evidence:
    """Round a batch and take its means and maxima.

    Args:
        features: any float dtype [N, P, D].
        logits: float32 [N, P, C], on the same device.

    Raises:
        EvidenceRangeError: a value is not finite, or float16 cannot hold it.
    """
    largest = torch.stack([_largest(features), _largest(logits)])
    evidence = logits.half()
    # Of equal values, max gives the first index: the one with the lowest patch_id.
    maxima = evidence.float().max(dim=1)
    means = logits.mean(dim=1, dtype=torch.float64).float()
    results = [_fetch(each) for each in (largest, features.half(), evidence, maxima.values, maxima.indices, means)]
    if logits.device.type == "cuda":
        torch.cuda.current_stream(logits.device).synchronize()
    limits, features16, evidence16, max_logit, max_cell, image_logits = (each.numpy() for each in results)
    check_range(float(limits[0]), "feature")
    check_range(float(limits[1]), "logit")
    return Evidence(features16, evidence16, max_logit, max_cell, image_logits, *predictions(image_logits))


def _largest(values: Tensor) -> Tensor:
    """The largest magnitude; not a number where there is one that is not."""
    low, high = values.aminmax()
    return torch.maximum(-low, high).float()


def _fetch(values: Tensor) -> Tensor:
    """A copy in memory that the CPU reads; it is complete when the device's stream is."""
    if values.device.type == "cpu":
        return values.contiguous()
    return torch.empty(values.shape, dtype=values.dtype, pin_memory=True).copy_(values, non_blocking=True)


def upload(pixels: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Pixels as a tensor on a device; from pinned memory, so that the copy runs beside other streams' work."""
    tensor = torch.from_numpy(pixels)
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor
