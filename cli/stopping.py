"""A command that is stopped says so on one line. SIGTERM ends it in good order, as Ctrl-C does, and the exit status
says which of the two it was.
"""

from __future__ import annotations

import signal
import sys

INTERRUPTED = 130
"""Exit status after Ctrl-C."""
_terminated = False
_said = False


def begin() -> None:
    """A command begins: nothing has stopped it."""
    global _said, _terminated
    _said = _terminated = False


def interrupt(*_: object) -> None:
    """A handler of SIGTERM: end like Ctrl-C does, so that temporary files are removed."""
    global _terminated
    _terminated = True
    raise KeyboardInterrupt


def status() -> int:
    """The exit status of a command that was stopped, as shells have it: 128 and the signal's number."""
    return 128 + signal.SIGTERM if _terminated else INTERRUPTED


def say(what: str | None = None) -> None:
    """Tell the person that the command was stopped, and what becomes of its work; who says it first is heard."""
    global _said
    if not _said:
        _said = True
        print(f"bagindex: stopped{f'; {what}' if what else ''}", file=sys.stderr, flush=True)
