"""What the benchmarks share: the machine's description, timing, a table, and JSON beside it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("bagindex", "duckdb", "faiss-cpu", "faiss-gpu", "numpy", "pyarrow", "torch")

Row = Mapping[str, object]


def machine() -> dict[str, object]:
    """What the figures were measured on: processor, cores, memory, system, versions, and how busy it was."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9, 1),
        "system": f"{platform.system()} {platform.machine()}",
        "load": [round(each, 2) for each in os.getloadavg()],
        "versions": versions,
    }


def repeat(work: Callable[[], object], most: int = 50, seconds: float = 10.0, least: int = 3) -> list[float]:
    """Milliseconds of each of up to `most` calls, of fewer where they take longer than `seconds` together."""
    found: list[float] = []
    began = time.perf_counter()
    while len(found) < least or (len(found) < most and time.perf_counter() - began < seconds):
        started = time.perf_counter()
        work()
        found.append((time.perf_counter() - started) * 1000)
    return found


def row(what: str, milliseconds: Sequence[float], goal: float | None = None) -> Row:
    """A row of times; a goal is met by the median."""
    median = statistics.median(milliseconds)
    return {
        "what": what,
        "median_ms": round(median, 1),
        "min_ms": round(min(milliseconds), 1),
        "max_ms": round(max(milliseconds), 1),
        "n": len(milliseconds),
        "goal_ms": goal,
        "met": None if goal is None else median <= goal,
    }


def print_table(rows: Sequence[Row]) -> None:
    """Print rows with the same columns as plain text; numbers to the right."""
    names = list(rows[0])
    cells = [[_cell(each[name]) for name in names] for each in rows]
    widths = [max(len(line[place]) for line in [names, *cells]) for place in range(len(names))]
    right = [all(isinstance(each[name], int | float | None) for each in rows) for name in names]
    for line in [names, *cells]:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        print("  ".join(padded).rstrip(), flush=True)


def forget(folder: Path) -> None:
    """Ask the system to drop an index's files from its cache, so that they are read from the disk."""
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


class PeakMemory:
    """The most memory taken inside `with`, beside what was taken before and mapped files: `bytes` afterwards."""

    def __init__(self) -> None:
        self.bytes = 0
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch)

    def __enter__(self) -> PeakMemory:
        self._before = _anonymous()
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._watcher.join()

    def _watch(self) -> None:
        while not self._over.wait(0.02):
            self.bytes = max(self.bytes, _anonymous() - self._before)


def _anonymous() -> int:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


def write_json(path: Path, found: Mapping[str, object]) -> None:
    """Write what was measured."""
    path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "NO"
    return "" if value is None else f"{value:,}" if isinstance(value, int | float) else str(value)
