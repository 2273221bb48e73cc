"""`bagindex words`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bagindex import Index
from bagindex.errors import QueryError
from bagindex.output import check_ending
from bagindex_cli import completing
from bagindex_cli.common import (
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
from bagindex_cli.screen import Steps
from bagindex_cli.stopping import say
from bagindex_cli.terminal import canvas
from bagindex_cli.terminal import show as draw

_COUNT = 256
_SHOWN = 20
_PATCHES = 24
_PICTURES = (".png", ".html")
_ENDINGS = (*_PICTURES, ".json", ".csv", ".parquet")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(words)


def words(
    class_: Annotated[
        str | None,
        typer.Argument(
            metavar="CLASS", help="Name, wnid or id of a class.", show_default=False, autocompletion=completing.classes
        ),
    ] = None,
    count: Annotated[
        int | None,
        typer.Option("-n", "--count", metavar="N", min=2, help="How many words to make; else those there are, or 256."),
    ] = None,
    again: Annotated[bool, typer.Option("--again", help="Make the words again.")] = False,
    k: Annotated[
        int | None, typer.Option("-k", metavar="N", min=1, help="How many to list: 20 in a table, all in JSON or CSV.")
    ] = None,
    wrong_class: Annotated[
        bool, typer.Option("--wrong-class", help="First what contributes most in images of other classes.")
    ] = False,
    word: Annotated[
        int | None, typer.Option(metavar="N", min=0, help="One word's patches, those with most evidence for CLASS.")
    ] = None,
    offset: Annotated[int, typer.Option(metavar="N", min=0, help="How many patches to pass over, with --word.")] = 0,
    model: ModelOption = None,
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
    show: ShowOption = False,
) -> None:
    """Visual words: kinds of patches that come again and again, and what each says of the classes.

    They are found in the features, when there are none yet or -n asks for others, and stored in the index. With CLASS,
    those come first that make its logit: how often a word is seen times its mean evidence, summed over all words, is
    the mean logit exactly.

        bagindex words -o words.png
        bagindex words dress --wrong-class -o dress.html
        bagindex words --word 18 -o word.png

    With --word, of each image that has the word its strongest patch: for CLASS, else for what the word says most.

    FILE ends in .png, .html (not with --word), .json, .csv, .parquet or .arrow.
    """
    if wrong_class and class_ is None:
        raise typer.BadParameter("--wrong-class is about a CLASS: name one")
    if word is not None and (wrong_class or again or count is not None):
        raise typer.BadParameter("--word shows one that there is: leave out -n, --again and --wrong-class")
    if offset and word is None:
        raise typer.BadParameter("--offset is about the patches of a --word")
    with open_index(index) as opened:
        if word is not None:
            _one(opened, word, class_, k or _PATCHES, offset, model, format_, output, show)
            return
        if class_ is not None:
            opened.find_class(class_)  # a word that is misspelt must not cost the making
        if output is not None:
            check_ending(output, _ENDINGS)
        if not opened.keeps_pixels and (show or (output is not None and output.suffix.lower() in _PICTURES)):
            raise QueryError(
                "this index keeps no pixels to show: ask for a table, or a .json, .csv, .parquet or .arrow file"
            )
        _make(opened, count, again, model)
        result = opened.words(class_, wrong_class=wrong_class, k=k, model=model)
        table = result if k is not None or len(result) <= _SHOWN else result.first(_SHOWN)
        if class_ is not None and result.right_logit is None:
            remark("no image of this index has that label" + (": see --wrong-class" if result.wrong_logit else ""))
        if show and (found := canvas()):
            draw(result.picture(found.width, coarse=found.coarse))
        if output is not None:
            result.save(output)
            remark(f"wrote {output}")
        elif format_ is Format.TABLE:
            print_rows(table.columns, table.table_rows(), format_, title=table.title)
            if len(table) < len(result):
                remark(f"{len(table)} of {len(result)} words; -k lists more, --format csv and -o FILE all")
        else:
            print_rows(list(result.to_dicts()[0]), result.to_dicts(), format_)


def _one(
    opened: Index,
    word: int,
    class_: str | None,
    k: int,
    offset: int,
    model: str | None,
    format_: Format,
    output: Path | None,
    show: bool,
) -> None:
    """Draw, write or print a word's patches."""
    patches = opened.word(word, class_, k=k, offset=offset, model=model)
    if show and patches and (found := canvas()):
        draw(patches.picture(found.width, coarse=found.coarse))
    if output is not None:
        patches.save(output)
        remark(f"wrote {output}")
    elif format_ is Format.TABLE:
        print_rows(patches.columns, patches.table_rows(), format_, title=patches.title)
        if len(patches) < patches.total:
            remark(f"{len(patches)} of {patches.total} images; -k and --offset list others")
    else:
        print_rows(patches.fields(), patches.to_dicts(), format_)


def _make(opened: Index, count: int | None, again: bool, model: str | None) -> None:
    """Make the words where there are none, others are asked for, or it is said."""
    asked = opened.words_made(model)
    if again or asked is None or (count is not None and count != asked):
        wanted = count or asked or _COUNT
        # What cannot be made is refused before the first step.
        opening = f"making {wanted:,} visual words" + (f" in place of the {asked:,} there are" if asked else "")
        with Steps("making visual words", opening) as steps:
            try:
                opened.make_words(wanted, model=model, progress=steps.at)
            except KeyboardInterrupt:
                say("what there was stays")
                raise
