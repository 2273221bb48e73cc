"""Options that `build`, `plan` and `update` share: the source, its labels, how it is read, and the models."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from bagindex.text import parse_bytes
from bagindex_cli import completing

SourceArgument = Annotated[
    str,
    typer.Argument(
        metavar="SOURCE",
        help="A folder of pictures, here or in an object store; Parquet, Arrow or tar files, by a pattern or their "
        "folder; a CSV or COCO file of boxes; imagenet-val, imagenette or torchvision:NAME.",
        show_default=False,
    ),
]
ModelsOption = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        metavar="NAME",
        help="A BagNet, a model of your own (package.module:function, or as installed), timm:NAME. May be repeated.",
        autocompletion=completing.bagnets,
    ),
]
WeightsOption = Annotated[
    list[Path] | None,
    typer.Option(
        "--weights",
        metavar="FILE",
        help="Checkpoint: .safetensors, .pth, .pth.tar or .h5, one for each --model; else the official ones.",
    ),
]
ClassesOption = Annotated[
    str | None,
    typer.Option(
        "--classes",
        metavar="FILE|imagenet",
        help="Class names in the order of the logits; else the checkpoint's own.",
    ),
]
NameOption = Annotated[
    str | None, typer.Option("--name", metavar="NAME", help="The index's name; else from the source.")
]
OutOption = Annotated[
    str | None,
    typer.Option(
        "--out", metavar="PATH|URL", help="The index's folder, or its URL in an object store, instead of a name."
    ),
]
PixelsOption = Annotated[
    bool, typer.Option("--pixels/--no-pixels", help="Keep the model's inputs, without which patches cannot be shown.")
]
LimitOption = Annotated[
    int | None,
    typer.Option("--limit", metavar="N", min=1, help="Only N images, evenly spread over the source."),
]
ImageSizeOption = Annotated[
    str | None,
    typer.Option("--image-size", metavar="N|HxW", help="Side, or height and width, of the model's input in pixels."),
]
DataOption = Annotated[
    Path | None,
    typer.Option(
        "--data",
        metavar="PATH",
        help="Where imagenet-val is, else BAGINDEX_IMAGENET; or the pictures of a list of boxes, else beside it.",
    ),
]
SplitOption = Annotated[
    str | None,
    typer.Option("--split", metavar="NAME", help="Which part of a data set that has several, such as val or train."),
]
LayoutOption = Annotated[
    str, typer.Option("--layout", metavar="auto|folders|flat", help="Labels from the folders' names, or no labels.")
]
LabelsOption = Annotated[
    Path | None,
    typer.Option(
        "--labels", metavar="FILE", help="Labels by file: a CSV or Parquet file with the columns path, label."
    ),
]
ClassMapOption = Annotated[
    Path | None,
    typer.Option("--class-map", metavar="CSV", help="What labels that are no class names mean: columns source,class."),
]
DeviceOption = Annotated[str, typer.Option("--device", metavar="auto|cpu|cuda[:N]", help="Where the model runs.")]
PrecisionOption = Annotated[
    str,
    typer.Option(
        "--precision",
        metavar="auto|fp32|tf32|bf16|fp16",
        help="What the model computes in; auto: float32, unless a faster one gives the same on a sample of the images.",
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option("--batch-size", metavar="N", min=1, help="Images at a time; else what suits the device."),
]
WorkersOption = Annotated[
    int | None,
    typer.Option(
        "--workers",
        metavar="N",
        min=1,
        max=256,
        help="Decoding threads; else one per core, at most 16. With --engine ray, workers of Ray's.",
    ),
]
TimeoutOption = Annotated[
    float, typer.Option("--decoder-timeout", metavar="SECONDS", help="Reject a picture that takes longer to decode.")
]
FollowOption = Annotated[bool, typer.Option("--follow-symlinks", help="Index what symbolic links point to.")]
SourceKindOption = Annotated[
    str,
    typer.Option(
        "--source-kind",
        metavar="auto|folder|parquet|arrow|webdataset|crops",
        help="How the source holds pictures, where it may be read in several ways.",
    ),
]
ImageColumnOption = Annotated[
    str | None,
    typer.Option("--image-column", metavar="NAME", help="The column of a table's pictures; else the only one."),
]
LabelColumnOption = Annotated[
    str | None,
    typer.Option(
        "--label-column",
        metavar="NAME",
        help="The column of a table's labels, or the ending of a tar archive's; else `label`, `cls`.",
    ),
]
LabelIdsOption = Annotated[bool, typer.Option("--label-ids", help="Labels are numbers, and the model's own class ids.")]
StrictOption = Annotated[bool, typer.Option("--strict", help="Stop at the first file that cannot be indexed.")]
MaxErrorsOption = Annotated[
    int | None,
    typer.Option("--max-errors", metavar="N", min=0, help="Stop when more than N files cannot be indexed."),
]
AnnOption = Annotated[
    str | None,
    typer.Option(
        "--ann",
        metavar="auto|none|FACTORY",
        help="FAISS index for `similar`: by size, none (answers are exact, by looking at all), or a factory string.",
        show_default=False,
    ),
]


def parse_size(text: str | None) -> tuple[int, int] | None:
    """Height and width, from what `--image-size` takes."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d{1,5})(?:x(\d{1,5}))?", text)
    if match is None:
        raise typer.BadParameter("a number of pixels, or HEIGHTxWIDTH", param_hint="--image-size")
    return int(match[1]), int(match[2] or match[1])


def bytes_option(text: str) -> int:
    """A number of bytes, from what people write."""
    found = parse_bytes(text)
    if found is None:
        raise typer.BadParameter("a number of bytes, such as 500MB or 2GB")
    return found


AnnMemoryOption = Annotated[
    int | None,
    typer.Option(
        "--ann-memory",
        metavar="SIZE",
        parser=bytes_option,
        help="Memory that making it may take; else 2GB.",
        show_default=False,
    ),
]
