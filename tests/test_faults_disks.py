"""Disks that are full, fail or may not be written to."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from faults import disks, native, sabotage
from faults.forks import Conditions, Ended, server
from faults.native import Arming, Fault, Kind
from faults.real import run
from faults.steps import LABELS, Life
from faults.trials import Judge, attempt, begin, references, survived

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


def test_a_failing_disk(tmp_path: Path, judge: Judge) -> None:
    outcome = disks.failing(tmp_path, 20, 1, judge)
    assert outcome.problems == []
    assert outcome.trials == 20
    assert {"SpaceError", "DiskError"} <= outcome.counts.keys()


def test_the_last_write_of_a_catalog_fails(tmp_path: Path) -> None:
    # DuckDB would try again when it closes the file, and say nothing of it.
    reference = references()["restore"]
    life = begin(reference, tmp_path)
    writes = [each for each in reference.operations if each.kind is Kind.WRITE]
    last = max(number for number, each in enumerate(writes, start=1) if ".duckdb.tmp-" in each.path)
    arming = Arming(str(life.folder.parent), Fault.FAIL, last, Kind.WRITE, errno.ENOSPC)
    ended = attempt("restore", life, Conditions(arming))
    assert ended.failure is not None
    assert ended.failure.kind == "SpaceError"
    attempt("restore", life, Conditions()).result()
    assert survived(reference, life) == []


def test_writes_by_half_limits_and_a_read_only_folder(tmp_path: Path) -> None:
    assert disks.short(tmp_path, 6, 0).problems == []
    outcome = disks.limits(tmp_path, 0, 0, ("relabel",))
    assert outcome.problems == []
    assert outcome.counts["read-only, SettingsError"] == 1
    assert outcome.counts["file size, SpaceError"] == 3


def test_the_command_says_what_to_do(tmp_path: Path) -> None:
    life = begin(references()["relabel"], tmp_path)
    arming = Arming(str(life.folder.parent), Fault.FAIL, 5, Kind.WRITE, errno.ENOSPC, for_good=True)
    command = ["relabel", "--labels", str(LABELS), "-i", str(life.folder)]
    status, said = server().under(Conditions(arming), run, command).result()
    assert (status, said.count("\n")) == (1, 1)
    assert said.startswith(
        f"bagindex: {life.folder} cannot be written any further (No space left on device): make room"
    )
    assert server().run(run, command) == (0, "")


def test_errors_that_are_passed_on_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(step: str, life: Life, conditions: Conditions) -> Ended:
        return server().under(conditions, sabotage.raw_errors, step, life)

    monkeypatch.setattr(disks, "attempt", careless)
    assert any("no error for people" in problem for problem in disks.failing(tmp_path, 3, 1).problems)
