"""What can be looked at in an index: the pixels of images and patches, and what a patch says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from bagindex.errors import (
    DamagedIndexError,
    NotKeptError,
    OutdatedError,
    QueryError,
    UnknownImageError,
    UnknownPatchError,
)
from bagindex.geometry import Box, locate, patch_box, patch_pixels
from bagindex.opened import Opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bagindex.maps import ImageLike
    from bagindex_schemas.records import ModelRecord


class LookQuestions(Opened):
    """What can be looked at in an opened index."""

    def patch(
        self, patch_id: int, classes: str | int | Sequence[str | int] = (), *, k: int = 5, model: str | None = None
    ) -> dict[str, Any]:
        """What there is to say of a patch: its image, its place, its word, and its logits.

        Args:
            patch_id: its id.
            classes: names, wnids or ids of classes whose logits are given besides.
            k: of how many classes with the largest logits.
            model: which model; may be left out where there is one.

        Returns:
            The fields of `bagindex.results.PlacedPatch` but for the rank; `correct`, whether the image's label is what
            the model predicts (None without a label); `word`, its visual word, which `word_patches` patches of the
            index are (None where there are no words of all images); and `logits`: the k largest, largest first and
            equal ones by class_id, then those of the prediction, of the label and of `classes` that are not among
            them. They are the evidence as stored, or as the stored model computes it; none where the index keeps
            neither evidence nor pixels.

        Raises:
            UnknownPatchError, UnknownClassError: the index has no such patch, or no such class.
            QueryError: `k` is below 1.
        """
        import numpy as np

        from bagindex.described import describe

        if k < 1:
            raise QueryError("-k starts at 1")
        record = self._model(model)
        image_id, _ = self.place_of(patch_id, model=record.name)
        asked = [self.find_class(each) for each in ([classes] if isinstance(classes, str | int) else classes)]
        (placed,) = describe(self._catalog, record, [patch_id])
        word, word_patches = self._word_of(record, patch_id)
        try:
            values = self._evidence_of(image_id, record.name).patches(range(len(self.classes)))
        except NotKeptError:
            logits, listed = np.empty(0, np.float32), []
        else:
            logits = values[:, placed["row"], placed["col"]]
            best = np.argsort(-logits, kind="stable")[:k].tolist()
            own = [class_id for class_id in (placed["predicted"], placed["label"]) if class_id is not None]
            listed = list(dict.fromkeys([*best, *own, *(each.class_id for each in asked)]))
        return {
            **placed,
            "correct": None if placed["label"] is None else placed["label"] == placed["predicted"],
            "box": list(placed["box"]),
            "source_box": list(placed["source_box"]),
            "word": word,
            "word_patches": word_patches,
            "logits": [{"class": self.classes[i].name, "class_id": i, "logit": float(logits[i])} for i in listed],
        }

    def _word_of(self, record: ModelRecord, patch_id: int) -> tuple[int | None, int | None]:
        """The word of a patch, and how many patches are it."""
        import numpy as np

        image_id, cell = divmod(patch_id, record.grid.patches)
        try:
            stored = self._stored_evidence(record)
            vocabulary = self._words_of(record)
        except (QueryError, DamagedIndexError):  # a patch has more to say than its word
            return None, None
        word = int(vocabulary.of_patches[stored.places(np.array([image_id]))[0], cell])
        return word, int(vocabulary.patches[word])

    def pixels(self, image_id: int) -> NDArray[np.uint8]:
        """The model's input before normalisation, uint8 [height, width, RGB].

        Raises:
            UnknownImageError: the index has no such image.
            NotKeptError: the index keeps no pixels.
        """
        from bagindex.maps import find_image

        try:
            return self._pixels([image_id])[image_id]
        except (DamagedIndexError, OutdatedError):
            find_image(self._catalog, image_id)  # not before: it takes longer than reading the pixels
            raise

    def input_of(self, image: ImageLike, *, model: str | None = None) -> NDArray[np.uint8]:
        """What the models see of an image, or of a picture that is not in the index: after the resize and the crop,
        before normalisation, uint8 [height, width, RGB].

        Args:
            image: as for `heatmap`.
            model: one that there is; all of an index have the same input.

        Raises:
            QueryError: it is neither an image of the index nor a picture, or there is no such model.
            NotKeptError: it is an image of the index, which keeps no pixels.
        """
        found = self._evidence_of(image, next(iter(self._catalog.models)) if model is None else model).pixels
        if found is None:
            raise NotKeptError("this index keeps no pixels to show: build it anew with --pixels --restart")
        return found

    def place_of(self, patch_id: int, *, model: str | None = None) -> tuple[int, Box]:
        """The image of a patch, by its id, and the box of the model's input that the patch sees.

        Raises:
            UnknownPatchError: the index has no such patch.
        """
        from bagindex.maps import find_image

        record = self._model(model)
        image_id, row, col = locate(record.grid, patch_id)
        try:
            find_image(self._catalog, image_id)
        except UnknownImageError:
            raise UnknownPatchError(
                f"{record.name} has no patch {patch_id} in this index: a patch is its image's id × "
                f"{record.grid.patches}, and its place"
            ) from None
        return image_id, patch_box(record.grid, row, col)

    def patch_pixels(self, patch_id: int, *, model: str | None = None) -> NDArray[np.uint8]:
        """The pixels of a patch, uint8 [q, q, RGB].

        Raises:
            UnknownPatchError: the index has no such patch.
            NotKeptError: the index keeps no pixels.
        """
        image_id, _ = self.place_of(patch_id, model=model)
        return self.cut_patch(self.pixels(image_id), patch_id, model=model)

    def cut_patch(self, pixels: NDArray[np.uint8], patch_id: int, *, model: str | None = None) -> NDArray[np.uint8]:
        """The pixels of a patch, uint8 [q, q, RGB], out of those of its image, uint8 [height, width, RGB]."""
        grid = self._model(model).grid
        _, row, col = locate(grid, patch_id)
        return patch_pixels(pixels, grid, row, col)
