"""The evidence of one image: which image is meant, and its patches' logits for some classes, from wherever they are.

Stored evidence is mapped and only the image's slice is read, for each class. What an index does not keep, its stored
model computes again from the stored pixels; of a picture that is not in the index, from the file.
"""

from __future__ import annotations

import hashlib
import operator
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from bagindex.catalog import Catalog
from bagindex.decoders.pool import DEFAULT_SECONDS, decode
from bagindex.errors import DamagedIndexError, NotKeptError, PictureSizeError, QueryError, UnknownImageError
from bagindex.geometry import Placement, patch_box, shared_area
from bagindex.images import MAX_PIXELS, Rejected
from bagindex.store import IndexDirectory
from bagindex.stored import StoredEvidence
from bagindex.text import path_text
from bagindex_schemas.records import ClassRecord, Grid, ModelRecord
from bagindex_schemas.rejects import RejectCode

if TYPE_CHECKING:
    from bagindex.computing import Computing
    from bagindex.evidence import Evidence


@dataclass(frozen=True)
class PictureBytes:
    """A picture that is no file here, such as one that was sent: what it is called, and the bytes of its file.

    It may have so many pixels, and take so many seconds to be decoded.
    """

    name: str
    data: bytes = field(repr=False)
    pixels: int = MAX_PIXELS
    seconds: float = DEFAULT_SECONDS


ImageLike = SupportsIndex | str | os.PathLike[str] | PictureBytes


@dataclass(frozen=True)
class Subject:
    """The image that is asked about.

    Attributes:
        name: its path in the index, or the file's.
        image_id: None where it is a file that is not in the index.
        label: None where it has none.
        placement: where the model's input lies in the picture.
    """

    name: str
    image_id: int | None
    label: ClassRecord | None
    placement: Placement

    @property
    def labelled(self) -> str:
        """The label in words."""
        return "unlabelled" if self.label is None else f"labelled {self.label.name}"

    def patch_id(self, grid: Grid, cell: int) -> int | None:
        """The id of the patch in a cell of the grid, row-major; None where the image is not in the index."""
        return None if self.image_id is None else self.image_id * grid.patches + cell


@dataclass(frozen=True)
class Likely:
    """A class that a model finds probable in an image.

    Attributes:
        class_: the class.
        logit: the image's.
        probability: the softmax over all classes.
    """

    class_: ClassRecord
    logit: float
    probability: float

    def to_dict(self) -> dict[str, Any]:
        """As a JSON object would have it."""
        return {
            "class": self.class_.name,
            "class_id": self.class_.class_id,
            "logit": self.logit,
            "probability": self.probability,
        }


class ImageEvidence:
    """What a model makes of one image. Numbers are read, or computed, when they are asked for.

    Args:
        directory, catalog: the index.
        record: the model.
        evidence: gives what is stored of its evidence.
        pixels: gives the stored inputs of images, by their ids.
        computing: runs the model, when it must.
        image: id or path of an image of the index, or a picture file.
        device: where the model runs.

    Raises:
        QueryError: it is neither an image of the index nor a picture.
    """

    def __init__(
        self,
        directory: IndexDirectory,
        catalog: Catalog,
        record: ModelRecord,
        evidence: Callable[[], StoredEvidence],
        pixels: Callable[[Iterable[int]], Mapping[int, NDArray[np.uint8]]],
        computing: Computing,
        image: ImageLike,
        device: str = "auto",
    ) -> None:
        self._directory = directory
        self._catalog = catalog
        self._manifest = catalog.manifest
        self.record = record
        self._evidence = evidence
        self._stored_pixels = pixels
        self._computing = computing
        self._device = device
        self._file_pixels: NDArray[np.uint8] | None = None
        image_id, data = _find(catalog, image)
        if image_id is not None:
            self.subject = _stored_subject(catalog, image_id)
        # Of an image of the index the file is needed only where its pixels are not stored.
        if data is not None and (image_id is None or not self._manifest.plan.pixels):
            sent = image if isinstance(image, PictureBytes) else PictureBytes(path_text(os.fsencode(image)), data)  # type: ignore[arg-type]  # an integer is no file
            try:
                picture = decode(data, catalog.manifest.plan.transform, sent.seconds, sent.pixels)
            except Rejected as error:
                kind = PictureSizeError if error.code is RejectCode.TOO_LARGE else QueryError
                raise kind(f"{sent.name} is no picture that can be indexed: {error.message}") from None
            self._file_pixels = picture.pixels
            if image_id is None:
                self.subject = Subject(sent.name, None, None, picture.placement)

    @cached_property
    def pixels(self) -> NDArray[np.uint8] | None:
        """The model's input before normalisation, uint8 [height, width, RGB]; None where the index keeps none."""
        if self._file_pixels is not None:
            return self._file_pixels
        image_id = self.subject.image_id
        if image_id is None or not self._manifest.plan.pixels:
            return None
        return self._stored_pixels([image_id])[image_id]

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """The image's logits, float32 [classes]: the mean of its patches' (section 2 of the paper)."""
        if self.subject.image_id is None:
            computed: NDArray[np.float32] = self._computed.logits[0]
            return computed
        sql = f"SELECT logits FROM {self._catalog.relation(self.record, 'predictions')} WHERE image_id = ?"
        row = self._catalog.first_row(sql, [self.subject.image_id])
        if row is None:
            raise DamagedIndexError(f"image {self.subject.image_id} is not in its shard: run `bagindex verify`")
        return np.array(row[0], np.float32)

    @property
    def classes(self) -> tuple[ClassRecord, ...]:
        """The classes, in the order of the logits."""
        return self._manifest.plan.classes

    @property
    def predicted(self) -> ClassRecord:
        """The class with the largest logit; the first of equal ones."""
        return self.classes[int(self.logits.argmax())]

    def top(self, count: int = 5) -> tuple[Likely, ...]:
        """The most probable classes, the first of equal ones first."""
        probabilities = softmax(self.logits)
        best = np.argsort(-self.logits, kind="stable")[:count].tolist()
        return tuple(Likely(self.classes[i], float(self.logits[i]), float(probabilities[i])) for i in best)

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the model's input."""
        return self._manifest.plan.transform.crop_height, self._manifest.plan.transform.crop_width

    @property
    def stored(self) -> bool:
        """Whether the patches' evidence is stored, or must be computed."""
        return self.subject.image_id is not None and "evidence" in self.record.keep.tables

    def patches(self, class_ids: Sequence[int]) -> NDArray[np.float32]:
        """The patches' evidence as the index has it or would have it (rounded to float16).

        Args:
            class_ids: C classes.

        Returns:
            float32 [C, rows, cols].

        Raises:
            QueryError: the index keeps neither evidence nor pixels.
        """
        grid = self.record.grid
        if not self.stored:
            evidence: NDArray[np.float16] = self._computed.evidence[0].T.reshape(-1, grid.rows, grid.cols)
            return evidence[list(class_ids)].astype(np.float32)
        stored = self._evidence()
        place = int(stored.places(np.array([self.subject.image_id]))[0])
        return stored.of_image(place, class_ids).reshape(-1, grid.rows, grid.cols).astype(np.float32)

    def feature(self, row: int, col: int) -> NDArray[np.float16]:
        """The feature of a patch as the stored model computes it from the picture, float16 [D].

        Raises:
            QueryError: the index keeps no pixels.
        """
        feature: NDArray[np.float16] = self._computed.features[0, row * self.record.grid.cols + col]
        return feature

    def dense(
        self, class_ids: Sequence[int], progress: Callable[[int, int], None] = lambda _done, _total: None
    ) -> NDArray[np.float32]:
        """Evidence of the patch around every pixel, float32 [C, height, width]; see `bagindex.dense`.

        Raises:
            QueryError: the index keeps no pixels.
        """
        from bagindex.compute import find_device
        from bagindex.dense import dense_evidence
        from bagindex.weights import read_checkpoint

        pixels = self._needed_pixels("a dense heatmap")
        if self.record.plugin is not None:
            from bagindex.models.dense import shifted_evidence
            from bagindex.models.weights import stored_model

            model, _ = stored_model(self._directory, self.record)
            shown = self._manifest.plan.transform, pixels, class_ids, find_device(self._device)
            return shifted_evidence(model, *shown, progress=progress)
        checkpoint = read_checkpoint(self._directory.weights_path(self.record), self.record.architecture)
        transform, device = self._manifest.plan.transform, find_device(self._device)
        return dense_evidence(checkpoint.build(), transform, pixels, class_ids, device, progress=progress)

    @cached_property
    def _computed(self) -> Evidence:
        """What the stored model makes of the picture in float32, as a batch of one."""
        pixels = self._needed_pixels("evidence of its patches")
        return self._computing.evidence(self._directory, self._manifest, self.record, pixels, self._device)

    def _needed_pixels(self, what: str) -> NDArray[np.uint8]:
        if self.pixels is None:
            raise NotKeptError(
                f"{what} must be computed, and this index keeps no pixels to compute it from: give the picture's "
                f"file instead of {self.subject.name!r}, or build with --pixels"
                + ("" if "evidence" in self.record.keep.tables else " or --keep evidence")
            )
        return self.pixels


def confused(
    catalog: Catalog, record: ModelRecord, label: ClassRecord, predicted: ClassRecord, count: int, offset: int = 0
) -> list[int]:
    """Ids of the images of one class that the model takes for another, the most probable first.

    Args:
        catalog, record: the index and the model.
        label, predicted: the two classes.
        count: how many at most.
        offset: how many to pass over; beyond the last, none is left, which is no error.

    Raises:
        QueryError: there is none, or both classes are one.
    """
    if label == predicted:
        raise QueryError(f"an image labelled {label.name!r} and predicted {label.name!r} is not confused")
    if count < 1:
        raise QueryError("-k starts at 1")
    if not 0 <= offset < 2**62:
        raise QueryError("--offset starts at 0")
    sql = f"""
        SELECT image_id FROM images JOIN {catalog.relation(record, "predictions")} USING (image_id)
        WHERE label = ? AND predicted = ? ORDER BY probability DESC, image_id LIMIT {count} OFFSET {offset}"""
    rows = catalog.rows(sql, [label.class_id, predicted.class_id])
    if not rows and (not offset or not confused(catalog, record, label, predicted, 1)):
        raise QueryError(
            f'no image labelled {label.name!r} is predicted {predicted.name!r}: `bagindex sql "SELECT label_name, '
            'predicted_name, count(*) FROM predictions WHERE NOT correct GROUP BY ALL ORDER BY 3 DESC"` shows '
            "what is taken for what"
        )
    return [row[0] for row in rows]


def strongest(
    values: NDArray[np.floating], grid: Grid, count: int, overlap: bool = False
) -> tuple[tuple[int, int], ...]:
    """The cells (row, col) with the largest values, largest first and equal ones in row-major order.

    Args:
        values: float [rows, cols].
        grid: where the cells are.
        count: how many at most.
        overlap: whether their patches may share pixels.
    """
    chosen: list[tuple[int, int]] = []
    for cell in np.argsort(-values, axis=None, kind="stable"):
        if len(chosen) == count:
            break
        row, col = divmod(int(cell), grid.cols)
        box = patch_box(grid, row, col)
        if overlap or not any(shared_area(box, patch_box(grid, *other)) for other in chosen):
            chosen.append((row, col))
    return tuple(chosen)


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    """Probabilities of all classes, float64 [C], from an image's logits, float32 [C]."""
    powers = np.exp(logits.astype(np.float64) - logits.max())
    shares: NDArray[np.float64] = powers / powers.sum()
    return shares


def _find(catalog: Catalog, image: ImageLike) -> tuple[int | None, bytes | None]:
    """The id of an image of the index, and the bytes of a file; one of them at least.

    What a text may mean is tried in this order: an id, a path of the index, the end of one, a file; `./17` is a file.
    """
    if isinstance(image, PictureBytes):
        return _by_bytes(catalog, image.data, image.name)
    if not isinstance(image, str | os.PathLike):
        return find_image(catalog, operator.index(image)), None
    name, path = path_text(os.fsencode(image)), Path(image)
    is_id = isinstance(image, str) and name.isdecimal() and name.isascii()
    sql = "SELECT image_id FROM images WHERE image_id = ?" if is_id else "SELECT image_id FROM images WHERE path = ?"
    if found := catalog.first_row(sql, [min(int(name), 2**62) if is_id else name]):
        return found[0], None
    sql = "SELECT image_id, path FROM images WHERE ends_with(path, '/' || ?) ORDER BY image_id LIMIT 2"
    ends = catalog.rows(sql, [name])
    if len(ends) == 1:
        return ends[0][0], None
    if path.is_file():
        try:
            data = path.read_bytes()
        except OSError as error:
            raise QueryError(f"{name} cannot be read: {error.strerror or error}") from None
        return _by_bytes(catalog, data, path_text(os.fsencode(path.absolute())))
    if ends:
        raise QueryError(f"several images of the index end in {name!r}: say {ends[0][1]!r}, {ends[1][1]!r} or an id")
    if is_id:
        return find_image(catalog, int(name)), None
    sql = "SELECT code, message FROM rejects WHERE path = ?"
    if rejected := catalog.first_row(sql, [name]):
        raise QueryError(f"{name} could not be indexed ({rejected[0]}: {rejected[1]})")
    what = "a folder" if path.is_dir() else "no image of this index, by id or path, and no file"
    raise QueryError(f'{name!r} is {what}: `bagindex sql "SELECT image_id, path FROM images"` lists its images')


def _by_bytes(catalog: Catalog, data: bytes, name: str) -> tuple[int | None, bytes]:
    # The same bytes give the same evidence, and that is stored.
    sql = "SELECT image_id FROM images WHERE sha256 = ? ORDER BY NOT ends_with(?, '/' || path), image_id"
    same = catalog.first_row(sql, [hashlib.sha256(data).hexdigest(), name])
    return (same[0] if same else None), data


def find_image(catalog: Catalog, image_id: int) -> int:
    """The id itself.

    Raises:
        UnknownImageError: the index has no such image.
    """
    if -(2**63) <= image_id < 2**63:
        if catalog.first_row("SELECT 1 FROM images WHERE image_id = ?", [image_id]):
            return image_id
        sql = "SELECT path, code, message FROM rejects WHERE image_id = ?"
        if rejected := catalog.first_row(sql, [image_id]):
            raise UnknownImageError(
                f"image {image_id}, {rejected[0]}, could not be indexed ({rejected[1]}: {rejected[2]})"
            )
    last = catalog.rows("SELECT max(image_id) FROM images")[0][0]
    has = "it has no images" if last is None else f"ids go up to {last}"
    raise UnknownImageError(f"there is no image {image_id} in this index: {has}")


def _stored_subject(catalog: Catalog, image_id: int) -> Subject:
    sql = """
        SELECT path, label, width, height, resized_width, resized_height, crop_left, crop_top
        FROM images WHERE image_id = ?"""
    path, label, *placement = catalog.rows(sql, [image_id])[0]
    classes = catalog.manifest.plan.classes
    return Subject(path, image_id, None if label is None else classes[label], Placement(*placement))
