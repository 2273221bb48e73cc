"""`bagindex update`, `bagindex relabel`, `bagindex compact` and `bagindex remove`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bagindex.errors import SettingsError
from bagindex.text import bytes_text, some
from bagindex_cli import completing
from bagindex_cli.build import print_summary
from bagindex_cli.common import IndexOption, ModelOption, open_index, remark
from bagindex_cli.screen import Screen, Steps
from bagindex_cli.source_options import (
    BatchOption,
    ClassMapOption,
    DataOption,
    DeviceOption,
    FollowOption,
    ImageColumnOption,
    LabelColumnOption,
    LabelIdsOption,
    LabelsOption,
    LayoutOption,
    MaxErrorsOption,
    SourceKindOption,
    SplitOption,
    StrictOption,
    TimeoutOption,
    WorkersOption,
)

if TYPE_CHECKING:
    from bagindex.compact import Compacted


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(update)
    app.command()(relabel)
    app.command()(compact)
    app.command()(remove)


def update(
    source: Annotated[str, typer.Argument(metavar="SOURCE", help="The source that was indexed.", show_default=False)],
    index: IndexOption = None,
    retry_rejects: Annotated[
        bool, typer.Option("--retry-rejects", help="Try files again whose reason of rejection may have passed.")
    ] = False,
    quick: Annotated[
        bool, typer.Option("--quick", help="Compare sizes only, instead of reading all files, to find changed ones.")
    ] = False,
    accept_missing: Annotated[
        bool, typer.Option("--accept-missing", help="Go on although most of the files that are indexed are not there.")
    ] = False,
    data: DataOption = None,
    split: SplitOption = None,
    layout: LayoutOption = "auto",
    labels: LabelsOption = None,
    class_map: ClassMapOption = None,
    device: DeviceOption = "auto",
    batch_size: BatchOption = None,
    workers: WorkersOption = None,
    decoder_timeout: TimeoutOption = 60.0,
    follow_symlinks: FollowOption = False,
    source_kind: SourceKindOption = "auto",
    image_column: ImageColumnOption = None,
    label_column: LabelColumnOption = None,
    label_ids: LabelIdsOption = False,
    strict: StrictOption = False,
    max_errors: MaxErrorsOption = None,
) -> None:
    """Add the files that are new at the source, for all models of an index; nothing that is there is computed again.

    Files that have changed or are gone since they were indexed are named; they keep the evidence that they had.

        bagindex update photos/validation -i photos-validation
        bagindex update photos/validation --retry-rejects
    """
    opened = open_index(index)
    with Screen() as screen:
        report = opened.update(
            source,
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
            retry_rejects=retry_rejects,
            contents=not quick,
            accept_missing=accept_missing,
            strict=strict,
            max_errors=max_errors,
            device=device,
            batch_size=batch_size,
            workers=workers,
            decoder_timeout=decoder_timeout,
            observer=screen,
        )
    print(f"{report.new:,} new files, {len(report.changed):,} changed, {len(report.missing):,} missing")
    for what, paths in (("changed", report.changed), ("missing", report.missing)):
        if paths:
            print(f"{what} since they were indexed: {some(paths)}")
    print_summary(opened, report.build)


def relabel(
    labels: Annotated[
        Path | None, typer.Option("--labels", metavar="FILE", help="A CSV or Parquet file with columns path, label.")
    ] = None,
    class_map: ClassMapOption = None,
    original: Annotated[
        bool, typer.Option("--original", help="Go back to the labels that the images came with.")
    ] = False,
    add: Annotated[
        bool, typer.Option("--add", help="Keep labels that were given before, of images that FILE does not name.")
    ] = False,
    index: IndexOption = None,
) -> None:
    """Give images other labels, kept beside the original ones; nothing is computed again.

    The table `images` has both: `label` and `original_label`. FILE takes the place of one that was given before, unless
    it is to be added to it.

        bagindex relabel --labels better.csv
        bagindex relabel --labels more.csv --add
        bagindex relabel --original
    """
    if (labels is None) is not original:
        raise typer.BadParameter("give --labels FILE or --original")
    if original and add:
        raise typer.BadParameter("--add goes with --labels FILE")
    opened = open_index(index)
    named = opened.relabel(labels, class_map=class_map, add=add, note=remark)
    print(f"{named:,} images have the labels of {labels}" if labels else "the original labels are back")


def compact(
    index: IndexOption = None,
    model: ModelOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be merged.")] = False,
) -> None:
    """Merge the evidence of shards into fewer files, so that questions about it take less time. Answers stay the same.

    It pays for large indexes: a question looks through one row group for each class and file.

        bagindex compact -i imagenet-train --dry-run
        bagindex compact -i imagenet-train
    """
    with open_index(index) as opened:
        if dry_run:
            found = opened.compact(model, dry_run=True)
            _print_compacted(found, "would be merged")
            if found.groups:
                print(f"for this {bytes_text(found.room)} must be free, for a while")
            return
        with Steps("merging evidence") as steps:
            _print_compacted(opened.compact(model, progress=steps.at), "merged")


def _print_compacted(found: Compacted, merged: str) -> None:
    for group in found.groups:
        print(f"{group.model}: shards {group.shards[0]} to {group.shards[-1]} {merged}, {bytes_text(group.bytes)}")
    counts = f"{found.files_after:,} files of evidence, {found.row_groups_after:,} row groups"
    if found.groups:
        print(f"{counts} instead of {found.files_before:,} and {found.row_groups_before:,}")
    else:
        print(f"nothing to merge: {counts}")


def remove(
    index: Annotated[
        str,
        typer.Option(
            "--index",
            "-i",
            metavar="NAME|PATH",
            help="The index to remove, or to take a model from.",
            autocompletion=completing.indexes,
        ),
    ],
    model: Annotated[
        str | None, typer.Option(metavar="NAME", help="Remove this model only.", autocompletion=completing.models)
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove an index, or one of its models. Asks first.

    The pictures at the source are left alone.

        bagindex remove -i photos
        bagindex remove -i photos --model bagnet9 --yes
    """
    opened = open_index(index)
    info = opened.info()
    size = info.bytes
    if model is not None:
        size = sum(sum(each.table_bytes.values()) for each in info.models if each.record.name == model)
    what = f"model {model} of {opened.place}" if model else f"the index {opened.place}"
    if not yes:
        try:
            sure = typer.confirm(f"remove {what} ({bytes_text(size)})?", err=True)
        except typer.Abort:
            sure = False
        if not sure:
            raise SettingsError("nothing was removed; answer y, or give --yes")
    opened.remove(model)
    remark(f"removed {what}")
