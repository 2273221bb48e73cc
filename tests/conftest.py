"""Fixtures: a home of its own for every test, the planted pictures, and the demo."""

from __future__ import annotations

import faulthandler
import itertools
import os
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from _pytest.faulthandler import fault_handler_stderr_fd_key

from bagindex import Index, demo
from bagindex_cli import main
from faults.trials import Judge
from once import made_once

pytest_plugins = ["browsing_page", "sites", "stores"]
# Files run side by side: OpenMP's threads, which spin while they wait, would take each other's time.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A shell has what it starts in the background ignore SIGINT, and so would all that is started here to be interrupted.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
# Times belong in benchmarks, whatever the profile: CI's draws the same each time.
hypothesis.settings.register_profile("bagindex", hypothesis.settings(), deadline=None)
hypothesis.settings.load_profile("bagindex")
SHARED = Path(__file__).resolve().parent.parent.parent / "shared"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests of one name: where tests are shared out, only one of them would be run."""
    again = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if again:
        raise pytest.UsageError(f"tests of one name: {', '.join(again)}")


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_teardown(item: pytest.Item) -> None:
    """Give the end of a failed test as long as a test: its failure has stopped the clock of `faulthandler_timeout`."""
    seconds = float(item.config.getini("faulthandler_timeout") or 0)
    if seconds > 0:
        faulthandler.dump_traceback_later(seconds, exit=True, file=item.config.stash[fault_handler_stderr_fd_key])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Say of a failure what it is when it happens: a run that is stopped has no summary."""
    if report.failed and "PYTEST_XDIST_WORKER" not in os.environ:
        print(f"\n{report.nodeid} ({report.when})\n{report.longreprtext}", file=sys.__stderr__, flush=True)


@pytest.fixture(scope="session")
def _homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A new folder each time. They are counted here: pytest would list all that there are, for each of thousands."""
    base = tmp_path_factory.mktemp("homes")
    return (base / str(number) for number in itertools.count())


@pytest.fixture(autouse=True)
def _home(_homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    home = next(_homes)
    for name in ("home", "weights", "cache", "datasets"):
        (home / name).mkdir(parents=True)
        monkeypatch.setenv(f"BAGINDEX_{name.upper()}", str(home / name))
    for name in ("INDEX", "IMAGENET", "CONFIG", "WEIGHTS_URL", "DATASETS_URL"):
        monkeypatch.delenv(f"BAGINDEX_{name}", raising=False)


@pytest.fixture
def home_folder() -> Path:
    """Where this test's named indexes are."""
    return Path(os.environ["BAGINDEX_HOME"])


@pytest.fixture(scope="session")
def planted_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """48 pictures of planted evidence, six classes, in `pictures/`, and the demo's model, `bagnet33.safetensors`. Not
    to be changed.
    """

    def make(folder: Path) -> None:
        demo.plant(folder / "pictures", 8, 77, wrong=0.25)
        (folder / "pictures" / "truth.csv").rename(folder / "truth.csv")
        (folder / "bagnet33.safetensors").write_bytes(demo.weights().read_bytes())

    return made_once(tmp_path_factory, "planted", make)


@pytest.fixture(scope="session")
def planted_index(planted_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """Their index: real evidence of a real (narrow) BagNet-33. Not to be changed."""

    def make(folder: Path) -> None:
        weights = planted_folder / "bagnet33.safetensors"
        Index.build(planted_folder / "pictures", weights=weights, out=folder / "index").close()

    return _copy(made_once(tmp_path_factory, "planted-index", make) / "index", tmp_path_factory)


@pytest.fixture(scope="session")
def damage_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where `faults.whole.made` makes the indexes that are damaged, and put back."""
    return tmp_path_factory.mktemp("damage")


@pytest.fixture(scope="session")
def demo_report(tmp_path_factory: pytest.TempPathFactory) -> demo.DemoReport:
    """What `bagindex demo` does. Not to be changed."""
    folder = made_once(tmp_path_factory, "demo", demo.run)
    pictures, index = folder / "pictures", Index.open(folder / "index")
    return demo.DemoReport(index, pictures, folder / demo.SHEET, demo.subrows(index, demo.read_truth(pictures)))


@pytest.fixture(scope="session")
def planted_words(planted_index: Index, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The index of the planted pictures with 64 visual words. Not to be changed."""
    return _with_words(planted_index, tmp_path_factory, "planted-words", 64)


@pytest.fixture(scope="session")
def demo_words(demo_report: demo.DemoReport, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """The demo's index with 128 visual words. Not to be changed."""
    return _with_words(demo_report.index, tmp_path_factory, "demo-words", 128)


def _with_words(index: Index, folders: pytest.TempPathFactory, name: str, count: int) -> Index:
    def make(folder: Path) -> None:
        shutil.copytree(index.path, folder / "index")
        with Index.open(folder / "index") as copy:
            copy.make_words(count)

    return _copy(made_once(folders, name, make) / "index", folders)


def _copy(index: Path, folders: pytest.TempPathFactory) -> Index:
    """An index that is this process's own: it would be missed if a test of another changed it after all."""
    folder = folders.mktemp("index") / "index"
    shutil.copytree(index, folder)
    return Index.open(folder)


class Result:
    """What a command printed and how it ended."""

    def __init__(self, status: int, out: str, err: str) -> None:
        self.status, self.out, self.err = status, out, err


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):  # type: ignore[no-untyped-def]
    """Run `bagindex ARGS` in this process."""

    def run_command(*args: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["bagindex", *map(str, args)])
        capsys.readouterr()
        status = 0
        try:
            main()
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        printed = capsys.readouterr()
        return Result(status, printed.out, printed.err)

    return run_command


@pytest.fixture(scope="session")
def judge() -> Judge:
    """Knows what was judged of what faults leave on a disk, so that it is not judged again."""
    return Judge()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference figures beside the checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("the reference figures are not here")
    return SHARED
