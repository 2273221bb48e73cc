"""What becomes of the predictions when some words' patches are taken out of every image. No model runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from bagindex.accounts import sums
from bagindex.accounts.shown import Account
from bagindex.catalog import Catalog
from bagindex.errors import DamagedIndexError, QueryError
from bagindex.stored import StoredEvidence
from bagindex.words.vocabulary import Vocabulary
from bagindex_schemas.records import ClassRecord

_ROOM = 10**9
"""Bytes of sums that are held at a time, all classes of so many images."""


@dataclass(frozen=True)
class ClassAccuracy:
    """Accuracy over the labelled images of a class, or of all classes.

    Attributes:
        class_: None for all.
        images: how many there are.
        before, after: how many are right with all patches, and without those of the words.
        made_right, made_wrong: how many become so.
        wrong_otherwise: how many are wrong before and after, as another class.
    """

    class_: ClassRecord | None
    images: int
    before: int
    after: int
    made_right: int
    made_wrong: int
    wrong_otherwise: int

    @property
    def accuracy_before(self) -> float | None:
        """The share that is right; None of no images."""
        return self.before / self.images if self.images else None

    @property
    def accuracy_after(self) -> float | None:
        """The share that is right without the patches; None of no images."""
        return self.after / self.images if self.images else None


@dataclass(frozen=True)
class ChangedImage:
    """An image whose prediction changes.

    Attributes:
        label, before, after: classes by name; no label: None; no patch left, so no prediction: `after` is None.
        removed: how many of its patches went.
    """

    image_id: int
    path: str
    label: str | None
    before: str
    after: str | None
    removed: int


@dataclass(frozen=True)
class Without(Account):
    """Predictions without some words' patches.

    *Without* leaves the patches out of the mean, as if the pictures had not had them: a prediction is the argmax of the
    sums over the patches that remain. An image of which none remain has no prediction, and counts as wrong.

    Attributes:
        removed_words: the words.
        model: the model's name.
        images: all images; `labelled` of them have a label.
        touched: how many have patches of these words; `patches` of them in all.
        overall: over all labelled images.
        classes: each class's own images.
        changed: images with another prediction, or none.
        emptied: how many have no patch left.
        differing: images whose sums of stored evidence predict another class, with all patches, than the model did:
            the two tie within the rounding. `before` is what the sums predict.
    """

    removed_words: tuple[int, ...]
    model: str
    images: int
    labelled: int
    touched: int
    patches: int
    overall: ClassAccuracy
    classes: tuple[ClassAccuracy, ...]
    changed: tuple[ChangedImage, ...]
    emptied: int
    differing: int

    columns = ("class", "images", "before", "after", "difference", "made_right", "made_wrong", "wrong_otherwise")
    types: ClassVar[Mapping[str, str]] = {
        "class": "text",
        "images": "integer",
        "before": "number",
        "after": "number",
        "difference": "number",
        "made_right": "integer",
        "made_wrong": "integer",
        "wrong_otherwise": "integer",
    }
    changed_columns = ("image_id", "label", "before", "after", "removed", "path")

    @property
    def title(self) -> str:
        """What was asked."""
        listed = ", ".join(map(str, self.removed_words))
        return f"accuracy without {'word' if len(self.removed_words) == 1 else 'words'} {listed} ({self.model})"

    @property
    def words(self) -> str:
        """What becomes of the predictions, in words."""
        said = [f"Patches of these words: {self.patches}, in {self.touched} of {self.images} images."]
        whole = self.overall
        if self.labelled and whole.accuracy_before is not None and whole.accuracy_after is not None:
            said.append(
                f"Without them accuracy is {100 * whole.accuracy_after:.1f} % instead of "
                f"{100 * whole.accuracy_before:.1f} %; made right: {whole.made_right}, made wrong: {whole.made_wrong}, "
                f"wrong in another way: {whole.wrong_otherwise}."
            )
        else:
            said.append("No image has a label, so there is no accuracy.")
        said.append(f"Predictions that change: {len(self.changed)}.")
        if self.emptied:
            said.append(f"Images without a patch left, which have no prediction and count as wrong: {self.emptied}.")
        if self.differing:
            said.append(
                f"Images that tie within the rounding, of which the model predicted the other class: {self.differing}."
            )
        return " ".join(said)

    def table_rows(self) -> list[dict[str, Any]]:
        """A row for each class that has images, and one for all."""
        rows = []
        for each in (*(row for row in self.classes if row.images), self.overall):
            before, after = each.accuracy_before, each.accuracy_after
            rows.append(
                {
                    "class": "all" if each.class_ is None else each.class_.name,
                    "images": each.images,
                    "before": before,
                    "after": after,
                    "difference": None if before is None or after is None else after - before,
                    "made_right": each.made_right,
                    "made_wrong": each.made_wrong,
                    "wrong_otherwise": each.wrong_otherwise,
                }
            )
        return rows

    def changed_rows(self) -> list[dict[str, Any]]:
        """A row for each image whose prediction changes."""
        return [dict(vars(each)) for each in self.changed]

    def to_dicts(self) -> list[dict[str, Any]]:
        """One JSON object."""
        return [self.to_dict()]

    def to_dict(self) -> dict[str, Any]:
        """The account as a JSON object would have it."""
        return {
            "words": list(self.removed_words),
            "model": self.model,
            "images": self.images,
            "labelled": self.labelled,
            "touched": self.touched,
            "patches": self.patches,
            "emptied": self.emptied,
            "differing": self.differing,
            "said": self.words,
            "classes": self.table_rows(),
            "changed": self.changed_rows(),
        }


def without(
    catalog: Catalog, evidence: StoredEvidence, vocabulary: Vocabulary, words: Sequence[int], room: int = _ROOM
) -> Without:
    """Take words' patches out of every image. Reads the stored evidence once, class by class.

    Args:
        catalog, evidence, vocabulary: of the model.
        words: which.
        room: bytes of sums to hold at a time.

    Raises:
        QueryError: there is no such word, or none is given.
    """
    chosen = tuple(dict.fromkeys(vocabulary.check(word) for word in words))
    if not chosen:
        raise QueryError("say which words to take away: `bagindex words` shows them")
    classes = catalog.manifest.plan.classes
    gone = np.isin(vocabulary.of_patches, np.array(chosen))
    removed = gone.sum(axis=1)
    places = range(0, len(removed), max(1, room // (16 * len(classes))))
    step = places.step
    parts = [_predictions(evidence, gone[first : first + step], first, len(classes)) for first in places]
    before = np.concatenate([np.empty(0, np.int64), *(part[0] for part in parts)])
    after = np.concatenate([np.empty(0, np.int64), *(part[1] for part in parts)])
    rows = catalog.rows(
        f"""SELECT path, label, predicted FROM images
        JOIN {catalog.relation(evidence.record, "predictions")} USING (image_id) ORDER BY image_id"""
    )
    if len(rows) != len(evidence.image_ids):
        raise DamagedIndexError(f"{evidence.record.name} has predictions of other images: run `bagindex verify`")
    labels = np.array([-1 if label is None else label for _, label, _ in rows], np.int64)
    recorded = np.array([predicted for _, _, predicted in rows], np.int64)
    return Without(
        removed_words=chosen,
        model=evidence.record.name,
        images=len(rows),
        labelled=int((labels >= 0).sum()),
        touched=int((removed > 0).sum()),
        patches=int(removed.sum()),
        overall=_accuracy(None, labels >= 0, labels, before, after),
        classes=tuple(_accuracy(each, labels == each.class_id, labels, before, after) for each in classes),
        changed=tuple(
            ChangedImage(
                image_id=int(evidence.image_ids[place]),
                path=rows[place][0],
                label=None if labels[place] < 0 else classes[labels[place]].name,
                before=classes[before[place]].name,
                after=None if after[place] < 0 else classes[after[place]].name,
                removed=int(removed[place]),
            )
            for place in np.flatnonzero(before != after).tolist()
        ),
        emptied=int((after < 0).sum()),
        differing=int((before != recorded).sum()),
    )


def _predictions(
    evidence: StoredEvidence, gone: NDArray[np.bool_], first: int, classes: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What some images, from place `first` on, are predicted with all patches and without those that are `gone`, bool
    [n, P]: int64 [n] each, −1 where no patch is left.
    """
    whole, rest = (np.empty((len(gone), classes)) for _ in range(2))
    images, cells = np.nonzero(gone)
    for class_id in range(classes):
        values = sums.exact(evidence.of_class(class_id)[first : first + len(gone)])
        whole[:, class_id] = values.sum(axis=1)
        rest[:, class_id] = whole[:, class_id] - np.bincount(images, values[images, cells], len(gone))
    after = sums.predicted(rest)
    after[gone.all(axis=1)] = -1
    return sums.predicted(whole), after


def _accuracy(
    class_: ClassRecord | None,
    chosen: NDArray[np.bool_],
    labels: NDArray[np.int64],
    before: NDArray[np.int64],
    after: NDArray[np.int64],
) -> ClassAccuracy:
    was, now = before[chosen] == labels[chosen], after[chosen] == labels[chosen]
    other = before[chosen] != after[chosen]
    return ClassAccuracy(
        class_=class_,
        images=int(chosen.sum()),
        before=int(was.sum()),
        after=int(now.sum()),
        made_right=int((now & ~was).sum()),
        made_wrong=int((was & ~now).sum()),
        wrong_otherwise=int((other & ~was & ~now).sum()),
    )
