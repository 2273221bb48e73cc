"""From what a person asks of a build to its source, classes and model. The quick checks come first."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path

from bagindex.compute import BagNetCompute, Compute, find_device
from bagindex.errors import LabelError, SettingsError, WeightsError
from bagindex.labels import map_labels, read_class_map, read_classes
from bagindex.registry import ARCHITECTURES
from bagindex.sources import Layout, Source, open_folder
from bagindex_schemas.records import ClassRecord, Transform


@dataclass(frozen=True)
class SourceOptions:
    """Where the images and their labels come from."""

    place: Path
    layout: Layout = Layout.AUTO
    labels: Path | None = None
    class_map: Path | None = None
    follow_symlinks: bool = False


@dataclass(frozen=True)
class ModelOptions:
    """Which model runs, and how.

    Attributes:
        classes: a class list file, or `imagenet`; by default the checkpoint's own.
        image_size: height and width of the input; the resize keeps its proportion to the crop.
    """

    name: str | None = None
    weights: Path | None = None
    classes: str | None = None
    image_size: tuple[int, int] | None = None
    device: str = "auto"
    batch_size: int | None = None


def open_source(options: SourceOptions) -> Source:
    """List the source. Named data sets are to be looked up here."""
    return open_folder(
        options.place, layout=options.layout, labels=options.labels, follow_symlinks=options.follow_symlinks
    )


def open_model(options: ModelOptions) -> Compute:
    """Load the checkpoint and put the model on its device.

    Raises:
        WeightsError: no weights, or unusable ones.
        LabelError: nothing names the classes, or not as many as there are logits.
        SettingsError: no such model or device, or an input too small for the model.
    """
    from bagindex.weights import read_checkpoint

    if options.name is not None and options.name not in ARCHITECTURES:
        raise SettingsError(f"there is no model {options.name!r}: choose from {', '.join(ARCHITECTURES)}")
    if options.weights is None:
        raise WeightsError(f"{options.name or 'the model'} needs weights: give --weights FILE")
    device = find_device(options.device)
    checkpoint = read_checkpoint(options.weights, options.name)
    classes = _classes(options.classes, checkpoint.classes, checkpoint.class_count, options.weights)
    transform = scale(
        checkpoint.transform or Transform(resize=256, crop_height=224, crop_width=224), options.image_size
    )
    return BagNetCompute(checkpoint.architecture.name, checkpoint, classes, transform, device, options.batch_size)


def class_ids(source: Source, compute: Compute, class_map: Path | None) -> Mapping[str, int | None]:
    """The class of each of the source's labels; see `bagindex.labels.map_labels`."""
    labels = [entry.label for entry in source.entries if entry.label is not None]
    return map_labels(labels, compute.classes, read_class_map(class_map) if class_map else None)


def scale(transform: Transform, image_size: tuple[int, int] | None) -> Transform:
    """The transform for another input size (height, width), the resize in proportion.

    Raises:
        SettingsError: the input would be larger than the resized picture.
    """
    if transform.resize < max(transform.crop_height, transform.crop_width):
        raise SettingsError(
            f"the checkpoint cuts {transform.crop_height} x {transform.crop_width} pixels out of a picture resized to "
            f"{transform.resize}: mend its `resize` or `crop` metadata"
        )
    if image_size is None:
        return transform
    height, width = image_size
    if min(image_size) < 1:
        raise SettingsError("--image-size takes a number of pixels, or HEIGHTxWIDTH")
    resize = round(max(image_size) * transform.resize / max(transform.crop_height, transform.crop_width))
    return transform.model_copy(update={"resize": resize, "crop_height": height, "crop_width": width})


def _classes(
    asked: str | None, own: tuple[ClassRecord, ...] | None, count: int, weights: Path
) -> tuple[ClassRecord, ...]:
    if asked is None:
        if own is None:
            raise LabelError(
                f"{weights.name} does not name its {count} classes: give --classes FILE (a name on each line, in the "
                "order of the logits) or --classes imagenet"
            )
        return own
    if asked == "imagenet":
        with as_file(files("bagindex_schemas") / "imagenet_classes.csv") as path:
            classes = read_classes(path)
    else:
        classes = read_classes(Path(asked))
    if len(classes) != count:
        raise LabelError(f"{weights.name} has {count} logits, but --classes {asked} names {len(classes)} classes")
    return classes
