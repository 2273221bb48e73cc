"""A worker, from outside: started, asked, killed."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from bagindex.errors import BagindexError, QueryError
from bagindex.processes import frames
from bagindex.processes.child import Child
from bagindex.sandbox.gate import LONGEST, RefusedError
from bagindex.sandbox.state import State

if TYPE_CHECKING:
    import pyarrow as pa

_START_SECONDS = 30.0
_MOST_JSON = 1 << 23


class TimeLimitError(QueryError):
    """A query took longer than it may."""


class LostError(Exception):
    """The worker has ended in the middle of a query."""


class StartError(BagindexError):
    """A worker does not start."""


@dataclass(frozen=True)
class Limits:
    """What a query may take.

    Attributes:
        seconds: from when a worker has it until its answer is here.
        rows, bytes: of the answer; the rest is left out. Bytes are those of its Arrow columns.
        sql: characters of the query.
        memory: bytes of a worker's address space; DuckDB is told to do with half.
    """

    seconds: float = 3.0
    rows: int = 10_000
    bytes: int = 8 * 2**20
    sql: int = LONGEST
    memory: int = 2 * 2**30


@dataclass(frozen=True)
class Answer:
    """What a query gives.

    Attributes:
        table: its rows; columns are named as in `Index.sql`.
        truncated: whether there are more rows, which `Limits` left out.
        milliseconds: how long it took.
    """

    table: pa.Table
    truncated: bool
    milliseconds: float


class Process:
    """A worker that is ready for queries about one state of an index.

    Attributes:
        landlock: the version of Landlock that keeps it from other files; 0 where the system has none.
        start_milliseconds: how long it took until it was ready.
        spent: whether it is to be replaced, for it may be short of memory.
    """

    def __init__(self, state: State, limits: Limits, threads: int) -> None:
        began = time.monotonic()
        self.state = state
        self.spent = False
        self._limits = limits
        self._child = Child("bagindex.sandbox.worker")
        names = state.names
        told: dict[str, Any] = {"root": str(state.root), "catalog": str(state.catalog), "views": dict(state.views)}
        told |= {"tables": list(names.tables), "macros": list(names.macros), "remedies": dict(names.remedies)}
        try:
            frames.send_json(self._child.to, **told, **asdict(limits), threads=threads)
            ready = frames.receive_json(self._child.answers, _MOST_JSON, began + _START_SECONDS)
        except (OSError, EOFError, frames.LateError):
            self.kill()
            raise StartError(
                "the process for safe SQL does not start: the index has just changed (try again), or "
                f"{limits.memory:,} bytes of memory are too few"
            ) from None
        self.landlock = int(ready["landlock"])
        self.start_milliseconds = (time.monotonic() - began) * 1000

    @property
    def lives(self) -> bool:
        """Whether it has not ended; somebody may have killed it."""
        return not self._child.ended

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    def ask(self, request: dict[str, Any]) -> Answer:
        """Run a query.

        Args:
            request: `sql` and `explain`, or `condition` and `model`.

        Raises:
            RefusedError, QueryError: the query is not allowed, or fails.
            TimeLimitError: its time is over; the worker is to be killed.
            LostError: the worker has ended.
        """
        began = time.monotonic()
        deadline = began + self._limits.seconds
        try:
            frames.send_json(self._child.to, **request)
            said = frames.receive_json(self._child.answers, _MOST_JSON, deadline)
            content = None
            if "truncated" in said:
                _, content = frames.receive(self._child.answers, 2 * self._limits.bytes + (1 << 20), deadline)
        except frames.LateError:
            self.spent = True
            raise TimeLimitError(
                f"the query was stopped after {self._limits.seconds:g} s: ask about fewer rows, or about one class "
                "(evidence_of)"
            ) from None
        except (OSError, EOFError):
            self.spent = True
            raise LostError from None
        milliseconds = (time.monotonic() - began) * 1000
        if "plan" in said:
            return Answer(_plan(said["plan"]), False, milliseconds)
        if content is None:
            self.spent = bool(said.get("spent"))
            raise RefusedError(said["refused"]) if "refused" in said else QueryError(str(said.get("error")))
        return Answer(_table(content), bool(said["truncated"]), milliseconds)

    def kill(self) -> None:
        """End it, whatever it does."""
        self._child.kill()


def _plan(lines: list[str]) -> pa.Table:
    import pyarrow as pa

    return pa.table({"plan": pa.array(lines, pa.string())})


def _table(content: bytes) -> pa.Table:
    import pyarrow as pa

    with pa.ipc.open_stream(content) as stream:
        table = stream.read_all()
    table.validate()
    try:
        table.validate(full=True)
    except pa.ArrowInvalid as error:
        raise QueryError(f"a value is beyond what an answer can hold ({error}): CAST it AS VARCHAR") from None
    return table
