"""What ties a worker to the build that it works for: it sees the same files, and ends with it."""

from __future__ import annotations

import hashlib
import os
import platform
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bagindex.errors import EngineError
from bagindex.images import Rejected
from bagindex.locking import LOCK
from bagindex.sources import Entry, Reader, Source
from bagindex.store import IndexDirectory

_PROBED = 8
"""So many files are tried until the build can read one that its workers must read, too."""
_WATCH_SECONDS = 1.0
_SHARED = "put it on a file system that all machines have in the same place"


@dataclass(frozen=True)
class Probe:
    """What a worker must see as the build does, or it would write elsewhere, and reject all files as missing.

    Attributes:
        lock: the index's; `holder` is what is in it.
        entry: a file of the source, and the SHA-256 of what it holds; None where the build cannot read one.
        machine, process: where the build runs; see `this_machine`.
    """

    lock: Path
    holder: bytes
    entry: tuple[Entry, str] | None
    machine: str
    process: int

    @classmethod
    def of(cls, directory: IndexDirectory, source: Source) -> Probe:
        """That of a build in this process, which holds the index's lock."""
        lock = directory.root.absolute() / LOCK
        return cls(lock, lock.read_bytes(), _readable(source), this_machine(), os.getpid())

    def check(self, reader: Reader) -> None:
        """See whether everything is here, in a worker.

        Raises:
            EngineError: the index or the source is not.
        """
        machine = platform.node()
        if not self._held():
            raise EngineError(f"the machine {machine} does not see {self.lock.parent}, where the index is: {_SHARED}")
        if self.entry is not None and not _same(reader, *self.entry):
            raise EngineError(f"the machine {machine} does not read {self.entry[0].text} of the source: {_SHARED}")

    def watch(self) -> None:
        """End this process when the build ends, or the index is another's; whatever it does then is of no use.

        Ray ends the workers of a build that has died, but not at once.
        """
        threading.Thread(target=self._watch, name="watch", daemon=True).start()

    def _watch(self) -> None:
        here = self.machine == this_machine()
        while self._held() and not (here and _is_gone(self.process)):
            time.sleep(_WATCH_SECONDS)
        os._exit(1)

    def _held(self) -> bool:
        try:
            return self.lock.read_bytes() == self.holder
        except FileNotFoundError:
            return False
        except OSError:  # a file system that is slow, or away for a while
            return True


def this_machine() -> str:
    """A text that no other machine has, nor another container, whose processes have numbers of their own."""
    found = platform.node()
    with suppress(OSError):  # no Linux
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        found = f"{found} {boot} {os.readlink('/proc/self/ns/pid')}"
    return found


def _is_gone(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    with suppress(OSError):  # a parent may leave it as a zombie
        return Path(f"/proc/{process}/stat").read_bytes().rpartition(b")")[2].split()[0] in (b"Z", b"X")
    return False


def _readable(source: Source) -> tuple[Entry, str] | None:
    for entry in source.entries[:_PROBED]:
        try:
            if entry.rejected is None:
                return entry, hashlib.sha256(source.read(entry)).hexdigest()
        except Rejected:
            continue
    return None


def _same(reader: Reader, entry: Entry, sha256: str) -> bool:
    try:
        return hashlib.sha256(reader.read(entry)).hexdigest() == sha256
    except Rejected:
        return False
