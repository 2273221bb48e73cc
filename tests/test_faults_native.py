"""The shim sees every operation that changes a file, and does to it what it is told."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from faults import native
from faults.forks import Conditions, server
from faults.native import Arming, Fault, Kind, read_journal
from faults.trials import references

pytestmark = pytest.mark.skipif(native.unavailable() is not None, reason=str(native.unavailable()))


def test_what_every_step_writes_is_in_its_journal() -> None:
    # `references` holds what the journals come to against the folders.
    kinds = {operation.kind for each in references().values() for operation in each.operations}
    assert kinds == {Kind.CREATE, Kind.WRITE, Kind.TRUNCATE, Kind.SYNC, Kind.RENAME, Kind.UNLINK, Kind.FOLDER}
    # By way of Python, pyarrow, DuckDB and FAISS.
    endings = {Path(each.path).suffix for step in ("first", "neighbours") for each in references()[step].operations}
    assert {".json", ".parquet", ".wal", ".faiss"} <= endings


@pytest.mark.parametrize(
    ("fault", "written"),
    [(Fault.KILL_BEFORE, "one"), (Fault.KILL_AFTER, "onetwo"), (Fault.KILL_HALF, "onetw"), (Fault.FAIL, "onethree")],
)
def test_the_second_write_meets_a_fault(tmp_path: Path, fault: Fault, written: str) -> None:
    folder, journal = tmp_path.resolve() / "disk", tmp_path / "journal"
    folder.mkdir()
    arming = Arming(str(folder), fault, 2, Kind.WRITE, errno.ENOSPC, journal=str(journal))
    ended = server().under(Conditions(arming), native.write_thrice, str(folder / "file"))
    assert (folder / "file").read_text() == written
    assert ended.killed is (fault is not Fault.FAIL)
    made = list(read_journal(journal))
    assert (made[0].kind, made[1].data) == (Kind.CREATE, b"one")
    if fault is Fault.FAIL:
        assert ended.result() == [3, -errno.ENOSPC, 5]
        assert [operation.error for operation in made] == [0, 0, errno.ENOSPC, 0]


def test_files_elsewhere_are_left_alone(tmp_path: Path) -> None:
    arming = Arming(str(tmp_path / "disk"), Fault.FAIL, 1, error=errno.EIO, for_good=True)
    ended = server().under(Conditions(arming), native.write_thrice, str(tmp_path / "file"))
    assert ended.result() == [3, 3, 5]
    assert ended.operations == 0
