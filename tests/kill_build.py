"""A build to be killed: `python kill_build.py FOLDER`. It says `writing` when it begins to write."""

from __future__ import annotations

import sys
from pathlib import Path

from bagindex.build import BuildSettings, build
from bagindex.observer import BuildObserver
from bagindex.plan import Estimate
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource

LABELS = [("a", "b", None)[i % 3] for i in range(240)]
CLASS_IDS = {"a": 0, "b": 1}


class Say(BuildObserver):
    """Tell the killer when the time has come."""

    def planned(self, estimate: Estimate, free: int) -> None:
        """Called just before the first write."""
        print("writing", flush=True)


def whole(folder: Path) -> None:
    """Build, or go on with the build."""
    source = MemorySource(LABELS, frozenset(range(0, 240, 17)))
    build(
        IndexDirectory(folder),
        source,
        CLASS_IDS,
        LinearCompute("ab", side=(32, 32), dimensions=16),
        BuildSettings(shard_size=30, workers=2),
        Say(),
    )


if __name__ == "__main__":
    whole(Path(sys.argv[1]))
