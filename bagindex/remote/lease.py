"""Who writes a remote index: an object that is put only where there is none, and put again while its writer lives.

A lock of the disk dies with its process; this one can only grow old. Who comes and finds that it was not renewed for
long enough, by the clock of the one who looks, takes it over. Whoever had it then notices before the next object is
put, or is refused by the condition under which it is put.
"""

from __future__ import annotations

import json
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from bagindex.errors import BagindexError, LockedError, StoreError
from bagindex.remote.mirror import LEASE
from bagindex.remote.objects import Listed, ObjectStore
from bagindex.remote.trouble import Absent, Conflict

LASTS = 60.0
"""Seconds for which a lease holds that is not renewed."""
_RENEWED = LASTS / 4
_LOOK = 1.0


@dataclass(frozen=True)
class _Holder:
    token: str
    who: str
    mirror: str

    def to_bytes(self) -> bytes:
        return json.dumps({**vars(self), "renewed": secrets.token_hex(8)}).encode()


class Lease:
    """The right to write a remote index, renewed by a thread until it is given back.

    Args:
        store: the index's objects.
        mirror: what tells this disk's mirror of it from others; its lock is held, so that a lease that names the same
            mirror is a dead process's.
        note: hears that somebody else may be writing, which takes up to `LASTS` seconds to tell.

    Raises:
        LockedError: somebody else has it.
    """

    def __init__(self, store: ObjectStore, mirror: str, note: Callable[[str], None] = lambda _text: None) -> None:
        self._store = store
        self._note = note
        who = f"process {os.getpid()} on {platform.node() or 'a computer without a name'}"
        self._holder = _Holder(secrets.token_hex(16), who, mirror)
        self._lost = False
        self._over = threading.Event()
        self._listed = self._take()
        self._until = time.monotonic() + LASTS
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """See whether it still holds; to be called before anything is put.

        Raises:
            LockedError: it was taken over, or could not be renewed for so long that it may have been.
        """
        if self._lost or time.monotonic() > self._until:
            raise LockedError(
                f"{self._store.place} is being written by somebody else, since this process was not heard of for "
                f"{LASTS:.0f} seconds: see who that is, and run the same command again; what is committed stays"
            )

    def give_back(self, reachable: bool = True) -> None:
        """Let others write: at once, or where the store is not reachable, when the lease has grown old."""
        self._over.set()
        if reachable:
            self._thread.join()
        if reachable and not self._lost:
            with suppress(StoreError):
                if self._store.find(LEASE) == self._listed:
                    self._store.delete([LEASE])

    def _take(self) -> Listed:
        began = time.monotonic()
        while True:
            try:
                made = self._store.put(LEASE, self._holder.to_bytes(), new=True)
                if self._store.conditional or self._store.find(LEASE) == made:
                    return made
            except Conflict:
                pass
            listed = self._store.find(LEASE)
            holder = self._read(listed)
            if listed is None or holder is None:
                continue
            if holder.token == self._holder.token:  # the answer to our own request was lost
                return listed
            if holder.mirror == self._holder.mirror or self._is_left(listed, holder):
                try:
                    return self._store.put(LEASE, self._holder.to_bytes(), over=listed.tag)
                except Conflict:
                    if time.monotonic() - began > 2 * LASTS:
                        raise _refused(self._store, holder) from None

    def _is_left(self, listed: Listed, holder: _Holder) -> bool:
        """Wait until a lease has grown old, or was renewed."""
        self._note(
            f"{holder.who} has been writing {self._store.place}: waiting up to {LASTS:.0f} seconds for a sign of it"
        )
        until = time.monotonic() + LASTS
        while time.monotonic() < until:
            time.sleep(_LOOK)
            now = self._store.find(LEASE)
            if now is None:
                return False
            if now != listed:
                raise _refused(self._store, holder)
        return True

    def _read(self, listed: Listed | None) -> _Holder | None:
        if listed is None:
            return None
        try:
            found = json.loads(self._store.read(LEASE, 0, listed.size, listed.tag))
            return _Holder(str(found["token"]), str(found["who"]), str(found["mirror"]))
        except (Absent, Conflict):
            return None
        except (ValueError, KeyError, TypeError):
            return _Holder("", "somebody", "")

    def _renew(self) -> None:
        while not self._over.wait(_RENEWED):
            sent = time.monotonic()
            try:
                self._listed = self._store.put(LEASE, self._holder.to_bytes(), over=self._listed.tag)
                self._until = sent + LASTS
            except Conflict:
                listed = self._store.find(LEASE)
                holder = self._read(listed)
                if listed is None or holder is None or holder.token != self._holder.token:
                    self._lost = True
                    return
                self._listed = listed
            except BagindexError:
                continue  # `check` sees how long it was not renewed


def _refused(store: ObjectStore, holder: _Holder) -> LockedError:
    return LockedError(f"{holder.who} is writing {store.place}: wait until it ends, or stop it")
