"""Forward passes and whole builds on a GPU, against what the card and the disk can do.

    python tests/benchmarks/gpu.py FOLDER [--images 2000] [--models bagnet9 bagnet17 bagnet33]

On generated pictures, with random weights of 1,000 classes. For every model and precision: images per second forward
alone and, unless `--images 0`, from files to committed shards with everything kept, the floating-point operations and
bytes per second of the forward pass, and what the card reached on a large matrix product (in the same precision) and on
a large copy in the same run; and images per second of torchvision's ResNet-50 at the same batch size, beside which the
paper puts its BagNets (section 4.1). Prints a table and writes FOLDER/gpu.json; says so and ends well where there is no
GPU.
"""

from __future__ import annotations

import argparse
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from at_size import make_pictures
from common import machine, print_table, write_json

PRECISIONS = ("fp32", "tf32", "bf16")
FORWARD_GOAL = {"fp32": 1200, "bf16": 6000}
BUILD_GOAL = 2000
VAL = 50_000
SECONDS = 3.0


def per_second(work: Callable[[], object], amount: float) -> float:
    """How much per second, of work that does so much each time; its first calls do not count."""
    import torch

    for _ in range(3):
        work()
    torch.cuda.synchronize()
    done, began = 0, time.perf_counter()
    while time.perf_counter() - began < SECONDS:
        for _ in range(4):
            work()
        torch.cuda.synchronize()
        done += 4
    return amount * done / (time.perf_counter() - began)


def product(precision: str) -> float:
    """FLOP/s of a large matrix product."""
    import torch

    size = 8192
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = (torch.randn(size, size, device="cuda").to(dtype) for _ in range(2))
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high" if precision == "tf32" else "highest")
    try:
        return per_second(lambda: a @ b, 2 * size**3)
    finally:
        torch.set_float32_matmul_precision(before)


def copying() -> float:
    """Bytes per second read and written by a large copy on the card."""
    import torch

    source = torch.empty(1 << 30, dtype=torch.uint8, device="cuda")
    target = torch.empty_like(source)
    return per_second(lambda: target.copy_(source), 2 * source.numel())


def disk(folder: Path) -> float:
    """Bytes per second that one file takes, until they are on the disk."""
    block, count = os.urandom(1 << 26), 64
    began = time.perf_counter()
    with (folder / "disk.tmp").open("wb", buffering=0) as file:
        for _ in range(count):
            file.write(block)
        os.fsync(file.fileno())
    taken = time.perf_counter() - began
    (folder / "disk.tmp").unlink()
    return len(block) * count / taken


def work_of(compute: Any) -> tuple[float, float]:
    """FLOP of an image's forward pass, and bytes that its convolutions read and write at least, weights left out."""
    import torch
    from torch import nn
    from torch.utils.flop_counter import FlopCounterMode

    from bagindex.inference import FoldedBagNet, Plain

    model: FoldedBagNet = compute._model
    touched = 0

    def count(_module: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        nonlocal touched
        touched += (args[0].numel() + output.numel()) * output.element_size()

    hooks = [each.register_forward_hook(count) for each in model.modules() if isinstance(each, nn.Conv2d)]
    height, width = compute._seen
    x = torch.zeros(1, 3, height, width, device="cuda", dtype=model.stem.weight.dtype)
    counter = FlopCounterMode(display=False)
    with torch.inference_mode(), counter:
        model(x.contiguous(memory_format=torch.channels_last), Plain)
    for hook in hooks:
        hook.remove()
    return float(counter.get_total_flops()), float(touched)


def forward(compute: Any) -> float:
    """Images per second of the model alone, at a build's batch size."""
    import torch

    from bagindex.arithmetic import float32

    batch, (height, width) = compute.environment.batch_size, compute._seen
    x = torch.randn(batch, 3, height, width, device="cuda").to(compute._model.stem.weight.dtype)
    x = x.contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), float32(compute.environment.precision == "tf32"):
        return per_second(lambda: compute._model(x), batch)


def resnet50(precision: str, batch: int) -> float:
    """Images per second of torchvision's ResNet-50 alone, as it is in evaluation, in a build's precision and layout."""
    import torch
    from torchvision.models import resnet50 as make

    from bagindex.arithmetic import float32

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    model = make().eval().to("cuda", dtype, memory_format=torch.channels_last)
    x = torch.randn(batch, 3, 224, 224, device="cuda").to(dtype).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode(), float32(precision == "tf32"):
        return per_second(lambda: model(x), batch)


def build(source: Path, weights: Path, images: int, precision: str, out: Path) -> float:
    """Images per second from the first file to the last committed shard."""
    from bagindex import Index

    index = Index.build(
        source,
        layout="flat",
        weights=weights,
        classes="imagenet",
        limit=images,
        precision=precision,
        out=out,
        ann="none",
    )
    rate = index.build_report.images_per_second if index.build_report else None
    index.close()
    shutil.rmtree(out)
    return rate or 0.0


def main() -> None:
    """See the module's text."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path, nargs="?", default=Path())
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--models", nargs="+", default=["bagnet9", "bagnet17", "bagnet33"])
    arguments = parser.parse_args()
    import torch

    if not torch.cuda.is_available():
        print("no GPU here: skipped")
        return
    from bagindex.model import BagNet
    from bagindex.observer import BuildObserver
    from bagindex.prepare import ModelOptions, open_models
    from bagindex.registry import ARCHITECTURES

    folder: Path = arguments.folder
    if arguments.images:
        make_pictures(folder / "pictures", arguments.images)
    limits = {f"matrix product, {each}, TFLOP/s": round(product(each) / 1e12, 1) for each in PRECISIONS}
    limits |= {"copy, GB/s": round(copying() / 1e9), "disk, GB/s": round(disk(folder) / 1e9, 2)}
    print(torch.cuda.get_device_name(), limits, flush=True)
    rows = []
    for name in arguments.models:
        weights = folder / f"{name}.pth"
        torch.manual_seed(0)
        torch.save(BagNet(ARCHITECTURES[name], 1000).state_dict(), weights)
        options = ModelOptions(classes="imagenet", device="cuda")
        (base,) = open_models([name], [str(weights)], options, BuildObserver())
        for precision in PRECISIONS:
            compute = base.at(precision)
            flop, touched = work_of(compute)
            alone = forward(compute)
            whole = arguments.images and build(
                folder / "pictures", weights, arguments.images, precision, folder / "index"
            )
            bytes_kept = compute.grid.patches * (compute.feature_size + 1000) * 2
            disk_bound = 0.8 * limits["disk, GB/s"] * 1e9 / bytes_kept
            build_goal = min(BUILD_GOAL, disk_bound) if precision == "bf16" else None
            rows.append(
                {
                    "model": name,
                    "precision": precision,
                    "forward_per_s": round(alone),
                    "forward_goal": FORWARD_GOAL.get(precision),
                    "tflop_per_s": round(alone * flop / 1e12, 1),
                    "of_matrix_product": round(
                        alone * flop / 1e12 / limits[f"matrix product, {precision}, TFLOP/s"], 2
                    ),
                    "gb_per_s": round(alone * touched / 1e9),
                    "of_copy": round(alone * touched / 1e9 / limits["copy, GB/s"], 2),
                    "build_per_s": round(whole) or None,
                    "build_goal": None if build_goal is None else round(build_goal),
                    "val_minutes": round(VAL / whole / 60, 1) if whole else None,
                }
            )
            print(rows[-1], flush=True)
    beside = {each: round(resnet50(each, 64)) for each in PRECISIONS}
    print_table(rows)
    print(f"ResNet-50, batch 64, images/s: {beside}")
    found = {"machine": machine() | {"gpu": torch.cuda.get_device_name()}, "limits": limits, "rows": rows}
    found |= {"resnet50_per_s": beside}
    write_json(folder / "gpu.json", found)


if __name__ == "__main__":
    main()
