"""`demo`, `plant` and `train` as a person meets them."""

from __future__ import annotations

import csv
import shlex
import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

from bagindex import training
from bagindex.demo import DemoReport
from bagindex.weights import read_checkpoint

QUICK = (
    "--model",
    "bagnet9",
    "--width",
    0.25,
    "--crop-size",
    40,
    "--first-epochs",
    0,
    "--workers",
    0,
    "--batch-size",
    8,
)


def test_demo(run, demo_report: DemoReport, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    shutil.copytree(demo_report.pictures.parent, "bagindex-demo")
    result = run("demo")
    assert result.status == 0
    assert "300 images, 76,800 patches of bagnet33" in result.out
    lines = result.out.splitlines()
    rows = [line.split() for line in lines if line.split()[:1] in ([row.class_name] for row in demo_report.subrows)]
    assert len(rows) == 12
    hits, patches = demo_report.share(right=True)
    assert f"{hits} of {patches} top patches in pictures of the class lie on a motif or shortcut of the class" in lines
    said, _, weights = lines[-1].partition(": ")
    assert said == "The demo's own weights, to give as FILE"
    assert read_checkpoint(Path(*shlex.split(weights))).class_count == 6
    # What it says to try next works as it stands.
    tries = [line.strip() for line in lines if line.startswith("  bagindex ") and "FILE" not in line]
    assert len(tries) == 4
    for line in tries:
        assert run(*shlex.split(line)[1:]).status == 0
    with Image.open("tree.png") as picture:
        assert picture.width > 1000


def test_demo_where_something_else_is(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "mine.txt").write_text("mine")
    result = run("demo", tmp_path)
    assert (result.status, result.out) == (1, "")
    assert result.err == f"bagindex: {tmp_path} holds something else: give an empty or new folder\n"


def test_plant_and_train(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    planted = run("plant", "planted", "--train", 3, "--validation", 1)
    assert planted.status == 0
    assert "18 pictures" in planted.out
    with open("planted/train/truth.csv", newline="") as file:
        assert {row["label"] for row in csv.DictReader(file)} == {"chain", "fish", "roof", "seam", "text", "tree"}

    trained = run("train", "planted", *QUICK, "--epochs", 2, "--no-flip", "-o", "w.safetensors")
    assert trained.status == 0
    assert [line.split()[0] for line in trained.out.splitlines()[:3]] == ["epoch", "1", "2"]
    assert "w.safetensors: epoch" in trained.out
    record = read_checkpoint(tmp_path / "w.safetensors").training
    assert record is not None
    assert (record.recipe.crop_size, record.recipe.flip, record.recipe.epochs) == (40, False, 2)
    assert f"{record.validation_top1:.1%}" in trained.out
    again = run("train", "planted", *QUICK, "--epochs", 2, "--no-flip", "-o", "w.safetensors")
    assert "finished before" in again.err
    assert run("build", "planted/validation", "--weights", "w.safetensors").status == 0


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        ((), 2, "Missing"),
        (("nowhere", "-o", "w.safetensors", "--model", "bagnet9"), 1, "is no folder"),
        (("nowhere", "-o", "w.safetensors"), 1, "which model? Give --model"),
        (("nowhere", "-o", "w.safetensors", "--model", "bagnet9", "--epochs", "0"), 1, "--epochs 0"),
        (("nowhere", "-o", "w.safetensors", "--model", "bagnet9", "--precision", "half"), 1, "--precision half"),
    ],
)
def test_errors_are_one_line_that_helps(run, args: tuple[str, ...], status: int, message: str) -> None:  # type: ignore[no-untyped-def]
    result = run("train", *args)
    assert result.status == status
    assert message in result.err
    assert "Traceback" not in result.err


def test_without_the_extra(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    result = run("train", tmp_path, "--model", "bagnet9", "-o", tmp_path / "w.safetensors")
    assert result.err == "bagindex: training needs lightning_fabric: pip install 'bagindex[train]'\n"


def test_interrupt_says_how_to_go_on(run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupted)
    result = run("train", tmp_path, "--model", "bagnet9", "-o", tmp_path / "w.safetensors")
    assert result.status == 130
    assert "goes on after them" in result.err
