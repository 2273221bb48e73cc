"""`Service`: the opened indexes, the threads that ask them, and what is kept of the answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from bagindex import Index
from bagindex.choosing import Met
from bagindex.errors import BagindexError, OutdatedError
from bagindex.service.metrics import Metrics
from bagindex.service.pictures import Kept
from bagindex.service.pools import About, IndexPool, open_all
from bagindex.service.problems import Problem, Texts
from bagindex.service.settings import Settings
from bagindex.service.strangers import Strangers
from bagindex.service.work import Workers

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bagindex.sandbox.pool import Answer

_Result = TypeVar("_Result")
_PNG_BYTES = 64_000_000
_PIXEL_BYTES = 96_000_000
_CONDITION_BYTES = 16_000_000
_TRIES = 6
"""As often a condition is looked for again, where the index has changed before the question was asked."""


class Service:
    """What all routes share.

    Args:
        indexes: what to serve, by name or path; nothing means what `Index.open` takes.
        settings: how.

    Raises:
        BagindexError: an index cannot be opened, or two go by one name.
    """

    def __init__(self, indexes: Sequence[str | Path], settings: Settings) -> None:
        self.settings = settings
        opened = open_all(indexes)
        self.pools, self.remarks = opened.pools, opened.remarks
        self.texts = Texts({name: pool.path for name, pool in self.pools.items()}, opened.places)
        self.quick = Workers("quick", settings.threads, settings.queue)
        self.slow = Workers("slow", settings.slow_threads, settings.slow_queue)
        self._conditions: Kept[Met] = Kept(_CONDITION_BYTES, lambda met: len(met.bits) + len(met.condition))
        self.pngs: Kept[bytes] = Kept(_PNG_BYTES, len)
        self._pixels: Kept[NDArray[np.uint8]] = Kept(_PIXEL_BYTES, lambda value: int(value.nbytes))
        self.strangers = Strangers(settings)
        # The sandbox has a queue of its own: threads only wait for it, and must not be those of other questions.
        self.waiting = Workers("sql", (settings.sql_workers + settings.sql_queue) * len(self.pools), 0)
        self.metrics = Metrics(
            {
                "bagindex_questions_waiting": ("Questions that run or wait.", lambda: self.quick.taken),
                "bagindex_slow_questions_waiting": ("Figures and computations that run or wait.", self._slow_taken),
                "bagindex_indexes_free": ("Openings of indexes that wait for a question.", self._free),
                "bagindex_sql_pools": ("Indexes whose SQL was asked.", lambda: len(self.strangers)),
                "bagindex_pictures_bytes": ("Bytes of PNG files that are kept.", lambda: self.pngs.bytes),
            }
        )
        self.stopping = False

    def pool(self, name: str | None) -> IndexPool:
        """The index that is meant; without a name, the only one.

        Raises:
            Problem: there is none of that name, or there are several.
        """
        if name is None:
            if len(self.pools) == 1:
                return next(iter(self.pools.values()))
            raise Problem(422, "which-index", f"say which index: index= one of {', '.join(self.pools)}")
        if name not in self.pools:
            raise Problem(404, "unknown-index", f"there is no such index here: one of {', '.join(self.pools)}")
        return self.pools[name]

    async def ask(self, name: str | None, question: Callable[[Index], _Result], *, slow: bool = False) -> _Result:
        """Put a question to an index, in a thread.

        Raises:
            Problem: there is no such index, or too much waits already.
            BagindexError: what the question raises.
        """
        pool = self.pool(name)
        return await (self.slow if slow else self.quick).run(partial(pool.ask, question))

    async def ask_where(
        self,
        name: str | None,
        where: str | None,
        model: str | None,
        question: Callable[[Index, Met | None], _Result],
        *,
        slow: bool = False,
    ) -> _Result:
        """Put a question about the images of which a free SQL condition holds: both are of one state of the index.

        Raises:
            Problem, BagindexError: as `ask` and `condition`.
        """
        for last in (False,) * (_TRIES - 1) + (True,):
            met = await self.condition(name, where, model)
            try:
                return await self.ask(name, lambda opened, met=met: question(opened, met), slow=slow)  # type: ignore[misc]
            except OutdatedError:
                if last:
                    raise
        raise AssertionError("the last of them returns or raises")

    async def about(self, name: str | None) -> tuple[IndexPool, About]:
        """An index, and what the addresses of its pictures depend on."""
        pool = self.pool(name)
        found = pool.about()
        if found is None:
            found = await self.quick.run(partial(pool.ask, lambda _: pool.current_about))
        return pool, found

    def pixels(self, index: Index, image_id: int) -> NDArray[np.uint8]:
        """The model's input, uint8 [height, width, RGB]; of images that were asked for lately from memory."""
        key = index.path, index.version, image_id
        found = self._pixels.get(key)
        if found is None:
            found = index.pixels(image_id)
            self._pixels.put(key, found)
        return found

    async def sql(self, name: str | None, query: str, explain: bool) -> Answer:
        """Run a query in the sandbox; see `bagindex.sandbox.pool.SqlPool.run`.

        Raises:
            Problem: SQL is off, or too much waits already.
            QueryError: it is refused, or fails.
        """
        pool = self.pool(name)
        return await self.waiting.run(partial(self.strangers.run, pool, query, explain))

    async def condition(self, name: str | None, text: str | None, model: str | None) -> Met | None:
        """The images of which a free SQL condition holds; nothing of an empty one.

        Raises:
            Problem: SQL is off, or too much waits already.
            QueryError: it is refused, or fails.
        """
        if text is None or not text.strip():
            return None
        pool, about = await self.about(name)
        whose = about.model(model)
        if whose is None:  # the question itself says which there are
            return Met(text, b"", "")
        key = pool.name, about.stamp, whose, text
        met = self._conditions.get(key)
        if met is None:
            met = await self.waiting.run(partial(self.strangers.images_where, pool, text, whose))
            self._conditions.put(key, met)
        return met

    async def warm(self) -> None:
        """Ask each index what the page asks first, so that libraries and files are open when somebody comes."""
        for name in self.pools:
            # What is wrong with an index, the first who asks it is told.
            with suppress(BagindexError, Problem):
                await self.ask(name, _first_question)

    def ready(self) -> Mapping[str, bool]:
        """Whether each index can be asked."""
        return {name: pool.ready() and not self.stopping for name, pool in self.pools.items()}

    def close(self) -> None:
        """Take on nothing more, and close what is free."""
        self.stopping = True
        self.quick.close()
        self.slow.close()
        self.waiting.close()
        self.strangers.close()
        for pool in self.pools.values():
            pool.close()

    def _slow_taken(self) -> float:
        return self.slow.taken

    def _free(self) -> float:
        return sum(pool.free for pool in self.pools.values())


def _first_question(index: Index) -> None:
    record = index.model_records()[0]
    found = index.top_patches(0, any_class=True, k=1, model=record.name)
    if "evidence" in record.keep.tables:  # else the model would be loaded
        for patch in found:
            index.patch(patch.patch_id, model=record.name)
    if index.keeps_pixels:
        for patch in found:
            index.pixels(patch.image_id)
