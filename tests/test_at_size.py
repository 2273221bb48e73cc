"""Thousands of pictures and a thousand classes: full shards, spilled and transposed in bounded memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import json, sys
from pathlib import Path
sys.path.insert(0, sys.argv[2])
import numpy as np
from fakes import LinearCompute, MemorySource
from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.store import IndexDirectory
count = int(sys.argv[3])
classes = [f"class {i}" for i in range(1000)]
compute = LinearCompute(classes, side=(32, 32), dimensions=4, batch_size=64)
source = MemorySource([classes[i % 1000] for i in range(count)])
build(IndexDirectory(Path(sys.argv[1])), source, {c: i for i, c in enumerate(classes)}, compute, BuildSettings())
# Not ru_maxrss, which begins with the memory of the process that this one was forked from.
status = Path("/proc/self/status").read_text()
peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1])
with Index.open(sys.argv[1]) as index:
    rows = index.sql("SELECT count(*) AS n, count(DISTINCT patch_id) AS p FROM evidence WHERE class_id = 7").to_dicts()
    top = [p.patch_id for p in index.top_patches("class 7", any_class=True, k=3)]
    sql = index.sql("SELECT patch_id FROM evidence WHERE class_id = 7 ORDER BY logit DESC, patch_id LIMIT 40")
    print(json.dumps({"peak_mb": peak / 1000, "rows": rows, "top": top, "sql": [r["patch_id"] for r in sql],
                      "shards": [s.count for s in IndexDirectory(Path(sys.argv[1])).manifest().shards]}))
"""


@pytest.mark.parametrize(("count", "shards"), [(1024, [128] * 8), (8192, [4096, 4096])])
def test_memory_does_not_grow_with_the_images(tmp_path: Path, count: int, shards: list[int]) -> None:
    helpers = str(Path(__file__).parent)
    command = [sys.executable, "-c", SCRIPT, str(tmp_path / "i"), helpers, str(count)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["shards"] == shards
    assert found["rows"] == [{"n": 16 * count, "p": 16 * count}]
    images = [patch // 16 for patch in found["sql"]]
    assert found["top"] == [p for i, p in enumerate(found["sql"]) if images.index(images[i]) == i][:3]
    # A full shard's logits, 131 MB here, are on the disk; its summaries and one class at a time are in memory.
    assert found["peak_mb"] < 1200
