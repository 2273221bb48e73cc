"""`bagindex info`, `bagindex list` and `bagindex verify`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bagindex import Index, output
from bagindex.text import bytes_text, offset_text
from bagindex_cli.common import Format, FormatOption, IndexOption, open_index, print_rows
from bagindex_cli.screen import Steps

if TYPE_CHECKING:
    from bagindex.info import ModelInfo


def register(app: typer.Typer) -> None:
    """Add the commands."""
    app.command()(info)
    app.command("list")(list_indexes)
    app.command()(verify)
    app.command()(repair)


def info(index: IndexOption = None, format_: FormatOption = Format.TABLE) -> None:
    """What an index holds: source, models, settings, sizes.

    It says of each model what it keeps, what it was computed in and why, and what was made of it: the FAISS index with
    its recall, visual words.

        bagindex info
        bagindex info -i photos --format json
    """
    found = open_index(index).info()
    if format_ is Format.JSON:
        typer.echo(output.to_json([found.to_dict()])[1:-2])
        return
    transform = found.transform
    rows: list[dict[str, Any]] = [
        {"what": "index", "value": found.name},
        {"what": "path", "value": found.path},
        {"what": "source", "value": found.source},
        {"what": "state", "value": "complete" if found.complete else "not finished: run the same build again"},
        {"what": "images", "value": f"{found.images:,} in {found.shards} shards"},
        {"what": "rejects", "value": f"{found.rejects:,}"},
        {"what": "classes", "value": f"{found.classes:,}"},
        {
            "what": "input",
            "value": f"{transform.crop_height} x {transform.crop_width} pixels (height x width), centre of the picture "
            f"resized to {transform.resize}",
        },
        {"what": "size", "value": f"{bytes_text(found.bytes)} ({_sizes(found.table_bytes)})"},
    ]
    for model in found.models:
        record, grid, environment = model.record, model.record.grid, model.record.environment
        rows += [
            {"what": "model", "value": record.name},
            {
                "what": "  network",
                "value": f"{record.architecture}, width {record.width:g}, {record.parameters:,} parameters, "
                f"{record.feature_size} features",
            },
            {
                "what": "  patches",
                "value": f"{model.patches:,}: {grid.rows} x {grid.cols} an image, {grid.receptive_field} x "
                f"{grid.receptive_field} pixels, {grid.stride} apart{offset_text(grid.offset)}",
            },
            *([] if record.plugin is None else [{"what": "  run by", "value": str(record.plugin)}]),
            {"what": "  shards", "value": f"{model.shards} of {found.shards}"},
            {"what": "  keeps", "value": f"{record.keep} ({_sizes(model.table_bytes)})"},
            {
                "what": "  computed",
                "value": f"on {environment.device}, batches of {environment.batch_size}, "
                + ", ".join(f"{name} {version}" for name, version in environment.versions.items()),
            },
            *_precision(model),
            *({"what": "  " + _MADE[each.kind], "value": str(each)} for each in model.derived),
            *({"what": "  damaged", "value": problem} for problem in model.problems),
            {"what": "  weights", "value": f"SHA-256 {record.weights_sha256}"},
        ]
    if format_ is Format.CSV:
        print_rows(["what", "value"], rows, format_)
        return
    for row in rows:
        typer.echo(f"{row['what']:<12} {row['value']}")


_MADE = {"patches": "similar", "patches-l2": "similar, L2", "words": "words"}


def _precision(model: ModelInfo) -> list[dict[str, Any]]:
    """Which precision a model runs in, why, and what was compared."""
    record = model.record
    shards = ", ".join(f"{precision} in {count} of the shards" for precision, count in model.precisions.items())
    asked = " (--precision auto)" if record.precision_asked == "auto" else ""
    reason = f", {record.precision_reason}" if record.precision_reason else ""
    said = [f"{record.precision}{asked}{reason}; {shards or 'no shards yet'}"]
    said += [
        f"compared: {each} ({'within' if each.accepted else 'beyond'} the bounds of auto)"
        for each in record.comparisons
    ]
    return [{"what": "  precision" if i == 0 else "", "value": value} for i, value in enumerate(said)]


def list_indexes(format_: FormatOption = Format.TABLE) -> None:
    """The indexes that have a name, and what state each is in.

    They are under BAGINDEX_HOME, by default the platform's folder for data. Others are asked by their path.

        bagindex list
        bagindex list --format csv
    """
    table = format_ is Format.TABLE
    rows = [
        {
            **vars(found),
            "models": ", ".join(found.models) if table else list(found.models),
            "keeps": ", ".join(found.keeps) if table else list(found.keeps),
            "bytes": bytes_text(found.bytes) if table else found.bytes,
        }
        for found in Index.list()
    ]
    if not rows and table:
        typer.echo("no indexes yet: make one with `bagindex build SOURCE --weights FILE`")
        return
    print_rows(["name", "models", "images", "keeps", "bytes", "state", "path"], rows, format_)


def _percent(text: str) -> float:
    try:
        return float(text.removesuffix("%")) / 100
    except ValueError:
        raise typer.BadParameter("a number of percent, as in --sample 10%") from None


def verify(
    index: IndexOption = None,
    data: Annotated[
        bool, typer.Option("--data", help="Only whether all bytes are what was written, not what they mean.")
    ] = False,
    sample: Annotated[
        float,
        typer.Option(parser=_percent, metavar="PERCENT", help="Look into so many of the shards, drawn anew each time."),
    ] = "100%",  # type: ignore[assignment]  # goes through the parser
    format_: FormatOption = Format.TABLE,
) -> None:
    """Check every file's hash, and that the stored numbers are the model's evidence. Exit status 1 if they are not.

    What is damaged is named, with how to mend it: `bagindex repair` drops it, and the same build makes it again.

        bagindex verify
        bagindex verify --data --sample 10%
    """
    with open_index(index) as opened, Steps("checking") as steps:
        report = opened.verify(steps.at, data=data, sample=sample)
    rows = [
        {
            "check": check.name,
            "result": check.status.value,
            "checked": f"{check.checked:,} {check.unit}" if format_ is Format.TABLE else check.checked,
            "problems": len(check.problems) if format_ is Format.TABLE else check.problems,
        }
        for check in report.checks
    ]
    print_rows(["check", "result", "checked", "problems"], rows, format_)
    for why in report.left_out:
        typer.echo(f"  {why}", err=format_ is not Format.TABLE)
    if format_ is Format.TABLE:
        for problem in report.problems:
            typer.echo(f"  {problem}")
        verdict = "sound" if report.ok else "damaged"
        if report.ok and report.shards < report.of:
            verdict = f"sound, of {report.shards} of its {report.of} shards that were looked into"
        if report.unfinished:
            verdict = "not finished, or shards were lost; what is there is sound"
        typer.echo(f"{report.path}: {verdict}")
    if not report.ok:
        raise typer.Exit(1)


def repair(
    index: IndexOption = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what is damaged and would be dropped.")] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Drop damaged shards, so that the same build makes them again, and make again what is derived from sound ones.

    What is sound is not touched. It asks before it drops anything. Exit status 1 where damage is left.

        bagindex repair --dry-run
        bagindex repair -i photos --yes
    """
    steps = Steps("checking")

    def agree(damaged: Sequence[str]) -> bool:
        steps.stop()
        for name in damaged:
            typer.echo(f"damaged: {name}")
        if dry_run or yes:
            return yes and not dry_run
        try:
            return typer.confirm("drop it? The same build makes shards again, from the source", err=True)
        except typer.Abort:
            return False

    with steps:
        report = Index.repair(index, agree=agree, progress=steps.at)
    for name in report.restored:
        typer.echo(f"put back: {name}, from its copy")
    for name in report.remade:
        typer.echo(f"made again: {name}")
    for problem in report.left:
        typer.echo(f"left: {problem}")
    if not report.agreed:
        typer.echo("nothing was dropped" if dry_run else "nothing was dropped; answer y, or give --yes")
    elif report.owed:
        missing = "1 shard that is" if report.owed == 1 else f"{report.owed} shards that are"
        typer.echo(f"run the same `bagindex build` command again: it makes the {missing} missing")
    elif report.ok and not (report.found or report.restored):
        typer.echo(f"{report.path}: sound, nothing to mend")
    if not report.ok:
        raise typer.Exit(1)


def _sizes(table_bytes: dict[str, int]) -> str:
    return (
        "nothing yet"
        if not table_bytes
        else ", ".join(f"{name} {bytes_text(size)}" for name, size in table_bytes.items())
    )
