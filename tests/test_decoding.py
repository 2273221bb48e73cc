"""Pictures are decoded ahead, in order, and none can hold up the build."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from bagindex.decoding import Decoder
from bagindex.errors import SourceError
from bagindex.images import Picture, Rejected
from bagindex_schemas.records import Transform
from bagindex_schemas.rejects import RejectCode
from fakes import MemorySource

TRANSFORM = Transform(resize=16, crop_height=16, crop_width=16)


class StuckSource(MemorySource):
    """Hangs on some files until it is told to let go."""

    def __init__(self, count: int, stuck: set[int]) -> None:
        super().__init__(["a"] * count)
        self.stuck = stuck
        self.release = threading.Event()

    def read(self, entry: Any) -> bytes:
        if entry.size in self.stuck:
            self.release.wait(30)
        return super().read(entry)


@pytest.mark.parametrize("stuck", [set(), {0}, {3, 4, 5, 6, 7}, set(range(12))])
@pytest.mark.parametrize("workers", [1, 3])
def test_a_decoder_that_hangs_is_given_up(stuck: set[int], workers: int) -> None:
    source = StuckSource(12, stuck)
    found = list(Decoder(workers, timeout=0.15).decode(source, source.entries, TRANSFORM))
    source.release.set()
    assert [entry.size for entry, _ in found] == list(range(12))
    for entry, picture in found:
        if entry.size in stuck:
            assert isinstance(picture, Rejected)
            assert picture.code is RejectCode.DECODER_TIMEOUT
        else:
            assert isinstance(picture, Picture)
            assert picture.pixels[0, 0, 0] == entry.size


def test_a_slow_consumer_is_no_hanging_decoder() -> None:
    import time

    source = MemorySource(["a"] * 5)
    for _, picture in Decoder(2, timeout=0.4).decode(source, source.entries, TRANSFORM):
        time.sleep(0.45)
        assert isinstance(picture, Picture)


def test_errors_of_our_own_are_raised() -> None:
    class Faulty(MemorySource):
        def read(self, entry: Any) -> bytes:
            raise ZeroDivisionError

    source = Faulty(["a"])
    with pytest.raises(ZeroDivisionError):
        list(Decoder(1).decode(source, source.entries, TRANSFORM))


class GrowingSource(MemorySource):
    """Notices that it has changed when it is read."""

    def read(self, entry: Any) -> bytes:
        raise SourceError("the archive has changed")


def test_a_source_that_cannot_be_told_apart_any_more_ends_the_build() -> None:
    source = GrowingSource(["a"])
    with pytest.raises(SourceError, match="has changed"):
        list(Decoder(1).decode(source, source.entries, TRANSFORM))


def test_threads_end_with_the_work() -> None:
    source = MemorySource(["a"] * 30)
    before = threading.active_count()
    decoded = Decoder(4).decode(source, source.entries, TRANSFORM)
    next(decoded)
    decoded.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "decoder":
            thread.join(5)
    assert threading.active_count() <= before
