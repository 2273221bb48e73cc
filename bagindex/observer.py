"""Who hears of progress. Light, so that a front end can take part before what it listens to is imported."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bagindex.plan import Estimate
    from bagindex_schemas.training import EpochRecord


class BuildObserver:
    """What a front end wants to hear of a build. These methods do nothing; override what is of use."""

    def fetched(self, what: str, done: int, total: int | None) -> None:
        """So many bytes of a model's weights or a data set are there, of so many where the server says."""

    def planned(self, estimate: Estimate, free: int) -> None:
        """What is about to be written, and how many bytes the disk has left."""

    def compared(self, done: int, total: int) -> None:
        """So many of so many images were computed in float32 and in lower precision."""

    def advanced(self, files: int) -> None:
        """So many more files have been dealt with."""

    def related(self, model: str, done: int, total: int) -> None:
        """So many of so many parts of a model's features are in its index for similar patches."""

    def note(self, text: str) -> None:
        """Something that a person should know."""


class TrainingObserver:
    """What a front end wants to hear of a training. These methods do nothing; override what is of use.

    With several devices, the observer is pickled and works in another process.
    """

    def begun(self, epochs: int, steps: int, done: int) -> None:
        """So many epochs of so many steps; the first `done` epochs were trained before."""

    def stepped(self, epoch: int, step: int, loss: float) -> None:
        """A step is done; both numbers start at 1."""

    def epoch(self, record: EpochRecord, best: bool) -> None:
        """An epoch is done and kept; `best`: its weights are the best so far."""

    def note(self, text: str) -> None:
        """Something that a person should know."""


def hundredths(progress: Callable[[int, int], None], begin: int, share: int) -> Callable[[int, int], None]:
    """What hears of one of the parts of a piece of work, and tells of the whole in hundredths: the part is `share` of
    these, from `begin` on.
    """
    return lambda done, total: progress(begin + share * done // max(total, 1), 100)
