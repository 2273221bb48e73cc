"""Which shard is computed next, and whose turn it is. Pure: it knows neither processes nor files."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Generic, TypeVar

from bagindex.errors import EngineError
from bagindex.plan import Work

LOSSES = 3
"""So many workers may be lost over a shard; it may be the shard that they are lost for."""
_Made = TypeVar("_Made")


class Schedule(Generic[_Made]):
    """Shards begun in order, by several workers; what comes of them is taken in order, too.

    A *place* is a shard's rank among the work. Once a shard has failed, none after it is begun: what they come to would
    not be taken.

    Args:
        work: what is owed, in order.
        ahead: how many shards may be begun, or done and not taken, at a time.
    """

    def __init__(self, work: Sequence[Work], ahead: int) -> None:
        self._work = work
        self._ahead = ahead
        self._todo = list(range(len(work)))
        heapify(self._todo)
        self._ended: dict[int, _Made | Exception] = {}
        self._failed = len(work)
        self._losses: Counter[int] = Counter()
        self.turn = 0
        """The place whose outcome is to be taken; beyond the last one when all are taken."""

    @property
    def over(self) -> bool:
        """Whether everything is taken."""
        return self.turn == len(self._work)

    def next(self) -> int | None:
        """The place to begin now, if there is one."""
        if not self._todo or self._todo[0] >= min(self._failed, self.turn + self._ahead):
            return None
        return heappop(self._todo)

    def ended(self, place: int, outcome: _Made | Exception) -> None:
        """A shard has been made, or has failed."""
        self._ended[place] = outcome
        if isinstance(outcome, Exception):
            self._failed = min(self._failed, place)

    def lost(self, place: int, why: str) -> None:
        """A worker was lost, and the shard with it: it is begun again, unless that has happened too often."""
        self._losses[place] += 1
        if self._losses[place] < LOSSES:
            heappush(self._todo, place)
            return
        work = self._work[place]
        last = work.span.first + work.span.count - 1
        self.ended(
            place,
            EngineError(
                f"{LOSSES} workers were lost over shard {work.shard} (images {work.span.first} to {last}; {why}): is "
                "there enough memory for them? Give fewer --workers or a smaller --batch-size; what is committed stays"
            ),
        )

    def take(self) -> _Made | Exception | None:
        """The outcome whose turn it is, if it is there."""
        outcome = self._ended.pop(self.turn, None)
        if outcome is not None:
            self.turn += 1
        return outcome

    def rest(self) -> list[_Made]:
        """What was made and not taken."""
        return [outcome for outcome in self._ended.values() if not isinstance(outcome, Exception)]
