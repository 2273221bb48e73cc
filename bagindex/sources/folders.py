"""Folders of pictures."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path

from bagindex.errors import SourceError
from bagindex.images import Rejected
from bagindex.labels import read_labels
from bagindex.sources import MAX_BYTES, Entry, Reader, changed, left_out, place_hash, source_name
from bagindex.text import path_text
from bagindex_schemas.rejects import RejectCode

PICTURE_ENDINGS = (
    *(b".avif", b".bmp", b".gif", b".ico", b".jp2", b".jpeg", b".jpg", b".pgm", b".png", b".ppm"),
    *(b".tga", b".tif", b".tiff", b".webp"),
)


class Layout(StrEnum):
    """How a folder holds its labels."""

    AUTO = "auto"
    FOLDERS = "folders"
    FLAT = "flat"


@dataclass(frozen=True)
class FolderSource:
    """Files below one folder of the local disk."""

    root: Path
    layout: Layout
    name: str
    entries: Sequence[Entry]
    follow_symlinks: bool = False
    labels_sha256: str | None = field(default=None)

    @property
    def kind(self) -> str:
        """`folders`, `flat` or `csv`."""
        return "csv" if self.labels_sha256 else self.layout.value

    @property
    def location(self) -> str:
        """Hash of the folder's absolute path."""
        return place_hash(self.root)

    def reader(self) -> Reader:
        """The same folder without the list of its files."""
        return replace(self, entries=())

    def read(self, entry: Entry) -> bytes:
        """Read one file.

        Raises:
            Rejected: it is no longer a regular file (or a symlink, unless they are followed), has another size than
                when it was listed, or cannot be read.
        """
        path = os.path.join(os.fsencode(self.root), entry.path)
        flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
        if not self.follow_symlinks:
            flags |= os.O_NOFOLLOW
        try:
            with open(path, "rb", opener=lambda name, _: os.open(name, flags)) as file:
                info = os.fstat(file.fileno())
                if not stat.S_ISREG(info.st_mode):
                    raise Rejected(RejectCode.NOT_REGULAR, "not a regular file")
                if info.st_size > MAX_BYTES:
                    raise Rejected(RejectCode.TOO_LARGE, f"{info.st_size:,} bytes are no picture's")
                size = info.st_size if entry.size is None else entry.size
                if info.st_size != size or len(data := file.read(size + 1)) != size:
                    raise changed(size, os.fstat(file.fileno()).st_size)
                return data
        except OSError as error:
            raise _reject(error) from None


def open_folder(
    root: Path,
    *,
    layout: Layout = Layout.AUTO,
    labels: Path | None = None,
    follow_symlinks: bool = False,
) -> FolderSource:
    """List the files of a folder.

    Args:
        root: the folder.
        layout: `folders` takes the first folder below `root` for the label (torchvision's `ImageFolder`), `flat`
            has no labels, `auto` tells the two apart.
        labels: a CSV or Parquet file with the columns `path` (relative to `root`) and `label`.
        follow_symlinks: index what symbolic links point to; by default they are rejected.

    Raises:
        SourceError: no folder, no files, or a layout that can be read in two ways.
    """
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise SourceError(f"the source {root} {what}: give a folder of pictures")
    root = root.resolve()
    found = list(_walk(os.fsencode(root), follow_symlinks))
    own = None if labels is None else os.path.relpath(labels.resolve(), root)
    layout, entries, digest = arrange(found, layout, labels, str(root), own)
    return FolderSource(root, layout, source_name(root.name, root.parent.name), entries, follow_symlinks, digest)


def arrange(
    found: Sequence[Entry], layout: Layout, labels: Path | None, where: str, own: str | None = None
) -> tuple[Layout, Sequence[Entry], str | None]:
    """Give the files of a source their order and their labels.

    Args:
        found: the files, without labels.
        layout, labels: see `open_folder`.
        where: what the source is called in errors.
        own: where the file of labels is among the source's, if it is.

    Returns:
        The layout, the entries by their paths, and the SHA-256 of the file of labels.

    Raises:
        SourceError: no files, or a layout that can be read in two ways.
    """
    found = sorted(found, key=lambda entry: entry.path)
    digest: str | None = None
    if labels is not None:
        if layout is Layout.FOLDERS:
            raise SourceError("labels come from the CSV file or from the folders: give one of the two")
        layout = Layout.FLAT
        found, digest = _label_by_file(found, labels, own)
    elif layout is Layout.AUTO:
        layout = _guess_layout(where, found)
    if layout is Layout.FOLDERS:
        # A link or a folder that cannot be listed may stand for a whole class: it is rejected, not left out.
        loose, found = len(found), [_label_by_folder(e) for e in found if b"/" in e.path or e.rejected]
        if loose and not found:
            raise SourceError(f"no folders of classes in {where}: its {loose} files lie flat, give --layout flat")
    if not found:
        raise SourceError(f"no files in {where}: give a folder of pictures")
    return layout, found, digest


def _walk(root: bytes, follow: bool) -> Iterator[Entry]:
    # The chain of (device, inode) above a folder, so that a link to a parent does not loop.
    top = os.stat(root)
    pending: list[tuple[bytes, frozenset[tuple[int, int]]]] = [(b"", frozenset({(top.st_dev, top.st_ino)}))]
    while pending:
        folder, above = pending.pop()
        try:
            children = list(os.scandir(os.path.join(root, folder)))
        except OSError as error:
            if not folder:
                raise SourceError(f"cannot list {path_text(root)}: {error.strerror}") from None
            yield Entry(folder, 0, rejected=_reject(error))
            continue
        for child in children:
            if left_out(child.name):
                continue
            path = os.path.join(folder, child.name)
            if child.is_symlink() and not follow:
                yield _refused(path, RejectCode.SYMLINK, "a symbolic link: index it with --follow-symlinks")
                continue
            try:
                info = child.stat()
            except OSError as error:
                yield Entry(path, 0, rejected=_reject(error))
                continue
            if stat.S_ISDIR(info.st_mode):
                key = (info.st_dev, info.st_ino)
                if key in above:
                    yield _refused(path, RejectCode.SYMLINK, "a symbolic link to a folder above it")
                else:
                    pending.append((path, above | {key}))
            elif stat.S_ISREG(info.st_mode):
                yield Entry(path, info.st_size)
            else:
                yield _refused(path, RejectCode.NOT_REGULAR, "not a regular file")


def _refused(path: bytes, code: RejectCode, message: str) -> Entry:
    return Entry(path, 0, rejected=Rejected(code, message))


def _reject(error: OSError) -> Rejected:
    if isinstance(error, FileNotFoundError):
        return Rejected(RejectCode.MISSING, "not there")
    if isinstance(error, PermissionError):
        return Rejected(RejectCode.PERMISSION, "may not be read")
    if error.errno == errno.ELOOP:  # O_NOFOLLOW met a link, or links go round in a circle
        return Rejected(RejectCode.SYMLINK, "a symbolic link that cannot be followed")
    if isinstance(error, IsADirectoryError) or error.errno == errno.ENXIO:  # a folder, or a socket
        return Rejected(RejectCode.NOT_REGULAR, "not a regular file")
    return Rejected(RejectCode.IO_ERROR, error.strerror or str(error))


def _guess_layout(where: str, entries: Sequence[Entry]) -> Layout:
    loose = sum(b"/" not in e.path and e.path.lower().endswith(PICTURE_ENDINGS) for e in entries)
    nested = sum(b"/" in e.path for e in entries)
    if loose and nested:
        raise SourceError(
            f"{where} holds both pictures and folders: say --layout folders (labels from the folders' names; "
            "loose files are left out) or --layout flat (no labels)"
        )
    return Layout.FOLDERS if nested else Layout.FLAT


def _label_by_folder(entry: Entry) -> Entry:
    folder, below, _ = entry.path.partition(b"/")
    return Entry(entry.path, entry.size, path_text(folder) if below else None, entry.rejected)


def _label_by_file(found: Sequence[Entry], labels: Path, own: str | None) -> tuple[list[Entry], str]:
    # A text has no way to write bytes that are not UTF-8, so such files are found by their `\\xNN` text.
    by_text = {entry.text: entry for entry in found}
    labelled: list[Entry] = []
    for text, label in read_labels(labels).items():
        missing = f"listed in {labels.name}, but not there"
        entry = by_text.get(text) or _refused(text.encode(), RejectCode.MISSING, missing)
        labelled.append(Entry(entry.path, entry.size, label, entry.rejected))
    listed = {entry.path for entry in labelled}
    rest = [entry for entry in found if entry.path not in listed and entry.text != own]
    entries = sorted([*labelled, *rest], key=lambda entry: entry.path)
    return entries, hashlib.sha256(labels.read_bytes()).hexdigest()
