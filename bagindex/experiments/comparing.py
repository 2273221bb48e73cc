"""Whether what is measured on an index can be compared with the paper's figures."""

from __future__ import annotations

from bagindex.experiments.experiment import Setting
from bagindex.registry import published
from bagindex_schemas.records import ModelRecord

VALIDATION = "imagenet-val"
"""The name of the paper's data, among sources."""
VALIDATION_IMAGES = 50_000


def other_data(setting: Setting) -> str:
    """In what the images differ from the paper's; nothing where they are the same."""
    source = setting.catalog.manifest.source
    if source.name != VALIDATION:
        return f"other images: {len(setting.image_ids):,} of {source.name}, not ImageNet's {VALIDATION_IMAGES:,}"
    if len(setting.image_ids) != VALIDATION_IMAGES:
        return f"{len(setting.image_ids):,} of ImageNet's {VALIDATION_IMAGES:,} validation images"
    return ""


def other_weights(record: ModelRecord) -> str:
    """In what a model differs from the authors'; nothing where it is theirs."""
    known = published().get(record.architecture)
    if known is None or not record.weights_sha256.startswith(known.sha256_start):
        return "other weights than the authors'"
    return "" if record.precision == "fp32" else f"computed in {record.precision}"


def why_not(setting: Setting, record: ModelRecord, *others: str) -> str:
    """Why figures of a model cannot be compared with the paper's, and `others` besides; nothing where they can."""
    return "; ".join(reason for reason in (other_data(setting), other_weights(record), *others) if reason)
