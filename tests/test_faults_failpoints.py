"""A kill at every operation that changes a file."""

from __future__ import annotations

import dataclasses
import os
import re
from pathlib import Path

import pytest

from faults import failpoints, native, sabotage
from faults.native import Kind, Operation
from faults.trials import DISK, Judge, begin, examine, is_temporary, references

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))
STEPS = ("first", "grow", "compact", "neighbours", "words", "relabel", "remove", "restart")


def test_every_state_that_a_kill_leaves(tmp_path: Path, judge: Judge) -> None:
    outcome = failpoints.every_state(tmp_path, 0, 0, STEPS, judge)
    assert outcome.problems == []
    made = [operation for step in STEPS for operation in references()[step].operations if not operation.error]
    assert outcome.trials == len(made) > 1000
    assert len(judge) > 50  # by now, or by another test before
    # So a kill in the middle of a write leaves nothing else.
    written = {operation.path for operation in made if operation.kind in (Kind.WRITE, Kind.TRUNCATE)}
    assert all(is_temporary(path) or Path(path).name == "LOCK" for path in written)


def test_kills_in_earnest(tmp_path: Path, judge: Judge) -> None:
    outcome = failpoints.killed(tmp_path, 12, 3, judge)
    assert outcome.problems == []
    assert outcome.trials == 12


def test_what_is_temporary_is_swept_and_never_trusted(tmp_path: Path) -> None:
    reference = references()["grow"]
    made: dict[str, Operation] = {}
    for each in references().values():
        for operation in each.operations:
            if operation.kind in (Kind.CREATE, Kind.FOLDER) and is_temporary(operation.path):
                made.setdefault(re.sub(r"\d+", "N", operation.path), operation)
    assert len(made) > 20
    life = begin(reference, tmp_path)
    for operation in made.values():
        place = tmp_path / "disk" / Path(operation.path).relative_to(DISK)
        folder = place if operation.kind is Kind.FOLDER else place.parent
        folder.mkdir(parents=True, exist_ok=True)
        if operation.kind is Kind.CREATE:
            place.write_bytes(os.urandom(100))
    assert examine(reference, life) == []


def test_files_that_are_written_in_place_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = sabotage.without_renames(references()["first"])
    half = dataclasses.replace(broken, operations=broken.operations[:50])
    monkeypatch.setattr(failpoints, "references", lambda: {"first": half})
    assert failpoints.every_state(tmp_path, 0, 0, ("first",)).problems
