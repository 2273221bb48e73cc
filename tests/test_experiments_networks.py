"""Correlation, errors by class and images that both get wrong, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bagindex import Index
from bagindex.errors import QueryError
from bagindex.experiments import correlation, misclassified
from wordy import worded_index

CLASSES = ("cat", "dog", "fish")
LABELS = ["cat", "cat", "dog", "fish"]
OURS = np.array([[3, 1, 0], [1, 3, 0], [2, 1, 0], [0, 0, 5]], np.float32)
"""Right, wrong, wrong, right."""
THEIRS = np.array([[3, 1, 0], [0, 3, 1], [0, 0, 4], [1, 0, 0]], np.float32)
"""Right, wrong, wrong, wrong."""


def index_of(folder: Path, logits: np.ndarray, labels: list[str] = LABELS) -> Index:
    """An index of images whose six patches all have an image's logits."""
    return worded_index(folder, np.repeat(logits[:, None], 6, axis=1), labels, classes=CLASSES)


def brought(path: Path, logits: np.ndarray) -> Path:
    """A file of predictions."""
    pq.write_table(pa.table({"image_id": np.arange(len(logits)), "logits": logits.tolist()}), path)
    return path


def test_pearson_is_numpys() -> None:
    rng = np.random.default_rng(1)
    # More rows than are worked on at a time, and a large mean.
    a = (1000 + rng.normal(size=(5000, 3))).astype(np.float32)
    b = (a + rng.normal(size=a.shape)).astype(np.float32)
    assert correlation.pearson(a, b) == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1], rel=1e-6)
    rows = correlation.pearson_by_row(a, b)
    assert rows[:50] == pytest.approx([np.corrcoef(x, y)[0, 1] for x, y in zip(a[:50], b[:50], strict=True)], rel=1e-4)
    assert np.isnan(correlation.pearson_by_row(np.ones((1, 3)), np.arange(3.0)[None]))


def test_logits_that_are_all_the_same_correlate_with_nothing(tmp_path: Path) -> None:
    theirs = brought(tmp_path / "constant.parquet", np.ones_like(THEIRS))
    with index_of(tmp_path / "i", OURS) as index:
        (outcome,) = index.reproduce("correlation", tmp_path / "out", predictions=[theirs]).outcomes
    (row,) = outcome.tables["correlation"].to_pylist()
    assert np.isnan(row["pearson_all"])
    assert np.isnan(row["pearson_image_mean"])
    assert any(f"In {len(OURS)} images" in remark for remark in outcome.remarks)


def test_correlation_by_hand(tmp_path: Path) -> None:
    theirs = brought(tmp_path / "vgg16.parquet", THEIRS)
    with index_of(tmp_path / "i", OURS) as index:
        (outcome,) = index.reproduce("correlation", tmp_path / "out", predictions=[theirs]).outcomes
    (row,) = outcome.tables["correlation"].to_pylist()
    assert row["pearson_all"] == pytest.approx(np.corrcoef(OURS.ravel(), THEIRS.ravel())[0, 1])
    images = [np.corrcoef(a, b)[0, 1] for a, b in zip(OURS, THEIRS, strict=True)]
    assert row["pearson_image_mean"] == pytest.approx(np.mean(images))
    assert row["pearson_image_median"] == pytest.approx(np.median(images))
    assert [each.ours for each in outcome.beside] == [row["pearson_all"], row["pearson_image_mean"]]
    # A file may say anything: the paper's figure is for published weights.
    assert "other weights of vgg16 than torchvision's first" in outcome.beside[0].why
    assert "vgg16: the predictions of vgg16.parquet." in outcome.remarks


def test_a_correlation_needs_logits(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("image_id,predicted\n0,cat\n1,cat\n2,dog\n3,fish\n")
    with index_of(tmp_path / "i", OURS) as index:
        with pytest.raises(QueryError, match="a correlation is of logits"):
            index.reproduce("correlation", tmp_path / "out", predictions=[tmp_path / "one.csv"])
        with pytest.raises(QueryError, match="nothing to compare with: give --against"):
            index.reproduce("correlation", tmp_path / "out")


def test_errors_by_hand(tmp_path: Path) -> None:
    theirs = brought(tmp_path / "theirs.parquet", THEIRS)
    with index_of(tmp_path / "i", OURS) as index:
        (outcome,) = index.reproduce("errors", tmp_path / "out", predictions=[theirs]).outcomes
        with pytest.raises(QueryError, match="errors are compared between models, and here is one"):
            index.reproduce("errors", tmp_path / "out")
    rows = {row["class"]: row for row in outcome.tables["classes"].to_pylist()}
    assert {name: (row["images"], row["top1 linear"], row["top1 theirs"]) for name, row in rows.items()} == {
        "cat": (2, 0.5, 0.5),
        "dog": (1, 0.0, 0.0),
        "fish": (1, 1.0, 0.0),
    }
    (pair,) = outcome.tables["errors"].to_pylist()
    assert (pair["a"], pair["b"], pair["top1_classes"]) == ("linear", "theirs", 3)
    assert pair["top1_pearson"] == pytest.approx(np.corrcoef([0.5, 0, 1], [0.5, 0, 0])[0, 1])
    assert pair["top1_difference"] == pytest.approx(1 / 3)


def test_where_the_paper_has_no_figures_the_numbers_are_printed(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    theirs = brought(tmp_path / "theirs.parquet", THEIRS)
    with index_of(tmp_path / "i", OURS) as index:
        path = index.path
    result = run("reproduce", "errors", "-i", path, "--predictions", theirs, "-o", tmp_path / "out")
    lines = result.out.splitlines()
    assert lines[0] == "Accuracy of each class, of linear, theirs, on 4 images"
    assert "top1_pearson" in lines[2]
    assert lines[4].split()[:2] == ["linear", "theirs"]


def test_of_predictions_alone_no_top5_is_made_up(tmp_path: Path) -> None:
    (tmp_path / "one.csv").write_text("image_id,predicted\n0,cat\n1,cat\n2,dog\n3,fish\n")
    with index_of(tmp_path / "i", OURS) as index:
        (outcome,) = index.reproduce("errors", tmp_path / "out", predictions=[tmp_path / "one.csv"]).outcomes
    (pair,) = outcome.tables["errors"].to_pylist()
    assert (pair["top5_classes"], pair["top5_pearson"], pair["top1_classes"]) == (0, None, 3)


def test_what_both_get_wrong(tmp_path: Path) -> None:
    theirs = brought(tmp_path / "theirs.parquet", THEIRS)
    with index_of(tmp_path / "i", OURS) as index:
        (outcome,) = index.reproduce("misclassified", tmp_path / "out", predictions=[theirs]).outcomes
    rows = outcome.tables["misclassified"].to_pylist()
    assert [row["image_id"] for row in rows] == [1, 2]
    powers = np.exp([1.0, 3.0, 0.0])
    assert rows[0] | {"path": ""} == {
        **{"image_id": 1, "path": "", "label": "cat", "predicted": "dog"},
        **{"probability": pytest.approx(powers[1] / powers.sum()), "network": "theirs", "network_predicted": "dog"},
        "network_probability": pytest.approx(np.exp(3) / (1 + np.exp(3) + np.exp(1))),
    }
    (overlap,) = outcome.tables["overlap"].to_pylist()
    assert (overlap["model_wrong"], overlap["network_wrong"], overlap["both_wrong"]) == (2, 3, 2)
    assert (overlap["both_wrong_if_independent"], overlap["same_class"]) == (1.5, 1)
    # Both are handed to `explain`, which draws them.
    assert (tmp_path / "out" / "misclassified.png").stat().st_size > 10_000


def test_the_surest_come_first_and_no_mistake_twice() -> None:
    probability = np.array([0.5, 0.9, 0.8, 0.7, 0.6])
    pairs = [(0, 1), (0, 1), (0, 1), (2, 1), (1, 2)]
    places = np.array([0, 1, 2, 3])
    assert misclassified.surest(places, probability, pairs, 2) == [1, 3]
    assert misclassified.surest(places, probability, pairs, 3) == [1, 3, 2]
    assert misclassified.surest(places, probability, pairs, 9) == [1, 3, 2, 0]


def test_where_nothing_can_be_explained_the_numbers_stay(tmp_path: Path) -> None:
    theirs = brought(tmp_path / "theirs.parquet", THEIRS)
    table = np.repeat(OURS[:, None], 6, axis=1)
    with worded_index(tmp_path / "i", table, LABELS, classes=CLASSES, pixels=False, keep="summary") as index:
        (outcome,) = index.reproduce("misclassified", tmp_path / "out", predictions=[theirs]).outcomes
    assert len(outcome.tables["misclassified"]) == 2
    assert not outcome.figures
    assert any("cannot be explained" in remark for remark in outcome.remarks)
