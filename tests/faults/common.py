"""What the faults share: what one of them did, as a row of the table, and the seeds that say it again."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Outcome:
    """What came of a fault.

    Attributes:
        fault: what was done.
        trials: how often.
        counts: what came of it, by kind ("resumed", "refused", …).
        problems: what should not have happened, each with what is needed to make it happen again.
        seconds: how long it took.
    """

    fault: str
    trials: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)
    seconds: float = 0.0
    _began: float = field(default_factory=time.monotonic, repr=False)

    def trial(self, came: str, *problems: str) -> None:
        """One trial is done: what came of it, and what should not have."""
        self.trials += 1
        self.counts[came] += 1
        self.problems += problems

    def done(self) -> Outcome:
        """The outcome, with the time that it took."""
        self.seconds = time.monotonic() - self._began
        return self

    def to_dict(self) -> dict[str, object]:
        """For the table and for JSON."""
        counts = ", ".join(f"{count:,} {what}" for what, count in sorted(self.counts.items()))
        return {
            "fault": self.fault,
            "trials": self.trials,
            "came of it": counts,
            "problems": len(self.problems),
            "seconds": round(self.seconds, 1),
        }
