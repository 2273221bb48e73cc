"""What all accounts have in common: how they are printed, shown, converted and saved."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from bagindex import output
from bagindex.errors import BagindexError, QueryError
from bagindex.figures import style
from bagindex.results import Tabular, table_writers

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from matplotlib.figure import Figure
    from numpy.typing import NDArray
    from PIL import Image

_ALIASES = {"text": "string", "integer": "int64", "number": "double", "boolean": "bool"}


class Account(Tabular):
    """A table with words below it, and perhaps a picture."""

    columns: ClassVar[tuple[str, ...]]
    """Columns of the printed table."""
    types: ClassVar[Mapping[str, str]]
    """All columns, each `text`, `integer`, `number`, `boolean`, or the lists `integers` and `numbers`."""

    @property
    def title(self) -> str:
        """What was asked."""
        raise NotImplementedError

    @property
    def words(self) -> str:
        """What is to be said of it."""
        raise NotImplementedError

    def table_rows(self) -> list[dict[str, Any]]:
        """The rows, with all columns."""
        raise NotImplementedError

    def to_dicts(self) -> list[dict[str, Any]]:
        """The account as JSON objects would have it."""
        return self.table_rows()

    def __str__(self) -> str:
        """A table, and words."""
        return f"{output.table_text(self.columns, self.table_rows(), self.title)}\n{output.printable(self.words)}\n"

    def to_arrow(self) -> pa.Table:
        """The rows as an Arrow table."""
        import pyarrow as pa

        def of(kind: str) -> pa.DataType:
            if kind in ("integers", "numbers"):
                return pa.list_(of(kind.removesuffix("s")))
            return pa.type_for_alias(_ALIASES[kind])

        schema = pa.schema([(name, of(kind)) for name, kind in self.types.items()])
        return pa.Table.from_pylist(self.table_rows(), schema=schema)

    def save(self, path: str | Path) -> None:
        """Write the numbers as `.json`, `.csv`, `.parquet` or `.arrow`; what is drawn also as `.png`, `.svg`, `.pdf`.

        Raises:
            OutputError: another ending, or the file cannot be written.
            QueryError: a picture is asked for, and there is nothing to show or the index keeps no pixels.
        """
        output.save(path, self._writers())

    def _writers(self) -> dict[str, Callable[[Path], object]]:
        return {
            **table_writers(self),
            ".csv": lambda file: file.write_text(output.to_csv(list(self.types), self.table_rows()), encoding="utf-8"),
        }

    def _repr_html_(self) -> str | None:
        return output.to_html(self.columns, self.table_rows(), self.title, self.words)


class PicturedAccount(Account):
    """An account that can be drawn."""

    def figure(self) -> Figure:
        """The picture, as a matplotlib figure; draw on it inside `bagindex.figures.style.style()`."""
        raise NotImplementedError

    def _coarse(self) -> Sequence[tuple[str, Sequence[NDArray[np.uint8]], Sequence[str]]]:
        """Rows of patches for pictures of few pixels: a heading, the crops, and a few letters for each."""
        raise NotImplementedError

    def render(self, kind: str = "png", dpi: int = style.DPI) -> bytes:
        """The picture as a `png`, `svg` or `pdf` file.

        Raises:
            QueryError: there is nothing to show, or the index keeps no pixels that it needs.
        """
        with style.style():
            return style.to_bytes(self.figure(), kind, dpi)

    def picture(self, width: int | None = None, *, coarse: bool = False) -> Image.Image:
        """The figure as a picture, at most so many pixels wide.

        Args:
            width: by default as `save` writes it.
            coarse: for a picture of few pixels, such as a terminal's half characters: only patches, hardly enlarged.

        Raises:
            QueryError: as for `render`; or `coarse`, and the index keeps no pixels.
        """
        from bagindex import render

        if coarse:
            rows = [row for row in self._coarse() if len(row[1])]
            if not rows:
                raise QueryError("there are no patches to show")
            sheets = [render.coarse_sheet(crops, captions, width or 80) for _, crops, captions in rows]
            return render.stack(sheets, [heading for heading, _, _ in rows])
        with style.style():
            return style.to_picture(self.figure(), width)

    def _writers(self) -> dict[str, Callable[[Path], object]]:
        pictures: dict[str, Callable[[Path], object]] = {
            f".{kind}": lambda file, kind=kind: file.write_bytes(self.render(kind))  # type: ignore[misc]
            for kind in style.FORMATS
        }
        return {**pictures, **super()._writers()}

    def _repr_png_(self) -> bytes | None:
        try:
            return self.render("png", 150)
        except BagindexError:
            return None

    def _repr_html_(self) -> str | None:
        # Notebooks that are given both show the table.
        return super()._repr_html_() if self._repr_png_() is None else None
