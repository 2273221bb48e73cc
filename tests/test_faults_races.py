"""Races: several who write, and readers and a server while somebody writes; see `faults`."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bagindex import catalog
from bagindex.service.settings import Settings
from bagindex.store import CURRENT, IndexDirectory
from faults.builders import builders
from faults.readers import readers
from faults.sabotage import without_lock
from faults.served import Race, serve
from faults.soak import SLACK, Sample, growing, sample, soak
from faults.states import Expected, Progress, Reader, Step, begin
from serving import running

BUILDERS, READERS, SERVED = 7, 2, 1


def test_builders(tmp_path: Path) -> None:
    outcome = builders(tmp_path, BUILDERS, 0, most=3)
    assert outcome.problems == []
    assert outcome.trials == BUILDERS
    assert outcome.counts["told to wait"] > 0
    assert outcome.counts["computed"] > 0
    assert outcome.counts["done"] > 0


def test_builders_without_a_lock_are_noticed(tmp_path: Path) -> None:
    assert builders(tmp_path, 1, 0, most=2, prepare=without_lock).problems


def test_readers(tmp_path: Path) -> None:
    outcome = readers(tmp_path, READERS, 0, states=4, processes=1)
    assert outcome.problems == []
    assert outcome.trials == READERS
    assert outcome.counts["answered"] > 20
    assert outcome.counts["opened"] > 5


def drop_first(monkeypatch: pytest.MonkeyPatch, noticed: Callable[[], object], patience: float) -> None:
    """There is no catalog of `index` while one is made in place of another, until somebody has noticed."""
    update = catalog.update

    def dropping(directory: IndexDirectory, *, anew: bool = False) -> None:
        current = directory.root / CURRENT
        if directory.root.name == "index" and current.exists():
            current.unlink()
            until = time.monotonic() + patience
            while not noticed() and time.monotonic() < until:
                time.sleep(0.02)
        update(directory, anew=anew)

    monkeypatch.setattr(catalog, "update", dropping)


def test_a_catalog_that_goes_before_the_next_one_comes_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drop_first(monkeypatch, bool, 0.5)
    problems = readers(tmp_path, 1, 0, states=1, processes=1).problems
    told = ("was removed or begun anew", "has not finished", "no catalog")
    assert any(each in problem for problem in problems for each in told)


def test_answers_of_two_states_are_noticed(tmp_path: Path) -> None:
    answers = {"labels": ["old", "new", "new"], "words": ["few", "few", "many"]}
    known = Expected((Step("relabel", 1), Step("words", 5)), answers)
    progress = Progress(tmp_path / "progress")
    progress.take(1, lambda: None)
    reader = Reader(known, progress)
    assert reader.hears("labels", "old") is None
    assert "of no state" in str(reader.hears("words", "others"))
    assert "of another state" in str(reader.hears("labels", "new"))  # which is not made yet
    progress.take(3, lambda: None)
    assert "of another state, 3 and not 1" in str(reader.hears("words", "many"))
    late = Reader(known, progress)
    assert "of another state, 1 and not 3" in str(late.hears("labels", "old"))  # it was to move on
    assert late.hears("words", "many") is None


def test_a_server(tmp_path: Path) -> None:
    outcome = serve(tmp_path, SERVED, 0, states=2, workers=1)
    assert outcome.problems == []
    assert outcome.trials == SERVED
    assert outcome.counts["answer"] > 10


def test_a_server_that_has_no_catalog_for_a_while_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("quiet", "index"):
        begin(tmp_path / name)
    with running([tmp_path / "quiet", tmp_path / "index"], Settings(sql_workers=1)) as service:
        race = Race(service.address, tmp_path / "index", tmp_path / "quiet")
        drop_first(monkeypatch, lambda: race.problems, 30)
        race.run([Step("catalog")], random.Random(0), tmp_path / "progress")
    assert any("409 incomplete-" in problem for problem in race.problems)


def test_a_soak(tmp_path: Path) -> None:
    outcome = soak(tmp_path, 2, 0)
    assert outcome.problems == []
    assert outcome.counts["answer"] > 5
    lines = (tmp_path / "samples.csv").read_text().splitlines()
    assert lines[0].startswith("seconds,resident,files,threads,workers,")
    assert len(lines) > 5
    assert all(float(line.split(",")[1]) > 10 for line in lines[1:])


@pytest.mark.parametrize("name", SLACK)
def test_what_grows_is_noticed(name: str) -> None:
    flat = Sample(0, 300, 40, 20, 2, 250, 12, 5, 0)
    assert growing([flat] * 30) == []
    early = [flat] * 10 + [Sample(**{**vars(flat), name: getattr(flat, name) * 2 + 100})] * 20
    assert growing(early) == []  # what is loaded once
    leak = [Sample(**{**vars(flat), name: getattr(flat, name) * (1 + n / 20) + SLACK[name] * n / 5}) for n in range(30)]
    assert any(problem.startswith(f"{name} grows") for problem in growing(leak))


def test_files_that_stay_open_are_sampled(tmp_path: Path) -> None:
    before = sample(os.getpid(), [os.getpid()], tmp_path, 0)
    opened = [os.open(tmp_path, os.O_RDONLY) for _ in range(9)]
    (tmp_path / "catalog.tmp-77").write_bytes(bytes(3_000_000))
    after = sample(os.getpid(), [os.getpid()], tmp_path, 0)
    assert (after.files - before.files, after.workers_files - before.workers_files, after.temporary) == (9, 9, 1)
    assert after.disk > before.disk + 2
    for descriptor in opened:
        os.close(descriptor)
