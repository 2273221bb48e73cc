"""Images made into textures, and what networks make of them: the paper's Figure 5."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray

from bagindex.compute import find_device
from bagindex.errors import SettingsError
from bagindex.experiments import drawing, paper
from bagindex.experiments.accuracy import TOP
from bagindex.experiments.against import needed_networks, own_networks
from bagindex.experiments.comparing import other_data
from bagindex.experiments.experiment import Beside, Outcome, Setting
from bagindex.experiments.judging import labels_of, right
from bagindex.experiments.networks import Network
from bagindex.experiments.textures import Texture, synthesise, texture_layers

if TYPE_CHECKING:
    from matplotlib.figure import Figure

IMAGES = 8
"""Taken on a GPU where no number is asked for; one takes minutes on a CPU."""
STEPS = 200
_SHOWN = 6


@dataclass(frozen=True, eq=False)
class Texturised:
    """An image and its texture.

    Attributes:
        image_id: the image.
        label: its class, −1 where it has none.
        pixels: the image, uint8 [H, W, RGB].
        texture: made of it.
        seconds: that took.
    """

    image_id: int
    label: int
    pixels: NDArray[np.uint8]
    texture: Texture
    seconds: float


@dataclass(frozen=True, eq=False)
class Judged:
    """What a network makes of the images and of their textures: logits, float32 [N, C] each."""

    network: str
    before: NDArray[np.float32]
    after: NDArray[np.float32]


def run(setting: Setting) -> Outcome:
    """Make textures with the first network that can, VGG-16 before others, and ask all networks for their classes.

    Raises:
        QueryError: there is no network to compare with.
        SettingsError: none of them is a VGG or a ResNet.
        BagindexError: a network or the pixels cannot be had.
    """
    networks = needed_networks(setting, "texture synthesis")
    maker = choose(networks)
    found = _textures(setting, maker)
    judged = [_judge(setting, network, found) for network in (*own_networks(setting), *networks)]
    labels = np.array([each.label for each in found])
    mine = next(each for each in judged if each.network == maker.name)
    return Outcome(
        experiment="texturise",
        title=f"Textures of {len(found):,} {'image' if len(found) == 1 else 'images'}, made with {maker.origin}",
        tables={
            "texturise": _table(judged, labels),
            "images": _images(setting, found, mine),
            "losses": _losses(found),
        },
        figures={"texturise": _gallery(setting, found, judged), "losses": _loss_figure(found)},
        beside=_beside(setting, maker, mine, labels),
        remarks=_remarks(maker, labels),
        settings={"images": len(found), "steps": STEPS, "layers": list(texture_layers(maker.module))},
    )


def choose(networks: Sequence[Network]) -> Network:
    """The network that makes the textures: the paper's, if it is there, else the first that can.

    Raises:
        SettingsError: none can.
    """
    problems = []
    for network in sorted(networks, key=lambda each: each.name != paper.CORRELATION_WITH):
        try:
            texture_layers(network.module)
        except SettingsError as error:
            problems.append(error)
        else:
            return network
    raise problems[0]


def _textures(setting: Setting, maker: Network) -> list[Texturised]:
    image_ids = setting.few(IMAGES)
    labels = labels_of(setting, image_ids)
    device = find_device(setting.device)
    maker.module.to(device).requires_grad_(False)
    found = []
    try:
        for place, image_id in enumerate(image_ids.tolist()):
            pixels = np.array(setting.pixels([image_id])[image_id])
            started = time.monotonic()
            texture = synthesise(
                maker,
                pixels,
                STEPS,
                setting.seed,
                device,
                lambda done, total, place=place: setting.progress(  # type: ignore[misc]
                    f"{maker.name}: making textures", place * total + done, len(image_ids) * total
                ),
            )
            seconds = time.monotonic() - started
            found.append(Texturised(image_id, int(labels[place]), pixels, texture, seconds))
    finally:
        maker.module.to("cpu")
    return found


def _judge(setting: Setting, network: Network, found: Sequence[Texturised]) -> Judged:
    device = find_device(setting.device)
    network.module.to(device)
    try:
        logits = []
        for pixels in ([each.pixels for each in found], [each.texture.pixels for each in found]):
            with torch.inference_mode():
                rows = [network.logits(network.normalise(torch.from_numpy(each)[None].to(device))) for each in pixels]
            logits.append(torch.cat(rows).cpu().numpy())
    finally:
        network.module.to("cpu")
    return Judged(network.name, *logits)


def _table(judged: Sequence[Judged], labels: NDArray[np.int64]) -> pa.Table:
    rows = [
        {
            "network": each.network,
            "images": len(labels),
            "labelled": int((labels >= 0).sum()),
            "top1_before": right(each.before, labels, 1),
            "top1_after": right(each.after, labels, 1),
            "top5_before": right(each.before, labels, TOP),
            "top5_after": right(each.after, labels, TOP),
            "predicted_as_before": float((each.before.argmax(axis=1) == each.after.argmax(axis=1)).mean()),
        }
        for each in judged
    ]
    return pa.Table.from_pylist(rows)


def _images(setting: Setting, found: Sequence[Texturised], mine: Judged) -> pa.Table:
    names = [record.name for record in setting.classes]
    rows = [
        {
            "image_id": each.image_id,
            "label": names[each.label] if each.label >= 0 else None,
            "predicted_before": names[int(mine.before[place].argmax())],
            "predicted_after": names[int(mine.after[place].argmax())],
            "first_loss": float(each.texture.losses[0]),
            "last_loss": float(each.texture.losses[-1]),
            "steps": len(each.texture.losses) - 1,
            "seconds": round(each.seconds, 1),
        }
        for place, each in enumerate(found)
    ]
    return pa.Table.from_pylist(rows)


def _losses(found: Sequence[Texturised]) -> pa.Table:
    rows = [
        {"image_id": each.image_id, "step": step, "loss": float(loss)}
        for each in found
        for step, loss in enumerate(each.texture.losses)
    ]
    return pa.Table.from_pylist(rows)


def _beside(setting: Setting, maker: Network, mine: Judged, labels: NDArray[np.int64]) -> tuple[Beside, ...]:
    reasons = [other_data(setting)]
    if maker.name != paper.CORRELATION_WITH or not maker.published:
        reasons.append(f"{maker.origin}, not VGG-16 with the weights of the paper's time")
    why = "; ".join(reason for reason in reasons if reason)
    rows = []
    for when, logits in (("before", mine.before), ("after", mine.after)):
        share = right(logits, labels, TOP)
        text = f"top-5 accuracy of {maker.name} {when} its images are made into textures"
        rows.append(
            Beside(
                text,
                paper.TEXTURISED[when],
                paper.TEXTURISED_AT,
                None if share is None else 100 * share,
                not why,
                why,
                "%",
            )
        )
    return tuple(rows)


def _remarks(maker: Network, labels: NDArray[np.int64]) -> tuple[str, ...]:
    known = int((labels >= 0).sum())
    if not known:
        return ("No image has a label, so nothing is right or wrong: `bagindex relabel` gives them labels.",)
    return (f"Accuracies are those on {known} labelled {'image' if known == 1 else 'images'}: --limit takes more.",)


def _gallery(setting: Setting, found: Sequence[Texturised], judged: Sequence[Judged]) -> Figure:
    """Images above their textures, and what each network takes them for."""
    names = [record.name for record in setting.classes]
    shown = list(enumerate(found))[:_SHOWN]
    heads = [names[each.label] if each.label >= 0 else "unlabelled" for _, each in shown]

    def row(after: bool) -> list[drawing.Captioned]:
        return [
            drawing.Captioned(
                each.texture.pixels if after else each.pixels,
                tuple(
                    f"{one.network}: {names[int((one.after if after else one.before)[place].argmax())]}"
                    for one in judged
                ),
            )
            for place, each in shown
        ]

    return drawing.gallery(heads, [row(after=False), row(after=True)], width=min(6.75, 2.2 * len(shown)))


def _loss_figure(found: Sequence[Texturised]) -> Figure:
    with drawing.plot("step", "distance of the statistics") as (figure, axes):
        for each, colour in zip(found, drawing.colours(len(found)), strict=True):
            axes.plot(each.texture.losses, color=colour, linewidth=1, label=f"image {each.image_id}")
        drawing.logarithmic(axes)
        if len(found) <= _SHOWN:
            drawing.legend(axes)
    return figure
