"""`bagindex map`."""

from __future__ import annotations

from typing import Annotated

import typer

from bagindex import Index
from bagindex.output import check_ending, printable
from bagindex_cli.common import (
    Format,
    FormatOption,
    IndexOption,
    ModelOption,
    OutputOption,
    open_index,
    print_rows,
    remark,
)
from bagindex_cli.screen import Steps

_SHOWN = 10
_ENDINGS = (".png", ".svg", ".pdf", ".html", ".json", ".csv", ".parquet")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command("map")(map_)


def map_(
    class_: Annotated[
        str | None,
        typer.Argument(metavar="CLASS", help="Whose evidence colours it; else what each speaks most for."),
    ] = None,
    words: Annotated[bool, typer.Option("--words", help="A map of the visual words, instead of patches.")] = False,
    sample: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="How many patches, drawn evenly from all; else 2,000.")
    ] = None,
    seed: Annotated[int | None, typer.Option(metavar="N", min=0, help="Of what is drawn at random; else 0.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Make the map again.")] = False,
    model: ModelOption = None,
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
) -> None:
    """A map of patches, or of visual words: those lie together that look alike to the model.

    It is laid out by t-SNE when there is none yet, or another is asked for, and stored in the index. FILE ends in .png,
    .svg, .pdf, .html (a page on which each point shows its patch), .json, .csv or .parquet.

        bagindex map -o map.html
        bagindex map dress --sample 5000 -o dress.png
    """
    if words and sample is not None:
        raise typer.BadParameter("--sample is of patches, and --words has one point for each word")
    with open_index(index) as opened:
        if class_ is not None:
            opened.find_class(class_)  # a class that is misspelt must not cost the making
        if output is not None:
            check_ending(output, _ENDINGS)
        _make(opened, words, sample, seed, again, model)
        found = opened.patch_map(class_, words=words, model=model)
        if output is not None:
            found.save(output)
            remark(f"wrote {output}")
        elif format_ is Format.TABLE:
            print_rows(found.columns, found.table_rows()[:_SHOWN], format_, title=found.title)
            print(f"\n{printable(found.words)}")
            remark(f"{min(_SHOWN, len(found))} of {len(found)} points; -o FILE.png or .html shows the map")
        else:
            print_rows(list(found.types), found.table_rows(), format_)


def _make(opened: Index, words: bool, sample: int | None, seed: int | None, again: bool, model: str | None) -> None:
    """Make the map where there is none, another is asked for, or it is said."""
    made = opened.map_made(words=words, model=model)
    other = made is not None and ((sample not in (None, made.asked)) or (seed not in (None, made.seed)))
    if made is not None and not other and not again:
        return
    wanted = sample if sample is not None or made is None else made.asked
    drawn = seed if seed is not None else 0 if made is None else made.seed
    with Steps("laying out a map") as steps:
        try:
            opened.make_map(words=words, sample=wanted, seed=drawn, model=model, progress=steps.at)
        except KeyboardInterrupt:
            remark("stopped; what there was stays")
            raise
