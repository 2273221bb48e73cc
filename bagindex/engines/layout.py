"""How many workers a cluster has room for, and what each of them takes. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bagindex.compute import GPU_BATCH, GPU_STREAMS, Compute
from bagindex.errors import EngineError
from bagindex.text import bytes_text

_MOST_CPUS = 16
"""Of a worker: so many decode for any GPU."""
_CPUS = 4
"""Of a worker without a GPU, unless the number of workers is said: it keeps them all busy, but at a shard's end."""
_LIBRARIES = 900_000_000
_DECODER = 60_000_000
"""Bytes of a process that decodes."""


@dataclass(frozen=True)
class Node:
    """What a machine of the cluster has: cores, GPUs, and bytes of memory."""

    cpus: float
    gpus: float
    memory: float


@dataclass(frozen=True)
class Layout:
    """So many workers, and what each of them takes."""

    workers: int
    cpus: int
    gpus: float
    memory: int


def lay_out(nodes: Sequence[Node], workers: int | None, gpus: float | None, memory: int) -> Layout:
    """Find room for workers.

    Args:
        nodes: the machines.
        workers: how many are asked for; None: as many as there is room for.
        gpus: what each takes of a GPU; None: one, where there are any.
        memory: bytes that each takes.

    Raises:
        EngineError: there is not so much room, or no GPU.
    """
    most = max((node.gpus for node in nodes), default=0.0)
    gpus = (1.0 if most >= 1 else 0.0) if gpus is None else gpus
    if gpus and most < gpus:
        raise EngineError("Ray knows of no GPU: give --device cpu, or start Ray's nodes with --num-gpus")

    def room(cpus: int) -> int:
        return sum(_slots(node, cpus, gpus, memory) for node in nodes)

    if room(1) < (workers or 1):
        gpu = f", {gpus:g} GPUs" if gpus else ""
        raise EngineError(
            f"Ray has room for {room(1)} workers, each of which takes a core{gpu} and {bytes_text(memory)} of memory: "
            + ("give fewer --workers, or add machines" if room(1) else "use a machine that has that, or --engine local")
        )
    if workers is None:
        widest = int(max(node.cpus for node in nodes))
        workers = room(1) if gpus else max(1, room(max(1, min(_CPUS, widest))))
    cpus = next(cpus for cpus in range(_MOST_CPUS, 0, -1) if room(cpus) >= workers)
    return Layout(workers, cpus, gpus, memory)


def worker_memory(models: Mapping[str, Compute], images: int, on_gpu: bool = False) -> int:
    """Bytes that a worker takes, about: libraries, weights, what is in flight, and a shard's summaries.

    Args:
        models: those at work.
        images: of the largest shard.
        on_gpu: whether they run on a GPU, whose batches are larger.
    """
    total = _LIBRARIES + _CPUS * _DECODER
    for model in models.values():
        classes, patches = len(model.classes), model.grid.patches
        # Twice as many batches as there are threads that run them, and three that each file's writer has waiting.
        batches = 2 * (GPU_STREAMS if on_gpu else _CPUS) + 3
        size = max(model.environment.batch_size, GPU_BATCH if on_gpu else 1)
        evidence = 2 * patches * (model.feature_size + classes) + 16 * classes
        total += 12 * model.parameters + batches * size * evidence + 16 * classes * images
    return total


def _slots(node: Node, cpus: int, gpus: float, memory: int) -> int:
    slots = [node.cpus // cpus, node.memory // memory]
    if gpus:
        slots.append(int(node.gpus / gpus + 1e-6))
    return int(min(slots))
