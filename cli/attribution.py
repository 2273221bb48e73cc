"""`bagindex evaluate-attribution`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bagindex import Index
from bagindex.output import printable
from bagindex_cli.common import (
    DeviceOption,
    Format,
    FormatOption,
    IndexOption,
    ModelOption,
    open_index,
    print_rows,
    remark,
)
from bagindex_cli.screen import WorkScreen


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("evaluate-attribution")(evaluate_attribution)


def evaluate_attribution(
    methods: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Methods by name (--list shows them), captum:CLASS, or MODULE:FUNCTION; parameters stand behind, as "
            "in smoothgrad(samples=50).",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The folder that the results go to.")
    ] = None,
    model: ModelOption = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="So many images only, evenly spread.")] = None,
    class_: Annotated[
        str, typer.Option("--class", metavar="predicted|label|CLASS", help="The class whose logit is accounted for.")
    ] = "predicted",
    baseline: Annotated[
        str,
        typer.Option(metavar="mean|black|white|blur", help="What an input without evidence looks like."),
    ] = "mean",
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of what is drawn at random.")] = 0,
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the indexed files are now, for an index that keeps no pixels."),
    ] = None,
    list_: Annotated[bool, typer.Option("--list", help="List the methods.")] = False,
    format_: FormatOption = Format.TABLE,
    index: IndexOption = None,
) -> None:
    """Judge attribution methods by a BagNet, of which it is known exactly what each patch contributes.

    DIR gets the scores with their 95 % intervals as CSV, curves and a sheet of examples as PNG and PDF, and settings
    and versions as JSON. A run that was stopped goes on when the same command is run again. Captum's and Zennit's
    methods need `pip install 'bagindex[attribution]'`.

        bagindex evaluate-attribution --methods random,saliency,deeplift -o results

        bagindex evaluate-attribution --methods "captum:Deconvolution,mine:attribute(k=3)" --limit 50 -o results
    """
    if list_:
        rows = Index.attribution_methods()
        print_rows(list(rows[0]), rows, format_)
        return
    if methods is None:
        raise typer.BadParameter("say which methods, or --list", param_hint="--methods")
    if output is None:
        raise typer.BadParameter("give the folder that the results go to", param_hint="-o")
    stopped = "stopped; finished images are kept, and the same command goes on from there"
    with open_index(index) as opened, WorkScreen(stopped) as screen:
        found = opened.evaluate_attribution(
            methods,
            output,
            model=model,
            limit=limit,
            class_=class_,
            baseline=baseline,
            device=device,
            seed=seed,
            source=source,
            progress=screen.at,
            note=screen.note,
        )
    if format_ is Format.TABLE:
        print_rows(found.columns, found.table_rows(), format_, title=printable(found.title))
    else:
        rows = found.to_dicts()
        print_rows(list(rows[0]), rows, format_)
    remark(f"wrote {len(found.files)} files to {output}")
