"""The JSON records of an index (`index.json`, `shard.json`) and the small values inside them."""

from __future__ import annotations

import hashlib
import json
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializerFunctionWrapHandler,
    model_serializer,
    model_validator,
)

FORMAT_VERSION: Literal[3] = 3
"""Raised when an index written by this version can no longer be read by an older one.

All earlier ones are read: 1 had no seals, 2 no merged evidence. What is written is in this one.
"""

# What an index says of itself is checked when it is read: names lead nowhere else, and numbers are of a size that
# memory can be asked for.
MODEL_NAME = r"^[a-z0-9][a-z0-9_-]*$"
"""A model's name is also its folder's; `images` is taken."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
FileName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)]
_MOST_IMAGES = 2**40
_MOST_SHARDS = 2**17
LARGEST_INPUT = 4096
"""Pixels of the longer side of a model's input."""
LARGEST_RESIZE = 2 * LARGEST_INPUT
"""Pixels of the shorter side of a picture of which that is the middle."""
_MOST_CHANNELS = 2**20
Level = Annotated[int, Field(ge=0, le=255)]
"""Of red, green or blue."""


class Record(BaseModel):
    """A frozen record; unknown fields are errors, so that a damaged file is not half-read."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class Grown(Record):
    """A record that got fields later: those are left out where they have their defaults, so that what it says of what
    was there before is read by the versions of then.
    """

    _later: ClassVar[frozenset[str]] = frozenset()

    @model_serializer(mode="wrap")
    def _without_defaults(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        usual = {name for name in self._later if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in handler(self).items() if name not in usual}


class Keep(StrEnum):
    """How much of the evidence an index stores; each level holds the ones below it."""

    FEATURES = "features"
    EVIDENCE = "evidence"
    SUMMARY = "summary"

    @property
    def tables(self) -> frozenset[str]:
        """The tables of a model that this level stores."""
        return frozenset(
            {
                Keep.SUMMARY: {"predictions", "image_evidence"},
                Keep.EVIDENCE: {"predictions", "image_evidence", "evidence"},
                Keep.FEATURES: {"predictions", "image_evidence", "evidence", "features"},
            }[self]
        )


Precision = Literal["fp32", "tf32", "bf16", "fp16"]
"""What a model's features are computed in. Its linear layer, means and maxima are in float32 always."""
AskedPrecision = Literal["auto", "fp32", "tf32", "bf16", "fp16"]


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

    resize: int = Field(gt=0, le=LARGEST_RESIZE)
    crop_height: int = Field(gt=0, le=LARGEST_INPUT)
    crop_width: int = Field(gt=0, le=LARGEST_INPUT)
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)


class Padding(Record):
    """What a model lays around its input of `height` × `width` pixels, so that patches reach beyond it: a colour."""

    height: int = Field(gt=0, le=LARGEST_INPUT)
    width: int = Field(gt=0, le=LARGEST_INPUT)
    colour: tuple[Level, Level, Level]


class Grid(Grown):
    """The output grid of a patch model: `rows` × `cols` patches of `receptive_field`² pixels, `stride` apart.

    The first begins at pixel `offset` of both axes, which is below 0 where the model pads its input.
    """

    receptive_field: int = Field(gt=0, le=LARGEST_INPUT)
    stride: int = Field(gt=0, le=LARGEST_INPUT)
    rows: int = Field(gt=0, le=LARGEST_INPUT)
    cols: int = Field(gt=0, le=LARGEST_INPUT)
    offset: int = Field(default=0, ge=-LARGEST_INPUT, le=LARGEST_INPUT)
    padding: Padding | None = Field(default=None, description="where a patch reaches beyond the input")

    _later = frozenset({"offset", "padding"})

    @property
    def border(self) -> float:
        """Pixels before the square of side `stride` in the middle of the first patch, which stands for it in maps."""
        return self.offset + (self.receptive_field - self.stride) / 2

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
    listed: int = Field(ge=0, description="files of the whole source; more than `files` where a part was taken")


class ShardRange(Record):
    """Images `first` <= image_id < `first + count`."""

    first: int = Field(ge=0, le=_MOST_IMAGES)
    count: int = Field(gt=0, le=_MOST_IMAGES)


class Plan(Record):
    """What never changes in an index: its source, input transform, classes and cut into shards."""

    source: SourceRecord
    transform: Transform
    classes: tuple[ClassRecord, ...]
    labels: dict[str, int | None] = Field(description="class_id of each of the source's labels; None: unlabelled")
    pixels: bool
    shards: tuple[ShardRange, ...] = Field(max_length=_MOST_SHARDS)

    def digest(self) -> str:
        """SHA-256 of the plan's canonical JSON; every shard carries it."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


class Growth(Record):
    """Images that came to an index later: new shards at the end.

    `source` is the whole source as it was listed then, `labels` what its labels mean; `retried`: files that were
    rejected for a passing reason came again.
    """

    source: SourceRecord
    retried: bool
    labels: dict[str, int | None]
    shards: tuple[ShardRange, ...] = Field(max_length=_MOST_SHARDS)


class Environment(Record):
    """The settings that a shard's exact bytes depend on."""

    device: str
    threads: int
    batch_size: int
    precision: Precision
    versions: dict[str, str]


class Comparison(Record):
    """A precision beside float32, on the same images."""

    precision: Precision
    shard: int | None = Field(default=None, description="the shard of the images; None: drawn from the whole plan")
    images: int = Field(gt=0)
    top1_equal: int = Field(description="images whose predicted class is the same")
    logit_error: float | None = Field(
        description="of all patch logits: the L2 norm of the difference over float32's; None: float16 cannot hold them"
    )
    top_patches_equal: float = Field(description="share of the classes' strongest patches that are the same")
    feature_error: float = Field(
        description="largest over all patches: L2 norm of the feature's difference over float32's, or over the mean "
        "norm of the image's features where that is larger"
    )
    speedup: float | None = Field(default=None, description="images per second, relative to float32")
    accepted: bool

    def __str__(self) -> str:
        """For people."""
        where = "" if self.shard is None else f" in shard {self.shard}"
        if self.logit_error is None:
            return f"{self.precision}: values beyond what float16 holds{where}"
        faster = "" if self.speedup is None else f", {self.speedup:.1f} times as fast"
        return (
            f"{self.precision}: {self.top1_equal} of {self.images} predictions{where} and "
            f"{100 * self.top_patches_equal:.1f} % of the top patches equal, patch logits "
            f"{100 * self.logit_error:.2f} % off{faster}"
        )


class Plugin(Record):
    """Where a model is from that is no BagNet, and what it is run by; its weights are the index's own."""

    asked: str = Field(min_length=1, max_length=200, description="as --model takes it")
    package: str | None = Field(default=None, description="that was installed then; None: it was registered in Python")
    version: str | None = None

    def __str__(self) -> str:
        """For people."""
        whose = " ".join(each for each in (self.package, self.version) if each)
        return f"{self.asked} ({whose or 'registered in Python'})"


class ModelRecord(Grown):
    """One model of an index."""

    name: str = Field(pattern=MODEL_NAME)
    architecture: str
    width: float
    parameters: int
    feature_size: int = Field(gt=0, le=_MOST_CHANNELS)
    grid: Grid
    levels: tuple[Keep, ...] = Field(min_length=1, description="the keep level of the first build, then higher ones")
    precision: Precision = Field(default="fp32", description="of new shards; each shard's own is in its shard.json")
    precision_asked: AskedPrecision = "fp32"
    precision_reason: str = Field(default="", description="why this one was taken")
    comparisons: tuple[Comparison, ...] = ()
    weights_sha256: str = Field(description="of the checkpoint that the user gave")
    file_bytes: int
    file_sha256: Sha256 = Field(description="of model.safetensors in the index")
    environment: Environment = Field(description="of the build that added the model")
    plugin: Plugin | None = Field(default=None, description="what runs it; None: it is a BagNet")

    _later = frozenset({"plugin"})

    @property
    def keep(self) -> Keep:
        """The highest level."""
        return self.levels[-1]

    @property
    def series(self) -> dict[str, frozenset[str]]:
        """The tables of each series of shards: the first build's folder, and one below it for each level filled in."""
        found: dict[str, frozenset[str]] = {}
        before: frozenset[str] = frozenset()
        for level in self.levels:
            found[f"{self.name}/{level}" if found else self.name] = level.tables - before
            before = level.tables
        return found

    def feature_tolerance(self, precision: Precision) -> float | None:
        """How far a feature may be from float32's: twice the largest error that was seen, since only some patches were
        compared; None where none were.
        """
        seen = [each.feature_error for each in self.comparisons if each.precision == precision]
        return 2 * max(seen) if seen else None

    def series_of(self, table: str) -> str:
        """The series that holds a table; KeyError when none does."""
        for series, tables in self.series.items():
            if table in tables:
                return series
        raise KeyError(table)


class Relabelling(Record):
    """Labels that were given later; `file` beside index.json holds them."""

    file: str = Field(pattern=r"^labels-[0-9a-f]{12}\.parquet$")
    sha256: Sha256
    images: int


class IndexManifest(Record):
    """`index.json`."""

    format: Literal[1, 2, 3] = FORMAT_VERSION  # first, so that other versions find it whatever comes after it
    plan: Plan
    growths: tuple[Growth, ...] = ()
    models: dict[str, ModelRecord]
    relabelling: Relabelling | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        if any(name != record.name for name, record in self.models.items()):
            raise ValueError("a model has two names")
        if "images" in self.models:
            raise ValueError("a model is called images")
        if [record.class_id for record in self.plan.classes] != list(range(len(self.plan.classes))):
            raise ValueError("the classes are not numbered from 0")
        height, width = self.plan.transform.crop_height, self.plan.transform.crop_width
        for record in self.models.values():
            grid, padding = record.grid, record.grid.padding
            if padding is not None and (padding.height, padding.width) != (height, width):
                raise ValueError(f"{record.name} pads another input")
            # How far a patch may begin before the input, and end after it.
            beyond = 0 if padding is None else grid.receptive_field - 1
            for count, side in ((grid.rows, height), (grid.cols, width)):
                last = grid.offset + (count - 1) * grid.stride + grid.receptive_field
                if grid.offset < -beyond or last > side + beyond:
                    raise ValueError(f"the patches of {record.name} do not lie in the input")
        place = 0
        for shard in self.shards:
            if shard.first != place:
                raise ValueError(f"a shard begins at image {shard.first} where the one before ends at {place}")
            place += shard.count
        return self

    @property
    def shards(self) -> tuple[ShardRange, ...]:
        """All shards, the plan's and those that came later."""
        return self.plan.shards + tuple(shard for growth in self.growths for shard in growth.shards)

    @property
    def series(self) -> tuple[str, ...]:
        """The series of shards of all models."""
        return tuple(series for record in self.models.values() for series in record.series)

    @property
    def source(self) -> SourceRecord:
        """The source as it was last listed."""
        return self.growths[-1].source if self.growths else self.plan.source

    @property
    def labels(self) -> dict[str, int | None]:
        """What the source's labels mean."""
        merged = dict(self.plan.labels)
        for growth in self.growths:
            merged |= growth.labels
        return merged


class FileRecord(Record):
    """A committed file."""

    bytes: int = Field(ge=0)
    sha256: Sha256


class CatalogRecord(Record):
    """`CURRENT`: the catalog in force."""

    catalog: str = Field(pattern=r"^catalog-\d+\.duckdb$")
    file: FileRecord | None = Field(description="None: a version before format 2 wrote only the name")


class MergedShard(Record):
    """What merged evidence holds of a shard."""

    shard: int = Field(ge=0)
    rows: int = Field(ge=0, description="of each class")
    file_sha256: Sha256 = Field(description="of the shard's own evidence.parquet, as its shard.json has it")
    values_sha256: Sha256 = Field(description="over its logits, class by class")


class MergedManifest(Record):
    """`merged.json`: the evidence of some shards of a series in one file, a row group for each class."""

    plan_sha256: str
    shards: tuple[MergedShard, ...] = Field(min_length=1, max_length=_MOST_SHARDS)
    offsets: tuple[int, ...] = Field(description="byte offset of each class's logits in evidence.parquet")
    files: dict[FileName, FileRecord]


class ShardManifest(Record):
    """`shard.json`, written last into a shard's folder."""

    kind: Literal["images", "model"]
    shard: int
    plan_sha256: str
    span: ShardRange
    images_sha256: str = Field(description="over the content hashes of the shard's images, in order")
    rows: dict[str, int]
    files: dict[FileName, FileRecord]
    environment: Environment | None = None
    feature_offsets: tuple[int, ...] | None = Field(
        default=None, description="byte offset of each image's float16 features in features.parquet"
    )
