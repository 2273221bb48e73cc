"""The records of a training: how, with what result. They stand in the metadata of the weights that it gives."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from bagindex_schemas.records import Record

Precision = Literal["fp32", "tf32", "bf16", "fp16"]


class Recipe(Record):
    """How a BagNet is trained. The defaults are made for a few thousand photographs.

    A training picture is a random crop (between `min_scale` and all of the picture's area, aspect ratio 3/4 to 4/3)
    resized to `crop_size` pixels square, mirrored half of the time; in the first `first_epochs` epochs to `first_size`
    pixels. A validation picture is the centre crop of the same size out of the picture resized to 8/7 of it.
    """

    name: Literal["default", "paper"] = "default"
    epochs: int = Field(default=30, ge=1)
    batch_size: int = Field(default=32, ge=2, description="pictures of a step, over all devices")
    optimizer: Literal["adamw", "sgd"] = "adamw"
    learning_rate: float = Field(default=2e-3, gt=0)
    schedule: Literal["cosine", "step"] = "cosine"
    warmup_epochs: float = Field(default=1.0, ge=0, description="epochs of linear growth from 0")
    weight_decay: float = Field(default=0.05, ge=0)
    momentum: float = Field(default=0.9, ge=0, lt=1, description="of sgd")
    label_smoothing: float = Field(default=0.1, ge=0, lt=1)
    crop_size: int = Field(default=224, ge=9, le=4096, description="side of the model's input, pixels")
    first_size: int = Field(default=128, ge=9, le=4096, description="side of the input in the first epochs, pixels")
    first_epochs: int = Field(default=22, ge=0)
    min_scale: float = Field(default=0.25, gt=0, le=1, description="least share of the picture's area in a crop")
    flip: bool = True
    freeze_features: bool = Field(default=False, description="train the linear layer only")
    precision: Precision = "fp32"
    storage: Literal["fp32", "fp16"] = Field(default="fp32", description="of the weights; validated as they are stored")
    seed: int = Field(default=0, ge=0, lt=2**32)


class EpochRecord(Record):
    """What an epoch gave; accuracies are shares of 1. Training figures are running means over the epoch's steps."""

    epoch: int = Field(ge=1)
    input_size: int
    learning_rate: float = Field(description="at the epoch's end")
    train_loss: float
    train_top1: float
    train_top5: float
    validation_loss: float
    validation_top1: float
    validation_top5: float
    images_per_second: float = Field(description="of the training part")
    seconds: float


class TrainingRecord(Record):
    """Where weights come from: the metadata key `training` of a checkpoint, as JSON.

    `validation_*` are the figures of `epoch`, whose weights these are. Top-5 counts as many classes as there are where
    there are fewer than five.
    """

    recipe: Recipe
    data: str
    fingerprint: str = Field(description="over every path, size and label of the training and validation pictures")
    initial_sha256: str | None = Field(description="of the checkpoint that the training began with")
    train_images: int
    validation_images: int
    epoch: int
    validation_loss: float
    validation_top1: float
    validation_top5: float
