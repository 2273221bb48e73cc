"""`Index.reproduce`: the paper's experiments, run on an index."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bagindex.questions import Questions

if TYPE_CHECKING:
    from bagindex.experiments.architecture import Architecture
    from bagindex.experiments.experiment import Experiment, Note, Progress
    from bagindex.experiments.running import Reproduction

ALL = "all"
"""Every experiment that can be run, and a report."""


class ExperimentQuestions(Questions):
    """The experiments of the paper, on what an index holds and its models."""

    @staticmethod
    def experiments() -> Sequence[Experiment]:
        """The experiments that there are, in the order in which `all` runs them."""
        from bagindex.experiments.catalogue import EXPERIMENTS

        return list(EXPERIMENTS.values())

    @staticmethod
    def architecture(name: str, *, classes: int = 1000, size: int = 224) -> Architecture:
        """What a BagNet, or a network of torchvision's, is made of: its layers, what their cells see, parameters and
        operations, found out by probing it, without weights.

        Args:
            name: which.
            classes: how many classes it tells apart.
            size: pixels of the side of its input.

        Raises:
            SettingsError: there is none such, or it cannot be probed at that size.
        """
        from bagindex.experiments.architecture import describe

        return describe(name, classes, size)

    def reproduce(
        self,
        experiment: str,
        out: str | os.PathLike[str],
        *,
        models: str | Sequence[str] | None = None,
        against: Sequence[str] = (),
        predictions: Sequence[str | os.PathLike[str]] = (),
        limit: int | None = None,
        device: str = "auto",
        seed: int = 0,
        source: str | os.PathLike[str] | None = None,
        classes: str | None = None,
        progress: Progress | None = None,
        note: Note | None = None,
    ) -> Reproduction:
        """Run one of the paper's experiments, or all, and write the numbers, the plots, and the paper's figures beside
        ours.

        Args:
            experiment: its name, or `all`, which leaves out what cannot be run, says so, and writes a report.
            out: the folder that the results go to.
            models: models of the index; by default all. Experiments on one take that with the largest patches.
            against: networks to compare with: names of torchvision's, `NAME=FILE`, or `timm:NAME`.
            predictions: CSV or Parquet files with a network's predictions.
            limit: only so many images, evenly spread.
            device: where models run, when they must: `auto`, `cpu`, `cuda` or `cuda:N`.
            seed: of what is drawn at random.
            source: where the indexed files are now, for an index that keeps no pixels; a place, as for `build`.
            classes: the classes of networks whose weights name none: a file, or `imagenet`.
            progress: hears of what is being done, and how many of how many steps are done.
            note: hears what a person should know.

        Raises:
            QueryError: there is no such experiment, or this index cannot answer it.
            NotKeptError: the index keeps too little for it.
            UnknownModelError: the index has no such model.
            WeightsError, LabelError: a network cannot be had, or has other classes.
            OutputError: the results cannot be written.
            SettingsError: there is no such device.
        """
        from bagindex.compute import check_device
        from bagindex.experiments import catalogue
        from bagindex.experiments.experiment import Setting
        from bagindex.experiments.running import chosen_images, run_all, run_one

        check_device(device)
        names = [models] if isinstance(models, str) else models
        setting = Setting(
            index=self,
            catalog=self._catalog,
            models=tuple(self._model_names(names)),
            image_ids=chosen_images(self._catalog, limit),
            limit=limit,
            against=tuple(against),
            predictions=tuple(Path(each) for each in predictions),
            device=device,
            seed=seed,
            folder=Path(out),
            progress=progress or (lambda _what, _done, _total: None),
            note=note or (lambda _text: None),
            source=source,
            class_list=classes,
        )
        if experiment == ALL:
            return run_all(setting)
        return run_one(catalogue.find(experiment), setting)
