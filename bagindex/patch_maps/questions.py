"""What can be asked of maps of patches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from bagindex.opened import Opened

if TYPE_CHECKING:
    from bagindex.patch_maps.result import PatchMap
    from bagindex_schemas.derived import MapRecord


class PatchMapQuestions(Opened):
    """Maps of an opened index's patches."""

    def map_made(self, *, words: bool = False, model: str | None = None) -> MapRecord | None:
        """How a model's map was made; None where there is none of the state that the index is in, or a damaged one.

        Args:
            words: the map of visual words, instead of that of patches.
            model: which model; may be left out where there is one.
        """
        from bagindex import derived
        from bagindex.errors import DamagedIndexError, NotKeptError
        from bagindex.patch_maps.stored import open_map

        record = self._model(model)
        if derived.newest(self._directory, record.name, _kind(words)) is None:
            return None
        try:
            return open_map(self._catalog, self._stored_features(record), _kind(words)).record
        except (NotKeptError, DamagedIndexError):
            return None

    def patch_map(self, class_: str | int | None = None, *, words: bool = False, model: str | None = None) -> PatchMap:
        """A model's map: patches, or visual words, laid out so that those lie together that look alike to it.

        Args:
            class_: the class whose evidence colours it; by default each point has the class that it speaks most for.
            words: the map of visual words, instead of that of patches.
            model: which model; may be left out where there is one.

        Raises:
            UnknownClassError: no such class.
            NotKeptError: no map was made, what it was made of has changed since, or the index keeps no features.
        """
        from bagindex.patch_maps.asking import ask
        from bagindex.patch_maps.stored import open_map

        record = self._model(model)
        asked = None if class_ is None else self.find_class(class_)
        found = open_map(self._catalog, self._stored_features(record), _kind(words))
        vocabulary = self._words_of(record) if words else None
        evidence = self._stored_evidence(record)
        return ask(self._catalog, evidence, found, vocabulary, asked, partial(self._crops_of, record))

    def make_map(
        self,
        *,
        words: bool = False,
        sample: int | None = None,
        seed: int = 0,
        model: str | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> MapRecord:
        """Lay out a model's patches, or its visual words, in two dimensions, in place of the map that there is.

        Args:
            words: of the visual words, instead of patches.
            sample: how many patches, drawn evenly from all; by default 2,000.
            seed: of what is drawn at random.
            model: which model; may be left out where there is one.
            progress: hears how many of how many steps are done.

        Raises:
            QueryError: there are too few patches or words, `sample` is out of range, or the index does not keep
                features.
            SettingsError: openTSNE is not installed.
            LockedError: another process is writing the index.
        """
        from bagindex.patch_maps.making import SAMPLE, make_of_patches, make_of_words

        with self._directory.writing():
            self._reopen()  # images may have come since the index was opened
            record = self._model(model)
            features, directory = self._stored_features(record), self._directory
            if words:
                made = make_of_words(directory, self._catalog, features, self._words_of(record), seed, progress)
            else:
                evidence, count = self._stored_evidence(record), SAMPLE if sample is None else sample
                made = make_of_patches(directory, features, evidence, count, seed, progress)
        self._reopen()
        return made


def _kind(words: bool) -> str:
    from bagindex import derived

    return derived.WORD_MAP if words else derived.MAP
