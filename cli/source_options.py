"""Options that `build` and `update` share: the source, its labels, and how it is read."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from bagindex.text import parse_bytes

DataOption = Annotated[
    Path | None, typer.Option("--data", metavar="PATH", help="Where imagenet-val is; else BAGINDEX_IMAGENET.")
]
SplitOption = Annotated[
    str | None, typer.Option("--split", metavar="val|train", help="Which part of a named data set; else val.")
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


def _bytes(text: str) -> int:
    found = parse_bytes(text)
    if found is None:
        raise typer.BadParameter("a number of bytes, such as 500MB or 2GB")
    return found


AnnMemoryOption = Annotated[
    int | None,
    typer.Option(
        "--ann-memory",
        metavar="SIZE",
        parser=_bytes,
        help="Memory that making it may take; else 2GB.",
        show_default=False,
    ),
]
