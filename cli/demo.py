"""`bagindex demo` and `bagindex plant`: what bagindex does, on pictures that it makes itself."""

from __future__ import annotations

import shlex
from collections import Counter
from pathlib import Path
from typing import Annotated

import typer

from bagindex_cli.build import print_summary
from bagindex_cli.common import Format, print_rows, remark
from bagindex_cli.screen import Screen


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(demo)
    app.command()(plant)


def demo(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Where to write: an empty or new folder.")] = Path(
        "bagindex-demo"
    ),
) -> None:
    """See it work: draw pictures with planted evidence, index them, and show what speaks for each class.

    Needs no data set, no download and no GPU, and takes less than a minute. The pictures hold small motifs, so that it
    is known what speaks for which class; a small BagNet that knows them comes with bagindex.

        bagindex demo
    """
    from bagindex import demo as demonstration

    with Screen() as screen:
        report = demonstration.run(folder, screen)
        if report.index.build_report is not None:
            print_summary(report.index, report.index.build_report)
    rows = []
    for row in report.subrows:
        where = sorted({patch.label_name or "" for patch in row.patches}) if not row.right else [row.class_name]
        columns = {"class": row.class_name, "in pictures of": ", ".join(where), "top patches on": _counts(row.found)}
        columns["and on what is not of the class"] = _counts(row.elsewhere)
        rows.append(columns | {"most evidence": max((patch.logit for patch in row.patches), default=None)})
    print()
    print_rows(list(rows[0]), rows, Format.TABLE)
    print()
    for right, images in ((True, "pictures of the class"), (False, "pictures of other classes")):
        hits, patches = report.share(right)
        print(f"{hits} of {patches} top patches in {images} lie on a motif or shortcut of the class")
    index = shlex.quote(str(report.index.path))
    print(
        f"\nThe patches are drawn in {report.sheet}; what was planted where stands in {report.pictures / 'truth.csv'}."
    )
    print("Most trees were drawn with a ladybird on them: see what the model makes of ladybirds in other pictures.\n")
    print("Try next:")
    print(f"  bagindex top-patches tree --wrong-class -i {index} -o tree.png")
    print(f"  bagindex top-patches seam --wrong-class --predicted-as seam -i {index}")
    query = (
        "SELECT label_name, max(max_logit) AS most FROM image_evidence WHERE class = 'tree' GROUP BY 1 ORDER BY 2 DESC"
    )
    print(f'  bagindex sql "{query}" -i {index}')
    print(f"  bagindex verify -i {index}")
    print("  bagindex build PICTURES --weights FILE    and README, for pictures and models of your own")
    print(f"The demo's own weights, to give as FILE: {shlex.quote(str(demonstration.weights()))}")


def _counts(motifs: Counter[str]) -> str:
    return ", ".join(f"{motif.replace('_', ' ')} {count}" for motif, count in motifs.most_common())


def plant(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Gets train/ and validation/.", show_default=False)],
    train: Annotated[int, typer.Option(metavar="N", min=1, help="Training pictures of each class.")] = 300,
    validation: Annotated[int, typer.Option(metavar="N", min=1, help="Validation pictures of each class.")] = 50,
    wrong: Annotated[
        float,
        typer.Option(metavar="X", help="Share of the pictures that hold something that speaks for another class."),
    ] = 0.1,
    seed: Annotated[int, typer.Option(metavar="N", min=0, help="Other pictures for another seed.")] = 1,
) -> None:
    """Make a data set of planted evidence, to train on and to test methods against.

    Every picture's motifs and their boxes stand in the truth.csv of each split. The same seed gives the same files.

        bagindex plant planted && bagindex train planted --model bagnet33 -o planted.safetensors
    """
    from bagindex import demo as demonstration

    for split, count in zip(demonstration.SPLITS, (train, validation), strict=True):
        remark(f"drawing {count:,} {split} pictures of each class")
        truth = demonstration.plant(folder / split, count, demonstration.seed_of(split, seed), wrong)
        pictures = count * len(demonstration.CLASSES)
        print(f"{folder / split}: {pictures:,} pictures, {len(truth):,} motifs, listed in its truth.csv")
