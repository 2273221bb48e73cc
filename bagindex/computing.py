"""Models of an index that run on pictures which are sent, kept for the next question."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from bagindex.store import IndexDirectory
from bagindex_schemas.records import IndexManifest, ModelRecord

if TYPE_CHECKING:
    from bagindex.compute import Compute
    from bagindex.evidence import Evidence

MODELS = 2
"""Kept at a time: a BagNet-33 with 1,000 classes takes some 150 MB."""
PICTURES = 4
"""Whose numbers are kept: 4 MB each with 1,000 classes."""
_Value = TypeVar("_Value")


class Computing:
    """What stored models make of pictures, the last few of both kept; several threads may ask.

    They take turns: a model takes all cores by itself, and who asks for the same picture at the same time gets what
    the first one computed.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._models: OrderedDict[Hashable, Compute] = OrderedDict()
        self._pictures: OrderedDict[Hashable, Evidence] = OrderedDict()

    def evidence(
        self,
        directory: IndexDirectory,
        manifest: IndexManifest,
        record: ModelRecord,
        pixels: NDArray[np.uint8],
        device: str = "auto",
    ) -> Evidence:
        """What a model makes of a picture in float32, as a batch of one.

        Args:
            directory, manifest: the index.
            record: the model.
            pixels: its input before normalisation, uint8 [height, width, RGB].
            device: where it runs.

        Raises:
            WeightsError, SettingsError: the stored model cannot be read, or there is no such device.
            EvidenceRangeError: it gives values that cannot be stored.
        """
        # Whatever the numbers depend on: an index may be built anew, or a model added by the same name.
        model = directory.root, manifest.plan.digest(), record.name, record.weights_sha256, device
        picture = *model, hashlib.sha256(pixels.tobytes()).digest()
        with self._turn:
            return _kept(
                self._pictures,
                picture,
                PICTURES,
                lambda: _kept(self._models, model, MODELS, lambda: _load(directory, manifest, record, device)).run(
                    np.array(pixels)[None]
                ),
            )

    def close(self) -> None:
        """Drop what is kept, without waiting for who computes."""
        self._models, self._pictures = OrderedDict(), OrderedDict()


def _load(directory: IndexDirectory, manifest: IndexManifest, record: ModelRecord, device: str) -> Compute:
    from bagindex.prepare import open_stored_models

    only = manifest.model_copy(update={"models": {record.name: record}})
    return open_stored_models(directory, only, device, 1)[record.name]


def _kept(values: OrderedDict[Hashable, _Value], key: Hashable, most: int, make: Callable[[], _Value]) -> _Value:
    """A value that is kept, or made and kept instead of the one that was asked for the longest ago."""
    if key not in values:
        made = make()
        while len(values) >= most:
            values.popitem(last=False)
        values[key] = made
    values.move_to_end(key)
    return values[key]
