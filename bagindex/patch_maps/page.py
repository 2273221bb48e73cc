"""A map as a page in one file, on which each point shows its patch: with the mouse, or with the keyboard's arrows."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import to_hex
from numpy.typing import NDArray

from bagindex.errors import NotKeptError
from bagindex.figures.page import data_uri, document, escape
from bagindex.figures.style import DIVERGING
from bagindex.patch_maps.drawing import OTHERS, limit_of, palette
from bagindex.text import logit_text

if TYPE_CHECKING:
    from bagindex.patch_maps.result import PatchMap, Point

_SIDE = 1000
"""Of the drawing, in its own units."""
_STYLE = """
.map { display: flex; flex-wrap: wrap; gap: 1.5rem; align-items: flex-start }
.map svg { flex: 1 1 28rem; max-width: 60rem; border: 1px solid #d4d4d8 }
.map circle { cursor: pointer }
.map circle.at { stroke: #18181b; stroke-width: 3 }
.map aside { flex: 0 0 14rem; position: sticky; top: 1rem }
.map .patch { width: 13rem; height: 13rem; image-rendering: pixelated; background: 0 / 0 no-repeat }
.key span { display: inline-block; margin-right: 1rem }
.key i { display: inline-block; width: .8em; height: .8em; border-radius: 50%; margin-right: .3em }
"""
_SCRIPT = """
const points = JSON.parse(document.getElementById("points").textContent);
const circles = document.querySelectorAll("#map circle");
const patch = document.getElementById("patch"), said = document.getElementById("said");
let at = -1;
function show(i) {
  if (at >= 0) circles[at].classList.remove("at");
  at = i;
  circles[i].classList.add("at");
  circles[i].parentNode.append(circles[i]);
  const each = points[i];
  said.textContent = each.said;
  if (patch) {
    const side = patch.clientWidth, cols = Number(patch.dataset.cols);
    patch.style.backgroundSize = `${cols * side}px auto`;
    patch.style.backgroundPosition = `${-(i % cols) * side}px ${-Math.floor(i / cols) * side}px`;
  }
}
const all = [...circles];
all.forEach((circle, i) => circle.addEventListener("mouseenter", () => show(i)));
const ahead = {
  ArrowLeft: (x, y) => [-x, y], ArrowRight: (x, y) => [x, y], ArrowUp: (x, y) => [-y, x], ArrowDown: (x, y) => [y, x],
};
document.getElementById("map").addEventListener("keydown", (event) => {
  const turn = ahead[event.key];
  if (!turn) return;
  event.preventDefault();
  if (at < 0) return show(0);
  let best = -1, least = Infinity;
  points.forEach((each, i) => {
    const [forward, aside] = turn(each.x - points[at].x, each.y - points[at].y);
    const far = forward + 2 * Math.abs(aside);
    if (forward > 0 && far < least) [best, least] = [i, far];
  });
  if (best >= 0) show(best);
});
if (patch) patch.style.backgroundImage = `url(${document.getElementById("patches").src})`;
"""


def page(found: PatchMap) -> str:
    """The page. An index without pixels has one that shows no patches."""
    places = _placed(found)
    colours = _colours(found)
    radius = round(max(3.0, min(9.0, 170 / len(places) ** 0.5)), 1)
    circles = "".join(
        f'<circle cx="{x:g}" cy="{y:g}" r="{radius}" fill="{colour}"/>'
        for (x, y), colour in zip(places.tolist(), colours, strict=True)
    )
    points = [{"x": x, "y": y, "said": _said(each)} for (x, y), each in zip(places.tolist(), found.points, strict=True)]
    about = escape(f"{found.title}. The arrow keys go from point to point.")
    # Text in a script element ends where it says so.
    data = json.dumps(points, ensure_ascii=False).replace("<", "\\u003c")
    body = (
        f"<style>{_STYLE}</style>\n<h1>{escape(found.title)}</h1>\n<p>{escape(found.words)} "
        f"With the mouse on a point, or by the arrow keys, its patch is shown.</p>\n{_key(found)}"
        f'<div class="map">\n<svg id="map" viewBox="0 0 {_SIDE} {_SIDE}" tabindex="0" role="application" '
        f'aria-label="{about}">{circles}</svg>\n'
        f'<aside>{_sprite(found)}<p id="said" role="status">Point at one of the points.</p></aside>\n</div>\n'
        f'<script type="application/json" id="points">{data}</script>\n<script>{_SCRIPT}</script>\n'
    )
    return document(found.title, body)


def _placed(found: PatchMap) -> NDArray[np.float64]:
    """Points on the drawing, y downwards, float64 [n, 2]."""
    places = np.array([[each.x, -each.y] for each in found.points])
    low, high = places.min(axis=0), places.max(axis=0)
    middle, size = (low + high) / 2, max(float((high - low).max()), 1e-9)
    placed: NDArray[np.float64] = np.round(_SIDE / 2 + (places - middle) / size * 0.96 * _SIDE, 1)
    return placed


def _colours(found: PatchMap) -> list[str]:
    if found.asked is None:
        colours = palette(found.points)
        return [colours.get(each.class_, OTHERS) for each in found.points]
    limit, shades = limit_of(found.points), colormaps[DIVERGING]
    return [to_hex(shades(float(np.clip(each.logit / limit, -1, 1)) / 2 + 0.5)) for each in found.points]


def _key(found: PatchMap) -> str:
    if found.asked is not None:
        limit = logit_text(limit_of(found.points))
        return (
            f"<p>Red speaks for {escape(found.asked.name)}, blue against it; colours end at a logit of {limit}.</p>\n"
        )
    colours = palette(found.points)
    others = {"others": OTHERS} if {each.class_ for each in found.points} - colours.keys() else {}
    items = "".join(
        f'<span><i style="background:{colour}"></i>{escape(name)}</span>'
        for name, colour in {**colours, **others}.items()
    )
    return f'<p class="key">{items}</p>\n'


def _said(each: Point) -> str:
    word = "" if each.word is None else f"word {each.word}, "
    label = "unlabelled" if each.label is None else f"labelled {each.label}"
    return f"{word}{each.class_} {logit_text(each.logit)}: patch {each.patch_id} of image {each.image_id}, {label}"


def _sprite(found: PatchMap) -> str:
    """All patches in one picture, that are shown one at a time."""
    try:
        patches = found.pictures()
    except NotKeptError:
        return ""
    side = patches[0].shape[0]
    cols = max(1, round(len(patches) ** 0.5))
    sheet = np.full((-(-len(patches) // cols) * side, cols * side, 3), 255, np.uint8)
    for place, patch in enumerate(patches):
        row, col = divmod(place, cols)
        sheet[row * side : (row + 1) * side, col * side : (col + 1) * side] = patch
    picture = data_uri(sheet, "jpeg")
    return f'<img id="patches" alt="" hidden src="{picture}"><div id="patch" class="patch" data-cols="{cols}"></div>'
