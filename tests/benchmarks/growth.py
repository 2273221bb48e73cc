"""How what an index costs grows with its images and classes.

    python tests/benchmarks/growth.py FOLDER [--images 3125 ... 50000] [--classes 63 ... 1000] [--large 1281167]

generates indexes at `--keep summary` (see `generated.py`; random numbers), one after the other in FOLDER/index: of the
most classes with growing numbers of images, and of the most images with growing numbers of classes. Of each it measures
opening it with a first answer, top-patches, `verify --data` and making the catalog, fits how these grow (the slope of
the logarithms: 1 is in proportion), prints a table and writes FOLDER/growth.json and FOLDER/growth.png.

The last one has so many images as `--large` says (0: none), of 1,000 classes of which 12 have rows of `image_evidence`
and logits that are not all the same. What goes by image is that of such an index, what goes by image and class is 12
thousandths of it. A whole one would have too many rows for a native table; what is asked of Parquet files instead is
measured with every index.

At full size it takes the disk of the largest index twice over, for its catalog: about 4 GB, and a quarter of an hour.
"""

from __future__ import annotations

import argparse
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median

import numpy as np

from bagindex import Index, catalog
from bagindex.figures import style
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Keep
from common import Row, machine, print_table, repeat, write_json
from generated import ASKED, Size, generate

IMAGES = (3_125, 6_250, 12_500, 25_000, 50_000)
CLASSES = (63, 125, 250, 500, 1000)
LARGE = 1_281_167
ASKED_CLASSES = 12
MEASURED: Mapping[str, str] = {
    "open_ms": "open, and a first answer",
    "top_patches_ms": "top-patches",
    "parquet_ms": "top-patches, from Parquet",
    "verify_ms": "verify --data",
    "catalog_ms": "make the catalog",
}
"""What is measured, and how a figure says it."""


def measure(folder: Path, size: Size) -> Row:
    """Generate an index, measure it, and remove it."""
    shutil.rmtree(folder, ignore_errors=True)
    generate(folder, size=size)
    found: dict[str, object] = {
        "images": size.images,
        "classes": size.classes,
        "rows": size.images * (size.asked or size.classes),
        "open_ms": _milliseconds(lambda: _ask(folder)),
    }
    with Index.open(folder) as index:
        index.top_patches(ASKED)
        found["top_patches_ms"] = _milliseconds(lambda: index.top_patches(ASKED, wrong_class=True))
    found["verify_ms"] = _milliseconds(lambda: _verify(folder), least=1)
    found["catalog_ms"] = _milliseconds(lambda: _catalog(folder), least=1)
    found["bytes"] = IndexDirectory(folder).size()
    native, catalog.NATIVE_ROWS = catalog.NATIVE_ROWS, 0
    try:
        _catalog(folder)
    finally:
        catalog.NATIVE_ROWS = native
    with Index.open(folder) as index:
        index.top_patches(ASKED)
        found["parquet_ms"] = _milliseconds(lambda: index.top_patches(ASKED, wrong_class=True))
    shutil.rmtree(folder)
    return found


def _milliseconds(work: object, least: int = 3) -> float:
    return round(median(repeat(work, most=15, least=least)), 2)  # type: ignore[arg-type]


def _ask(folder: Path) -> None:
    with Index.open(folder) as index:
        index.top_patches(ASKED)


def _verify(folder: Path) -> None:
    # What it finds wrong is that a generated index has no weights.
    with Index.open(folder) as index:
        index.verify(data=True)


def _catalog(folder: Path) -> None:
    directory = IndexDirectory(folder)
    with directory.writing():
        catalog.update(directory, anew=True)


def slope(x: Sequence[float], y: Sequence[float]) -> float | None:
    """How the logarithm of y grows with that of x, by least squares; None of fewer than two points."""
    return round(float(np.polyfit(np.log(x), np.log(y), 1)[0]), 2) if len(x) > 1 else None


def slopes(rows: Sequence[Row], by: str) -> dict[str, float | None]:
    """How everything that is measured grows."""
    x = [float(str(each[by])) for each in rows]
    return {what: slope(x, [float(str(each[what])) for each in rows]) for what in MEASURED}


def draw(path: Path, series: Mapping[str, Sequence[Row]], fitted: Mapping[str, Mapping[str, float | None]]) -> None:
    """Lines of milliseconds by images and by classes, both axes logarithmic; a legend says the slopes."""
    colours = (style.RIGHT, style.WRONG, style.FAINT, style.INK, style.FOR)
    with style.style():
        figure = style.new_figure(5.5, 6.0)
        for place, (by, rows) in enumerate(series.items(), start=1):
            axes = figure.add_subplot(len(series), 1, place)
            for colour, (what, name) in zip(colours, MEASURED.items(), strict=True):
                points = [(float(str(each[by])), float(str(each[what]))) for each in rows]
                axes.loglog(*zip(*points, strict=True), marker="o", markersize=2.5, linewidth=1, color=colour)
                said = f"{name}: {fitted[by][what]}"
                axes.annotate(said, points[-1], (5, 0), textcoords="offset points", va="center", color=colour)
            axes.set_xticks([float(str(each[by])) for each in rows])
            for axis in (axes.xaxis, axes.yaxis):
                axis.set_major_formatter(lambda value, _: f"{value:,g}")
                axis.set_minor_formatter(lambda _value, _: "")
            axes.set_xlabel(by)
            axes.set_ylabel("milliseconds")
        figure.subplots_adjust(left=0.12, right=0.68, bottom=0.08, top=0.97, hspace=0.3)
        path.write_bytes(style.to_bytes(figure, "png"))


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--images", type=int, nargs="+", default=IMAGES)
    parser.add_argument("--classes", type=int, nargs="+", default=CLASSES)
    parser.add_argument("--large", type=int, default=LARGE)
    options = parser.parse_args()
    folder: Path = options.folder / "index"
    options.folder.mkdir(parents=True, exist_ok=True)
    most = max(options.images), max(options.classes)
    sizes = {*((images, most[1]) for images in options.images), *((most[0], each) for each in options.classes)}
    began = time.monotonic()
    found = {each: measure(folder, Size(*each, keep=Keep.SUMMARY)) for each in sorted(sizes)}
    series = {
        "images": [found[each, most[1]] for each in sorted(options.images)],
        "classes": [found[most[0], each] for each in sorted(options.classes)],
    }
    fitted = {by: slopes(rows, by) for by, rows in series.items()}
    large = None
    if options.large:
        large = measure(folder, Size(options.large, 1000, keep=Keep.SUMMARY, asked=ASKED_CLASSES))
    print_table([*found.values(), *([large] if large else [])])
    print(fitted)
    draw(options.folder / "growth.png", series, fitted)
    described = {"machine": machine(), "seconds": round(time.monotonic() - began, 1)}
    write_json(
        options.folder / "growth.json", {**described, "rows": list(found.values()), "slopes": fitted, "large": large}
    )


if __name__ == "__main__":
    main()
