"""Stages run beside each other, in order, with bounded queues, and lose no error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bagindex.build import BuildSettings, build
from bagindex.profile import Profile
from bagindex.stages import Stage, in_order
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource


def stage() -> Stage:
    return Stage(Profile().clock("test"))


def test_calls_are_made_in_order_in_another_thread() -> None:
    done: list[tuple[int, bool]] = []
    with stage() as running:
        for number in range(50):
            running.put(
                lambda number=number: done.append((number, threading.current_thread() is threading.main_thread()))
            )
        running.finish()
        running.finish()
    assert done == [(number, False) for number in range(50)]


def test_a_full_queue_holds_up() -> None:
    go, ready = threading.Event(), threading.Event()
    reached = []
    with stage() as running:

        def produce() -> None:
            for number in range(10):
                running.put(go.wait)
                reached.append(number)
            ready.set()

        producer = threading.Thread(target=produce)
        producer.start()
        assert not ready.wait(0.3)
        assert len(reached) < 6
        go.set()
        producer.join(10)
        assert ready.is_set()


def fail() -> None:
    raise OSError(28, "No space left on device")


def test_an_error_comes_back_and_nothing_is_done_after_it() -> None:
    done: list[int] = []
    running = stage()
    running.put(fail)
    running.put(lambda: done.append(1))
    with pytest.raises(OSError, match="No space"):
        running.finish()
    with pytest.raises(OSError, match="No space"):
        running.put(lambda: done.append(2))
    assert done == []


def test_an_error_comes_back_on_leaving() -> None:
    with pytest.raises(OSError, match="No space"), stage() as running:
        running.put(fail)


def test_another_error_drops_what_waits() -> None:
    done: list[int] = []
    first, go = threading.Event(), threading.Event()

    def slow() -> None:
        first.set()
        go.wait(10)

    def leave() -> None:
        with stage() as running:
            running.put(slow)
            running.put(lambda: done.append(1))
            first.wait(10)
            threading.Timer(0.2, go.set).start()
            raise KeyError("something else")

    with pytest.raises(KeyError):
        leave()
    assert done == []


def test_results_come_in_order_and_not_too_many_are_begun() -> None:
    begun = 0

    def items() -> Iterator[int]:
        nonlocal begun
        for number in range(40):
            begun += 1
            yield number

    with ThreadPoolExecutor(3) as pool:
        for place, result in enumerate(in_order(pool, lambda number: number * number, items(), 5)):
            assert result == place * place
            assert begun <= place + 5
    assert begun == 40


def test_an_error_in_the_pool_is_raised_in_its_turn() -> None:
    with ThreadPoolExecutor(2) as pool:
        results = in_order(pool, lambda number: 6 // number, [3, 2, 0, 1], 4)
        assert [next(results), next(results)] == [2, 3]
        with pytest.raises(ZeroDivisionError):
            next(results)


def test_a_profile_adds_up() -> None:
    profile = Profile()
    decode = profile.clock("decode", 2)
    read = profile.clock("read", 2, shares=decode)
    for clock, images in ((decode, 3), (read, 3), (decode, 1)):
        with clock.busy(images):
            pass
    decode.seconds, read.seconds = 3.0, 1.0
    assert profile.clock("decode") is decode
    found = {each.stage: each for each in profile.times(10.0)}
    assert (found["decode"].waiting, found["read"].waiting) == (16.0, None)
    assert found["decode"].rate == pytest.approx(4 * 2 / 3.0)
    profile.clock("nothing")
    assert profile.times(1.0)[-1].rate is None


def test_a_build_says_where_its_time_went(tmp_path: Path) -> None:
    source = MemorySource(["a"] * 7, broken=frozenset({2}))
    report = build(IndexDirectory(tmp_path / "i"), source, {"a": 0}, LinearCompute(["a"]), BuildSettings(shard_size=4))
    stages = {each.stage: each for each in report.stages}
    assert stages["read"].images == stages["decode"].images + 1 == 7 or stages["decode"].images == 6
    assert stages["run linear"].images == stages["write linear/features"].images == 6
    assert stages["write images"].images == stages["commit"].images == 7
    assert report.limit in stages
    assert all(0 < each.busy < report.seconds * each.threads for each in report.stages)


def test_profile_is_printed(planted_folder: Path, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    weights = planted_folder / "bagnet33.safetensors"
    command = ("build", planted_folder / "pictures", "--weights", weights, "--limit", 4, "--out", tmp_path / "i")
    told = run(*command, "--profile")
    for stage_ in ("read", "decode", "run bagnet33", "write bagnet33/features", "write images", "commit"):
        assert stage_ in told.out
    assert "the limit is: " in told.out
    assert "the limit is: " not in run(*command, "--profile").out  # nothing was left to compute
