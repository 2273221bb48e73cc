"""Whatever parses bytes or text of ours, given any: it may refuse them in the way that it says, and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import Phase

from faults import fuzz_command_line, fuzz_files, fuzz_sql
from faults.common import Outcome
from faults.fuzz_target import Target

TARGETS: Mapping[str, Target] = {**fuzz_files.TARGETS, **fuzz_sql.TARGETS, **fuzz_command_line.TARGETS}


def fuzz(folder: Path, trials: int, seed: int, targets: Mapping[str, Target] = TARGETS) -> Outcome:
    """So many examples over all targets, of each as many as its weight says."""
    outcome = Outcome("fuzzed input")
    weights = sum(target.weight for target in targets.values())
    for name, target in targets.items():
        place = folder / name.replace(" ", "-")
        place.mkdir()
        with target.prepare(place) as run, _within(place):
            count = max(1, round(trials * target.weight / weights))
            _examples(name, target, run, count, seed, outcome)
        shutil.rmtree(place)
    return outcome.done()


def _examples(name: str, target: Target, run: Callable[[Any], str], count: int, seed: int, outcome: Outcome) -> None:
    came: Counter[str] = Counter()

    @hypothesis.seed(seed)
    @hypothesis.settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(hypothesis.HealthCheck),
        report_multiple_bugs=False,
    )
    @hypothesis.given(target.inputs)
    def test(given: Any) -> None:
        came[run(given)] += 1

    problems = []
    try:
        test()
    except Exception as error:
        example = " ".join(" ".join(getattr(error, "__notes__", [])).split())
        problems.append(f"{name}, seed {seed}, {count} examples: {type(error).__name__}: {error} ({example})")
    outcome.trials += sum(came.values())
    outcome.counts[name] += sum(came.values())
    outcome.counts += came
    outcome.problems += problems


@contextlib.contextmanager
def _within(place: Path) -> Any:
    """Work in a folder: what is written by a relative name is found there."""
    before = Path.cwd()
    os.chdir(place)
    try:
        yield
    finally:
        os.chdir(before)
