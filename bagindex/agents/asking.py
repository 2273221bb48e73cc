"""The indexes that agents ask, and how an answer of `Index` becomes text and pictures."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

from mcp.server.mcpserver import Image
from mcp.server.mcpserver.exceptions import ResourceError

from bagindex import Index, output
from bagindex.errors import BagindexError, QueryError
from bagindex.service.pictures import drawing
from bagindex.service.pools import open_all
from bagindex.service.problems import Texts

_Result = TypeVar("_Result")
Said = list[str | Image]
"""What a tool answers: texts, and pictures."""
_AT_A_TIME = 4
"""Questions that run at a time; each takes an opening of its index, and a process where it is SQL."""


class Pictured(Protocol):
    """A result that shows itself as a picture, as notebooks ask for it."""

    def _repr_png_(self) -> bytes | None: ...


class Asking:
    """The indexes that are asked, by name.

    Args:
        indexes: names, paths or URLs; nothing means what `Index.open` takes.

    Raises:
        BagindexError: an index cannot be opened, or two go by one name.
    """

    def __init__(self, indexes: Sequence[str | Path]) -> None:
        served = open_all(indexes)
        self.pools = served.pools
        self.remarks = served.remarks
        self._texts = Texts({name: pool.path for name, pool in self.pools.items()}, served.places)
        self._turns = threading.BoundedSemaphore(_AT_A_TIME)

    def ask(self, name: str | None, question: Callable[[Index], _Result]) -> _Result:
        """Put a question to an index, in this thread.

        Args:
            name: which index; may be left out where there is one.
            question: what to ask.

        Raises:
            ResourceError: there is no such index, or the question cannot be answered; on one line.
        """
        if name is None and len(self.pools) > 1:
            raise ResourceError(f"say which index: one of {', '.join(self.pools)}")
        pool = next(iter(self.pools.values())) if name is None else self.pools.get(name)
        if pool is None:
            raise ResourceError(f"there is no index {name!r} here: one of {', '.join(self.pools)}")
        try:
            with self._turns:
                return pool.ask(question)
        except BagindexError as error:
            raise ResourceError(" ".join(self._texts.clean(str(error)).split())) from error

    def close(self) -> None:
        """Close the indexes."""
        for pool in self.pools.values():
            pool.close()


def said(title: str, rows: Sequence[Mapping[str, Any]], words: str = "") -> str:
    """An answer as text: what was asked, the rows as JSON, a line each, and what is to be said of them."""
    parts = [title, output.to_json(rows).rstrip(), output.printable(words)]
    return "\n".join(part for part in parts if part)


def shown(result: Pictured, wanted: bool) -> list[str | Image]:
    """A result's picture, or why there is none."""
    if not wanted:
        return []
    try:
        with drawing():
            png = result._repr_png_()
    except QueryError as error:
        return [f"no picture: {error}"]
    return [] if png is None else [Image(data=png, format="png")]
