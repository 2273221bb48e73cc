"""Arrow schemas of the Parquet files, one per table."""

from __future__ import annotations

import pyarrow as pa


def _column(name: str, type_: pa.DataType, nullable: bool = False) -> pa.Field:
    return pa.field(name, type_, nullable=nullable)


def _array(element: pa.DataType, size: int) -> pa.DataType:
    return pa.list_(pa.field("element", element, nullable=False), size)


IMAGES = pa.schema(
    [
        _column("image_id", pa.int64()),
        _column("path", pa.string()),
        _column("path_bytes", pa.binary(), nullable=True),
        _column("label", pa.int32(), nullable=True),
        _column("width", pa.int32()),
        _column("height", pa.int32()),
        _column("bytes", pa.int64()),
        _column("sha256", pa.string()),
        _column("resized_width", pa.int32()),
        _column("resized_height", pa.int32()),
        _column("crop_left", pa.int32()),
        _column("crop_top", pa.int32()),
    ]
)
"""`path` is relative to the source; where its bytes are not UTF-8, `path_bytes` holds them and `path` shows the odd
ones as `\\xNN`. `bytes` and `sha256` are the file's; `width` and `height` are pixels after EXIF rotation; the last four
columns place the model's input in the picture (see `bagindex.geometry.Placement`)."""

REJECTS = pa.schema(
    [
        _column("image_id", pa.int64()),
        _column("path", pa.string()),
        _column("path_bytes", pa.binary(), nullable=True),
        _column("bytes", pa.int64()),
        _column("code", pa.string()),
        _column("message", pa.string()),
    ]
)
"""`image_id` is the place in the listing, which no image takes; `bytes` the size as it was listed."""

LABELS = pa.schema([_column("image_id", pa.int64()), _column("label", pa.int32(), nullable=True)])
"""Labels that were given later; a null makes an image unlabelled."""

PIXELS = pa.schema([_column("image_id", pa.int64()), _column("pixels", pa.binary())])
"""`pixels` is the model's input before normalisation: uint8, height × width × RGB, C order."""

IMAGE_EVIDENCE = pa.schema(
    [
        _column("class_id", pa.int32()),
        _column("image_id", pa.int64()),
        _column("max_logit", pa.float32()),
        _column("patch_id", pa.int64()),
        _column("mean_logit", pa.float32()),
    ]
)
"""Sorted by class_id, image_id; row groups hold whole classes."""

EVIDENCE = pa.schema([_column("class_id", pa.int32()), _column("patch_id", pa.int64()), _column("logit", pa.float16())])
"""Sorted by class_id, patch_id; one row group per class."""


def predictions(classes: int) -> pa.Schema:
    """Schema of the predictions of a model with `classes` classes (top 5, or all where there are fewer)."""
    return pa.schema(
        [
            _column("image_id", pa.int64()),
            _column("predicted", pa.int32()),
            _column("top5", _array(pa.int32(), min(5, classes))),
            _column("probability", pa.float32()),
            _column("logits", _array(pa.float32(), classes)),
        ]
    )


def features(feature_size: int) -> pa.Schema:
    """Schema of patch features, float16[feature_size]; one row group per image."""
    return pa.schema([_column("patch_id", pa.int64()), _column("feature", _array(pa.float16(), feature_size))])


PATCH_WORDS = pa.schema([_column("patch_id", pa.int64()), _column("word", pa.int32())])
"""The word of every patch. Sorted by patch_id."""

WORD_EVIDENCE = pa.schema(
    [
        _column("class_id", pa.int32()),
        _column("word", pa.int32()),
        _column("mean_logit", pa.float64()),
    ]
)
"""The mean evidence of a word's patches for each class, over all images. Sorted by class_id, word."""


def words(feature_size: int) -> pa.Schema:
    """Schema of the visual words, numbered from 0, the largest first.

    `similarity` is the mean cosine between a word's patches and its centroid (of length 1); `typical` are the patches
    with the largest one, each of another image, largest first.
    """
    return pa.schema(
        [
            _column("word", pa.int32()),
            _column("patches", pa.int64()),
            _column("images", pa.int64()),
            _column("similarity", pa.float32()),
            _column("typical", pa.list_(pa.field("element", pa.int64(), nullable=False))),
            _column("centroid", _array(pa.float32(), feature_size)),
        ]
    )


MAP = pa.schema(
    [
        _column("patch_id", pa.int64()),
        _column("word", pa.int32()),
        _column("class_id", pa.int32()),
        _column("logit", pa.float32()),
        _column("x", pa.float32()),
        _column("y", pa.float32()),
    ]
)
"""A map's points: patches, sorted by patch_id (`word` is -1), or words, each with its most typical patch. `class_id` is
the class that a patch speaks most for, and `logit` its evidence for that one; of a word, the mean of its patches', and
the class for which that is most above the mean of all patches.
"""
