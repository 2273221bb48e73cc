"""Shards of tar archives as WebDataset writes them: a picture and its label beside each other, by a common name.

`0001.jpg` and `0001.cls` are one sample: its key is the name up to the first dot. Archives are read where they lie.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from bagindex.errors import LabelError, SourceError
from bagindex.images import Rejected
from bagindex.sources import Entry, ListedSource
from bagindex.sources.archives import TarSource
from bagindex.sources.files import Found, Stamp
from bagindex.sources.folders import PICTURE_ENDINGS
from bagindex.text import some
from bagindex_schemas.rejects import RejectCode

_LABEL = "cls"
_FIELDS = "json"
_MAX_LABEL = 2**16
_MAX_FIELDS = 2**24
"""Bytes of a label, and of a JSON file that has one: larger ones are no labels."""
_OPEN = 16
"""Archives that stay open: there may be more than a process may open."""


class ShardReader:
    """Reads members of archives, each of which is listed again when it is come to. Safe to use from several threads.

    Args:
        shards: the archives by their paths in the source, and the stamps that they had.
    """

    def __init__(self, shards: Mapping[bytes, tuple[Path, Stamp]]) -> None:
        self._shards = shards
        self._open: OrderedDict[bytes, TarSource] = OrderedDict()
        self._opening = threading.Lock()

    def __reduce__(self) -> tuple[type[ShardReader], tuple[Mapping[bytes, tuple[Path, Stamp]]]]:
        """For other processes."""
        return ShardReader, (self._shards,)

    def read(self, entry: Entry) -> bytes:
        """A member's bytes.

        Raises:
            Rejected: the listing rejected it, or the archive cannot be read there.
            SourceError: the archive is another than when it was listed.
        """
        # Members may lie in folders: the archive is the longest beginning that is one.
        parts = entry.path.split(b"/")
        for count in range(len(parts) - 1, 0, -1):
            name = b"/".join(parts[:count])
            if name in self._shards:
                return self._shard(name).read(replace(entry, path=b"/".join(parts[count:])))
        raise Rejected(RejectCode.MISSING, "not there")

    def _shard(self, name: bytes) -> TarSource:
        with self._opening:
            if name not in self._open:
                self._open[name] = TarSource.again(*self._shards[name])
                if len(self._open) > _OPEN:
                    self._open.popitem(last=False)
            self._open.move_to_end(name)
            return self._open[name]


def open_webdataset(found: Found[Path], label: str | None, note: Callable[[str], None]) -> ListedSource:
    """List the pictures of some archives.

    Args:
        found: the archives.
        label: the ending of the members that are labels, or the field of `.json` members; by default `.cls`, else the
            field `label`.
        note: hears of archives that may be cut short.

    Raises:
        SourceError: an archive cannot be read, there are no pictures, or nothing is called as the label.
        LabelError: a label cannot be read.
    """
    shards: dict[bytes, tuple[Path, Stamp]] = {}
    entries: list[Entry] = []
    endless: list[Path] = []
    named: set[str] = set()
    for name, path in found.files.items():
        tar = TarSource(path)
        shards[name] = (path.absolute(), tar.stamp)
        if not tar.complete:
            endless.append(path)
        for sample in _samples(tar):
            text = sample.label(label)
            named |= sample.named
            entries += [replace(each, path=name + b"/" + each.path, label=text) for each in sample.pictures()]
    if endless:
        note(f"{len(endless):,} of {len(shards):,} archives have no end mark, {endless[0]} first: are they cut short?")
    if not entries:
        raise SourceError(f"no pictures in {found.place}: give tar archives of pictures")
    if label is not None and label not in named:
        there = some(sorted(named)) or "pictures alone"
        raise SourceError(f"no sample in {found.place} has {label!r}, which --label-column says: it has {there}")
    entries.sort(key=lambda entry: entry.path)
    return ListedSource("webdataset", found.name, found.location, entries, ShardReader(shards), sorted(named))


@dataclass
class _Sample:
    """Members of an archive with a common key, by what comes after it; `named` are those endings that are no picture's,
    and the fields of its JSON once these were looked at.
    """

    tar: TarSource
    key: bytes
    members: dict[str, Entry]
    named: set[str] = field(default_factory=set)

    def pictures(self) -> Iterator[Entry]:
        """Its pictures; where there is none but a label, what says so."""
        found = [each for ending, each in self.members.items() if f".{ending}".encode() in PICTURE_ENDINGS]
        if found:
            yield from found
        elif {_LABEL, _FIELDS} & self.members.keys():
            yield Entry(self.key, 0, rejected=Rejected(RejectCode.MISSING, "the sample has no picture"))

    def label(self, asked: str | None) -> str | None:
        """What it is labelled with."""
        wanted = asked or _LABEL
        self.named |= {each for each in self.members if each and f".{each}".encode() not in PICTURE_ENDINGS}
        if wanted in self.members:
            return self._text(wanted, _MAX_LABEL).strip() or None
        if _FIELDS not in self.members:
            return None
        try:
            fields = json.loads(self._text(_FIELDS, _MAX_FIELDS))
        except ValueError:
            raise self._wrong(_FIELDS, "is no JSON") from None
        fields = fields if isinstance(fields, dict) else {}
        self.named |= fields.keys()
        value = fields.get(asked or "label")
        if value is None or value == "":
            return None
        if isinstance(value, bool) or not isinstance(value, int | str):
            raise self._wrong(_FIELDS, f"says {value!r} where a text or a whole number is to be")
        return str(value)

    def _text(self, ending: str, most: int) -> str:
        entry = self.members[ending]
        if entry.size is None or entry.size > most:
            raise self._wrong(ending, f"is larger than {most:,} bytes")
        try:
            return self.tar.read(entry).decode()
        except Rejected as rejected:
            raise self._wrong(ending, f"cannot be read: {rejected.message}") from None
        except UnicodeDecodeError:
            raise self._wrong(ending, "is not UTF-8 text") from None

    def _wrong(self, ending: str, what: str) -> LabelError:
        return LabelError(f"{self.tar.path}: the label {self.members[ending].text} {what}; pack the archive anew")


def _samples(tar: TarSource) -> Iterator[_Sample]:
    samples: dict[bytes, _Sample] = {}
    for entry in tar.entries:
        folder, name = os.path.split(entry.path)
        stem, _, ending = name.partition(b".")
        key = os.path.join(folder, stem)
        sample = samples.setdefault(key, _Sample(tar, key, {}))
        sample.members[ending.decode("utf-8", "backslashreplace").lower()] = entry
    yield from samples.values()
