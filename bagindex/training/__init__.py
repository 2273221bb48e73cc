"""Train a BagNet on images of one's own. Needs the extra `bagindex[train]`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagindex.errors import BagindexError, SettingsError, TrainingError, WeightsError
from bagindex.observer import TrainingObserver
from bagindex.registry import ARCHITECTURES
from bagindex.training.recipe import RECIPES, make_recipe
from bagindex_schemas.training import EpochRecord, TrainingRecord

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from bagindex.training.loop import Job

__all__ = ["RECIPES", "TrainingReport", "train"]


@dataclass(frozen=True)
class TrainingReport:
    """A finished training: its files, what the kept weights are, and every epoch (none where it was finished before)."""

    weights: Path
    log: Path
    training: TrainingRecord
    epochs: tuple[EpochRecord, ...]


def train(
    data: str | os.PathLike[str],
    output: str | os.PathLike[str],
    *,
    model: str | None = None,
    recipe: str = "default",
    width: float | None = None,
    initial: str | os.PathLike[str] | None = None,
    device: str = "auto",
    devices: int = 1,
    workers: int | None = None,
    restart: bool = False,
    observer: TrainingObserver | None = None,
    **changes: Any,
) -> TrainingReport:
    """Train a BagNet, or go on with a training that was begun; what is kept is the epoch with the best top-1.

    Beside `output` stand the log (`.csv`, a row for each epoch) and, until the end, the state from which the same call
    goes on (`.training`).

    Args:
        data: a folder that holds `train/` and `val/` or `validation/`, each with a folder of pictures for each class.
        output: the `.safetensors` file to write; `build --weights` takes it.
        model: `bagnet9`, `bagnet17` or `bagnet33`; by default what `initial` is.
        recipe: `default` or `paper`; see `bagindex_schemas.training.Recipe`.
        width: factor on every layer's channels, a multiple of 1/64; by default `initial`'s, or 1.
        initial: a checkpoint to begin with; its linear layer is replaced where its classes are others.
        device: `auto`, `cpu`, `cuda` or `cuda:N`.
        devices: so many GPUs (or, on a CPU, processes), which share each step's batch.
        workers: processes that read pictures ahead; by default one per core, at most 16; 0 for none.
        restart: begin anew, replacing what is there.
        observer: hears of the progress.
        changes: fields of the recipe to change, such as `epochs=10`.

    Raises:
        SettingsError: options that contradict each other or a training that was begun.
        SourceError, LabelError: see `bagindex.training.pictures.open_data`.
        WeightsError: `initial` is no such model.
        TrainingError: the loss is not finite, or a file cannot be written.
    """
    try:
        import lightning_fabric  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"training needs {error.name}: pip install 'bagindex[train]'") from None
    from bagindex.training.files import TrainingFiles
    from bagindex.training.loop import Job, best
    from bagindex.training.pictures import open_data
    from bagindex.weights import Checkpoint, read_checkpoint

    observer = observer or TrainingObserver()
    target = Path(output)
    if target.suffix != ".safetensors":
        raise SettingsError(f"{target.name}: weights are written to a .safetensors file")
    if not target.parent.is_dir():
        raise SettingsError(f"there is no folder {target.parent}: make it, or give another -o")
    if model is not None and model not in ARCHITECTURES:
        raise SettingsError(f"there is no model {model!r}: choose from {', '.join(ARCHITECTURES)}")
    made = make_recipe(recipe, changes)
    first: Checkpoint | None = read_checkpoint(Path(initial), model) if initial is not None else None
    if model is None and first is None:
        raise SettingsError(f"which model? Give --model, one of {', '.join(ARCHITECTURES)}")
    if first is not None and width is not None and width != first.width:
        raise SettingsError(f"{initial} has the width {first.width:g}: leave out --width")
    if made.freeze_features and first is None:
        raise SettingsError("--freeze-features needs features that are worth keeping: give --from")
    architecture = first.architecture.name if first is not None else str(model)
    factor = width if width is not None else first.width if first is not None else 1.0
    if not (1 / 64 <= factor <= 4 and factor * 64 == round(factor * 64)):
        raise SettingsError("--width is a multiple of 1/64, up to 4")
    field = ARCHITECTURES[architecture].receptive_field
    if min(made.first_size, made.crop_size) < field:
        raise SettingsError(f"an input of {min(made.first_size, made.crop_size)} pixels is smaller than the {field} that a {architecture}'s patch sees")
    pictures = open_data(Path(data))
    files = TrainingFiles(target)
    settings = {
        **made.model_dump(),
        "model": architecture,
        "width": factor,
        "from": None if first is None else first.sha256,
        "data": pictures.fingerprint,
    }
    if restart:
        files.remove_state()
    state = files.read_state()
    if state is None and target.exists() and not restart:
        return _finished(target, files.log, made, settings)
    if state is not None and (changed := _differences(state.settings, settings)):
        raise SettingsError(
            f"{files.state} is of a training that was begun otherwise ({changed}): "
            "give the same settings, another -o, or --restart to begin anew"
        )
    count = min(16, os.cpu_count() or 1) if workers is None else workers
    job = Job(
        data=pictures,
        recipe=made,
        architecture=architecture,
        width=factor,
        initial=first,
        files=files,
        state=state,
        settings=settings,
        workers=count,
        observer=observer,
    )
    epochs = _launch(job, device, devices)
    files.remove_state()
    kept = read_checkpoint(target).training
    if kept is None:
        raise TrainingError(f"{target} was replaced while it was trained")
    return TrainingReport(target, files.log, kept, epochs)


def _finished(target: Path, log: Path, recipe: Any, settings: dict[str, Any]) -> TrainingReport:
    from bagindex.weights import read_checkpoint

    there = read_checkpoint(target)
    kept = there.training
    same = kept is not None and (kept.recipe, kept.fingerprint, kept.initial_sha256) == (
        recipe,
        settings["data"],
        settings["from"],
    )
    if kept is None or not same or (there.architecture.name, there.width) != (settings["model"], settings["width"]):
        raise SettingsError(f"{target} is there already, from elsewhere: give another -o, or --restart to replace it")
    return TrainingReport(target, log, kept, ())


def _differences(before: Any, now: dict[str, Any]) -> str:
    names = [name for name in now if before.get(name) != now[name]]
    return ", ".join(f"{name.replace('_', '-')} {before.get(name)}" if name != "data" else "other pictures" for name in names)


def _launch(job: Job, device: str, devices: int) -> tuple[EpochRecord, ...]:
    import logging

    import torch
    from lightning_fabric import Fabric

    from bagindex.compute import find_device
    from bagindex.training.loop import run

    place = find_device(device)
    if devices < 1 or (place.type == "cuda" and devices > torch.cuda.device_count()):
        raise SettingsError(f"--devices {devices}: this machine has {torch.cuda.device_count()} GPUs")
    if job.recipe.precision in ("fp16", "tf32") and place.type == "cpu":
        raise SettingsError(f"--precision {job.recipe.precision} needs a GPU: take fp32 or bf16")
    logging.getLogger("lightning_fabric").setLevel(logging.ERROR)
    precisions: dict[str, Any] = {"fp32": "32-true", "tf32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}
    chosen: Any = [place.index or 0] if place.type == "cuda" and devices == 1 else devices
    strategy = "ddp_spawn" if devices > 1 else "auto"
    fabric = Fabric(accelerator=place.type, devices=chosen, strategy=strategy, precision=precisions[job.recipe.precision])
    return fabric.launch(run, job)
