"""`bagindex build`."""

from __future__ import annotations

import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bagindex import Index
from bagindex.observer import BuildObserver
from bagindex.text import bytes_text
from bagindex_cli.common import remark
from bagindex_schemas.records import Keep

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from bagindex.build import BuildReport
    from bagindex.plan import Estimate


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(build)


def build(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="A folder of pictures.", show_default=False)],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="bagnet9, bagnet17 or bagnet33; else what the weights are.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Checkpoint: .safetensors, .pth or .pth.tar.")
    ] = None,
    classes: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|imagenet", help="Class names in the order of the logits; else the checkpoint's own."
        ),
    ] = None,
    layout: Annotated[
        str, typer.Option(metavar="auto|folders|flat", help="Labels from the folders' names, or no labels.")
    ] = "auto",
    labels: Annotated[
        Path | None, typer.Option(metavar="CSV", help="Labels by file: a CSV with the columns path,label.")
    ] = None,
    class_map: Annotated[
        Path | None,
        typer.Option(metavar="CSV", help="What labels that are no class names mean: columns source,class."),
    ] = None,
    name: Annotated[str | None, typer.Option(metavar="NAME", help="The index's name; else from the source.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="PATH", help="The index's folder, instead of a name.")] = None,
    keep: Annotated[
        Keep,
        typer.Option(help="Store features and evidence, evidence, or each image's strongest patches only (summary)."),
    ] = Keep.FEATURES,
    pixels: Annotated[
        bool, typer.Option(help="Keep the model's inputs, without which patches cannot be shown.")
    ] = True,
    limit: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Only N images, evenly spread over the source.")
    ] = None,
    image_size: Annotated[
        str | None,
        typer.Option(metavar="N|HxW", help="Side, or height and width, of the model's input in pixels."),
    ] = None,
    device: Annotated[str, typer.Option(metavar="auto|cpu|cuda[:N]", help="Where the model runs.")] = "auto",
    batch_size: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Images at a time; else what suits the device.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(metavar="N", min=1, max=256, help="Decoding threads; else one per core, at most 16.")
    ] = None,
    follow_symlinks: Annotated[
        bool, typer.Option("--follow-symlinks", help="Index what symbolic links point to.")
    ] = False,
    strict: Annotated[bool, typer.Option("--strict", help="Stop at the first file that cannot be indexed.")] = False,
    max_errors: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="Stop when more than N files cannot be indexed.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, dropping what is there.")] = False,
) -> None:
    """Index a folder of pictures: run a BagNet and keep the evidence of every patch.

    A build that was stopped goes on when the same command is run again.

        bagindex build photos/validation --weights clothing-bagnet33.safetensors
    """
    screen = _Screen()
    signal.signal(signal.SIGTERM, _interrupt)
    with screen:
        index = Index.build(
            source,
            model=model,
            weights=weights,
            classes=classes,
            image_size=_size(image_size),
            layout=layout,
            labels=labels,
            class_map=class_map,
            follow_symlinks=follow_symlinks,
            name=name,
            out=out,
            keep=keep.value,
            pixels=pixels,
            limit=limit,
            strict=strict,
            max_errors=max_errors,
            restart=restart,
            device=device,
            batch_size=batch_size,
            workers=workers,
            observer=screen,
        )
    if index.report is not None:
        _summary(index, index.report)


class _Screen(BuildObserver):
    """A build's progress on stderr: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._done = 0
        self._next = 0.0
        self._total = 0
        self._started = 0.0

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        if kind is KeyboardInterrupt:
            remark("stopped; what is committed stays, and the same command goes on from there")

    def planned(self, estimate: Estimate, free: int) -> None:
        tables = ", ".join(f"{name} {bytes_text(size)}" for name, size in estimate.tables.items() if size > 1_000_000)
        remark(
            f"{estimate.images:,} files, {estimate.patches:,} patches, about {bytes_text(estimate.total)} "
            f"({tables or 'all small'}) to write; {bytes_text(free)} are free"
        )
        self._total = estimate.images
        self._started = time.monotonic()
        if not self._console.is_terminal:
            return
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=self._console,
        )
        self._progress.start()
        self._task = self._progress.add_task("indexing", total=estimate.images, rate="")

    def advanced(self, files: int) -> None:
        self._done += files
        elapsed = time.monotonic() - self._started
        rate = f"{self._done / elapsed:.1f} images/s" if elapsed > 1 else ""
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, advance=files, rate=rate)
        elif elapsed >= self._next and rate:
            left = (self._total - self._done) * elapsed / self._done
            remark(f"{self._done:,} of {self._total:,} files, {rate}, {left:.0f} s left")
            self._next = elapsed + 10

    def note(self, text: str) -> None:
        remark(text)


def _interrupt(*_: object) -> None:
    """End like Ctrl-C does: temporary files are removed."""
    raise KeyboardInterrupt


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if match is None:
        raise typer.BadParameter("a number of pixels, or HEIGHTxWIDTH", param_hint="--image-size")
    return int(match[1]), int(match[2] or match[1])


def _summary(index: Index, report: BuildReport) -> None:
    rate = report.images_per_second
    done = f"{report.computed:,} computed now, {rate:.1f} images/s" if rate else "nothing was left to compute"
    patches = ", ".join(f"{count:,} patches of {model}" for model, count in report.patches.items())
    print(f"{report.images:,} images, {patches} ({done})")
    if report.rejects:
        codes = ", ".join(f"{count} {code}" for code, count in report.rejects.items())
        print(f"{sum(report.rejects.values()):,} files could not be indexed: {codes} (`bagindex sql 'FROM rejects'`)")
    if not report.images:
        remark("nothing could be indexed: see the rejects")
    for series, tables in report.table_bytes.items():
        sizes = ", ".join(f"{table} {bytes_text(size)}" for table, size in tables.items() if size)
        print(f"{series}: {bytes_text(sum(tables.values()))} ({sizes})")
    print(f"in {index.path}")
