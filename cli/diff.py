"""`bagindex diff`."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Annotated

import typer

from bagindex import Index
from bagindex.errors import IndexNotFoundError
from bagindex.output import printable, to_json_value
from bagindex_cli.common import Format, FormatOption, open_index, print_rows, remark
from bagindex_cli.screen import Steps

_SHOWN = 20
"""Images that flip, of more, that are printed."""
_FLIP = ("kind", "label_a", "predicted_a", "predicted_b", "probability_b", "path")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(diff)


def diff(
    a: Annotated[
        str, typer.Argument(metavar="A", help="An index by name, path or URL, or INDEX:MODEL.", show_default=False)
    ],
    b: Annotated[str, typer.Argument(metavar="B", help="What it is compared with.", show_default=False)],
    k: Annotated[
        int, typer.Option("-k", metavar="N", min=1, help="How many of a class's strongest patches are compared.")
    ] = 20,
    format_: FormatOption = Format.TABLE,
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it to FILE.")] = None,
) -> None:
    """What is different between two models, trainings, precisions or data sets: settings, accuracy, evidence, images.

    Images are the same by their content, else by their path, classes by their names; what both have is compared. FILE
    ends in .html (a page), .png, .svg or .pdf (images that flip, with both heatmaps), .json (all of it), .csv or
    .parquet (the images that flip).

        bagindex diff first second
        bagindex diff photos:bagnet9 photos:bagnet33 -o diff.html
    """
    one, model = _open(a)
    other, other_model = _open(b)
    with one, other:
        same = one.place == other.place
        with Steps("comparing evidence") as steps:
            found = one.diff(None if same else other, model=model, other_model=other_model, k=k, progress=steps.at)
        if output is not None:
            found.save(output)
            remark(f"wrote {output}")
        elif format_ is Format.JSON:
            sys.stdout.write(to_json_value(found.to_dict()) + "\n")
        elif format_ is Format.CSV:
            print_rows(found.flips.column_names, found.to_dicts(), format_)
        else:
            settings, flips = found.settings.to_pylist(), found.to_dicts()
            print_rows(found.settings.column_names, settings, format_, title="settings that differ")
            print()
            print_rows(found.columns, found.table_rows(), format_, title=found.title)
            print(f"\n{printable(found.words)}")
            if flips:
                print()
                print_rows(
                    _FLIP, flips[:_SHOWN], format_, title=f"{len(flips[:_SHOWN])} of {len(flips)} images that flip"
                )


def _open(text: str) -> tuple[Index, str | None]:
    """An index, and the model of it that is named behind a colon; the name of an index may have colons itself."""
    match = re.fullmatch(r"(.*[^/:]):([a-z0-9][a-z0-9_-]*)", text)
    if match is None:
        return open_index(text), None
    try:
        return open_index(text), None
    except IndexNotFoundError:
        return open_index(match[1]), match[2]
