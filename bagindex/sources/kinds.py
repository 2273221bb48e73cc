"""How a place holds pictures, from what is there."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum

from bagindex.errors import SourceError
from bagindex.sources import left_out
from bagindex.sources.files import is_pattern
from bagindex.sources.folders import PICTURE_ENDINGS

_LOOKED_AT = 200
"""Files of each folder that are looked at to know what is in it."""


class SourceKind(StrEnum):
    """How a place holds pictures; `auto` looks."""

    AUTO = "auto"
    FOLDER = "folder"
    PARQUET = "parquet"
    ARROW = "arrow"
    WEBDATASET = "webdataset"
    CROPS = "crops"


ENDINGS: Mapping[SourceKind, tuple[str, ...]] = {
    SourceKind.PARQUET: (".parquet",),
    SourceKind.ARROW: (".arrow",),
    SourceKind.WEBDATASET: (".tar",),
    SourceKind.CROPS: (".csv", ".json"),
}


def at_place(place: str, folder: bool = False) -> SourceKind:
    """What is at a place of the local disk; `folder`: where it is a folder, it is one of pictures.

    Raises:
        SourceError: a file of no known kind, or a folder that may be read in several ways.
    """
    if os.path.isfile(place) or is_pattern(place):
        if kind := of_file(place):
            return kind
        known = ", ".join(ending for endings in ENDINGS.values() for ending in endings)
        raise SourceError(f"the source {place} is not a folder: give a folder of pictures, or a file of {known}")
    if os.path.isdir(place) and not folder:
        return of_names(place, _names(place))
    return SourceKind.FOLDER


def of_names(place: str, folders: Iterable[tuple[int, list[str]]]) -> SourceKind:
    """What is at a place, from the names in its folders, and how deep each folder lies: files that hold many pictures,
    or pictures and folders of them.

    Raises:
        SourceError: it may be read in several ways.
    """
    held: dict[SourceKind, str] = {}
    pictures: str | None = None
    for depth, names in folders:
        picture = next((name for name in names if os.fsencode(name).lower().endswith(PICTURE_ENDINGS)), None)
        pictures = pictures or picture
        if picture is None or depth == 0:  # what lies among the pictures of a class is none of a data set's files
            for name in names:
                kind = of_file(name)
                if kind is not None and kind is not SourceKind.CROPS:  # lists lie in every folder
                    held.setdefault(kind, name)
    if pictures is not None:
        held[SourceKind.FOLDER] = pictures
    if len(held) > 1:
        which = " or ".join(f"--source-kind {kind} ({name})" for kind, name in held.items())
        raise SourceError(f"{place} may be read in several ways: say {which}")
    return next(iter(held), SourceKind.FOLDER)


def _names(folder: str) -> Iterator[tuple[int, list[str]]]:
    """The names in a folder, and some of those in the folders below, with how deep they lie."""
    pending = [(folder, 0)]
    while pending:
        top, depth = pending.pop()
        names: list[str] = []
        try:
            with os.scandir(top) as children:
                for child in children:
                    if left_out(os.fsencode(child.name)):
                        continue
                    if child.is_dir():
                        if depth < 2:
                            pending.append((child.path, depth + 1))
                    elif len(names) < _LOOKED_AT or depth == 0:
                        names.append(child.name)
                    else:
                        break
        except OSError:
            continue  # opening it says what is wrong
        yield depth, names


def of_file(name: str) -> SourceKind | None:
    """What a file holds, by its ending; None where it does not hold many pictures."""
    return next((kind for kind, endings in ENDINGS.items() if name.lower().endswith(endings)), None)
