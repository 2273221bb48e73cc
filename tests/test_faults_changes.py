"""Source files that change or go in mid-build: a short part of `tests/faults/changes.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from bagindex.sources import Entry
from bagindex.sources.folders import FolderSource
from faults import changes


def test_changed_sources_are_noticed(tmp_path: Path) -> None:
    outcome = changes.changes(tmp_path, 6, 9)
    assert outcome.problems == []
    assert outcome.counts == {
        **{"rejected, changed": 1, "indexed as it was then": 1, "refused": 2},
        **{"archive refused": 1, "archive read as it was": 1},
    }


def test_a_source_that_takes_what_it_finds_is_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def credulous(source: FolderSource, entry: Entry) -> bytes:
        return (source.root / os.fsdecode(entry.path)).read_bytes()

    monkeypatch.setattr(FolderSource, "read", credulous)
    # The first grows in a build that goes on; the seed has it grow before it is indexed.
    problems = changes.changes(tmp_path, 1, 0).problems
    assert "rejects are {}, not {'" in problems[0]
