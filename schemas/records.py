"""The JSON records of an index (`index.json`, `shard.json`) and the small values inside them."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

FORMAT_VERSION = 1
"""Raised when an index written by this version can no longer be read by an older one."""


class Record(BaseModel):
    """A frozen record; unknown fields are errors, so that a damaged file is not half-read."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Keep(StrEnum):
    """How much of the evidence an index stores; each level holds the ones below it."""

    FEATURES = "features"
    EVIDENCE = "evidence"
    SUMMARY = "summary"

    @property
    def has_evidence(self) -> bool:
        """Whether every patch's logit for every class is stored."""
        return self is not Keep.SUMMARY

    @property
    def has_features(self) -> bool:
        """Whether every patch's feature is stored."""
        return self is Keep.FEATURES


class RejectCode(StrEnum):
    """Why a file of the source is not in the index."""

    DAMAGED = "damaged"
    EMPTY = "empty"
    IO_ERROR = "io_error"
    MISSING = "missing"
    NOT_AN_IMAGE = "not_an_image"
    NOT_REGULAR = "not_regular"
    PERMISSION = "permission"
    SYMLINK = "symlink"
    TOO_ELONGATED = "too_elongated"
    TOO_LARGE = "too_large"
    TOO_SMALL = "too_small"
    TRUNCATED = "truncated"
    UNSUPPORTED = "unsupported"


class ClassRecord(Record):
    """A class of the model; its `class_id` is its place among the logits."""

    class_id: int = Field(ge=0)
    name: str
    wnid: str | None = None


class Transform(Record):
    """The way from a picture to the model's input.

    The shorter side is resized to `resize` pixels (bilinear, antialiased, as Pillow does it), then the centre
    `crop_height` × `crop_width` is cut out, scaled to [0, 1] and normalised by `mean` and `std` (RGB).
    """

    resize: int = Field(gt=0)
    crop_height: int = Field(gt=0)
    crop_width: int = Field(gt=0)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class Grid(Record):
    """The output grid of a patch model: `rows` × `cols` patches of `receptive_field`² pixels, `stride` apart."""

    receptive_field: int = Field(gt=0)
    stride: int = Field(gt=0)
    rows: int = Field(gt=0)
    cols: int = Field(gt=0)

    @property
    def patches(self) -> int:
        """Number of patches of one image."""
        return self.rows * self.cols


class SourceRecord(Record):
    """Where the images came from. No absolute path is kept: `location` is a hash of it."""

    kind: str
    name: str
    location: str
    fingerprint: str
    files: int = Field(ge=0)


class ShardRange(Record):
    """Images `first` <= image_id < `first + count`."""

    first: int = Field(ge=0)
    count: int = Field(gt=0)


class Plan(Record):
    """What never changes in an index: its source, input transform, classes and cut into shards."""

    source: SourceRecord
    transform: Transform
    classes: tuple[ClassRecord, ...]
    labels: dict[str, int | None] = Field(description="class_id of each of the source's labels; None: unlabelled")
    pixels: bool
    shards: tuple[ShardRange, ...]

    @property
    def files(self) -> int:
        """Number of files that the shards cover."""
        return sum(shard.count for shard in self.shards)

    def digest(self) -> str:
        """SHA-256 of the plan's canonical JSON; every shard carries it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Environment(Record):
    """The settings that a shard's exact bytes depend on."""

    device: str
    threads: int
    batch_size: int
    precision: str
    versions: dict[str, str]


class ModelRecord(Record):
    """One model of an index."""

    name: str
    architecture: str
    width: float
    parameters: int
    feature_size: int
    grid: Grid
    keep: Keep
    precision: Literal["fp32"] = "fp32"
    weights_sha256: str = Field(description="of the checkpoint that the user gave")
    file_sha256: str = Field(description="of model.safetensors in the index")
    environment: Environment = Field(description="of the build that added the model")


class IndexManifest(Record):
    """`index.json`."""

    format: int = FORMAT_VERSION
    plan: Plan
    models: dict[str, ModelRecord]


class FileRecord(Record):
    """A committed file."""

    bytes: int
    sha256: str


class ShardManifest(Record):
    """`shard.json`, written last into a shard's folder."""

    kind: Literal["images", "model"]
    shard: int
    plan_sha256: str
    images_sha256: str = Field(description="over the content hashes of the shard's images, in order")
    rows: dict[str, int]
    files: dict[str, FileRecord]
    environment: Environment | None = None
    feature_offsets: tuple[int, ...] | None = Field(
        default=None, description="byte offset of each image's float16 features in features.parquet"
    )
