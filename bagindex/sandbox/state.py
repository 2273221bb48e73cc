"""What a worker has to know of an index, and whether it still holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bagindex.catalog import Catalog, current
from bagindex.errors import OutdatedError
from bagindex.query import remedy
from bagindex.remote.places import PROTOCOL
from bagindex.sandbox.gate import TABLES, Names
from bagindex.sql_names import MACROS
from bagindex.store import IndexDirectory

_TRIES = 4
_FAR = (
    "{} reads files of an object store, which a query in the sandbox cannot: it has no network. Ask `bagindex sql` "
    "without --safe, or a copy of the index on a disk"
)
Stamp = tuple[int, int, int]


@dataclass(frozen=True)
class State:
    """An index as a catalog describes it.

    Attributes:
        stamp: of the file that names the catalog; another one means another catalog.
        root: the index's folder, absolute.
        catalog: its file.
        views: SELECTs on absolute paths, by the names of the views.
        names: what a query may speak of.
    """

    stamp: Stamp
    root: Path
    catalog: Path
    views: Mapping[str, str]
    names: Names


def stamp(directory: IndexDirectory) -> Stamp:
    """What changes when another catalog comes into force.

    Raises:
        IncompleteIndexError: there is none yet.
        DamagedIndexError: CURRENT names none.
    """
    try:
        found = os.stat(directory.root / "CURRENT")
    except FileNotFoundError:
        current(directory)
        raise
    return found.st_ino, found.st_mtime_ns, found.st_size


def read(directory: IndexDirectory) -> State:
    """The index's state now.

    Raises:
        IncompleteIndexError: its build has not finished.
        DamagedIndexError: its catalog cannot be read.
        OutdatedError: it changes again and again.
    """
    for _ in range(_TRIES):
        with suppress(OutdatedError):
            return _read(directory)
    return _read(directory)


def _read(directory: IndexDirectory) -> State:
    before = stamp(directory)
    opened = Catalog(directory)
    try:
        tables, macros = opened.names()
        views = opened.view_bodies()
    finally:
        opened.close()
    known = {*(TABLES), *MACROS}
    remedies = {name: text for name in known - {*tables, *macros, *views} if (text := remedy(opened, name))}
    far = {view for view, body in views.items() if PROTOCOL in body}
    macros = [macro for macro in macros if far.isdisjoint(MACROS.get(macro, ()))]
    views = {view: body for view, body in views.items() if view not in far}
    remedies |= {
        name: _FAR.format(name) for name in (*far, *MACROS) if not far.isdisjoint((name, *MACROS.get(name, ())))
    }
    directory.whole(opened.file)
    root = directory.root.resolve()
    names = Names(frozenset({*tables, *views}), frozenset(macros), remedies)
    return State(before, root, root / opened.file.name, views, names)
