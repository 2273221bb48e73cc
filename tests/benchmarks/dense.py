"""Seconds for a dense heatmap (the paper's Figure 2): one pass without strides, and patch by patch.

    python tests/benchmarks/dense.py [--weights FILE] [--size 224] [--patches 512] [--classes 10] [--json FILE]

Patch by patch, `--patches` patches are run and the time is multiplied up to one for every pixel. Without weights, a
BagNet-33 of full width with random ones.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path

import numpy as np
import torch

from bagindex.dense import dense_evidence
from bagindex.inference import FoldedBagNet
from bagindex.model import BagNet
from bagindex.registry import ARCHITECTURES
from bagindex.weights import read_checkpoint
from bagindex_schemas.records import Transform


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--patches", type=int, default=512)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    if options.weights:
        model = read_checkpoint(options.weights).build()
    else:
        torch.manual_seed(0)
        model = BagNet(ARCHITECTURES["bagnet33"], options.classes).eval()
    side = options.size
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    transform = Transform(resize=side, crop_height=side, crop_width=side)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    seconds = {}
    for classes in sorted({1, min(options.classes, model.fc.out_features)}):
        started = time.perf_counter()
        dense_evidence(model, transform, pixels, range(classes))
        seconds[f"dense, {classes} classes"] = time.perf_counter() - started
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    q = model.architecture.receptive_field
    folded = FoldedBagNet(model).to(memory_format=torch.channels_last)
    patches = torch.randn(options.patches, 3, q, q).contiguous(memory_format=torch.channels_last)
    best = float("inf")
    with torch.inference_mode():
        for batch in (16, 64, 256):
            folded(patches[:batch])
            started = time.perf_counter()
            for part in patches.split(batch):
                model.fc(folded(part))
            best = min(best, time.perf_counter() - started)
    seconds["patch by patch, multiplied up"] = best / options.patches * side * side
    found = {
        "threads": torch.get_num_threads(),
        "size": side,
        "seconds": seconds,
        "patches_measured": options.patches,
        "dense_extra_memory_MB": memory / 1000,
    }
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
