"""The benchmark from what is asked to what is written."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bagindex.attribution.method import AT_ONCE, Method
from bagindex.attribution.methods import find, split
from bagindex.compute import find_device
from bagindex.errors import AttributionError, QueryError
from bagindex.evaluation import drawing
from bagindex.evaluation.evaluating import Question, evaluate
from bagindex.evaluation.results import Evaluation, score
from bagindex.evaluation.truth import BASELINES, BLUR, BLUR_PIXELS
from bagindex.experiments import writing
from bagindex.experiments.experiment import Outcome, Setting
from bagindex.experiments.judging import labels_of

PREDICTED, LABEL = "predicted", "label"
_REMARKS = (
    "A patch's true contribution is its logit less that of its place in the baseline, over the number of patches; it "
    "is laid evenly over the patch's pixels, which is a convention: “evidence in the middles” is as true, and shows "
    "how much the convention weighs in cells and in boxes.",
    "Scores compare sums in cells of the patches' stride, or over the patches' boxes; only cells that patches see all "
    "of count. Intervals are 95 %, bootstrapped over the images.",
)


@dataclass(frozen=True)
class Asked:
    """What is asked: methods by name, a class, `predicted` or `label`, and a baseline."""

    methods: tuple[str, ...]
    class_: str | int
    baseline: str


def run(setting: Setting, asked: Asked) -> Evaluation:
    """Run the methods, score them, and write table, curves and examples.

    Raises:
        BagindexError: see `bagindex.evaluation.questions.AttributionQuestions.evaluate_attribution`.
    """
    started = time.monotonic()
    if asked.baseline not in BASELINES:
        raise AttributionError(f"--baseline is one of {', '.join(BASELINES)}, not {asked.baseline!r}")
    methods = find_all(asked.methods)
    find_device(setting.device)
    setting, classes, what = _classes(setting, asked.class_)
    writing.prepare(setting.folder)
    question = Question(methods, classes, asked.baseline)
    answer = evaluate(setting, question)
    known, scored, chance = score(answer, question)
    found = Evaluation(
        model=setting.record.name,
        what=what,
        baseline=asked.baseline,
        image_ids=setting.image_ids,
        classes=classes,
        known=known,
        methods=scored,
        chance=chance,
        left_out=answer.left_out,
        seed=setting.seed,
    )
    return replace(found, files=write(setting, found, time.monotonic() - started))


def write(setting: Setting, found: Evaluation, seconds: float) -> tuple[Path, ...]:
    """Write table, curves, examples and all that is to be said of them.

    Raises:
        OutputError: they cannot be written.
    """
    return writing.write(replace(_outcome(setting, found), seconds=seconds), setting.folder)


def find_all(asked: Sequence[str]) -> tuple[Method, ...]:
    """Methods by their names; a text may have several, with commas between.

    Raises:
        AttributionError: there is none, or one of them is none.
    """
    names = dict.fromkeys(name for text in asked for name in split(text))
    if not names:
        raise AttributionError("say which attribution methods: `bagindex evaluate-attribution --list` shows them")
    return tuple({method.name: method for method in map(find, names)}.values())


def _classes(setting: Setting, asked: str | int) -> tuple[Setting, NDArray[np.int64], str]:
    """The images that have a class to be asked about, it, and what it is in words."""
    image_ids = setting.image_ids
    if asked == PREDICTED:
        rows = setting.columns(
            f"SELECT image_id, predicted FROM predictions WHERE model = '{setting.record.name}' ORDER BY image_id"
        )
        places = np.searchsorted(rows["image_id"], image_ids)
        return setting, np.asarray(rows["predicted"], np.int64)[places], "predicted class"
    if asked == LABEL:
        labels = labels_of(setting, image_ids)
        if not (labels >= 0).any():
            raise QueryError("no image of this index has a label: give --class predicted, or a class")
        return replace(setting, image_ids=image_ids[labels >= 0]), labels[labels >= 0], "the label's class"
    record = setting.index.find_class(asked)
    return setting, np.full(len(image_ids), record.class_id, np.int64), f"class {record.name}"


def _outcome(setting: Setting, found: Evaluation) -> Outcome:
    places = drawing.example_places(found)
    pixels = setting.pixels(found.image_ids[places].tolist())
    names = {record.class_id: record.name for record in setting.classes}
    return Outcome(
        experiment="attribution",
        title=found.title,
        tables={"attribution": found.to_arrow(), "curves": found.curves(), "images": found.images()},
        figures={
            "attribution": drawing.ranking(found),
            "curves": drawing.curves(found),
            "examples": drawing.examples(found, pixels, names, setting.record.grid.stride),
        },
        beside=(),
        remarks=(*_REMARKS, *(f"{name} was left out: {why}." for name, why in found.left_out.items())),
        settings=_settings(setting, found),
    )


def _settings(setting: Setting, found: Evaluation) -> dict[str, Any]:
    record, source = setting.record, setting.catalog.manifest.source
    device = find_device(setting.device)
    return {
        "index": setting.index.name,
        "source": source.name,
        "images": len(found.image_ids),
        "limit": setting.limit,
        "model": {"name": record.name, "architecture": record.architecture, "weights_sha256": record.weights_sha256},
        "class": found.what,
        "baseline": found.baseline,
        "blur_pixels": BLUR_PIXELS if found.baseline == BLUR else None,
        "methods": {
            each.name: {"origin": each.method.origin, "version": each.method.version, **each.method.parameters}
            for each in found.methods
            if each.method is not None
        },
        "chance": dict(found.chance),
        "device": device.type,
        "images_at_once": AT_ONCE[device.type],
        "seed": setting.seed,
    }
