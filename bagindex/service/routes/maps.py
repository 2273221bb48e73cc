"""Where in an image the evidence is, and what decides: heatmaps and explanations."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from bagindex import Index
from bagindex.explanations import Explanation, Explanations
from bagindex.geometry import to_source
from bagindex.heatmaps import Heatmap
from bagindex.maps import PictureBytes
from bagindex.service import shapes
from bagindex.service.answers import JSON, as_json, as_picture, grid_shape
from bagindex.service.asking import Service
from bagindex.service.parameters import (
    Alpha,
    Classes,
    ImageId,
    IndexName,
    ModelName,
    Offset,
    Pair,
    Picture,
    pair,
    read_upload,
)
from bagindex.service.pictures import drawing
from bagindex.service.routes.adding import add, kind_of

Beneath = Annotated[
    Literal["edges", "image", "none"] | None, Query(description="What is seen beneath the colours, in a picture.")
]
Dense = Annotated[bool, Query(description="Evidence of the patch around every pixel, which the model computes.")]
Shared = Annotated[bool, Query(description="One colour scale for all classes.")]
Shown = Annotated[int, Query(description="How many patches are shown for each.", ge=1, le=25)]
Overlap = Annotated[bool, Query(description="Let the patches that are shown overlap.")]
_KINDS = ["png", "svg", "pdf"]


def register(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    async def heatmap(
        request: Request,
        image: ImageId,
        class_: Classes = [],  # noqa: B006 (FastAPI copies it)
        dense: Dense = False,
        shared_scale: Shared = False,
        beneath: Beneath = None,
        alpha: Alpha = 1.0,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """Where in an image the evidence for some classes is: the paper's Figure 2."""
        drawn = {"shared_scale": shared_scale, "beneath": beneath, "alpha": alpha}
        return await _heatmap(service, request, image, class_, dense, drawn, model, index)

    async def heatmap_of_picture(
        request: Request,
        picture: Picture,
        class_: Classes = [],  # noqa: B006
        dense: Dense = False,
        shared_scale: Shared = False,
        beneath: Beneath = None,
        alpha: Alpha = 1.0,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """Where in a picture that is sent the evidence for some classes is."""
        drawn = {"shared_scale": shared_scale, "beneath": beneath, "alpha": alpha}
        return await _heatmap(service, request, await read_upload(picture), class_, dense, drawn, model, index)

    async def explain(
        request: Request,
        image: ImageId,
        vs: Pair = None,
        patches: Shown = 3,
        overlap: Overlap = False,
        beneath: Beneath = None,
        alpha: Alpha = 1.0,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """What in an image speaks for two classes, and what decides between them: the paper's Figure 4."""
        drawn = {"patches": patches, "overlap": overlap, "beneath": beneath, "alpha": alpha}
        return await _explain(service, request, image, vs, drawn, model, index)

    async def explain_picture(
        request: Request,
        picture: Picture,
        vs: Pair = None,
        patches: Shown = 3,
        overlap: Overlap = False,
        beneath: Beneath = None,
        alpha: Alpha = 1.0,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """What in a picture that is sent speaks for two classes, and what decides between them."""
        drawn = {"patches": patches, "overlap": overlap, "beneath": beneath, "alpha": alpha}
        return await _explain(service, request, await read_upload(picture), vs, drawn, model, index)

    async def explain_confused(
        request: Request,
        label: Annotated[str, Query(description="The images' class.", max_length=500, examples=["fish"])],
        predicted: Annotated[str, Query(description="What they are taken for.", max_length=500, examples=["tree"])],
        k: Annotated[int, Query(description="How many images.", ge=1, le=25)] = 3,
        offset: Offset = 0,
        patches: Shown = 3,
        overlap: Overlap = False,
        beneath: Beneath = None,
        alpha: Alpha = 1.0,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """Explain images of one class that the model takes for another, those of which it is most sure first."""
        kind = kind_of(request, _KINDS)

        def ask(opened: Index) -> Response:
            drawn: dict[str, Any] = {"patches": patches, "overlap": overlap, "beneath": beneath, "alpha": alpha}
            found = opened.explain_confused(label, predicted, k=k, offset=offset, model=model, **drawn)
            if kind != JSON:
                return _drawn(found, kind)
            return as_json({"explanations": found.to_dicts()})

        return await service.ask(index, ask, slow=kind != JSON)

    add(app, "/heatmap", heatmap, shapes.HeatmapShape, kinds=_KINDS)
    add(app, "/heatmap", heatmap_of_picture, shapes.HeatmapShape, kinds=_KINDS, post=True)
    add(app, "/explain", explain, shapes.ExplanationShape, kinds=_KINDS)
    add(app, "/explain", explain_picture, shapes.ExplanationShape, kinds=_KINDS, post=True)
    add(app, "/explain/confused", explain_confused, shapes.ExplanationList, kinds=_KINDS)


async def _heatmap(
    service: Service,
    request: Request,
    image: int | PictureBytes,
    classes: list[str],
    dense: bool,
    drawn: dict[str, Any],
    model: str | None,
    index: str | None,
) -> Response:
    kind = kind_of(request, _KINDS)

    def ask(opened: Index) -> Response:
        found = opened.heatmap(image, classes=classes, dense=dense, model=model, **drawn)
        return _drawn(found, kind) if kind != JSON else as_json(_map(found))

    return await service.ask(index, ask, slow=dense or kind != JSON or not isinstance(image, int))


async def _explain(
    service: Service,
    request: Request,
    image: int | PictureBytes,
    vs: list[str] | None,
    drawn: dict[str, Any],
    model: str | None,
    index: str | None,
) -> Response:
    kind = kind_of(request, _KINDS)

    def ask(opened: Index) -> Response:
        found = opened.explain(image, vs=pair(vs), model=model, **drawn)
        return _drawn(found, kind) if kind != JSON else as_json(found.to_dict())

    return await service.ask(index, ask, slow=kind != JSON or not isinstance(image, int))


def _map(found: Heatmap) -> dict[str, Any]:
    return {
        "image_id": found.image.image_id,
        "image": found.image.name,
        "model": found.model,
        "predicted": found.predicted.name,
        "top": [each.to_dict() for each in found.top],
        "source_box": to_source((0, 0, found.shape[1], found.shape[0]), found.image.placement),
        "grid": grid_shape(found.grid),
        "maps": found.to_dicts(),
    }


def _drawn(found: Heatmap | Explanation | Explanations, kind: str) -> Response:
    with drawing():
        return as_picture(found.render(kind, 150 if kind == "png" else 300), kind)
