"""`bagindex train`."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagindex.observer import TrainingObserver
from bagindex_cli import completing
from bagindex_cli.common import remark
from bagindex_cli.stopping import interrupt, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from bagindex_schemas.training import EpochRecord

_REMARK_SECONDS = 30
_HEAD = "epoch  input   rate     training: loss  top-1  top-5   validation: loss  top-1  top-5   images/s"


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(train)


def train(
    data: Annotated[
        Path,
        typer.Argument(
            metavar="DATA",
            help="A folder with train/ and val/ or validation/, a folder for each class in both; or with Parquet, "
            "Arrow or tar files of these splits.",
            show_default=False,
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The .safetensors file to write.")],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="bagnet9, bagnet33v2, … Else what --from is.",
            autocompletion=completing.bagnets,
        ),
    ] = None,
    recipe: Annotated[
        str, typer.Option(help="default, for some thousand photographs, or paper: the authors', for ImageNet.")
    ] = "default",
    epochs: Annotated[int | None, typer.Option(metavar="N", help="Epochs; default 30, paper 90.")] = None,
    width: Annotated[
        float | None, typer.Option(metavar="X", help="Factor on every layer's channels; 1 is the authors' model.")
    ] = None,
    initial: Annotated[
        Path | None,
        typer.Option(
            "--from", metavar="FILE", help="Begin with this checkpoint; other classes get a new linear layer."
        ),
    ] = None,
    freeze_features: Annotated[
        bool | None, typer.Option("--freeze-features", help="Train the linear layer only.", show_default=False)
    ] = None,
    crop_size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Side of the model's input; default 224.")
    ] = None,
    first_size: Annotated[
        int | None, typer.Option(metavar="PIXELS", help="Side of the input in the first epochs; default 128.")
    ] = None,
    first_epochs: Annotated[
        int | None, typer.Option(metavar="N", help="Epochs at the first size; default three quarters.")
    ] = None,
    min_scale: Annotated[
        float | None,
        typer.Option(metavar="X", help="Least share of a picture in a random crop; default 0.25, paper 0.08."),
    ] = None,
    flip: Annotated[bool | None, typer.Option("--flip/--no-flip", help="Mirror half of the pictures.")] = None,
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", help="Pictures of a step; default 32, paper 256.")
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw or sgd.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option(metavar="X", help="Highest learning rate; default 0.002, paper 0.01.")
    ] = None,
    schedule: Annotated[str | None, typer.Option(help="cosine, or step: a tenth every 30 epochs.")] = None,
    warmup_epochs: Annotated[
        float | None, typer.Option(metavar="X", help="Epochs in which the rate grows; default 1, paper 0.")
    ] = None,
    weight_decay: Annotated[
        float | None, typer.Option(metavar="X", help="Weight decay; default 0.05, paper 0.0001.")
    ] = None,
    momentum: Annotated[float | None, typer.Option(metavar="X", help="Momentum of sgd; 0.9.")] = None,
    label_smoothing: Annotated[
        float | None, typer.Option(metavar="X", help="Label smoothing; default 0.1, paper 0.")
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, tf32, or mixed bf16 or fp16. Validation is always fp32.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="fp32, or fp16 for a file of half the size, validated as it is stored.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", help="Seed of initialisation, order and crops; 0.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    devices: Annotated[int, typer.Option(metavar="N", help="GPUs that share each step.")] = 1,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Processes that read pictures; default one per core.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, replacing what is there.")] = False,
) -> None:
    """Train a BagNet on pictures of your own; `build --weights` takes the result.

    A training that was stopped goes on when the same command is run again. The best epoch is kept; a log stands beside
    it (.csv). Needs `pip install 'bagindex[train]'`.

        bagindex train photos --model bagnet17 --epochs 30 -o photos-bagnet17.safetensors
    """
    from bagindex import training

    changes: dict[str, Any] = {
        "epochs": epochs,
        "freeze_features": freeze_features,
        "crop_size": crop_size,
        "first_size": first_size,
        "first_epochs": first_epochs,
        "min_scale": min_scale,
        "flip": flip,
        "batch_size": batch_size,
        "optimizer": optimizer,
        "learning_rate": learning_rate,
        "schedule": schedule,
        "warmup_epochs": warmup_epochs,
        "weight_decay": weight_decay,
        "momentum": momentum,
        "label_smoothing": label_smoothing,
        "precision": precision,
        "storage": storage,
        "seed": seed,
    }
    with TrainingScreen() as screen:
        report = training.train(
            data,
            output,
            model=model,
            recipe=recipe,
            width=width,
            initial=initial,
            device=device,
            devices=devices,
            workers=workers,
            restart=restart,
            observer=screen,
            **changes,
        )
    kept = report.training
    if not report.epochs:
        remark("this training was finished before; --restart trains anew")
    print(
        f"{report.weights}: epoch {kept.epoch} of {kept.recipe.epochs}, validation top-1 {kept.validation_top1:.1%}, "
        f"top-5 {kept.validation_top5:.1%} ({kept.validation_images:,} pictures); every epoch is in {report.log}"
    )


class TrainingScreen(TrainingObserver):
    """A training's progress on stderr, a row for each epoch on stdout."""

    def __init__(self) -> None:
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._epochs = self._steps = 0
        self._done = self._total = 0
        self._started = self._next = 0.0

    def __enter__(self) -> TrainingScreen:
        self._handler = signal.signal(signal.SIGTERM, interrupt)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        signal.signal(signal.SIGTERM, self._handler)
        if self._progress is not None:
            self._progress.stop()
        if kind is KeyboardInterrupt:
            say("finished epochs are kept, and the same command (without --restart) goes on after them")

    def begun(self, epochs: int, steps: int, done: int) -> None:
        """Show the head of the table, and on a terminal a bar."""
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        self._epochs, self._steps, self._total = epochs, steps, (epochs - done) * steps
        if done:
            remark(f"going on after epoch {done}")
        print(_HEAD, flush=True)
        self._started, self._next = time.monotonic(), time.monotonic() + _REMARK_SECONDS
        console = Console(stderr=True)
        if console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(bar_width=None),
                TimeRemainingColumn(),
                TextColumn("left"),
            )
            self._progress = Progress(*columns, console=console)
            self._progress.start()
            self._task = self._progress.add_task("training", total=self._total)

    def stepped(self, epoch: int, step: int, loss: float) -> None:
        """Move the bar; without a terminal, a line now and then."""
        self._done += 1
        words = f"epoch {epoch} of {self._epochs}, step {step} of {self._steps}, loss {loss:.3f}"
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=self._done, description=words)
        elif time.monotonic() >= self._next:
            left = (time.monotonic() - self._started) / self._done * (self._total - self._done)
            remark(f"{words}, {left:.0f} s left")
            self._next = time.monotonic() + _REMARK_SECONDS

    def epoch(self, record: EpochRecord, best: bool) -> None:
        """A row of the table."""
        r = record
        line = (
            f"{r.epoch:5}  {r.input_size:5}  {r.learning_rate:.1e}  {r.train_loss:14.3f}  {r.train_top1:5.1%}  "
            f"{r.train_top5:5.1%}  {r.validation_loss:16.3f}  {r.validation_top1:5.1%}  {r.validation_top5:5.1%}  "
            f"{r.images_per_second:9.1f}{'  best' if best else ''}"
        )
        if self._progress is not None:
            self._progress.console.print(line, highlight=False)
        else:
            print(line, flush=True)

    def note(self, text: str) -> None:
        """A line for the person."""
        remark(text)
