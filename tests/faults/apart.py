"""A process that calls functions for a fault, and may crash, hang or take all memory without taking others along."""

from __future__ import annotations

import atexit
import os
import pickle
import resource
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, Pipe
from typing import Any, Self

from bagindex.errors import BagindexError

MEMORY = 8_000_000_000
"""Bytes of address space beyond what a process has when it begins; torch and DuckDB reserve more than they use."""
SECONDS = 60.0


@dataclass(frozen=True)
class Came:
    """What came of a call.

    Attributes:
        how: `returned`, `refused` (a `BagindexError`), `raised` (another exception), `died` or `hung`.
        value: what it returned.
        said: the error's text, or the signal's name.
        peak: bytes that the process had in memory at most, meanwhile.
    """

    how: str
    value: Any = None
    said: str = ""
    peak: int = 0


_idle: list[tuple[tuple[int, Sequence[str]], subprocess.Popen[bytes], Connection[Any, Any]]] = []
"""Processes that nobody uses: to start one takes a second."""


@atexit.register
def _end_idle() -> None:
    for _, process, _ in _idle:
        process.kill()


class Apart:
    """Calls functions of modules in a process of its own, which is started anew after one that it did not survive.

    Args:
        memory: bytes of address space that it may take, beside what it has when it begins.
        seconds: how long a call may take.
        modules: those that it has imported when it begins.
    """

    def __init__(self, memory: int = MEMORY, seconds: float = SECONDS, modules: Sequence[str] = ()) -> None:
        self._memory, self._seconds, self._modules = memory, seconds, modules
        self._process: subprocess.Popen[bytes] | None = None
        self._connection: Connection[Any, Any] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._connection is not None:
            _idle.append((self._kind, self._process, self._connection))
        self._process = self._connection = None

    @property
    def _kind(self) -> tuple[int, Sequence[str]]:
        return self._memory, self._modules

    def close(self) -> None:
        """End the process."""
        if self._connection is not None:
            self._connection.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        self._process = self._connection = None

    def call(self, function: Callable[..., Any], *args: object, seconds: float | None = None) -> Came:
        """What comes of `function(*args)`, all of which can be pickled; `seconds` instead of the usual ones."""
        patience = self._seconds if seconds is None else seconds
        process, connection = self._start()
        try:
            connection.send((function, args))
            if not connection.poll(patience):
                self.close()
                return Came("hung", said=f"no answer after {patience:g} s")
            came: Came = connection.recv()
            return came
        except (EOFError, ConnectionError):
            code = process.wait()
            self.close()
            return Came("died", said=signal.Signals(-code).name if code < 0 else f"exit status {code}")

    def _start(self) -> tuple[subprocess.Popen[bytes], Connection[Any, Any]]:
        if self._process is None:
            found = next((each for each in _idle if each[0] == self._kind), None)
            if found is not None:
                _idle.remove(found)
                _, self._process, self._connection = found
        if self._process is None or self._connection is None:
            self._connection, other = Pipe()
            paths = [os.path.abspath(each) for each in sys.path]
            program = (
                f"import sys; sys.path[:] = {paths!r}; from faults import apart; "
                f"{''.join(f'import {module}; ' for module in self._modules)}"
                f"apart.serve({other.fileno()}, {self._memory})"
            )
            self._process = subprocess.Popen(
                [sys.executable, "-c", program],
                pass_fds=[other.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,  # what libraries say when they fail is no output of a test
            )
            other.close()
        return self._process, self._connection


def serve(descriptor: int, memory: int) -> None:
    """What the process does."""
    connection: Connection[Any, Any] = Connection(descriptor)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as file:
            has = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (has + memory, has + memory))
    while True:
        try:
            call = connection.recv_bytes()
        except EOFError:
            return
        try:
            function, args = pickle.loads(call)
            _peak()
            came = Came("returned", function(*args))
        except BagindexError as error:
            came = Came("refused", said=str(error))
        except BaseException as error:
            last = traceback.extract_tb(error.__traceback__)[-1]
            came = Came("raised", said=f"{type(error).__name__}: {error} ({last.filename}, line {last.lineno})")
        connection.send(replace(came, peak=_peak()))


def _peak() -> int:
    """Bytes that this process had in memory at most since this was asked last; 0 where the system does not say."""
    if sys.platform != "linux":
        return 0
    with open("/proc/self/status", encoding="ascii") as file:
        (peak,) = (int(line.split()[1]) * 1024 for line in file if line.startswith("VmHWM:"))
    with open("/proc/self/clear_refs", "w", encoding="ascii") as file:
        file.write("5")
    return peak
