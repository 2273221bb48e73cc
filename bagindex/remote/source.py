"""Pictures in an object store."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from bagindex.errors import SourceError
from bagindex.images import Rejected
from bagindex.remote.objects import Listed, ObjectStore
from bagindex.remote.places import parse
from bagindex.remote.ranges import RemoteFile
from bagindex.remote.trouble import Absent, Conflict
from bagindex.sources import MAX_BYTES, Entry, Reader, changed, left_out, place_hash, source_name
from bagindex.sources.files import Found
from bagindex.sources.folders import Layout, arrange
from bagindex_schemas.rejects import RejectCode


@dataclass(frozen=True)
class RemoteSource:
    """The objects below one place. A store that fails stops a build: it says nothing of the pictures."""

    store: ObjectStore
    layout: Layout
    name: str
    entries: Sequence[Entry]
    labels_sha256: str | None
    listed: Mapping[bytes, Listed] | None = field(repr=False)
    bounded: bool = True

    @property
    def kind(self) -> str:
        """`folders`, `flat` or `csv`: an index knows pictures by their paths below the place, wherever that is."""
        return "csv" if self.labels_sha256 else self.layout.value

    @property
    def location(self) -> str:
        """Hash of the URL."""
        return place_hash(str(self.store.place))

    def reader(self) -> Reader:
        """The same place without the list of its objects, of which each is looked at again before it is read."""
        return replace(self, entries=(), listed=None)

    def read(self, entry: Entry) -> bytes:
        """Read one object.

        Raises:
            Rejected: it is gone, too large for a picture, or another than when it was listed.
            StoreError: the store cannot be reached, or refuses.
        """
        name = entry.path.decode()
        listed = self.store.find(name) if self.listed is None else self.listed.get(entry.path)
        if listed is None:
            raise Rejected(RejectCode.MISSING, "not there")
        if listed.size > MAX_BYTES:
            raise Rejected(RejectCode.TOO_LARGE, f"{listed.size:,} bytes are no picture's")
        if entry.size is not None and listed.size != entry.size:
            raise changed(entry.size, listed.size)
        try:
            return self.store.read(name, 0, listed.size, listed.tag)
        except Absent:
            raise Rejected(RejectCode.MISSING, "not there") from None
        except Conflict:
            now = self.store.find(name)
            raise changed(listed.size, now.size if now else 0) from None


def open_remote(
    url: str, *, layout: Layout = Layout.AUTO, labels: Path | None = None, known: Mapping[str, Listed] | None = None
) -> RemoteSource:
    """List the objects below a place; see `bagindex.sources.folders.open_folder`. They may be `known` already.

    Raises:
        SettingsError: it is no URL of an object store.
        SourceError: no objects, or a layout that can be read in two ways.
        StoreError: the store cannot be reached, or refuses.
    """
    store = ObjectStore(parse(url))
    objects = store.listing() if known is None else known
    listed = {name.encode(): found for name, found in objects.items() if not name.endswith("/")}
    found = [
        Entry(path, each.size) for path, each in listed.items() if path and not any(map(left_out, path.split(b"/")))
    ]
    layout, entries, digest = arrange(found, layout, labels, str(store.place))
    above = store.place.path.split("/")
    return RemoteSource(store, layout, source_name(above[-1], above[-2] if above[1:] else ""), entries, digest, listed)


def find_remote(url: str, ending: str, known: Mapping[str, Listed] | None = None) -> Found[RemoteFile]:
    """The object that a URL names, or those below it whose names end so; they may be `known` already.

    Raises:
        SettingsError: it is no URL of an object store.
        SourceError: there are none.
        StoreError: the store cannot be reached, or refuses.
    """
    if url.lower().endswith(ending):
        folder, _, name = str(parse(url)).rpartition("/")
        store = ObjectStore(parse(folder))
        listed = store.find(name)
        if listed is None:
            raise SourceError(f"the source {url} does not exist")
        return Found(str(parse(url)), {name.encode(): RemoteFile(store, name, listed)})
    store = ObjectStore(parse(url))
    objects = store.listing() if known is None else known
    files = {
        name.encode(): RemoteFile(store, name, objects[name])
        for name in sorted(objects)
        if name.lower().endswith(ending) and not any(map(left_out, name.encode().split(b"/")))
    }
    if not files:
        raise SourceError(f"no {ending} files in {url}")
    return Found(str(store.place), files)
