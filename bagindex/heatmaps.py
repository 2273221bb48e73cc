"""`Heatmap`: where in an image a model finds evidence for which classes (the paper's Figure 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from bagindex import output
from bagindex.errors import OutputError, SettingsError
from bagindex.figures import maps as drawing
from bagindex.figures import style
from bagindex.figures.heatmap import MOST_PANELS, Overlay, Panel, heatmap_figure
from bagindex.geometry import patch_box
from bagindex.maps import ImageEvidence, Likely, Subject, softmax
from bagindex_schemas.records import ClassRecord, Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BENEATH = ("edges", "image", "none")


@dataclass(frozen=True, eq=False)
class Heatmap:
    """The evidence of one image for C classes.

    Attributes:
        image: which image.
        model: the model's name.
        grid: the model's patch grid.
        top: the most probable of all classes, the prediction first.
        classes: the classes that were asked for.
        dense: whether there is a value for every pixel (that of the patch around it), or for every patch of the grid.
        values: patch logits, float32 [C, rows, cols], or [C, height, width] where it is dense.
        logits: the image's logits for the classes, float32 [C]: the means of its patches' on the grid.
        probabilities: the softmax over all classes of the model, at these, float64 [C].
        limits: logits at which the colours end on both sides of zero, float32 [C]: the 99th percentile of the
            magnitudes, of the class or of all.
        shared_scale: whether the limits are the same.
        pixels: the model's input, uint8 [height, width, RGB]; None where the index keeps none.
        shape: height and width of the input.
        beneath: what is seen beneath the colours: `edges`, `image` or `none`.
        alpha: strength of the colours, 0 to 1.
    """

    image: Subject
    model: str
    grid: Grid
    top: tuple[Likely, ...]
    classes: tuple[ClassRecord, ...]
    dense: bool
    values: NDArray[np.float32]
    logits: NDArray[np.float32]
    probabilities: NDArray[np.float64]
    limits: NDArray[np.float32]
    shared_scale: bool
    pixels: NDArray[np.uint8] | None
    shape: tuple[int, int]
    beneath: str
    alpha: float

    columns = ("class", "logit", "probability", "least", "most", "colours_end", "image_id", "image")
    """Columns of the printed table."""

    @property
    def predicted(self) -> ClassRecord:
        """What the model predicts."""
        return self.top[0].class_

    def boxes(self) -> NDArray[np.int64]:
        """The pixels that each value's patch sees, (x0, y0, x1, y1): int64 [rows, cols, 4].

        Those of a dense map may begin before the input and end after it: what lies there is zero.
        """
        rows, cols = self.values.shape[1:]
        if not self.dense:
            boxes = [patch_box(self.grid, row, col) for row, col in np.ndindex(rows, cols)]
            return np.array(boxes, np.int64).reshape(rows, cols, 4)
        size = self.grid.receptive_field
        before = (size - 1) // 2
        y, x = np.meshgrid(np.arange(rows) - before, np.arange(cols) - before, indexing="ij")
        return np.stack([x, y, x + size, y + size], axis=-1).astype(np.int64)

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each class."""
        return [
            {
                "class": record.name,
                "class_id": record.class_id,
                "logit": float(self.logits[i]),
                "probability": float(self.probabilities[i]),
                "least": float(self.values[i].min()),
                "most": float(self.values[i].max()),
                "colours_end": float(self.limits[i]),
                "image_id": self.image.image_id,
                "image": self.image.name,
            }
            for i, record in enumerate(self.classes)
        ]

    def to_dicts(self) -> list[dict[str, Any]]:
        """A row for each class, with its values as lists of rows."""
        return [
            {**row, "model": self.model, "dense": self.dense, "values": self.values[i].tolist()}
            for i, row in enumerate(self.table_rows())
        ]

    cell_columns = ("image_id", "image", "model", "class", "class_id", "row", "col", "x0", "y0", "x1", "y1", "logit")
    """Columns of a CSV file."""

    def cell_rows(self) -> list[dict[str, Any]]:
        """A row for each class and value."""
        boxes = self.boxes()
        return [
            dict(
                zip(
                    self.cell_columns,
                    (
                        *(self.image.image_id, self.image.name, self.model, record.name, record.class_id),
                        *(row, col, *boxes[row, col].tolist(), float(self.values[i, row, col])),
                    ),
                    strict=True,
                )
            )
            for i, record in enumerate(self.classes)
            for row, col in np.ndindex(self.values.shape[1:])
        ]

    def __str__(self) -> str:
        """A table."""
        return output.table_text(self.columns, self.table_rows(), self.title)

    @property
    def title(self) -> str:
        """What this is, in words."""
        kind = "around every pixel" if self.dense else f"in {self.grid.rows} x {self.grid.cols} patches"
        return f"{self.image.name}: evidence {kind} ({self.model})"

    def figure(self) -> Figure:
        """The picture, as a matplotlib figure; draw on it inside `bagindex.figures.style.style()`.

        Raises:
            OutputError: there are more classes than a picture can show.
        """
        if len(self.classes) > MOST_PANELS:
            raise OutputError(
                f"a picture shows up to {MOST_PANELS} classes, and these are {len(self.classes)}: "
                "ask for fewer, or write .npz, .json or .csv"
            )
        panels = [
            Panel(
                title=record.name,
                subtitle=f"{drawing.number(self.logits[i])} · {drawing.percent(self.probabilities[i])}",
                values=self.values[i],
                limit=float(self.limits[i]),
            )
            for i, record in enumerate(self.classes)
        ]
        caption = (self.image.labelled, f"predicted {self.predicted.name}")
        which = "logits of the patch around each pixel, zeros beyond the edge" if self.dense else "patch logits"
        # What may be long stands last, where it may be cut.
        said = caption if self.pixels is None else ()
        header = " · ".join((self.model, which, *said, self.image.name))
        return heatmap_figure(panels, self.overlay(), header, caption, self.shared_scale)

    def overlay(self) -> Overlay:
        """How the maps are drawn over the input."""
        border = self.grid.border
        first, step = ((0.0, 0.0), 1) if self.dense else ((border, border), self.grid.stride)
        return Overlay(self.shape, first, step, self.pixels, self.beneath, self.alpha)

    def save(self, path: str | Path) -> None:
        """Write a `.png`, `.svg` or `.pdf` picture, or the numbers as `.npz`, `.json` or `.csv`.

        Raises:
            OutputError: another ending, more classes than a picture can show, or the file cannot be written.
        """
        writers: dict[str, Callable[[Path], object]] = {
            f".{kind}": lambda file, kind=kind: file.write_bytes(self.render(kind))  # type: ignore[misc]
            for kind in style.FORMATS
        }
        writers[".npz"] = self._write_npz
        writers[".json"] = lambda file: file.write_text(output.to_json(self.to_dicts()), encoding="utf-8")
        writers[".csv"] = lambda file: file.write_text(
            output.to_csv(self.cell_columns, self.cell_rows()), encoding="utf-8"
        )
        output.save(path, writers)

    def render(self, kind: str = "png", dpi: int = style.DPI) -> bytes:
        """The picture as a `png`, `svg` or `pdf` file."""
        with style.style():
            return style.to_bytes(self.figure(), kind, dpi)

    def _repr_png_(self) -> bytes:
        return self.render("png", 150)

    def _write_npz(self, path: Path) -> None:
        arrays: dict[str, NDArray[Any]] = {
            "values": self.values,
            "boxes": self.boxes(),
            "class_ids": np.array([record.class_id for record in self.classes]),
            "classes": np.array([record.name for record in self.classes]),
            "logits": self.logits,
            "probabilities": self.probabilities,
            "limits": self.limits,
        }
        if self.pixels is not None:
            arrays["pixels"] = self.pixels
        with path.open("wb") as file:
            np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


def how_drawn(beneath: str | None, alpha: float, pixels: NDArray[np.uint8] | None) -> str:
    """What lies beneath the colours: by default the edges, where there are pixels.

    Raises:
        SettingsError: the options are out of their range, or need pixels that are not there.
    """
    if not 0 <= alpha <= 1:
        raise SettingsError("--alpha goes from 0 (no colours) to 1")
    if beneath is None:
        return "none" if pixels is None else "edges"
    if beneath not in BENEATH:
        raise SettingsError(f"--beneath is one of {', '.join(BENEATH)}, not {beneath!r}")
    if beneath != "none" and pixels is None:
        raise SettingsError("this index keeps no pixels to show: give --beneath none, or build with --pixels")
    return beneath


def make_heatmap(
    evidence: ImageEvidence,
    classes: Sequence[ClassRecord],
    *,
    dense: bool = False,
    shared_scale: bool = False,
    beneath: str | None = None,
    alpha: float = 1.0,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Heatmap:
    """The heatmap of an image for some classes; without any, for its predicted class and its label.

    Raises:
        QueryError: what is asked must be computed, and the index keeps no pixels.
        SettingsError: see `how_drawn`.
    """
    beneath = how_drawn(beneath, alpha, evidence.pixels)
    predicted = evidence.predicted
    label = evidence.subject.label
    chosen = tuple(dict.fromkeys(classes)) or ((predicted,) if label in (None, predicted) else (predicted, label))
    ids = [record.class_id for record in chosen if record is not None]
    values = evidence.dense(ids, progress) if dense else evidence.patches(ids)
    return Heatmap(
        image=evidence.subject,
        model=evidence.record.name,
        grid=evidence.record.grid,
        top=evidence.top(),
        classes=tuple(evidence.classes[class_id] for class_id in ids),
        dense=dense,
        values=values,
        logits=evidence.logits[ids],
        probabilities=softmax(evidence.logits)[ids],
        limits=drawing.colour_limits(values, shared_scale),
        shared_scale=shared_scale,
        pixels=evidence.pixels,
        shape=evidence.shape,
        beneath=beneath,
        alpha=alpha,
    )
