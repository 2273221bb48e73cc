"""`bagindex top-patches` and `bagindex sql`."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from bagindex_cli import completing
from bagindex_cli.common import (
    ClassArgument,
    Format,
    FormatOption,
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

_SHOWN_ROWS = 1000


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command("top-patches")(top_patches)
    # A query may begin with a comment, which looks like an option.
    app.command(context_settings={"ignore_unknown_options": True})(sql)


def top_patches(
    class_: ClassArgument,
    right_class: Annotated[bool, typer.Option("--right-class", help="In images of the class: the default.")] = False,
    wrong_class: Annotated[bool, typer.Option("--wrong-class", help="In images of any other class.")] = False,
    any_class: Annotated[bool, typer.Option("--any", help="In all images, unlabelled ones too.")] = False,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many patches.")] = 7,
    per_image: Annotated[
        int, typer.Option(metavar="N", min=1, help="How many of one image at most; they do not overlap.")
    ] = 1,
    overlap: Annotated[bool, typer.Option("--overlap", help="Let patches of one image overlap.")] = False,
    label: Annotated[
        str | None,
        typer.Option(metavar="CLASS", help="Only images with that label.", autocompletion=completing.classes),
    ] = None,
    predicted_as: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS", help="Only images that the model predicts as CLASS.", autocompletion=completing.classes
        ),
    ] = None,
    misclassified: Annotated[
        bool, typer.Option("--misclassified", help="Only images that the model gets wrong.")
    ] = False,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help='Only images of which this holds, e.g. "width > 500".')
    ] = None,
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="How many of the strongest to pass over.")] = 0,
    model: ModelOption = None,
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
    show: ShowOption = False,
) -> None:
    """The patches with most evidence for a class (Figure 3 of the BagNet paper).

    FILE ends in .png (the patches as pictures), .json, .csv, .parquet or .arrow.

        bagindex top-patches dress
        bagindex top-patches dress --wrong-class -o dress.png
    """
    if right_class + wrong_class + any_class > 1:
        raise typer.BadParameter("--right-class, --wrong-class and --any exclude each other")
    with open_index(index) as opened:
        result = opened.top_patches(
            class_,
            wrong_class=wrong_class,
            any_class=any_class,
            k=k,
            per_image=per_image,
            overlap=overlap,
            label=label,
            predicted_as=predicted_as,
            misclassified=misclassified,
            where=where,
            offset=offset,
            model=model,
        )
        if not result:
            unlabelled = not any_class and opened.unlabelled
            remark(
                "no image of this index has a label: ask with --any"
                if unlabelled
                else f"no patch answers this: {result.question}"
            )
        if show and result and (found := canvas()):
            draw(result.picture(found.width, coarse=found.coarse))
        if output is not None:
            result.save(output)
            remark(f"wrote {output}")
        elif format_ is Format.TABLE:
            print_rows(result.columns, result.table_rows(), format_, title=result.question)
        else:
            print_rows(result.fields(), result.to_dicts(), format_)


def sql(
    query: Annotated[str, typer.Argument(metavar="QUERY", help="SQL that reads; - reads it from stdin.")],
    safe: Annotated[
        bool, typer.Option("--safe", help="The query is a stranger's: in a process that can only read, with limits.")
    ] = False,
    explain: Annotated[bool, typer.Option("--explain", help="Show how the query would be run instead.")] = False,
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
) -> None:
    """Ask anything, in DuckDB's SQL.

    Tables: classes, models, images, rejects. Views: evidence (a row for each class and patch), image_evidence (for
    each class and image: the strongest patch, the mean), predictions, features, pixels; words, word_evidence and
    patch_words. Functions: evidence_of(class), margin(a, b), words_of(class), image_words(image_id), confusions().

        bagindex sql "SELECT label_name, max(logit) FROM evidence WHERE class = 'dress' AND NOT correct GROUP BY 1"
        bagindex sql "DESCRIBE evidence"
        bagindex sql "FROM margin('dress', 'skirt') ORDER BY margin DESC LIMIT 5"

    FILE ends in .json, .csv, .parquet or .arrow.
    """
    with open_index(index) as opened:
        result = opened.sql(sys.stdin.read() if query == "-" else query, safe=safe, explain=explain)
        if result.truncated:
            remark("there are more rows than a safe query gives")
        if output is not None:
            result.save(output)
            remark(f"wrote {len(result):,} rows to {output}")
            return
        rows = result.to_dicts()
        if format_ is Format.TABLE and len(rows) > _SHOWN_ROWS:
            print_rows(result.columns, rows[:_SHOWN_ROWS], format_)
            remark(f"the first {_SHOWN_ROWS:,} of {len(rows):,} rows; --format csv or -o FILE gives all")
        else:
            print_rows(result.columns, rows, format_)
