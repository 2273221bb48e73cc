"""The same images, explained by attribution methods and by BagNets' evidence: the paper's Figure A.2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from bagindex.attribution.methods import find
from bagindex.experiments import drawing
from bagindex.experiments.attributing import PAPERS, Explained, Maps, attributions, explained_networks, heatmaps
from bagindex.experiments.experiment import Outcome, Setting, spread_images
from bagindex.experiments.judging import labels_of
from bagindex.figures.maps import colour_limits, overlay

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = 16
"""Taken on a GPU where no number is asked for."""
_ROWS = 12
"""Rows of a sheet at most: images, for each network that is explained."""
_PICTURE = 1.15
"""Inches of a picture's width."""


def run(setting: Setting) -> Outcome:
    """Explain what the networks to compare with decide, or where there are none, what the BagNet does.

    Raises:
        SettingsError: a package that a method needs is not installed.
        BagindexError: a network or the pixels cannot be had.
    """
    methods = [find(name) for name in PAPERS]
    wanted = setting.few(IMAGES)
    most = max(1, _ROWS // max(1, len(setting.against)))
    image_ids = spread_images(wanted, most)
    explained = explained_networks(setting, image_ids)
    explained = explained[len(setting.models) :] or explained[len(setting.models) - 1 :]
    evidence = heatmaps(setting, image_ids, explained, lambda maps: maps)
    found: list[list[Maps]] = []
    failed: list[str] = []
    for each, of_bagnets in zip(explained, evidence, strict=True):
        maps, problems = attributions(setting, each, image_ids, methods, lambda maps: maps)
        failed += problems
        found.append([*maps, *of_bagnets])
    limits = [[colour_limits(maps.values) for maps in row] for row in found]
    few = (f"Of {len(wanted):,} images {len(image_ids)} are on the sheet: it has room for no more.",)
    return Outcome(
        experiment="gallery",
        title=f"{len(image_ids):,} images of {setting.catalog.manifest.source.name}, explained by attribution methods "
        "and by BagNets' evidence",
        tables={"gallery": _table(setting, image_ids, explained, found, limits)},
        figures={"gallery": _sheet(setting, image_ids, explained, found, limits)},
        beside=(),
        remarks=(
            "Red speaks for the class that the network predicts, blue against it; each map's colours end at the 99th "
            "percentile of its magnitudes, so maps are compared by where they are dark, not by how dark.",
            *(few if len(image_ids) < len(wanted) else ()),
            *failed,
        ),
        settings={
            "images": len(image_ids),
            "methods": {each.name: dict(each.parameters) for each in methods},
        },
    )


def _table(
    setting: Setting,
    image_ids: NDArray[np.int64],
    explained: Sequence[Explained],
    found: Sequence[Sequence[Maps]],
    limits: Sequence[Sequence[NDArray[np.float32]]],
) -> pa.Table:
    names = [record.name for record in setting.classes]
    labels = labels_of(setting, image_ids).tolist()
    rows = [
        {
            "image_id": image_id,
            "label": names[labels[place]] if labels[place] >= 0 else None,
            "network": each.network.name,
            "class": names[each.leading[place]],
            "probability": float(each.probability[place]),
            "maps": maps.name,
            "sum": float(maps.values[place].sum(dtype=np.float64)),
            "colours_end": float(limit[place]),
            "seconds_per_image": round(maps.seconds, 4),
        }
        for place, image_id in enumerate(image_ids.tolist())
        for each, row, ends in zip(explained, found, limits, strict=True)
        for maps, limit in zip(row, ends, strict=True)
    ]
    return pa.Table.from_pylist(rows)


def _sheet(
    setting: Setting,
    image_ids: NDArray[np.int64],
    explained: Sequence[Explained],
    found: Sequence[Sequence[Maps]],
    limits: Sequence[Sequence[NDArray[np.float32]]],
) -> Figure:
    """A row for each image and network, a column for each kind of map."""
    names = [record.name for record in setting.classes]
    pictures = setting.pixels(image_ids.tolist())
    # A method that cannot explain one of the networks has a column of others.
    kinds = list(dict.fromkeys(maps.name for row in found for maps in row))
    rows = []
    for place, image_id in enumerate(image_ids.tolist()):
        pixels = np.array(pictures[image_id])
        for each, maps, ends in zip(explained, found, limits, strict=True):
            said = (f"{each.network.name}: {names[each.leading[place]]}", f"{100 * each.probability[place]:.0f} %")
            drawn = {
                one.name: overlay(one.values[place], float(limit[place]), pixels.shape[:2], (0, 0), 1)
                for one, limit in zip(maps, ends, strict=True)
            }
            none = np.full_like(pixels, 255)
            rows.append(
                [drawing.Captioned(pixels, said), *(drawing.Captioned(drawn.get(kind, none)) for kind in kinds)]
            )
    heads = ["image", *kinds]
    return drawing.gallery(heads, rows, width=len(heads) * _PICTURE)
