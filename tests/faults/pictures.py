"""Pictures that are damaged or meant to do harm, through the processes that decode: each is rejected with a code, or
decoded to the model's input, and nothing hangs.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from bagindex.decoders import pool
from bagindex.decoding import Decoder
from bagindex.images import Picture, Rejected
from bagindex.sources import Entry
from bagindex_schemas.records import Transform
from bagindex_schemas.rejects import RejectCode
from faults.common import Outcome
from test_images import NOT_INDEXED, encode, noise, png_that_claims

TRANSFORM = Transform(resize=20, crop_height=16, crop_width=18)
_SECONDS = 30.0
"""How long one may take: a flipped bit may ask for a picture of 179 million pixels."""
_ROOM = 200
"""Megabytes that this process may grow by, whatever it has decoded."""
_BOMBS = (png_that_claims(60_000, 60_000), b"P6 60000 60000 255\n")


@dataclass(frozen=True)
class _Listed:
    """A source of pictures in memory."""

    pictures: Sequence[bytes]

    kind = name = location = "listed"

    @property
    def entries(self) -> Sequence[Entry]:
        return [Entry(b"%d" % place, len(data)) for place, data in enumerate(self.pictures)]

    def read(self, entry: Entry) -> bytes:
        return self.pictures[int(entry.path)]


def kinds(folder: Path, trials: int, seed: int) -> Outcome:
    """Every kind of file that is not indexed, so many times, in another order each time."""
    outcome = Outcome("each kind of bad input")
    known = [(data, code) for data, code, _message in NOT_INDEXED]
    known += [(data, RejectCode.TOO_LARGE) for data in _BOMBS]
    known.append((encode(Image.new("F", (24, 16)), "TIFF"), RejectCode.UNSUPPORTED))
    chance = random.Random(seed)
    for trial in range(trials):
        chance.shuffle(known)
        found = _decode(outcome, [data for data, _ in known], f"round {trial} of seed {seed}")
        for place, (_, code) in enumerate(known):
            if found[place] != code:
                outcome.problems.append(f"round {trial} of seed {seed}, file {place}: {found[place]}, not {code}")
    return outcome.done()


def truncations(folder: Path, trials: int, seed: int) -> Outcome:
    """A JPEG, baseline and progressive, cut short at every byte, or at so many."""
    outcome = Outcome("truncations of a JPEG")
    files = [encode(noise(40, 32), "JPEG"), encode(noise(40, 32), "JPEG", progressive=True)]
    cuts = [(data[:length], len(data) - length) for data in files for length in range(len(data))]
    if trials < len(cuts):
        cuts = random.Random(seed).sample(cuts, trials)
    found = _decode(outcome, [cut for cut, _ in cuts], f"of seed {seed}, cut")
    # The last two bytes say that this is the end, and nothing of the picture.
    outcome.problems += [
        f"a JPEG without its last {missing} bytes is taken as whole"
        for (_, missing), code in zip(cuts, found, strict=True)
        if code is None and missing > 2
    ]
    return outcome.done()


def flips(folder: Path, trials: int, seed: int) -> Outcome:
    """One to eight flipped bits in files of each format in turn."""
    outcome = Outcome("bit flips in JPEG, PNG, WebP")
    files = [
        encode(noise(40, 32), "JPEG"),
        encode(noise(40, 32), "PNG"),
        encode(noise(40, 32), "WEBP"),
        encode(noise(40, 32), "JPEG", progressive=True),
        encode(noise(40, 32).convert("P"), "PNG", transparency=3),
        encode(noise(40, 32).convert("RGBA"), "WEBP", lossless=True),
    ]
    chance = random.Random(seed)
    flipped = []
    for trial in range(trials):
        data = bytearray(files[trial % len(files)])
        for _ in range(chance.randint(1, 8)):
            data[_place(chance, len(data))] ^= 1 << chance.randrange(8)
        flipped.append(bytes(data))
    _decode(outcome, flipped, f"of seed {seed}, flip")
    return outcome.done()


def _place(chance: random.Random, length: int) -> int:
    """Half of the flips are among the first bytes, where a file says what it is."""
    return chance.randrange(min(length, 64) if chance.random() < 0.5 else length)


def largest(folder: Path, trials: int, seed: int) -> Outcome:
    """The largest pictures that are taken, each in a file of few bytes, fit into a decoder process."""
    outcome = Outcome("pictures of 179 million pixels in small files")
    side = 13_377
    rotated = Image.Exif()
    rotated[0x0112] = 6
    makes = [
        lambda: encode(Image.new("RGBA", (side, side), (1, 2, 3, 4)), "PNG", exif=rotated, compress_level=1),
        lambda: encode(Image.new("RGBA", (side, side), (1, 2, 3, 4)), "WEBP", lossless=True, method=0),
        lambda: encode(Image.new("RGB", (side, side), (1, 2, 3)), "JPEG", progressive=True, exif=rotated),
        lambda: encode(Image.new("I;16", (side, side), 777), "PNG", exif=rotated, compress_level=1),
        lambda: encode(Image.new("RGB", (side, side), (1, 2, 3)), "JPEG2000"),
    ]
    for trial in range(trials):
        (found,) = _decode(outcome, [makes[trial % len(makes)]()], f"picture {trial}", 600.0)
        if found is not None:
            outcome.problems.append(f"picture {trial}: {found}")
    return outcome.done()


def _decode(
    outcome: Outcome, pictures: Sequence[bytes], where: str, seconds: float = _SECONDS
) -> list[RejectCode | None]:
    """Why each is rejected; None where it is decoded."""
    source = _Listed(pictures)
    shape = (TRANSFORM.crop_height, TRANSFORM.crop_width, 3)
    before = _megabytes()
    codes = []
    for entry, found in Decoder(2, seconds).decode(source, source.entries, TRANSFORM):
        place = f"{where} {entry.text}"
        code = None
        if isinstance(found, Rejected):
            code = found.code
            outcome.trial(code.value, *([] if found.message else [f"{place}: rejected without a message"]))
        elif isinstance(found, Picture) and found.pixels.shape == shape and found.bytes == entry.size:
            outcome.trial("decoded")
        else:
            outcome.trial("wrong", f"{place}: {found}")
        codes.append(code)
    if len(codes) != len(pictures):
        outcome.problems.append(f"{where}: {len(pictures)} pictures, and {len(codes)} answers")
    if (grown := _megabytes() - before) > _ROOM:
        outcome.problems.append(f"{where}: this process has grown by {grown} MB")
    if len(pool.processes()) > 2:
        outcome.problems.append(f"{where}: {len(pool.processes())} processes are left of two")
    return codes


def _megabytes() -> int:
    """Memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 // 2**20
