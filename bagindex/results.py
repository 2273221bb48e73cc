"""What questions give back: small, frozen, typed; printed as a table, shown as pictures, converted, saved."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, overload

from bagindex import output
from bagindex.errors import BagindexError, OutputError
from bagindex.geometry import Box, FloatBox

if TYPE_CHECKING:
    import numpy as np
    import pandas
    import polars
    import pyarrow as pa
    from numpy.typing import NDArray
    from PIL import Image

    from bagindex.render import Caption

_SHOWN_ROWS = 100
"""Of a longer result, a notebook shows so many."""


class Tabular:
    """A result that has rows."""

    def to_dicts(self) -> list[dict[str, Any]]:
        """The rows as JSON objects would have them."""
        raise NotImplementedError

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        raise NotImplementedError

    def to_pandas(self, *, arrow: bool = False) -> pandas.DataFrame:
        """The rows as a data frame.

        Args:
            arrow: with Arrow's types (`pandas.ArrowDtype`), whose values are not copied; by default with NumPy's.

        Raises:
            OutputError: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise OutputError("a data frame needs pandas: pip install pandas; .to_arrow() goes without") from None
        frame: pandas.DataFrame = self.to_arrow().to_pandas(types_mapper=pandas.ArrowDtype if arrow else None)
        return frame

    def to_polars(self) -> polars.DataFrame:
        """The rows as a data frame of Polars; what it can hold as Arrow has it is not copied.

        Raises:
            OutputError: Polars is not installed.
        """
        try:
            import polars
        except ImportError:
            raise OutputError("this data frame needs Polars: pip install polars; .to_arrow() goes without") from None
        frame = polars.from_arrow(self.to_arrow())
        assert isinstance(frame, polars.DataFrame)
        return frame

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        """The rows for whoever speaks Arrow's PyCapsule protocol (DuckDB, Polars, pandas, PyArrow, …), not copied."""
        return self.to_arrow().__arrow_c_stream__(requested_schema)


@dataclass(frozen=True, kw_only=True)
class PlacedPatch:
    """A patch in an answer.

    Attributes:
        label: class id of the image's label, None where it has none; `predicted` likewise of the model's prediction.
        box: the pixels of the model's input that the patch sees, (x0, y0, x1, y1), upper ends excluded.
        source_box: the same in the original file after EXIF rotation, float pixels.
    """

    _first: ClassVar[tuple[str, ...]] = ()

    rank: int
    model: str
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

    def to_dict(self) -> dict[str, Any]:
        """The fields by name; `class_` is called `class`."""
        fields = {name.rstrip("_"): value for name, value in vars(self).items()}
        fields |= {"box": list(self.box), "source_box": list(self.source_box)}
        return {name: fields[name] for name in self.fields()}

    @classmethod
    def fields(cls) -> list[str]:
        """Names of all fields, in order."""
        return list(dict.fromkeys((*cls._first, *(field.name.rstrip("_") for field in dataclasses.fields(cls)))))


@dataclass(frozen=True, kw_only=True)
class Patch(PlacedPatch):
    """A patch and its evidence for the class asked about.

    Attributes:
        logit: the patch's logit for the class, as stored (float16).
    """

    _first = ("rank", "model", "class", "class_id")

    class_: str
    class_id: int
    logit: float


_PatchType = TypeVar("_PatchType", bound=PlacedPatch)


@dataclass(frozen=True)
class PatchList(Tabular, Sequence[_PatchType]):
    """An answer of patches, the first ranked first.

    Attributes:
        question: what was asked, in words.
        patches: the answer.
    """

    question: str
    patches: tuple[_PatchType, ...]
    _crops: Callable[[Sequence[PlacedPatch]], Sequence[NDArray[np.uint8]]] = dataclasses.field(
        repr=False, compare=False
    )

    _kind: ClassVar[type[PlacedPatch]]
    columns: ClassVar[tuple[str, ...]]
    """Columns of the printed table; `to_dicts` has all."""

    @overload
    def __getitem__(self, index: int) -> _PatchType: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[_PatchType]: ...
    def __getitem__(self, index: int | slice) -> _PatchType | Sequence[_PatchType]:
        """The patch of rank `index + 1`."""
        return self.patches[index]

    def __len__(self) -> int:
        """Number of patches."""
        return len(self.patches)

    def __str__(self) -> str:
        """A table."""
        return output.table_text(self.columns, self.table_rows(), self.title)

    @property
    def title(self) -> str:
        """What stands above the table and the picture."""
        return self.question

    def table_rows(self) -> list[dict[str, Any]]:
        """Rows of the printed table, classes by their names."""
        return [
            {**patch.to_dict(), "label": patch.label_name, "predicted": patch.predicted_name} for patch in self.patches
        ]

    @classmethod
    def fields(cls) -> list[str]:
        """Names of all fields of a patch, in order."""
        return cls._kind.fields()

    def to_dicts(self) -> list[dict[str, Any]]:
        """The patches as JSON objects would have them."""
        return [patch.to_dict() for patch in self.patches]

    def to_arrow(self) -> pa.Table:
        """The patches as an Arrow table."""
        import pyarrow as pa

        text, integer, real = pa.string(), pa.int64(), pa.float64()
        types = {"box": pa.list_(integer, 4), "source_box": pa.list_(real, 4), "logit": pa.float32()}
        types |= {"cosine": real, "distance": real}
        words = {"model", "class", "path", "label_name", "predicted_name"}
        schema = pa.schema([(name, types.get(name, text if name in words else integer)) for name in self.fields()])
        return pa.Table.from_pylist(self.to_dicts(), schema=schema)

    def crops(self) -> Sequence[NDArray[np.uint8]]:
        """The patches' pixels, uint8 [q, q, RGB] each.

        Raises:
            QueryError: the index keeps no pixels.
        """
        return self._crops(self.patches)

    def save(self, path: str | Path) -> None:
        """Write a `.png`, `.json`, `.csv`, `.parquet` or `.arrow` file.

        Raises:
            OutputError: another ending, or the file cannot be written.
            QueryError: a picture is asked for, and the index keeps no pixels.
        """
        output.save(path, self._writers())

    def _writers(self) -> dict[str, Callable[[Path], object]]:
        return {".png": self._write_png, **table_writers(self)}

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

        tiles = self._tiles()
        crops = [crop for crop, _ in tiles]
        if coarse:
            return render.coarse_sheet(crops, [caption.short for _, caption in tiles], width or 80)
        return render.patch_sheet(crops, [caption for _, caption in tiles], self.question, width)

    def _tiles(self) -> list[tuple[NDArray[np.uint8], Caption]]:
        """What the picture shows: the patches with their captions."""
        from bagindex.render import Caption

        return [
            (crop, Caption(str(p.rank), self._value(p), p.label_name, p.predicted_name, p.patch_id))
            for crop, p in zip(self.crops(), self.patches, strict=True)
        ]

    def _value(self, patch: _PatchType) -> str:
        """What a patch is ranked by, for people."""
        raise NotImplementedError

    def _repr_png_(self) -> bytes | None:
        return self._png() if self._no_picture() is None else None

    def _repr_html_(self) -> str | None:
        # Notebooks that are given both show the table.
        reason = self._no_picture()
        return None if reason is None else output.to_html(self.columns, self.table_rows(), self.title, reason)

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


class TopPatches(PatchList[Patch]):
    """The patches with most evidence for a class, strongest first."""

    _kind = Patch
    columns = ("rank", "logit", "patch_id", "label", "predicted", "row", "col", "path")

    def _value(self, patch: Patch) -> str:
        return f"{patch.logit:.2f}"


@dataclass(frozen=True)
class QueryResult(Tabular):
    """The rows that a query gives.

    Attributes:
        truncated: whether a safe query had more, which were left out.
    """

    table: pa.Table
    truncated: bool = False

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

    def save(self, path: str | Path) -> None:
        """Write a `.json`, `.csv`, `.parquet` or `.arrow` file.

        Raises:
            OutputError: another ending, or the file cannot be written.
        """
        output.save(path, table_writers(self))

    def _repr_html_(self) -> str:
        shown = self.table.slice(0, _SHOWN_ROWS).to_pylist()
        more = f"{len(shown):,} of {len(self):,} rows" if len(shown) < len(self) else ""
        return output.to_html(self.columns, shown, note=more or ("" if shown else "no rows"))


def table_writers(result: Tabular) -> dict[str, Callable[[Path], object]]:
    """What writes a result's rows to a file, by the file's ending; see `bagindex.output.save`."""

    def parquet(path: Path) -> None:
        import pyarrow.parquet as pq

        pq.write_table(result.to_arrow(), path)

    def arrow(path: Path) -> None:
        import pyarrow as pa

        table = result.to_arrow()
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
            writer.write_table(table)

    def columns() -> list[str]:
        return [str(name) for name in result.to_arrow().column_names]

    return {
        ".json": lambda path: path.write_text(output.to_json(result.to_dicts()), encoding="utf-8"),
        ".csv": lambda path: path.write_text(output.to_csv(columns(), result.to_dicts()), encoding="utf-8"),
        ".parquet": parquet,
        ".arrow": arrow,
    }
