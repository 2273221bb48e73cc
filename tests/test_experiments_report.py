"""All experiments at once: what can be run is, and one page says the rest."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bagindex import Index
from bagindex.errors import OutputError
from bagindex.experiments import running
from bagindex.experiments.catalogue import EXPERIMENTS
from test_experiments_accuracy import CLASSES, RANKS, ranked
from wordy import worded_index


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Index:
    """An index of seven images of dogs, and four experiments."""
    names = ("accuracy", "correlation", "errors", "thresholding")
    monkeypatch.setattr(running, "EXPERIMENTS", {name: EXPERIMENTS[name] for name in names})
    table = ranked(RANKS, 3)
    return worded_index(tmp_path / "<i>", table, ["dog"] * len(RANKS), classes=CLASSES)


def test_what_can_be_run_is_and_the_page_says_the_rest(index: Index, tmp_path: Path) -> None:
    out = tmp_path / "out"
    found = index.reproduce("all", out, against=["vgg16", "resnet18=/no/such/file.pth"])
    assert [each.experiment for each in found.outcomes] == ["accuracy", "thresholding"]
    assert [each.experiment.name for each in found.left_out] == ["correlation", "errors"]
    vgg16, resnet18 = found.missing
    assert "vgg16 with torchvision's weights has 1000 classes" in vgg16
    assert "no weights at /no/such/file.pth" in resnet18
    assert found.files[-1] == out / "report.html"
    assert sorted(found.files) == sorted(path for path in out.iterdir())

    page = (out / "report.html").read_text()
    assert "<h1>The paper's experiments on &lt;i&gt;</h1>" in page
    assert "None of these is comparable with the paper's figure" in page
    assert "other images: 7 of memory, not ImageNet&#x27;s 50,000; other weights than the authors&#x27;" in page
    assert "<b>correlation</b> (Fig. 1C): there is nothing to compare with" in page
    assert "not compared with resnet18=/no/such/file.pth: no weights at" in page
    # One file, with nothing from elsewhere.
    assert page.count('src="data:image/png;base64,') == 2
    assert not re.findall(r"<script|<link|https?://|src=\"(?!data:)", page)
    assert set(re.findall(r'href="([^"]*)"', page)) == {"#accuracy", "#thresholding"}
    assert all(f'id="{name}"' in page for name in ("accuracy", "thresholding"))
    assert "<td>71.43 %</td>" in page


def test_the_command_says_what_was_left_out(index: Index, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    result = run("reproduce", "all", "-i", index.path, "-o", tmp_path / "out", "--against", "resnet18=/no/such.pth")
    assert result.status == 0
    assert "bagindex: errors was left out: errors are compared between models" in result.err
    assert "bagindex: not compared with resnet18=/no/such.pth: no weights at /no/such.pth" in result.err
    assert f"open {tmp_path / 'out' / 'report.html'}" in result.err


def test_a_full_disk_is_no_experiment_left_out(index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OutputError("the disk is full")

    monkeypatch.setattr(running.writing, "write", full)
    with pytest.raises(OutputError, match="the disk is full"):
        index.reproduce("all", tmp_path / "out")
