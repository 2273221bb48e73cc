"""Which kind of source is meant by what is given, and how it is opened."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeGuard, cast

from bagindex.enums import choice
from bagindex.errors import SettingsError, SourceError
from bagindex.observer import BuildObserver
from bagindex.remote.places import is_url, local_path
from bagindex.sources import Reader, Source, label_columns
from bagindex.sources.files import Found, find, listed
from bagindex.sources.folders import FolderSource, Layout, open_folder
from bagindex.sources.imagenette import ARCHIVES, open_imagenette
from bagindex.sources.kinds import ENDINGS, SourceKind, at_place, of_file, of_names
from bagindex.text import did_you_mean, near, some

if TYPE_CHECKING:
    from bagindex.remote.ranges import RemoteFile
    from bagindex.sources.columns import Asked

PathLike = str | os.PathLike[str]
ItemStream = Iterable[tuple[str, object, object]]
"""What a program gives: names, pictures and labels."""
_Opener = Callable[[str, "SourceOptions", BuildObserver], Source]
VAL_PICTURES = 50_000
PREFIX = "torchvision:"
IMAGENET_VAL = "imagenet-val"
"""A data set that has a name; `./imagenet-val` is a folder all the same."""


@dataclass(frozen=True)
class SourceOptions:
    """What is indexed; see `bagindex.Index.build`.

    `spool` is where the items that a program gives are written down; `anew` takes new ones.
    """

    place: PathLike | Sequence[PathLike] | Source | ItemStream
    data: PathLike | None = None
    split: str | None = None
    layout: str = "auto"
    labels: PathLike | None = None
    class_map: PathLike | None = None
    follow_symlinks: bool = False
    source_kind: str = "auto"
    image_column: str | None = None
    label_column: str | None = None
    label_ids: bool = False
    spool: Path | None = None
    anew: bool = False

    @property
    def given(self) -> tuple[str, ...]:
        """The options of this place that are given, as they are written."""
        plain = SourceOptions(self.place)
        names = ("data", "split", "layout", "labels", "follow_symlinks", "source_kind", "image_column", "label_column")
        return tuple(f"--{name.replace('_', '-')}" for name in names if getattr(self, name) != getattr(plain, name))

    @property
    def of_a_folder(self) -> bool:
        """Whether options are given that only a folder of pictures takes."""
        return bool({"--layout", "--labels", "--follow-symlinks"} & set(self.given))


def usual_model(place: object) -> str | None:
    """The model that a named data set defaults to."""
    return "bagnet33" if _is_place(place) and os.fspath(place) in (IMAGENET_VAL, *ARCHIVES) else None


def open_source(asked: SourceOptions, observer: BuildObserver) -> Source:
    """List what is to be indexed.

    Args:
        asked: what, and how it is read.
        observer: hears what takes a while, and what is odd.

    Raises:
        SourceError, LabelError: it is not there, cannot be read, or in more than one way; see the kinds.
        SettingsError: options that do not go with this kind of source.
        StoreError: an object store cannot be reached, or refuses.
    """
    source = _open(asked, observer)
    if asked.labels is None and all(entry.label is None for entry in source.entries):
        columns = ", ".join(label_columns(source))
        hint = f": --label-column says which column has them ({columns})" if columns else ""
        observer.note(f"none of the {len(source.entries):,} images has a label{hint}")
    return source


def _open(asked: SourceOptions, observer: BuildObserver) -> Source:
    if _is_list(asked.place):
        return _listed([local_path(each) for each in asked.place], asked, observer)
    if not _is_place(asked.place):
        return _given(asked.place, asked, observer)
    choice(Layout, asked.layout, "--layout")
    place = os.fspath(asked.place)
    kind = choice(SourceKind, asked.source_kind, "--source-kind")
    if kind is SourceKind.AUTO and (named := _named(place)):
        return named(place, asked, observer)
    if is_url(place):
        return _remote(place, asked, kind, observer)
    place = local_path(place)
    if kind is SourceKind.AUTO:
        kind = at_place(place, folder=asked.of_a_folder)
    if kind in _OPENERS:
        return _OPENERS[kind](place, asked, observer)
    observer.note(f"listing {place}")
    return _FILE_OPENERS[kind](_find(place, kind, asked.split), asked, observer)


def reader_at(place: PathLike, observer: BuildObserver) -> Reader:
    """What reads the files of a source by the paths that an index has of them, whichever their split and labels.

    Raises:
        BagindexError: as for `open_source`.
    """
    text = local_path(place)
    if is_url(text):
        return _remote(text, SourceOptions(place, label_ids=True), SourceKind.AUTO, observer, every=True).reader()
    if _named(text):
        return open_source(SourceOptions(place), observer).reader()
    kind = at_place(text)
    if kind is SourceKind.FOLDER:
        # It need not be listed, which may take long.
        return FolderSource(Path(text), Layout.FLAT, "", (), follow_symlinks=True)
    options = SourceOptions(place, label_ids=True)
    if kind in _OPENERS:
        return _OPENERS[kind](text, options, observer).reader()
    return _FILE_OPENERS[kind](_find(text, kind, None, every=True), options, observer).reader()


def splits_of(place: PathLike) -> list[str] | None:
    """The splits of a local place of files that hold many pictures; None where it is none.

    Raises:
        SourceError: they cannot be told.
    """
    text = local_path(place)
    kind = at_place(text)
    if kind not in _FILE_OPENERS:
        return None
    if kind is SourceKind.ARROW:
        from bagindex.sources.arrow import SPLITS, saved_splits

        if os.path.isfile(os.path.join(text, SPLITS)):
            return saved_splits(text)
    return find(text, ENDINGS[kind]).splits


def _find(place: str, kind: SourceKind, split: str | None, every: bool = False) -> Found[Path]:
    """The files of a place that hold many pictures, of one split or of `every` one."""
    if kind is SourceKind.ARROW:
        from bagindex.sources.arrow import is_saved, saved_files

        if is_saved(place):
            return saved_files(place, split, every)
    found = find(place, ENDINGS[kind])
    return found if every else found.of_split(split)


def _listed(paths: Sequence[str], asked: SourceOptions, observer: BuildObserver) -> Source:
    kinds = {of_file(path) for path in paths}
    kind = next(iter(kinds))
    if len(kinds) > 1 or kind is None or kind not in _FILE_OPENERS:
        raise SourceError(f"several files as a source are all Parquet, Arrow or tar files, not {some(paths, 3)}")
    return _FILE_OPENERS[kind](listed(paths).of_split(asked.split), asked, observer)


def _given(given: object, asked: SourceOptions, observer: BuildObserver) -> Source:
    from bagindex.sources.items import open_items

    _check(asked, "what a program gives")
    if hasattr(given, "entries"):
        return cast("Source", given)
    if asked.spool is None:
        raise SettingsError("items need an index to be written down for: give it a name, or say with `out` where it is")
    return open_items(cast("ItemStream", given), asked.spool, asked.anew, observer.note)


def _named(place: str) -> _Opener | None:
    """What opens a data set that has a name."""
    if place.lower().startswith(PREFIX):
        return _torchvision
    return _imagenet if place == IMAGENET_VAL else _imagenette if place in ARCHIVES else None


def _torchvision(place: str, asked: SourceOptions, observer: BuildObserver) -> Source:
    from bagindex.sources.torchvision import open_torchvision

    _check(asked, "a data set of torchvision's", "--data", "--split")
    observer.note(f"opening {place}")
    return open_torchvision(place, asked.split, _path(asked.data), asked.label_ids)


def _imagenette(place: str, asked: SourceOptions, observer: BuildObserver) -> Source:
    _check(asked, place, "--data", "--split")
    return open_imagenette(place, asked.split, _path(asked.data), observer)


def _imagenet(_: str, asked: SourceOptions, observer: BuildObserver) -> Source:
    from bagindex.sources.imagenet import find_data, open_imagenet

    _check(asked, IMAGENET_VAL, "--data", "--split", "--follow-symlinks")
    found = find_data(None if asked.data is None else Path(asked.data))
    source = open_imagenet(found, asked.split or "val", follow_symlinks=asked.follow_symlinks)
    if asked.split in (None, "val") and len(source.entries) < VAL_PICTURES:
        observer.note(f"{len(source.entries):,} of the {VAL_PICTURES:,} pictures of imagenet-val are in {found}")
    return source


def _remote(url: str, asked: SourceOptions, kind: SourceKind, observer: BuildObserver, every: bool = False) -> Source:
    from bagindex.remote.objects import ObjectStore
    from bagindex.remote.places import parse
    from bagindex.remote.source import find_remote, open_remote

    observer.note(f"listing {url}")
    file, known = of_file(url), None
    if kind is SourceKind.AUTO and file is None:
        known = ObjectStore(parse(url)).listing()
        folders: dict[str, list[str]] = {}
        for name in known:
            folders.setdefault(os.path.dirname(name), []).append(os.path.basename(name))
        kind = of_names(url, [(name.count("/") + bool(name), names) for name, names in folders.items()])
    kind = file or kind if kind is SourceKind.AUTO else kind
    if kind is SourceKind.PARQUET:
        found = find_remote(url, ENDINGS[kind][0], known)
        return _parquet(found if every else found.of_split(asked.split), asked, observer)
    if kind is not SourceKind.FOLDER:
        raise SourceError(f"{url}: in an object store, folders of pictures and Parquet files are read; copy it here")
    _check(asked, "a folder of pictures", "--layout", "--labels", "--follow-symlinks", "--source-kind")
    layout = choice(Layout, asked.layout, "--layout")
    return _told(open_remote(url, layout=layout, labels=_path(asked.labels), known=known), asked, observer)


def _folder(place: str, asked: SourceOptions, observer: BuildObserver) -> Source:
    _check(asked, "a folder of pictures", "--layout", "--labels", "--follow-symlinks", "--source-kind")
    layout = choice(Layout, asked.layout, "--layout")
    if not os.path.lexists(place) and (hint := did_you_mean(near(place, (IMAGENET_VAL, *ARCHIVES)))):
        raise SourceError(f"the source {place} does not exist: {hint} If not, give a folder of pictures")
    source = open_folder(Path(place), layout=layout, labels=_path(asked.labels), follow_symlinks=asked.follow_symlinks)
    return _told(source, asked, observer)


def _parquet(found: Found[Path | RemoteFile], asked: SourceOptions, observer: BuildObserver) -> Source:
    from bagindex.sources.parquet import open_parquet

    _check(asked, "Parquet files", "--split", "--image-column", "--label-column", "--source-kind")
    return open_parquet(found, _columns(asked))


def _arrow(found: Found[Path], asked: SourceOptions, observer: BuildObserver) -> Source:
    from bagindex.sources.arrow import open_arrow

    _check(asked, "a saved data set", "--split", "--image-column", "--label-column", "--source-kind")
    return open_arrow(found, _columns(asked))


def _webdataset(found: Found[Path], asked: SourceOptions, observer: BuildObserver) -> Source:
    from bagindex.sources.webdataset import open_webdataset

    _check(asked, "tar archives", "--split", "--label-column", "--source-kind")
    return open_webdataset(found, asked.label_column, observer.note)


def _columns(asked: SourceOptions) -> Asked:
    from bagindex.sources.columns import Asked

    return Asked(asked.image_column, asked.label_column, asked.label_ids)


def _crops(place: str, asked: SourceOptions, observer: BuildObserver) -> Source:
    from bagindex.sources.crops import open_crops

    _check(asked, "a list of boxes", "--data", "--label-column", "--follow-symlinks", "--source-kind")
    observer.note(f"listing {place}")
    return open_crops(Path(place), _path(asked.data), asked.label_column, asked.follow_symlinks)


_OPENERS: Mapping[SourceKind, _Opener] = {SourceKind.FOLDER: _folder, SourceKind.CROPS: _crops}
_FILE_OPENERS: Mapping[SourceKind, Callable[[Found[Path], SourceOptions, BuildObserver], Source]] = {
    SourceKind.PARQUET: _parquet,
    SourceKind.ARROW: _arrow,
    SourceKind.WEBDATASET: _webdataset,
}


def _told(source: Source, asked: SourceOptions, observer: BuildObserver) -> Source:
    missing = sum(entry.label is None and entry.rejected is None for entry in source.entries)
    if asked.labels is not None and missing:
        observer.note(f"{missing:,} of {len(source.entries):,} files have no label in {asked.labels}")
    return source


def _check(asked: SourceOptions, what: str, *taken: str) -> None:
    """Refuse options that a kind does not take: they would mean nothing."""
    if other := [option for option in asked.given if option not in taken]:
        raise SettingsError(f"leave out {' and '.join(other)}: {what} takes {', '.join(taken) or 'no such options'}")


def _is_place(given: object) -> TypeGuard[PathLike]:
    return isinstance(given, str | os.PathLike)


def _is_list(given: object) -> TypeGuard[Sequence[PathLike]]:
    return (
        isinstance(given, list | tuple) and bool(given) and all(isinstance(each, str | os.PathLike) for each in given)
    )


def _path(given: PathLike | None) -> Path | None:
    return None if given is None else Path(given)
