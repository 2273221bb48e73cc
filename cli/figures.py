"""`bagindex figure3` and `bagindex report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bagindex import Index
from bagindex_cli import completing
from bagindex_cli.common import ClassArgument, IndexOption, open_index, remark

ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A model of the index; may be given again.",
        autocompletion=completing.models,
    ),
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(figure3)
    app.command()(report)


def figure3(
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="A .png, .svg, .html or .pdf.", show_default=False)
    ],
    classes: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CLASS",
            help="Names, wnids or ids; all, if at most 20.",
            show_default=False,
            autocompletion=completing.classes,
        ),
    ] = None,
    model: ModelsOption = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many patches in a subrow.")] = 7,
    index: IndexOption = None,
) -> None:
    """The paper's Figure 3: patches with most evidence, for each class and model, in right and in wrong images.

    A .png is made for print (300 dots an inch), .svg and .pdf have their text as text. In an .html, one file, each
    patch leads to its image, box and numbers.

        bagindex figure3 dress hat -o figure3.pdf
        bagindex figure3 --model bagnet9 --model bagnet33 -k 5 -o figure3.html
    """
    with open_index(index) as opened:
        opened.figure3(classes or None, models=model, k=k).save(output)
        _say_if_unlabelled(opened)
    remark(f"wrote {output}")


def report(
    class_: ClassArgument,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="An .html, or a folder.", show_default=False)
    ],
    model: ModelsOption = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many patches in a subrow.")] = 7,
    index: IndexOption = None,
) -> None:
    """A page about a class: its patches, accuracy, confusions, the evidence's distribution, images with heatmaps.

    A folder gets it as report.html. Heatmaps need `--keep evidence`, and patches stored pixels; it goes without them.

        bagindex report dress -o dress.html
        bagindex report "great white shark" --model bagnet33 -k 10 -o shark
    """
    with open_index(index) as opened:
        written = opened.report(class_, models=model, k=k).save(output)
        _say_if_unlabelled(opened)
    remark(f"wrote {written}")


def _say_if_unlabelled(opened: Index) -> None:
    if opened.unlabelled:
        remark("no image of this index has a label, so none is of a right or a wrong class: ask `top-patches --any`")
