"""`Index.evaluate_attribution`: attribution methods, judged by what is known of a BagNet."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bagindex.experiments.questions import ExperimentQuestions

if TYPE_CHECKING:
    from bagindex.evaluation.results import Evaluation
    from bagindex.experiments.experiment import Note, Progress


class AttributionQuestions(ExperimentQuestions):
    """The benchmark for attribution methods that a BagNet makes."""

    @staticmethod
    def attribution_methods() -> Sequence[dict[str, Any]]:
        """A row for each method that has a name: what it does, whose it is, its parameters, and whether it is there."""
        from bagindex.attribution.methods import listed

        return listed()

    def evaluate_attribution(
        self,
        methods: str | Sequence[str],
        out: str | os.PathLike[str],
        *,
        model: str | None = None,
        limit: int | None = None,
        class_: str | int = "predicted",
        baseline: str = "mean",
        device: str = "auto",
        seed: int = 0,
        source: str | os.PathLike[str] | None = None,
        progress: Progress | None = None,
        note: Note | None = None,
    ) -> Evaluation:
        """Score attribution methods against what a BagNet's patches contribute to its logits, which is known exactly.

        Args:
            methods: a name or several, as `bagindex.attribution.methods.find` takes them.
            out: the folder that the results go to. What is found for images is kept there, so that a run that was
                stopped goes on.
            model: which model; may be left out where there is one.
            limit: only so many images, evenly spread.
            class_: the class whose logit is accounted for: `predicted`, `label`, which leaves out images without one,
                or a class by name, wnid or id.
            baseline: what an input without evidence looks like: `mean` (the colour that normalisation makes zero),
                `black`, `white` or `blur`.
            device: where the model runs: `auto`, `cpu`, `cuda` or `cuda:N`.
            seed: of what is drawn at random.
            source: where the indexed files are now, for an index that keeps no pixels.
            progress: hears of what is being done, and how many of how many steps are done.
            note: hears what a person should know.

        Raises:
            AttributionError: there is no such method or baseline, or none of the methods can do it.
            UnknownClassError, UnknownModelError: there is no such class or model.
            QueryError: no image is left.
            NotKeptError: the index keeps no pixels.
            OutputError: the results cannot be written.
        """
        from bagindex.evaluation.running import Asked, run
        from bagindex.experiments.experiment import Setting
        from bagindex.experiments.running import chosen_images

        setting = Setting(
            index=self,
            catalog=self._catalog,
            models=(self._model(model).name,),
            image_ids=chosen_images(self._catalog, limit),
            limit=limit,
            against=(),
            predictions=(),
            device=device,
            seed=seed,
            folder=Path(out),
            progress=progress or (lambda _what, _done, _total: None),
            note=note or (lambda _text: None),
            source=None if source is None else Path(source),
        )
        names = [methods] if isinstance(methods, str) else list(methods)
        return run(setting, Asked(tuple(names), class_, baseline))
