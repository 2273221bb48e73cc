"""Train a BagNet on images of one's own. Needs the extra `bagindex[train]`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bagindex.errors import SettingsError, TrainingError
from bagindex.index import PathLike
from bagindex.observer import TrainingObserver
from bagindex.training.recipe import RECIPES, make_recipe
from bagindex_schemas.training import EpochRecord, Recipe, TrainingRecord

__all__ = ["RECIPES", "EpochRecord", "Recipe", "TrainingObserver", "TrainingReport", "train"]


@dataclass(frozen=True)
class TrainingReport:
    """A finished training.

    Attributes:
        weights: the file of the best epoch's weights.
        log: a CSV file with a row for each epoch.
        training: what the weights' metadata say of them.
        epochs: all epochs; none where the training was finished before.
    """

    weights: Path
    log: Path
    training: TrainingRecord
    epochs: tuple[EpochRecord, ...]


def train(
    data: PathLike,
    output: PathLike,
    *,
    model: str | None = None,
    recipe: str = "default",
    width: float | None = None,
    initial: PathLike | None = None,
    device: str = "auto",
    devices: int = 1,
    workers: int | None = None,
    restart: bool = False,
    observer: TrainingObserver | None = None,
    **changes: Any,
) -> TrainingReport:
    """Train a BagNet, or go on with a training that was begun; what is kept is the epoch with the best top-1.

    Beside `output` stand the log (`.csv`) and, until the end, the state from which the same call goes on (`.training`).

    Args:
        data: a folder that holds `train/` and `val/` or `validation/`, each with a folder of pictures for each class,
            or Parquet files, a saved data set or tar archives with splits of these names.
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
        TrainingError: the loss is not finite, or a file cannot be read or written.
    """
    try:
        import lightning_fabric  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        raise SettingsError(f"training needs {error.name}: pip install 'bagindex[train]'") from None
    from bagindex.training.launch import Devices, launch
    from bagindex.training.prepare import choose_model, finished, prepare
    from bagindex.weights import read_checkpoint

    made = make_recipe(recipe, changes)
    if initial is not None and Path(initial).resolve() == Path(output).resolve():
        raise SettingsError("--from and -o are one file: give another -o")
    place = Devices(device, devices, made.precision)
    chosen = choose_model(model, width, None if initial is None else Path(initial), made)
    job = prepare(Path(data), Path(output), made, chosen, workers, restart, observer or TrainingObserver())
    epochs: tuple[EpochRecord, ...] = ()
    if job.state is not None or restart or not finished(job):
        epochs = launch(job, place)
        job.files.remove_state()
    kept = read_checkpoint(job.files.weights).training
    if kept is None:
        raise TrainingError(f"{job.files.weights} was replaced while it was trained")
    return TrainingReport(job.files.weights, job.files.log, kept, epochs)
