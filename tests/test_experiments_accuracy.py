"""Accuracy, by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bagindex.errors import QueryError
from bagindex.intervals import wilson
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


def test_what_chance_gives_is_said(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", ranked((0,), 3), ["dog"], classes=CLASSES) as index:
        (outcome,) = index.reproduce("accuracy", tmp_path / "out").outcomes
    assert outcome.remarks == ("By chance, top-5 is right in 71.4 % of the images: there are 7 classes.",)


def test_predictions_of_others_stand_beside(tmp_path: Path) -> None:
    fives = (
        ("ant", "bee", "cat", "dog", "elk"),
        ("dog", "bee", "cat", "ant", "elk"),
        ("ant", "bee", "cat", "fox", "elk"),
    )
    pq.write_table(pa.table({"image_id": [0, 1, 2], "top5": fives}), tmp_path / "five.parquet")
    (tmp_path / "one.csv").write_text("image_id,predicted\n0,dog\n1,dog\n2,gnu\n")
    files = [tmp_path / "five.parquet", tmp_path / "one.csv"]
    with worded_index(tmp_path / "i", ranked((0, 0, 0), 3), ["dog", "dog", "dog"], classes=CLASSES) as index:
        (outcome,) = index.reproduce("accuracy", tmp_path / "out", predictions=files).outcomes
    _, five, one = outcome.tables["accuracy"].to_pylist()
    assert (five["model"], five["receptive_field"], five["top1_right"], five["top5_right"]) == ("five", None, 1, 2)
    assert (one["top1_right"], one["top5_right"], one["top5"]) == (2, None, None)
