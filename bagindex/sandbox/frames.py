"""How a worker is spoken to: frames of a kind, a length and so many bytes, over its stdin and stdout."""

from __future__ import annotations

import json
import os
import select
import struct
import time
from enum import IntEnum
from typing import Any

_HEAD = struct.Struct("<BI")
_AT_ONCE = 1 << 20


class Kind(IntEnum):
    """What a frame has in it: a JSON object, or an Arrow IPC stream."""

    JSON = 1
    ARROW = 2


class LateError(Exception):
    """A frame has not come in time."""


def send(descriptor: int, kind: Kind, content: bytes) -> None:
    """Write a frame.

    Raises:
        OSError: the other end is gone.
    """
    for part in (_HEAD.pack(kind, len(content)), content):
        view = memoryview(part)
        while view:
            view = view[os.write(descriptor, view) :]


def send_json(descriptor: int, **content: object) -> None:
    """Write a frame with a JSON object.

    Raises:
        OSError: the other end is gone.
    """
    send(descriptor, Kind.JSON, json.dumps(content).encode())


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
    content = bytearray()
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(content) < length:
        if deadline is not None and not poll.poll(max(0.0, (deadline - time.monotonic()) * 1000)):
            raise LateError
        part = os.read(descriptor, min(length - len(content), _AT_ONCE))
        if not part:
            raise EOFError
        content += part
    return bytes(content)
