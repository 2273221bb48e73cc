"""Accuracy, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bagindex.errors import QueryError
from bagindex.experiments.accuracy import wilson
from wordy import worded_index

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
RANKS = (0, 0, 0, 1, 4, 5, 6)
"""Where the label of each image stands among its logits."""


def ranked(ranks: tuple[int, ...], label: int, patches: int = 6) -> np.ndarray:
    """Evidence float32 [images, patches, 7 classes] by which the label comes at these places."""
    table = np.zeros((len(ranks), patches, len(CLASSES)), np.float32)
    for image, rank in enumerate(ranks):
        others = [each for each in range(len(CLASSES)) if each != label]
        order = [*others[:rank], label, *others[rank:]]
        table[image, :, order] = np.arange(len(CLASSES), 0, -1)[:, None]
    return table


def test_by_hand(tmp_path: Path) -> None:
    labels = ["dog"] * len(RANKS) + [None]
    table = np.concatenate([ranked(RANKS, 3), ranked((0,), 3)])
    with worded_index(tmp_path / "i", table, labels, classes=CLASSES) as index:
        found = index.reproduce("accuracy", tmp_path / "out")
    (outcome,) = found.outcomes
    (row,) = outcome.tables["accuracy"].to_pylist()
    assert (row["images"], row["top1_right"], row["top5_right"]) == (7, 3, 5)
    assert (row["top1"], row["top5"]) == (3 / 7, 5 / 7)
    assert (row["top5_low"], row["top5_high"]) == wilson(5, 7)
    (beside,) = outcome.beside
    assert beside.ours == pytest.approx(100 * 5 / 7)
    assert not beside.comparable
    assert beside.why == "other images: 8 of memory, not ImageNet's 50,000; other weights than the authors'"


def test_only_the_chosen_images_count(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", ranked((0, 6, 0, 6), 3), ["dog"] * 4, classes=CLASSES) as index:
        (outcome,) = index.reproduce("accuracy", tmp_path / "out", limit=2).outcomes
    (row,) = outcome.tables["accuracy"].to_pylist()
    assert (row["images"], row["top1_right"]) == (2, 2)


def test_the_interval_is_wilsons() -> None:
    """Figures of Newcombe's (1998), table I, who prints four digits."""
    assert wilson(81, 263) == pytest.approx((0.2553, 0.3662), abs=5e-5)
    assert wilson(15, 148) == pytest.approx((0.0624, 0.1605), abs=5e-5)
    assert wilson(0, 20) == pytest.approx((0.0, 0.1611), abs=5e-5)
    assert wilson(29, 29) == pytest.approx((0.8830, 1.0), abs=5e-5)


def test_without_labels_nothing_is_right(tmp_path: Path) -> None:
    with (
        worded_index(tmp_path / "i", ranked((0,), 3), [None], classes=CLASSES) as index,
        pytest.raises(QueryError, match="no image of this index has a label"),
    ):
        index.reproduce("accuracy", tmp_path / "out")


def test_of_few_classes_it_is_said_that_top5_says_nothing(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", np.zeros((2, 6, 3)), ["cat", "fish"]) as index:
        (outcome,) = index.reproduce("accuracy", tmp_path / "out").outcomes
    assert outcome.remarks == ("The index has 3 classes, so that top-5 is always right.",)
