"""Three models with 1,000 classes over 8,192 generated pictures: memory, speed, bytes, and the disk check.

    python tests/benchmarks/at_size.py FOLDER [--images 8192] [--size 64] [--width 0.0625]

prints a table and writes FOLDER/at_size.json. Then it adds a second model to an index of one, once from stored pixels
and once from the source. Pictures and indexes are left in FOLDER.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

MODELS = ("bagnet9", "bagnet17", "bagnet33")


def make_pictures(folder: Path, count: int) -> None:
    """Write `count` small JPEGs: smooth random colours with some noise, as photographs have."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(len(list(folder.iterdir())), count):
        rng = np.random.default_rng(number)
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)).resize(
            (120, 90), Image.Resampling.BICUBIC
        )
        noisy = np.asarray(coarse) + rng.normal(0, 8, (90, 120, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / f"{number:05d}.jpg", quality=88)


def make_weights(folder: Path, width: float) -> list[str]:
    """Write a checkpoint of each model with random weights and ImageNet's classes."""
    import torch

    from bagindex.model import BagNet
    from bagindex.registry import ARCHITECTURES

    paths = []
    for name in MODELS:
        torch.manual_seed(0)
        path = folder / f"{name}.pth"
        torch.save(BagNet(ARCHITECTURES[name], 1000, width).state_dict(), path)
        paths.append(str(path))
    return paths


def measure(task: dict[str, object]) -> dict[str, object]:
    """Run one build in a process of its own."""
    started = time.monotonic()
    output = subprocess.run([sys.executable, __file__, "--task", json.dumps(task)], check=True, stdout=subprocess.PIPE)
    found: dict[str, object] = json.loads(output.stdout)
    return {**found, "wall_s": round(time.monotonic() - started, 1)}


def run_task(task: dict[str, object]) -> None:
    """The build itself; prints what was measured."""
    from bagindex import Index
    from bagindex.observer import BuildObserver
    from bagindex.plan import Estimate

    estimates = []

    class Listen(BuildObserver):
        def planned(self, estimate: Estimate, free: int) -> None:
            estimates.append(estimate)

    before = task.pop("bytes_before", 0)
    index = Index.build(observer=Listen(), classes="imagenet", **task)  # type: ignore[arg-type]
    report, size = index.build_report, index.info().bytes
    if report is None:
        raise RuntimeError("a build has a report")
    written = size - int(str(before))
    print(
        json.dumps(
            {
                "images": report.images,
                "images_per_s": round(report.images_per_second or 0, 1),
                "peak_rss_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
                "written_gb": round(written / 1e9, 3),
                "estimated_gb": round(estimates[0].total / 1e9, 3),
                "estimate_off_percent": round(100 * (estimates[0].total / written - 1), 2),
                "shards": index.info().shards,
                "table_bytes": {series: dict(sizes) for series, sizes in report.table_bytes.items()},
            }
        )
    )


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?")
    parser.add_argument("--images", type=int, default=8192)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--width", type=float, default=0.0625)
    parser.add_argument("--task")
    arguments = parser.parse_args()
    if arguments.task:
        return run_task(json.loads(arguments.task))
    folder: Path = arguments.folder
    make_pictures(folder / "pictures", arguments.images)
    weights = make_weights(folder, arguments.width)
    common = {"source": str(folder / "pictures"), "image_size": arguments.size, "precision": "fp32"}
    rows = {}

    def build(name: str, models: list[str], out: str, **options: object) -> None:
        task = {**common, "weights": models, "out": str(folder / out), **options}
        rows[name] = measure(task)
        print(f"{name:34}", {key: value for key, value in rows[name].items() if key != "table_bytes"}, flush=True)

    build("three models, features", weights, "all", restart=True)
    for pixels in (True, False):
        out = "from-pixels" if pixels else "from-source"
        build(f"one model, pixels={pixels}", weights[:1], out, restart=True, pixels=pixels, keep="summary")
        before = sum(path.stat().st_size for path in (folder / out).rglob("*") if path.is_file())
        build(f"second model {out}", weights[1:2], out, pixels=pixels, keep="summary", bytes_before=before)
    (folder / "at_size.json").write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
