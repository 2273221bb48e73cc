"""A disk that forgets: what a journal of operations leaves of a folder when the machine stops.

Data is on the disk once its file was synchronised, an entry (of a file that was made, renamed or removed) once its
folder was. What was not may be there or not, whole or in part, in any order. This is stricter than any file system in
use.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from faults.native import Kind, Operation


@dataclass
class File:
    """A file: its bytes, those that are on the disk, and what was done since they were brought there.

    `pending` has (offset, bytes) of writes, and (size, None) of truncations.
    """

    data: bytearray = field(default_factory=bytearray)
    durable: bytes = b""
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)

    def change(self, offset: int, data: bytes | None) -> None:
        """Write, or truncate."""
        self.pending.append((offset, data))
        _change(self.data, offset, data)

    def synchronise(self) -> None:
        """Bring it to the disk."""
        self.durable = bytes(self.data)
        self.pending = []


@dataclass
class Folder:
    """A folder: its entries, those that are on the disk, and what was done since, each change at once or not at all."""

    entries: dict[str, File | Folder] = field(default_factory=dict)
    durable: dict[str, File | Folder] = field(default_factory=dict)
    pending: list[Mapping[str, File | Folder | None]] = field(default_factory=list)

    def change(self, change: Mapping[str, File | Folder | None]) -> None:
        """Set entries, or take them away."""
        self.pending.append(change)
        _enter(self.entries, change)

    def synchronise(self) -> None:
        """Bring the entries to the disk."""
        self.durable = dict(self.entries)
        self.pending = []


Tree = Mapping[str, bytes | None]
"""What is in a folder, by path: the bytes of a file, None of a folder."""


class Disk:
    """A folder's contents as operations change them.

    Args:
        root: the folder, which the journal's paths begin with.
        tree: what is in it at first, all of it on the disk.
    """

    def __init__(self, root: Path, tree: Tree) -> None:
        self._root = root
        self._top = Folder()
        for path, data in sorted(tree.items()):
            parent = self._parent(PurePosixPath(path))
            node = Folder() if data is None else File(bytearray(data), data)
            parent.entries[PurePosixPath(path).name] = node
            parent.durable[PurePosixPath(path).name] = node

    def apply(self, operation: Operation) -> None:
        """Do an operation; one that failed, or on a file that has no name any more, does nothing."""
        if operation.error or operation.path.endswith(" (deleted)"):
            return
        path = PurePosixPath(operation.path).relative_to(self._root)
        if operation.kind is Kind.SYNC:
            self._at(path).synchronise()
            return
        parent = self._parent(path)
        if operation.kind is Kind.CREATE:
            found = parent.entries.get(path.name)
            if found is None:
                parent.change({path.name: File()})
            elif operation.offset:  # what was there is dropped
                assert isinstance(found, File)
                found.change(0, None)
        elif operation.kind is Kind.FOLDER:
            parent.change({path.name: Folder()})
        elif operation.kind is Kind.UNLINK:
            parent.change({path.name: None})
        elif operation.kind is Kind.RENAME:
            target = PurePosixPath(operation.other).relative_to(self._root)
            node = parent.entries[path.name]
            if target.parent == path.parent:
                parent.change({path.name: None, target.name: node})
            else:
                self._parent(target).change({target.name: node})
                parent.change({path.name: None})
        elif operation.kind in (Kind.WRITE, Kind.TRUNCATE):
            file = self._at(path)
            assert isinstance(file, File)
            file.change(operation.offset, operation.data if operation.kind is Kind.WRITE else None)
        else:
            raise ValueError(f"an index has no links, and {operation.path} is one")

    def now(self) -> Tree:
        """What is there as long as the machine runs."""
        return _tree(self._top, lambda folder: folder.entries, lambda file: bytes(file.data))

    def least(self) -> Tree:
        """What is there after it stopped, where nothing outlives that was not brought to the disk."""
        return _tree(self._top, lambda folder: folder.durable, lambda file: file.durable)

    def names_without_data(self, rng: random.Random) -> Tree:
        """The same, where all entries outlive, but of their data only what was synchronised; else nothing or zeros."""

        def data(file: File) -> bytes:
            if not file.pending:
                return file.durable
            return file.durable if rng.random() < 0.5 else file.durable.ljust(len(file.data), b"\0")

        return _tree(self._top, lambda folder: folder.entries, data)

    def some(self, rng: random.Random) -> Tree:
        """The same, where any of what was pending outlives, one thing without the other."""

        def entries(folder: Folder) -> Mapping[str, File | Folder]:
            found = dict(folder.durable)
            for change in folder.pending:
                if rng.random() < 0.5:
                    _enter(found, change)
            return found

        def data(file: File) -> bytes:
            found = bytearray(file.durable)
            for offset, written in file.pending:
                if rng.random() < 0.5:
                    _change(found, offset, written)
            return bytes(found)

        return _tree(self._top, entries, data)

    def _parent(self, path: PurePosixPath) -> Folder:
        found = self._at(path.parent)
        assert isinstance(found, Folder)
        return found

    def _at(self, path: PurePosixPath) -> File | Folder:
        found: File | Folder = self._top
        for part in path.parts:
            assert isinstance(found, Folder)
            found = found.entries[part]
        return found


def read_tree(root: Path) -> Tree:
    """What is in a folder."""
    paths = sorted(root.rglob("*"))
    return {path.relative_to(root).as_posix(): None if path.is_dir() else path.read_bytes() for path in paths}


def write_tree(tree: Tree, root: Path) -> None:
    """Make a folder what a tree says; what is there is dropped."""
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    for path, data in sorted(tree.items()):
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)


def _tree(top: Folder, entries: Callable[[Folder], Mapping[str, File | Folder]], data: Callable[[File], bytes]) -> Tree:
    found: dict[str, bytes | None] = {}

    def walk(folder: Folder, prefix: str) -> None:
        for name, node in entries(folder).items():
            if isinstance(node, File):
                found[prefix + name] = data(node)
            else:
                found[prefix + name] = None
                walk(node, f"{prefix}{name}/")

    walk(top, "")
    return found


def _enter(entries: dict[str, File | Folder], change: Mapping[str, File | Folder | None]) -> None:
    for name, node in change.items():
        if node is None:
            entries.pop(name, None)
        else:
            entries[name] = node


def _change(data: bytearray, offset: int, written: bytes | None) -> None:
    if written is None:
        del data[offset:]
    if len(data) < offset:
        data.extend(bytes(offset - len(data)))
    if written is not None:
        data[offset : offset + len(written)] = written
