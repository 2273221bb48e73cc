"""What questions give back: small, frozen, typed; printed as a table, shown as pictures, converted, saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, overload

from bagindex import output
from bagindex.errors import BagindexError
from bagindex.geometry import Box, FloatBox

if TYPE_CHECKING:
    import numpy as np
    import pandas
    import pyarrow as pa
    from numpy.typing import NDArray
    from PIL import Image

_SHOWN_ROWS = 100
"""Of a longer result, a notebook shows so many."""


@dataclass(frozen=True)
class Patch:
    """A patch and its evidence for the class asked about.

    Attributes:
        label: class id of the image's label, None where it has none; `predicted` likewise of the model's prediction.
        box: the pixels of the model's input that the patch sees, (x0, y0, x1, y1), upper ends excluded.
        source_box: the same in the original file after EXIF rotation, float pixels.
        logit: the patch's logit for the class, as stored (float16).
    """

    rank: int
    model: str
    class_: str
    class_id: int
    patch_id: int
    image_id: int
    path: str
    label: int | None
    label_name: str | None
    predicted: int
    predicted_name: str
    row: int
    col: int
    box: Box
    source_box: FloatBox
    logit: float

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; `class_` is called `class`."""
        fields = {name.rstrip("_"): value for name, value in vars(self).items()}
        return {**fields, "box": list(self.box), "source_box": list(self.source_box)}


@dataclass(frozen=True)
class TopPatches(Sequence[Patch]):
    """The patches with most evidence for a class, strongest first.

    Attributes:
        question: what was asked, in words.
        patches: the answer.
    """

    question: str
    patches: tuple[Patch, ...]
    _crops: Callable[[tuple[Patch, ...]], Sequence[NDArray[np.uint8]]] = dataclasses.field(repr=False, compare=False)

    @overload
    def __getitem__(self, index: int) -> Patch: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Patch]: ...
    def __getitem__(self, index: int | slice) -> Patch | Sequence[Patch]:
        """The patch of rank `index + 1`."""
        return self.patches[index]

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.patches)

    def __str__(self) -> str:
        """A table."""
        return output.table_text(self.columns, self.table_rows(), self.question)

    columns = ("rank", "logit", "patch_id", "label", "predicted", "row", "col", "path")
    """Columns of the printed table; `to_dicts` has all."""

    def table_rows(self) -> list[dict[str, Any]]:
        """Rows of the printed table, classes by their names."""
        return [
            {**patch.to_dict(), "label": patch.label_name, "predicted": patch.predicted_name} for patch in self.patches
        ]

    @staticmethod
    def fields() -> list[str]:
        """Names of all fields of a patch, in order."""
        return [field.name.rstrip("_") for field in dataclasses.fields(Patch)]

    def to_dicts(self) -> list[dict[str, Any]]:
        """The patches as JSON objects would have them."""
        return [patch.to_dict() for patch in self.patches]

    def to_arrow(self) -> pa.Table:
        """The patches as an Arrow table."""
        import pyarrow as pa

        text, integer = pa.string(), pa.int64()
        types = {"box": pa.list_(integer, 4), "source_box": pa.list_(pa.float64(), 4), "logit": pa.float32()}
        words = {"model", "class", "path", "label_name", "predicted_name"}
        schema = pa.schema([(name, types.get(name, text if name in words else integer)) for name in self.fields()])
        return pa.Table.from_pylist(self.to_dicts(), schema=schema)

    def to_pandas(self) -> pandas.DataFrame:
        """The patches as a data frame (pandas must be installed)."""
        frame: pandas.DataFrame = self.to_arrow().to_pandas()
        return frame

    def crops(self) -> Sequence[NDArray[np.uint8]]:
        """The patches' pixels, uint8 [q, q, RGB] each.

        Raises:
            QueryError: the index keeps no pixels.
        """
        return self._crops(self.patches)

    def save(self, path: str | Path) -> None:
        """Write a `.png`, `.json`, `.csv` or `.parquet` file.

        Raises:
            OutputError: another ending, or the file cannot be written.
            QueryError: a picture is asked for, and the index keeps no pixels.
        """
        output.save(path, {".png": self._write_png, **table_writers(self)})

    def picture(self, width: int | None = None, *, coarse: bool = False) -> Image.Image:
        """The patches with what is said of them, as `save` writes them to a `.png` file.

        Args:
            width: at most so many pixels wide, by having fewer patches in a row.
            coarse: for a picture of few pixels (by default 80 wide), such as a terminal's half characters: only the
                patches, hardly enlarged, with their ranks.

        Raises:
            QueryError: the index keeps no pixels.
        """
        from bagindex import render

        if coarse:
            return render.coarse_sheet(self.crops(), [str(patch.rank) for patch in self.patches], width or 80)
        captions = [render.Caption(p.rank, p.logit, p.label_name, p.predicted_name, p.patch_id) for p in self.patches]
        return render.patch_sheet(self.crops(), captions, self.question, width)

    def _repr_png_(self) -> bytes | None:
        return self._png() if self._no_picture() is None else None

    def _repr_html_(self) -> str | None:
        # Notebooks that are given both show the table.
        reason = self._no_picture()
        return None if reason is None else output.to_html(self.columns, self.table_rows(), self.question, reason)

    def _no_picture(self) -> str | None:
        """Why a notebook is shown a table; None where it is shown the picture."""
        if not self.patches:
            return "no patch answers this"
        try:
            self.crops()
        except BagindexError as error:
            return f"no pictures: {error}"
        return None

    def _png(self) -> bytes:
        from bagindex import render

        return render.to_png(self.picture())

    def _write_png(self, path: Path) -> None:
        path.write_bytes(self._png())


@dataclass(frozen=True)
class QueryResult:
    """The rows that a query gives."""

    table: pa.Table

    def __len__(self) -> int:
        """Number of rows."""
        return int(self.table.num_rows)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Rows as dictionaries."""
        return iter(self.to_dicts())

    def __str__(self) -> str:
        """A table."""
        return output.table_text(self.columns, self.to_dicts())

    @property
    def columns(self) -> list[str]:
        """Names of the columns; a name that comes again has a number."""
        return [str(name) for name in self.table.column_names]

    def to_dicts(self) -> list[dict[str, Any]]:
        """Rows as dictionaries."""
        rows: list[dict[str, Any]] = self.table.to_pylist()
        return rows

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        return self.table

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a data frame (pandas must be installed)."""
        frame: pandas.DataFrame = self.table.to_pandas()
        return frame

    def save(self, path: str | Path) -> None:
        """Write a `.json`, `.csv` or `.parquet` file.

        Raises:
            OutputError: another ending, or the file cannot be written.
        """
        output.save(path, table_writers(self))

    def _repr_html_(self) -> str:
        shown = self.table.slice(0, _SHOWN_ROWS).to_pylist()
        more = f"{len(shown):,} of {len(self):,} rows" if len(shown) < len(self) else ""
        return output.to_html(self.columns, shown, note=more or ("" if shown else "no rows"))


class Tabular(Protocol):
    """What can be written as a table."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """As JSON objects would have it."""

    def to_arrow(self) -> pa.Table:
        """As an Arrow table."""


def table_writers(result: Tabular) -> dict[str, Callable[[Path], object]]:
    """How a table becomes a `.json`, `.csv` or `.parquet` file."""

    def parquet(path: Path) -> None:
        import pyarrow.parquet as pq

        pq.write_table(result.to_arrow(), path)

    def columns() -> list[str]:
        return [str(name) for name in result.to_arrow().column_names]

    return {
        ".json": lambda path: path.write_text(output.to_json(result.to_dicts()), encoding="utf-8"),
        ".csv": lambda path: path.write_text(output.to_csv(columns(), result.to_dicts()), encoding="utf-8"),
        ".parquet": parquet,
    }
