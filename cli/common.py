"""Options and printing that the commands share."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from bagindex import Index, output
from bagindex_cli import completing


class Format(StrEnum):
    """How a result is printed."""

    TABLE = "table"
    JSON = "json"
    CSV = "csv"


IndexOption = Annotated[
    str | None,
    typer.Option(
        "--index",
        "-i",
        metavar="NAME|PATH",
        help="The index; else BAGINDEX_INDEX, the only one, the latest.",
        autocompletion=completing.indexes,
    ),
]
OutputOption = Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write the result to FILE.")]
FormatOption = Annotated[Format, typer.Option("--format", help="How to print the result.")]
ShowOption = Annotated[bool, typer.Option("--show", help="Draw the pictures in the terminal.")]

ImageArgument = Annotated[
    str, typer.Argument(metavar="IMAGE", help="Id or path of an image of the index, or a picture file.")
]
ClassArgument = Annotated[
    str,
    typer.Argument(
        metavar="CLASS", help="Name, wnid or id of a class.", show_default=False, autocompletion=completing.classes
    ),
]
ModelOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Which of the index's models.", autocompletion=completing.models),
]
DeviceOption = Annotated[str, typer.Option(help="Where the model runs, when it must: auto, cpu, cuda or cuda:N.")]


def open_index(which: str | None) -> Index:
    """Open the index that is meant; where bagindex chose one, say which."""
    index = Index.open(which)
    if index.remark:
        remark(index.remark)
    return index


def remark(text: str) -> None:
    """A line for the person, on stderr, so that results can be piped."""
    print(f"bagindex: {text}", file=sys.stderr)


def print_rows(
    columns: Sequence[str], rows: Sequence[Mapping[str, Any]], how: Format, title: str | None = None
) -> None:
    """Print rows to stdout."""
    if how is Format.TABLE:
        output.print_table(columns, rows, sys.stdout, title)
    else:
        sys.stdout.write(output.to_json(rows) if how is Format.JSON else output.to_csv(columns, rows))
