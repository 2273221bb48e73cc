"""`bagindex build`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Annotated

import typer

from bagindex import Index
from bagindex.text import bytes_text
from bagindex_cli.common import Format, print_rows, remark
from bagindex_cli.screen import Screen
from bagindex_cli.source_options import (
    AnnMemoryOption,
    AnnOption,
    BatchOption,
    ClassesOption,
    ClassMapOption,
    DataOption,
    DeviceOption,
    FollowOption,
    ImageColumnOption,
    ImageSizeOption,
    LabelColumnOption,
    LabelIdsOption,
    LabelsOption,
    LayoutOption,
    LimitOption,
    MaxErrorsOption,
    ModelsOption,
    NameOption,
    OutOption,
    PixelsOption,
    PrecisionOption,
    SourceArgument,
    SourceKindOption,
    SplitOption,
    StrictOption,
    TimeoutOption,
    WeightsOption,
    WorkersOption,
    parse_size,
)
from bagindex_cli.weights import AllowHashOption
from bagindex_schemas.records import Keep

if TYPE_CHECKING:
    from bagindex.build import BuildReport


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(build)


def build(
    source: SourceArgument,
    model: ModelsOption = None,
    weights: WeightsOption = None,
    allow_hash: AllowHashOption = None,
    classes: ClassesOption = None,
    data: DataOption = None,
    split: SplitOption = None,
    layout: LayoutOption = "auto",
    labels: LabelsOption = None,
    class_map: ClassMapOption = None,
    name: NameOption = None,
    out: OutOption = None,
    keep: Annotated[
        Keep,
        typer.Option(help="Store features and evidence, evidence, or each image's strongest patches only (summary)."),
    ] = Keep.FEATURES,
    pixels: PixelsOption = True,
    limit: LimitOption = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = "auto",
    precision: PrecisionOption = "auto",
    batch_size: BatchOption = None,
    workers: WorkersOption = None,
    engine: Annotated[
        str,
        typer.Option(metavar="local|ray", help="Compute shards in this process, or by Ray, on one machine or many."),
    ] = "local",
    address: Annotated[
        str | None,
        typer.Option(metavar="HOST:PORT", help="A running Ray cluster; else RAY_ADDRESS, else Ray is started here."),
    ] = None,
    gpus_per_worker: Annotated[
        float | None,
        typer.Option(metavar="PART", help="What a Ray worker takes of a GPU, 0 to 1; else 1, where there are any."),
    ] = None,
    decoder_timeout: TimeoutOption = 60.0,
    ann: AnnOption = None,
    ann_memory: AnnMemoryOption = None,
    follow_symlinks: FollowOption = False,
    source_kind: SourceKindOption = "auto",
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    label_ids: LabelIdsOption = False,
    strict: StrictOption = False,
    max_errors: MaxErrorsOption = None,
    restart: Annotated[bool, typer.Option("--restart", help="Begin anew, dropping what is there.")] = False,
    profile: Annotated[
        bool, typer.Option("--profile", help="Print where the time went: a line for each stage of the pipeline.")
    ] = False,
) -> None:
    """Index a folder of pictures: run a BagNet and keep the evidence of every patch.

    A build that was stopped goes on when the same command is run again.

        bagindex build photos/validation --weights clothing-bagnet33.safetensors
        bagindex build photos --labels labels.csv --model bagnet9 --model bagnet33 --keep evidence
        bagindex build imagenet-val --data /data/imagenet --model bagnet33
    """
    with Screen() as screen:
        index = Index.build(
            source,
            model=model,
            weights=weights,
            allow_hash=allow_hash,
            classes=classes,
            image_size=parse_size(image_size),
            data=data,
            split=split,
            layout=layout,
            labels=labels,
            class_map=class_map,
            follow_symlinks=follow_symlinks,
            source_kind=source_kind,
            image_column=image_column,
            label_column=label_column,
            label_ids=label_ids,
            name=name,
            out=out,
            keep=keep.value,
            pixels=pixels,
            limit=limit,
            strict=strict,
            max_errors=max_errors,
            restart=restart,
            device=device,
            precision=precision,
            batch_size=batch_size,
            workers=workers,
            engine=engine,
            address=address,
            gpus_per_worker=gpus_per_worker,
            decoder_timeout=decoder_timeout,
            ann=ann,
            ann_memory=ann_memory,
            observer=screen,
        )
    if index.build_report is not None:
        print_summary(index, index.build_report)
        if profile:
            print_profile(index.build_report)


def print_summary(index: Index, report: BuildReport) -> None:
    """What a build did and what the index holds."""
    rate = report.images_per_second
    done = f"{report.computed:,} computed now, {rate:.1f} images/s" if rate else "nothing was left to compute"
    patches = ", ".join(f"{count:,} patches of {model}" for model, count in report.patches.items())
    print(f"{report.images:,} images, {patches} ({done})")
    if report.rejects:
        codes = ", ".join(f"{count} {code}" for code, count in report.rejects.items())
        print(f"{sum(report.rejects.values()):,} files could not be indexed: {codes}")
        print(f"  bagindex sql -i {shlex.quote(index.place)} 'FROM rejects' says which and why")
    if not report.images:
        remark("nothing could be indexed: see the rejects")
    for series, tables in report.table_bytes.items():
        sizes = ", ".join(f"{table} {bytes_text(size)}" for table, size in tables.items() if size)
        print(f"{series}: {bytes_text(sum(tables.values()))} ({sizes})")
    print(f"{bytes_text(index.info().bytes)} in all, in {index.place}")


def print_profile(report: BuildReport) -> None:
    """Where a build's time went."""
    if not report.computed:
        return
    rows = [
        {
            "stage": each.stage,
            "threads": each.threads,
            "busy": f"{each.busy:.2f} s",
            "waiting": "" if each.waiting is None else f"{each.waiting:.2f} s",
            "images/s": "" if each.rate is None else f"{each.rate:,.1f}",
        }
        for each in report.stages
    ]
    title = f"{report.computed:,} images in {report.seconds:.1f} s"
    print_rows(["stage", "threads", "busy", "waiting", "images/s"], rows, Format.TABLE, title)
    print("busy and waiting: of all threads of a stage together; images/s: what it does while it is busy")
    print(f"the limit is: {report.limit}")
