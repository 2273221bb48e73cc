"""`bagindex heatmap` and `bagindex explain`."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

import typer

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
from bagindex_cli.screen import Steps
from bagindex_cli.terminal import canvas
from bagindex_cli.terminal import show as draw


class Beneath(StrEnum):
    """What is seen beneath a map's colours."""

    EDGES = "edges"
    IMAGE = "image"
    NONE = "none"


BeneathOption = Annotated[
    Beneath | None,
    typer.Option(help="What is seen beneath the colours: edges, where the index keeps pixels.", show_default=False),
]
AlphaOption = Annotated[float, typer.Option(metavar="0..1", min=0, max=1, help="Strength of the colours.")]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(heatmap)
    app.command()(explain)


def heatmap(
    image: ImageArgument,
    class_: Annotated[
        list[str] | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="Name, wnid or id of a class, as often as you like; else the predicted one and the label.",
            autocompletion=completing.classes,
        ),
    ] = None,
    dense: Annotated[
        bool, typer.Option("--dense", help="Evidence at every pixel, not on the patch grid; runs the stored model.")
    ] = False,
    shared_scale: Annotated[bool, typer.Option("--shared-scale", help="One colour scale for all classes.")] = False,
    beneath: BeneathOption = None,
    alpha: AlphaOption = 1.0,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
) -> None:
    """Where in an image the evidence for a class is (Figure 2 of the BagNet paper).

    FILE ends in .png, .svg or .pdf (a picture), .npz, .json or .csv (the numbers).

        bagindex heatmap 17 -o heatmap.png
        bagindex heatmap holiday.jpg --class dress --class skirt --dense -o heatmap.pdf
    """
    with open_index(index) as opened, Steps("running the model") as steps:
        result = opened.heatmap(
            image,
            classes=class_ or (),
            dense=dense,
            shared_scale=shared_scale,
            beneath=beneath,
            alpha=alpha,
            model=model,
            device=device,
            progress=steps.at,
        )
    if output is not None:
        result.save(output)
        remark(f"wrote {output}")
    elif format_ is Format.TABLE:
        print_rows(result.columns, result.table_rows(), format_, title=result.title)
    elif format_ is Format.CSV:
        print_rows(result.cell_columns, result.cell_rows(), format_)
    else:
        print_rows((), result.to_dicts(), format_)


def explain(
    image: Annotated[
        str | None,
        typer.Argument(
            metavar="IMAGE", help="Id or path of an image of the index, or a picture file.", show_default=False
        ),
    ] = None,
    vs: Annotated[
        str | None,
        typer.Option(metavar="A,B", help="Two classes to compare, instead of the label and the predicted one."),
    ] = None,
    confused: Annotated[
        tuple[str, str] | None,
        typer.Option(metavar="A B", help="Images labelled A that the model takes for B, instead of IMAGE."),
    ] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many images, with --confused.")] = 3,
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="How many images to pass over, with --confused.")] = 0,
    patches: Annotated[int, typer.Option(metavar="N", min=1, help="How many patches to show for each class.")] = 3,
    overlap: Annotated[bool, typer.Option("--overlap", help="Let the patches that are shown overlap.")] = False,
    beneath: BeneathOption = None,
    alpha: AlphaOption = 1.0,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
    show: ShowOption = False,
) -> None:
    """What in an image speaks for its class and for the predicted one, and what decides (Figure 4 of the paper).

    FILE ends in .png, .svg or .pdf (a picture), .json or .csv (the numbers).

        bagindex explain 17 -o explain.png
        bagindex explain 17 --vs dress,skirt
        bagindex explain --confused dress t-shirt -o confused.pdf
    """
    if (image is None) == (confused is None):
        raise typer.BadParameter("give IMAGE, or --confused A B")
    if vs is not None and confused is not None:
        raise typer.BadParameter("--vs and --confused exclude each other")
    with open_index(index) as opened:
        if confused is not None:
            confusions = opened.explain_confused(
                *confused,
                k=k,
                offset=offset,
                patches=patches,
                overlap=overlap,
                beneath=beneath,
                alpha=alpha,
                model=model,
                device=device,
            )
            result, save = list(confusions), confusions.save
            if not result:
                remark("no more images are confused so")
        else:
            explanation = opened.explain(
                image or "",
                vs=vs,
                patches=patches,
                overlap=overlap,
                beneath=beneath,
                alpha=alpha,
                model=model,
                device=device,
            )
            result, save = [explanation], explanation.save
    if show and (found := canvas()):
        for each in result:
            draw(each.picture(found.width, coarse=found.coarse))
    if output is not None:
        save(output)
        remark(f"wrote {output}")
    elif format_ is Format.JSON:
        print_rows((), [each.to_dict() for each in result], format_)
    elif format_ is Format.CSV:
        print_rows(
            result[0].all_columns if result else (), [row for each in result for row in each.table_rows()], format_
        )
    else:
        for each in result:
            print_rows(each.columns, each.table_rows(), format_, title=each.image.name)
            typer.echo(f"\n{each.words}\n")
