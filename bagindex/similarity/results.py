"""`SimilarPatches`: what is like a patch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagindex import output
from bagindex.geometry import Box, FloatBox, patch_pixels
from bagindex.results import PatchList, PlacedPatch
from bagindex_schemas.derived import Metric
from bagindex_schemas.records import Grid

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa
    from numpy.typing import NDArray

    from bagindex.render import Caption


@dataclass(frozen=True, kw_only=True)
class SimilarPatch(PlacedPatch):
    """A patch of the answer.

    Attributes:
        cosine: of the two features' angle, float64 from stored float16 values; 1 is the same direction.
        distance: the Euclidean distance of the two features, likewise.
    """

    cosine: float
    distance: float


@dataclass(frozen=True)
class AskedPatch:
    """The patch that was asked about.

    Attributes:
        image: path in the index, or the picture file.
        image_id, patch_id, label_name, predicted_name: None where the picture is not in the index.
        row, col, box, source_box: as in `bagindex.results.PlacedPatch`.
    """

    image: str
    image_id: int | None
    patch_id: int | None
    label_name: str | None
    predicted_name: str
    row: int
    col: int
    box: Box
    source_box: FloatBox
    _grid: Grid = field(repr=False, compare=False)
    _pixels: Callable[[], NDArray[np.uint8] | None] = field(repr=False, compare=False)

    def crop(self) -> NDArray[np.uint8] | None:
        """Its pixels, uint8 [q, q, RGB]; None where the index keeps none."""
        pixels = self._pixels()
        return None if pixels is None else patch_pixels(pixels, self._grid, self.row, self.col)

    def to_dict(self) -> dict[str, Any]:
        """The fields by name, but for the pixels."""
        fields = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        return {**fields, "box": list(self.box), "source_box": list(self.source_box)}


@dataclass(frozen=True)
class SimilarPatches(PatchList[SimilarPatch]):
    """The patches most like one, the most alike first.

    Attributes:
        asked: the patch asked about.
        metric: what they are ranked by.
        exact: whether these are the nearest for certain.
        how: the same in words, and what was looked at.
    """

    asked: AskedPatch
    metric: Metric
    exact: bool
    how: str

    _kind = SimilarPatch
    columns = ("rank", "cosine", "distance", "patch_id", "label", "predicted", "row", "col", "path")

    @property
    def title(self) -> str:
        """What was asked, and how it was answered."""
        return f"{self.question} ({self.how})"

    def to_dict(self) -> dict[str, Any]:
        """The question and the answer as a JSON object would have them."""
        asked = {"question": self.question, "asked": self.asked.to_dict(), "metric": self.metric}
        return {**asked, "exact": self.exact, "how": self.how, "patches": self.to_dicts()}

    def to_arrow(self) -> pa.Table:
        """The patches as an Arrow table; its metadata says what was asked, and how it was answered."""
        said = {"question": self.question, "how": self.how, "exact": str(self.exact).lower()}
        return super().to_arrow().replace_schema_metadata(said)

    def _writers(self) -> dict[str, Callable[[Path], object]]:
        return {**super()._writers(), ".json": lambda path: path.write_text(self.to_json(), encoding="utf-8")}

    def to_json(self) -> str:
        """The question and the answer as one JSON object."""
        return output.to_json([self.to_dict()])[1:-2] + "\n"

    def _tiles(self) -> list[tuple[NDArray[np.uint8], Caption]]:
        from bagindex.render import Caption

        asked, crop = self.asked, self.asked.crop()
        tiles = super()._tiles()
        if crop is not None:
            tiles.insert(0, (crop, Caption("asked", "", asked.label_name, asked.predicted_name, asked.patch_id)))
        return tiles

    def _value(self, patch: SimilarPatch) -> str:
        return f"{patch.cosine:.3f}" if self.metric == "cosine" else f"{patch.distance:.3g}"
