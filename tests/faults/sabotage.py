"""Steps without something that makes them safe: a harness that finds nothing wrong with them is worth nothing."""

from __future__ import annotations

import dataclasses
import fcntl
import re
from contextlib import nullcontext
from pathlib import Path

from bagindex import store
from bagindex.pipeline import Pipeline
from bagindex.store import IndexDirectory
from faults.native import Kind, Operation
from faults.steps import STEPS, Life
from faults.trials import Reference


def in_place(step: str, life: Life) -> None:
    """A step that writes shards where they are to be, instead of renaming them when they are whole, and goes on over
    what it left there.
    """

    def begin(self: IndexDirectory, final: Path, token: int) -> Path:
        final.mkdir(parents=True, exist_ok=True)
        return final

    IndexDirectory._begin = begin
    IndexDirectory._commit = lambda *_: None
    Pipeline._check_unchanged = lambda *_: None
    STEPS[step](life)


def raw_errors(step: str, life: Life) -> None:
    """A step that passes on whatever a library raises."""
    store.refusals = lambda _root: nullcontext()  # type: ignore[assignment]
    STEPS[step](life)


def without_lock() -> None:
    """From now on, everybody in this process has the lock."""
    fcntl.flock = lambda _descriptor, _operation: None  # type: ignore[assignment]


def without(reference: Reference, kind: Kind) -> Reference:
    """A step that leaves out all operations of a kind."""
    kept = [operation for operation in reference.operations if operation.kind is not kind]
    return dataclasses.replace(reference, operations=kept)


def without_renames(reference: Reference) -> Reference:
    """A step that writes everything where it is to be."""

    def named(operation: Operation) -> Operation:
        return dataclasses.replace(operation, path=re.sub(r"\.tmp-\d+(?=/|$)", "", operation.path))

    operations = [named(operation) for operation in without(reference, Kind.RENAME).operations]
    return dataclasses.replace(reference, operations=operations)
