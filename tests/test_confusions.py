"""Confusions: the pairs, and the words that decide them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bagindex import Index, demo
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


def test_the_matrix_counts_images(demo_report: demo.DemoReport) -> None:
    index = demo_report.index  # without words
    rows = index.sql("SELECT label, predicted, count(*) AS images FROM predictions GROUP BY ALL").to_dicts()
    counted = {(row["label"], row["predicted"]): row["images"] for row in rows}
    for found in (index.confusion_matrix(), index.confusion_matrix(k=4), index.confusion_matrix("fish", k=3)):
        ids = [each.class_.class_id for each in found.classes]
        assert ids == sorted(ids)
        for i, label in enumerate(ids):
            of_label = {predicted: n for (own, predicted), n in counted.items() if own == label}
            assert list(found.counts[i]) == [of_label.get(each, 0) for each in ids]
            assert found.others[i] == sum(n for each, n in of_label.items() if each not in ids)
            assert (found.classes[i].images, found.classes[i].correct) == (sum(of_label.values()), of_label[label])
        assert found.wrong == sum(n for (label, predicted), n in counted.items() if label != predicted)
        assert found.shown == sum(n for (a, b), n in counted.items() if a != b and {a, b} <= set(ids))
        assert found.to_arrow().to_pylist() == found.table_rows()
        assert found.title in str(found)
        assert str(found.wrong) in found._repr_html_()
    assert len(index.confusion_matrix()) == 6
    assert len(index.confusion_matrix(k=4)) == 4
    for k in (0, 1, 1001):
        with pytest.raises(QueryError, match="2 to 1,000"):
            index.confusion_matrix(k=k)


def test_which_classes_the_matrix_shows(tmp_path: Path) -> None:
    # One class after the other: a to b twice, c to b, d to e; f is right.
    classes = list("abcdef")
    labels, predicted = "aacdf", "bbbef"
    means = np.eye(6)[[classes.index(each) for each in predicted]]
    with worded_index(tmp_path / "i", np.repeat(means[:, None], 6, axis=1), list(labels), classes=classes) as index:

        def shown(class_: str | None = None, k: int = 20) -> str:
            return "".join(each.class_.name for each in index.confusion_matrix(class_, k=k).classes)

        assert shown() == "abcdef"
        assert shown(k=2) == "ab"
        assert shown(k=3) == "abc"
        assert shown(k=4) == "abc"
        assert shown(k=5) == "abcde"
        assert shown("b") == "abc"
        assert shown("b", k=2) == "ab"
        assert shown("e") == "de"
        assert shown("f") == "f"
        assert index.confusion_matrix("b", k=2).to_dict() == {
            "title": "labels (rows) and predictions (columns) of b and what it is confused with most (linear)",
            "model": "linear",
            "classes": [
                {"class": "a", "class_id": 0, "images": 2, "correct": 0},
                {"class": "b", "class_id": 1, "images": 0, "correct": 0},
            ],
            "counts": [[0, 2], [0, 0]],
            "others": [0, 0],
            "wrong": 4,
            "shown": 2,
        }


def test_a_matrix_without_labels(tmp_path: Path) -> None:
    with (
        worded_index(tmp_path / "i", np.zeros((2, 6, 3)), [None, None]) as index,
        pytest.raises(QueryError, match="relabel"),
    ):
        index.confusion_matrix()
    with worded_index(tmp_path / "j", np.zeros((2, 6, 3)), [None, "dog"]) as index:
        assert index.confusion_matrix().wrong == 1


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
    matrix = demo_words.confusion_matrix(k=4)
    assert matrix.words in run(*asked, "--matrix", "-k", 4).out
    assert json.loads(run(*asked, "--matrix", "-k", 4, "--format", "json").out) == matrix.to_dicts()
    assert run(*asked, "--matrix", "fish", "-o", tmp_path / "m.csv").status == 0
    assert (tmp_path / "m.csv").read_text().startswith("label,predicted,images\n")
    assert run("confusions", "--matrix", "-i", planted_index.path).status == 0
    assert run(*asked, "fish").status == 2
    missing = run("confusions", "-i", planted_index.path)
    assert (missing.status, "makes them" in missing.err) == (1, True)
