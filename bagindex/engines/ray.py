"""Shards computed by Ray: on this machine, or on all machines of a cluster, that see the index and the source.

What a worker is told and what it answers is small; pictures and tables go through the file system.
"""

from __future__ import annotations

import importlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bagindex.engines.actors import Actors
from bagindex.engines.engine import Job, Workers
from bagindex.engines.layout import Layout, Node, lay_out, worker_memory
from bagindex.engines.probe import Probe
from bagindex.errors import EngineError, SettingsError
from bagindex.plan import shard_size
from bagindex.profile import Profile
from bagindex.text import first_line

if TYPE_CHECKING:
    from types import ModuleType

_STORE = 500_000_000
"""Bytes of Ray's store of objects, where Ray is started here: models go through it, and nothing else that is large."""
_REACH_SECONDS = 10.0


@dataclass(frozen=True)
class RayEngine:
    """Ray.

    Attributes:
        note: hears what a person should know.
        address: of a running cluster; None: `RAY_ADDRESS`, else Ray is started on this machine and ended again.
        workers: how many; None: as many as the cluster has memory, and GPUs, for.
        gpus: what each takes of a GPU; None: one, where there are any.

    Raises:
        SettingsError: a number is out of its range.
        EngineError: Ray is not installed.
    """

    note: Callable[[str], None]
    address: str | None = None
    workers: int | None = None
    gpus: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers, and that there is a Ray."""
        if self.gpus is not None and not 0 <= self.gpus <= 1:
            raise SettingsError("--gpus-per-worker is a part of a GPU, from 0 to 1: a worker runs on one")
        _import()

    @contextmanager
    def start(self, job: Job, profile: Profile) -> Iterator[Workers]:
        """See `bagindex.engines.engine.Engine`."""
        ray = _import()
        with _connected(ray, self.address, self.note):
            probe = Probe.of(job.directory, job.source)
            actors = Actors(ray, job, probe, self._layout(ray, job), profile, self.note)
            try:
                actors.open()
                yield actors
            finally:
                actors.close()

    def _layout(self, ray: ModuleType, job: Job) -> Layout:
        nodes = [
            Node(found.get("CPU", 0.0), found.get("GPU", 0.0), found.get("memory", 0.0))
            for found in (node["Resources"] for node in ray.nodes() if node["Alive"])
        ]
        files = len(job.source.entries)
        on_gpu = self.gpus != 0 and any(node.gpus for node in nodes)
        memory = worker_memory(job.models, min(files, shard_size(files)), on_gpu)
        return lay_out(nodes, self.workers, self.gpus, memory)


def _import() -> ModuleType:
    # Otherwise Ray prints to stdout, among a command's results, that a worker has ended.
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")
    try:
        return importlib.import_module("ray")
    except ImportError:
        raise EngineError("--engine ray needs Ray: pip install 'bagindex[ray]'") from None


@contextmanager
def _connected(ray: ModuleType, address: str | None, note: Callable[[str], None]) -> Iterator[None]:
    """Ray, connected, or started on this machine; one that is connected already stays so.

    Raises:
        EngineError: there is none at the address, or it is connected to another.
    """
    if ray.is_initialized():
        here = ray.get_runtime_context().gcs_address
        if address not in (None, "auto", "local", here):
            raise EngineError(f"this process is connected to Ray at {here}: give no --address, or that one")
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    if address not in ("auto", "local"):
        _reach(address)
    started = {"include_dashboard": False, "object_store_memory": _STORE} if address == "local" else {}
    note("starting Ray" if started else f"connecting to Ray at {address}")
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", **started)
    except Exception as error:  # of many kinds
        if not started:
            raise _no_ray(address, error) from error
        raise EngineError(
            f"Ray cannot be started ({first_line(error)}): use --engine local, or see whether `ray start --head` works"
        ) from error
    finally:
        if main:
            signal.signal(signal.SIGTERM, handler)  # which Ray has taken
    try:
        yield
    finally:
        ray.shutdown()


def _reach(address: str) -> None:
    """See whether somebody listens at an address: Ray itself tries for minutes.

    Raises:
        EngineError: nobody does, or it is no HOST:PORT.
    """
    host, _, port = address.rpartition(":")
    try:
        if not host or "/" in host or not port.isdecimal():
            raise ValueError("an address is HOST:PORT")
        socket.create_connection((host.strip("[]"), int(port)), _REACH_SECONDS).close()
    except (OSError, ValueError, OverflowError) as error:
        raise _no_ray(address, error) from None


def _no_ray(address: str, error: Exception) -> EngineError:
    return EngineError(
        f"there is no Ray at {address} ({first_line(error)}): give the --address that `ray start --head` names"
    )
