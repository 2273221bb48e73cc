"""Patches: the most class-evident, the most similar, and their pictures."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Header, Query, Request
from starlette.responses import Response

from bagindex import Index, render
from bagindex.choosing import Met
from bagindex.errors import OutdatedError
from bagindex.geometry import Box
from bagindex.maps import PictureBytes
from bagindex.results import TopPatches
from bagindex.service import pictures, shapes
from bagindex.service.answers import ARROW, JSON, as_json, as_picture, table
from bagindex.service.asking import Service
from bagindex.service.parameters import (
    Classes,
    ClassName,
    Count,
    IndexName,
    ModelName,
    NeededClass,
    Numbers,
    Offset,
    PathId,
    Picture,
    Version,
    Where,
    numbers,
    read_upload,
)
from bagindex.service.pools import About
from bagindex.service.problems import Problem
from bagindex.service.routes.adding import add, kind_of
from bagindex.similarity.results import SimilarPatches

Images = Literal["right_class", "wrong_class", "any"]
Metric = Literal["cosine", "l2"]
PerImage = Annotated[int, Query(description="How many of one image at most.", ge=1, le=1_000)]
_MOST_SEVERAL = 10_000
"""Patches that are looked for where an image may have several: all those before are found too."""
Tag = Annotated[str | None, Header(alias="If-None-Match", include_in_schema=False)]


def register(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    async def top_patches(
        request: Request,
        class_: NeededClass,
        images: Annotated[Images, Query(description="In images of the class, of others, or in all.")] = "right_class",
        k: Count = 7,
        per_image: PerImage = 1,
        overlap: Annotated[bool, Query(description="Let patches of one image overlap.")] = False,
        label: Annotated[str | None, Query(description="Only images with this label.", max_length=500)] = None,
        predicted_as: Annotated[
            str | None, Query(description="Only images that are predicted as this class.", max_length=500)
        ] = None,
        misclassified: Annotated[bool, Query(description="Only images that the model gets wrong.")] = False,
        where: Where = None,
        offset: Offset = 0,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """The patches with most evidence for a class: the paper's Figure 3.

        With `offset`, those that come after so many; of several per image, up to the 10,000th.
        """
        kind = kind_of(request, ["png"], arrow=True)
        if per_image > 1 and offset + k > _MOST_SEVERAL:
            raise Problem(422, "bad-parameters", f"with per_image, k + offset goes up to {_MOST_SEVERAL:,}")

        def ask(opened: Index, met: Met | None) -> Response:
            found = opened.top_patches(
                class_,
                wrong_class=images == "wrong_class",
                any_class=images == "any",
                k=k,
                per_image=per_image,
                overlap=overlap,
                label=label,
                predicted_as=predicted_as,
                misclassified=misclassified,
                where=met,
                offset=offset,
                model=model,
            )
            return _patches(found, kind)

        return await service.ask_where(index, where, model, ask, slow=kind == "png")

    async def similar(
        request: Request,
        patch: Annotated[int | None, Query(description="Id of the patch.", ge=0, le=2**62, examples=[1000])] = None,
        image: Annotated[int | None, Query(description="Instead: an image's id.", ge=0, le=2**62)] = None,
        box: Numbers = None,
        at: Numbers = None,
        k: Count = 10,
        other_images: Annotated[bool, Query(description="None of the same image.")] = False,
        overlap: Annotated[bool, Query(description="Let patches share pixels.")] = False,
        per_image: Annotated[int | None, Query(description="How many of one image at most.", ge=1, le=1_000)] = None,
        class_: ClassName = None,
        wrong_class: Annotated[bool, Query(description="Only labelled images of other classes.")] = False,
        where: Where = None,
        metric: Annotated[Metric, Query(description="What is near.")] = "cosine",
        exact: Annotated[bool, Query(description="Look at all patches.")] = False,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """The patches most like one: by the patch's id, or by an image and a box or a point in it.

        `box` is x0,y0,x1,y1 and `at` x,y, in pixels of the picture after EXIF rotation.
        """
        kind = kind_of(request, ["png"], arrow=True)
        ask = partial(
            _similar,
            kind,
            patch=patch,
            image=image,
            box=_box(box),
            at=_point(at),
            k=k,
            other_images=other_images,
            overlap=overlap,
            per_image=per_image,
            class_=class_,
            wrong_class=wrong_class,
            metric=metric,
            exact=exact,
            model=model,
        )
        return await service.ask_where(index, where, model, ask, slow=exact or kind == "png")

    async def similar_of_picture(
        request: Request,
        picture: Picture,
        box: Numbers = None,
        at: Numbers = None,
        k: Count = 10,
        overlap: Annotated[bool, Query(description="Let patches of one image share pixels.")] = False,
        per_image: Annotated[int | None, Query(description="How many of one image at most.", ge=1, le=1_000)] = None,
        class_: ClassName = None,
        wrong_class: Annotated[bool, Query(description="Only labelled images of other classes.")] = False,
        where: Where = None,
        metric: Annotated[Metric, Query(description="What is near.")] = "cosine",
        exact: Annotated[bool, Query(description="Look at all patches.")] = False,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """The patches most like one of a picture that is sent, at a box or a point in it."""
        kind = kind_of(request, ["png"], arrow=True)
        sent: PictureBytes = await read_upload(picture)
        ask = partial(
            _similar,
            kind,
            image=sent,
            box=_box(box),
            at=_point(at),
            k=k,
            overlap=overlap,
            per_image=per_image,
            class_=class_,
            wrong_class=wrong_class,
            metric=metric,
            exact=exact,
            model=model,
        )
        return await service.ask_where(index, where, model, ask, slow=True)

    async def patch(
        id_: PathId,
        class_: Classes = [],  # noqa: B006 (FastAPI copies it)
        k: Count = 5,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """A patch: its image, its place, its visual word, its largest logits and those for some classes."""
        return as_json(await service.ask(index, lambda opened: opened.patch(id_, class_, k=k, model=model)))

    async def patch_png(
        id_: PathId,
        model: ModelName = None,
        index: IndexName = None,
        v: Version = None,
        if_none_match: Tag = None,
    ) -> Response:
        """A patch, as the model saw it."""
        pool, about = await service.about(index)
        name = about.model(model) or ""
        etag = pictures.tag(about.version, name, id_)
        headers = pictures.keeping(about.version, v)
        if name and pictures.known(if_none_match, etag):
            return pictures.unchanged(etag, headers)
        key = pool.name, about.version, name, id_
        data = service.pngs.get(key) if name else None
        if data is None:

            def ask(opened: Index) -> bytes:
                _check_version(opened, about)
                image_id, _ = opened.place_of(id_, model=model)
                return pictures.encode(opened.cut_patch(service.pixels(opened, image_id), id_, model=model))

            data = await service.ask(index, ask)
            if name:
                service.pngs.put(key, data)
        return Response(data, headers={"ETag": etag, **headers}, media_type="image/png")

    async def image_png(
        id_: PathId,
        patch: Annotated[int | None, Query(description="Frame this patch.", ge=0, le=2**62)] = None,
        box: Annotated[
            str | None,
            Query(description="Frame this box of the model's input.", max_length=100, examples=["10,10,43,43"]),
        ] = None,
        model: ModelName = None,
        index: IndexName = None,
        v: Version = None,
        if_none_match: Tag = None,
    ) -> Response:
        """An image, as the model saw it; with a frame around a patch or a box, if one is given."""
        framed = numbers(box, 4, "box")
        if framed is not None and patch is not None:
            raise Problem(422, "bad-parameters", "patch and box exclude each other")
        pool, about = await service.about(index)
        name = about.model(model) or ""
        etag = pictures.tag(about.version, "image", id_, "" if patch is None else f"{name}.{patch}", *(framed or ()))
        headers = pictures.keeping(about.version, v)
        if (patch is None or name) and pictures.known(if_none_match, etag):
            return pictures.unchanged(etag, headers)

        def ask(opened: Index) -> bytes:
            _check_version(opened, about)
            place: Box | None = None if framed is None else (*map(int, framed),)  # type: ignore[assignment]
            if patch is not None:
                image_id, place = opened.place_of(patch, model=model)
                if image_id != id_:
                    raise Problem(422, "bad-parameters", f"patch {patch} is one of image {image_id}")
            pixels = service.pixels(opened, id_)
            return pictures.encode(pixels if place is None else pictures.with_box(pixels, place))

        key = pool.name, about.version, etag
        data = service.pngs.get(key)
        if data is None:
            data = await service.ask(index, ask)
            service.pngs.put(key, data)
        return Response(data, headers={"ETag": etag, **headers}, media_type="image/png")

    async def input_of_picture(picture: Picture, model: ModelName = None, index: IndexName = None) -> Response:
        """What the models see of a picture that is sent: after the resize and the crop."""
        sent = await read_upload(picture)

        def ask(opened: Index) -> Response:
            return as_picture(pictures.encode(opened.input_of(sent, model=model)), "png")

        return await service.ask(index, ask, slow=True)

    several = {"kinds": ["png"], "arrow": True}
    add(app, "/top-patches", top_patches, shapes.TopPatchList, **several)  # type: ignore[arg-type]
    add(app, "/similar", similar, shapes.SimilarList, **several)  # type: ignore[arg-type]
    add(app, "/similar", similar_of_picture, shapes.SimilarList, post=True, **several)  # type: ignore[arg-type]
    # A patch's picture before the patch: the latter's path fits both.
    add(app, "/patches/{id_}.png", patch_png, None, kinds=["png"], failures=(304,))
    add(app, "/input.png", input_of_picture, None, kinds=["png"], post=True)
    add(app, "/patches/{id_}", patch, shapes.PatchAccount)
    add(app, "/images/{id_}.png", image_png, None, kinds=["png"], failures=(304,))


def _patches(found: TopPatches, kind: str) -> Response:
    if kind == "png":
        return _sheet(found)
    return table(kind, found, {} if kind == ARROW else {"question": found.question, "patches": found.to_dicts()})


def _similar(kind: str, opened: Index, where: Met | None, **question: Any) -> Response:
    found = opened.similar(where=where, **question)
    return _sheet(found) if kind == "png" else table(kind, found, found.to_dict() if kind == JSON else {})


def _check_version(opened: Index, about: About) -> None:
    """What is sent and kept under an address is what the address names."""
    if opened.version != about.version:
        raise OutdatedError("the index was begun anew in this moment: ask again")


def _sheet(found: TopPatches | SimilarPatches) -> Response:
    with pictures.drawing():
        return as_picture(render.to_png(found.picture()), "png")


def _box(text: str | None) -> tuple[float, float, float, float] | None:
    found = numbers(text, 4, "box")
    return None if found is None else (found[0], found[1], found[2], found[3])


def _point(text: str | None) -> tuple[float, float] | None:
    found = numbers(text, 2, "at")
    return None if found is None else (found[0], found[1])
