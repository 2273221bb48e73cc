"""Experiments are run one after the other, and what comes out of them is written."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from bagindex.catalog import Catalog
from bagindex.errors import BagindexError, QueryError
from bagindex.experiments import writing
from bagindex.experiments.catalogue import EXPERIMENTS
from bagindex.experiments.experiment import Experiment, Outcome, Setting, spread_images


@dataclass(frozen=True)
class LeftOut:
    """An experiment that was not run, and why not."""

    experiment: Experiment
    why: str


@dataclass(frozen=True)
class Reproduction:
    """What was run, what was not, and the files that were written."""

    outcomes: tuple[Outcome, ...]
    left_out: tuple[LeftOut, ...]
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
    return Reproduction((outcome,), (), writing.write(outcome, setting.folder))


def run_all(setting: Setting) -> Reproduction:
    """Run every experiment that can be run, write what comes out of them, and say what was left out.

    Raises:
        OutputError: the results cannot be written.
    """
    writing.prepare(setting.folder)
    outcomes: list[Outcome] = []
    left_out: list[LeftOut] = []
    files: list[Path] = []
    for experiment in EXPERIMENTS.values():
        try:
            outcome = experiment.run(setting)
        except BagindexError as error:
            left_out.append(LeftOut(experiment, str(error)))
            continue
        outcomes.append(outcome)
        files += writing.write(outcome, setting.folder)
    return Reproduction(tuple(outcomes), tuple(left_out), tuple(files))
