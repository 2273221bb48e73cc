"""Pictures inside an uncompressed tar archive: read where they lie, never extracted."""

from __future__ import annotations

import io
import os
import stat
import tarfile
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from bagindex.errors import SourceError
from bagindex.images import Rejected
from bagindex.sources import MAX_BYTES, Entry, Reader, place_hash
from bagindex.sources.files import Stamp, changed_file, stamp_of
from bagindex.text import path_text
from bagindex_schemas.rejects import RejectCode

PositionedRead = Callable[[int, int], bytes]
"""(count, offset) to bytes, fewer at the end of the archive; like `os.pread` on a descriptor."""
_MAX_HEADER = 2**16
"""Long names and PAX records are far smaller; a header that claims more is not read."""


@dataclass(frozen=True)
class Member:
    """A file of an archive: its bytes lie at `offset`. `rejected` says why it may not be read."""

    path: bytes
    offset: int
    size: int
    rejected: Rejected | None = None


class TarSource:
    """The files of one archive, without labels, listed in the order of their paths' bytes.

    Directories and names that begin with a dot are left out. Links, devices and unsafe names are entries that are
    rejected. Where a name is there twice, the later member counts, as when tar unpacks. Members may be read from
    several threads; the archive stays open for as long as the source lives.

    Attributes:
        complete: whether the archive has its end mark; where it has none, further members may be lost.
        path: the archive.
        stamp: by which it is known to be the archive that was listed.
    """

    kind = "tar"

    def __init__(self, path: Path) -> None:
        """List the archive's members.

        Raises:
            SourceError: it cannot be read, is no uncompressed tar archive, is damaged, or holds no files.
        """
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except OSError as error:
            raise SourceError(f"cannot read {path}: {error.strerror}") from None
        weakref.finalize(self, os.close, descriptor)
        info = os.fstat(descriptor)
        if not stat.S_ISREG(info.st_mode):
            raise SourceError(f"{path} is not a file: give a tar archive of pictures")
        self.path = path
        self._descriptor = descriptor
        self.stamp = stamp_of(info)
        members, self.complete = list_members(lambda n, offset: os.pread(descriptor, n, offset), info.st_size, path)
        if not members:
            raise SourceError(f"no files in {path}: give a tar archive of pictures")
        self.name = path_text(os.fsencode(path.resolve().stem))
        self.location = place_hash(path.resolve())
        self.entries: Sequence[Entry] = [Entry(m.path, m.size, rejected=m.rejected) for m in members]
        self._members = {member.path: member for member in members}

    def reader(self) -> Reader:
        """The archive itself: where its members lie is needed to read them. Another process opens it anew."""
        return self

    def __reduce__(self) -> tuple[Callable[[Path, Stamp], TarSource], tuple[Path, Stamp]]:
        """For other processes."""
        return TarSource.again, (self.path.absolute(), self.stamp)

    @classmethod
    def again(cls, path: Path, stamp: Stamp) -> TarSource:
        """An archive that was listed before, opened anew.

        Raises:
            SourceError: it cannot be read, or is another one now.
        """
        source = cls(path)
        if source.stamp != stamp:
            raise changed_file(path)
        return source

    def read(self, entry: Entry) -> bytes:
        """The member's bytes.

        Raises:
            Rejected: the listing rejected it, or the archive cannot be read there.
            SourceError: the archive is another than when it was listed: where its members lie cannot be told any more.
        """
        member = self._members.get(entry.path)
        if member is None:
            raise Rejected(RejectCode.MISSING, "not there")
        if member.rejected is not None:
            raise Rejected(member.rejected.code, member.rejected.message)
        parts: list[bytes] = []
        offset, end = member.offset, member.offset + member.size
        while offset < end:  # one call may give less than what is asked
            try:
                part = os.pread(self._descriptor, end - offset, offset)
            except OSError as error:
                raise Rejected(RejectCode.IO_ERROR, error.strerror or str(error)) from None
            if not part:
                break
            parts.append(part)
            offset += len(part)
        # Afterwards, so that what was changed while it was read is seen, too.
        if stamp_of(os.fstat(self._descriptor)) != self.stamp:
            raise changed_file(self.path)
        if offset < end:
            raise Rejected(RejectCode.TRUNCATED, "the archive ends before the file does")
        return b"".join(parts)


def list_members(pread: PositionedRead, size: int, where: Path) -> tuple[list[Member], bool]:
    """The files of a tar archive of `size` bytes by path, and whether its end mark is there; see `TarSource`.

    Raises:
        SourceError: it is no tar archive, or a header is damaged or cut off.
    """
    file = _HeaderFile(pread)
    found: dict[bytes, Member] = {}
    offset = 0
    try:
        # Members are read one by one with `fromtarfile`: TarFile itself would keep them all.
        with tarfile.TarFile(fileobj=file, encoding="utf-8", errors="surrogateescape") as tar:
            while offset < size:
                if not any(pread(tarfile.BLOCKSIZE, offset)):
                    return _by_path(found), True
                file.seek(offset)
                header = tarfile.TarInfo.fromtarfile(tar)
                if header.size < 0 or tar.offset < header.offset_data:
                    raise tarfile.HeaderError("a negative size")
                offset = tar.offset
                member = _member(header, size)
                if member is not None:
                    found[member.path] = member
    except OSError as error:
        raise SourceError(f"cannot read {where}: {error.strerror}") from None
    except Exception as error:  # tarfile raises whatever it likes on hostile headers
        if offset == 0:
            raise SourceError(
                f"{where} is no tar archive ({_reason(error)}): fetch it again, or decompress it"
            ) from None
        raise SourceError(
            f"{where} is damaged or cut short at byte {offset:,} ({_reason(error)}): fetch it again"
        ) from None
    return _by_path(found), False


class _HeaderFile(io.RawIOBase):
    """What `tarfile` reads headers from; it takes nothing larger than a header."""

    def __init__(self, pread: PositionedRead) -> None:
        self._pread = pread
        self._offset = 0

    def read(self, size: int = -1, /) -> bytes:
        if not 0 <= size <= _MAX_HEADER:
            raise tarfile.HeaderError(f"a header of {size:,} bytes")
        data = self._pread(size, self._offset)
        self._offset += len(data)
        return data

    def seek(self, offset: int, whence: int = os.SEEK_SET, /) -> int:
        self._offset = offset
        return offset

    def tell(self) -> int:
        return self._offset


def _member(header: tarfile.TarInfo, archive_size: int) -> Member | None:
    if header.isdir():
        return None
    raw = header.name.encode("utf-8", "surrogateescape")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if raw.startswith(b"/"):
        return Member(raw, 0, 0, Rejected(RejectCode.NOT_REGULAR, "an absolute path in an archive"))
    if b".." in parts or b"\0" in raw or not parts:
        return Member(raw, 0, 0, Rejected(RejectCode.NOT_REGULAR, "an unsafe path in an archive"))
    if any(part.startswith(b".") for part in parts):
        return None
    path = b"/".join(parts)
    refused = _refusal(header)
    if refused is not None:
        return Member(path, 0, 0, refused)
    if header.size > MAX_BYTES:
        refused = Rejected(RejectCode.TOO_LARGE, f"{header.size:,} bytes are no picture's")
    elif header.offset_data + header.size > archive_size:
        there = max(0, archive_size - header.offset_data)
        refused = Rejected(RejectCode.TRUNCATED, f"the archive ends after {there:,} of {header.size:,} bytes")
    return Member(path, header.offset_data, header.size, refused)


def _refusal(header: tarfile.TarInfo) -> Rejected | None:
    if header.issym() or header.islnk():
        return Rejected(RejectCode.SYMLINK, "a link in an archive")
    if header.issparse():
        return Rejected(RejectCode.UNSUPPORTED, "a sparse file in an archive: pack it without --sparse")
    if not header.isreg():
        return Rejected(RejectCode.NOT_REGULAR, "not a regular file")
    return None


def _by_path(found: dict[bytes, Member]) -> list[Member]:
    return [found[path] for path in sorted(found)]


def _reason(error: Exception) -> str:
    return str(error) or type(error).__name__
