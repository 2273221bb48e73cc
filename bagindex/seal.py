"""JSON records on disk, each sealed: its last field is the SHA-256 of all before it, so that a flipped bit is noticed
whenever it is read. Records that versions before format 2 wrote have no seal, and are taken as they are.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import stat
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from bagindex.errors import DamagedIndexError, NewerIndexError
from bagindex_schemas.records import FORMAT_VERSION, Record

_LARGEST = 64 * 2**20
"""Bytes; the record of a shard of 4,096 images has some 60,000."""
_SEAL = re.compile(rb',\n "record_sha256": "([0-9a-f]{64})"\n\}\n\Z')
_FORMAT = re.compile(rb'\{\s*"format":\s*(\d{1,9})\b')
"""How `index.json` begins, in every format."""
UNREADABLE = "have yourself given the right to read it, it may be whole"
"""What to do about a file that may not be read."""
_RecordType = TypeVar("_RecordType", bound=Record)


def sealed(record: Record) -> bytes:
    """A record as JSON with its seal."""
    body = record.model_dump_json(indent=1).encode()
    return body.removesuffix(b"\n}") + b',\n "record_sha256": "%s"\n}\n' % hashlib.sha256(body).hexdigest().encode()


def read_record(path: Path, record: type[_RecordType], advice: str) -> _RecordType:
    """Read a record.

    Args:
        path: where it is.
        record: what it is.
        advice: what to do where it is damaged.

    Raises:
        DamagedIndexError: it is missing, cannot be read, is not what was written, or is no such record.
        NewerIndexError: a later version wrote it, as it says itself.
    """
    try:
        data = read_plain(path, _LARGEST)
    except FileNotFoundError:
        raise DamagedIndexError(f"{path} is missing: {advice}") from None
    except OSError as error:
        todo = UNREADABLE if isinstance(error, PermissionError) else advice
        raise DamagedIndexError(f"cannot read {path} ({error.strerror}): {todo}") from None
    seal = _SEAL.search(data)
    if seal:
        data = data[: seal.start()] + b"\n}"
        if hashlib.sha256(data).hexdigest().encode() != seal[1]:
            raise DamagedIndexError(f"{path} is damaged, its SHA-256 is not the one at its end: {advice}")
    _refuse_newer(path, data)
    try:
        return record.model_validate_json(data)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise DamagedIndexError(f"{path} is damaged ({where or 'JSON'}: {first['msg']}): {advice}") from None


def _refuse_newer(path: Path, data: bytes) -> None:
    # Before anything else of it is looked at: what a later version writes need not be a record of this one's.
    head = _FORMAT.match(data)
    if head and int(head[1]) > FORMAT_VERSION:
        raise NewerIndexError(
            f"{path} has format {int(head[1])}, which a later bagindex wrote; this one reads up to {FORMAT_VERSION}, "
            "and leaves the index as it is: use the version that made it, or a later one"
        )


def read_plain(path: Path, most: int) -> bytes:
    """The bytes of a small regular file. A link is not followed, and a pipe is not waited for.

    Raises:
        OSError: it cannot be read, is something else, or has more than `most` bytes.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file")
        if found.st_size > most:
            raise OSError(errno.EFBIG, f"it has {found.st_size:,} bytes, more than a record can have")
        return file.read(most)
