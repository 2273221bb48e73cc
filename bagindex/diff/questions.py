"""`Index.diff`: what is different between two models of indexes."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from bagindex.errors import QueryError
from bagindex.opened import Opened

if TYPE_CHECKING:
    from bagindex.diff.result import Diff


class DiffQuestions(Opened):
    """What is different between an opened index and another one."""

    def diff(
        self,
        other: Opened | str | os.PathLike[str] | None = None,
        *,
        model: str | None = None,
        other_model: str | None = None,
        k: int = 20,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Diff:
        """Compare a model of this index with one of another index, or of this one: on the images and classes that both
        have. Images are the same by their files' content, else by their paths; classes by their names.

        Args:
            other: the other index, by name or path, or opened, and open for as long as the answer is drawn; None: this
                one.
            model: of this index; may be left out where there is one.
            other_model: of the other one; likewise, and where that has a model of the same name.
            k: how many of each class's strongest patches are compared, each of another image.
            progress: hears how many of how many classes' evidence is compared.

        Raises:
            IndexNotFoundError: there is no such index.
            UnknownModelError: there is no such model.
            QueryError: there are several and none is named, the two are one, or they have no image in common.
        """
        from bagindex.diff.making import make
        from bagindex.diff.matching import Side
        from bagindex.home import find

        there = self if other is None else other if isinstance(other, Opened) else type(self)(find(other)[0])
        record = self._model(model)
        if other_model is None and other is not None and record.name in there._catalog.models:
            other_model = record.name
        one, two = Side(self, self._catalog, record), Side(there, there._catalog, there._model(other_model))
        if one.index is two.index and one.record.name == two.record.name:
            raise QueryError(f"{one.name} would be compared with itself: name another model, as in {self.name}:MODEL")
        return make(one, two, k, progress)
