"""Who hears of a build's progress. Light, so that a front end can take part before the build is imported."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from bagindex.plan import Estimate


class BuildObserver:
    """What a front end wants to hear of a build. These methods do nothing; override what is of use."""

    def fetched(self, model: str, done: int, total: int | None) -> None:
        """So many bytes of a model's official weights are there, of so many where the server says."""

    def planned(self, estimate: Estimate, free: int) -> None:
        """What is about to be written, and how many bytes the disk has left."""

    def advanced(self, files: int) -> None:
        """So many more files have been dealt with."""

    def note(self, text: str) -> None:
        """Something that a person should know."""
