"""What comes of any experiment: files, what the command prints, and errors before work begins."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from bagindex import Index
from bagindex.errors import OutputError, QueryError
from bagindex.experiments.catalogue import EXPERIMENTS
from bagindex.experiments.writing import REPORT, prepare
from test_experiments_accuracy import CLASSES, RANKS, ranked
from wordy import worded_index


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """An index of seven images of dogs."""
    return worded_index(tmp_path / "i", ranked(RANKS, 3), ["dog"] * len(RANKS), classes=CLASSES)


def test_numbers_and_plots_become_files(index: Index, tmp_path: Path) -> None:
    out = tmp_path / "a" / "b"
    found = index.reproduce("accuracy", out, seed=5)
    assert [path.name for path in found.files] == ["accuracy.csv", "accuracy.png", "accuracy.pdf", "accuracy.json"]
    assert sorted(found.files) == sorted(out.iterdir())
    (row,) = csv.DictReader((out / "accuracy.csv").read_text().splitlines())
    assert (row["model"], float(row["top5"])) == ("linear", 5 / 7)
    assert (out / "accuracy.pdf").read_bytes().startswith(b"%PDF")
    with Image.open(out / "accuracy.png") as picture:
        assert min(picture.size) > 500
    record = json.loads((out / "accuracy.json").read_text())
    assert record["tables"]["accuracy"][0]["top5"] == 5 / 7
    assert record["beside"][0]["ours"] == pytest.approx(500 / 7)
    assert record["settings"]["seed"] == 5
    assert record["settings"]["models"]["linear"]["receptive_field"] == 8
    assert {"bagindex", "numpy", "python"} <= record["environment"].keys()
    assert record["seconds"] > 0


def test_the_command_prints_the_papers_figures_beside_ours(index: Index, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    result = run("reproduce", "accuracy", "-i", index.path, "-o", tmp_path / "out")
    assert result.status == 0
    assert "Accuracy on 7 images of memory" in result.out
    assert "71.43" in result.out
    assert "Not comparable with the paper's: other images: 7 of memory" in result.out
    assert f"wrote 4 files to {tmp_path / 'out'}" in result.err


def test_the_command_lists_the_experiments(run) -> None:  # type: ignore[no-untyped-def]
    result = run("reproduce", "--list")
    assert [line.split()[0] for line in result.out.splitlines()[2:]] == list(EXPERIMENTS)


def test_results_go_to_a_folder_of_their_own(index: Index, tmp_path: Path) -> None:
    (tmp_path / "pictures" / "cat").mkdir(parents=True)
    for folder, said in (
        (Path(index.path), f"{index.path} is an index: give another folder"),
        (tmp_path / "pictures", f"there is something else in {tmp_path / 'pictures'} (cat): give a new folder"),
    ):
        before = sorted(folder.iterdir())
        for ask in (
            lambda out: index.reproduce("accuracy", out),
            lambda out: index.reproduce("all", out),
            lambda out: index.evaluate_attribution("random", out),
        ):
            with pytest.raises(OutputError) as caught:
                ask(folder)
            assert str(caught.value) == said
        assert sorted(folder.iterdir()) == before


def test_a_folder_with_results_gets_others_too(tmp_path: Path) -> None:
    (tmp_path / "a note").write_text("")
    for name in ("kept/truth-0123456789abcdef", "networks/vgg16-0123456789abcdef", "attribution-images.csv", REPORT):
        with pytest.raises(OutputError, match=r"something else in .* \(a note\)"):
            prepare(tmp_path)
        (tmp_path / name).mkdir(parents=True) if "/" in name else (tmp_path / name).touch()
        prepare(tmp_path)
        shutil.rmtree(tmp_path / name) if "/" in name else (tmp_path / name).unlink()


def test_what_is_not_there_is_said_at_once(index: Index, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(QueryError, match="no experiment 'acuracy': did you mean 'accuracy'"):
        index.reproduce("acuracy", tmp_path / "out")
    with pytest.raises(QueryError, match="from 1 on"):
        index.reproduce("accuracy", tmp_path / "out", limit=0)
    (tmp_path / "file").write_text("")
    result = run("reproduce", "accuracy", "-i", index.path, "-o", tmp_path / "file")
    assert (result.status, result.err) == (1, f"bagindex: cannot write to {tmp_path / 'file'}: File exists\n")
    assert run("reproduce", "accuracy", "-i", index.path).status == 2
    assert run("reproduce", "-o", tmp_path / "out").status == 2
