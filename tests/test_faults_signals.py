"""Signals, decoder processes that die and a clock that jumps, in builds: a short part of
`tests/faults/signals.py`, `decoders.py` and `clocks.py`.
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from bagindex.decoders import pool
from faults import clocks, decoders, native, signals
from faults.commands import Ended

linux = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


@linux
def test_a_build_that_is_stopped_at_any_moment(tmp_path: Path) -> None:
    outcome = signals.signals(tmp_path, 3, 0, real=False)
    assert outcome.problems == []
    assert outcome.counts == {
        "SIGINT during comparison of precisions": 1,
        "SIGTERM during first pictures": 1,
        "SIGKILL during commit": 1,
    }


@linux
def test_decoder_processes_that_are_killed_and_pictures_that_crash_them(tmp_path: Path) -> None:
    outcome = decoders.decoders(tmp_path, 2, 0)
    assert outcome.problems == []
    assert outcome.counts == {"killed": 1, "crashing pictures": 1}


@linux
def test_the_clock_is_set_back_and_forward(tmp_path: Path) -> None:
    outcome = clocks.clocks(tmp_path, 1, 0, real=False)
    assert outcome.problems == []
    assert outcome.trials == 1


@linux
def test_a_picture_that_is_not_tried_again_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "_TRIES", 1)
    (problem,) = decoders.decoders(tmp_path, 1, 0).problems
    assert "kills change the result" in problem


def test_an_end_that_is_not_as_it_should_be_is_a_problem() -> None:
    trace = "Traceback (most recent call last):\nKeyboardInterrupt"
    problems = signals._problems(Ended(1, trace, 11.0, [4711]), signal.SIGTERM)
    assert [problem.partition(":")[0] for problem in problems] == [
        "exit status 1",
        "it says",
        "it says too much",
        "it ended after 11.0 s",
        "processes [4711] are left",
    ]
    assert (
        signals._problems(Ended(143, f"bagindex: loading the model\n{signals._STOPPED}\n", 0.3, []), signal.SIGTERM)
        == []
    )
    assert not signals._clear("bagindex: RuntimeError: can't start new thread; this is a bug: please report it")
