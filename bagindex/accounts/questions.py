"""What can be asked of an index about decisions: why, what if, and what goes wrong."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from bagindex.errors import DamagedIndexError, QueryError
from bagindex.opened import Opened

if TYPE_CHECKING:
    from bagindex.accounts.confusions import Confusions
    from bagindex.accounts.flip import Flip
    from bagindex.accounts.label_errors import LabelErrors
    from bagindex.accounts.matrix import ConfusionMatrix
    from bagindex.accounts.shortcuts import Shortcuts
    from bagindex.accounts.why import Why
    from bagindex.accounts.without import Without
    from bagindex.maps import ImageLike


class AccountQuestions(Opened):
    """Accounts of decisions: exact sums of stored evidence, since a BagNet's logit is the mean of its patches'.

    They are over the stored (float16) evidence. The model's own float32 logits differ from these sums by the rounding,
    which `why` and `flip` state; where two classes tie within it, a prediction may be another one, which is said.
    """

    def why(
        self,
        image: ImageLike,
        *,
        vs: str | Sequence[str | int] | None = None,
        class_: str | int | None = None,
        k: int = 5,
        overlap: bool = False,
        model: str | None = None,
        device: str = "auto",
    ) -> Why:
        """Which patches and words an image's logit, or the margin between two classes, is the sum of.

        Args:
            image: id or path of an image of the index, or a picture file.
            vs: two classes: the margin of the first over the second; a pair, or a text with a comma between.
            class_: the class whose logit is accounted for; by default the predicted one.
            k: how many patches and words to show on each side.
            overlap: whether the patches that are shown may share pixels.
            model: which model; may be left out where there is one.
            device: where the model runs, when it must: of a file that is not in the index, and where no evidence is
                kept. Such patches have words only where the index has their words stored.

        Raises:
            UnknownClassError: no such class.
            QueryError: there is no such image, both `vs` and `class_`, a `k` out of range, or the index keeps neither
                evidence nor pixels.
        """
        import numpy as np

        from bagindex.accounts.why import why
        from bagindex.explain import two_classes

        if vs is not None and class_ is not None:
            raise QueryError("ask for the margin between two classes or for the logit of one, not for both")
        first = second = None
        if vs is not None:
            first, second = two_classes(self.find_class, vs)
        elif class_ is not None:
            first = self.find_class(class_)
        evidence = self._evidence_of(image, model, device)
        words, count, reason = None, 0, ""
        if evidence.subject.image_id is None:
            reason = "The picture is not in the index, so its patches have no words."
        else:
            try:
                record = self._model(model)
                stored = self._stored_evidence(record)
                vocabulary = self._words_of(record)
                place = int(stored.places(np.array([evidence.subject.image_id]))[0])
                words, count = vocabulary.of_patches[place], vocabulary.count
            except (QueryError, DamagedIndexError) as error:
                reason = f"No words are shown: {error}."
        return why(evidence, first, second, words, count, reason, k=k, overlap=overlap)

    def flip(self, image: ImageLike, *, model: str | None = None, device: str = "auto") -> Flip:
        """The fewest patches whose removal changes an image's prediction; see `bagindex.accounts.flip.fewest`.

        Removed patches are left out of the mean, as if the picture had not had them.

        Args:
            image, model, device: as for `why`.

        Raises:
            QueryError: there is no such image, or the index keeps neither evidence nor pixels.
        """
        from bagindex.accounts.flip import flip

        return flip(self._evidence_of(image, model, device))

    def without(self, words: int | Sequence[int], *, model: str | None = None) -> Without:
        """What accuracy becomes when some words' patches are taken out of every image; no model runs.

        Args:
            words: one or several.
            model: which model; may be left out where there is one.

        Raises:
            QueryError: no such word, there are no words yet, or the index keeps no evidence.
        """
        from bagindex.accounts.without import without

        record = self._model(model)
        chosen = [words] if isinstance(words, int) else words
        return without(self._catalog, self._stored_evidence(record), self._words_of(record), chosen)

    def shortcuts(self, class_: str | int | None = None, *, k: int = 10, model: str | None = None) -> Shortcuts:
        """Words that speak for a class in images of other classes, those that decide most errors first.

        Args:
            class_: the class; by default all.
            k: how many words.
            model: which model; may be left out where there is one.

        Raises:
            UnknownClassError: no such class.
            QueryError: no image has a label, there are no words yet, or the index keeps no evidence.
        """
        from bagindex.accounts.shortcuts import shortcuts

        record = self._model(model)
        found = None if class_ is None else self.find_class(class_)
        evidence, words = self._stored_evidence(record), self._words_of(record)
        return shortcuts(self._catalog, evidence, words, found, k, partial(self._crops_of, record))

    def confusions(self, *, k: int | None = None, model: str | None = None) -> Confusions:
        """What is taken for what, the most frequent first, and the words that decide it.

        Args:
            k: how many pairs of classes; by default all.
            model: which model; may be left out where there is one.

        Raises:
            QueryError: no image has a label, there are no words yet, or the index keeps no evidence.
        """
        from bagindex.accounts.confusions import confusions

        record = self._model(model)
        evidence, words = self._stored_evidence(record), self._words_of(record)
        return confusions(self._catalog, evidence, words, k, partial(self._crops_of, record))

    def label_errors(
        self, class_: str | int | None = None, *, k: int | None = 20, model: str | None = None
    ) -> LabelErrors:
        """Images whose own evidence speaks against their label, those first in which it speaks most strongly. It needs
        no words, and pictures only to be shown.

        Args:
            class_: only images that have this label.
            k: how many images; None: all that the model takes for another class.
            model: which model; may be left out where there is one.

        Raises:
            UnknownClassError: no such class.
            QueryError: no image has a label, or `k` is out of range.
        """
        from bagindex.accounts.label_errors import label_errors

        record = self._model(model)
        found = None if class_ is None else self.find_class(class_)
        evidence = self._stored_evidence(record) if "evidence" in record.keep.tables else None
        return label_errors(self._catalog, record, evidence, found, k, partial(self._crops_of, record), self._pixels)

    def confusion_matrix(
        self, class_: str | int | None = None, *, k: int = 20, model: str | None = None
    ) -> ConfusionMatrix:
        """How often each class is taken for each other: of all classes, or where there are more than `k`, of those of
        the most frequent confusions. It needs neither words nor evidence.

        Args:
            class_: only this class and those that it is confused with most, in either direction.
            k: how many classes at most.
            model: which model; may be left out where there is one.

        Raises:
            UnknownClassError: no such class.
            QueryError: no image has a label, or `k` is out of range.
        """
        from bagindex.accounts.matrix import confusion_matrix

        found = None if class_ is None else self.find_class(class_)
        return confusion_matrix(self._catalog, self._model(model), found, k)
