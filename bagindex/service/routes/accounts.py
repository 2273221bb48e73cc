"""Accounts of decisions, and visual words."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Path, Query, Request
from starlette.responses import Response

from bagindex import Index
from bagindex.accounts.shown import Account, PicturedAccount
from bagindex.maps import PictureBytes
from bagindex.service import account_shapes as shapes
from bagindex.service.answers import ARROW, JSON, as_arrow, as_json, as_picture, table
from bagindex.service.asking import Service
from bagindex.service.parameters import (
    ClassName,
    Count,
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
from bagindex.words.results import WordList

_KINDS = ["png", "svg", "pdf"]
_SLOW = frozenset({"png", "svg", "pdf", "html"})
Sides = Annotated[int, Query(description="How many patches and words on each side.", ge=1, le=25)]
Overlap = Annotated[bool, Query(description="Let the patches that are shown overlap.")]
Numbers = Annotated[
    list[Annotated[int, Query(ge=0, le=2**31)]],
    Query(description="Visual words, by their numbers.", min_length=1, max_length=200, examples=[[12, 40]]),
]


def register(app: FastAPI, service: Service) -> None:
    """Add the routes."""

    async def words(
        request: Request,
        class_: ClassName = None,
        wrong_class: Annotated[bool, Query(description="By what they add in images of other classes.")] = False,
        k: Count = 20,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """The visual words, or those that make a class's logit."""
        kind = kind_of(request, ["png", "html"], arrow=True)

        def ask(opened: Index) -> Response:
            return _words(opened.words(class_, wrong_class=wrong_class, k=k, model=model), kind)

        return await service.ask(index, ask, slow=kind in _SLOW)

    async def word(
        request: Request,
        word: Annotated[int, Path(description="Its number.", ge=0, le=2**31, examples=[3])],
        class_: ClassName = None,
        k: Count = 24,
        offset: Offset = 0,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """A visual word: what it says, in which labels' images it is, and of each image its strongest patch.

        Strongest for `class`; by default for the class that the word says most.
        """
        kind = kind_of(request, arrow=True)

        def ask(opened: Index) -> Response:
            found = opened.word(word, class_, k=k, offset=offset, model=model)
            return table(kind, found, found.to_dict() if kind == JSON else {})

        return await service.ask(index, ask)

    async def why(
        request: Request,
        image: ImageId,
        vs: Pair = None,
        class_: ClassName = None,
        k: Sides = 5,
        overlap: Overlap = False,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """Which patches and words an image's logit, or the margin between two classes, is the sum of."""
        return await _why(service, request, image, vs, class_, k, overlap, model, index)

    async def why_of_picture(
        request: Request,
        picture: Picture,
        vs: Pair = None,
        class_: ClassName = None,
        k: Sides = 5,
        overlap: Overlap = False,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """The same of a picture that is sent."""
        return await _why(service, request, await read_upload(picture), vs, class_, k, overlap, model, index)

    async def flip(request: Request, image: ImageId, model: ModelName = None, index: IndexName = None) -> Response:
        """The fewest patches of an image whose removal changes its prediction."""
        return await _flip(service, request, image, model, index)

    async def flip_of_picture(
        request: Request, picture: Picture, model: ModelName = None, index: IndexName = None
    ) -> Response:
        """The same of a picture that is sent."""
        return await _flip(service, request, await read_upload(picture), model, index)

    async def without(request: Request, word: Numbers, model: ModelName = None, index: IndexName = None) -> Response:
        """What accuracy becomes when some words' patches are taken out of every image; no model runs."""
        kind = kind_of(request, arrow=True)

        def ask(opened: Index) -> Response:
            found = opened.without(word, model=model)
            return _given(found, kind, found.to_dict() if kind == JSON else {})

        return await service.ask(index, ask)

    async def shortcuts(
        request: Request,
        class_: ClassName = None,
        k: Count = 10,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """Words that speak for a class in images of other classes, those that decide most errors first."""
        kind = kind_of(request, _KINDS, arrow=True)

        def ask(opened: Index) -> Response:
            found = opened.shortcuts(class_, k=k, model=model)
            return _given(found, kind, {"title": found.title, "said": found.words, "shortcuts": found.to_dicts()})

        return await service.ask(index, ask, slow=kind in _SLOW)

    async def confusions(request: Request, k: Count = 25, model: ModelName = None, index: IndexName = None) -> Response:
        """What is taken for what, the most frequent first, and the words that decide it."""
        kind = kind_of(request, _KINDS, arrow=True)

        def ask(opened: Index) -> Response:
            found = opened.confusions(k=k, model=model)
            return _given(found, kind, {"title": found.title, "said": found.words, "confusions": found.to_dicts()})

        return await service.ask(index, ask, slow=kind in _SLOW)

    async def label_errors(
        request: Request,
        class_: ClassName = None,
        k: Count = 20,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """Images whose own evidence speaks against their label, those first in which it speaks most strongly.

        With `class`, only images with that label. In the rows, `label` is what the model takes the image for.
        """
        kind = kind_of(request, _KINDS, arrow=True)

        def ask(opened: Index) -> Response:
            found = opened.label_errors(class_, k=k, model=model)
            return _given(found, kind, {"title": found.title, "said": found.words, "label_errors": found.to_dicts()})

        return await service.ask(index, ask, slow=kind in _SLOW)

    async def confusion_matrix(
        request: Request,
        class_: ClassName = None,
        k: Annotated[int, Query(description="How many classes at most.", ge=2, le=200)] = 20,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """How often each class is taken for each other: all classes, or those of the most frequent confusions.

        With `class`, that class and those that it is confused with most, in either direction.
        """
        kind = kind_of(request, arrow=True)

        def ask(opened: Index) -> Response:
            found = opened.confusion_matrix(class_, k=k, model=model)
            return _given(found, kind, found.to_dict() if kind == JSON else {})

        return await service.ask(index, ask)

    async def patch_map(
        request: Request,
        class_: ClassName = None,
        words: Annotated[bool, Query(description="Of the visual words, instead of patches.")] = False,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Response:
        """A map of patches, or of visual words: those lie together that look alike to the model.

        `bagindex map` makes it. Only who lies near whom means something.
        """
        kind = kind_of(request, _KINDS, arrow=True)

        def ask(opened: Index) -> Response:
            found = opened.patch_map(class_, words=words, model=model)
            return _given(found, kind, found.to_dict() if kind == JSON else {})

        return await service.ask(index, ask, slow=kind in _SLOW)

    add(app, "/map", patch_map, shapes.MapShape, kinds=_KINDS, arrow=True)
    add(app, "/words", words, shapes.WordListShape, kinds=["png", "html"], arrow=True)
    add(app, "/words/{word}", word, shapes.WordPatchesShape, arrow=True)
    add(app, "/why", why, shapes.WhyShape, kinds=_KINDS, arrow=True)
    add(app, "/why", why_of_picture, shapes.WhyShape, kinds=_KINDS, arrow=True, post=True)
    add(app, "/flip", flip, shapes.FlipShape, kinds=_KINDS, arrow=True)
    add(app, "/flip", flip_of_picture, shapes.FlipShape, kinds=_KINDS, arrow=True, post=True)
    add(app, "/without", without, shapes.WithoutShape, arrow=True)
    add(app, "/shortcuts", shortcuts, shapes.ShortcutList, kinds=_KINDS, arrow=True)
    add(app, "/confusions", confusions, shapes.ConfusionList, kinds=_KINDS, arrow=True)
    add(app, "/label-errors", label_errors, shapes.LabelErrorList, kinds=_KINDS, arrow=True)
    add(app, "/confusion-matrix", confusion_matrix, shapes.MatrixShape, arrow=True)


async def _why(
    service: Service,
    request: Request,
    image: int | PictureBytes,
    vs: list[str] | None,
    class_: str | None,
    k: int,
    overlap: bool,
    model: str | None,
    index: str | None,
) -> Response:
    kind = kind_of(request, _KINDS, arrow=True)

    def ask(opened: Index) -> Response:
        found = opened.why(image, vs=pair(vs), class_=class_, k=k, overlap=overlap, model=model)
        return _given(found, kind, found.to_dict() if kind == JSON else {})

    return await service.ask(index, ask, slow=kind in _SLOW or not isinstance(image, int))


async def _flip(
    service: Service, request: Request, image: int | PictureBytes, model: str | None, index: str | None
) -> Response:
    kind = kind_of(request, _KINDS, arrow=True)

    def ask(opened: Index) -> Response:
        found = opened.flip(image, model=model)
        return _given(found, kind, found.to_dict() if kind == JSON else {})

    return await service.ask(index, ask, slow=kind in _SLOW or not isinstance(image, int))


def _given(found: Account, kind: str, body: dict[str, Any]) -> Response:
    if kind == ARROW:
        return as_arrow(found.to_arrow())
    if kind == JSON or not isinstance(found, PicturedAccount):
        return as_json(body)
    with drawing():
        return as_picture(found.render(kind, 150 if kind == "png" else 300), kind)


def _words(found: WordList, kind: str) -> Response:
    if kind == ARROW:
        return as_arrow(found.to_arrow())
    if kind == JSON:
        return as_json(
            {
                "question": found.question,
                "model": found.model,
                "class": None if found.class_ is None else found.class_.name,
                "right_logit": found.right_logit,
                "wrong_logit": found.wrong_logit,
                "words": found.to_dicts(),
            }
        )
    with drawing():
        return as_picture(found.to_png(150) if kind == "png" else found.to_html().encode(), kind)
