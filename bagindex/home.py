"""Where indexes live, and which one is meant."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

import platformdirs

from bagindex.archived import archived_at, is_archive, open_archive
from bagindex.errors import DamagedIndexError, IndexNotFoundError, NewerIndexError, SettingsError
from bagindex.remote.places import MIRRORED, is_url, local_path
from bagindex.store import COPY, IMAGES, INDEX, IndexDirectory
from bagindex.text import did_you_mean, near, some

if TYPE_CHECKING:
    from bagindex.remote.mirror import Mirror


def home() -> Path:
    """`BAGINDEX_HOME`, else the platform's folder for data.

    Raises:
        SettingsError: it is a URL, or a file.
    """
    found = os.environ.get("BAGINDEX_HOME") or platformdirs.user_data_path("bagindex")
    if is_url(found):
        raise SettingsError(f"BAGINDEX_HOME is a folder, not {found}: name an index in an object store by its URL")
    if os.path.isfile(found):
        raise SettingsError(f"BAGINDEX_HOME is a folder, not {found}, which is a file: name another, or unset it")
    return Path(found)


def at(place: str | os.PathLike[str]) -> IndexDirectory:
    """The index at a path or URL, which may not be there yet.

    Raises:
        SettingsError, StoreError: it is a URL of an object store that cannot be reached, or of none.
    """
    path = Path(local_path(place))
    mirror = None if is_url(place) else mirror_of(path)
    if mirror is None and not is_url(place):
        return archived_at(path) or IndexDirectory(path)
    from bagindex.remote.directory import RemoteDirectory

    return RemoteDirectory.at(os.fspath(place)) if mirror is None else RemoteDirectory.of(mirror)


def mirror_of(root: Path) -> Mirror | None:
    """The mirror of a remote index that this folder is; None where it is none."""
    if not (root.parent / MIRRORED).is_file():
        return None
    from bagindex.remote.mirror import mirror_at

    return mirror_at(root)


def named(name: str) -> IndexDirectory:
    """The place of the index of that name.

    Raises:
        SettingsError: no index can be called so.
    """
    if not re.fullmatch(r"[^\W_][\w. -]{0,99}", name):
        raise SettingsError(f"an index cannot be called {name!r}: use up to 100 letters, digits, spaces, dots, - and _")
    return IndexDirectory(home() / name)


def all_indexes() -> list[IndexDirectory]:
    """The indexes under `home()`, by name."""
    if not home().is_dir():
        return []
    return [directory for path in sorted(home().iterdir()) if (directory := IndexDirectory(path)).exists()]


def for_source(name: str, location: str) -> IndexDirectory:
    """The first of `name`, `name-2` … that no index has, or that the index of the source at `location` has."""
    base = re.sub(r"[^\w. -]", "-", name).lstrip("_. -") or "index"
    number = 1
    while True:
        directory = named(base if number == 1 else f"{base}-{number}")
        if not directory.exists() or _location(directory) == location:
            return directory
        number += 1


def find(which: str | os.PathLike[str] | None) -> tuple[IndexDirectory, str | None]:
    """The index that is meant, and a remark for the user where a choice was made.

    Args:
        which: a name or a path; None means `BAGINDEX_INDEX`, else the only one there is, else the latest built.

    Raises:
        IndexNotFoundError: there is none.
    """
    if which is not None and os.fspath(which):
        return _given(os.fspath(which)), None
    if named_by_environment := os.environ.get("BAGINDEX_INDEX"):
        try:
            return _given(named_by_environment), None
        except IndexNotFoundError as error:
            raise IndexNotFoundError(f"{error} (BAGINDEX_INDEX names it)") from None
    directories = all_indexes()
    if not directories:
        raise IndexNotFoundError(
            f"there is no index under {home()} yet: make one with `bagindex build SOURCE --weights FILE`"
        )
    if len(directories) == 1:
        return directories[0], None
    latest = max(directories, key=_built)
    names = some([directory.root.name for directory in directories])
    return latest, f"using the latest index, {latest.root.name} (-i chooses: {names})"


def _location(directory: IndexDirectory) -> str | None:
    try:
        return directory.manifest().plan.source.location
    except (DamagedIndexError, NewerIndexError):
        return None


def _given(which: str) -> IndexDirectory:
    if is_url(which):
        directory = at(which)
        if not directory.exists():
            raise IndexNotFoundError(
                f"there is no index at {which}: make one with `bagindex build SOURCE --out {which}`"
            )
        return directory
    for directory in (at(home() / which), at(which)):
        if directory.exists():
            return directory
    if is_archive(Path(which)):
        return open_archive(Path(which))
    for path in (home() / which, Path(which)):
        if IndexDirectory(path).holds_series(IMAGES):
            raise IndexNotFoundError(
                f"{path} has shards, but neither {INDEX} nor {COPY}, without which nothing can be said of them: put "
                "back a copy of one of them"
            )
    names = [directory.root.name for directory in all_indexes()]
    if hint := did_you_mean(near(which, names)):
        raise IndexNotFoundError(f"there is no index {which}: {hint}")
    known = some(names) or "none"
    if os.path.isfile(which):
        raise IndexNotFoundError(f"{which} is a file, and an index a folder; by name there are: {known}")
    if os.path.isdir(which):
        raise IndexNotFoundError(
            f"{which} holds no index: `bagindex build {which} --weights FILE` makes one of pictures; by name there "
            f"are: {known}"
        )
    raise IndexNotFoundError(f"there is no index {which}; by name there are: {known}")


def _built(directory: IndexDirectory) -> float:
    for name in ("CURRENT", "index.json"):
        try:
            return (directory.root / name).stat().st_mtime
        except FileNotFoundError:
            continue
    return 0.0
