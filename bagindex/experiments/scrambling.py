"""A BagNet does not care where its patches are: images whose tiles are shuffled.

Its logit is a mean over patches in whatever order (section 2). Where the tiles of an image change places, each patch
that lies within a tile goes with it and keeps its evidence; only those across a seam see something else. Networks that
look at larger parts of an image lose more, the more the smaller the tiles.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from bagindex.arithmetic import float32
from bagindex.compute import find_device
from bagindex.errors import QueryError
from bagindex.experiments import drawing
from bagindex.experiments.accuracy import TOP
from bagindex.experiments.against import networks, own_networks
from bagindex.experiments.correlation import pearson
from bagindex.experiments.experiment import Beside, Outcome, Setting
from bagindex.experiments.judging import labels_of, right
from bagindex.experiments.networks import Network
from bagindex.experiments.predicted import AT_ONCE
from bagindex.geometry import whole_box
from bagindex.models.bags import BagOfPatches
from bagindex_schemas.records import Grid

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PARTS = (2, 4, 7, 14)
"""An input's shorter side is cut into so many tiles."""
IMAGES = 100
"""Taken where no number is asked for."""
_SHOWN = 3


@dataclass(frozen=True, eq=False)
class Scrambled:
    """What a network makes of images whose tiles were shuffled.

    Attributes:
        network: its name.
        tile: pixels of a tile's side; None: the images as they are.
        logits: float32 [N, C].
        within: the share of patches that lie within a tile; None of other networks than BagNets.
        difference: the largest change of the evidence of a patch within a tile, over the largest evidence.
    """

    network: str
    tile: int | None
    logits: NDArray[np.float32]
    within: float | None = None
    difference: float | None = None


def tile_sizes(height: int, width: int, stride: int) -> tuple[int, ...]:
    """Sides of tiles, largest first: multiples of the patches' stride, so that patches stand in all tiles alike."""
    sizes = (min(height, width) // part // stride * stride for part in PARTS)
    return tuple(dict.fromkeys(size for size in sizes if size))


def shuffled(tiles: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """An order of so many tiles, two or more, that is not the one they are in: int64 [tiles]."""
    order = np.arange(tiles)
    while (order == np.arange(tiles)).all():
        order = generator.permutation(tiles)
    return order


def scramble(pixels: NDArray[np.uint8], tile: int, order: NDArray[np.int64]) -> NDArray[np.uint8]:
    """An image with its tiles in another order; what is over at the bottom and on the right stays.

    Args:
        pixels: uint8 [H, W, RGB].
        tile: pixels of a tile's side.
        order: the tile that comes to each place, row by row, int64 [tiles].
    """
    cols = pixels.shape[1] // tile
    changed = pixels.copy()
    for place, source in enumerate(order.tolist()):
        (top, left), (from_top, from_left) = (divmod(each, cols) for each in (place, source))
        changed[top * tile : (top + 1) * tile, left * tile : (left + 1) * tile] = pixels[
            from_top * tile : (from_top + 1) * tile, from_left * tile : (from_left + 1) * tile
        ]
    return changed


def within_tiles(
    grid: Grid, height: int, width: int, tile: int, order: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Patches that lie within a tile, and so within the input: the cells of the grid, row-major, to which they come,
    and those from which, [n] each. A tile's side is a multiple of the stride.
    """
    rows, cols = height // tile, width // tile
    to, origin = [], []
    for row in range(grid.rows):
        for col in range(grid.cols):
            x0, y0, x1, y1 = whole_box(grid, row, col)
            if x0 // tile != (x1 - 1) // tile or y0 // tile != (y1 - 1) // tile:
                continue
            down, right = y0 // tile, x0 // tile
            if down >= rows or right >= cols:  # beyond the last whole tile
                continue
            from_down, from_right = divmod(int(order[down * cols + right]), cols)
            step = tile // grid.stride
            to.append(row * grid.cols + col)
            origin.append((row + (from_down - down) * step) * grid.cols + col + (from_right - right) * step)
    return np.array(to, np.int64), np.array(origin, np.int64)


def run(setting: Setting) -> Outcome:
    """Shuffle the images that count, for the chosen BagNets and the networks to compare with.

    Raises:
        QueryError: the inputs are too small for tiles.
        BagindexError: a network or the pixels cannot be had.
    """
    image_ids = setting.few(IMAGES)
    transform = setting.catalog.manifest.plan.transform
    height, width = transform.crop_height, transform.crop_width
    sizes = tile_sizes(height, width, setting.record.grid.stride)
    if not sizes:
        raise QueryError(f"inputs of {width} × {height} pixels are too small for tiles")
    orders = _orders(image_ids, sizes, (height, width), setting.seed)
    found = _scrambled(setting, image_ids, orders)
    labels = labels_of(setting, image_ids)
    others = len({each.network for each in found}) - len(setting.models)
    return Outcome(
        experiment="scrambling",
        title=f"{len(image_ids):,} images whose tiles are shuffled",
        tables={"scrambling": _table(found, labels)},
        figures={"scrambling": _figure(found, labels), "images": _pictures(setting, orders, found)},
        beside=tuple(
            Beside(
                f"largest change of a patch's evidence within a tile of {each.tile} pixels ({each.network})",
                0.0,
                "section 2, by construction",
                each.difference,
                True,
            )
            for each in found
            if each.difference is not None
        ),
        remarks=(
            "A change of evidence is given over the largest evidence. That a patch within a tile keeps its evidence is "
            "a property of the model, whatever the images; how much the seams cost is a matter of weights and images.",
            *(
                ()
                if others
                else ("Give --against vgg16, or another network, to see what one that is no BagNet loses.",)
            ),
        ),
        settings={"images": len(image_ids), "tiles": list(sizes)},
    )


Orders = Mapping[int, Mapping[int, NDArray[np.int64]]]
"""By the tiles' size and the image."""


def _orders(image_ids: NDArray[np.int64], sizes: Sequence[int], shape: tuple[int, int], seed: int) -> Orders:
    """The same for all networks, whatever their order."""
    generator = np.random.default_rng(seed)
    return {
        size: {
            image_id: shuffled((shape[0] // size) * (shape[1] // size), generator) for image_id in image_ids.tolist()
        }
        for size in sizes
    }


def _scrambled(setting: Setting, image_ids: NDArray[np.int64], orders: Orders) -> list[Scrambled]:
    found = []
    for record, network in zip(setting.records, own_networks(setting), strict=True):
        found += _measure(setting, network, image_ids, orders, record.grid)
    for network in networks(setting):
        found += _measure(setting, network, image_ids, orders, None)
    return found


def _measure(
    setting: Setting, network: Network, image_ids: NDArray[np.int64], orders: Orders, grid: Grid | None
) -> list[Scrambled]:
    """What a network makes of the images as they are, and of each size of tiles."""
    device = find_device(setting.device)
    sizes: list[int | None] = [None, *orders]
    logits: dict[int | None, list[NDArray[np.float32]]] = {size: [] for size in sizes}
    largest = 0.0
    change: dict[int, float] = dict.fromkeys(orders, 0.0)
    within: dict[int, float] = {}
    at_once = AT_ONCE[device.type]
    network.module.to(device)
    try:
        for start in range(0, len(image_ids), at_once):
            setting.progress(f"{network.name}: shuffling tiles", start, len(image_ids))
            batch = image_ids[start : start + at_once].tolist()
            pixels = setting.pixels(batch)
            whole = np.stack([pixels[image_id] for image_id in batch])
            before, evidence = _outputs(network, whole, device, grid is not None)
            logits[None].append(before)
            for size, order in orders.items():
                changed = np.stack([scramble(pixels[image_id], size, order[image_id]) for image_id in batch])
                after, other = _outputs(network, changed, device, grid is not None)
                logits[size].append(after)
                if grid is None or evidence is None or other is None:
                    continue
                largest = max(largest, float(np.abs(evidence).max()))
                for place, image_id in enumerate(batch):
                    to, origin = within_tiles(grid, whole.shape[1], whole.shape[2], size, order[image_id])
                    within[size] = len(to) / grid.patches
                    if len(to):
                        difference = np.abs(other[place, to] - evidence[place, origin]).max()
                        change[size] = max(change[size], float(difference))
        setting.progress(f"{network.name}: shuffling tiles", len(image_ids), len(image_ids))
    finally:
        network.module.to("cpu")
    return [
        Scrambled(
            network.name,
            size,
            np.concatenate(logits[size]),
            within.get(size) if size else None,
            change[size] / largest if size and within.get(size) and largest else None,
        )
        for size in sizes
    ]


def _outputs(
    network: Network, pixels: NDArray[np.uint8], device: torch.device, patches: bool
) -> tuple[NDArray[np.float32], NDArray[np.float32] | None]:
    """Logits, float32 [N, C], and, of a BagNet, its patches', float32 [N, patches, C]."""
    with torch.inference_mode(), float32():
        inputs = network.normalise(torch.from_numpy(pixels).to(device))
        if not patches or not isinstance(network.module, BagOfPatches):
            return network.logits(inputs).cpu().numpy(), None
        evidence = network.module.evidence(inputs).flatten(1, 2)
        return evidence.mean(dim=1).cpu().numpy(), evidence.cpu().numpy()


def _pairs(found: Sequence[Scrambled]) -> list[tuple[Scrambled, Scrambled]]:
    """Each result beside that of the images as they are."""
    whole = {each.network: each for each in found if each.tile is None}
    return [(each, whole[each.network]) for each in found]


def _table(found: Sequence[Scrambled], labels: NDArray[np.int64]) -> pa.Table:
    rows = [
        {
            "network": each.network,
            "tile": each.tile,
            "images": len(each.logits),
            "labelled": int((labels >= 0).sum()),
            "top1": right(each.logits, labels, 1),
            "top5": right(each.logits, labels, TOP),
            "predicted_as_before": float((each.logits.argmax(axis=1) == whole.logits.argmax(axis=1)).mean()),
            "pearson_with_before": pearson(each.logits, whole.logits),
            "patches_within_tiles": each.within,
            "largest_change_within_tiles": each.difference,
        }
        for each, whole in _pairs(found)
    ]
    return pa.Table.from_pylist(rows)


def _figure(found: Sequence[Scrambled], labels: NDArray[np.int64]) -> Figure:
    """How alike the logits stay, and what accuracy is left, over the size of the tiles."""
    names = list(dict.fromkeys(each.network for each in found))
    sizes = sorted({each.tile for each in found if each.tile is not None})
    # The images as they are stand after the largest tiles.
    places = {size: place for place, size in enumerate([*sizes, None])}
    curves: list[tuple[str, Callable[[Scrambled, Scrambled], float | None]]] = [
        ("r with the logits before", lambda each, whole: pearson(each.logits, whole.logits)),
        ("top-1 accuracy", lambda each, _: right(each.logits, labels, 1)),
    ]
    with drawing.panels(len(curves), "size of the tiles (pixels)", "") as (figure, all_axes):
        for axes, (title, value) in zip(all_axes, curves, strict=True):
            axes.set_title(title)
            for name, colour in zip(names, drawing.colours(len(names)), strict=True):
                mine = [
                    (places[each.tile], value(each, whole)) for each, whole in _pairs(found) if each.network == name
                ]
                mine.sort(key=lambda point: point[0])
                shown = [(place, each) for place, each in mine if each is not None]
                if shown:
                    axes.plot(*zip(*shown, strict=True), color=colour, marker="o", markersize=3.5, label=name)
            axes.set_xticks(list(places.values()), [str(size) for size in sizes] + ["whole"])
            axes.set_ylim(0, 1.03)
            drawing.legend(axes)
    return figure


def _pictures(setting: Setting, orders: Orders, found: Sequence[Scrambled]) -> Figure:
    """A few images, whole and shuffled, and what each network takes them for."""
    any_size = next(iter(orders.values()))
    image_ids = list(any_size)
    shown = image_ids[:: max(1, len(image_ids) // _SHOWN)][:_SHOWN]
    pixels = setting.pixels(shown)
    names = [record.name for record in setting.classes]
    columns: list[list[drawing.Captioned]] = []
    for image_id in shown:
        place = image_ids.index(image_id)
        row = []
        for size in (None, *orders):
            picture = pixels[image_id] if size is None else scramble(pixels[image_id], size, orders[size][image_id])
            lines = [
                f"{each.network}: {names[int(each.logits[place].argmax())]}" for each in found if each.tile == size
            ]
            row.append(drawing.Captioned(picture, tuple(lines)))
        columns.append(row)
    heads = ["as it is", *(f"tiles of {size}" for size in orders)]
    return drawing.gallery(heads, columns)
