"""`bagindex why`, `flip`, `without`, `shortcuts`, `confusions` and `label-errors`."""

from __future__ import annotations

import shutil
import sys
import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Protocol

import typer

from bagindex.output import printable
from bagindex_cli import completing
from bagindex_cli.common import (
    DeviceOption,
    Format,
    FormatOption,
    ImageArgument,
    IndexOption,
    ModelOption,
    OutputOption,
    ShowOption,
    open_index,
    print_rows,
    remark,
)
from bagindex_cli.terminal import canvas
from bagindex_cli.terminal import show as draw

if TYPE_CHECKING:
    from PIL import Image


_CLASSES = 20
_ERRORS = 20
_SHOWN = 60
"""Rows of a longer table that are printed."""


class _Account(Protocol):
    """What the questions give back; see `bagindex.accounts.shown.Account`."""

    @property
    def columns(self) -> tuple[str, ...]: ...
    @property
    def types(self) -> Mapping[str, str]: ...
    @property
    def title(self) -> str: ...
    @property
    def words(self) -> str: ...
    def table_rows(self) -> list[dict[str, Any]]: ...
    def to_dicts(self) -> list[dict[str, Any]]: ...
    def save(self, path: str | Path) -> None: ...


class _Pictured(_Account, Protocol):
    def picture(self, width: int | None = None, *, coarse: bool = False) -> Image.Image: ...


def register(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (why, flip, without, shortcuts, confusions):
        app.command()(command)
    app.command("label-errors")(label_errors)


def why(
    image: ImageArgument,
    vs: Annotated[
        str | None, typer.Option(metavar="A,B", help="Two classes: what the margin of A over B is made of.")
    ] = None,
    class_: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="Whose logit; else the predicted class's.",
            autocompletion=completing.classes,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many patches and words on each side.")] = 5,
    overlap: Annotated[bool, typer.Option("--overlap", help="Let the patches that are shown overlap.")] = False,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
    show: ShowOption = False,
) -> None:
    """Which patches and visual words an image's logit, or the margin of two classes, is made of: an exact sum.

    FILE ends in .png, .svg or .pdf (a picture), .json, .csv, .parquet or .arrow (the numbers).

        bagindex why 17 -o why.png
        bagindex why 17 --vs dress,skirt

    At most 25 patches and words are shown on each side.
    """
    if vs is not None and class_ is not None:
        raise typer.BadParameter("--vs and --class exclude each other")
    with open_index(index) as opened:
        found = opened.why(image, vs=vs, class_=class_, k=k, overlap=overlap, model=model, device=device)
        _give(found, format_, output, found if show else None)


def flip(
    image: ImageArgument,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
    show: ShowOption = False,
) -> None:
    """The fewest patches of an image without which the model would predict another class.

    A patch that is removed is left out of the mean. FILE ends in .png, .svg or .pdf (a picture), .json, .csv or
    .parquet (the numbers).

        bagindex flip 17 -o flip.png
    """
    with open_index(index) as opened:
        found = opened.flip(image, model=model, device=device)
        _give(found, format_, output, found if show and found.after is not None else None)


def without(
    words: Annotated[list[int], typer.Argument(metavar="WORD...", help="Visual words, by their numbers.")],
    changed: Annotated[
        bool, typer.Option("--changed", help="List the images whose prediction changes, instead of the classes.")
    ] = False,
    model: ModelOption = None,
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
) -> None:
    """What accuracy becomes without some visual words' patches, for each class, and which predictions change.

    The patches are left out of the means of all images; no model runs. FILE ends in .json, .csv, .parquet or .arrow.

        bagindex without 12
        bagindex without 12 40 --changed
    """
    with open_index(index) as opened:
        found = opened.without(words, model=model)
        if changed and output is None and format_ is not Format.JSON:
            print_rows(found.changed_columns, found.changed_rows(), format_, title=found.title)
            _say(found, format_)
        else:
            _give(found, format_, output, None)


def shortcuts(
    class_: Annotated[
        str | None,
        typer.Argument(
            metavar="CLASS",
            help="Name, wnid or id of a class; else all.",
            show_default=False,
            autocompletion=completing.classes,
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many words.")] = 10,
    model: ModelOption = None,
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
    show: ShowOption = False,
) -> None:
    """Visual words that speak for a class in images of other classes, those that decide most errors first.

    FILE ends in .png, .svg or .pdf (their patches), .json, .csv, .parquet or .arrow (the numbers).

        bagindex shortcuts
        bagindex shortcuts dress -o shortcuts.png
    """
    with open_index(index) as opened:
        found = opened.shortcuts(class_, k=k, model=model)
        _give(found, format_, output, found if show and found.shortcuts else None)


def confusions(
    class_: Annotated[
        str | None,
        typer.Argument(
            metavar="CLASS",
            help="With --matrix: this class and what it is confused with.",
            show_default=False,
            autocompletion=completing.classes,
        ),
    ] = None,
    matrix: Annotated[
        bool, typer.Option("--matrix", help="Counts of labels and predictions; needs no visual words.")
    ] = False,
    k: Annotated[
        int | None,
        typer.Option(
            "-k", metavar="N", min=1, help="How many pairs of classes, else all; with --matrix classes, else 20."
        ),
    ] = None,
    model: ModelOption = None,
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
    show: ShowOption = False,
) -> None:
    """What the model takes for what, and the visual words that decide it.

    FILE ends in .png, .svg or .pdf (their patches, not with --matrix), .json, .csv, .parquet or .arrow (the numbers).

        bagindex confusions -k 10 -o confusions.png
        bagindex confusions --matrix dress
    """
    if class_ is not None and not matrix:
        raise typer.BadParameter("CLASS goes with --matrix")
    with open_index(index) as opened:
        if matrix:
            counts = opened.confusion_matrix(class_, k=_CLASSES if k is None else k, model=model)
            if output is None and format_ is Format.TABLE:
                print_rows(counts.matrix_columns, counts.matrix_rows(), format_, title=counts.title)
                _say(counts, format_)
            else:
                _give(counts, format_, output, None)
            return
        found = opened.confusions(k=k, model=model)
        _give(found, format_, output, found if show and found.confusions else None)


def label_errors(
    class_: Annotated[
        str | None,
        typer.Argument(metavar="CLASS", help="Only images that have this label; else all.", show_default=False),
    ] = None,
    k: Annotated[int | None, typer.Option("-k", metavar="N", min=1, help="How many images, else 20.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All images that the model takes for another class.")] = False,
    model: ModelOption = None,
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
    show: ShowOption = False,
) -> None:
    """Images whose own evidence speaks against their label, those first in which it speaks most strongly.

    The model may be wrong, so look at them. FILE ends in .png, .svg or .pdf (the images and their strongest patches),
    .json, .csv or .parquet: rows whose `label` is what the model would call the image, for `bagindex relabel --labels`.

        bagindex label-errors -k 50 -o errors.png
        bagindex label-errors -k 50 -o errors.csv
    """
    if all_ and k is not None:
        raise typer.BadParameter("give -k or --all, not both")
    with open_index(index) as opened:
        found = opened.label_errors(class_, k=None if all_ else k or _ERRORS, model=model)
        _give(found, format_, output, found if show and found.errors else None)


def _give(found: _Account, format_: Format, output: Path | None, shown: _Pictured | None) -> None:
    """Draw, write or print an account."""
    if shown is not None and (terminal := canvas()):
        draw(shown.picture(terminal.width, coarse=terminal.coarse))
    if output is not None:
        found.save(output)
        remark(f"wrote {output}")
    elif format_ is Format.JSON:
        print_rows((), found.to_dicts(), format_)
    elif format_ is Format.CSV:
        print_rows(list(found.types), found.table_rows(), format_)
    else:
        rows = found.table_rows()
        print_rows(found.columns, rows[:_SHOWN], format_, title=found.title)
        _say(found, format_)
        if len(rows) > _SHOWN:
            remark(f"{_SHOWN} of {len(rows)} rows; --format csv and -o FILE give all")


def _say(found: _Account, format_: Format) -> None:
    if format_ is Format.TABLE:
        text = printable(found.words)
        if sys.stdout.isatty():
            text = textwrap.fill(text, shutil.get_terminal_size().columns)
        print(f"\n{text}")
