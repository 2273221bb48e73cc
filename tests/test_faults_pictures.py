"""Hostile pictures and archives, through the processes that decode: a short part of `tests/faults/pictures.py` and
`tests/faults/archives.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bagindex.decoders import pool
from bagindex.geometry import Cut
from bagindex.images import Picture, Rejected, read_picture
from bagindex.sources import archives as tars
from bagindex.sources.archives import Member
from bagindex_schemas.rejects import RejectCode
from faults import archives, pictures

pytestmark = pytest.mark.filterwarnings(r"ignore:::PIL\.")


def test_each_kind_of_bad_input_is_rejected_for_what_it_is(tmp_path: Path) -> None:
    outcome = pictures.kinds(tmp_path, 1, 0)
    assert outcome.problems == []
    assert outcome.trials == 11
    assert len(outcome.counts) == 7


def test_a_jpeg_cut_short_at_any_byte(tmp_path: Path) -> None:
    outcome = pictures.truncations(tmp_path, 300, 0)
    assert outcome.problems == []
    assert outcome.trials == 300
    assert outcome.counts["truncated"] > 250


def test_flipped_bits(tmp_path: Path) -> None:
    outcome = pictures.flips(tmp_path, 300, 0)
    assert outcome.problems == []
    assert outcome.trials == 300
    assert min(outcome.counts[kind] for kind in ("decoded", "damaged", "truncated", "not_an_image")) > 5


def test_hostile_members_of_archives(tmp_path: Path) -> None:
    outcome = archives.members(tmp_path, 1, 0)
    assert outcome.problems == []
    assert outcome.trials == 28
    assert outcome.counts["read, some rejected"] == 18


def test_damaged_archives_and_bombs(tmp_path: Path) -> None:
    outcome = archives.archives(tmp_path, 60, 0)
    assert outcome.problems == []
    assert outcome.trials == 60
    assert min(outcome.counts[came] for came in ("read", "read, some rejected", "refused")) > 0


def test_decoders_that_do_otherwise_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lenient(data: bytes, transform: Cut, seconds: float, most: int = 0) -> Picture:
        """Takes what is cut short, and says nothing of the rest."""
        try:
            return read_picture(data + bytes(20_000), transform)
        except Rejected:
            raise Rejected(RejectCode.DAMAGED, "") from None

    monkeypatch.setattr(pool, "decode", lenient)
    problems = " ".join(pictures.truncations(tmp_path, 50, 0).problems)
    assert "rejected without a message" in problems
    assert "is taken as whole" in problems
    assert "damaged, not too_small" in " ".join(pictures.kinds(tmp_path, 1, 0).problems)


def test_archives_that_are_trusted_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def trusting(header: Any, size: int) -> Member | None:
        """Takes every member for a file."""
        return Member(header.name.encode("utf-8", "replace"), header.offset_data, header.size)

    monkeypatch.setattr(tars, "_member", trusting)
    problems = archives.members(tmp_path, 1, 0).problems
    for kind in ("an absolute path", "a symlink outside", "a hard link outside", "a character device", "a FIFO"):
        assert any(problem.startswith(f"{kind}: rejected as") for problem in problems)
