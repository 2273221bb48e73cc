"""Builds by Ray, on two workers of this machine: the same bytes as a local build, whatever is lost on the way."""

from __future__ import annotations

import copy
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from numpy.typing import NDArray

import fakes
from bagindex import precision
from bagindex.build import BuildReport, BuildSettings, build
from bagindex.compute import Compute
from bagindex.engines import schedule
from bagindex.engines.probe import _is_gone
from bagindex.engines.ray import RayEngine
from bagindex.errors import EngineError, EvidenceRangeError, SettingsError, TooManyRejectsError
from bagindex.evidence import Evidence
from bagindex.observer import BuildObserver
from bagindex.prepare import ModelOptions, class_ids, open_models
from bagindex.sources.opening import SourceOptions, open_source
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Precision
from fakes import LinearCompute, MemorySource
from test_build import contents

os.environ["RAY_DEDUP_LOGS_SKIP_REGEX"] = "."
ray = pytest.importorskip("ray", reason="Ray is not installed here")
FILES = 22
SETTINGS = BuildSettings(shard_size=4, workers=1)
SOURCE = MemorySource(["a", "b"] * (FILES // 2), frozenset({2, 9}))
CLASS_IDS = {"a": 0, "b": 1}


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[str]:
    """A Ray of two cores, started once; its address."""
    handler = signal.getsignal(signal.SIGTERM)
    for module in (fakes, sys.modules[__name__]):
        ray.cloudpickle.register_pickle_by_value(module)
    ray.init(
        address="local",
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="ERROR",
        object_store_memory=100_000_000,
    )
    signal.signal(signal.SIGTERM, handler)
    yield ray.get_runtime_context().gcs_address
    ray.shutdown()


class Notes(BuildObserver):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.files = 0

    def note(self, text: str) -> None:
        self.notes.append(text)

    def advanced(self, files: int) -> None:
        assert files > 0
        self.files += files


def by_ray(
    folder: Path, compute: Compute, settings: BuildSettings = SETTINGS, observer: BuildObserver | None = None
) -> BuildReport:
    observer = observer or BuildObserver()
    engine = RayEngine(observer.note, workers=2, gpus=0.0)
    return build(IndexDirectory(folder), SOURCE, CLASS_IDS, compute, settings, observer, engine)


def locally(folder: Path, compute: Compute | None = None, settings: BuildSettings = SETTINGS) -> BuildReport:
    return build(IndexDirectory(folder), SOURCE, CLASS_IDS, compute or LinearCompute("ab"), settings)


def numbers(pixels: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Which pictures of a `MemorySource` these are."""
    return pixels[:, 0, 0, 0].astype(np.int64)


class Mortal(LinearCompute):
    """Kills its process when it comes to a picture, so many times."""

    def __init__(self, folder: Path, picture: int, times: int = 1) -> None:
        super().__init__("ab")
        self.folder, self.picture, self.times = folder, picture, times

    def run(self, pixels: NDArray[np.uint8]) -> Evidence:
        """Unless that has happened so often."""
        died = len(list(self.folder.glob("died-*")))
        if self.picture in numbers(pixels) and died < self.times:
            (self.folder / f"died-{died}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.02)  # so that both workers have something to do
        return super().run(pixels)


def test_the_bytes_are_those_of_a_local_build_and_a_worker_that_is_killed_costs_its_shard(tmp_path: Path) -> None:
    locally(tmp_path / "local")
    heard = Notes()
    report = by_ray(tmp_path / "ray", Mortal(tmp_path, 10), observer=heard)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert (report.computed, report.images, heard.files) == (FILES - 2, FILES - 2, FILES)
    assert [note for note in heard.notes if "lost" in note] == [
        "a worker was lost over shard 2 (its process ended): another one does it again"
    ]
    assert {each.stage: each.threads for each in report.stages}["run linear"] == 2
    assert not list((tmp_path / "ray").rglob("*.tmp-*"))


def test_a_shard_that_ends_every_worker_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedule, "LOSSES", 2)
    with pytest.raises(EngineError, match=r"2 workers were lost over shard 1 \(images 4 to 7; its process ended\)"):
        by_ray(tmp_path / "ray", Mortal(tmp_path, 6, times=9))
    assert IndexDirectory(tmp_path / "ray").committed("images") == [0]


class Rounding(LinearCompute):
    """Has a bf16 that is the same as float32, but from a picture on, upside down."""

    candidates: tuple[Precision, ...] = ("bf16",)
    broken_from = 99

    def at(self, precision: Precision) -> Self:
        """The same, in another precision."""
        other = copy.copy(self)
        other.environment = self.environment.model_copy(update={"precision": precision})
        return other

    def run(self, pixels: NDArray[np.uint8]) -> Evidence:
        """Upside down, where it is wrong."""
        wrong = self.environment.precision == "bf16" and max(numbers(pixels)) >= self.broken_from
        return super().run(255 - pixels if wrong else pixels)


class Failing(LinearCompute):
    """Gives what cannot be stored for some pictures."""

    def run(self, pixels: NDArray[np.uint8]) -> Evidence:
        """An error of ours, in another process."""
        if max(numbers(pixels)) >= 13:
            raise EvidenceRangeError(f"picture {max(numbers(pixels))} is beyond float16")
        return super().run(pixels)


def test_what_stops_a_build_is_what_would_have_stopped_a_local_one(tmp_path: Path) -> None:
    strict = BuildSettings(shard_size=4, max_rejects=1, precision="bf16")
    for compute, settings in ((Failing("ab"), SETTINGS), (Rounding("ab"), strict)):
        said = []
        for place, make in (("local", locally), ("ray", by_ray)):
            folder = tmp_path / f"{place}-{settings.max_rejects}"
            with pytest.raises((EvidenceRangeError, TooManyRejectsError)) as caught:
                make(folder, compute, settings)
            said.append((type(caught.value), str(caught.value), contents(folder)))
        assert said[0] == said[1]
    # A worker compared them, and found the same.
    assert len(IndexDirectory(tmp_path / "ray-1").manifest().models["linear"].comparisons) == 1


class _Stop(BuildObserver):
    def advanced(self, files: int) -> None:
        self.left = getattr(self, "left", 5) - files
        if self.left < 0:
            raise KeyboardInterrupt


def test_a_precision_is_given_up_at_the_same_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compute, settings = Rounding("ab"), BuildSettings(shard_size=4, workers=1, precision="auto")
    with monkeypatch.context() as patched:
        patched.setattr(precision, "SAMPLE", 6)
        patched.setattr(precision, "_WORTH", 12)
        patched.setattr(precision, "_ratio", lambda _float32, _other: 2.0)
        with pytest.raises(KeyboardInterrupt):
            build(IndexDirectory(tmp_path / "local"), SOURCE, CLASS_IDS, compute, settings, _Stop())
    shutil.copytree(tmp_path / "local", tmp_path / "ray")
    compute.broken_from = 12
    heard = Notes()
    locally(tmp_path / "local", compute, settings)
    by_ray(tmp_path / "ray", compute, settings, heard)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert [note for note in heard.notes if "done again in float32" in note]
    shards = [IndexDirectory(tmp_path / "ray").shard_manifest("linear", number) for number in range(6)]
    found = [each.environment.precision for each in shards if each.environment]
    assert found == ["bf16"] * 3 + ["fp32"] * 3


SCRIPT = """
import os, pathlib, sys, time
sys.path.insert(0, {tests!r})
import ray
import fakes, test_engines_ray
for module in (fakes, test_engines_ray):
    ray.cloudpickle.register_pickle_by_value(module)
from bagindex.build import build
from bagindex.engines.ray import RayEngine
from bagindex.store import IndexDirectory

class Slow(fakes.LinearCompute):
    def run(self, pixels):
        folder = pathlib.Path({folder!r}) / "processes"
        folder.mkdir(exist_ok=True)
        (folder / str(os.getpid())).touch()
        time.sleep(0.3)
        return super().run(pixels)

common = test_engines_ray
engine = RayEngine(print, {address!r}, 2, 0.0)
build(IndexDirectory(pathlib.Path({folder!r}) / "ray"), common.SOURCE, common.CLASS_IDS, Slow("ab"), common.SETTINGS,
      engine=engine)
"""


def test_workers_end_when_their_build_is_killed_and_it_goes_on(tmp_path: Path, cluster: str) -> None:
    tests = str(Path(__file__).parent)
    script = SCRIPT.format(tests=tests, folder=str(tmp_path), address=cluster)
    started = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.DEVNULL)
    try:
        _until(lambda: (tmp_path / "ray" / "linear" / "shard-00000").exists())
        started.kill()
        assert started.wait() == -signal.SIGKILL
        processes = [int(path.name) for path in (tmp_path / "processes").iterdir()]
        assert processes
        _until(lambda: all(map(_is_gone, processes)))
    finally:
        started.kill()
    committed = IndexDirectory(tmp_path / "ray").committed("linear")
    assert 0 < len(committed) < 6
    report = by_ray(tmp_path / "ray", LinearCompute("ab"))
    locally(tmp_path / "local")
    assert report.computed == sum(number // 4 not in committed and number not in (2, 9) for number in range(FILES))
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")


def _until(true: Callable[[], bool], seconds: float = 90.0) -> None:
    ends = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < ends, "it takes too long"
        time.sleep(0.05)


@dataclass
class MortalBagNet:
    """A BagNet whose process is killed once, at a batch."""

    compute: Any
    flag: Path
    batches: int = 0

    def __getattr__(self, name: str) -> Any:
        if name == "compute":
            raise AttributeError(name)
        return getattr(self.compute, name)

    def __reduce__(self) -> tuple[type[MortalBagNet], tuple[object, ...]]:
        return MortalBagNet, (self.compute, self.flag)

    def at(self, precision: Precision) -> MortalBagNet:
        """The same, in another precision."""
        return MortalBagNet(self.compute.at(precision), self.flag)

    def run(self, pixels: NDArray[np.uint8]) -> Evidence:
        """Unless that has happened."""
        self.batches += 1
        if self.batches == 5 and not self.flag.exists():
            self.flag.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        found: Evidence = self.compute.run(pixels)
        return found


def test_a_bagnet_gives_the_same_bytes_although_a_worker_is_killed(planted_folder: Path, tmp_path: Path) -> None:
    settings = BuildSettings(shard_size=16, workers=1)
    options = SourceOptions(planted_folder / "pictures")
    source = open_source(options, BuildObserver())
    weights = [str(planted_folder / "bagnet33.safetensors")]
    (here,) = open_models([], weights, ModelOptions(device="cpu"), BuildObserver())
    (there,) = open_models([], weights, ModelOptions(device="cpu", elsewhere=True), BuildObserver())
    meaning = class_ids(source, here.classes, options)
    build(IndexDirectory(tmp_path / "local"), source, meaning, here, settings)
    heard = Notes()
    engine = RayEngine(heard.note, workers=2, gpus=0.0)
    mortal: Any = MortalBagNet(there, tmp_path / "killed")
    build(IndexDirectory(tmp_path / "ray"), source, meaning, mortal, settings, heard, engine)
    assert contents(tmp_path / "ray") == contents(tmp_path / "local")
    assert (tmp_path / "killed").exists()
    assert any("a worker was lost" in note for note in heard.notes)


def test_what_a_person_is_told_where_there_is_no_such_cluster(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"Ray has room for 2 workers.*give fewer --workers"):
        build(
            IndexDirectory(tmp_path / "i"), SOURCE, CLASS_IDS, LinearCompute("ab"), SETTINGS,
            engine=RayEngine(print, workers=3),
        )  # fmt: skip
    with pytest.raises(EngineError, match="Ray knows of no GPU"):
        build(
            IndexDirectory(tmp_path / "i"), SOURCE, CLASS_IDS, LinearCompute("ab"), SETTINGS,
            engine=RayEngine(print, gpus=1.0),
        )  # fmt: skip
    with pytest.raises(EngineError, match="is connected to Ray at"):
        build(
            IndexDirectory(tmp_path / "i"), SOURCE, CLASS_IDS, LinearCompute("ab"), SETTINGS,
            engine=RayEngine(print, address="127.0.0.1:1"),
        )  # fmt: skip
    sealed = LinearCompute("ab")
    sealed.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(EngineError, match="cannot be sent to other processes"):
        by_ray(tmp_path / "i", sealed)
    with pytest.raises(SettingsError, match="from 0 to 1"):
        RayEngine(print, gpus=2.0)
    assert not (tmp_path / "i" / "index.json").exists()
