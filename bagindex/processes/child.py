"""A child process, from outside: a fresh interpreter that runs one function of ours, and may be killed."""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import weakref
from contextlib import suppress
from pathlib import Path

import bagindex
import bagindex_schemas

# -I leaves out the folder where it is started and what the environment says, so that the path is told.
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from {} import main; main()"
_KEPT = ("LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH")
_alive: weakref.WeakSet[Child] = weakref.WeakSet()


class Child:
    """A process that runs `main` of a module; it is told and answers in `frames`.

    It has nothing of this process's environment, and a session of its own: what a terminal sends to its foreground
    does not reach it. It is to end when its stdin does, as it does when this process dies.

    Attributes:
        to: where it is told; does not block.
        answers: where it is heard.

    Raises:
        OSError: the system has no room for another process.
    """

    def __init__(self, module: str) -> None:
        roots = [str(Path(package.__path__[0]).absolute().parent) for package in (bagindex, bagindex_schemas)]
        path = list(dict.fromkeys([*(os.path.abspath(each) for each in sys.path if each), *roots]))
        environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
        # Threads of libraries that it does not need, and an arena of 64 MB for each of those that it does, would take
        # their part of the address space.
        environment |= {
            "OPENBLAS_NUM_THREADS": "1",
            "OMP_NUM_THREADS": "1",
            "MALLOC_ARENA_MAX": "2",
            "LC_ALL": "C.UTF-8",
        }
        # Not PR_SET_PDEATHSIG, which kills when the thread ends that started it. Without us, its stdin ends.
        self._popen = subprocess.Popen(
            [sys.executable, "-I", "-c", _START.format(module), json.dumps(path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            bufsize=0,
            env=environment,
            cwd="/",
            start_new_session=True,
        )
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self.to, self.answers = self._popen.stdin.fileno(), self._popen.stdout.fileno()
        os.set_blocking(self.to, False)
        _alive.add(self)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._popen.pid

    @property
    def ended(self) -> bool:
        """Whether it has ended by itself, or somebody has killed it."""
        return self._popen.poll() is not None

    def kill(self) -> int:
        """End it, whatever it does.

        Returns:
            Its exit status; the negative number of the signal that ended it.
        """
        _alive.discard(self)
        with suppress(OSError):
            self._popen.kill()
        status = self._popen.wait()
        self._close()
        return status

    def _close(self) -> None:
        for pipe in (self._popen.stdin, self._popen.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()

    def _leave(self) -> None:
        """After a fork: it is the other process's. While we held its stdin, it would not end with that one."""
        self._close()
        self._popen.returncode = 0


@atexit.register
def _kill_all() -> None:
    while _alive:
        with suppress(KeyError):
            _alive.pop().kill()


def _leave_all() -> None:
    for child in list(_alive):
        child._leave()
    _alive.clear()


os.register_at_fork(after_in_child=_leave_all)
