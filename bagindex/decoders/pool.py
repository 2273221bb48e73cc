"""The processes that decode, shared by this process's threads: started when needed, kept for the next picture."""

from __future__ import annotations

import os
import threading

from bagindex.decoders.process import DecoderProcess, LostError
from bagindex.errors import DecoderError
from bagindex.geometry import Cut
from bagindex.images import MAX_PIXELS, Picture, Rejected
from bagindex.processes.frames import LateError
from bagindex.sources import MAX_BYTES
from bagindex_schemas.rejects import RejectCode

DEFAULT_SECONDS = 60.0
"""How long a picture may take to be decoded, unless that is said."""
_TRIES = 3
"""A process may end for other reasons than its picture: a person kills it, or the system for want of memory."""

_lock = threading.Lock()
_idle: list[DecoderProcess] = []


def decode(data: bytes, transform: Cut | None, seconds: float = DEFAULT_SECONDS, most: int = MAX_PIXELS) -> Picture:
    """Decode `data` in another process, and cut the model's input out of it. From any thread.

    Args:
        data: a picture's file.
        transform: what is cut out; None: nothing, the whole picture is wanted.
        seconds: how long it may take.
        most: how many pixels it may have.

    Raises:
        Rejected: it is no picture, or none that can be indexed; or the process that decodes it ends each time.
        DecoderError: no process can be started.
    """
    if len(data) > MAX_BYTES:
        raise Rejected(RejectCode.TOO_LARGE, f"{len(data):,} bytes are no picture's")
    ends: list[str] = []
    while len(ends) < _TRIES:
        process = _take()
        try:
            picture = process.decode(data, transform, seconds, most)
        except Rejected:
            _give(process)
            raise
        except LateError:
            process.kill()
            raise Rejected(RejectCode.DECODER_TIMEOUT, f"not decoded within {seconds:g} seconds") from None
        except LostError as lost:
            ends.append(lost.end)
        except BaseException:
            process.kill()
            raise
        else:
            _give(process)
            return picture
    raise Rejected(RejectCode.DECODER_CRASHED, f"what decodes it {ends[-1]}, the third time")


def processes() -> tuple[int, ...]:
    """The ids of those that have nothing to do now."""
    with _lock:
        return tuple(process.pid for process in _idle if not process.ended)


def _take() -> DecoderProcess:
    with _lock:
        while _idle:
            process = _idle.pop()
            if not process.ended:
                return process
            process.kill()
    return _start()


def _give(process: DecoderProcess) -> None:
    with _lock:
        _idle.append(process)


def _start() -> DecoderProcess:
    ends: list[str] = []
    while len(ends) < _TRIES:
        try:
            return DecoderProcess()
        except LostError as lost:
            ends.append(lost.end)
        except OSError as error:
            raise DecoderError(
                f"no process can be started that decodes pictures ({error.strerror}): give fewer --workers"
            ) from None
    raise DecoderError(
        f"the process that decodes pictures {ends[-1]} before it was ready: is there enough memory, and is the "
        "installation whole (`pip check`)?"
    )


def _forget() -> None:
    global _lock
    # After a fork: they are the other process's, and its threads, one of which may hold the lock, are not here.
    _lock = threading.Lock()
    _idle.clear()


os.register_at_fork(after_in_child=_forget)
