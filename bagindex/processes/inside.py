"""What a child process sees to by itself."""

from __future__ import annotations

import os
import resource
import select
import signal
import sys
import threading


def own_answers() -> int:
    """Where to answer; what a library prints to stdout goes nowhere."""
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return answers


def limit(address_space: int) -> None:
    """No file can be written or grown, no core dumped, and no more memory mapped.

    Args:
        address_space: bytes; fewer where this process may have fewer already.
    """
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    if sys.platform == "linux":  # macOS knows the limit and does not heed it
        _, most = resource.getrlimit(resource.RLIMIT_AS)
        address_space = address_space if most == resource.RLIM_INFINITY else min(address_space, most)
        resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))


def end_with_parent() -> None:
    """End as soon as nobody can write to stdin any more, whatever is being done; Ctrl-C is the parent's to hear."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_watch, daemon=True).start()


def _watch() -> None:
    poll = select.poll()
    poll.register(0, 0)  # of its end alone
    poll.poll()
    os._exit(0)


def give_up_after(seconds: float) -> None:
    """Be killed by the system after so long, even in the middle of a library's call, should nobody be there to do it.

    Args:
        seconds: 0 takes it back.
    """
    signal.setitimer(signal.ITIMER_REAL, min(seconds, 86_400.0))


def die_first() -> None:
    """When memory runs out, have the system kill this process before the one that works for hours."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:
            file.write("1000")
    except OSError:  # no Linux, or not allowed
        pass
