"""A fault's trials shared among processes: `run.py --jobs N` gives each of them its share by the environment."""

from __future__ import annotations

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

Point = TypeVar("Point")

VARIABLE = "BAGINDEX_FAULTS_SHARE"

How = Literal["trials", "points", "once"]
"""What a share of a fault is: so many of its trials with a seed of their own, every n-th of its places (see `drawn`),
or all of it, in one of the processes."""


@dataclass(frozen=True)
class Share:
    """The `index`-th of `of` shares.

    Raises:
        ValueError: there is no such share.
    """

    index: int = 0
    of: int = 1

    def __post_init__(self) -> None:
        """Check the numbers."""
        if not 0 <= self.index < self.of:
            raise ValueError(f"no share {self}")

    def __str__(self) -> str:
        return f"{self.index}/{self.of}"

    @classmethod
    def here(cls) -> Share:
        """This process's."""
        index, _, of = os.environ.get(VARIABLE, "0/1").partition("/")
        return cls(int(index), int(of))

    def trials(self, how: How, number: int, trials: int, seed: int) -> tuple[int, int] | None:
        """The trials and the seed of the `number`-th fault in this share; None: nothing of it."""
        if how == "once":
            return (trials, seed) if number % self.of == self.index else None
        if how == "points" or self.of == 1:
            return trials, seed
        mine = len(range(self.index, trials, self.of))
        return (mine, seed * 1000 + self.index) if mine else None


def drawn(points: Sequence[Point], trials: int, seed: int) -> Sequence[Point]:
    """All points, or `trials` drawn from them; of these, this process's share."""
    chosen = points if trials >= len(points) else random.Random(seed).sample(points, trials)
    share = Share.here()
    return chosen[share.index :: share.of]
