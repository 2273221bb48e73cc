"""What there is: indexes, models, classes, images."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from bagindex import Index
from bagindex.choosing import Met
from bagindex.service import shapes
from bagindex.service.answers import ARROW, as_arrow, as_json, grid_shape, table
from bagindex.service.asking import Service
from bagindex.service.parameters import ClassName, Count, IndexName, ModelName, Offset, PathId, Where
from bagindex.service.routes.adding import add, kind_of

_MAPS = (("patches", False), ("words", True))
"""The maps that there may be, and whether they are of visual words."""

Order = Literal["id", "name", "images", "predicted", "correct", "accuracy"]


def register(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    async def indexes() -> Response:
        """The indexes that are served."""
        served = [await service.ask(name, _served) for name in service.pools]
        return as_json({"indexes": [{**each, "sql": service.settings.sql} for each in served]})

    async def info(index: IndexName = None) -> Response:
        """What an index holds: source, models, settings, sizes."""
        return as_json(await service.ask(index, _info))

    async def models(request: Request, index: IndexName = None) -> Response:
        """The models of an index."""
        kind = kind_of(request, arrow=True)
        found = await service.ask(index, _models)
        if kind != ARROW:
            return as_json({"models": found})
        import pyarrow as pa

        return as_arrow(pa.Table.from_pylist(found))

    async def classes(
        request: Request,
        search: Annotated[str, Query(description="Stands in the name or wnid.", max_length=200)] = "",
        order: Annotated[Order, Query(description="What they are sorted by; accuracy is correct / images.")] = "id",
        descending: Annotated[bool, Query(description="The largest first.")] = False,
        offset: Offset = 0,
        limit: Count = 100,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """The classes, with how many images have them as label, as prediction, and as both.

        Those whose name begins with `search` come first; by accuracy, classes without images come last.
        """
        kind = kind_of(request, arrow=True)

        def ask(opened: Index) -> Response:
            sort: dict[str, Any] = {"order": order, "descending": descending}
            page = opened.browse_classes(search, **sort, offset=offset, limit=limit, model=model)
            return table(kind, page, {"classes": page.to_dicts(), "total": page.total, "offset": page.offset})

        return await service.ask(index, ask)

    async def images(
        request: Request,
        label: Annotated[str | None, Query(description="Only with this label.", max_length=500)] = None,
        predicted: Annotated[str | None, Query(description="Only with this prediction.", max_length=500)] = None,
        class_: ClassName = None,
        correct: Annotated[bool | None, Query(description="Only right predictions, or only wrong ones.")] = None,
        labelled: Annotated[bool | None, Query(description="Only with a label, or only without.")] = None,
        where: Where = None,
        offset: Offset = 0,
        limit: Count = 100,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """The images and what a model predicts of them, page by page.

        `class` takes images that have the class as label or as prediction.
        """
        kind = kind_of(request, arrow=True)

        def ask(opened: Index, met: Met | None) -> Response:
            page = opened.browse_images(
                label=label,
                predicted=predicted,
                class_=class_,
                correct=correct,
                labelled=labelled,
                where=met,
                offset=offset,
                limit=limit,
                model=model,
            )
            return table(kind, page, {"images": page.to_dicts(), "total": page.total, "offset": page.offset})

        return await service.ask_where(index, where, model, ask)

    async def image(id_: PathId, model: ModelName = None, index: IndexName = None) -> Response:
        """An image: its file, its label, the five classes that a model finds most probable."""
        return as_json(await service.ask(index, lambda opened: opened.image(id_, model=model)))

    add(app, "/indexes", indexes, shapes.Indexes)
    add(app, "/info", info, shapes.Info)
    add(app, "/models", models, shapes.ModelList, arrow=True)
    add(app, "/classes", classes, shapes.ClassList, arrow=True)
    add(app, "/images", images, shapes.ImageList, arrow=True)
    add(app, "/images/{id_}", image, shapes.ImageShape)


def _served(index: Index) -> dict[str, Any]:
    return {
        "name": index.name,
        "models": [record.name for record in index.model_records()],
        "classes": len(index.classes),
        "images": index.image_count,
        "labelled": not index.unlabelled,
        "pixels": index.keeps_pixels,
        "input": dict(zip(("height", "width"), index.input_size, strict=True)),
        "version": index.version,
    }


def _info(index: Index) -> dict[str, Any]:
    found = index.info().to_dict()
    # Where it lies is nobody's business.
    del found["path"]
    return {**found, "labelled": not index.unlabelled, "version": index.version}


def _models(index: Index) -> list[dict[str, Any]]:
    found = []
    for record in index.model_records():
        right, labelled = index.right_images(record.name)
        found.append(
            {
                **record.model_dump(include={"name", "architecture", "width", "parameters", "feature_size"}),
                "grid": grid_shape(record.grid),
                "keep": record.keep.value,
                "words": index.words_made(record.name),
                "maps": [of for of, words in _MAPS if index.map_made(words=words, model=record.name)],
                "correct": right if labelled else None,
                "labelled": labelled,
            }
        )
    return found
