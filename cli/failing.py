"""What went wrong, in words, where bagindex has not foreseen it."""

from __future__ import annotations

import errno
import os
import re
import sys
import threading
import traceback

from bagindex.output import printable

_ADVICE = {
    **dict.fromkeys((errno.EACCES, errno.EPERM), ": have yourself given the right to it, or give another place"),
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), ": make room there, or give another place"),
    errno.EROFS: ": nothing can be written there; give another place",
    errno.EMFILE: ": too many files are open, allow more (`ulimit -n`)",
}
_NO_MEMORY = re.compile(
    r"out of memory|not enough memory|bad_?alloc|(can't|cannot|failed to) allocate|can't start new thread"
    r"|could not (create|execute) a (primitive|memory)",  # oneDNN's way
    re.IGNORECASE,
)


def words(error: BaseException) -> str:
    """An error that is no `BagindexError`, for the person."""
    if _lacks_memory(error):
        return "out of memory: give a smaller --batch-size or --image-size, or fewer --workers"
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return f"{error.strerror or error}{where}{_ADVICE.get(error.errno or 0, '')}"
    if isinstance(error, ImportError) and not (error.name or "").startswith("bagindex"):
        return f"{error.name or 'a library'} cannot be imported ({error}): install bagindex again, with all it requires"
    return f"{type(error).__name__}: {error}; this is a bug: please report it with what --debug shows"


def say(message: str, error: BaseException | None) -> None:
    """Print an error's words, and with --debug where it comes from."""
    if error is not None and os.environ.get("BAGINDEX_DEBUG"):
        traceback.print_exception(error)
    # Files of others are quoted in it.
    print(f"bagindex: {printable(message)}", file=sys.stderr)


def thread_failed(failed: threading.ExceptHookArgs) -> None:
    """A `threading.excepthook`: others wait for what the thread will not do, so that the command ends as if killed.

    Threads of ours hand their errors on. This is for those that end because there is no memory to do so.
    """
    error = failed.exc_value or failed.exc_type()
    say(f"a thread has ended: {words(error)}", error)
    sys.stderr.flush()
    os._exit(1)


def _lacks_memory(error: BaseException) -> bool:
    """Whether it is for want of memory, of which each library has its own way to speak."""
    # SystemError: the interpreter has no memory for the exception.
    known = isinstance(error, MemoryError | SystemError) or getattr(error, "errno", None) == errno.ENOMEM
    return known or _NO_MEMORY.search(str(error)) is not None
