"""Figure 3 of an index: which patches stand in it, and the object that draws and saves it."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bagindex import output
from bagindex.geometry import patch_pixels
from bagindex.results import Patch, TopPatches
from bagindex.text import logit_text, some
from bagindex_schemas.records import ClassRecord, Grid

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bagindex.figures.figure3 import Row
    from bagindex.questions import Questions


@dataclass(frozen=True)
class Subrow:
    """The strongest patches of a class for a model, in images of the class (`right`) or of others.

    `remark` says why there are fewer than were asked for; it is empty where there are not.
    """

    class_: ClassRecord
    model: str
    right: bool
    patches: TopPatches
    remark: str
    _grid: Grid = dataclasses.field(repr=False, compare=False)

    def crop(self, pictures: Mapping[int, NDArray[np.uint8]], patch: Patch) -> NDArray[np.uint8]:
        """The pixels of one of its patches, uint8 [q, q, RGB], out of the models' inputs, by image_id."""
        return patch_pixels(pictures[patch.image_id], self._grid, patch.row, patch.col)


@dataclass(frozen=True)
class Figure3:
    """The paper's Figure 3: a row for each class, a column for each model, two subrows each.

    It draws itself when it is asked to: `save`, `to_html`, or by being shown in a notebook.
    """

    classes: tuple[ClassRecord, ...]
    models: tuple[str, ...]
    k: int
    subrows: tuple[Subrow, ...]
    _pixels: Callable[[set[int]], Mapping[int, NDArray[np.uint8]]] = dataclasses.field(repr=False, compare=False)

    def subrow(self, class_: ClassRecord, model: str, right: bool) -> Subrow:
        """One of the subrows.

        Raises:
            KeyError: the figure has no such subrow.
        """
        for subrow in self.subrows:
            if (subrow.class_, subrow.model, subrow.right) == (class_, model, right):
                return subrow
        raise KeyError((class_.name, model, right))

    def __str__(self) -> str:
        """What it shows."""
        names = some([record.name for record in self.classes])
        return f"Figure 3 of {names} ({', '.join(self.models)}): .save() writes a .png, .svg, .pdf or .html"

    def __iter__(self) -> Iterator[Subrow]:
        """The subrows: class by class, in it model by model, the right one first."""
        return iter(self.subrows)

    def pictures(self) -> Mapping[int, NDArray[np.uint8]]:
        """The model's inputs that the patches are cut from, by image_id, uint8 [height, width, RGB] each.

        Raises:
            QueryError: the index keeps no pixels.
        """
        return self._pixels({patch.image_id for subrow in self.subrows for patch in subrow.patches})

    def to_png(self) -> bytes:
        """The figure as one picture, 300 dots an inch.

        Raises:
            OutputError: it is larger than a picture can be.
            QueryError: the index keeps no pixels; so for the other formats.
        """
        from bagindex.figures.figure3 import to_png

        return to_png(self._rows(), self.models)

    def to_svg(self) -> bytes:
        """The figure as a drawing, text as text."""
        from bagindex.figures.figure3 import to_svg

        return to_svg(self._rows(), self.models)

    def to_pdf(self) -> bytes:
        """The figure as pages, text as text."""
        from bagindex.figures.figure3 import to_pdf

        return to_pdf(self._rows(), self.models)

    def to_html(self) -> str:
        """The figure as a page in one file, in which each patch leads to its image and numbers."""
        from bagindex.figures import page

        body, details = page.figure3(self, self.pictures())
        names = ", ".join(record.name for record in self.classes)
        return page.document(f"{names} · {', '.join(self.models)}", page.legend(self.k) + body + details)

    def save(self, path: str | Path) -> None:
        """Write a `.png`, `.svg`, `.html` or `.pdf` file.

        Raises:
            OutputError: another ending, or the file cannot be written.
            QueryError: the index keeps no pixels.
        """
        writers: dict[str, Callable[[Path], object]] = {
            ".png": lambda file: file.write_bytes(self.to_png()),
            ".svg": lambda file: file.write_bytes(self.to_svg()),
            ".html": lambda file: file.write_text(self.to_html(), encoding="utf-8"),
            ".pdf": lambda file: file.write_bytes(self.to_pdf()),
        }
        output.save(path, writers)

    def _repr_png_(self) -> bytes:
        return self.to_png()

    def _repr_html_(self) -> str:
        return in_notebook(self.to_html())

    def _rows(self) -> list[Row]:
        from bagindex.figures.figure3 import Row, Strip, Tile

        pictures = self.pictures()

        def strip(subrow: Subrow) -> Strip:
            return Strip(
                [Tile(subrow.crop(pictures, patch), caption(patch)) for patch in subrow.patches], subrow.remark
            )

        return [
            Row(record.name, *([strip(self.subrow(record, m, right)) for m in self.models] for right in (True, False)))
            for record in self.classes
        ]


def make(
    index: Questions,
    classes: Sequence[ClassRecord],
    models: Sequence[str],
    k: int,
    pixels: Callable[[set[int]], Mapping[int, NDArray[np.uint8]]],
) -> Figure3:
    """Ask an index for all subrows."""
    unlabelled = index.unlabelled
    subrows = []
    for record in dict.fromkeys(classes):
        for model in dict.fromkeys(models):
            for right in (True, False):
                patches = index.top_patches(record.class_id, wrong_class=not right, k=k, model=model)
                remark = "" if len(patches) == k else _remark(len(patches), right, unlabelled)
                subrows.append(Subrow(record, model, right, patches, remark, index.grid_of(model)))
    return Figure3(tuple(dict.fromkeys(classes)), tuple(dict.fromkeys(models)), k, tuple(subrows), pixels)


def caption(patch: Patch) -> tuple[str, ...]:
    """What stands under a patch: the label of its image, where that is not the class asked about, and its logit."""
    logit = logit_text(patch.logit)
    return (logit,) if patch.label == patch.class_id else (patch.label_name or "unlabelled", logit)


def in_notebook(document: str) -> str:
    """A page inside a notebook, kept apart from the notebook's own styles and links."""
    # Without a base, links to places in the page would lead to the notebook's own address.
    document = document.replace("<head>", '<head>\n<base href="about:srcdoc">', 1)
    return (
        f'<iframe srcdoc="{html.escape(document)}" sandbox="" title="bagindex" '
        'style="width:100%;height:640px;border:0"></iframe>'
    )


def _remark(found: int, right: bool, unlabelled: bool) -> str:
    if unlabelled:
        return "no image has a label"
    if found:
        return "no more images"
    return "no image of this class" if right else "no image of another class"
