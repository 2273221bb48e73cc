"""The lock of an index while it is removed and made at the same time, and who is told what."""

from __future__ import annotations

import errno
import fcntl
import os
import re
from pathlib import Path

import pytest

from bagindex import locking
from bagindex.errors import LockedError, SettingsError, SpaceError
from bagindex.locking import hold
from bagindex.store import IndexDirectory


def test_a_lock_that_was_taken_away_with_its_index_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is opened, then who holds it removes the index, and a third makes another."""
    first = hold(tmp_path / "i")
    taken = []
    opening = locking._open

    def opened(path: Path) -> int:
        monkeypatch.setattr(locking, "_open", opening)
        found = opening(path)
        path.unlink()
        os.close(first)
        taken.append(hold(tmp_path / "i"))
        return found

    monkeypatch.setattr(locking, "_open", opened)
    with pytest.raises(LockedError):
        hold(tmp_path / "i")
    os.close(taken[0])
    os.close(hold(tmp_path / "i"))


def test_a_folder_that_goes_in_that_moment_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = []
    opening = locking._open

    def opened(path: Path) -> int:
        if not gone:
            path.parent.rmdir()
            gone.append(path)
        return opening(path)

    monkeypatch.setattr(locking, "_open", opened)
    os.close(hold(tmp_path / "i"))
    assert (tmp_path / "i" / "LOCK").read_text() == f"{os.getpid()}\n"
    monkeypatch.setattr(locking, "_open", lambda path: opening(path.with_name("gone") / "LOCK"))
    with pytest.raises(SettingsError, match="comes and goes"):
        hold(tmp_path / "i")


def test_who_is_told_to_wait_is_told_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The number of the one who writes is never half there: a longer one that was there before is cut off last."""
    (tmp_path / "LOCK").write_text("123456789\n")
    seen = []
    cutting = os.ftruncate

    def cut(descriptor: int, length: int) -> None:
        with pytest.raises(LockedError) as told:
            hold(tmp_path)
        seen.append(str(told.value))
        cutting(descriptor, length)

    monkeypatch.setattr(locking.os, "ftruncate", cut)
    os.close(hold(tmp_path))
    assert re.fullmatch(rf"process {os.getpid()} is writing .*: wait until it ends, or stop it", seen[0])


def test_who_has_the_lock_and_has_not_said_so_yet_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = os.open(tmp_path / "LOCK", os.O_RDWR | os.O_CREAT)
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    pauses = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        os.pwrite(descriptor, b"77\n", 0)

    monkeypatch.setattr(locking.time, "sleep", pause)
    with pytest.raises(LockedError, match="process 77 is writing"):
        hold(tmp_path)
    assert len(pauses) == 1
    os.close(descriptor)


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_a_disk_without_room_for_a_folder_is_full(code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(locking, "make_folder", full)
    with pytest.raises(SpaceError, match="make room"), IndexDirectory(tmp_path / "index").writing():
        raise AssertionError
