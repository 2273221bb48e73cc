"""What can be asked of maps of patches."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from bagindex.opened import Opened

if TYPE_CHECKING:
    from bagindex.atlas.result import PatchMap
    from bagindex_schemas.derived import MapRecord


class AtlasQuestions(Opened):
    """Maps of an opened index's patches."""

    def map_made(self, *, words: bool = False, model: str | None = None) -> MapRecord | None:
        """How a model's map was made; None where there is none of the state that the index is in, or a damaged one.

        Args:
            words: the map of visual words, instead of that of patches.
            model: which model; may be left out where there is one.
        """
        from bagindex import derived
        from bagindex.atlas.stored import open_map
        from bagindex.errors import DamagedIndexError, NotKeptError

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
        from bagindex.atlas.asking import ask
        from bagindex.atlas.stored import open_map

        record = self._model(model)
        asked = None if class_ is None else self.find_class(class_)
        found = open_map(self._catalog, self._stored_features(record), _kind(words))
        vocabulary = self._words_of(record) if words else None
        evidence = self._stored_evidence(record)
        return ask(self._catalog, evidence, found, vocabulary, asked, partial(self._crops_of, record))


def _kind(words: bool) -> str:
    from bagindex import derived

    return derived.WORD_MAP if words else derived.MAP
