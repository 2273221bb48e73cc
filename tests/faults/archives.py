"""Tar archives that are damaged or meant to do harm: nothing is written or read outside, and each file is indexed,
rejected with a code, or the archive refused.
"""

from __future__ import annotations

import gzip
import io
import os
import random
import sys
import tarfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.decoding import Decoder
from bagindex.errors import SourceError
from bagindex.images import Picture, Rejected
from bagindex.sources.archives import TarSource
from bagindex.sources.imagenet import open_imagenet
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Transform
from bagindex_schemas.rejects import RejectCode
from fakes import LinearCompute, number_png
from faults.common import Outcome
from test_images import png_that_claims

_TRANSFORM = Transform(resize=16, crop_height=16, crop_width=16)
_SECRET = number_png(4242, 16)
"""A picture outside the archive, which no name in it may reach."""
_ROOM = 200
"""Megabytes that this process may grow by while it lists an archive."""


def pack(pictures: Mapping[str, bytes]) -> bytes:
    """An ordinary archive."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        for name, content in pictures.items():
            tar.addfile(_file(name, content), io.BytesIO(content))
    return data.getvalue()


def members(folder: Path, trials: int, seed: int) -> Outcome:
    """Every kind of hostile member, one archive for each and one of all of them, so many times."""
    outcome = Outcome("hostile members of tar archives")
    for trial in range(trials):
        place = _place(folder, f"members-{trial}")
        every = io.BytesIO()
        with tarfile.open(fileobj=every, mode="w") as together:
            for name, member in _members(place.outside).items():
                data = io.BytesIO()
                with tarfile.open(fileobj=data, mode="w") as tar:
                    for archive in (tar, together):
                        _add(archive, member)
                    _add(tar, _Member(_file("sound.png", number_png(5, 16)), number_png(5, 16)))
                came, problems = _read(place, data.getvalue(), {name: member.code})
                outcome.trial(came, *(f"{name}: {problem}" for problem in problems))
        came, problems = _indexed(place, every.getvalue())
        outcome.trial(came, *(f"all of them: {problem}" for problem in problems))
    return outcome.done()


def archives(folder: Path, trials: int, seed: int) -> Outcome:
    """Archives that are cut short, flipped, compressed, or bombs."""
    outcome = Outcome("damaged and hostile tar archives")
    place = _place(folder, "archives")
    sound = pack({f"{number:02}.png": number_png(number, 16) for number in range(6)})
    for name, data in _whole(sound).items():
        came, problems = _read(place, data, {}, refused=True)
        outcome.trial(came, *(f"{name}: {problem}" for problem in problems))
    outcome.trial(*_bomb(place))
    for trial in range(trials - outcome.trials):
        chance = random.Random(f"{seed}-{trial}")
        data = bytearray(sound)
        if chance.random() < 0.4:
            del data[chance.randrange(len(data)) :]
        for _ in range(chance.randint(0, 6)):
            if data:
                # Headers more often than what is between them.
                block = 512 * chance.randrange(-(-len(data) // 512))
                data[min(len(data) - 1, block + chance.randrange(512))] ^= 1 << chance.randrange(8)
        came, problems = _read(place, bytes(data), {})
        outcome.trial(came, *(f"trial {trial} of seed {seed}: {problem}" for problem in problems))
    return outcome.done()


@dataclass(frozen=True)
class _Place:
    """Where a trial is made: the archive, and what is beside it and must stay as it is."""

    root: Path

    @property
    def archive(self) -> Path:
        return self.root / "inside" / "pictures.tar"

    @property
    def outside(self) -> Path:
        return self.root / "outside"

    def tree(self) -> dict[str, bytes]:
        """All files but the archive and the index, and the folders."""
        found = {}
        for path in sorted(self.root.rglob("*")):
            if path != self.archive and not path.is_relative_to(self.root / "index"):
                found[str(path)] = path.read_bytes() if path.is_file() else b"a folder"
        return found


def _place(folder: Path, name: str) -> _Place:
    place = _Place(folder / name)
    place.outside.mkdir(parents=True)
    place.archive.parent.mkdir()
    (place.outside / "secret.png").write_bytes(_SECRET)
    return place


@dataclass(frozen=True)
class _Member:
    """A member, what is in it, and why it is rejected; None: it is left out, or indexed."""

    header: tarfile.TarInfo
    content: bytes = b""
    code: RejectCode | None = None


def _file(name: str, content: bytes) -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.size = len(content)
    return header


def _special(name: str, kind: bytes, target: str = "") -> tarfile.TarInfo:
    header = tarfile.TarInfo(name)
    header.type, header.linkname = kind, target
    header.devmajor, header.devminor = 1, 5  # /dev/zero, were it a device
    return header


def _pax(name: str, content: bytes, **headers: str) -> tarfile.TarInfo:
    header = _file(name, content)
    header.pax_headers = dict(headers)
    return header


_SPARSE = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}


def _members(outside: Path) -> Mapping[str, _Member]:
    """Each kind of hostile member."""
    picture = number_png(7, 16)
    secret = str(outside / "secret.png")
    # A map of the file's parts comes before them.
    sparse = (b"1\n0\n%d\n" % len(picture)).ljust(512, b"\0") + picture
    inner, packed = pack({"../x.png": picture}), gzip.compress(picture)
    bomb = png_that_claims(60_000, 60_000)
    not_regular, no_image, link = RejectCode.NOT_REGULAR, RejectCode.NOT_AN_IMAGE, RejectCode.SYMLINK
    return {
        "an absolute path": _Member(_file(secret, picture), picture, not_regular),
        "a path above": _Member(_file("../outside/secret.png", picture), picture, not_regular),
        "a path above, hidden": _Member(_file("a/../../outside/secret.png", picture), picture, not_regular),
        "a symlink outside": _Member(_special("symlink.png", tarfile.SYMTYPE, secret), b"", link),
        "a symlink above": _Member(_special("symlink2.png", tarfile.SYMTYPE, "../outside/secret.png"), b"", link),
        "a symlink to a folder": _Member(_special("folder", tarfile.SYMTYPE, str(outside)), b"", link),
        "a hard link outside": _Member(_special("hard.png", tarfile.LNKTYPE, secret), b"", link),
        "a hard link inside": _Member(_special("hard2.png", tarfile.LNKTYPE, "sound.png"), b"", link),
        "a character device": _Member(_special("zero.png", tarfile.CHRTYPE), b"", not_regular),
        "a block device": _Member(_special("disk.png", tarfile.BLKTYPE), b"", not_regular),
        "a FIFO": _Member(_special("fifo.png", tarfile.FIFOTYPE), b"", not_regular),
        "a sparse file": _Member(_special("sparse.png", tarfile.GNUTYPE_SPARSE), b"", RejectCode.UNSUPPORTED),
        "a sparse file of PAX": _Member(_pax("sparse2.png", sparse, **_SPARSE), sparse, RejectCode.UNSUPPORTED),
        "a path above in a PAX header": _Member(_pax("a.png", picture, path="../b.png"), picture, not_regular),
        "a link in a PAX header": _Member(_pax("c.png", picture, linkpath=secret), picture),
        "an owner and a time beyond bounds": _Member(_pax("o.png", picture, uid=str(2**80), mtime="-1e300"), picture),
        "a name of 60,000 characters": _Member(_file("n" * 60_000 + ".png", picture), picture),
        "a deep path": _Member(_file("d/" * 400 + "deep.png", picture), picture),
        "a name with a line break": _Member(_file("line\nbreak.png", picture), picture),
        "a name that is no UTF-8": _Member(_file("\udcff\udcfe.png", picture), picture),
        "a hidden file": _Member(_file(".hidden.png", picture), picture),
        "a picture of 60,000 x 60,000": _Member(_file("bomb.png", bomb), bomb, RejectCode.TOO_LARGE),
        "an archive in the archive": _Member(_file("inner.tar", inner), inner, no_image),
        "compressed": _Member(_file("picture.png.gz", packed), packed, no_image),
        "an empty file": _Member(_file("empty.png", b""), b"", RejectCode.EMPTY),
        "a folder of bytes": _Member(_special("pretends.png/", tarfile.DIRTYPE)),
        "the same name again": _Member(_file("sound.png", picture), picture),
    }


def _add(tar: tarfile.TarFile, member: _Member) -> None:
    tar.addfile(member.header, io.BytesIO(member.content) if member.content else None)


def _whole(sound: bytes) -> Mapping[str, bytes]:
    """Archives that are refused as a whole."""
    huge = bytearray(sound)
    huge[124:136] = b"\x80" + (2**62).to_bytes(11, "big")
    below = bytearray(sound)
    below[124:136] = b"\xff" * 12
    endless = tarfile.TarInfo("././@LongLink")
    endless.type, endless.size = tarfile.GNUTYPE_LONGNAME, 2**40
    return {
        "nothing": b"",
        "zeros": bytes(10_240),
        "text": b"no archive " * 1000,
        "gzip": gzip.compress(sound),
        "gzip of a gigabyte of zeros": gzip.compress(bytes(2**20)) * 1024,
        "a negative size": _signed(below),
        "a name of a terabyte": endless.tobuf(tarfile.GNU_FORMAT) + sound,
        "a sparse file without its map": _pax("a.png", sound, **_SPARSE).tobuf(tarfile.PAX_FORMAT) + sound,
        "a header that is cut off": sound[: 512 * 2 + 100],
    }


def _signed(header: bytearray) -> bytes:
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header[:512])
    return bytes(header)


def _read(
    place: _Place, data: bytes, expected: Mapping[str, RejectCode | None], refused: bool = False
) -> tuple[str, list[str]]:
    """List an archive and decode what is in it.

    Args:
        place: where.
        data: the archive.
        expected: of a kind of member, why one file is rejected; None: none is.
        refused: whether it has to be refused as a whole.
    """
    place.archive.write_bytes(data)
    before, memory = place.tree(), _megabytes()
    problems = []
    codes: list[RejectCode] = []
    with _opened(place.outside) as outside:
        try:
            source = TarSource(place.archive)
            for entry, found in Decoder(2, 30.0).decode(source, source.entries, _TRANSFORM):
                if isinstance(found, Rejected):
                    codes.append(found.code)
                elif isinstance(found, Picture) and found.pixels.shape == (16, 16, 3):
                    if found.bytes != entry.size or found.pixels[0, 0, 1] == 4242 // 256:
                        problems.append(f"{entry.text!r} is not what the archive has")
                else:
                    problems.append(f"{entry.text!r} comes to {found}")
            came = "read, some rejected" if codes else "read"
            if refused:
                problems.append("it is not refused")
        except SourceError as error:
            came = "refused"
            if "\n" in str(error) or str(place.archive) not in str(error):
                problems.append(f"it is refused so: {error}")
            if expected:
                problems.append(f"one member is hostile, and all is refused: {error}")
    if expected and codes != [code for code in expected.values() if code is not None]:
        problems.append(f"rejected as {codes}, not {[*expected.values()]}")
    problems += [f"it opens {path}" for path in outside]
    if place.tree() != before:
        problems.append("it writes outside the index")
    if (grown := _megabytes() - memory) > _ROOM:
        problems.append(f"memory has grown by {grown} MB")
    return came, problems


def _indexed(place: _Place, data: bytes) -> tuple[str, list[str]]:
    """Index an archive of all kinds of members."""
    place.archive.write_bytes(data)
    before = place.tree()
    with _opened(place.outside) as outside:
        source = TarSource(place.archive)
        build(IndexDirectory(place.root / "index"), source, {}, LinearCompute("ab"), BuildSettings(workers=2))
    problems = [f"it opens {path}" for path in outside]
    if place.tree() != before:
        problems.append("it writes outside the index")
    with Index.open(place.root / "index") as index:
        problems += index.verify().problems
        counts = {row["what"]: row["n"] for row in index.sql(_COUNTS).to_dicts()}
    expected = [member.code for member in _members(place.outside).values()]
    rejected = sum(code is not None for code in expected)
    if counts["rejects"] != rejected or counts["rejects"] + counts["images"] != len(source.entries):
        problems.append(f"{counts}, of {len(source.entries)} entries, {rejected} hostile ones")
    return "indexed, some rejected", problems


_COUNTS = "SELECT 'images' AS what, count(*) AS n FROM images UNION ALL SELECT 'rejects', count(*) FROM rejects"


def _bomb(place: _Place) -> tuple[str, *tuple[str, ...]]:
    """ImageNet's devkit is compressed, and read in memory: two gigabytes of zeros in two megabytes."""
    folder = place.root / "imagenet"
    folder.mkdir()
    (folder / "ILSVRC2012_val_00000001.JPEG").write_bytes(b"")
    (folder / "ILSVRC2012_devkit_t12.tar.gz").write_bytes(gzip.compress(bytes(2**20)) * 2048)
    memory = _megabytes()
    try:
        open_imagenet(folder, "val")
        came: tuple[str, *tuple[str, ...]] = ("taken", "a bomb is taken for ImageNet's devkit")
    except SourceError as error:
        came = ("refused",) if "ILSVRC2012_devkit_t12.tar.gz" in str(error) else ("refused", f"refused so: {error}")
    grown = _megabytes() - memory
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    return came if grown <= _ROOM else (*came, f"memory has grown by {grown} MB")


_watched: list[Path] = []
_seen: list[str] = []


@contextmanager
def _opened(folder: Path) -> Iterator[list[str]]:
    """What is opened below a folder meanwhile, for reading or writing, by this process."""
    if not _hooked:
        sys.addaudithook(_hear)
        _hooked.append(True)
    _watched.append(folder)
    _seen.clear()
    try:
        yield _seen
    finally:
        _watched.clear()


_hooked: list[bool] = []


def _hear(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and event in ("open", "os.listdir", "os.scandir"):
        path = arguments[0]
        if isinstance(path, str | bytes) and _watched[0] in Path(os.path.realpath(os.fsdecode(path))).parents:
            _seen.append(os.fsdecode(path))


def _megabytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20
