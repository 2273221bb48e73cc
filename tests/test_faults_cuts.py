"""Power cuts: what was not brought to the disk is lost."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import cuts, native, sabotage
from faults.native import Kind
from faults.trials import Judge, references

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


def test_what_survives_is_sound(tmp_path: Path, judge: Judge) -> None:
    outcome = cuts.cuts(tmp_path, 50, 2, judge)
    assert outcome.problems == []
    assert outcome.trials == 50 + len(cuts.LEFT) * len(references())


def test_what_a_killed_writer_did_not_synchronise_survives_the_end_of_the_next(tmp_path: Path) -> None:
    outcome = cuts.after_kills(tmp_path, 10, 0)
    assert outcome.problems == []
    assert outcome.trials == 10


def test_a_build_that_synchronises_nothing_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    broken = {step: sabotage.without(references()[step], Kind.SYNC) for step in ("first", "fill")}
    monkeypatch.setattr(cuts, "references", lambda: broken)
    outcome = cuts.cuts(tmp_path, 1, 0)
    assert any("done, least: it is made, and it says IndexNotFoundError" in problem for problem in outcome.problems)
    assert any("fill done" in problem for problem in outcome.problems)
