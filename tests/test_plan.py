"""The plan's promises, over random inputs."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from bagindex.plan import FULL_SHARD, cut, shard_size, spread


@given(files=st.integers(1, 2_000_000))
def test_shards_cover_every_file_once(files: int) -> None:
    size = shard_size(files)
    shards = cut(files, size)
    assert shards[0].first == 0
    assert sum(shard.count for shard in shards) == files
    assert all(a.first + a.count == b.first for a, b in pairwise(shards))
    assert all(shard.count == size for shard in shards[:-1])
    assert size <= FULL_SHARD
    if files >= 2 * FULL_SHARD:
        assert size == FULL_SHARD


@given(files=st.integers(1, 5000), limit=st.integers(1, 6000))
def test_spread(files: int, limit: int) -> None:
    places = list(spread(files, limit))
    assert len(places) == min(files, limit)
    assert places == sorted(set(places))
    assert 0 <= places[0] <= places[-1] < files
    gaps = {b - a for a, b in pairwise(places)}
    assert len(gaps) <= 2
    assert max(gaps, default=0) - min(gaps, default=0) <= 1
