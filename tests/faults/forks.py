"""A process that has imported everything and forks a child for each trial: one costs tens of milliseconds, not seconds.

The server has the shim (see native.py) and no thread but its own, since a child has only the thread that forked it.
A child is armed, calls one function, and says what came of it, if it lives to.
"""

from __future__ import annotations

import atexit
import importlib
import os
import pickle
import resource
import select
import signal
import struct
import subprocess
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO, Any, ParamSpec

from faults import native
from faults.native import Arming

LONGEST = 60.0
"""Seconds after which a child is taken to hang."""
_IMPORTED = (
    "bagindex.build",
    "bagindex.grow",
    "bagindex.maps",
    "bagindex.relabel",
    "bagindex.similarity.making",
    "bagindex.similarity.search",
    "bagindex.top_patches",
    "bagindex.verify",
    "bagindex.words.making",
    "bagindex.words.results",
    "bagindex_cli",
    "encodings.utf_8_sig",
    "faiss",
    "faults.steps",
    "pandas",
    "pyarrow.dataset",
    "pyarrow.pandas_compat",
    "torch",
)
_ONE_THREAD = {
    "JE_ARROW_MALLOC_CONF": "background_thread:false",
    "MKL_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
"""Some of these start threads when they are imported, unless they are told not to."""
_Arguments = ParamSpec("_Arguments")


@dataclass(frozen=True)
class Conditions:
    """What a child meets.

    Attributes:
        arming: what goes wrong with its files.
        kill_after: seconds after which it is killed.
        user: the user that it becomes, by number.
        file_size: bytes that no file may grow beyond.
    """

    arming: Arming | None = None
    kill_after: float | None = None
    user: int | None = None
    file_size: int | None = None


@dataclass(frozen=True)
class Failure:
    """What a child raised: the type's name, whether it is a `BagindexError`, its text, and where."""

    kind: str
    public: bool
    message: str
    trace: str


@dataclass(frozen=True)
class Ended:
    """How a child ended.

    Attributes:
        value: what the function returned.
        failure: what it raised.
        signal: what killed it.
        operations: how many of the armed kinds it made, where it was not killed.
    """

    value: Any = None
    failure: Failure | None = None
    signal: int | None = None
    operations: int = 0

    @property
    def killed(self) -> bool:
        """Whether SIGKILL ended it."""
        return self.signal == signal.SIGKILL

    def result(self) -> Any:
        """What the function returned.

        Raises:
            RuntimeError: it did not return.
        """
        if self.signal is not None:
            raise RuntimeError(f"the child was ended by signal {self.signal}")
        if self.failure is not None:
            raise RuntimeError(f"the child failed:\n{self.failure.trace}")
        return self.value


class ForkServer:
    """Runs functions of modules in forked children, one at a time."""

    def __init__(self) -> None:
        tests = str(Path(__file__).resolve().parent.parent)
        self._process = subprocess.Popen(
            [sys.executable, "-c", "from faults import forks; forks.serve()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**native.environment(), **_ONE_THREAD, "PYTHONPATH": tests},
        )

    def run(self, function: Callable[_Arguments, object], *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Any:
        """What a function returns in a child that nothing happens to."""
        return self.under(Conditions(), function, *args, **kwargs).result()

    def under(
        self,
        conditions: Conditions,
        function: Callable[_Arguments, object],
        *args: _Arguments.args,
        **kwargs: _Arguments.kwargs,
    ) -> Ended:
        """Run a function under conditions; it and what goes in and out can be pickled."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        _send(self._process.stdin, (conditions, pickle.dumps((function, args, kwargs))))
        ended = _receive(self._process.stdout)
        assert isinstance(ended, Ended)
        return ended

    def close(self) -> None:
        """End the server."""
        self._process.communicate()


@cache
def server() -> ForkServer:
    """The server of this process, started when it is first asked for."""
    started = ForkServer()
    atexit.register(started.close)
    return started


def _send(stream: IO[bytes], message: object) -> None:
    data = pickle.dumps(message)
    stream.write(struct.pack("=Q", len(data)) + data)
    stream.flush()


def _receive(stream: IO[bytes]) -> object:
    (size,) = struct.unpack("=Q", stream.read(8))
    return pickle.loads(stream.read(size))


def serve() -> None:
    """Be the server: take calls from the standard input until it ends."""
    # What libraries print must not come between.
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(2, 1)
    for name in _IMPORTED:
        importlib.import_module(name)
    _decode_here()
    while requests.peek(1):
        conditions, call = _receive(requests)  # type: ignore[misc, has-type]
        if len(os.listdir("/proc/self/task")) != 1:
            raise RuntimeError("the fork server has a thread: a child would lack it")
        _send(answers, _fork(conditions, call))


def _decode_here() -> None:
    """Decoders are processes, which take long to start, change nothing in an index, and have faults of their own."""
    from bagindex.decoders import pool
    from bagindex.images import read_picture

    pool.decode = lambda data, transform, *_: read_picture(data, transform)


def _fork(conditions: Conditions, call: bytes) -> Ended:
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        _be_child(conditions, call, writing)
    os.close(writing)
    handle = os.pidfd_open(child)
    limit = LONGEST if conditions.kill_after is None else conditions.kill_after
    with os.fdopen(reading, "rb") as answer:
        over = not select.select([handle, reading], [], [], limit)[0]
        if over:
            os.kill(child, signal.SIGKILL)
        data = b"" if over else answer.read()
    os.close(handle)
    _, status = os.waitpid(child, 0)
    if over and conditions.kill_after is None:
        raise RuntimeError(f"a child hung for {LONGEST:g} seconds")
    if os.WIFSIGNALED(status):
        return Ended(signal=os.WTERMSIG(status))
    ended = pickle.loads(data)
    assert isinstance(ended, Ended)
    return ended


def _be_child(conditions: Conditions, call: bytes, answer: int) -> None:
    try:
        if conditions.file_size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (conditions.file_size, conditions.file_size))
        if conditions.user is not None:
            os.setgroups([])
            os.setgid(conditions.user)
            os.setuid(conditions.user)
        ended = _call(conditions.arming, call)
        with os.fdopen(answer, "wb") as file:
            file.write(pickle.dumps(ended))
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(0)


def _call(arming: Arming | None, call: bytes) -> Ended:
    from bagindex.errors import BagindexError

    function, args, kwargs = pickle.loads(call)
    value = failure = None
    if arming is not None:
        native.arm(arming)
    try:
        value = function(*args, **kwargs)
    except Exception as error:
        public = isinstance(error, BagindexError)
        failure = Failure(type(error).__name__, public, str(error), traceback.format_exc())
    operations = native.counted()
    native.arm(Arming(""))
    return Ended(value, failure, None, operations)
