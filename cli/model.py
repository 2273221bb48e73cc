"""`bagindex model`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagindex import Index
from bagindex_cli import completing
from bagindex_cli.common import Format, FormatOption, print_rows

if TYPE_CHECKING:
    from bagindex.experiments.layers import Layer

_SHOWN = ("layer", "kind", "stride", "output", "pixels apart", "sees", "parameters", "MFLOP")
_COLUMNS = ("name", "kind", "stride", "channels", "rows", "cols", "step", "field", "parameters", "flops")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(model)


def model(
    name: Annotated[
        str,
        typer.Argument(
            metavar="NAME",
            help="A BagNet (bagnet33, bagnet33v2, …), a model of one's own, or a network of torchvision's.",
            autocompletion=completing.networks,
        ),
    ],
    size: Annotated[int, typer.Option(metavar="PIXELS", min=1, help="The side of its input.")] = 224,
    classes: Annotated[int, typer.Option(metavar="N", min=1, help="How many classes it tells apart.")] = 1000,
    format_: FormatOption = Format.TABLE,
) -> None:
    """What a model is made of: its layers, how far apart their cells look and what they see, parameters and operations.

    It is found out by probing the model and not by formulas: what a cell sees is where the input's gradient is not
    zero, and operations (two for each multiplication and addition) are counted as torch performs them.

        bagindex model bagnet33
        bagindex model resnet50 --size 320
    """
    found = Index.architecture(name, classes=classes, size=size)
    if format_ is not Format.TABLE:
        print_rows(_COLUMNS, found.to_dicts(), format_)
        return
    print_rows(_SHOWN, [_row(layer) for layer in found.layers], format_, title=found.words)


def _row(layer: Layer) -> dict[str, Any]:
    return {
        "layer": layer.name,
        "kind": layer.kind,
        "stride": layer.stride,
        "output": f"{layer.channels} × {layer.rows} × {layer.cols}",
        "pixels apart": layer.step,
        "sees": layer.field,
        "parameters": layer.parameters,
        "MFLOP": round(layer.flops / 1e6, 1),
    }
