"""SIGTERM ends a command in good order, as Ctrl-C does, and the exit status says which of the two it was."""

from __future__ import annotations

import signal

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
_terminated = False


def interrupt(*_: object) -> None:
    """A handler of SIGTERM: end like Ctrl-C does, so that temporary files are removed."""
    global _terminated
    _terminated = True
    raise KeyboardInterrupt


def status() -> int:
    """The exit status of a command that was stopped, as shells have it: 128 and the signal's number."""
    return 128 + signal.SIGTERM if _terminated else INTERRUPTED
