"""Looks at weights and indexes that trust them, to show that harm is noticed."""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

from faults import asking


def unpickled(path: Path) -> object:
    """Reading weights as it should not be done."""
    return pickle.loads(path.read_bytes())


def trusting(_root: Path, _data: bool) -> list[str]:
    """A `verify` that finds nothing."""
    return []


def guessing(root: Path, names: Sequence[str]) -> asking.Answers:
    """Questions that answer whatever is there, and write it down beside it."""
    (root / "index.json").with_name("answers").write_text("42")
    return dict.fromkeys((asking.OPENING, *names), ("answer", "42"))
