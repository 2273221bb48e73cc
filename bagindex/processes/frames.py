"""How a child process is spoken to: frames of a kind, a length and so many bytes, over its stdin and stdout."""

from __future__ import annotations

import io
import json
import os
import select
import struct
import time
from enum import IntEnum
from typing import Any

_HEAD = struct.Struct("<BI")
_AT_ONCE = 1 << 20
_LONGEST = 86_400_000
"""Milliseconds that the system is asked to wait at most: it takes no number, however large."""


class Kind(IntEnum):
    """What a frame has in it: a JSON object, an Arrow IPC stream, or bytes as they are."""

    JSON = 1
    ARROW = 2
    BYTES = 3


class LateError(Exception):
    """A frame has not come, or was not taken, in time."""


def send(descriptor: int, kind: Kind, content: bytes, deadline: float | None = None) -> None:
    """Write a frame.

    Args:
        descriptor: a pipe; with a deadline, one that does not block.
        kind: what it has in it.
        content: at most 4 GB of it.
        deadline: on the monotonic clock, in seconds; None waits.

    Raises:
        OSError: the other end is gone.
        LateError: the deadline has passed.
    """
    for part in (_HEAD.pack(kind, len(content)), content):
        view = memoryview(part)
        while view:
            _wait(descriptor, select.POLLOUT, deadline)
            view = view[os.write(descriptor, view) :]


def send_json(descriptor: int, deadline: float | None = None, /, **content: object) -> None:
    """Write a frame with a JSON object; see `send`."""
    send(descriptor, Kind.JSON, json.dumps(content).encode(), deadline)


def receive(descriptor: int, most: int, deadline: float | None = None) -> tuple[Kind, bytes]:
    """Read a frame.

    Args:
        descriptor: a pipe.
        most: how many bytes it may have.
        deadline: on the monotonic clock, in seconds; None waits.

    Raises:
        EOFError: the other end is gone, or says what is no frame.
        LateError: the deadline has passed.
    """
    kind, length = _HEAD.unpack(_read(descriptor, _HEAD.size, deadline))
    if kind not in tuple(Kind) or length > most:
        raise EOFError
    return Kind(kind), _read(descriptor, length, deadline)


def receive_json(descriptor: int, most: int, deadline: float | None = None) -> dict[str, Any]:
    """Read a frame that is a JSON object; see `receive`."""
    kind, content = receive(descriptor, most, deadline)
    try:
        found = json.loads(content) if kind is Kind.JSON else None
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise EOFError
    return found


def _read(descriptor: int, length: int, deadline: float | None) -> bytes:
    content = io.BytesIO()  # gives its bytes away without a copy, which may be a picture of a gigabyte
    while left := length - content.tell():
        _wait(descriptor, select.POLLIN, deadline)
        part = os.read(descriptor, min(left, _AT_ONCE))
        if not part:
            raise EOFError
        content.write(part)
    return content.getvalue()


def _wait(descriptor: int, event: int, deadline: float | None) -> None:
    poll = select.poll()
    poll.register(descriptor, event)
    left = None if deadline is None else min(_LONGEST, max(0.0, (deadline - time.monotonic()) * 1000))
    if not poll.poll(left):
        raise LateError
