"""`bagindex weights`: published weights, on machines with a network and without."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bagindex import official, registry
from bagindex.text import bytes_text
from bagindex_cli import completing
from bagindex_cli.common import Format, FormatOption, print_rows, remark
from bagindex_cli.stopping import say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

_REMARK_SECONDS = 10.0

AllowHashOption = Annotated[
    str | None,
    typer.Option(
        "--allow-hash",
        metavar="SHA256",
        help="Accept a file with this SHA-256 (or these first 8 or more digits of it), too, if you know better.",
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    group = typer.Typer(invoke_without_command=True)
    group.callback()(weights)
    group.command("list")(list_weights)
    group.command()(fetch)
    group.command()(install)
    app.add_typer(group, name="weights")


def weights(context: typer.Context, format_: FormatOption = Format.TABLE) -> None:
    """Published weights, of BagNets by their authors and of networks to compare with: list, fetch, or install a file
    brought by hand.

    `build --model bagnet33` without `--weights` fetches them by itself, and so does `reproduce --against vgg16`. They
    are kept in the platform's cache, or in the folder that BAGINDEX_WEIGHTS names; BAGINDEX_WEIGHTS_URL names a mirror
    to fetch them from.
    """
    if context.invoked_subcommand is None:
        list_weights(format_)
    elif format_ is not Format.TABLE:
        raise typer.BadParameter(f"give it after `{context.invoked_subcommand}`", param_hint="--format")


def list_weights(format_: FormatOption = Format.TABLE) -> None:
    """The official weights, which of them are here, and where from and where to.

    They are kept in the platform's cache, or in the folder that BAGINDEX_WEIGHTS names.

        bagindex weights list
    """
    rows = [
        {"model": found.model, "file": found.file, "state": found.state.value, "size": found.bytes}
        | {"path": str(found.path), "url": found.url}
        for found in official.status()
    ]
    if format_ is not Format.TABLE:
        print_rows(["model", "file", "state", "size", "path", "url"], rows, format_)
        return
    shown = [row | {"size": bytes_text(row["size"]) if isinstance(row["size"], int) else ""} for row in rows]
    print_rows(["model", "file", "state", "size", "path"], shown, format_)
    for folder in dict.fromkeys(official.base_url(each.folder) for each in registry.published().values()):
        typer.echo(f"published at {folder}/")
    typer.echo("`bagindex weights fetch` downloads them; `bagindex weights install FILE` takes one brought by hand")


def fetch(
    models: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="MODEL",
            help=f"{', '.join(registry.published())}; else the BagNets'.",
            autocompletion=completing.networks,
        ),
    ] = None,
    allow_hash: AllowHashOption = None,
) -> None:
    """Download official weights that are not here yet. A download that was broken off goes on.

    Their SHA-256 must begin as their file's name says. BAGINDEX_WEIGHTS_URL names a mirror.

        bagindex weights fetch bagnet33
        bagindex weights fetch vgg16 resnet50
    """
    if allow_hash is not None and len(models or []) != 1:
        raise typer.BadParameter("a hash is one file's: name one MODEL", param_hint="--allow-hash")
    for model in models or [name for name in registry.published() if name in registry.ARCHITECTURES]:
        with FetchScreen(f"the weights of {model}") as screen:
            path = official.fetch(model, allow_hash=allow_hash, progress=screen.advanced, note=screen.note)
        typer.echo(f"{model}: {path}")


def install(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file, whatever its name: it is known by its SHA-256.")
    ],
    allow_hash: AllowHashOption = None,
) -> None:
    """Take official weights brought by hand, for a machine without a network; FILE is copied.

    It is known by its SHA-256, whatever it is called.

        bagindex weights install bagnet32-2ddd53ed.pth.tar
    """
    found = official.install(file, allow_hash=allow_hash, note=remark)
    typer.echo(f"{found.model}: {found.path}")


class FetchScreen:
    """A download's progress on stderr: a bar on a terminal, a line now and then elsewhere, nothing without one."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._progress: Progress | None = None
        self._task: TaskID | None = None
        self._first = True
        self._next = 0.0

    def __enter__(self) -> FetchScreen:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._progress is not None:
            self._progress.stop()
        if kind is KeyboardInterrupt and not self._first:
            say("what is downloaded stays, and the same command goes on from there")

    def advanced(self, done: int, total: int | None) -> None:
        """So many bytes are here, of so many."""
        if self._first:
            self._first = False
            self._start(total)
        if self._progress is not None and self._task is not None:
            self._progress.update(self._task, completed=done, total=total)
        elif time.monotonic() >= self._next or done == total:
            of = f" of {bytes_text(total)}" if total is not None else ""
            remark(f"fetching {self._name}: {bytes_text(done)}{of}")
            self._next = time.monotonic() + _REMARK_SECONDS

    def note(self, text: str) -> None:
        """Something that a person should know."""
        if self._progress is None:
            remark(text)
        else:
            self._progress.console.print(f"bagindex: {text}", markup=False, soft_wrap=True)

    def _start(self, total: int | None) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn
        from rich.progress import TransferSpeedColumn as SpeedColumn

        console = Console(stderr=True, highlight=False)
        if not console.is_terminal:
            return
        self._progress = Progress(
            TextColumn("fetching {task.description}"),
            BarColumn(bar_width=None),
            DownloadColumn(),
            SpeedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
        )
        self._progress.start()
        self._task = self._progress.add_task(self._name, total=total)
