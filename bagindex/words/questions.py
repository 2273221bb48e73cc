"""What can be asked of visual words."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from bagindex.errors import DamagedIndexError, QueryError
from bagindex.opened import Opened

if TYPE_CHECKING:
    from bagindex.words.one import WordPatches
    from bagindex.words.results import Part, Saying, Word, WordList
    from bagindex.words.vocabulary import Vocabulary
    from bagindex_schemas.records import ClassRecord, ModelRecord

_SAYS = 3


class WordQuestions(Opened):
    """What can be asked of an opened index's visual words."""

    def words_made(self, model: str | None = None) -> int | None:
        """How many visual words were asked for when a model's were made; None where there are none, or damaged ones."""
        from bagindex import derived
        from bagindex_schemas.derived import WordsRecord

        name, catalog = self._model(model).name, self._catalog
        if name in catalog.words:
            with suppress(DamagedIndexError), catalog.reading():
                return derived.read(self._directory.inside(catalog.words[name]), derived.WORDS, WordsRecord).asked
            return None
        found = derived.sound(self._directory, name, derived.WORDS, WordsRecord)
        return None if found is None else found[1].asked

    def words(
        self,
        class_: str | int | None = None,
        *,
        wrong_class: bool = False,
        k: int | None = None,
        model: str | None = None,
    ) -> WordList:
        """The visual words of a model, or those that make a class's logit.

        A class's mean logit over some images is the sum over words of how large a share of their patches the word is,
        times the mean evidence of these.

        Args:
            class_: name, wnid or id of a class; without one, the largest word comes first, and each says for which
                classes its mean evidence is most above that of all patches. With one, the word that contributes most in
                images of the class comes first. Images without a label are neither right nor wrong.
            wrong_class: the word that contributes most in images of other classes comes first.
            k: how many to list; all others are summed up.
            model: which model; may be left out where there is one.

        Raises:
            UnknownClassError: no such class.
            QueryError: no words were made (see `Index.make_words`), images have come since, or `wrong_class` without a
                class.
        """
        from bagindex.words.results import WordList

        if wrong_class and class_ is None:
            raise QueryError("wrong_class is about a class: name one")
        record = self._model(model)
        asked = None if class_ is None else self.find_class(class_)
        vocabulary = self._words_of(record)
        if asked is not None and self.unlabelled:
            raise QueryError(
                "no image of this index has a label, so none is of a right or a wrong class: ask without a class, or "
                "give labels with `bagindex relabel`"
            )
        sides: list[list[Part | None]] = [[None] * vocabulary.count] * 2
        logits: list[float | None] = [None, None]
        if asked is not None:
            sides, logits = self._contributions(record, vocabulary, asked)
        says = self._says(vocabulary)
        words = [
            _word(vocabulary, word, says[word], sides[0][word], sides[1][word]) for word in range(vocabulary.count)
        ]
        question = f"visual words ({record.name})"
        if asked is not None:
            order = sides[1 if wrong_class else 0]
            words.sort(key=lambda word: -part.contribution if (part := order[word.word or 0]) else 0.0)
            most = "images of other classes" if wrong_class else "images of the class"
            question = f"visual words of {asked.name!r}, by what they contribute in {most} ({record.name})"

        found = WordList(
            question, record.name, asked, tuple(words), None, logits[0], logits[1], partial(self._crops_of, record)
        )
        return found if k is None else found.first(k)

    def word(
        self,
        word: int,
        class_: str | int | None = None,
        *,
        k: int = 24,
        offset: int = 0,
        model: str | None = None,
    ) -> WordPatches:
        """A visual word: what it says, in which labels' images it is, and its patches.

        Args:
            word: its number.
            class_: name, wnid or id of the class whose evidence counts; by default the one that the word says most.
            k: how many patches: of each image that has the word, the one with most evidence.
            offset: how many of the strongest to pass over; ranks go on after them.
            model: which model; may be left out where there is one.

        Raises:
            UnknownClassError: no such class.
            QueryError: no such word, no words were made, images have come since, or a number is out of its range.
        """
        from bagindex.words.one import word_patches

        if not (1 <= k < 2**31 and 0 <= offset < 2**62):
            raise QueryError("-k starts at 1 and --offset at 0")
        record = self._model(model)
        vocabulary = self._words_of(record)
        says = self._says(vocabulary)[vocabulary.check(word)]
        asked = self.classes[says[0].class_id] if class_ is None else self.find_class(class_)
        found = _word(vocabulary, word, says)
        evidence = self._stored_evidence(record)
        return word_patches(self._catalog, evidence, vocabulary, found, asked, k, offset, self._crops)

    def _says(self, vocabulary: Vocabulary) -> list[tuple[Saying, ...]]:
        """The classes for which each word's mean evidence is most above the mean of all patches."""
        import numpy as np

        from bagindex.words.results import Saying

        whole = vocabulary.means @ vocabulary.patches / vocabulary.patches.sum()
        relative = vocabulary.means - whole[:, None]
        best = np.argsort(-relative, axis=0, kind="stable")[:_SAYS].T
        return [
            tuple(Saying(self.classes[each].name, int(each), float(relative[each, word])) for each in classes)
            for word, classes in enumerate(best)
        ]

    def _contributions(
        self, record: ModelRecord, vocabulary: Vocabulary, asked: ClassRecord
    ) -> tuple[list[list[Part | None]], list[float | None]]:
        """Each word's part in right images and in wrong ones, and these images' mean logits."""
        import numpy as np

        from bagindex.accounts.sums import exact, word_sums
        from bagindex.words.results import Part

        rows = self._catalog.rows("SELECT label = ? AS correct FROM images ORDER BY image_id", [asked.class_id])
        correct = np.array([-1 if each is None else int(each) for (each,) in rows])
        values = self._stored_evidence(record).of_class(asked.class_id)
        sides: list[list[Part | None]] = []
        logits: list[float | None] = []
        for wanted in (1, 0):
            images = correct == wanted
            words = vocabulary.of_patches[images].reshape(-1)
            if not len(words):
                sides.append([None] * vocabulary.count)
                logits.append(None)
                continue
            sums = word_sums(exact(values[images]), words, vocabulary.count)
            counts = np.bincount(words, minlength=vocabulary.count)
            logits.append(float(sums.sum() / len(words)))
            sides.append(
                [
                    Part(
                        int(count), float(count / len(words)), float(each / count) if count else None, each / len(words)
                    )
                    for count, each in zip(counts.tolist(), sums.tolist(), strict=True)
                ]
            )
        return sides, logits


def _word(
    vocabulary: Vocabulary, word: int, says: tuple[Saying, ...], right: Part | None = None, wrong: Part | None = None
) -> Word:
    from bagindex.words.results import Word

    return Word(
        word=word,
        patches=int(vocabulary.patches[word]),
        images=int(vocabulary.images[word]),
        similarity=float(vocabulary.similarity[word]),
        typical=vocabulary.typical[word],
        says=says,
        right=right,
        wrong=wrong,
    )
