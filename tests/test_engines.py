"""What is common to engines, and what is pure of Ray's: turns, room, options, and what a worker must see."""

from __future__ import annotations

import errno
import pickle
import shutil
import subprocess
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from bagindex import Index
from bagindex.batches import PrecisionRefusedError
from bagindex.build import BuildSettings, build, committed
from bagindex.engines.engine import Heard, Hearing
from bagindex.engines.layout import Layout, Node, lay_out, worker_memory
from bagindex.engines.options import EngineKind, EngineOptions
from bagindex.engines.probe import Probe, this_machine
from bagindex.engines.ray import RayEngine
from bagindex.engines.schedule import LOSSES, Schedule
from bagindex.errors import EngineError, SettingsError, SourceError
from bagindex.evidence import Evidence
from bagindex.images import Rejected
from bagindex.locking import LOCK
from bagindex.pipeline import Pipeline
from bagindex.plan import Work, cut, owed
from bagindex.profile import Profile
from bagindex.sources import Entry
from bagindex.sources.archives import TarSource
from bagindex.sources.folders import open_folder
from bagindex.store import IndexDirectory
from bagindex.tasks import Task, Tasks
from bagindex_schemas.records import Comparison
from bagindex_schemas.rejects import RejectCode
from fakes import LinearCompute, MemorySource
from test_build import contents

GB = 10**9
REJECTED = Rejected(RejectCode.EMPTY, "the file is empty")


def work(count: int) -> list[Work]:
    return [Work(shard, span, True, ()) for shard, span in enumerate(cut(4 * count, 4))]


@given(shards=st.integers(1, 20), workers=st.integers(1, 5), data=st.data())
def test_shards_are_taken_in_order_whatever_their_workers_do(shards: int, workers: int, data: st.DataObject) -> None:
    schedule = Schedule[int](work(shards), 3 * workers)
    busy: list[int] = []
    taken: list[int] = []
    left = 2 * (LOSSES - 1)
    while not schedule.over:
        while len(busy) < workers and (place := schedule.next()) is not None:
            busy.append(place)
            assert place < schedule.turn + 3 * workers
        assert busy, "nobody has anything to do"
        place = busy.pop(data.draw(st.integers(0, len(busy) - 1)))
        if left and data.draw(st.booleans()) and schedule._losses[place] < LOSSES - 1:
            left -= 1
            schedule.lost(place, "it ended")
        else:
            schedule.ended(place, place)
        while (outcome := schedule.take()) is not None:
            assert not isinstance(outcome, Exception)
            taken.append(outcome)
    assert taken == list(range(shards))


def test_a_shard_that_fails_is_heard_of_in_its_turn_and_none_after_it_is_begun() -> None:
    schedule = Schedule[str](work(5), 9)
    assert [schedule.next() for _ in range(3)] == [0, 1, 2]
    schedule.ended(1, SettingsError("no"))
    assert schedule.next() is None
    assert schedule.take() is None
    schedule.ended(2, "made for nothing")
    schedule.ended(0, "made")
    assert schedule.take() == "made"
    assert isinstance(schedule.take(), SettingsError)
    assert schedule.rest() == ["made for nothing"]


def test_a_shard_over_which_workers_are_lost_is_given_up_in_the_end() -> None:
    schedule = Schedule[str](work(3), 9)
    for _ in range(LOSSES):
        place = schedule.next()
        assert place == 0
        schedule.lost(place, "its process ended")
    error = schedule.take()
    assert isinstance(error, EngineError)
    assert "3 workers were lost over shard 0 (images 0 to 3; its process ended)" in str(error)


def test_nobody_is_too_far_ahead_of_the_shard_whose_turn_it_is() -> None:
    schedule = Schedule[str](work(9), 2)
    assert [schedule.next() for _ in range(3)] == [0, 1, None]
    schedule.ended(1, "made")
    assert schedule.next() is None
    schedule.lost(0, "it ended")
    assert schedule.next() == 0


@pytest.mark.parametrize(
    ("nodes", "workers", "gpus", "expected"),
    [
        ([Node(2, 0, 13 * GB)], 2, None, Layout(2, 1, 0.0, GB)),
        ([Node(2, 0, 13 * GB)], None, None, Layout(1, 2, 0.0, GB)),
        ([Node(64, 0, 10 * GB)], None, None, Layout(10, 6, 0.0, GB)),
        ([Node(64, 0, 200 * GB)], None, None, Layout(16, 4, 0.0, GB)),
        ([Node(32, 8, 500 * GB)], None, None, Layout(8, 4, 1.0, GB)),
        ([Node(32, 8, 500 * GB)], 2, None, Layout(2, 16, 1.0, GB)),
        ([Node(32, 8, 500 * GB)], None, 0.5, Layout(16, 2, 0.5, GB)),
        ([Node(32, 8, 500 * GB)], None, 0.0, Layout(8, 4, 0.0, GB)),
        ([Node(8, 1, 64 * GB), Node(16, 2, 64 * GB), Node(4, 0, 8 * GB)], None, None, Layout(3, 8, 1.0, GB)),
        ([Node(3, 0, 8 * GB), Node(3, 0, 8 * GB)], 3, 0.0, Layout(3, 1, 0.0, GB)),
    ],
)
def test_how_many_workers_there_is_room_for(
    nodes: Sequence[Node], workers: int | None, gpus: float | None, expected: Layout
) -> None:
    assert lay_out(nodes, workers, gpus, GB) == expected


@pytest.mark.parametrize(
    ("node", "workers", "gpus", "message"),
    [
        (Node(2, 0, 13 * GB), 3, None, "Ray has room for 2 workers.*fewer --workers"),
        (Node(64, 0, 2.5 * GB), 3, None, "Ray has room for 2 workers.*1 GB of memory"),
        (Node(64, 0, GB / 2), None, None, "Ray has room for 0 workers.*--engine local"),
        (Node(64, 1, 64 * GB), 2, None, "room for 1 workers.*1 GPUs"),
        (Node(2, 0, 13 * GB), 1, 1.0, "Ray knows of no GPU: give --device cpu"),
    ],
)
def test_too_little_room_is_said(node: Node, workers: int | None, gpus: float | None, message: str) -> None:
    with pytest.raises(EngineError, match=message):
        lay_out([node], workers, gpus, GB)


def test_a_worker_takes_more_memory_the_more_classes_and_models_there_are() -> None:
    few, many = LinearCompute("ab"), LinearCompute([str(number) for number in range(1000)], name="many")
    small = worker_memory({"few": few}, 4096)
    assert small < worker_memory({"many": many}, 4096) < worker_memory({"few": few, "many": many}, 4096)
    assert worker_memory({"many": many}, 64) < worker_memory({"many": many}, 4096)
    assert worker_memory({"many": many}, 64) < worker_memory({"many": many}, 64, on_gpu=True)


def test_each_file_is_heard_of_once_however_often_its_shard_is_begun() -> None:
    advanced: list[int] = []
    rejected: list[bytes] = []
    hearing = Hearing(advanced.append, lambda entry, _: rejected.append(entry.path))
    first, second = ((Entry(path, 0), REJECTED) for path in (b"a", b"b"))
    hearing.files(3, Heard(5))
    hearing.rejects(3, Heard(5, [first]))
    hearing.files(3, Heard(2))
    hearing.rejects(3, Heard(2, [first]))
    hearing.files(3, Heard(8))
    hearing.rejects(3, Heard(8, [first, second]))
    hearing.files(4, Heard(1))
    assert advanced == [5, 3, 1]
    assert rejected == [b"a", b"b"]


def test_what_is_measured_in_other_processes_adds_up() -> None:
    elsewhere, here = Profile(), Profile()
    decoding = elsewhere.clock("decode", 2)
    decoding.add(3.0, 10)
    elsewhere.clock("read", 2, shares=decoding).add(1.0, 10)
    spent = elsewhere.take()
    assert elsewhere.take() == []
    here.merge(spent, 4)
    here.merge(spent, 4)
    found = {each.stage: each for each in here.times(2.0)}
    assert (found["decode"].threads, found["decode"].busy, found["decode"].images) == (8, 6.0, 20)
    assert found["decode"].waiting == 8 * 2.0 - 8.0
    assert found["read"].waiting is None


def test_what_goes_to_other_processes_comes_there(tmp_path: Path) -> None:
    comparison = Comparison(
        precision="bf16", images=1, top1_equal=0, logit_error=1.0, top_patches_equal=0, feature_error=1, speedup=None,
        accepted=False,
    )  # fmt: skip
    refused = pickle.loads(pickle.dumps(PrecisionRefusedError("bagnet9", comparison)))
    assert (refused.model, refused.comparison) == ("bagnet9", comparison)
    rejected = pickle.loads(pickle.dumps(REJECTED))
    assert (rejected.code, rejected.message, str(rejected)) == (REJECTED.code, REJECTED.message, REJECTED.message)
    (tmp_path / "a.png").write_bytes(b"a picture")
    folder = open_folder(tmp_path)
    reader = folder.reader()
    assert pickle.loads(pickle.dumps(reader)).read(folder.entries[0]) == b"a picture"
    assert b"a.png" not in pickle.dumps(reader)


def test_an_archive_that_has_changed_is_not_read_elsewhere(tmp_path: Path) -> None:
    archive = tmp_path / "pictures.tar"
    (tmp_path / "a.png").write_bytes(b"a picture")
    subprocess.run(["tar", "cf", archive, "-C", tmp_path, "a.png"], check=True)
    source = TarSource(archive)
    sent = pickle.dumps(source.reader())
    assert pickle.loads(sent).read(source.entries[0]) == b"a picture"
    (tmp_path / "a.png").write_bytes(bytes(20_000))
    subprocess.run(["tar", "cf", archive, "-C", tmp_path, "a.png"], check=True)
    with pytest.raises(SourceError, match="has changed since it was listed"):
        pickle.loads(sent)


def test_a_worker_that_does_not_see_the_same_files_says_so(tmp_path: Path) -> None:
    source, directory = MemorySource(["a", "a"]), IndexDirectory(tmp_path / "i")
    with directory.writing():
        probe = Probe.of(directory, source)
        probe.check(source)

        class Elsewhere(MemorySource):
            def read(self, entry: Entry) -> bytes:
                raise Rejected(RejectCode.MISSING, "not there")

        with pytest.raises(EngineError, match=r"does not read 0000.png of the source: put it on a file system"):
            probe.check(Elsewhere(["a", "a"]))
    (tmp_path / "i" / LOCK).write_text("1\n")
    with pytest.raises(EngineError, match=r"does not see .* where the index is"):
        probe.check(source)


@pytest.mark.parametrize("ends", ["build", "lock"])
def test_a_worker_ends_with_its_build(tmp_path: Path, ends: str) -> None:
    lock = tmp_path / LOCK
    lock.write_text("17\n")
    build = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    script = (
        "import pathlib, sys, time; from bagindex.engines.probe import Probe, this_machine\n"
        f"Probe(pathlib.Path({str(lock)!r}), b'17\\n', None, this_machine(), {build.pid}).watch()\n"
        "print('watching', flush=True); time.sleep(60)"
    )
    worker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert worker.stdout is not None
    try:
        assert worker.stdout.readline() == b"watching\n"
        with pytest.raises(subprocess.TimeoutExpired):
            worker.wait(0.3)
        if ends == "build":
            build.kill()
        else:
            lock.write_text("18\n")
        assert worker.wait(20) == 1
    finally:
        for process in (build, worker):
            process.kill()
            process.communicate()


def test_this_machine_is_always_the_same() -> None:
    assert this_machine() == this_machine() != ""


class Waiting(LinearCompute):
    """Waits at its first batch until it may go on."""

    def __init__(self) -> None:
        super().__init__("ab")
        self.begun, self.may = threading.Event(), threading.Event()

    def run(self, pixels: NDArray[np.uint8]) -> Evidence:
        """When it may."""
        self.begun.set()
        self.may.wait(30)
        return super().run(pixels)


def test_a_worker_that_outlives_its_build_can_do_nothing_to_the_next_one(tmp_path: Path) -> None:
    directory, source, compute = IndexDirectory(tmp_path / "i"), MemorySource(["a"] * 4), Waiting()
    settings = BuildSettings(shard_size=2, workers=1)
    build(directory, source, {"a": 0}, LinearCompute("ab"), settings)
    before = contents(directory.root)
    shutil.rmtree(directory.root / "images" / "shard-00001")
    shutil.rmtree(directory.root / "linear" / "shard-00001")
    manifest = directory.manifest()
    tasks = Tasks(directory, manifest, source)
    ended: list[BaseException] = []

    def orphan(task: Task) -> None:
        try:
            with Pipeline(directory, source, {"linear": compute}, settings.decoder, Profile()) as pipeline:
                pipeline.run(manifest, task, lambda _entry, _rejected: None, lambda _files: None)
        except OSError as error:
            ended.append(error)

    with directory.writing():  # by a build, which is killed
        (owes,) = owed(manifest, ["linear"], committed(directory, manifest))
        worker = threading.Thread(target=orphan, args=(tasks.begin(owes, 12345),))
        worker.start()
        assert compute.begun.wait(30)
    assert len(list(directory.root.rglob("*.tmp-12345"))) == 2
    build(directory, source, {"a": 0}, LinearCompute("ab"), replace(settings, restart=True))
    compute.may.set()
    worker.join(30)
    assert [type(error) for error in ended] == [FileNotFoundError]
    assert contents(directory.root) == before
    assert not list(directory.root.rglob("*.tmp-*"))


def test_a_folder_that_somebody_still_writes_into_is_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, remove = IndexDirectory(tmp_path / "i"), shutil.rmtree
    left = [errno.ENOTEMPTY, errno.ENOENT]

    def refused(path: Path) -> None:
        if left:
            raise OSError(left.pop(), "somebody was faster")
        remove(path)

    directory.begin_shard("images", 0, 17)
    monkeypatch.setattr("bagindex.store.shutil.rmtree", refused)
    with directory.writing():
        assert not list(directory.root.rglob("*.tmp-*"))
    assert not left


def test_a_shard_of_another_index_is_not_committed(tmp_path: Path) -> None:
    directory = IndexDirectory(tmp_path / "i")
    build(directory, MemorySource(["a"] * 4), {"a": 0}, LinearCompute("ab"), BuildSettings())
    folder = directory.begin_shard("images", 7, 123)
    assert folder.name == "shard-00007.tmp-123"
    for path in directory.shard_path("images", 0).iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    for shard, plan in ((0, "0" * 64), (7, directory.manifest().plan.digest())):
        with pytest.raises(RuntimeError, match="holds shard 0 of another index"):
            directory.commit_shard("images", shard, folder, plan)
    assert directory.committed("images") == [0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"address": "1.2.3.4:6379"}, "--address and --gpus-per-worker go with --engine ray"),
        ({"gpus_per_worker": 1.0}, "--address and --gpus-per-worker go with --engine ray"),
        ({"engine": "slurm"}, "--engine is one of local, ray, not 'slurm'"),
        ({"engine": "ray", "workers": 0}, "--workers starts at 1"),
        ({"engine": "ray", "device": "cuda:1"}, "give --device cuda"),
        ({"engine": "ray", "device": "cpu", "gpus_per_worker": 1.0}, "leave out --gpus-per-worker"),
        ({"engine": "ray", "device": "cuda", "gpus_per_worker": 0.0}, "leave out --gpus-per-worker 0"),
    ],
)
def test_options_that_contradict_each_other(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        Index.build(tmp_path, out=tmp_path / "i", **settings)  # type: ignore[arg-type]


def test_ray_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(EngineError, match=r"pip install 'bagindex\[ray\]'"):
        Index.build(tmp_path, out=tmp_path / "i", engine="ray")


@pytest.mark.parametrize("address", ["127.0.0.1:1", "nowhere.invalid:6379", "ray://127.0.0.1:10001", "127.0.0.1"])
def test_an_address_where_no_ray_is(tmp_path: Path, address: str) -> None:
    pytest.importorskip("ray", reason="Ray is not installed here")
    engine, directory = RayEngine(print, address), IndexDirectory(tmp_path / "i")
    with pytest.raises(EngineError, match=f"there is no Ray at {address} .*give the --address"):
        build(directory, MemorySource(["a"]), {"a": 0}, LinearCompute("ab"), BuildSettings(), engine=engine)
    assert not directory.exists()


def test_where_models_run() -> None:
    def device(gpus: float | None, asked: str) -> str:
        return EngineOptions(EngineKind.RAY, None, None, gpus, asked).device

    assert [device(None, "auto"), device(0.0, "auto"), device(0.5, "auto"), device(None, "cpu")] == [
        *("auto", "cpu", "auto", "cpu")
    ]
