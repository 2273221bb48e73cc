"""The files that hold the pictures of a source, and which split of a data set each is of."""

from __future__ import annotations

import glob
import itertools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from bagindex.errors import SourceError
from bagindex.remote.places import is_url
from bagindex.sources import left_out, place_hash, source_name
from bagindex.text import some

File = TypeVar("File", covariant=True)
"""What the files are: paths, or objects of a store."""
Stamp = tuple[int, int]
"""Size and time of the last change, in nanoseconds, by which a file is known to be the one that was listed."""
_MOST = 100_000
"""So many files a pattern may name."""
_WILD = re.compile(r"[*?\[{]")
_BRACE = re.compile(r"\{([^{}]*)\}")
_NUMBERED = re.compile(r"(?P<split>[^/]+?)-\d+-of-\d+\.[^/]+")
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "val", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}


@dataclass(frozen=True)
class Found(Generic[File]):
    """Files by their paths below a place, in the order of the paths' bytes; of one split, where one was chosen."""

    place: str
    files: Mapping[bytes, File]
    split: str | None = None

    @property
    def location(self) -> str:
        """Hash of the absolute place and the split."""
        place = self.place if is_url(self.place) else os.path.abspath(self.place)
        return place_hash(place + (f"#{self.split}" if self.split else ""))

    @property
    def name(self) -> str:
        """A short name, from the folder's, or the file's, or what comes before a pattern's first sign."""
        path = Path(os.path.abspath(self.place))
        if path.is_dir() or (is_url(self.place) and not path.suffix):
            name = source_name(path.name, path.parent.name)
        else:
            known = _WILD.split(path.name)[0].rstrip("-_.") or path.parent.name
            name = source_name(known, "").removesuffix(path.suffix)
        return f"{name}-{self.split}" if self.split else name

    @property
    def splits(self) -> list[str]:
        """The splits that their names tell of."""
        return sorted({split for path in self.files if (split := split_of(os.fsdecode(path)))})

    def of_split(self, split: str | None) -> Found[File]:
        """The files of one split.

        Raises:
            SourceError: there are none, or there are several splits and none was chosen.
        """
        known = self.splits
        if split is None and len(known) > 1:
            raise SourceError(f"{self.place} holds the splits {some(known)}: choose one with --split")
        if split is None:
            return self
        if split not in known:
            has = f"it has {some(known)}" if known else "its files' names tell of none"
            raise SourceError(f"{self.place} has no split {split!r}: {has}")
        files = {path: file for path, file in self.files.items() if split_of(os.fsdecode(path)) == split}
        return Found(self.place, files, split)


def find(place: str, endings: tuple[str, ...]) -> Found[Path]:
    """The files with these endings that a place names: one file, all below a folder, or a pattern's.

    A pattern has braces (`shard-{000000..000009}.tar`, `{a,b}.tar`) or `*`, `?` and `[...]`.

    Raises:
        SourceError: there is no such file, or one that a pattern's braces name is not there.
    """
    if os.path.isfile(place):
        return Found(place, {os.fsencode(os.path.basename(place)): Path(place)})
    if os.path.isdir(place):
        root, paths = place, list(_below(place, endings))
        if not paths:
            raise SourceError(f"no {' or '.join(endings)} files in {place}")
    elif is_pattern(place):
        root, paths = os.path.dirname(_WILD.split(place)[0]) or ".", _expand(place)
    else:
        raise SourceError(f"the source {place} does not exist")
    named = {os.fsencode(os.path.relpath(path, root)): Path(path) for path in paths}
    return Found(place, dict(sorted(named.items())))


def listed(paths: Sequence[str]) -> Found[Path]:
    """Files that are given one by one, by their paths below the folder that they have in common.

    Raises:
        SourceError: one is not there.
    """
    if missing := [path for path in paths if not os.path.isfile(path)]:
        raise SourceError(f"the source {missing[0]} does not exist")
    root = os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])
    named = {os.fsencode(os.path.relpath(path, root)): Path(path) for path in paths}
    return Found(root, dict(sorted(named.items())))


def is_pattern(place: str) -> bool:
    """Whether this is a pattern of files, and not the name of something that is there."""
    return _WILD.search(place) is not None and not os.path.lexists(place)


def split_of(path: str) -> str | None:
    """The split that a file's path names: `NAME-00000-of-00005.parquet`, else a word like `train` in it."""
    if numbered := _NUMBERED.fullmatch(os.path.basename(path)):
        return numbered["split"]
    words = [word.lower() for part in reversed(path.split("/")) for word in re.split(r"[^A-Za-z]+", part)]
    return next((split for word in words for split, names in _WORDS.items() if word in names), None)


def stamp(path: Path) -> Stamp:
    """A file's stamp.

    Raises:
        SourceError: it cannot be looked at.
    """
    try:
        return stamp_of(os.stat(path))
    except OSError as error:
        raise SourceError(f"cannot read {path}: {error.strerror}") from None


def stamp_of(info: os.stat_result) -> Stamp:
    """The stamp that a file's status gives."""
    return info.st_size, info.st_mtime_ns


def changed_file(path: object) -> SourceError:
    """A file of many pictures is another than when it was listed: where they lie cannot be told any more."""
    return SourceError(
        f"{path} has changed since it was listed: put it back as it was and run the same command again, "
        "or begin anew with --restart"
    )


def _below(folder: str, endings: tuple[str, ...]) -> list[str]:
    found: list[str] = []
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not left_out(os.fsencode(name))]
        found += [
            os.path.join(top, name)
            for name in names
            if name.lower().endswith(endings) and not left_out(os.fsencode(name))
        ]
    return found


def _expand(pattern: str) -> list[str]:
    named = _braces(pattern)
    found: list[str] = []
    for each in named:
        matching = glob.glob(each) if re.search(r"[*?\[]", each) else [each] if os.path.isfile(each) else []
        if not matching:
            raise SourceError(f"{pattern} names {each}, which does not exist" if len(named) > 1 else f"no {each}")
        found += matching
    return found


def _braces(pattern: str) -> list[str]:
    parts: list[list[str]] = []
    for place, part in enumerate(_BRACE.split(pattern)):
        parts.append([part] if place % 2 == 0 else _choices(part, pattern))
    count = 1
    for each in parts:
        count *= len(each)
    if count > _MOST:
        raise SourceError(f"{pattern} names {count:,} files: give at most {_MOST:,}")
    return ["".join(each) for each in itertools.product(*parts)]


def _choices(inside: str, pattern: str) -> list[str]:
    if numbers := re.fullmatch(r"(\d{1,9})\.\.(\d{1,9})", inside):
        first, last = numbers.groups()
        if int(first) > int(last):
            raise SourceError(f"{pattern} counts from {first} down to {last}: write {{{last}..{first}}}")
        if int(last) - int(first) >= _MOST:
            raise SourceError(f"{pattern} names more than {_MOST:,} files")
        width = len(first) if first.startswith("0") or len(first) == len(last) else 1
        return [f"{number:0{width}d}" for number in range(int(first), int(last) + 1)]
    return inside.split(",")
