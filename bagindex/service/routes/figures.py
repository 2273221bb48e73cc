"""Figure 3 and reports."""

from __future__ import annotations

from typing import Annotated

from fastapi import FastAPI, Query, Request
from starlette.responses import Response

from bagindex import Index
from bagindex.figure3 import Figure3
from bagindex.service.answers import as_picture
from bagindex.service.asking import Service
from bagindex.service.parameters import Classes, IndexName, Models, NeededClass
from bagindex.service.pictures import drawing
from bagindex.service.routes.adding import add, kind_of

_KINDS = ["png", "svg", "html", "pdf"]
Each = Annotated[int, Query(description="How many patches in each subrow.", ge=1, le=25)]


def register(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    async def figure3(
        request: Request,
        class_: Classes = [],  # noqa: B006 (FastAPI copies it)
        model: Models = [],  # noqa: B006
        k: Each = 7,
        index: IndexName = None,
    ) -> Response:
        """The paper's Figure 3: the patches with most evidence, by class and model, in right and in wrong images."""
        kind = kind_of(request, _KINDS, json_too=False)

        def ask(opened: Index) -> Response:
            return _figure3(opened.figure3(class_, models=model, k=k), kind)

        return await service.ask(index, ask, slow=True)

    async def report(class_: NeededClass, model: Models = [], k: Each = 7, index: IndexName = None) -> Response:  # noqa: B006
        """A page about a class: its rows of Figure 3, accuracy, confusions, where its evidence lies, its images."""

        def ask(opened: Index) -> Response:
            with drawing():
                return as_picture(opened.report(class_, models=model, k=k).to_html().encode(), "html")

        return await service.ask(index, ask, slow=True)

    add(app, "/figure3", figure3, None, kinds=_KINDS)
    add(app, "/report", report, None, kinds=["html"])


def _figure3(found: Figure3, kind: str) -> Response:
    with drawing():
        if kind == "html":
            return as_picture(found.to_html().encode(), kind)
        return as_picture({"png": found.to_png, "svg": found.to_svg, "pdf": found.to_pdf}[kind](), kind)
