"""Confusions: the pairs, and the words that decide them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bagindex import Index
from bagindex.errors import QueryError
from test_shortcuts import LABELS, TABLE, WORDS
from wordy import worded_index


def test_by_hand(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", TABLE, LABELS, WORDS) as index:
        found = index.confusions()
        assert found.wrong == 3
        cats, fish = found.confusions
        assert (cats.label.name, cats.predicted.name, cats.images, cats.share) == ("cat", "dog", 2, 2 / 3)
        # Margins 6 and 5; word 0 has 8 of the first, word 2 has −2 of it and 5 of the second.
        assert [(w.word, w.errors, w.share) for w in cats.words] == [(0, 1, 8 / 11), (2, 1, 3 / 11)]
        assert cats.words[0].typical == (6, 24)
        assert (fish.label.name, fish.images, fish.share) == ("fish", 1, 1.0)
        assert [(w.word, w.errors, w.share) for w in fish.words] == [(0, 1, 7 / 3)]
        assert len(index.confusions(k=1)) == 1
        with pytest.raises(QueryError, match="-k starts at 1"):
            index.confusions(k=0)


def test_pairs_are_those_of_sql(demo_words: Index) -> None:
    rows = demo_words.sql(
        "SELECT label_name, predicted_name, count(*) AS images FROM predictions WHERE NOT correct GROUP BY ALL"
    ).to_dicts()
    found = demo_words.confusions()
    assert len(found) > 5
    assert {(each.label.name, each.predicted.name): each.images for each in found.confusions} == {
        (row["label_name"], row["predicted_name"]): row["images"] for row in rows
    }
    counts = [each.images for each in found.confusions]
    assert counts == sorted(counts, reverse=True)
    assert found.wrong == sum(counts)


def test_what_a_word_decides_is_what_goes_without_it(demo_words: Index) -> None:
    """Against `without`, which knows all classes: a decided image leaves its prediction."""
    decided = 0
    for pair in demo_words.confusions(k=5).confusions:
        for word in pair.words:
            decided += word.errors
            left = [
                each
                for each in demo_words.without(word.word).changed
                if (each.label, each.before) == (pair.label.name, pair.predicted.name)
            ]
            assert len(left) >= word.errors
    assert decided


def test_nothing_is_confused(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    table = np.tile([1.0, 0.0, 0.0], (2, 6, 1))
    with worded_index(tmp_path / "i", table, ["cat", "cat"], WORDS[:2]) as index:
        found = index.confusions()
        assert found.confusions == ()
        assert "No labelled image is predicted as another class." in str(found)
        assert found._repr_png_() is None
    assert run("confusions", "--show", "-i", tmp_path / "i").status == 0


def test_the_command(demo_words: Index, planted_index: Index, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    asked = ["confusions", "-i", demo_words.path]
    found = demo_words.confusions()
    assert found.words in run(*asked).out
    assert json.loads(run(*asked, "--format", "json").out) == found.to_dicts()
    assert run(*asked, "-k", "1", "--format", "csv").out.count("\n") == 2
    for ending in ("png", "svg", "pdf", "json", "csv", "parquet"):
        assert run(*asked, "-o", tmp_path / f"c.{ending}").status == 0
        assert (tmp_path / f"c.{ending}").stat().st_size > 200
    assert found.picture(80, coarse=True).width <= 80
    missing = run("confusions", "-i", planted_index.path)
    assert (missing.status, "makes them" in missing.err) == (1, True)
