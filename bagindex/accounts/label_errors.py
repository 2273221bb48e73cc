"""Images whose own evidence speaks against their label, those first in which it speaks most strongly."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bagindex.accounts import sums
from bagindex.accounts.shortcuts import Crops
from bagindex.accounts.shown import PicturedAccount
from bagindex.catalog import Catalog
from bagindex.errors import QueryError
from bagindex.figures import strips as drawing
from bagindex.stored import StoredEvidence
from bagindex_schemas.records import ClassRecord, ModelRecord

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_DRAWN = 40
"""Images in a picture."""
# The label's probability is the predicted class's times what its logit is less.
_SQL = """
WITH judged AS (
    SELECT i.image_id, i.path, i.label, p.predicted, p.probability,
           p.logits[p.predicted + 1]::DOUBLE - p.logits[i.label + 1]::DOUBLE AS margin,
           p.probability * exp(p.logits[i.label + 1]::DOUBLE - p.logits[p.predicted + 1]::DOUBLE) AS label_probability
    FROM images AS i JOIN {predictions} AS p USING (image_id) WHERE i.label IS NOT NULL
), usual AS (SELECT label, avg(label_probability) AS probability FROM judged GROUP BY label), wrong AS (
    SELECT j.*, coalesce(j.probability >= u.probability, false) AS confident
    FROM judged AS j LEFT JOIN usual AS u ON u.label = j.predicted WHERE j.margin > 0
)
"""


@dataclass(frozen=True)
class LabelError:
    """An image whose label may be wrong.

    Attributes:
        labelled, suggested: its label, and the class that the model predicts instead.
        margin: by how much the suggested class's logit is larger than the label's: the mean over the patches of what
            each says more for the one than for the other.
        label_probability, probability: the softmax at the label and at the suggested class.
        share: of the patches, that say more for the suggested class; None where the index keeps no evidence.
        confident: whether the suggested class is as probable as the label is, on average, in images that are labelled
            so.
        patch_for, patch_against: the strongest patch for the suggested class, and for the label; patch_id.
    """

    image_id: int
    path: str
    labelled: ClassRecord
    suggested: ClassRecord
    margin: float
    label_probability: float
    probability: float
    share: float | None
    confident: bool
    patch_for: int
    patch_against: int


@dataclass(frozen=True)
class LabelErrors(PicturedAccount):
    """Images whose label may be wrong, those first whose evidence speaks most strongly against it.

    Candidates are the labelled images that the model takes for another class. They are ranked by the margin of that
    class over the label, in logits: an exact mean of local evidence. Of what was tried on labels that were made wrong,
    among them differences of probabilities, those beyond each class's usual confidence, and the share of patches, this
    ranked them best or nearly so, whether the model was good or poor; the share of patches alone did worst, since many
    patches of any image say little.

    Attributes:
        model: the model's name.
        errors: the answer.
        candidates: how many labelled images the model takes for another class.
        confident: how many of these are as probable to be of that class as images that are labelled so are on average:
            the criterion of confident learning (Northcutt et al., 2021).
        labelled: how many images have a label.
    """

    model: str
    errors: tuple[LabelError, ...]
    candidates: int
    confident: int
    labelled: int
    _crops: Crops = dataclasses.field(repr=False, compare=False)
    _pixels: Any = dataclasses.field(repr=False, compare=False)

    columns = (
        "labelled",
        "label",
        "margin",
        "label_probability",
        "probability",
        "share",
        "confident",
        "image_id",
        "path",
    )
    types: ClassVar[Mapping[str, str]] = {
        "path": "text",
        "label": "text",
        "labelled": "text",
        "image_id": "integer",
        "margin": "number",
        "label_probability": "number",
        "probability": "number",
        "share": "number",
        "confident": "boolean",
        "patch_for": "integer",
        "patch_against": "integer",
    }

    def __len__(self) -> int:
        """How many there are."""
        return len(self.errors)

    def __getitem__(self, index: int) -> LabelError:
        """The one of rank `index + 1`."""
        return self.errors[index]

    @property
    def title(self) -> str:
        """What was asked."""
        return f"images whose evidence speaks against their label ({self.model})"

    @property
    def words(self) -> str:
        """What the columns are."""
        if not self.errors:
            return "The model takes no such image for another class."
        return (
            f"The model takes {self.candidates:,} of {self.labelled:,} labelled images for another class, and of "
            f"{self.confident:,} of these it is as sure as it usually is of that class. label: what it takes them for; "
            "margin: of its logit over that of the label they have (labelled); label_probability, probability: of the "
            "one and the other; share: of the patches that say more for it. The model may be wrong: look before you "
            "relabel."
        )

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each image; `label` is the suggested one, as `bagindex relabel --labels` takes it."""
        return [
            {
                "path": each.path,
                "label": each.suggested.name,
                "labelled": each.labelled.name,
                "image_id": each.image_id,
                "margin": each.margin,
                "label_probability": each.label_probability,
                "probability": each.probability,
                "share": each.share,
                "confident": each.confident,
                "patch_for": each.patch_for,
                "patch_against": each.patch_against,
            }
            for each in self.errors
        ]

    def figure(self) -> Figure:
        """A row for each image: the image, and the strongest patches for both classes."""
        if not self.errors:
            raise QueryError("there is nothing to draw: no labelled image is taken for another class")
        shown = self.errors[:MOST_DRAWN]
        pictures = self._pixels([each.image_id for each in shown])
        rows = []
        for each, (for_it, against) in zip(shown, self._patches(shown), strict=True):
            share = "" if each.share is None else f", {100 * each.share:.0f} % of patches"
            rows.append(
                drawing.Row(
                    (
                        f"{each.labelled.name}?",
                        f"rather {each.suggested.name}",
                        f"margin {each.margin:.2f}{share}",
                        f"image {each.image_id}",
                    ),
                    [
                        drawing.Group("the image", [drawing.Tile(pictures[each.image_id], "")]),
                        drawing.Group(f"for {each.suggested.name}", [drawing.Tile(for_it, "")]),
                        drawing.Group(f"for {each.labelled.name}", [drawing.Tile(against, "")]),
                    ],
                )
            )
        return drawing.strips_figure(self.title, rows, 1, 3)

    def _patches(self, shown: Sequence[LabelError]) -> list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
        crops = self._crops([patch for each in shown for patch in (each.patch_for, each.patch_against)])
        return list(zip(crops[::2], crops[1::2], strict=True))

    def _coarse(self) -> Sequence[tuple[str, Sequence[NDArray[np.uint8]], Sequence[str]]]:
        shown = self.errors[:MOST_DRAWN]
        return [
            (f"{each.labelled.name} > {each.suggested.name}: {each.margin:.2f}", pair, ["for", "against"])
            for each, pair in zip(shown, self._patches(shown), strict=True)
        ]


def label_errors(
    catalog: Catalog,
    record: ModelRecord,
    evidence: StoredEvidence | None,
    class_: ClassRecord | None,
    k: int | None,
    crops: Crops,
    pixels: Any,
) -> LabelErrors:
    """Rank the labelled images that a model takes for another class.

    Args:
        catalog, record: the index and the model.
        evidence: the model's, where it is kept.
        class_: only images with this label; None: all.
        k: how many; None: all.
        crops: gives the patches' pixels.
        pixels: gives the inputs of images, by their ids.

    Raises:
        QueryError: no image has a label, or `k` is out of range.
    """
    if k is not None and k < 1:
        raise QueryError("-k starts at 1")
    sql = _SQL.format(predictions=catalog.relation(record, "predictions"))
    counts = catalog.first_row(
        f"{sql} SELECT (SELECT count(*) FROM judged), count(*), count(*) FILTER (confident) FROM wrong"
    )
    if not counts or not counts[0]:
        raise QueryError("no image of this index has a label, so none is wrong: `bagindex relabel` gives them labels")
    condition = "" if class_ is None else f"WHERE label = {class_.class_id}"
    found = catalog.rows(
        f"""{sql}, ranked AS (
            SELECT * FROM wrong {condition} ORDER BY margin DESC, image_id {"" if k is None else f"LIMIT {k}"}
        )
        SELECT r.image_id, r.path, r.label, r.predicted, r.margin, r.label_probability, r.probability, r.confident,
               s.patch_id, l.patch_id
        FROM ranked AS r
        JOIN {catalog.relation(record, "image_evidence")} AS s ON s.image_id = r.image_id AND s.class_id = r.predicted
        JOIN {catalog.relation(record, "image_evidence")} AS l ON l.image_id = r.image_id AND l.class_id = r.label
        ORDER BY r.margin DESC, r.image_id"""
    )
    classes = catalog.manifest.plan.classes
    return LabelErrors(
        model=record.name,
        errors=tuple(
            LabelError(
                image_id=image_id,
                path=path,
                labelled=classes[label],
                suggested=classes[predicted],
                margin=float(margin),
                label_probability=float(own),
                probability=float(probability),
                share=None if evidence is None else _share(evidence, image_id, predicted, label),
                confident=bool(confident),
                patch_for=int(patch_for),
                patch_against=int(patch_against),
            )
            for image_id, path, label, predicted, margin, own, probability, confident, patch_for, patch_against in found
        ),
        candidates=int(counts[1]),
        confident=int(counts[2]),
        labelled=int(counts[0]),
        _crops=crops,
        _pixels=pixels,
    )


def _share(evidence: StoredEvidence, image_id: int, suggested: int, label: int) -> float:
    """The share of an image's patches that say more for one class than for another."""
    place = int(evidence.places(np.array([image_id]))[0])
    values = sums.exact(evidence.of_image(place, [suggested, label]))
    return float((values[0] > values[1]).mean())
