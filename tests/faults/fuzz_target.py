"""What is fuzzed: the inputs that it gets, and what comes of one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

REFUSED, TAKEN = "refused", "taken"


@dataclass(frozen=True)
class Target:
    """Something that parses.

    Attributes:
        inputs: what it gets.
        prepare: given an empty folder, what runs one input and says `refused` or `taken`; other errors are problems.
        weight: how many examples it gets, beside others.
    """

    inputs: st.SearchStrategy[Any]
    prepare: Callable[[Path], AbstractContextManager[Callable[[Any], str]]]
    weight: float = 1.0


def parsing(
    parse: Callable[[Path, Any], object], *refusals: type[Exception]
) -> Callable[[Path], AbstractContextManager[Callable[[Any], str]]]:
    """What `parse` makes of an input in a folder; of its errors only `refusals` are as they should be."""

    @contextmanager
    def prepare(folder: Path) -> Iterator[Callable[[Any], str]]:
        def run(given: Any) -> str:
            try:
                parse(folder, given)
            except refusals:
                return REFUSED
            return TAKEN

        yield run

    return prepare


def mutated(sound: Sequence[bytes]) -> st.SearchStrategy[bytes]:
    """Sound bytes with some changes: parts replaced, removed, repeated or put in."""
    edit = st.tuples(st.floats(0, 1), st.floats(0, 0.1), st.binary(max_size=12), st.integers(0, 3))
    return st.builds(_edit, st.sampled_from(sound), st.lists(edit, max_size=4))


def _edit(data: bytes, edits: Sequence[tuple[float, float, bytes, int]]) -> bytes:
    for place, share, put, repeat in edits:
        begin = round(place * len(data))
        end = min(len(data), begin + round(share * len(data)))
        data = data[:begin] + (data[begin:end] * repeat if repeat > 1 else put) + data[end:]
    return data
