"""From what a person asks of a build to its source, classes and model. The quick checks come first."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

from bagindex import home, official
from bagindex.compute import BagNetCompute, Compute, find_device
from bagindex.errors import LabelError, SettingsError, WeightsError
from bagindex.labels import check_classes, imagenet_classes, map_labels, read_class_map, read_classes
from bagindex.models.finding import Found, find
from bagindex.models.interface import PatchModel
from bagindex.observer import BuildObserver
from bagindex.registry import ARCHITECTURES, published
from bagindex.sources import Source
from bagindex.sources.items import spool_path, until_done
from bagindex.sources.opening import PathLike, SourceOptions, open_source, usual_model
from bagindex.store import IndexDirectory
from bagindex_schemas.records import LARGEST_INPUT, LARGEST_RESIZE, ClassRecord, IndexManifest, Transform

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class ModelOptions:
    """How models run.

    Attributes:
        classes: a class list file, or `imagenet`; by default the checkpoint's own.
        image_size: height and width of the input; the resize keeps its proportion to the crop.
        allow_hash: a SHA-256 that official weights may have instead of their own.
        elsewhere: the models run in other processes, on that device; here they are only looked at, on the CPU.
    """

    classes: str | None = None
    image_size: tuple[int, int] | None = None
    device: str = "auto"
    batch_size: int | None = None
    allow_hash: str | None = None
    elsewhere: bool = False


@dataclass(frozen=True)
class Prepared:
    """An index's place, source, classes of the source's labels, and models."""

    directory: IndexDirectory
    source: Source
    class_ids: Mapping[str, int | None]
    computes: Sequence[Compute]


def prepare(
    asked: SourceOptions,
    models: Sequence[str],
    weights: Sequence[str],
    options: ModelOptions,
    name: str | None,
    out: PathLike | None,
    observer: BuildObserver,
    compute: Compute | Sequence[Compute] | None = None,
    *,
    to_write: bool = False,
) -> Prepared:
    """Open the source, then the models.

    Args:
        asked, options: what of them.
        models, weights: as for `open_models`; the default for a named data set is its own.
        name, out: where the index is to be: by name, or in a folder; by default by a name from the source's.
        observer: hears what is done.
        compute: models that are open already.
        to_write: the index is to be written then: who is writing it already is told before models are loaded, which
            takes seconds.

    Raises:
        BagindexError: as for `open_source`, `open_models` and `class_ids`.
        SettingsError: two places for the index.
        LockedError: another process is writing it.
    """
    if name is not None and out is not None:
        raise SettingsError("give --name or --out, not both")
    place = home.at(out) if out is not None else None if name is None else home.named(name)
    source = open_source(replace(asked, spool=None if place is None else spool_path(place.place)), observer)
    directory = place or home.for_source(source.name, source.location)
    with until_done(source, finished=False):
        if to_write and directory.exists() and not directory.elsewhere:
            with directory.writing():
                pass
        if compute is None:
            if not models and not weights and (default := usual_model(asked.place)):
                models = [default]
            compute = open_models(models, weights, options, observer)
        computes = compute if isinstance(compute, Sequence) else [compute]
        return Prepared(directory, source, class_ids(source, computes[0].classes, asked), computes)


def open_models(
    names: Sequence[str], weights: Sequence[str], options: ModelOptions, observer: BuildObserver
) -> list[Compute]:
    """Load checkpoints and put the models on their device.

    Args:
        names: architectures, in the order of the weights; may be left out where there are weights.
        weights: checkpoint files; without any, the official weights are taken, and fetched where they are not there.
        options: how they run.
        observer: hears of a download.

    Raises:
        WeightsError: no weights, or unusable ones.
        LabelError: nothing names the classes, or not as many as there are logits.
        SettingsError: no such model or device, or an input too small for the model.
    """
    own = {name: find(name) for name in names if name not in ARCHITECTURES}
    bagnets = [name for name in names if name in ARCHITECTURES]
    if not names and not weights:
        raise WeightsError(
            "which model? Give --weights FILE, or --model "
            f"({', '.join(name for name in published() if name in ARCHITECTURES)}) for the official weights"
        )
    if not weights:
        fetched = [
            official.fetch(
                name,
                allow_hash=options.allow_hash,
                progress=partial(observer.fetched, f"the weights of {name}"),
                note=observer.note,
            )
            for name in bagnets
        ]
        weights = [os.fspath(path) for path in fetched]
    if names and len(weights) not in (len(names), len(bagnets)):
        raise SettingsError(
            f"{len(names)} models and {len(weights)} weights: give --weights for each --model, in order"
        )
    if options.batch_size is not None and options.batch_size < 1:
        raise SettingsError("--batch-size starts at 1")
    files = [Path(file) for file in weights]
    for each in files:
        if not each.is_file():
            raise WeightsError(f"no weights at {each}: give --weights FILE")
    observer.note("loading the model")
    # Only now: importing torch takes seconds.
    from bagindex.weights import read_checkpoint

    device = find_device("cpu" if options.elsewhere else options.device)
    computes: list[Compute] = []
    # Models of one's own may bring their weights: then those that are given are the BagNets'.
    left = iter(files)
    given = files if len(files) >= len(names) else [None if name in own else next(left) for name in names]
    for name, file in zip_longest(names, given):
        if name in own or file is None:
            computes.append(_open_own(own[name], file, options, device))
            continue
        checkpoint = read_checkpoint(file, name)
        asked = options.classes
        if asked is None and checkpoint.classes is None and official.is_official(file):
            asked = "imagenet"
        classes = choose_classes(asked, checkpoint.classes, checkpoint.class_count, file)
        transform = scale(
            checkpoint.transform or Transform(resize=256, crop_height=224, crop_width=224), options.image_size
        )
        architecture = checkpoint.architecture.name
        computes.append(
            BagNetCompute(architecture, checkpoint, classes, transform, device, options.batch_size, options.device)
        )
    return computes


def _open_own(found: Found, file: Path | None, options: ModelOptions, device: torch.device) -> Compute:
    """A model that is no BagNet, with the weights of a file or its own."""
    from bagindex.models.computing import open_found

    def choose(model: PatchModel) -> tuple[tuple[ClassRecord, ...], Transform]:
        asked, own, count = options.classes, None, model.linear.out_features
        if isinstance(model.classes, str):
            asked = asked or model.classes
        elif model.classes is not None:
            named = [ClassRecord(class_id=i, name=name) for i, name in enumerate(model.classes)]
            own = check_classes(named, model.name)
            if len(own) != count:
                raise LabelError(f"{model.name} has {count} logits, but names {len(own)} classes")
        return choose_classes(asked, own, count, Path(model.name)), scale(model.transform, options.image_size)

    return open_found(found, file, choose, device, options.batch_size, options.device)


def open_stored_models(
    directory: IndexDirectory, manifest: IndexManifest, device: str = "auto", batch_size: int | None = None
) -> dict[str, Compute]:
    """The models of an index, from the weights that it keeps, at the batch size that they were built with.

    Raises:
        WeightsError, SettingsError: the weights cannot be read, there is no such device, or what runs a model that is
            no BagNet is not known here.
    """
    from bagindex.weights import read_checkpoint

    place = find_device(device)
    computes: dict[str, Compute] = {}
    for name, record in manifest.models.items():
        plan, size = manifest.plan, batch_size or record.environment.batch_size
        if record.plugin is not None:
            from bagindex.models.computing import open_stored

            computes[name] = open_stored(directory, record, plan, place, size)
            continue
        checkpoint = read_checkpoint(directory.weights_path(record), record.architecture)
        computes[name] = BagNetCompute(name, checkpoint, plan.classes, plan.transform, place, size)
    return computes


def class_ids(
    source: Source,
    classes: Sequence[ClassRecord],
    asked: SourceOptions,
    known: Mapping[str, int | None] | None = None,
) -> Mapping[str, int | None]:
    """The class of each of the source's labels, as is `known` or as `bagindex.labels.map_labels` says."""
    mapping: dict[str, str | None] = {str(each.class_id): each.name for each in classes} if asked.label_ids else {}
    if asked.class_map:
        mapping |= read_class_map(Path(asked.class_map))
    labels = {entry.label for entry in source.entries if entry.label is not None}
    told = {label: known[label] for label in labels if known and label in known and label not in mapping}
    return told | map_labels(sorted(labels - told.keys()), classes, mapping)


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
    if not 1 <= min(image_size) <= max(image_size) <= LARGEST_INPUT:
        raise SettingsError(f"--image-size takes a number of pixels up to {LARGEST_INPUT}, or HEIGHTxWIDTH")
    resize = round(max(image_size) * transform.resize / max(transform.crop_height, transform.crop_width))
    if resize > LARGEST_RESIZE:
        raise SettingsError(
            f"--image-size {max(image_size)} would have pictures resized to {resize} pixels, more than {LARGEST_RESIZE}"
        )
    return transform.model_copy(update={"resize": resize, "crop_height": height, "crop_width": width})


def choose_classes(
    asked: str | None, own: tuple[ClassRecord, ...] | None, count: int, weights: Path
) -> tuple[ClassRecord, ...]:
    """The classes of a checkpoint.

    Args:
        asked: a class list's file, or `imagenet`; None: the checkpoint's own.
        own: what the checkpoint says.
        count: how many logits it has.
        weights: the checkpoint, for people.

    Raises:
        LabelError: nothing names them, or not as many.
    """
    if asked is None:
        if own is None:
            raise LabelError(
                f"{weights.name} does not name its {count} classes: give --classes FILE (a name on each line, in the "
                "order of the logits) or --classes imagenet"
            )
        return own
    classes = imagenet_classes() if asked == "imagenet" else read_classes(Path(asked))
    if len(classes) != count:
        raise LabelError(f"{weights.name} has {count} logits, but --classes {asked} names {len(classes)} classes")
    return classes
