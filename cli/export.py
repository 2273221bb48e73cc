"""`bagindex export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bagindex.text import bytes_text
from bagindex_cli import completing
from bagindex_cli.common import IndexOption, ModelOption, open_index, remark
from bagindex_cli.screen import Steps

app = typer.Typer(
    help="Write an index for other tools: FiftyOne, Embedding Atlas, TensorBoard, Datasette; or to share it.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
WhereOption = Annotated[
    str | None, typer.Option("--where", metavar="SQL", help='Only images of which this holds, e.g. "width > 500".')
]
SampleOption = Annotated[int, typer.Option("--sample", metavar="N", min=1, help="So many patches, drawn from all.")]
ClassOption = Annotated[
    str | None,
    typer.Option(
        "--class",
        metavar="CLASS",
        help="Give evidence for this class; else for each patch's strongest.",
        autocompletion=completing.classes,
    ),
]
SeedOption = Annotated[int, typer.Option("--seed", metavar="N", min=0, help="Of the draw.")]


def register(parent: typer.Typer) -> None:
    """Add the commands."""
    parent.add_typer(app, name="export")


def _to(what: str, example: str) -> typer.models.OptionInfo:
    found: typer.models.OptionInfo = typer.Option("--output", "-o", metavar=example, help=what, show_default=False)
    return found


@app.command()
def query(
    sql: Annotated[str, typer.Argument(metavar="QUERY", help="SQL that reads, as for `bagindex sql`.")],
    output: Annotated[Path, _to("A .parquet, .arrow, .csv or .jsonl.", "FILE")],
    index: IndexOption = None,
) -> None:
    """The rows of any query, however many: they are written as they come.

    Of memory it takes little; `bagindex sql -o FILE` holds the whole result. Columns of lists are JSON in a .csv.

        bagindex export query "FROM evidence WHERE class = 'dress'" -o dress.parquet
    """
    with open_index(index) as opened:
        count = opened.export_query(sql, output)
    remark(f"wrote {count:,} rows to {output}")


@app.command()
def summary(output: Annotated[Path, _to("A .zip.", "FILE.zip")], index: IndexOption = None) -> None:
    """An index of summaries, without pixels and features, in one archive to share.

    Predictions, each image's strongest patch for each class, and the model. Whoever has it asks it as it is:

        bagindex export summary -o clothes.zip
        bagindex top-patches dress -i clothes.zip
    """
    with open_index(index) as opened, Steps("copying shards") as steps:
        size = opened.export_summary(output, progress=steps.at)
    remark(f"wrote {bytes_text(size)} to {output}; `-i {output}` opens it")


@app.command()
def sqlite(
    output: Annotated[Path, _to("A .db, .sqlite or .sqlite3.", "FILE.db")],
    top: Annotated[
        int, typer.Option("--top", metavar="N", min=0, help="So many patches of each class, in right and wrong images.")
    ] = 20,
    image_evidence: Annotated[
        bool,
        typer.Option(
            "--image-evidence/--no-image-evidence", help="Each image's strongest patch for each class: many rows."
        ),
    ] = True,
    index: IndexOption = None,
) -> None:
    """A SQLite database, ready for Datasette.

    Tables classes, models, images, rejects, predictions, top_patches (with PNG pictures) and image_evidence, with keys
    between them; `datasette clothes.db` shows it.

        bagindex export sqlite -o clothes.db
    """
    with open_index(index) as opened, Steps("writing tables") as steps:
        counts = opened.export_sqlite(
            output, top=top, image_evidence=image_evidence, progress=lambda _table, done, total: steps.at(done, total)
        )
    remark(f"wrote {output}: " + ", ".join(f"{rows:,} {table}" for table, rows in counts.items()))


@app.command()
def fiftyone(
    output: Annotated[Path, _to("A folder that is not there yet.", "FOLDER")],
    patches: Annotated[
        int, typer.Option("--patches", metavar="N", min=1, help="Of an image, for its prediction and its label each.")
    ] = 5,
    where: WhereOption = None,
    source: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Show the original files, which are here, and not the model's inputs."),
    ] = None,
    model: ModelOption = None,
    index: IndexOption = None,
) -> None:
    """A FiftyOne data set: images with label and prediction, their strongest patches as detections.

    In Python, `fiftyone.Dataset.from_dir("clothes", dataset_type=fiftyone.types.FiftyOneDataset)` opens it.

        bagindex export fiftyone -o clothes
        bagindex export fiftyone --where "predicted <> label" --source photos/validation -o errors
    """
    with open_index(index) as opened, Steps("writing images") as steps:
        count = opened.export_fiftyone(
            output, patches=patches, where=where, source=source, model=model, progress=steps.at
        )
    remark(f"wrote {count:,} images to {output}")


@app.command("embedding-atlas")
def embedding_atlas(
    output: Annotated[Path, _to("A .parquet.", "FILE.parquet")],
    sample: SampleOption = 5000,
    class_: ClassOption = None,
    where: WhereOption = None,
    seed: SeedOption = 0,
    model: ModelOption = None,
    index: IndexOption = None,
) -> None:
    """Features of a sample of patches, with pictures and evidence, for Apple's Embedding Atlas.

    Each patch has its image's path, label and prediction, its place, and the class that it speaks most for. The Atlas
    makes the map: `embedding-atlas patches.parquet --vector feature --image patch`.

        bagindex export embedding-atlas -o patches.parquet
        bagindex export embedding-atlas --class dress --where "label_name = 'skirt'" -o skirts.parquet
    """
    count = _write_features("embedding-atlas", output, index, sample, class_, where, seed, model)
    remark(f"wrote {count:,} patches to {output}: embedding-atlas {output} --vector feature --image patch")


@app.command()
def projector(
    output: Annotated[Path, _to("A folder that is not there yet.", "FOLDER")],
    sample: SampleOption = 2000,
    class_: ClassOption = None,
    where: WhereOption = None,
    seed: SeedOption = 0,
    model: ModelOption = None,
    index: IndexOption = None,
) -> None:
    """Features of a sample of patches, with pictures and evidence, for TensorBoard's projector.

    The folder is one for logs: `tensorboard --logdir patches`. Its pictures are one sprite, which has room for 61,504
    patches of 33 pixels.

        bagindex export projector -o patches
    """
    count = _write_features("projector", output, index, sample, class_, where, seed, model)
    remark(f"wrote {count:,} patches to {output}: tensorboard --logdir {output}")


def _write_features(
    tool: str,
    output: Path,
    index: str | None,
    sample: int,
    class_: str | None,
    where: str | None,
    seed: int,
    model: str | None,
) -> int:
    with open_index(index) as opened, Steps("writing patches") as steps:
        return opened.export_features(
            output, tool=tool, sample=sample, class_=class_, where=where, seed=seed, model=model, progress=steps.at
        )
