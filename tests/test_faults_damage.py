"""Files of an index that are cut short, flipped, exchanged or gone: a short part of `tests/faults/damage.py`."""

from __future__ import annotations

from pathlib import Path

from faults import damage, whole
from faults.common import Outcome
from faults.trusting import blind, clumsy, credulous

KINDS = 23
"""Kinds of file of the small index."""


def found_all(outcome: Outcome, trials: int) -> None:
    assert outcome.problems == []
    assert outcome.trials == outcome.counts["found by verify"] == trials
    assert outcome.counts["asked, seen"]


def test_files_that_are_cut_short_are_noticed(damage_folder: Path) -> None:
    found_all(damage.truncations(damage_folder, 2 * KINDS, 0), 2 * KINDS)
    assert len(whole.kinds(damage_folder / "small" / "index")) == KINDS


def test_flipped_bits_are_found_in_every_kind_of_file(damage_folder: Path) -> None:
    outcome = damage.flips(damage_folder, 300, 0)
    found_all(outcome, 300)
    assert min(outcome.counts[kind] for kind in whole.kinds(damage_folder / "small" / "index")) >= 300 // KINDS


def test_files_in_the_place_of_others_are_noticed(damage_folder: Path) -> None:
    found_all(damage.misplaced(damage_folder, 6, 0), 6)


def test_what_overlooks_damage_is_a_problem(damage_folder: Path) -> None:
    outcome = damage.flips(damage_folder, 2, 0, damage.Looks(blind, credulous))
    assert [problem.rpartition(": ")[2] for problem in outcome.problems] == ["verify finds nothing"] * 2
    outcome = damage.truncations(damage_folder, 1, 0, damage.Looks(blind, credulous))
    assert [problem.rpartition(": ")[2] for problem in outcome.problems] == ["open has another answer"]
    outcome = damage.truncations(damage_folder, 1, 0, damage.Looks(blind, clumsy))
    assert [problem.partition(": ")[2] for problem in outcome.problems] == ["open raises KeyError: 3"]
