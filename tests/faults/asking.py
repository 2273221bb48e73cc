"""Everything that is asked of an index, as text that can be compared: what reads each kind of its files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from bagindex import Index
from bagindex.errors import BagindexError, DamagedIndexError

Answers = Mapping[str, tuple[str, str]]
"""For each question: `answer` and what it is, or `refused` and why, or `raised` and what."""
OPENING = "open"
"""The question that is asked first: who cannot open an index asks no other."""
_EACH = 4
"""Of so many images, one is asked about where asking takes long."""


def _images(index: Index, model: str) -> list[int]:
    return [row["image_id"] for row in index.browse_images(limit=100, model=model).to_dicts()]


def _info(index: Index) -> str:
    info = index.info()
    problems = [problem for model in info.models for problem in model.problems]
    if problems or not info.complete:  # it says so
        raise DamagedIndexError("; ".join(problems) or "not complete")
    here = dict.fromkeys(("name", "path", "bytes"))  # that it lies elsewhere, or is larger, is no other answer
    return _text([info.to_dict() | here])


def _patches(index: Index) -> str:
    return _text(
        [
            index.top_patches(record.name, k=20, per_image=per_image, model=model).to_dicts()
            for per_image, model in enumerate((index.models[-1], index.models[0]), start=1)
            for record in index.classes
        ]
    )


def _crops(index: Index) -> str:
    pixels = [index.top_patches(record.name, k=20, model=index.models[0]).crops() for record in index.classes]
    return _text([crop.tobytes().hex() for crops in pixels for crop in crops])


def _similar(index: Index, **options: Any) -> str:
    model = index.model_records()[0] if index.model_records() else index._model(None)
    images = _images(index, model.name)[::_EACH]
    ids = [image * model.grid.patches + image % model.grid.patches for image in images]
    return _text([index.similar(patch, k=5, model=model.name, **options).to_dicts() for patch in ids])


def _heatmaps(index: Index) -> str:
    names = [record.name for record in index.classes]
    return _text(
        [
            index.heatmap(image, classes=names, model=model).values.tolist()
            for model in index.models
            for image in _images(index, model)[::_EACH]
        ]
    )


def _why(index: Index) -> str:
    model = index.models[0]
    found = [index.why(image, model=model) for image in _images(index, model)[::_EACH]]
    if found[0].no_words:  # it does without, and says so
        raise DamagedIndexError(found[0].no_words)
    return _text([each.to_dicts() for each in found])


def _accounts(index: Index) -> str:
    model = index.models[0]
    return _text(
        [
            *[index.flip(image, model=model).to_dicts() for image in _images(index, model)[::_EACH]],
            index.without(0, model=model).to_dicts(),
            index.shortcuts(model=model).to_dicts(),
            index.confusions(model=model).to_dicts(),
        ]
    )


def _words(index: Index) -> str:
    model = index.models[0]
    lists = [index.words(record.name, model=model).to_dicts() for record in index.classes]
    return _text([index.words(model=model).to_dicts(), *lists, index.word(0, model=model).to_dicts()])


def _figure3(index: Index) -> str:
    figure = index.figure3([record.name for record in index.classes])
    return _text([subrow.patches.to_dicts() for subrow in figure])


def _sql(view: str) -> Callable[[Index], str]:
    def ask_view(index: Index) -> str:
        return _text(index.sql(f"FROM {view} ORDER BY ALL").to_dicts())

    return ask_view


_TABLES = ("classes", "models", "images", "rejects")
_VIEWS = ("predictions", "image_evidence", "evidence", "features", "pixels", "words", "word_evidence", "patch_words")
_MACROS = ("evidence_of(0)",)
QUESTIONS: Mapping[str, Callable[[Index], str]] = {
    OPENING: lambda index: _text([index.image_count, str(index.models)]),
    "info": _info,
    "top_patches": _patches,
    "crops": _crops,
    "similar": lambda index: _similar(index),
    "similar, exact": lambda index: _similar(index, exact=True),
    "similar, l2": lambda index: _similar(index, metric="l2"),
    "heatmap": _heatmaps,
    "why": _why,
    "accounts": _accounts,
    "words": _words,
    "figure3": _figure3,
    **{f"sql {view}": _sql(view) for view in _TABLES + _VIEWS + _MACROS},
}


def ask(folder: Path, names: Collection[str] = ()) -> Answers:
    """Open an index and ask all questions, or those of some names."""
    found: dict[str, tuple[str, str]] = {}
    try:
        index = Index.open(folder)
    except BagindexError as error:
        return {OPENING: ("refused", str(error))}
    with index:
        for name in names or QUESTIONS:
            try:
                found[name] = ("answer", QUESTIONS[name](index))
            except BagindexError as error:
                found[name] = ("refused", str(error))
            except Exception as error:
                found[name] = ("raised", f"{type(error).__name__}: {error}")
            if name == OPENING and found[name][0] != "answer":
                break
    return found


def check(folder: Path, data: bool = True) -> list[str]:
    """What `verify --data` finds, or `verify`; where it cannot begin, that."""
    try:
        return Index.open(folder).verify(data=data).problems
    except BagindexError as error:
        return [str(error)]


def _text(value: object) -> str:
    return hashlib.sha256(json.dumps(value, default=str, sort_keys=True).encode()).hexdigest()
