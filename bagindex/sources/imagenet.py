"""ImageNet's classification set of 2012, as people have it on their disks. Its licence forbids fetching it for them.

Labels are wnids. The list of the validation pictures' labels, in the devkit, holds ILSVRC ids, which count the classes
in another order than every model does: `meta.mat` says which wnid each of them is.
"""

from __future__ import annotations

import gzip
import os
import re
import tomllib
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import platformdirs

from bagindex.errors import SourceError
from bagindex.labels import imagenet_classes, read_csv_rows
from bagindex.sources import Entry, Reader, Source
from bagindex.sources.archives import TarSource, list_members
from bagindex.sources.folders import Layout, open_folder
from bagindex.synsets import read_synsets
from bagindex.text import path_text, some

SPLITS = ("val", "train")
DEVKIT = "ILSVRC2012_devkit_t12"
TRUTH = "ILSVRC2012_validation_ground_truth.txt"
META = "meta.mat"
KAGGLE_LABELS = "LOC_val_solution.csv"

_MAX_DEVKIT = 2**28
"""The devkit unpacked, which is read in memory, is some 30 times smaller."""
_WNID = re.compile(r"n\d{8}")
_VAL_PICTURE = re.compile(rb"(?:.*/)?ILSVRC2012_val_(\d{8})\.(?:jpe?g|png|webp)", re.IGNORECASE | re.DOTALL)
_OTHER_SPLIT = {"val": re.compile(rb".*/n\d{8}_\d+\.\w+", re.DOTALL), "train": _VAL_PICTURE}


@dataclass(frozen=True)
class ImageNetSource:
    """One split: the files of `origin`, labelled with wnids. `kind` is `tar`, `flat`, `folders` or `kaggle`."""

    kind: str
    name: str
    entries: Sequence[Entry]
    origin: Source

    @property
    def location(self) -> str:
        """Hash of the archive's or the pictures' folder's absolute path."""
        return self.origin.location

    def reader(self) -> Reader:
        """What reads the pictures, without the list of them."""
        return self.origin.reader()

    def read(self, entry: Entry) -> bytes:
        """The picture's bytes; raises `Rejected` when they cannot be had."""
        return self.origin.read(entry)


@dataclass(frozen=True)
class _Listing:
    """The wnid of each validation picture by its number, and the file that says so."""

    where: Path
    wnids: Mapping[int, str]


def find_data(given: Path | None) -> Path:
    """Where ImageNet is: `given`, else `BAGINDEX_IMAGENET`, else `imagenet` under `[data]` in the config file.

    The config file is `BAGINDEX_CONFIG`, else `config.toml` in the platform's folder for settings; a relative path in
    it starts from the file's own folder.

    Raises:
        SourceError: nothing says where, or what is said is not there.
    """
    if given is not None:
        return _existing(given, "--data")
    if place := os.environ.get("BAGINDEX_IMAGENET"):
        return _existing(place, "BAGINDEX_IMAGENET")
    asked = os.environ.get("BAGINDEX_CONFIG")
    config = Path(asked) if asked else platformdirs.user_config_path("bagindex") / "config.toml"
    try:
        table = tomllib.loads(config.read_text(encoding="utf-8"))
    except FileNotFoundError:
        if asked:
            raise SourceError(f"BAGINDEX_CONFIG says {config}, which does not exist: write it, or unset it") from None
        table = {}
    except OSError as error:
        raise SourceError(f"cannot read {config}: {error.strerror}") from None
    except ValueError as error:  # no TOML, or not UTF-8
        raise SourceError(f"{config} is not a TOML file: {error}") from None
    data = table.get("data", {})
    value = data.get("imagenet") if isinstance(data, dict) else ""
    if value is None:
        raise SourceError(
            "where is ImageNet? Give --data /path/to/imagenet, set BAGINDEX_IMAGENET=/path/to/imagenet, or write "
            f'[data] and below it imagenet = "/path/to/imagenet" into {config}'
        )
    if not isinstance(value, str) or not value:
        raise SourceError(f'{config}: write [data] and below it imagenet = "/path/to/imagenet"')
    return _existing(config.parent / os.path.expanduser(value), str(config))


def open_imagenet(data: Path, split: str, *, follow_symlinks: bool = False) -> ImageNetSource:
    """Find a split below `data`, in whichever layout it is there, and label its pictures.

    The layouts: `ILSVRC2012_img_val.tar` with the devkit beside it; a flat folder of the validation pictures, with the
    devkit (archive or folder), or its ground-truth list and `meta.mat`, or Kaggle's `LOC_val_solution.csv`, in it or
    above it; folders by wnid. Folders are looked for in `data/val`, in Kaggle's tree, and in `data` itself. An archive
    that can be labelled comes before folders.

    Args:
        data: a folder, or the archive of the validation pictures.
        split: `val` or `train`.
        follow_symlinks: index what symbolic links point to; by default they are rejected.

    Raises:
        SourceError: what is missing or wrong, and what to put where.
        LabelError: Kaggle's CSV file cannot be read as one.
    """
    if split not in SPLITS:
        raise SourceError(f"ImageNet has no split {split!r}: --split takes {' or '.join(SPLITS)}")
    data = Path(os.path.abspath(data))
    if os.path.isfile(data):
        return _open_archive(data, split, _read_devkit(data.parent) if split == "val" else None)
    if not os.path.isdir(data):
        raise SourceError(f"{data} does not exist: give ImageNet's folder with --data")
    folder = next((path for path in _split_folders(data, split) if os.path.isdir(path)), data)
    by_wnid, flat = _look_into(folder, split)
    archive = data / f"ILSVRC2012_img_{split}.tar"
    if os.path.isfile(archive):
        listing = _read_devkit(data) if split == "val" else None
        if listing or not (by_wnid or flat):
            return _open_archive(archive, split, listing)
    if by_wnid and flat:
        raise SourceError(f"{folder} holds both folders by wnid and loose pictures: leave one of the two there")
    if flat:
        return _open_flat(folder, follow_symlinks)
    if by_wnid:
        return _open_folders(folder, split, follow_symlinks, certain=folder != data)
    raise SourceError(
        f"no {split} pictures of ImageNet in {folder}: give --data the folder with {split}/n01440764/ and so on"
        + (f", or with ILSVRC2012_img_val.tar and {DEVKIT}.tar.gz" if split == "val" else "")
    )


def _existing(place: str | os.PathLike[str], said_by: str) -> Path:
    path = Path(os.path.expanduser(place))
    if not os.path.exists(path):
        raise SourceError(f"{said_by} says that ImageNet is in {path}, which does not exist: correct it")
    return path


def _split_folders(data: Path, split: str) -> Iterator[Path]:
    for tree in ("ILSVRC/Data/CLS-LOC", "Data/CLS-LOC", ""):
        for name in (split, f"ILSVRC2012_img_{split}"):
            yield data / tree / name


def _look_into(folder: Path, split: str) -> tuple[bool, bool]:
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise SourceError(f"cannot list {folder}: {error.strerror}") from None
    flat = split == "val" and any(_VAL_PICTURE.fullmatch(os.fsencode(name)) for name in names)
    return any(_WNID.fullmatch(name) for name in names), flat


def _open_archive(archive: Path, split: str, listing: _Listing | None) -> ImageNetSource:
    if split != "val":
        raise SourceError(f"{archive} is an archive of archives: unpack it to {split}/n01440764/ and so on, beside it")
    if listing is None:
        raise SourceError(f"{archive.name} is there, but {DEVKIT}.tar.gz is not: put it beside it, in {archive.parent}")
    origin = TarSource(archive)
    entries = _label(origin.entries, listing, archive)
    pictures = sum(entry.label is not None for entry in entries)
    if not origin.complete and pictures < len(listing.wnids):
        raise SourceError(
            f"{archive} is cut short: {pictures:,} of {len(listing.wnids):,} pictures are there; fetch it again"
        )
    return ImageNetSource("tar", "imagenet-val", entries, origin)


def _open_flat(folder: Path, follow_symlinks: bool) -> ImageNetSource:
    kind, listing = "flat", _read_devkit(folder)
    if listing is None:
        kind, listing = "kaggle", _read_kaggle(folder)
    if listing is None:
        raise SourceError(f"nothing labels the pictures in {folder}: put {DEVKIT}.tar.gz (or {TRUTH} and {META}) there")
    origin = open_folder(folder, layout=Layout.FLAT, follow_symlinks=follow_symlinks)
    # What else stands there (the devkit, other splits) is not of this split.
    own = [entry for entry in origin.entries if b"/" not in entry.path and _VAL_PICTURE.fullmatch(entry.path)]
    return ImageNetSource(kind, "imagenet-val", _label(own, listing, folder), origin)


def _open_folders(folder: Path, split: str, follow_symlinks: bool, certain: bool) -> ImageNetSource:
    origin = open_folder(folder, layout=Layout.FOLDERS, follow_symlinks=follow_symlinks)
    entries = [entry for entry in origin.entries if entry.label != DEVKIT]
    _check_wnids({entry.label for entry in entries if entry.label is not None}, folder)
    other = [entry.text for entry in entries if _OTHER_SPLIT[split].fullmatch(entry.path)]
    if other and not certain:
        raise SourceError(
            f"{folder} holds {other[0]}, which is not of the {split} split: choose the other with --split"
        )
    return ImageNetSource("folders", f"imagenet-{split}", entries, origin)


def _label(entries: Sequence[Entry], listing: _Listing, where: Path) -> list[Entry]:
    numbers = [int(found[1]) if (found := _VAL_PICTURE.fullmatch(entry.path)) else None for entry in entries]
    pictures = {number for number in numbers if number is not None}
    if not pictures:
        raise SourceError(
            f"no ILSVRC2012_val_00000001.JPEG and so on in {where}: give --data ImageNet's validation set"
        )
    if beyond := sorted(pictures - listing.wnids.keys()):
        raise SourceError(
            f"{len(beyond):,} of {len(pictures):,} pictures in {where} (the first is number {beyond[0]}) are not among "
            f"the {len(listing.wnids):,} that {listing.where} labels: they do not belong together, fetch both again"
        )
    return [
        replace(entry, label=None if number is None else listing.wnids[number])
        for entry, number in zip(entries, numbers, strict=True)
    ]


def _read_devkit(start: Path) -> _Listing | None:
    # In `start` or above it: the pictures may be further down than what labels them.
    lone: Path | None = None
    for place in (start, *list(start.parents)[:4]):
        for folder in (place, place / "data", place / DEVKIT / "data"):
            truth, meta = folder / TRUTH, folder / META
            if os.path.isfile(truth) and os.path.isfile(meta):
                return _map_ids(_read(truth), _read(meta), truth, meta)
            lone = lone or (truth if os.path.isfile(truth) else None)
        archive = place / f"{DEVKIT}.tar.gz"
        if os.path.isfile(archive):
            return _unpack(archive)
    if lone:
        raise SourceError(f"{lone} is there, but {META} is not, which says what its ids mean: put it beside it")
    return None


def _unpack(archive: Path) -> _Listing:
    try:
        with gzip.open(archive) as file:
            data = file.read(_MAX_DEVKIT)
    except (OSError, EOFError, zlib.error) as error:
        raise SourceError(f"cannot read {archive} ({error}): fetch it again") from None
    members, _ = list_members(lambda count, offset: data[offset : offset + count], len(data), archive)
    found = {m.path: data[m.offset : m.offset + m.size] for m in members if m.rejected is None}
    paths = [f"{DEVKIT}/data/{name}" for name in (TRUTH, META)]
    if missing := [path for path in paths if path.encode() not in found]:
        raise SourceError(f"{archive} holds no {missing[0]}: fetch it again")
    truth, meta = (found[path.encode()] for path in paths)
    return _map_ids(truth, meta, archive / paths[0], archive / paths[1])


def _map_ids(truth: bytes, meta: bytes, truth_path: Path, meta_path: Path) -> _Listing:
    wnids = _read_meta(meta, meta_path)
    labels: dict[int, str] = {}
    for number, line in enumerate(truth.rstrip().split(b"\n"), start=1):
        wnid = wnids.get(int(line)) if re.fullmatch(rb"\d{1,9}\s*", line) else None
        if wnid is None:
            raise SourceError(
                f"{truth_path}, line {number}: {path_text(line[:20])!r} is the ILSVRC id of no class in {meta_path}: "
                "fetch the devkit again"
            )
        labels[number] = wnid
    return _Listing(truth_path, labels)


def _read_meta(data: bytes, where: Path) -> dict[int, str]:
    """The wnid of each ILSVRC id that is a class, and not a family of classes."""
    try:
        pairs = read_synsets(data)
    except ValueError as error:
        raise SourceError(f"{where} is not ImageNet's {META} ({error}): fetch the devkit again") from None
    wnids = dict(pairs)
    if not len(pairs) == len(wnids) == len(set(wnids.values())) > 0:
        raise SourceError(f"{where} does not give each class one ILSVRC id and one wnid: fetch the devkit again")
    _check_wnids(wnids.values(), where)
    return wnids


def _read_kaggle(folder: Path) -> _Listing | None:
    for path in (place / KAGGLE_LABELS for place in (folder, *list(folder.parents)[:4])):
        if not os.path.isfile(path):
            continue
        labels: dict[int, str] = {}
        for line, row in read_csv_rows(path, ("imageid", "predictionstring")):
            number = _VAL_PICTURE.fullmatch(os.fsencode(row["imageid"] + ".JPEG"))
            if number is None:
                raise SourceError(f"{path}, line {line}: {row['imageid']!r} is no ILSVRC2012_val_00000001 and so on")
            labels[int(number[1])] = row["predictionstring"].partition(" ")[0]
        _check_wnids(labels.values(), path)
        return _Listing(path, labels)
    return None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None


def _check_wnids(wnids: Iterable[str], where: Path) -> None:
    if unknown := sorted(set(wnids) - _known_wnids()):
        raise SourceError(
            f"{where} has {some(unknown)}: not among the wnids of ImageNet's {len(_known_wnids())} classes"
        )


@cache
def _known_wnids() -> frozenset[str]:
    return frozenset(record.wnid for record in imagenet_classes() if record.wnid)
