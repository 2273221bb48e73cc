"""`bagindex reproduce`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagindex import Index
from bagindex.output import printable
from bagindex_cli.common import DeviceOption, Format, IndexOption, open_index, print_rows, remark
from bagindex_cli.screen import WorkScreen
from bagindex_cli.source_options import ClassesOption

if TYPE_CHECKING:
    from bagindex.experiments.experiment import Beside, Outcome

_SHOWN = 10
"""Rows of a longer table that are printed."""
_COLUMNS = ("quantity", "paper", "ours", "comparable", "where")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(reproduce)


def reproduce(
    experiment: Annotated[
        str | None,
        typer.Argument(metavar="EXPERIMENT|all", help="Its name; --list shows them.", show_default=False),
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="The folder that the results go to.")
    ] = None,
    against: Annotated[
        str | None,
        typer.Option(
            metavar="A,B,...",
            help="Networks to compare with: vgg16, resnet50, … (torchvision's), NAME=FILE, timm:NAME.",
        ),
    ] = None,
    predictions: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="A network's predictions, as CSV or Parquet; may be given again."),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option("--model", metavar="NAME", help="A model of the index, else all; may be given again."),
    ] = None,
    limit: Annotated[int | None, typer.Option(metavar="N", min=1, help="So many images only, evenly spread.")] = None,
    device: DeviceOption = "auto",
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Of what is drawn at random.")] = 0,
    source: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Where the indexed files are now, for an index that keeps no pixels."),
    ] = None,
    classes: ClassesOption = None,
    list_: Annotated[bool, typer.Option("--list", help="List the experiments.")] = False,
    index: IndexOption = None,
) -> None:
    """Run an experiment of the BagNet paper on an index: its numbers, its plot, and the paper's figures beside ours.

    DIR gets the tables as CSV, the plots as PNG and PDF, and all that is to be said of them as JSON. With `all`, every
    experiment is run that can be, and DIR gets a report, report.html, which says what was left out and why.

        bagindex reproduce accuracy -o results
        bagindex reproduce correlation --against vgg16 -o results
        bagindex reproduce all --against vgg16,resnet18=mine.safetensors --limit 500 -o results
    """
    if list_:
        rows = [
            {"experiment": each.name, "what": each.title, "in the paper": each.section, "needs": each.needs.value}
            for each in Index.experiments()
        ]
        print_rows(list(rows[0]), rows, Format.TABLE)
        return
    if experiment is None:
        raise typer.BadParameter("give EXPERIMENT, or --list")
    if output is None:
        raise typer.BadParameter("give the folder that the results go to", param_hint="-o")
    with open_index(index) as opened, WorkScreen() as screen:
        found = opened.reproduce(
            experiment,
            output,
            models=model,
            against=[each.strip() for each in (against or "").split(",") if each.strip()],
            predictions=predictions or (),
            limit=limit,
            device=device,
            seed=seed,
            source=source,
            classes=classes,
            progress=screen.at,
            note=screen.note,
        )
    for outcome in found.outcomes:
        _print(outcome)
    for each in found.left_out:
        remark(f"{each.experiment.name} was left out: {each.why}")
    for text in found.missing:
        remark(f"not compared with {text}")
    remark(f"wrote {len(found.files)} files to {output}" + (f"; open {found.files[-1]}" if experiment == "all" else ""))


def _print(outcome: Outcome) -> None:
    """The paper's figures beside ours, or where there are none the numbers, and what is to be said of them."""
    if outcome.beside:
        print_rows(_COLUMNS, [_row(each) for each in outcome.beside], Format.TABLE, title=outcome.title)
    else:
        table = next(iter(outcome.tables.values()))
        rows = table.slice(0, _SHOWN).to_pylist()
        print_rows(table.column_names, rows, Format.TABLE, title=outcome.title)
        if len(rows) < len(table):
            print(f"{len(rows)} of {len(table):,} rows")
    reasons = dict.fromkeys(each.why for each in outcome.beside if each.why)
    for text in (*(f"Not comparable with the paper's: {reason}." for reason in reasons), *outcome.remarks):
        print(printable(text))
    print()


def _row(beside: Beside) -> dict[str, Any]:
    unit = f" ({beside.unit})" if beside.unit else ""
    return {
        "quantity": f"{beside.quantity}{unit}",
        "paper": beside.paper,
        "ours": None if beside.ours is None else float(f"{beside.ours:.4g}"),
        "comparable": "yes" if beside.comparable else "no",
        "where": beside.where,
    }
