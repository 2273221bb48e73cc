"""Kill the build at random points; what comes of going on is what an uninterrupted build gives."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import kill_build
from bagindex import Index
from test_build import contents

KILLS = 30


def start(folder: Path) -> subprocess.Popen[str]:
    """Start a build, and wait until it is about to write."""
    script = Path(kill_build.__file__)
    process = subprocess.Popen([sys.executable, str(script), str(folder)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    process.stdout.readline()
    return process


def shards(folder: Path) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in folder.glob("*/shard-?????")}


def test_kill_and_go_on(tmp_path: Path) -> None:
    started = time.monotonic()
    with start(tmp_path / "whole") as process:
        process.communicate()
    duration = time.monotonic() - started
    expected = contents(tmp_path / "whole")
    rng = random.Random(7)
    folder, killed, finished = tmp_path / "0", 0, 0
    while killed < KILLS:
        before = contents(folder) if folder.exists() else {}
        with start(folder) as process:
            time.sleep(rng.uniform(0, duration / 6))
            process.kill()
            process.communicate()
        killed += process.returncode != 0
        kept = {name: value for name, value in before.items() if "/shard-" in name and ".tmp-" not in name}
        after = contents(folder)
        # No committed shard is lost or changed, and each is already what it will be.
        assert kept.items() <= after.items()
        assert all(expected[name] == value for name, value in after.items() if ".tmp-" not in name)
        if process.returncode == 0 or shards(folder) == shards(tmp_path / "whole"):
            kill_build.whole(folder)
            assert contents(folder) == expected
            with Index.open(folder) as index:
                assert index.verify().ok
            finished += 1
            folder = tmp_path / str(finished)
    kill_build.whole(folder)
    assert contents(folder) == expected
    assert not list(folder.rglob("*.tmp-*"))
