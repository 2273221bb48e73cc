"""Sources and models that need neither files nor torch, for tests of the machinery."""

from __future__ import annotations

import io
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from safetensors.numpy import save

from bagindex.compute import PatchOutput
from bagindex.errors import SettingsError
from bagindex.evidence import Evidence, reduce
from bagindex.geometry import make_grid
from bagindex.images import Rejected
from bagindex.sources import Entry
from bagindex_schemas.records import ClassRecord, Environment, Precision, Transform
from bagindex_schemas.rejects import RejectCode

ENVIRONMENT = Environment(device="none", threads=1, batch_size=3, precision="fp32", versions={})


def class_records(names: Sequence[str]) -> tuple[ClassRecord, ...]:
    """Class records with ids in order."""
    return tuple(ClassRecord(class_id=i, name=name) for i, name in enumerate(names))


@dataclass
class MemorySource:
    """Plain pictures whose number is their colour; those in `broken` are no pictures."""

    labels: Sequence[str | None]
    broken: frozenset[int] = frozenset()
    side: int = 16

    kind = "memory"
    name = "memory"
    location = "memory"

    @property
    def entries(self) -> Sequence[Entry]:
        """One entry for each label."""
        return [Entry(b"%04d.png" % i, i, label) for i, label in enumerate(self.labels)]

    def reader(self) -> MemorySource:
        """Itself."""
        return self

    def read(self, entry: Entry) -> bytes:
        """A PNG of one colour, the number in base 256."""
        number = entry.size
        if number in self.broken:
            raise Rejected(RejectCode.NOT_AN_IMAGE, "broken on purpose")
        return number_png(number, self.side)


def number_png(number: int, side: int) -> bytes:
    """A PNG of one colour that says `number`."""
    data = io.BytesIO()
    Image.new("RGB", (side, side), (number % 256, number // 256, 0)).save(data, "PNG")
    return data.getvalue()


class LinearCompute:
    """A patch model in numpy: features are what a patch's pixels say at `dimensions` random directions.

    Patches are 8 × 8 pixels, 8 apart. With `table` float32 [images, patches, classes], features hold the patch's row of
    the table (the image's number read from its colour), and the linear layer is the identity.
    """

    def __init__(
        self,
        classes: Sequence[str],
        *,
        side: tuple[int, int] = (16, 16),
        dimensions: int = 6,
        table: NDArray[np.float32] | None = None,
        name: str = "linear",
        batch_size: int = 3,
    ) -> None:
        self.name = name
        self.architecture = "linear"
        self.width = 1.0
        self.classes = class_records(classes)
        self.transform = Transform(resize=max(side), crop_height=side[0], crop_width=side[1])
        self.grid = make_grid(8, 8, *side)
        self.environment = ENVIRONMENT.model_copy(update={"batch_size": batch_size})
        self.table = table
        rng = np.random.default_rng(len(classes))
        if table is None:
            self.directions = rng.normal(0, 0.01, (8 * 8 * 3, dimensions)).astype(np.float32)
            self.weight = rng.normal(0, 1, (len(classes), dimensions)).astype(np.float32)
        else:
            self.weight = np.eye(len(classes), dtype=np.float32)
        self.bias = np.zeros(len(classes), np.float32)
        self.feature_size = self.weight.shape[1]
        self.parameters = self.weight.size + self.bias.size
        self.weights_sha256 = "0" * 64

    plugin = None
    workers = 1
    candidates: tuple[Precision, ...] = ()

    def at(self, precision: Precision) -> Self:
        """See `bagindex.compute.Compute`; there is float32 only."""
        if precision != "fp32":
            raise SettingsError("only fp32")
        return self

    def pool(self) -> ThreadPoolExecutor:
        """See `bagindex.compute.Compute`."""
        return ThreadPoolExecutor(self.workers)

    def run(self, pixels: NDArray[np.uint8]) -> Evidence:
        """See `bagindex.compute.Compute`."""
        return reduce(self.output(pixels))

    def output(self, pixels: NDArray[np.uint8]) -> PatchOutput:
        """Features and logits, before they are rounded."""
        n = len(pixels)
        if self.table is not None:
            numbers = pixels[:, 0, 0, 0].astype(int) + 256 * pixels[:, 0, 0, 1].astype(int)
            features = self.table[numbers]
        else:
            rows, cols = self.grid.rows, self.grid.cols
            cells = pixels.reshape(n, rows, 8, cols, 8, 3).transpose(0, 1, 3, 2, 4, 5).reshape(n, rows * cols, -1)
            features = cells.astype(np.float32) @ self.directions
        return PatchOutput(features.astype(np.float32), (features @ self.weight.T + self.bias).astype(np.float32))

    def to_safetensors(self) -> bytes:
        """The linear layer."""
        return bytes(save({"fc.weight": self.weight, "fc.bias": self.bias}))
