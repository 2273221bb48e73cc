"""Whatever parses bytes or text of ours, given any: a short part of `tests/faults/fuzz.py`."""

from __future__ import annotations

from pathlib import Path

from hypothesis import strategies as st

from faults import fuzz, fuzz_sql
from faults.fuzz_target import Target, parsing


def test_any_input_is_taken_or_refused(tmp_path: Path) -> None:
    outcome = fuzz.fuzz(tmp_path, 600, 0)
    assert outcome.problems == []
    assert outcome.trials > 500
    assert all(outcome.counts[name] for name in fuzz.TARGETS)
    assert outcome.counts["taken"] > 50
    assert outcome.counts["refused"] > 200


def fragile(_folder: Path, data: bytes) -> None:
    """A parser that takes any text, and no other bytes."""
    data.decode()


def test_an_error_of_another_kind_is_a_problem(tmp_path: Path) -> None:
    found = fuzz.fuzz(tmp_path, 200, 0, {"text": Target(st.binary(), parsing(fragile, KeyError))})
    (problem,) = found.problems
    assert problem.startswith("text, seed 0, 200 examples: b'\\x80': UnicodeDecodeError")


def test_a_gate_that_lets_writing_pass_is_a_problem(tmp_path: Path, monkeypatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr("bagindex.sandbox.gate.check", lambda _sql: None)
    (problem,) = fuzz.fuzz(tmp_path, 200, 0, {"queries": fuzz_sql.TARGETS["queries"]}).problems
    assert "the gate lets pass what is no query" in problem
