"""Weights and indexes that somebody made to do harm: `tests/faults/hostile.py`."""

from __future__ import annotations

from pathlib import Path

from faults import crafted_indexes, crafted_weights, hostile
from faults.trusting import guessing, trusting, unpickled


def test_hostile_weights_are_refused(tmp_path: Path) -> None:
    outcome = hostile.weights(tmp_path, len(crafted_weights.CASES), 0)
    assert outcome.problems == []
    assert outcome.trials == outcome.counts["refused"] == len(crafted_weights.CASES)


def test_hostile_indexes_are_refused(tmp_path: Path) -> None:
    """A third of them: all take a minute (`python tests/faults/run.py FOLDER hostile-indexes`)."""
    cases = dict(list(crafted_indexes.CASES.items())[1::3])
    outcome = hostile.indexes(tmp_path, len(cases), 0, cases=cases)
    assert outcome.problems == []
    assert outcome.trials == len(cases)
    assert outcome.counts["not seen"] == sum(case.harmless for case in cases.values()) > 0


def test_what_trusts_is_a_problem(tmp_path: Path) -> None:
    looks = hostile.Looks(unpickled, trusting, guessing)
    bare = {"a bare pickle": crafted_weights.CASES["a bare pickle"]}
    (problem, ran) = hostile.weights(tmp_path, 1, 0, looks, bare).problems
    assert problem.startswith("a bare pickle: returned")
    assert ran.endswith("ran was made or changed")
    gap = {"shards with a gap": crafted_indexes.CASES["shards with a gap"]}
    problems = hostile.indexes(tmp_path, 1, 0, looks, gap).problems
    assert problems == [
        f"shards with a gap: {problem}"
        for problem in ("verify finds nothing", "open is not refused", "something was written into the index")
    ]
