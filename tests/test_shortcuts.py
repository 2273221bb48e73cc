"""Shortcuts: words that decide errors, by hand, and the planted ones in the demo."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from bagindex import Index
from bagindex.accounts.errors import decision, read_labels
from bagindex.demo import CLASSES, DemoReport, find_planted
from bagindex.demo.planting import read_truth
from bagindex.described import describe
from bagindex.errors import QueryError, UnknownClassError
from bagindex.results import PlacedPatch
from wordy import worded_index

# Word 0 is the dogs' shortcut: it decides images 1 and 2. Word 1 speaks for all classes alike, much and everywhere.
WORDS = np.array([[0, 1, 1, 1, 1, 2]] * 5)
TABLE = np.zeros((5, 6, 3))
TABLE[:, 1:5] = 20
TABLE[0, 0, 1], TABLE[0, 5, 0] = 3, 6  # cat: right, in spite of the shortcut
TABLE[1, 0, 1], TABLE[1, 5, 0] = 8, 2  # cat, taken for dog
TABLE[2, 0, 1], TABLE[2, 5, 2] = 7, 4  # fish, taken for dog
TABLE[3, 0, 1] = 9  # dog
TABLE[4, 5, 1] = 5  # cat, taken for dog, for word 2
LABELS = ["cat", "cat", "fish", "dog", "cat"]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return worded_index(tmp_path / "i", TABLE, LABELS, WORDS)


def test_by_hand(index: Index) -> None:
    found = index.shortcuts("dog")
    first, second = found.shortcuts
    assert (first.word, first.errors, first.of, first.images, first.patches) == (0, 2, 3, 3, 3)
    assert first.evidence == 15 / 3
    assert first.contribution == 15 / 6 / 3
    assert first.margin == 15 / 6
    # Over the four images of other classes: 3 + 8 + 7 + 0.
    assert first.adds == pytest.approx(18 / 6 / 4)
    assert first.typical == (6, 12, 0, 24)
    assert first.labels == ("cat", "fish", "cat", "cat")
    assert (second.word, second.errors, second.margin) == (2, 1, 5 / 6)
    assert [each.word for each in index.shortcuts("dog", k=1).shortcuts] == [0]
    # What all classes have alike is no shortcut, however much it is.
    every = index.shortcuts(k=100)
    assert all(each.word != 1 for each in every.shortcuts)
    assert every.shortcuts[:2] == found.shortcuts
    index.close()


def test_what_decides(index: Index) -> None:
    record = index._model(None)
    evidence, words = index._stored_evidence(record), index._words_of(record)
    found = decision(evidence, words, 1, 0, 1)
    assert found.total == 6
    assert found.sums.tolist() == [8, 0, -2]
    assert found.decides.tolist() == [True, False, False]
    # A tie goes to the smaller class id: cat, without the dog's margin.
    assert decision(evidence, words, 4, 0, 1).decides.tolist() == [False, False, True]
    assert not decision(evidence, words, 4, 1, 0).decides.any()
    labels = read_labels(index._catalog, record)
    assert labels.wrong.tolist() == [1, 2, 4]
    index.close()


def test_a_word_of_all_patches_decides_nothing(tmp_path: Path) -> None:
    table = np.tile([0.0, 1.0, 0.0], (1, 6, 1))
    with worded_index(tmp_path / "i", table, ["cat"], np.zeros((1, 6), int)) as index:
        found = index.shortcuts()
        assert [(each.errors, each.of) for each in found.shortcuts] == [(0, 1)]


def test_unlabelled_images_count_for_nothing(tmp_path: Path) -> None:
    more = np.concatenate([TABLE, TABLE[:2]])
    words = np.concatenate([WORDS, WORDS[:2]])
    with (
        worded_index(tmp_path / "some", more, [*LABELS, None, None], words) as some,
        worded_index(tmp_path / "all", TABLE, LABELS, WORDS) as all_,
    ):
        for one, other in zip(some.shortcuts().shortcuts, all_.shortcuts().shortcuts, strict=True):
            assert one.adds == pytest.approx(other.adds)
            assert (one.word, one.errors, one.typical) == (other.word, other.errors, other.typical)


def test_the_demo_shows_its_planted_shortcuts_first(demo_report: DemoReport, demo_words: Index) -> None:
    truth = read_truth(demo_report.pictures)
    for each in CLASSES:
        found = demo_words.shortcuts(each.name, k=1)[0]
        described = describe(demo_words._catalog, demo_words._model(None), found.typical)
        planted = [find_planted(PlacedPatch(rank=1, **words), truth) for words in described]
        mine = [one.motif for one in planted if one is not None and one.belongs_to == each.name]
        assert len(planted) == 8
        # They mostly lie on what was planted for the class; where it has a shortcut, on that.
        assert len(mine) > 4
        if each.shortcut is not None:
            assert set(mine) == {each.shortcut}


def test_what_cannot_be_answered(planted_index: Index, planted_words: Index, tmp_path: Path) -> None:
    with pytest.raises(QueryError, match="makes them"):
        planted_index.shortcuts()
    with pytest.raises(UnknownClassError):
        planted_words.shortcuts("teer")
    with pytest.raises(QueryError, match="-k starts at 1"):
        planted_words.shortcuts(k=0)
    with worded_index(tmp_path / "i", TABLE, [None] * 5, WORDS) as index:
        with pytest.raises(QueryError, match="`bagindex relabel` gives them labels"):
            index.shortcuts()
        with pytest.raises(QueryError, match="`bagindex relabel` gives them labels"):
            index.confusions()
    with worded_index(tmp_path / "one", TABLE[..., :1], ["cat"] * 5, WORDS, classes=["cat"]) as index:
        found = index.shortcuts()
        assert found.shortcuts == ()
        assert "No word does." in str(found)
        assert found._repr_png_() is None
        assert found._repr_html_()
        with pytest.raises(QueryError, match="nothing to draw"):
            found.save(tmp_path / "s.png")


def test_hostile_names(tmp_path: Path) -> None:
    names = ("$x_1$ <b>\x1b[31m", "猫" * 40, "a,b")
    labels = [None if each is None else names[("cat", "dog", "fish").index(each)] for each in LABELS]
    with worded_index(tmp_path / "i", TABLE, labels, WORDS, classes=names) as index:
        for found in (index.shortcuts(), index.confusions()):
            assert found._repr_png_()
            assert "\x1b" not in str(found)
            assert b"\x1b" not in found.render("svg")
            assert found.picture(60, coarse=True).height > 10


def test_without_pixels(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", TABLE, LABELS, WORDS, pixels=False) as index:
        for found in (index.shortcuts(), index.confusions()):
            assert found._repr_png_() is None
            assert "<table>" in (found._repr_html_() or "")
            with pytest.raises(QueryError, match="--pixels"):
                found.save(tmp_path / "s.png")


def test_the_command(planted_words: Index, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    asked = ["shortcuts", "-i", planted_words.path]
    found = planted_words.shortcuts()
    assert len(found) == 10
    table = run(*asked)
    assert found.words in table.out
    rows = json.loads(run(*asked, "--format", "json").out)
    assert rows == found.to_dicts()
    assert run(*asked, "--format", "csv").out.count("\n") == 11
    assert run("shortcuts", "seam", "-k", "2", "-i", planted_words.path).status == 0
    for ending in ("png", "svg", "pdf", "json", "csv", "parquet"):
        assert run(*asked, "-o", tmp_path / f"s.{ending}").status == 0
        assert (tmp_path / f"s.{ending}").stat().st_size > 500
    assert run(*asked, "--show").out == table.out
    assert found.picture(80, coarse=True).width <= 80
    assert found.to_arrow().num_rows == 10
