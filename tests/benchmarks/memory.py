"""Peak memory of builds: more images must not take more.

    python tests/benchmarks/memory.py FOLDER [--images 1000 5000 10000] [--classes 10 1000]

builds indexes of generated pictures with a BagNet-33 of full width (random weights, inputs of 64 × 64 pixels), each in
a process of its own, prints a table and writes FOLDER/memory.json. Pictures are left in FOLDER; indexes are removed.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import subprocess
import sys
from pathlib import Path

from at_size import make_pictures
from common import machine, print_table, write_json

MODEL = "bagnet33"
SIZE = 64


def make_weights(path: Path, classes: int) -> None:
    """A checkpoint with random weights, and a list of as many classes beside it."""
    import torch

    from bagindex.model import BagNet
    from bagindex.registry import ARCHITECTURES

    torch.manual_seed(0)
    torch.save(BagNet(ARCHITECTURES[MODEL], classes).state_dict(), path)
    path.with_suffix(".txt").write_text("\n".join(f"class {number}" for number in range(classes)))


def run(task: dict[str, str]) -> dict[str, object]:
    """Build, and say what it took."""
    from bagindex import Index

    weights = Path(task["weights"])
    index = Index.build(
        task["source"],
        layout="flat",
        weights=weights,
        classes=str(weights.with_suffix(".txt")),
        image_size=SIZE,
        limit=int(task["images"]),
        precision=task["precision"],
        out=task["out"],
        restart=True,
    )
    if index.build_report is None:
        raise RuntimeError("nothing was built")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "shards": index.info().shards,
        "images_per_s": round(index.build_report.images_per_second or 0, 1),
        "written_mb": round(index.info().bytes / 1e6),
        "peak_rss_mb": round(peak / 1e3 if sys.platform == "linux" else peak / 1e6),
    }


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    parser.add_argument("--images", type=int, nargs="+", default=[1000, 5000, 10_000])
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 1000])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--task", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.task:
        print(json.dumps(run(json.loads(arguments.task))))
        return
    folder: Path = arguments.folder
    make_pictures(folder / "pictures", max(arguments.images))
    started, rows = machine(), []
    for classes in arguments.classes:
        weights = folder / f"random-{classes}.pth"
        make_weights(weights, classes)
        for images in arguments.images:
            task = {"source": folder / "pictures", "weights": weights, "images": images, "out": folder / "index"}
            text = json.dumps({key: str(value) for key, value in task.items()} | {"precision": arguments.precision})
            output = subprocess.run([sys.executable, __file__, "--task", text], check=True, stdout=subprocess.PIPE)
            rows.append({"classes": classes, "images": images, **json.loads(output.stdout.splitlines()[-1])})
            shutil.rmtree(folder / "index")
            print(rows[-1], file=sys.stderr, flush=True)
    print_table(rows)
    write_json(folder / "memory.json", {"machine": started, "rows": rows})


if __name__ == "__main__":
    main()
