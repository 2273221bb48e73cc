"""Files of an index that are cut short, flipped, exchanged or gone: a short part of `tests/faults/damage.py`."""

from __future__ import annotations

from pathlib import Path

import pytest

from faults import asking, damage, whole
from faults.common import Outcome

KINDS = 23
"""Kinds of file of the small index."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the index is that all of these damage, and put back."""
    return tmp_path_factory.mktemp("damage")


def found_all(outcome: Outcome, trials: int) -> None:
    assert outcome.problems == []
    assert outcome.trials == outcome.counts["found by verify"] == trials
    assert outcome.counts["asked, seen"]


def test_files_that_are_cut_short_are_noticed(folder: Path) -> None:
    found_all(damage.truncations(folder, 2 * KINDS, 0), 2 * KINDS)
    assert len(whole.kinds(folder / "small" / "index")) == KINDS


def test_flipped_bits_are_found_in_every_kind_of_file(folder: Path) -> None:
    outcome = damage.flips(folder, 300, 0)
    found_all(outcome, 300)
    assert min(outcome.counts[kind] for kind in whole.kinds(folder / "small" / "index")) >= 300 // KINDS


def test_files_in_the_place_of_others_are_noticed(folder: Path) -> None:
    found_all(damage.misplaced(folder, 10, 0), 10)


def sizes(root: Path) -> str:
    """Of all files that count."""
    return str({path.name: path.stat().st_size for paths in whole.kinds(root).values() for path in paths})


def blind(root: Path, _data: bool = True) -> list[str]:
    """A `verify` that finds nothing but files that are empty."""
    return [path.name for paths in whole.kinds(root).values() for path in paths if not path.stat().st_size]


def credulous(root: Path) -> asking.Answers:
    """Questions that answer from whatever is there."""
    return {asking.OPENING: ("answer", sizes(root))}


def clumsy(root: Path) -> asking.Answers:
    """Questions that fail in no foreseen way."""
    return {asking.OPENING: ("raised", "KeyError: 3") if blind(root) else ("answer", "")}


def test_what_overlooks_damage_is_a_problem(folder: Path) -> None:
    outcome = damage.flips(folder, 2, 0, damage.Looks(blind, credulous))
    assert [problem.rpartition(": ")[2] for problem in outcome.problems] == ["verify finds nothing"] * 2
    outcome = damage.truncations(folder, 1, 0, damage.Looks(blind, credulous))
    assert [problem.rpartition(": ")[2] for problem in outcome.problems] == ["open has another answer"]
    outcome = damage.truncations(folder, 1, 0, damage.Looks(blind, clumsy))
    assert [problem.partition(": ")[2] for problem in outcome.problems] == ["open raises KeyError: 3"]
