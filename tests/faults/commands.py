"""`bagindex` commands that something happens to at a moment of their own, each a process that ends as a command does.

They are forked from one that has imported everything, so that the seconds are spent on what is tested. Unlike the
children of `forks`, they leave by the interpreter's own end, which waits for threads.
"""

from __future__ import annotations

import copy
import importlib
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from bagindex import demo
from bagindex.compute import Compute
from bagindex_schemas.records import Precision

_IMPORTED = (
    *("bagindex.build", "bagindex.index", "bagindex.similarity.making", "bagindex.verify", "bagindex_cli.screen"),
    *("bagindex_cli", "duckdb", "faiss", "fakes", "pyarrow.parquet", "rich.progress"),
)
_ONE_THREAD = {"JE_ARROW_MALLOC_CONF": "background_thread:false", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
"""Some of these start threads when they are imported, unless they are told not to; a fork has none of them."""
LONGEST = 120.0
"""Seconds after which a command is taken to hang."""
MOMENTS = {
    "comparison of precisions": ("bagindex_cli.screen", "Screen.compared"),
    "first pictures": ("bagindex_cli.screen", "Screen.advanced"),
    "commit": ("bagindex.store", "IndexDirectory.complete"),
    "catalog": ("bagindex.catalog", "update"),
    "FAISS": ("bagindex_cli.screen", "Screen.related"),
}
"""Functions that are called at a known moment."""


@dataclass(frozen=True)
class Fault:
    """What happens to a command.

    Attributes:
        moment: of `MOMENTS`.
        call: at which call of its function.
        number: the signal.
        delay: seconds between the two; at 0, the call goes on when the signal is sent, and not before.
        memory: megabytes that its address space may grow by, from the beginning; nothing else happens then.
    """

    moment: str = ""
    call: int = 1
    number: int = signal.SIGINT
    delay: float = 0.0
    memory: int | None = None


@dataclass(frozen=True)
class Ended:
    """How a command ended.

    Attributes:
        status: its exit status; of a signal, the negative number.
        said: what it printed on stderr.
        seconds: from the signal to its end; None where it ended before.
        children: processes that it had when the signal came, and that were there a second after its end.
    """

    status: int
    said: str
    seconds: float | None
    children: Sequence[int]


class Commands:
    """Runs commands, one after the other, in a folder for what they say.

    With `real` models, or with a linear one in numpy, which is small and has no need of torch.
    """

    def __init__(self, folder: Path, real: bool) -> None:
        self._real = real
        self._said = folder / "said"
        self._sent = folder / "sent"
        tests = str(Path(__file__).resolve().parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-c", f"from faults import commands; commands.serve({real})"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **_ONE_THREAD, "PYTHONPATH": tests, "COLUMNS": "500"},
            text=True,
        )

    def __enter__(self) -> Commands:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def run(self, arguments: Sequence[str], fault: Fault | None = None) -> Ended:
        """Run a command; `fault` happens to it.

        Raises:
            RuntimeError: it hangs.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._sent.unlink(missing_ok=True)
        told = {"arguments": [*arguments], "real": self._real, "said": str(self._said), "sent": str(self._sent)}
        print(json.dumps({**told, "fault": asdict(fault) if fault else None}), file=self._process.stdin, flush=True)
        ended = json.loads(self._process.stdout.readline())
        sent = json.loads(self._sent.read_text()) if self._sent.exists() else {"at": None, "children": []}
        until = ended["at"] + 1.0
        while (alive := [pid for pid in sent["children"] if _runs(pid)]) and time.monotonic() < until:
            time.sleep(0.02)
        seconds = None if sent["at"] is None else ended["at"] - sent["at"]
        return Ended(ended["status"], self._said.read_text(), seconds, alive)


def children(process: int | str = "self") -> list[int]:
    """Processes that a process has started."""
    found = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        with suppress(OSError):
            found += [int(child) for child in task.read_text().split()]
    return found


def _runs(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def serve(real: bool) -> None:
    """Be the process that forks: a line of JSON asks for a command, a line says how it ended."""
    for name in (*_IMPORTED, *(["torch"] if real else [])):
        importlib.import_module(name)
    for line in sys.stdin:
        told = json.loads(line)
        child = os.fork()
        if not child:
            _command(told)
        handle = os.pidfd_open(child)
        # A hang is a result, too: the exit status is then SIGKILL's.
        watch = threading.Timer(LONGEST, os.kill, (child, signal.SIGKILL))
        watch.start()
        _, status = os.waitpid(child, 0)
        at = time.monotonic()
        watch.cancel()
        watch.join()
        os.close(handle)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), "at": at}), flush=True)


def _command(told: dict[str, Any]) -> None:
    """Become the command; leaves this process."""
    null, said = os.open(os.devnull, os.O_RDWR), os.open(told["said"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for descriptor, target in ((null, 0), (null, 1), (said, 2)):
        os.dup2(descriptor, target)
    sys.argv = ["bagindex", *told["arguments"]]
    # Twelve pictures a shard, so that few pictures have several.
    importlib.import_module("bagindex.plan")._SMALL_SHARD = 12  # type: ignore[attr-defined]
    if not told["real"]:
        importlib.import_module("bagindex.prepare").open_models = _linear  # type: ignore[attr-defined]
    if told["fault"]:
        fault = Fault(**told["fault"])
        if fault.memory is not None:
            size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (size + fault.memory * 2**20,) * 2)
        else:
            _arm(fault, Path(told["sent"]))
    from bagindex_cli import main

    main()
    sys.exit()


def _linear(*_: object) -> list[Compute]:
    from fakes import LinearCompute

    class Linear(LinearCompute):
        """One whose bfloat16 is float32."""

        def at(self, precision: Precision) -> Self:
            other = copy.copy(self)
            other.environment = self.environment.model_copy(update={"precision": precision})
            return other

    return [Linear([each.name for each in demo.CLASSES], side=(64, 64), dimensions=16)]


def _arm(fault: Fault, sent: Path) -> None:
    module, name = MOMENTS[fault.moment]
    owner: Any = importlib.import_module(module)
    *path, last = name.split(".")
    for part in path:
        owner = getattr(owner, part)
    real: Callable[..., Any] = getattr(owner, last)
    calls = 0

    def fire() -> None:
        time.sleep(fault.delay)
        sent.write_text(json.dumps({"at": time.monotonic(), "children": children()}))
        os.kill(os.getpid(), fault.number)

    def called(*arguments: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == fault.call:
            sending = threading.Thread(target=fire, daemon=True)
            sending.start()
            if not fault.delay:
                sending.join()
        return real(*arguments, **more)

    setattr(owner, last, called)
