"""What a network decides on is masked, by several maps of it: the paper's Figure 8 and Table 1.

The squares of an image to which a map attributes most of the leading class are masked, and the more the map knows of
what the network decides on, the less probable the class becomes. Maps are those of attribution methods, which look into
the network, the evidence that BagNets find for the class without knowing of it, and random ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.attribution.masking import MASKED, SQUARE, VALUE, probabilities, square_sums, strongest_first
from bagindex.attribution.methods import find
from bagindex.compute import find_device
from bagindex.errors import QueryError
from bagindex.experiments import drawing
from bagindex.experiments.attributing import (
    PAPERS,
    RANDOM,
    Explained,
    Maps,
    attributions,
    explained_networks,
    heatmaps,
    inputs_of,
)
from bagindex.experiments.comparing import other_data
from bagindex.experiments.experiment import Outcome, Setting
from bagindex.experiments.predicted import AT_ONCE
from bagindex.intervals import bootstrap

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = 32
"""Taken on a GPU where no number is asked for: each is run hundreds of times."""
METHODS = (RANDOM, *PAPERS)
COUNTS = (0, 10, 20, 30, 40, 50, 60, 70, 80, 90, MASKED)
"""How many squares are masked."""


@dataclass(frozen=True, eq=False)
class Curve:
    """How a network takes it that its images are masked by one kind of map.

    Attributes:
        explained: the network, and what it decides.
        maps: what the squares were chosen by: their sums, float64 [N, rows, cols].
        probability: of the class that led at first, by how many squares are masked, float64 [N, COUNTS].
    """

    explained: Explained
    maps: Maps
    probability: NDArray[np.float64]


def run(setting: Setting) -> Outcome:
    """Mask images for the chosen BagNets and the networks to compare with.

    Raises:
        QueryError: the inputs have too few squares.
        SettingsError: a package that a method needs is not installed.
        BagindexError: a network or the pixels cannot be had.
    """
    transform = setting.catalog.manifest.plan.transform
    height, width = transform.crop_height, transform.crop_width
    squares = (height // SQUARE) * (width // SQUARE)
    if squares <= MASKED:
        raise QueryError(
            f"inputs of {width} × {height} pixels have {squares} squares of {SQUARE} pixels, and {MASKED} are to be "
            "masked: take an index with a larger --image-size"
        )
    image_ids = setting.few(IMAGES)
    methods = [find(name) for name in METHODS]
    explained = explained_networks(setting, image_ids)
    evidence = heatmaps(setting, image_ids, explained, square_sums)
    curves: list[Curve] = []
    failed: list[str] = []
    for each, of_bagnets in zip(explained, evidence, strict=True):
        maps, problems = attributions(setting, each, image_ids, methods, square_sums)
        failed += problems
        curves += _curves(setting, each, image_ids, [*maps, *of_bagnets])
    return Outcome(
        experiment="masking",
        title=f"How probable the leading class stays when {MASKED} of {squares} squares are masked, "
        f"on {len(image_ids):,} images of {setting.catalog.manifest.source.name}",
        tables={"masking": _table(curves), "curves": _points(curves, setting.seed), "maps": _maps(curves)},
        figures={"masking": _figure(curves, setting)},
        beside=(),
        remarks=(*_remarks(setting, explained), *failed),
        settings={
            "images": len(image_ids),
            "square": SQUARE,
            "masked": MASKED,
            "squares": squares,
            "masked_becomes": VALUE,
            "methods": {each.name: dict(each.parameters) for each in methods},
        },
    )


def _curves(setting: Setting, explained: Explained, image_ids: NDArray[np.int64], maps: Sequence[Maps]) -> list[Curve]:
    network, device = explained.network, find_device(setting.device)
    orders = [strongest_first(each.values) for each in maps]
    parts: list[list[NDArray[np.float64]]] = [[] for _ in maps]
    at_once, total = AT_ONCE[device.type], len(image_ids)
    network.module.to(device)
    try:
        for start in range(0, total, at_once):
            setting.progress(f"{network.name}: masking squares of images", start, total)
            some = slice(start, start + at_once)
            inputs = inputs_of(setting, network, image_ids[some].tolist())
            # Where nothing is masked, all maps are one.
            before = explained.probability[some, None]
            for order, part in zip(orders, parts, strict=True):
                after = probabilities(network.logits, inputs, explained.leading[some], order[some], COUNTS[1:])
                part.append(np.concatenate([before, after], axis=1))
        setting.progress(f"{network.name}: masking squares of images", total, total)
    finally:
        network.module.to("cpu")
    return [Curve(explained, each, np.concatenate(part)) for each, part in zip(maps, parts, strict=True)]


def _table(curves: Sequence[Curve]) -> pa.Table:
    """Table 1: a row for each network, a column for each kind of map."""
    rows: dict[str, dict[str, object]] = {}
    for each in curves:
        name = each.explained.network.name
        before = {"network": name, "images": len(each.probability), "nothing": float(each.probability[:, 0].mean())}
        rows.setdefault(name, before)[each.maps.name] = float(each.probability[:, -1].mean())
    columns = dict.fromkeys(column for row in rows.values() for column in row)
    return pa.table({column: [row.get(column) for row in rows.values()] for column in columns})


def _points(curves: Sequence[Curve], seed: int) -> pa.Table:
    """Figure 8, as numbers."""
    rows = []
    for each in curves:
        ends = bootstrap(each.probability, seed)
        for place, count in enumerate(COUNTS):
            rows.append(
                {
                    "network": each.explained.network.name,
                    "maps": each.maps.name,
                    "masked": count,
                    "images": len(each.probability),
                    "probability": float(each.probability[:, place].mean()),
                    "low": float(ends[0, place]),
                    "high": float(ends[1, place]),
                }
            )
    return pa.Table.from_pylist(rows)


def _maps(curves: Sequence[Curve]) -> pa.Table:
    """What the maps are, and what they cost."""
    rows = [
        {
            "network": each.explained.network.name,
            "maps": each.maps.name,
            "parameters": each.maps.settings,
            "seconds_per_image": round(each.maps.seconds, 4),
        }
        for each in curves
    ]
    return pa.Table.from_pylist(rows)


def _remarks(setting: Setting, explained: Sequence[Explained]) -> tuple[str, ...]:
    reasons = [other_data(setting)]
    if strange := [each.network.name for each in explained if not each.network.published]:
        reasons.append(f"other weights than published ones ({', '.join(strange)})")
    why = "; ".join(reason for reason in reasons if reason)
    return (
        f"Masked squares of {SQUARE} × {SQUARE} pixels become {VALUE:g} after normalisation, which is the mean colour. "
        "The class is the one that leads on the whole image, and its probability is the softmax over the index's "
        "classes. A BagNet's heatmap is its evidence for that class at every pixel, with zeros beyond the edge.",
        *((f"Not comparable with the paper's Table 1: {why}.",) if why else ()),
        *(
            ()
            if len(explained) > len(setting.models)
            else ("Give --against vgg16, or another network, to see what BagNets' heatmaps know of it.",)
        ),
    )


def _figure(curves: Sequence[Curve], setting: Setting) -> Figure:
    """A panel for each network; attribution methods are solid, BagNets dashed, random maps grey."""
    names = list(dict.fromkeys(each.explained.network.name for each in curves))
    kinds = list(dict.fromkeys(each.maps.name for each in curves if each.maps.name != RANDOM))
    colours = {RANDOM: drawing.PAPERS, **dict(zip(kinds, drawing.colours(len(kinds)), strict=True))}
    heatmap_names = {f"{name} heatmap" for name in setting.models}
    labels = "masked squares", "probability of the leading class"
    with drawing.panels(len(names), *labels, width=3.0, right=1.4) as (figure, all_axes):
        for axes, name in zip(all_axes, names, strict=True):
            axes.set_title(name)
            for each in (each for each in curves if each.explained.network.name == name):
                drawing.line(
                    axes,
                    COUNTS,
                    each.probability.mean(axis=0).tolist(),
                    colours[each.maps.name],
                    each.maps.name,
                    dashed=each.maps.name in heatmap_names,
                )
            axes.set_ylim(0, 1.03)
        drawing.legend_beside(all_axes[-1])
    return figure
