"""Thresholded evidence by hand, and against all classes sorted in every order of ties."""

from __future__ import annotations

from itertools import permutations
from pathlib import Path

import numpy as np
import pytest

from bagindex import Index
from bagindex.errors import NotKeptError
from bagindex.experiments.ranks import ranks_of
from bagindex.experiments.thresholding import scores
from bagindex_schemas.records import Keep
from wordy import worded_index


def test_scores_by_hand() -> None:
    evidence = np.array([[-2.0, 0.5, 4.0], [1.0, 1.0, -1.0]], np.float16)
    clipped, binarised = scores(evidence, np.array([-np.inf, 0.0, 0.5, 2.0]))
    assert clipped.tolist() == [[2.5, 1.0], [4.5, 2.0], [5.0, 2.5], [8.0, 6.0]]
    assert binarised.tolist() == [[3, 3], [2, 2], [1, 2], [1, 0]]


def test_scores_are_what_comparing_gives() -> None:
    rng = np.random.default_rng(0)
    # More images than are worked on at a time, and evidence that is a threshold.
    evidence = rng.normal(0, 4, (300, 50)).round(1).astype(np.float16)
    thresholds = np.unique([-np.inf, *evidence[0, :9].astype(float), 0, 3])
    clipped, binarised = scores(evidence, thresholds)
    for place, threshold in enumerate(thresholds):
        assert (clipped[place] == np.maximum(evidence.astype(float), threshold).sum(axis=1)).all()
        assert (binarised[place] == (evidence.astype(float) > threshold).sum(axis=1)).all()


def test_ties_count_by_the_share_of_their_orders() -> None:
    rng = np.random.default_rng(3)
    values, labels = rng.integers(0, 3, (40, 5)).astype(float), rng.integers(0, 5, 40)
    found = ranks_of(values, labels)
    for k in (1, 2, 5):
        for image, label in enumerate(labels):
            orders = [
                sorted(range(5), key=lambda each: (-values[image, each], order.index(each)))
                for order in permutations(range(5))
            ]
            share = np.mean([label in each[:k] for each in orders])
            assert found.right(k)[image] == pytest.approx(share), (k, image)


def test_by_hand(tmp_path: Path) -> None:
    """Two images of cats: of the first one patch is sure, of the second five are a little and one is against it."""
    table = np.zeros((2, 6, 3), np.float32)
    table[0, 0, 0], table[0, :, 1] = 12, 1
    table[1, :, 0], table[1, 0, 0], table[1, :, 1] = 1, -12, 0.125
    with worded_index(tmp_path / "i", table, ["cat", "cat"]) as index:
        (outcome,) = index.reproduce("thresholding", tmp_path / "out").outcomes
    rows = outcome.tables["thresholding"].to_pylist()
    assert {row["images"] for row in rows} == {2}

    def found(kind: str, low: float, high: float) -> set[float]:
        shares = {row["top1"] for row in rows[1:] if row["kind"] == kind and low <= row["threshold"] < high}
        assert shares
        return shares

    assert (rows[0]["kind"], rows[0]["threshold"], rows[0]["top1"]) == ("clipped", None, 0.5)
    # From −1 on, what is against the second image's class is less than what is for it: 5 − 1 and 0.75.
    assert found("clipped", -12, -5) == {0.5}
    assert found("clipped", -1, 1) == {1.0}
    # Above 0, all six patches of both images are dogs; above 1, the first has one patch of a cat, the second none.
    assert found("binarised", 0, 0.1) == {0.0}
    assert found("binarised", 1, 11) == {(1 + 1 / 3) / 2}


def test_as_it_is_it_is_what_was_predicted(planted_index: Index, tmp_path: Path) -> None:
    (outcome,) = planted_index.reproduce("thresholding", tmp_path).outcomes
    (accuracy,) = planted_index.sql("SELECT avg(correct::INTEGER) AS share FROM predictions").to_dicts()
    first = outcome.tables["thresholding"].to_pylist()[0]
    assert (first["kind"], first["threshold"]) == ("clipped", None)
    assert 0.2 < first["top1"] == accuracy["share"]
    top5, clipped, binarised = outcome.beside
    assert (top5.paper, clipped.paper) == (87.6, None)
    assert top5.ours is not None
    assert not binarised.comparable


def test_beyond_all_evidence_nothing_is_told_apart(planted_index: Index, tmp_path: Path) -> None:
    (outcome,) = planted_index.reproduce("thresholding", tmp_path, limit=12).outcomes
    last = outcome.tables["thresholding"].to_pylist()[-1]
    assert last["kind"] == "binarised"
    assert last["images"] == 12
    assert last["tied_images"] > 0


def test_an_index_of_summaries_says_what_to_build(tmp_path: Path) -> None:
    with (
        worded_index(tmp_path / "i", np.zeros((1, 6, 3)), ["cat"], keep=Keep.SUMMARY) as index,
        pytest.raises(NotKeptError, match="--keep evidence"),
    ):
        index.reproduce("thresholding", tmp_path / "out")
