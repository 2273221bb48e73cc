"""What a person says of where shards are computed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from bagindex.engines.engine import Engine
from bagindex.engines.local import LocalEngine
from bagindex.errors import SettingsError


class EngineKind(StrEnum):
    """Where shards are computed."""

    LOCAL = "local"
    RAY = "ray"


@dataclass(frozen=True)
class EngineOptions:
    """The options of a build that are about its engine, as for `bagindex.Index.build`.

    Raises:
        SettingsError: they contradict each other.
    """

    kind: EngineKind
    address: str | None
    workers: int | None
    gpus_per_worker: float | None
    asked_device: str

    def __post_init__(self) -> None:
        """Check them."""
        if not self.elsewhere and (self.address is not None or self.gpus_per_worker is not None):
            raise SettingsError("--address and --gpus-per-worker go with --engine ray")
        if not self.elsewhere:
            return
        if self.workers is not None and self.workers < 1:
            raise SettingsError("--workers starts at 1")
        if self.asked_device.startswith("cuda:"):
            raise SettingsError(f"Ray says who has which GPU: give --device cuda, and not {self.asked_device}")
        if self.asked_device == "cpu" and self.gpus_per_worker:
            raise SettingsError("--device cpu needs no GPU: leave out --gpus-per-worker")
        if self.asked_device == "cuda" and self.gpus_per_worker == 0:
            raise SettingsError("--device cuda needs a GPU: leave out --gpus-per-worker 0")

    @property
    def elsewhere(self) -> bool:
        """Whether models run in other processes."""
        return self.kind is EngineKind.RAY

    @property
    def decoders(self) -> int | None:
        """How many threads decode in this process."""
        return None if self.elsewhere else self.workers

    @property
    def device(self) -> str:
        """Where models run."""
        return "cpu" if self.gpus_per_worker == 0 else self.asked_device

    def open(self, note: Callable[[str], None]) -> Engine:
        """The engine; `note` hears what a person should know of it.

        Raises:
            EngineError: it is not installed.
        """
        if not self.elsewhere:
            return LocalEngine()
        from bagindex.engines.ray import RayEngine

        # A worker on a CPU has none, and one that must have a GPU is not started where there are none.
        gpus = {"cpu": 0.0, "cuda": 1.0}.get(self.device) if self.gpus_per_worker is None else self.gpus_per_worker
        return RayEngine(note, self.address, self.workers, gpus)
