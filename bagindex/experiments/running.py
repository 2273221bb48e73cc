"""Experiments are run one after the other, and what comes out of them is written."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex import output
from bagindex.catalog import Catalog
from bagindex.errors import BagindexError, OutputError, QueryError
from bagindex.experiments import report, writing
from bagindex.experiments.catalogue import EXPERIMENTS
from bagindex.experiments.experiment import Experiment, Outcome, Setting, spread_images


@dataclass(frozen=True)
class LeftOut:
    """An experiment that was not run, and why not."""

    experiment: Experiment
    why: str


@dataclass(frozen=True)
class Reproduction:
    """What was run.

    Attributes:
        outcomes: what came out of it.
        left_out: experiments that could not be run.
        missing: networks and predictions that could not be had, each with the reason, and what to bring.
        files: what was written; of all experiments, the report is the last.
    """

    outcomes: tuple[Outcome, ...]
    left_out: tuple[LeftOut, ...]
    missing: tuple[str, ...]
    files: tuple[Path, ...]


def chosen_images(catalog: Catalog, limit: int | None) -> NDArray[np.int64]:
    """The images that count, int64 [N], ascending.

    Raises:
        QueryError: there are none.
    """
    found = np.asarray(catalog.columns("SELECT image_id FROM images ORDER BY image_id")["image_id"], np.int64)
    if limit is not None and limit < 1:
        raise QueryError("--limit takes a number of images from 1 on")
    if not len(found):
        raise QueryError("this index has no images")
    return spread_images(found, limit)


def run_one(experiment: Experiment, setting: Setting) -> Reproduction:
    """Run an experiment and write what comes out of it.

    Raises:
        BagindexError: what it needs is not there, or the results cannot be written.
    """
    writing.prepare(setting.folder)
    outcome = experiment.run(setting)
    return Reproduction((outcome,), (), (), writing.write(outcome, setting.folder))


def run_all(setting: Setting) -> Reproduction:
    """Run every experiment that can be run, write what comes out of them, and a report that says what was left out.

    Raises:
        OutputError: the results cannot be written.
    """
    writing.prepare(setting.folder)
    setting, missing = _there(replace(setting, sparing=True))
    outcomes: list[Outcome] = []
    left_out: list[LeftOut] = []
    files: list[Path] = []
    for experiment in EXPERIMENTS.values():
        try:
            outcome = experiment.run(setting)
        except OutputError:
            raise
        except BagindexError as error:
            left_out.append(LeftOut(experiment, str(error)))
            continue
        setting.note(f"{experiment.name}: done in {outcome.seconds:.0f} s")
        outcomes.append(outcome)
        files += writing.write(outcome, setting.folder)
    page = setting.folder / writing.REPORT
    text = report.render(setting, outcomes, left_out, missing)
    output.save(page, {page.suffix: lambda path: path.write_text(text, encoding="utf-8")})
    return Reproduction(tuple(outcomes), tuple(left_out), missing, (*files, page))


def _there(setting: Setting) -> tuple[Setting, tuple[str, ...]]:
    """The setting with those of the networks and predictions that can be had, and what is wrong with the others: one
    that is missing should not cost what the others give.
    """
    if not setting.against and not setting.predictions:
        return setting, ()
    from bagindex.experiments.against import network
    from bagindex.experiments.brought import read_predictions

    missing: list[str] = []

    def found(get: Callable[[Any, Setting], object], asked: Any) -> bool:
        try:
            get(asked, setting)
        except BagindexError as error:
            missing.append(f"{asked}: {error}")
            return False
        return True

    against = tuple(each for each in setting.against if found(network, each))
    predictions = tuple(each for each in setting.predictions if found(read_predictions, each))
    return replace(setting, against=against, predictions=predictions), tuple(missing)
