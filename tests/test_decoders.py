"""Pictures are decoded in processes that may crash, hang, be killed or stopped: that costs one picture at most."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from bagindex.decoders import pool, process, worker
from bagindex.decoding import Decoder
from bagindex.errors import DecoderError
from bagindex.images import Picture, Rejected, read_picture
from bagindex.processes.child import Child
from bagindex.sources import Entry
from bagindex_schemas.records import Transform
from bagindex_schemas.rejects import RejectCode
from fakes import MemorySource, number_png
from faults import codecs

TRANSFORM = Transform(resize=16, crop_height=16, crop_width=16)


def forget_idle() -> None:
    """End all processes that have nothing to do."""
    while pool._idle:
        pool._idle.pop().kill()


@pytest.fixture(autouse=True)
def _own_processes() -> Iterator[None]:
    forget_idle()
    yield
    for thread in threading.enumerate():
        if thread.name == "decoder":
            thread.join(10)
    forget_idle()


@pytest.fixture
def _told_codecs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "WORKER", "faults.codecs")


class ToldSource(MemorySource):
    """Pictures some of which say what comes of them."""

    def __init__(self, count: int, told: Mapping[int, bytes]) -> None:
        super().__init__(["a"] * count)
        self.told = told

    def read(self, entry: Entry) -> bytes:
        return self.told.get(entry.size) or super().read(entry)


def gone(pid: int, seconds: float = 10.0) -> bool:
    """Whether a process ends in time (or waits for its parent to hear of it)."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
            if state == "Z" and len(os.listdir(f"/proc/{pid}/task")) == 1:  # its other threads may end after its first
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def run_script(program: str) -> tuple[int, str, str]:
    """Exit status, stdout and stderr of a plain script, which has no part that only the first process runs."""
    path = os.pathsep.join(each for each in sys.path if each)
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True
    )
    return done.returncode, done.stdout, done.stderr


def test_another_process_decodes_as_this_one_would() -> None:
    transform = Transform(resize=20, crop_height=12, crop_width=18)
    data = number_png(300, 64)
    here, there = read_picture(data, transform), pool.decode(data, transform)
    np.testing.assert_array_equal(here.pixels, there.pixels)
    assert (here.placement, here.bytes, here.sha256) == (there.placement, there.bytes, there.sha256)
    assert there.pixels.flags.writeable
    with pytest.raises(Rejected, match="no picture format that bagindex reads") as caught:
        pool.decode(b"text", transform)
    assert caught.value.code is RejectCode.NOT_AN_IMAGE


def test_processes_are_kept_for_the_next_picture() -> None:
    pool.decode(number_png(1, 16), TRANSFORM)
    (kept,) = pool.processes()
    source = MemorySource(["a"] * 20)
    assert len(list(Decoder(1).decode(source, source.entries, TRANSFORM))) == 20
    assert pool.processes() == (kept,)


@pytest.mark.usefixtures("_told_codecs")
@pytest.mark.parametrize(
    ("picture", "code", "message"),
    [
        (codecs.CRASH, RejectCode.DECODER_CRASHED, "what decodes it was ended by SIGSEGV, the third time"),
        (codecs.ABORT, RejectCode.DECODER_CRASHED, "what decodes it was ended by SIGABRT, the third time"),
        (codecs.HANG, RejectCode.DECODER_TIMEOUT, "not decoded within 1 seconds"),
        (codecs.HOLD, RejectCode.DECODER_TIMEOUT, "not decoded within 1 seconds"),
        (codecs.MEMORY, RejectCode.TOO_LARGE, "does not fit into memory"),
    ],
    ids=["crash", "abort", "hang", "hang with the interpreter", "no memory"],
)
def test_a_picture_that_breaks_its_decoder_is_rejected(picture: bytes, code: RejectCode, message: str) -> None:
    source = ToldSource(8, {3: picture})
    for entry, found in Decoder(2, timeout=1.0).decode(source, source.entries, TRANSFORM):
        if entry.size == 3:
            assert isinstance(found, Rejected)
            assert (found.code, found.message) == (code, message)
        else:
            assert isinstance(found, Picture)
            assert found.pixels[0, 0, 0] == entry.size


@pytest.mark.usefixtures("_told_codecs")
def test_a_picture_whose_process_is_killed_is_tried_again(tmp_path: Path) -> None:
    assert pool.decode(codecs.dies(2, tmp_path), TRANSFORM).pixels[0, 0].tolist() == [1, 2, 3]
    assert len(list(tmp_path.iterdir())) == 2


def test_killing_idle_processes_changes_nothing() -> None:
    source = MemorySource(["a"] * 60)
    decoded = Decoder(2).decode(source, source.entries, TRANSFORM)
    for number, (entry, picture) in enumerate(decoded):
        assert isinstance(picture, Picture)
        assert picture.pixels[0, 0, 0] == entry.size
        if number % 20 == 0:
            for pid in pool.processes():
                os.kill(pid, signal.SIGKILL)


@pytest.mark.usefixtures("_told_codecs")
def test_a_process_that_is_stopped_counts_as_hanging() -> None:
    pool.decode(number_png(1, 16), TRANSFORM)
    (pid,) = pool.processes()
    os.kill(pid, signal.SIGSTOP)
    # Larger than a pipe: it is not even taken.
    for data in (bytes(1_000_000), number_png(1, 16)):
        with pytest.raises(Rejected, match="not decoded within 1 seconds"):
            pool.decode(data, TRANSFORM, 1.0)
        assert gone(pid)
        pool.decode(number_png(1, 16), TRANSFORM)
        (pid,) = pool.processes()
        os.kill(pid, signal.SIGSTOP)


def test_a_process_does_not_hear_what_the_terminal_says() -> None:
    pool.decode(number_png(1, 16), TRANSFORM)
    (pid,) = pool.processes()
    assert os.getsid(pid) == pid
    os.kill(pid, signal.SIGINT)
    pool.decode(number_png(1, 16), TRANSFORM)
    assert pool.processes() == (pid,)


@pytest.mark.skipif(sys.platform != "linux", reason="limits are read as Linux tells them")
def test_a_process_has_limits() -> None:
    pool.decode(number_png(1, 16), TRANSFORM)
    (pid,) = pool.processes()
    assert resource.prlimit(pid, resource.RLIMIT_CORE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_FSIZE) == (0, 0)
    assert resource.prlimit(pid, resource.RLIMIT_AS) == (worker.MEMORY, worker.MEMORY)
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "1000"


@pytest.mark.skipif(sys.platform != "linux", reason="macOS does not heed the limit")
def test_a_process_that_may_have_less_memory_has_less() -> None:
    program = textwrap.dedent("""
        import resource
        from bagindex.decoders import pool
        from bagindex_schemas.records import Transform
        from fakes import number_png

        resource.setrlimit(resource.RLIMIT_AS, (2**31, 2**31))
        pool.decode(number_png(1, 16), Transform(resize=16, crop_height=16, crop_width=16))
        (pid,) = pool.processes()
        assert resource.prlimit(pid, resource.RLIMIT_AS) == (2**31, 2**31)
    """)
    assert run_script(program) == (0, "", "")


def test_a_process_starts_with_little() -> None:
    program = "import sys; import bagindex.decoders.worker; print(*sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pyarrow", "duckdb", "numpy", "pydantic", "typer"} & set(loaded)


def test_no_process_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "WORKER", "bagindex.decoders.nowhere")
    source = MemorySource(["a"] * 3)
    with pytest.raises(DecoderError, match="ended with status 1 before it was ready: is there enough memory"):
        list(Decoder(1).decode(source, source.entries, TRANSFORM))

    def full(_module: str) -> Child:
        raise BlockingIOError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(process, "Child", full)
    with pytest.raises(DecoderError, match=r"started .* \(Resource temporarily unavailable\): give fewer --workers"):
        list(Decoder(1).decode(source, source.entries, TRANSFORM))


def test_a_process_that_nobody_asks_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "WORKER", "faults.hasty")
    pool.decode(number_png(1, 16), TRANSFORM)
    (first,) = pool._idle
    assert gone(first.pid)
    assert pool.processes() == ()
    assert pool.decode(number_png(2, 16), TRANSFORM).pixels[0, 0, 0] == 2


SCRIPT = """
import os, signal, sys, threading, time
from bagindex.decoders import pool, process
from bagindex_schemas.records import Transform
from fakes import number_png
from faults import codecs

process.WORKER = "faults.codecs"
transform = Transform(resize=16, crop_height=16, crop_width=16)
pool.decode(number_png(1, 16), transform)
pids = list(pool.processes())
busy = threading.Thread(target=pool.decode, args=({told!r}, transform, 1.0), daemon=True)
busy.start()
while pool.processes():
    time.sleep(0.01)
time.sleep(0.2)
print(*pids, flush=True)
{end}
"""


@pytest.mark.parametrize(
    ("told", "seconds"),
    [(codecs.HANG, 1.0), (codecs.HOLD, 3.0)],
    ids=["hanging", "hanging with the interpreter"],
)
@pytest.mark.parametrize("end", ["os.kill(os.getpid(), signal.SIGKILL)", "sys.exit()"], ids=["killed", "left"])
def test_no_process_outlives_its_parent(told: bytes, seconds: float, end: str) -> None:
    program = textwrap.dedent(SCRIPT).format(told=told, end=end)
    status, said, wrong = run_script(program)
    assert (status, wrong) == (-signal.SIGKILL if "kill" in end else 0, "")
    assert gone(int(said), seconds)


def test_a_fork_has_processes_of_its_own() -> None:
    program = textwrap.dedent("""
        import os
        from bagindex.decoders import pool
        from bagindex_schemas.records import Transform
        from fakes import number_png

        transform = Transform(resize=16, crop_height=16, crop_width=16)
        pool.decode(number_png(1, 16), transform)
        before = pool.processes()
        if not (child := os.fork()):
            assert pool.processes() == ()
            pool.decode(number_png(2, 16), transform)
            assert pool.processes() != before
            pool._idle.pop().kill()
            os._exit(0)
        assert os.waitpid(child, 0)[1] == 0
        pool.decode(number_png(3, 16), transform)
        assert pool.processes() == before
    """)
    assert run_script(program) == (0, "", "")


def test_work_that_is_given_up_ends() -> None:
    source = MemorySource(["a"] * 200)
    decoded = Decoder(3).decode(source, source.entries, TRANSFORM)
    next(decoded)
    decoded.close()  # type: ignore[attr-defined]
    for thread in threading.enumerate():
        if thread.name == "decoder":
            thread.join(10)
            assert not thread.is_alive()
    assert 1 <= len(pool.processes()) <= 3
