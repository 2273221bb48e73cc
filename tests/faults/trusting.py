"""Looks at weights and indexes that trust them, to show that harm is noticed.

They are called in other processes, too, which import them from here: a test's own module is not found there.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path

from faults import asking, whole


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


def _sizes(root: Path) -> str:
    """Of all files that count."""
    return str({path.name: path.stat().st_size for paths in whole.kinds(root).values() for path in paths})


def blind(root: Path, _data: bool = True) -> list[str]:
    """A `verify` that finds nothing but files that are empty."""
    return [path.name for paths in whole.kinds(root).values() for path in paths if not path.stat().st_size]


def credulous(root: Path) -> asking.Answers:
    """Questions that answer from whatever is there."""
    return {asking.OPENING: ("answer", _sizes(root))}


def clumsy(root: Path) -> asking.Answers:
    """Questions that fail in no foreseen way."""
    return {asking.OPENING: ("raised", "KeyError: 3") if blind(root) else ("answer", "")}
