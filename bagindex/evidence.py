"""From a model's output to the numbers that are stored: rounding, image logits, maxima. Pure numpy.

Features and evidence are rounded to float16 *first*; maxima and rankings come from the rounded evidence, in the order
(logit descending, patch_id ascending), so that every path to an answer gives the same one. Means and predictions come
from the unrounded values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bagindex.compute import PatchOutput
from bagindex.errors import EvidenceRangeError

FLOAT16_MAX = 65504.0


@dataclass(frozen=True)
class Evidence:
    """The numbers of a batch of N images with P patches, D feature dimensions and C classes.

    Attributes:
        features: float16 [N, P, D].
        evidence: float16 [N, P, C], each patch's logit for each class.
        max_logit: float32 [N, C], the largest rounded evidence for a class.
        max_cell: int64 [N, C], the first cell of the grid (row-major) where it stands.
        logits: float32 [N, C], the image's logits: the mean of its unrounded patch logits (section 2 of the paper).
        top: int32 [N, min(5, C)], the classes with the largest logits, largest first, equal ones by id.
        probability: float32 [N], the softmax of the logits at the predicted class, `top[:, 0]`.
    """

    features: NDArray[np.float16]
    evidence: NDArray[np.float16]
    max_logit: NDArray[np.float32]
    max_cell: NDArray[np.int64]
    logits: NDArray[np.float32]
    top: NDArray[np.int32]
    probability: NDArray[np.float32]

    def of(self, image: int) -> Evidence:
        """The numbers of one image of the batch, N = 1; copies, which do not keep the batch."""
        return Evidence(*(values[image : image + 1].copy() for values in vars(self).values()))


def reduce(output: PatchOutput) -> Evidence:
    """Round a batch and take its means and maxima: the definition, for a model of any kind.

    Raises:
        EvidenceRangeError: a value is not finite, or float16 cannot hold it.
    """
    for values, what in ((output.features, "feature"), (output.logits, "logit")):
        check_range(float(np.abs(values).max(initial=0.0)), what)
    evidence = output.logits.astype(np.float16)
    logits = output.logits.mean(axis=1, dtype=np.float64).astype(np.float32)
    # argmax takes the first of equal values, which is the one with the lowest patch_id.
    cells = evidence.argmax(axis=1)
    maxima = np.take_along_axis(evidence, cells[:, None], axis=1)[:, 0].astype(np.float32)
    features = output.features.astype(np.float16)
    return Evidence(features, evidence, maxima, cells.astype(np.int64), logits, *predictions(logits))


def predictions(logits: NDArray[np.float32]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """`top` and `probability` of `Evidence`, from an image's logits, float32 [N, C]."""
    top = np.argsort(-logits, axis=1, kind="stable")[:, :5].astype(np.int32)
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return top, (1.0 / shifted.sum(axis=1)).astype(np.float32)


def check_range(largest: float, what: str) -> None:
    """Whether float16 can hold values whose largest magnitude this is.

    Raises:
        EvidenceRangeError: it is not finite, or beyond what float16 holds.
    """
    if not largest <= FLOAT16_MAX:
        raise EvidenceRangeError(
            f"the model gives a {what} of {largest:g}, and an index holds finite values up to {FLOAT16_MAX:g} "
            "(float16): the weights are damaged, or need another scale"
        )


def rounding_error(rounded: NDArray[np.float16]) -> NDArray[np.float32]:
    """The most by which each float16 value can differ from what it was rounded from: half a unit in its last place."""
    values = rounded.astype(np.float32)
    _, exponent = np.frexp(values)
    # float16 has 11 significant bits; below 2**-14 its units stay the same. (numpy.spacing overflows at 65504.)
    exponent = np.where(values == 0, -13, np.maximum(exponent, -13))
    error: NDArray[np.float32] = np.ldexp(np.float32(1), exponent - 12)
    return error
