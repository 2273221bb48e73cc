"""What comes out of an experiment, as files."""

from __future__ import annotations

import dataclasses
import io
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagindex import output
from bagindex.errors import OutputError
from bagindex.experiments.catalogue import EXPERIMENTS
from bagindex.experiments.experiment import Outcome
from bagindex.figures.style import DPI, style, to_bytes
from bagindex.store import IndexDirectory

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL import Image

PACKAGES = ("bagindex", "torch", "torchvision", "timm", "captum", "zennit", "numpy", "duckdb", "matplotlib")
"""What the numbers may depend on."""
REPORT = "report.html"
_OURS = re.compile(rf"({'|'.join((*EXPERIMENTS, 'attribution'))})(-[a-z-]+)?\.(csv|png|pdf|json)|{re.escape(REPORT)}")
"""Files of results."""
_KEPT = "*-" + 16 * "[0-9a-f]"
"""Folders of what a later run need not find again, in `kept` and in `networks`."""


def prepare(folder: Path) -> None:
    """Make the folder that results go to, before work begins whose results it gets.

    Raises:
        OutputError: it cannot be made, is an index, or has something else in it and no results.
    """
    try:
        if IndexDirectory(folder).exists():
            raise OutputError(f"{folder} is an index: give another folder")
        folder.mkdir(parents=True, exist_ok=True)
        there = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        if there and not any(map(_is_ours, there)):
            raise OutputError(f"there is something else in {folder} ({there[0].name}): give a new folder")
    except OSError as error:
        raise OutputError(f"cannot write to {folder}: {error.strerror or error}") from None


def _is_ours(path: Path) -> bool:
    if path.is_dir():
        return path.name in ("kept", "networks") and any(path.glob(_KEPT))
    return _OURS.fullmatch(path.name) is not None


def write(outcome: Outcome, folder: Path) -> tuple[Path, ...]:
    """Write tables as CSV, figures as PNG and PDF, and all that is to be said as JSON.

    Returns:
        The files.

    Raises:
        OutputError: one cannot be written.
    """
    files: list[Path] = []

    def save(name: str, data: bytes) -> None:
        output.save(folder / name, {Path(name).suffix: lambda path: path.write_bytes(data)})
        files.append(folder / name)

    for name, table in outcome.tables.items():
        save(f"{stem(outcome, name)}.csv", output.to_csv(table.column_names, table.to_pylist()).encode())
    for name, figure in outcome.figures.items():
        for kind in ("png", "pdf"):
            save(f"{stem(outcome, name)}.{kind}", drawn(figure, kind))
    save(f"{outcome.experiment}.json", (output.to_json_value(to_dict(outcome)) + "\n").encode())
    return tuple(files)


def stem(outcome: Outcome, name: str) -> str:
    """What the files of a table or figure are called, without the ending."""
    return name if name == outcome.experiment else f"{outcome.experiment}-{name}"


def to_dict(outcome: Outcome) -> dict[str, Any]:
    """An outcome as a JSON object has it, the tables' rows included."""
    return {
        "experiment": outcome.experiment,
        "title": outcome.title,
        "beside": [dataclasses.asdict(each) for each in outcome.beside],
        "tables": {stem(outcome, name): table.to_pylist() for name, table in outcome.tables.items()},
        "remarks": list(outcome.remarks),
        "settings": dict(outcome.settings),
        "environment": environment(),
        "seconds": round(outcome.seconds, 3),
    }


def environment() -> dict[str, str]:
    """Versions and machine: what else numbers may depend on."""
    found = {"python": platform.python_version(), "machine": f"{sys.platform} {platform.machine()}"}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def drawn(figure: Figure | Image.Image, kind: str, dpi: int = DPI) -> bytes:
    """A figure as a `png` or `pdf` file; pictures have the dots that they have."""
    from PIL import Image

    if not isinstance(figure, Image.Image):
        with style():
            return to_bytes(figure, kind, dpi)
    data = io.BytesIO()
    figure.convert("RGB").save(data, kind.upper())
    return data.getvalue()
