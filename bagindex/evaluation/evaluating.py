"""Attribution methods run on a BagNet, and scored against what its patches contribute.

Images that are finished are kept beside the results, by all that they depend on: a run that was stopped goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from bagindex import __version__
from bagindex.arithmetic import float32
from bagindex.attribution.method import AT_ONCE, Method, image_seed
from bagindex.attribution.plain import PlainNetwork, plain
from bagindex.compute import find_device
from bagindex.errors import AttributionError
from bagindex.evaluation.kept import Arrays, Kept
from bagindex.evaluation.truth import BLUR, MEAN, Truth, boxes, cells, contributions, make_baseline
from bagindex.experiments.against import own_networks
from bagindex.experiments.experiment import Setting
from bagindex.experiments.networks import Network
from bagindex.geometry import make_grid
from bagindex.models.bags import Folded
from bagindex_schemas.records import Grid

_SECONDS = 10.0
"""After so long, what is found is kept: so much is lost at most."""


@dataclass(frozen=True, eq=False)
class Question:
    """What methods are asked.

    Attributes:
        methods: them.
        classes: the class of each image whose logit is accounted for, int64 [N].
        baseline: what an input without evidence looks like; see `bagindex.evaluation.truth.BASELINES`.
    """

    methods: tuple[Method, ...]
    classes: NDArray[np.int64]
    baseline: str


@dataclass(frozen=True, eq=False)
class Truths:
    """What the patches of N images contribute.

    Attributes:
        own: to the logit of the class that is asked about.
        other: to that of the class with the largest logit among the others; None where there is no other.
    """

    own: Truth
    other: Truth | None


@dataclass(frozen=True, eq=False)
class Attributed:
    """What a method finds, float32.

    Attributes:
        cells: summed in cells, [N, rows, cols]; see `bagindex.evaluation.truth`.
        boxes: summed over the patches' boxes, [N, rows, cols].
        seconds: that an image took, [N].
    """

    cells: NDArray[np.float32]
    boxes: NDArray[np.float32]
    seconds: NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Answer:
    """What the methods found, by their names, in their order; and the reasons of those that could not do it."""

    truths: Truths
    attributed: Mapping[str, Attributed]
    left_out: Mapping[str, str]


def evaluate(setting: Setting, question: Question) -> Answer:
    """Run the methods on the images that count.

    Raises:
        AttributionError: none of the methods can do it.
        BagindexError: the weights or the pixels cannot be had, or the results not written.
    """
    (network,) = own_networks(setting)
    device = find_device(setting.device)
    bench = _Bench(setting, question, network, device)
    network.module.to(device)
    try:
        truths = bench.truths()
        found: dict[str, Attributed] = {}
        left_out: dict[str, str] = {}
        for method in question.methods:
            try:
                found[method.name] = bench.attributed(method)
            except AttributionError as error:
                if not found and method is question.methods[-1]:
                    raise
                left_out[method.name] = str(error)
                setting.note(f"{method.name} is left out: {error}")
    finally:
        network.module.to("cpu")
    return Answer(truths, found, left_out)


class _Bench:
    """One network, the images that count, and what they are asked about."""

    def __init__(self, setting: Setting, question: Question, network: Network, device: torch.device) -> None:
        if not isinstance(network.module, Folded):
            raise TypeError("a network of the index's is a folded BagNet")
        self._setting, self._question, self._network, self._device = setting, question, network, device
        self._module: Folded = network.module
        self._grid: Grid = setting.record.grid
        transform = setting.catalog.manifest.plan.transform
        self._shape = (transform.crop_height, transform.crop_width)
        self._classes = dict(zip(setting.image_ids.tolist(), question.classes.tolist(), strict=True))
        step = self._grid.stride
        covered = [((count - 1) * step + self._grid.receptive_field) // step for count in self._patches]
        self._plain: PlainNetwork | None = None
        self._colour: Tensor | None = None
        self._cells = make_grid(step, step, covered[0] * step, covered[1] * step)

    @property
    def _patches(self) -> tuple[int, int]:
        return self._grid.rows, self._grid.cols

    def truths(self) -> Truths:
        """What the patches contribute."""
        shape = (2, *self._patches)

        def find(inputs: Tensor, baseline: Tensor, image_ids: Sequence[int]) -> Mapping[str, NDArray[Any]]:
            classes = self._asked(image_ids)
            with torch.inference_mode(), float32():
                evidence, of_baseline = self._module.evidence(inputs), self._of_baseline(baseline)
            rest = evidence.mean(dim=(1, 2)).scatter(1, classes[:, None], -torch.inf)
            both = [contributions(evidence, of_baseline, each) for each in (classes, rest.argmax(dim=1))]
            return {"contributions": np.stack(both, axis=1)}

        rows = self._run("the truth", ["truth"], {"contributions": shape}, find)
        found = np.stack([row["contributions"] for row in rows])
        own, other = (Truth(self._grid, self._shape, found[:, place]) for place in range(2))
        return Truths(own, other if len(self._setting.classes) > 1 else None)

    def attributed(self, method: Method) -> Attributed:
        """What a method finds."""

        def find(inputs: Tensor, baseline: Tensor, image_ids: Sequence[int]) -> Mapping[str, NDArray[Any]]:
            ready = self._plain = self._plain or plain(self._module, inputs[:1])
            classes, seed = self._asked(image_ids), image_seed(self._setting.seed, image_ids[0])
            started = time.monotonic()
            maps = method.attribute(ready, inputs, classes, seed=seed, baseline=baseline).cpu().numpy()
            seconds = (time.monotonic() - started) / len(image_ids)
            return {
                "cells": cells(maps, self._grid).astype(np.float32),
                "boxes": boxes(maps, self._grid).astype(np.float32),
                "seconds": np.full(len(image_ids), seconds, np.float32),
            }

        facts = [method.name, method.origin, dict(method.parameters), method.version, self._setting.seed]
        shapes = {"cells": (self._cells.rows, self._cells.cols), "boxes": self._patches, "seconds": ()}
        rows = self._run(method.name, facts, shapes, find)
        return Attributed(*(np.stack([row[name] for row in rows]) for name in shapes))

    def _of_baseline(self, baseline: Tensor) -> Tensor:
        """The baseline's evidence, [N or 1, rows, cols, C]; that of a colour is found once."""
        if self._question.baseline == BLUR:
            return self._module.evidence(baseline)
        if self._colour is None:
            self._colour = self._module.evidence(baseline[:1])
        return self._colour

    def _asked(self, image_ids: Sequence[int]) -> Tensor:
        return torch.tensor([self._classes[image_id] for image_id in image_ids], device=self._device)

    def _run(
        self,
        what: str,
        facts: Sequence[Any],
        shapes: Mapping[str, tuple[int, ...]],
        find: Callable[[Tensor, Tensor, Sequence[int]], Mapping[str, NDArray[Any]]],
    ) -> list[Arrays]:
        """Something of all images, in their order; what an earlier run has kept is not found again.

        Args:
            what: is found.
            facts: what it depends on beside network, baseline, device and classes.
            shapes: of what is found for an image, by its name.
            find: finds it, of inputs, their baselines and ids; each array has a row for each.
        """
        all_ids, at_once = self._setting.image_ids.tolist(), AT_ONCE[self._device.type]
        plan, network = self._setting.catalog.manifest.plan, self._network
        given = [plan.digest(), network.sha256, self._question.baseline, self._device.type, at_once, __version__]
        kept = Kept(self._setting.folder, what, [*given, torch.__version__, *facts], shapes)
        there = kept.read(self._classes)
        # What is drawn at random is drawn for a batch, so that one is found whole.
        batches = [all_ids[start : start + at_once] for start in range(0, len(all_ids), at_once)]
        fresh: dict[int, Arrays] = {}
        last = time.monotonic()
        try:
            for place, batch in enumerate(batches):
                self._setting.progress(f"{what}: {len(all_ids):,} images", place, len(batches))
                if all(image_id in there for image_id in batch):
                    continue
                inputs, baseline = self._inputs(batch)
                found = find(inputs, baseline, batch)
                rows = {
                    image_id: {name: values[i] for name, values in found.items()} for i, image_id in enumerate(batch)
                }
                there.update(rows)
                fresh.update(rows)
                if time.monotonic() - last > _SECONDS:
                    kept.write(fresh, self._classes)
                    fresh, last = {}, time.monotonic()
            self._setting.progress(f"{what}: {len(all_ids):,} images", len(batches), len(batches))
        finally:
            # By Ctrl-C too.
            kept.write(fresh, self._classes)
        return [there[image_id] for image_id in all_ids]

    def _inputs(self, image_ids: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Inputs and their baselines, normalised, on the device."""
        found = self._setting.pixels(image_ids)
        pixels = torch.from_numpy(np.stack([found[image_id] for image_id in image_ids])).to(self._device)
        inputs = self._network.normalise(pixels)
        if self._question.baseline == MEAN:
            return inputs, torch.zeros_like(inputs)
        baseline = make_baseline(pixels, self._question.baseline)
        return inputs, self._network.normalise(baseline)
