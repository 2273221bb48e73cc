"""`bagindex similar` and `bagindex index`."""

from __future__ import annotations

import re
import sys
from enum import StrEnum
from typing import Annotated

import typer

from bagindex_cli import completing
from bagindex_cli.common import (
    DeviceOption,
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
from bagindex_cli.screen import Steps, relating
from bagindex_cli.source_options import AnnMemoryOption
from bagindex_cli.stopping import say
from bagindex_cli.terminal import canvas
from bagindex_cli.terminal import show as draw


class Metric(StrEnum):
    """What is nearest: the cosine of two features, or their Euclidean distance."""

    COSINE = "cosine"
    L2 = "l2"


MetricOption = Annotated[
    Metric, typer.Option(help="What is nearest: by the cosine of the features, or their distance.")
]


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(similar)
    app.command()(index)


def similar(
    patch: Annotated[
        int | None, typer.Argument(metavar="PATCH_ID", help="A patch of the index.", show_default=False)
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Instead: id or path of an image of the index, or a picture file, with"),
    ] = None,
    box: Annotated[
        str | None, typer.Option(metavar="X0,Y0,X1,Y1", help="a box in it (pixels of the picture, after rotation),")
    ] = None,
    at: Annotated[str | None, typer.Option(metavar="X,Y", help="or a point.")] = None,
    k: Annotated[int, typer.Option("-k", metavar="N", min=1, help="How many patches.")] = 10,
    other_images: Annotated[bool, typer.Option("--other-images", help="None of the same image.")] = False,
    overlap: Annotated[bool, typer.Option("--overlap", help="Let patches of one image overlap.")] = False,
    per_image: Annotated[int | None, typer.Option(metavar="N", min=1, help="How many of one image at most.")] = None,
    class_: Annotated[
        str | None,
        typer.Option(
            "--class",
            metavar="CLASS",
            help="Only images of this class (name, wnid or id).",
            autocompletion=completing.classes,
        ),
    ] = None,
    wrong_class: Annotated[
        bool,
        typer.Option("--wrong-class", help="Only images of other classes: than --class, else than the image's own."),
    ] = False,
    where: Annotated[
        str | None, typer.Option(metavar="SQL", help='Only images of which this holds, e.g. "width > 500".')
    ] = None,
    metric: MetricOption = Metric.COSINE,
    exact: Annotated[bool, typer.Option("--exact", help="Compare all patches, without the FAISS index.")] = False,
    model: ModelOption = None,
    device: DeviceOption = "auto",
    index: IndexOption = None,
    format_: FormatOption = Format.TABLE,
    output: OutputOption = None,
    show: ShowOption = False,
) -> None:
    """The patches most like one: nearest neighbours among the features.

    Patches that share pixels with it or with each other are left out. The answer says whether it is exact, or found by
    the FAISS index and with what recall. FILE ends in .png (the patches as pictures), .json, .csv, .parquet or .arrow.

        bagindex similar 100000 --other-images
        bagindex similar --image holiday.jpg --box 120,80,200,160 -o similar.png
    """
    if (patch is None) == (image is None):
        raise typer.BadParameter("give PATCH_ID, or --image with --box or --at")
    if (image is None) != (box is None and at is None) or (box is not None and at is not None):
        raise typer.BadParameter("--image goes with --box or with --at")
    corners, point = _numbers(box, 4, "--box"), _numbers(at, 2, "--at")
    with open_index(index) as opened, Steps("comparing images") as steps:
        result = opened.similar(
            patch,
            image=image,
            box=None if corners is None else (corners[0], corners[1], corners[2], corners[3]),
            at=None if point is None else (point[0], point[1]),
            k=k,
            other_images=other_images,
            overlap=overlap,
            per_image=per_image,
            class_=class_,
            wrong_class=wrong_class,
            where=where,
            metric=metric.value,
            exact=exact,
            model=model,
            device=device,
            progress=steps.at,
        )
        if not result:
            remark(f"no patch answers this: {result.question}")
        if show and (found := canvas()):
            draw(result.picture(found.width, coarse=found.coarse))
        if output is not None:
            result.save(output)
            remark(f"wrote {output}")
        elif format_ is Format.TABLE:
            print_rows(result.columns, result.table_rows(), format_, title=result.title)
        elif format_ is Format.JSON:
            sys.stdout.write(result.to_json())
        else:
            print_rows(result.fields(), result.to_dicts(), format_)
            remark(result.how)


def _numbers(text: str | None, count: int, option: str) -> list[float] | None:
    if text is None:
        return None
    parts = [part.strip() for part in text.split(",")]
    if len(parts) != count or not all(re.fullmatch(r"-?\d+(\.\d+)?", part) for part in parts):
        raise typer.BadParameter(f"{count} numbers with commas between, in pixels of the picture", param_hint=option)
    return [float(part) for part in parts]


def index(
    which: IndexOption = None,
    ann: Annotated[
        str,
        typer.Option(
            metavar="auto|none|FACTORY",
            help="Which: by size, none (answers are exact, by comparing all patches), or a factory string of FAISS.",
        ),
    ] = "auto",
    ann_memory: AnnMemoryOption = None,
    metric: MetricOption = Metric.COSINE,
    model: ModelOption = None,
) -> None:
    """Make the FAISS index that answers `similar` fast; `build` ends with this.

    Its recall against exact answers is measured on held-out patches, and shown by `info`.

        bagindex index --ann IVF1024,RaBitQ2
    """
    with open_index(which) as opened:
        for name in [model] if model else opened.models:
            with relating(name) as steps:
                try:
                    made = opened.make_ann(ann, memory=ann_memory, metric=metric.value, model=name, progress=steps.at)
                except KeyboardInterrupt:
                    say("what there was stays")
                    raise
            print(f"{name}: {made}")
