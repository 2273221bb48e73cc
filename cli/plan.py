"""`bagindex plan`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagindex import Index, output
from bagindex.text import bytes_text
from bagindex_cli.common import Format, FormatOption, print_rows
from bagindex_cli.screen import Screen
from bagindex_cli.source_options import (
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
    ModelsOption,
    NameOption,
    OutOption,
    PixelsOption,
    SourceArgument,
    SourceKindOption,
    SplitOption,
    WeightsOption,
    WorkersOption,
    bytes_option,
    parse_size,
)
from bagindex_cli.weights import AllowHashOption
from bagindex_schemas.records import Keep

if TYPE_CHECKING:
    from bagindex.planning import Planned

_BYTES = ("features", "similar", "evidence", "pixels", "summary", "total", "scratch", "bytes")


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command()(plan)


def plan(
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
        list[Keep] | None, typer.Option(help="What would be stored. May be repeated; else each of them.")
    ] = None,
    pixels: PixelsOption = True,
    limit: LimitOption = None,
    image_size: ImageSizeOption = None,
    device: DeviceOption = "auto",
    batch_size: BatchOption = None,
    workers: WorkersOption = None,
    follow_symlinks: FollowOption = False,
    source_kind: SourceKindOption = "auto",
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    label_ids: LabelIdsOption = False,
    devices: Annotated[
        int, typer.Option(metavar="N", min=1, help="So many such devices would work, each with decoders of its own.")
    ] = 1,
    network: Annotated[
        int | None,
        typer.Option(
            metavar="SIZE",
            parser=bytes_option,
            help="Bytes per second to a remote index, such as 100MB.",
            show_default=False,
        ),
    ] = None,
    price_hour: Annotated[float | None, typer.Option(metavar="X", min=0, help="Of a device, for an hour.")] = None,
    price_month: Annotated[float | None, typer.Option(metavar="X", min=0, help="Of a gigabyte, for a month.")] = None,
    price_gigabyte: Annotated[
        float | None, typer.Option(metavar="X", min=0, help="Of a gigabyte that is read over the network.")
    ] = None,
    price_requests: Annotated[
        float | None, typer.Option(metavar="X", min=0, help="Of a thousand requests to a remote index.")
    ] = None,
    how: FormatOption = Format.TABLE,
) -> None:
    """See what an index of your pictures would take, before it is made: bytes, hours, and what a question would read.

    Files are counted, some are decoded, a batch is timed on the device, and so is the disk. Nothing stays written.

        bagindex plan photos/validation --weights clothing-bagnet33.safetensors
    """
    from bagindex.costs import Means, Prices

    with Screen() as screen:
        planned = Index.plan(
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
            keep=None if keep is None else [each.value for each in keep],
            pixels=pixels,
            limit=limit,
            device=device,
            batch_size=batch_size,
            workers=workers,
            means=Means(devices, network, Prices(price_hour, price_month, price_gigabyte, price_requests)),
            observer=screen,
        )
    if how is Format.TABLE:
        _print(planned)
    elif how is Format.CSV:
        rows = planned.to_dicts()
        print_rows(list(dict.fromkeys(name for row in rows for name in row)), rows, how)
    else:
        sys.stdout.write(output.to_json_value(planned.to_dict()) + "\n")


def _print(planned: Planned) -> None:
    means = planned.means
    _table(
        planned.to_dicts(),
        f"{planned.images:,} images in {planned.shards:,} shards, {bytes_text(planned.pixel_bytes)} of pixels each; "
        f"{bytes_text(planned.free)} are free at {planned.directory.root}",
    )
    for speed in planned.speeds:
        print(f"{speed.model} in {speed.precision}: {speed.images_per_second:,.1f} images/s ({speed.device})")
    print(f"reading and decoding: {planned.decoding:,.1f} images/s")
    if planned.writing is not None:
        print(f"writing and hashing: {bytes_text(planned.writing)}/s for each file")
    print("hours are those of the slowest: at best, since all share the cores and the disk")
    if planned.directory.elsewhere or (means.network, means.prices.gigabyte, means.prices.requests) != (None,) * 3:
        print()
        _table(planned.questions(), "What questions to a remote index read, at least")


def _table(rows: list[dict[str, Any]], title: str) -> None:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    shown = [_shown({name: row.get(name) for name in columns}) for row in rows]
    print_rows(columns, shown, Format.TABLE, title)


def _shown(row: Mapping[str, Any]) -> dict[str, Any]:
    def cell(name: str, value: Any) -> Any:
        if name in _BYTES:
            return bytes_text(value)
        if isinstance(value, bool):
            return "yes" if value else "no"
        return f"{value:,.3g}" if isinstance(value, float) else value

    return {name: cell(name, value) for name, value in row.items()}
