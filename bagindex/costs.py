"""What an index costs, before it is made: bytes, hours, network, money. Pure, on top of `bagindex.plan.estimate`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from bagindex.errors import SettingsError
from bagindex.plan import NATIVE_ROWS, Estimate, estimate, owed, summary_classes
from bagindex.shards import PIXELS_PER_ROW_GROUP
from bagindex_schemas.records import IndexManifest, Keep, ModelRecord

PICTURES = 7
"""Patches of a row of the paper's Figure 3."""
_OPENING = 1_300_000, 8
"""Bytes and requests that were measured of an index of 50,000 images and 1,000 classes; few depend on its size."""
_ROW = 24
"""Bytes of the catalog for each image in a class's evidence: 1.2 MB were measured for 50,000."""
_RANGES = 4
"""Requests to a shard's file for a class: what is in which place, and the class."""
_PIECE = 8_000_000
"""Bytes that are read in a request, of what is read whole."""
_SMALL = ("images", "predictions", "image_evidence", "weights", "catalog")


@dataclass(frozen=True)
class Prices:
    """What a provider asks for, in any currency; None: not said.

    Attributes:
        hour: of a device.
        month: of a gigabyte that is kept.
        gigabyte: that is read over the network.
        requests: a thousand of them.
    """

    hour: float | None = None
    month: float | None = None
    gigabyte: float | None = None
    requests: float | None = None


@dataclass(frozen=True)
class Means:
    """What an index is made with: so many devices, a network of so many bytes per second, at these prices.

    Raises:
        SettingsError: a number is none of that.
    """

    devices: int = 1
    network: int | None = None
    prices: Prices = Prices()

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.devices < 1:
            raise SettingsError("--devices starts at 1")
        if self.network is not None and self.network < 1:
            raise SettingsError("--network takes bytes per second, more than 0")


@dataclass(frozen=True)
class Question:
    """What a question to a remote index reads, at least: so many bytes in so many requests, of files of this index.

    What a second question of its kind reads again; `first` is read once, and then kept in the local cache.
    """

    question: str
    bytes: int
    requests: int
    first: bool = False

    def seconds(self, network: float) -> float:
        """On a network of so many bytes per second, without the requests' own delays."""
        return self.bytes / network

    def price(self, prices: Prices) -> float | None:
        """None where it is not said what bytes and requests cost."""
        if prices.gigabyte is None and prices.requests is None:
            return None
        return self.bytes / 1e9 * (prices.gigabyte or 0.0) + self.requests / 1000 * (prices.requests or 0.0)


@dataclass(frozen=True)
class Cost:
    """What an index of one model costs at a keep level."""

    model: str
    keep: Keep
    estimate: Estimate
    questions: tuple[Question, ...]

    @property
    def bytes(self) -> Mapping[str, int]:
        """Bytes by what they are for; `summary` is all tables that every level has, the weights and the catalog."""
        tables = self.estimate.tables
        named = {name: tables.get(name, 0) for name in ("features", "similar", "evidence", "pixels")}
        return {**named, "summary": sum(tables.get(name, 0) for name in _SMALL)}

    def writing(self, bytes_per_second: float) -> float:
        """Images per second that the largest file allows, which one thread writes; evidence is written twice, once in
        passing. Infinite where there is no such file.
        """
        largest = max(self.bytes["features"], 2 * self.bytes["evidence"])
        return bytes_per_second * self.estimate.images / largest if largest else float("inf")

    def hours(self, images_per_second: float) -> float:
        """Of computing, at a rate of all devices together."""
        return self.estimate.images / images_per_second / 3600

    def upload_hours(self, network: float) -> float:
        """To a remote index, on a network of so many bytes per second."""
        return self.estimate.total / network / 3600

    def month(self, prices: Prices) -> float | None:
        """What keeping it for a month costs."""
        return None if prices.month is None else self.estimate.total / 1e9 * prices.month


def cost(manifest: IndexManifest, record: ModelRecord, keep: Keep, pixel_bytes: float, weights: int) -> Cost:
    """The cost of an index of one model, made anew.

    Args:
        manifest: its plan; the models do not count.
        record: the model.
        keep: the level.
        pixel_bytes: what the pixels of one image take, compressed.
        weights: bytes of the model's file.
    """
    record = record.model_copy(update={"levels": (keep,)})
    manifest = manifest.model_copy(update={"models": {record.name: record}})
    found = estimate(manifest, owed(manifest, [record.name], {}), pixel_bytes, weights)
    return Cost(record.name, keep, found, tuple(_questions(manifest, record, found, pixel_bytes)))


def _questions(manifest: IndexManifest, record: ModelRecord, found: Estimate, pixel_bytes: float) -> list[Question]:
    plan, patches = manifest.plan, record.grid.patches
    images, shards = found.images, len(manifest.shards)
    classes = max(1, len(plan.classes))
    native = images * classes <= NATIVE_ROWS
    shared = min(classes, summary_classes(images // max(1, shards)))
    ranked = (_ROW * images, 4) if native else (found.tables["image_evidence"] * shared // classes, _RANGES * shards)
    tables = record.keep.tables
    asked = [
        [Question("opening it", *_OPENING, first=True)],
        [Question("the strongest patches of a class", *ranked)],
        [Question(f"{PICTURES} patches as pictures", int(PICTURES * PIXELS_PER_ROW_GROUP * pixel_bytes), PICTURES)]
        if plan.pixels
        else [],
        [Question("all evidence of a class", 2 * patches * images, _RANGES * shards)] if "evidence" in tables else [],
        [
            Question("the FAISS index", found.tables["similar"], _pieces(found.tables["similar"]), first=True),
            Question("the features of an image", 2 * patches * record.feature_size, 1),
        ]
        if "features" in tables
        else [],
    ]
    return list(chain.from_iterable(asked))


def _pieces(size: int) -> int:
    return -(-size // _PIECE)
