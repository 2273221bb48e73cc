"""The long run in several processes does what it does in one."""

from __future__ import annotations

import pytest

from faults.shares import VARIABLE, Share, drawn


@pytest.mark.parametrize("trials", [3, 50, 1000])
def test_shares_of_places_are_all_that_one_process_has(trials: int, monkeypatch: pytest.MonkeyPatch) -> None:
    places = list(range(100))
    alone = sorted(drawn(places, trials, 7))
    assert len(alone) == min(trials, 100)
    together: list[int] = []
    for index in range(8):
        monkeypatch.setenv(VARIABLE, str(Share(index, 8)))
        assert Share.here() == Share(index, 8)
        assert Share.here().trials("points", 3, trials, 7) == (trials, 7)
        together += drawn(places, trials, 7)
    assert sorted(together) == alone


@pytest.mark.parametrize("trials", [1, 5, 8, 21])
def test_trials_are_divided_and_drawn_from_other_seeds(trials: int) -> None:
    given = [Share(index, 8).trials("trials", 0, trials, 3) for index in range(8)]
    numbers, seeds = zip(*filter(None, given), strict=True)
    assert sum(numbers) == trials
    assert max(numbers) - min(numbers) <= 1
    assert len(set(seeds)) == len(seeds)
    assert Share().trials("trials", 0, trials, 3) == (trials, 3)


def test_what_is_done_once_is_done_in_one_process() -> None:
    for number in range(5):
        doing = [index for index in range(3) if Share(index, 3).trials("once", number, 1, 0)]
        assert doing == [number % 3]


def test_a_share_beyond_the_last_is_refused() -> None:
    with pytest.raises(ValueError, match="4/4"):
        Share(4, 4)
