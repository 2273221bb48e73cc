"""A process that decodes, from outside."""

from __future__ import annotations

import fcntl
import signal
import time
from contextlib import suppress

import numpy as np

from bagindex.geometry import Cut, Placement
from bagindex.images import Picture, Rejected
from bagindex.processes import frames
from bagindex.processes.child import Child
from bagindex_schemas.rejects import RejectCode

WORKER = "bagindex.decoders.worker"
"""The module whose `main` decodes."""
_START_SECONDS = 60.0
_MOST_SAID = 1 << 16
_PIPE = 1 << 20
"""Bytes that an answer's pipe holds, where the system allows it: most models' inputs, so that no process waits."""


class LostError(Exception):
    """The process has ended: `end` says how."""

    def __init__(self, end: str) -> None:
        super().__init__(end)
        self.end = end


class DecoderProcess:
    """A process that is ready to decode, one picture at a time.

    Raises:
        LostError: it has ended before it was ready.
        OSError: the system has no room for another process.
    """

    def __init__(self) -> None:
        self._child = Child(WORKER)
        if hasattr(fcntl, "F_SETPIPE_SZ"):
            with suppress(OSError):
                fcntl.fcntl(self._child.answers, fcntl.F_SETPIPE_SZ, _PIPE)
        try:
            frames.receive_json(self._child.answers, _MOST_SAID, time.monotonic() + _START_SECONDS)
        except frames.LateError:
            self.kill()
            raise LostError(f"was not ready after {_START_SECONDS:g} seconds") from None
        except EOFError:
            raise LostError(self.kill()) from None
        except BaseException:
            self.kill()
            raise

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._child.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended while it had nothing to do."""
        return self._child.ended

    def decode(self, data: bytes, transform: Cut | None, seconds: float, most: int) -> Picture:
        """Decode a picture of `most` pixels; without a transform, it comes whole. After an error other than `Rejected`
        the process is to be killed.

        Raises:
            Rejected: it is no picture, or none that can be indexed.
            frames.LateError: it is not decoded in time.
            LostError: the process has ended.
        """
        deadline = time.monotonic() + seconds
        cut = transform and (transform.resize, transform.crop_height, transform.crop_width)
        try:
            frames.send_json(self._child.to, deadline, seconds=seconds, cut=cut, most=most)
            frames.send(self._child.to, frames.Kind.BYTES, data, deadline)
            said = frames.receive_json(self._child.answers, _MOST_SAID, deadline)
            _, pixels = frames.receive(self._child.answers, 3 * (cut[1] * cut[2] if cut else most), deadline)
        except (OSError, EOFError):
            raise LostError(self.kill()) from None
        if "code" in said:
            raise Rejected(RejectCode(said["code"]), said["message"])
        placement = Placement(*said["placement"])
        _, height, width = cut or (0, placement.height, placement.width)
        if len(pixels) != height * width * 3:
            raise LostError(self.kill())
        array = np.frombuffer(pixels, np.uint8).reshape(height, width, 3).copy()  # which may be written
        return Picture(array, placement, len(data), said["sha256"])

    def kill(self) -> str:
        """End it, whatever it does; how it ended, in words."""
        status = self._child.kill()
        if status >= 0:
            return f"ended with status {status}"
        try:
            return f"was ended by {signal.Signals(-status).name}"
        except ValueError:
            return f"was ended by signal {-status}"
