"""From what a person asks of a training to a job. The quick checks come first."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagindex.decoding import default_workers
from bagindex.errors import SettingsError, WeightsError
from bagindex.observer import TrainingObserver
from bagindex.registry import ARCHITECTURES, Architecture
from bagindex.text import did_you_mean, near, some
from bagindex.training.files import TrainingFiles
from bagindex.training.loop import Job
from bagindex.training.pictures import open_data
from bagindex.weights import Checkpoint, read_checkpoint
from bagindex_schemas.training import Recipe


@dataclass(frozen=True)
class Model:
    """Which model is trained, and with what it begins."""

    architecture: Architecture
    width: float
    initial: Checkpoint | None


def choose_model(name: str | None, width: float | None, initial: Path | None, recipe: Recipe) -> Model:
    """The model that is meant.

    Raises:
        SettingsError: no such model or width, or they are not `initial`'s; or the recipe does not suit it.
        WeightsError: `initial` is no such model.
    """
    if name is not None and name not in ARCHITECTURES:
        hint = did_you_mean(near(name, ARCHITECTURES)) or f"choose from {', '.join(ARCHITECTURES)}"
        raise SettingsError(f"there is no model {name!r}: {hint}")
    if initial is None and name is None:
        raise SettingsError(f"which model? Give --model, one of {', '.join(ARCHITECTURES)}")
    if initial is None and recipe.freeze_features:
        raise SettingsError("--freeze-features needs features that are worth keeping: give --from")
    if initial is None:
        model = Model(ARCHITECTURES[str(name)], 1.0 if width is None else width, None)
    elif not initial.is_file():
        raise WeightsError(f"no weights at {initial}: give --from FILE")
    else:
        first = read_checkpoint(initial, name)
        if width is not None and width != first.width:
            raise SettingsError(f"{initial} has the width {first.width:g}: leave out --width")
        model = Model(first.architecture, first.width, first)
    if not (1 / 64 <= model.width <= 4 and (model.width * 64).is_integer()):
        raise SettingsError("--width is a multiple of 1/64, up to 4")
    field, smallest = model.architecture.receptive_field, min(recipe.first_size, recipe.crop_size)
    if smallest < field:
        raise SettingsError(
            f"an input of {smallest} pixels is smaller than a patch of {model.architecture.name} ({field})"
        )
    return model


def prepare(
    data: Path,
    output: Path,
    recipe: Recipe,
    model: Model,
    workers: int | None,
    restart: bool,
    observer: TrainingObserver,
) -> Job:
    """List the pictures and look for what was begun.

    Raises:
        SettingsError: the output cannot be written, or a training was begun with other settings.
        SourceError, LabelError: see `bagindex.training.pictures.open_data`.
        TrainingError: what was begun is damaged.
    """
    if output.suffix != ".safetensors":
        raise SettingsError(f"{output.name}: weights are written to a .safetensors file")
    if output.is_dir():
        raise SettingsError(f"{output} is a folder: give the name of a file")
    if not os.access(output.parent, os.W_OK):
        raise SettingsError(f"cannot write to the folder {output.parent}: give another -o")
    pictures = open_data(data)
    begun_with = None if model.initial is None else model.initial.sha256
    settings = _settings(recipe, model.architecture, model.width, begun_with, pictures.fingerprint)
    for split, source in (("train", pictures.train), ("validation", pictures.validation)):
        here = {entry.label for entry in source.entries}
        if empty := [name for name in pictures.classes if name not in here]:
            observer.note(f"no {split} pictures of {some(empty)}")
    files = TrainingFiles(output)
    files.logged()
    if restart:
        files.remove_state()
    state = files.read_state()
    if state is not None and (changed := _differences(state.settings, settings)):
        raise SettingsError(
            f"{files.state} is of a training that was begun otherwise ({changed}): "
            "give the same settings, another -o, or --restart to begin anew"
        )
    return Job(
        data=pictures,
        recipe=recipe,
        architecture=model.architecture,
        width=model.width,
        initial=model.initial,
        files=files,
        state=state,
        settings=settings,
        workers=default_workers() if workers is None else workers,
        observer=observer,
    )


def finished(job: Job) -> bool:
    """Whether the job's weights are there already.

    Raises:
        SettingsError: there is a file in their place that is not from such a training.
    """
    if not job.files.weights.exists():
        return False
    try:
        there = read_checkpoint(job.files.weights)
    except WeightsError:
        there = None
    if there is not None and there.training is not None:
        record = there.training
        kept = _settings(record.recipe, there.architecture, there.width, record.initial_sha256, record.fingerprint)
        if not _differences(kept, job.settings):
            done = job.files.logged()
            if done is not None and done < job.recipe.epochs:
                raise SettingsError(
                    f"{job.files.weights} is of {done} of {job.recipe.epochs} epochs, and {job.files.state.name}, from "
                    "which the training would go on, is gone: give --restart to begin anew"
                )
            return True
    raise SettingsError(
        f"{job.files.weights} is there already, and is not from this training: give another -o, or --restart"
    )


def _settings(
    recipe: Recipe, architecture: Architecture, width: float, begun_with: str | None, fingerprint: str
) -> dict[str, Any]:
    """What two runs of one training have in common; `begun_with` is the first checkpoint's SHA-256."""
    names = {"model": architecture.name, "width": width, "from": begun_with, "data": fingerprint}
    return {**recipe.model_dump(), **names}


def _differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The settings that were others before, in words."""
    changed = [name for name in now if before.get(name) != now[name]]
    words = {"data": "other pictures", "from": "another --from"}
    return ", ".join(words.get(name, f"--{name.replace('_', '-')} {before.get(name)}") for name in changed)
