"""Why: the terms of a logit and of a margin, exactly."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bagindex import Index
from bagindex.errors import OutputError, QueryError, UnknownClassError
from wordy import recomputed, worded_index

ROWS = [[8, 0, 0], [3, 1, 0], [0, 1, 0], [-1, 2, 0], [1, 1, 0], [-5, 1, 0]]
WORDS = np.array([[0, 0, 1, 1, 2, 2]])


def one(folder: Path, **settings: object) -> Index:
    return worded_index(folder, np.array([ROWS]), ["cat"], WORDS, **settings)  # type: ignore[arg-type]


def test_a_logit_by_hand(tmp_path: Path) -> None:
    with one(tmp_path / "i") as index:
        found = index.why(0, k=1)
        assert (found.class_.name, found.predicted.name, found.against) == ("cat", "cat", None)
        assert (found.sum, found.total, found.rounding) == (6.0, 1.0, 0.0)
        assert [(p.what, p.side, p.sum, p.patches, p.share) for p in found.patches] == [
            ("patch", "for", 8.0, 1, 8 / 6),
            ("patch", "against", -5.0, 1, -5 / 6),
            ("other patches", "", 3.0, 4, 0.5),
        ]
        assert [(p.what, p.word, p.sum, p.patches) for p in found.visual_words] == [
            ("word", 0, 11.0, 2),
            ("word", 2, -4.0, 2),
            ("other words", None, -1.0, 2),
        ]
        assert found.patches[0].box == (0, 0, 8, 8)
        assert found.patches[1].patch_id == 5
        assert "logit for cat is 1.000, the mean over 6 patches: 3 add 2.000, 2 take 1.000 away" in found.words
        margin = index.why(0, vs="dog,cat")
        assert (margin.sum, margin.of) == (0.0, "margin of dog over cat")
        assert all(part.share is None for part in margin.patches)
        assert margin._repr_png_()
        assert index.why(0, class_="fish").total == 0


def test_words_add_up_to_the_bit(planted_words: Index) -> None:
    for image in range(0, 48, 5):
        for asked in ({}, {"class_": "tree"}, {"vs": "fish,seam"}, {"overlap": True, "k": 25}):
            found = planted_words.why(image, **asked)  # type: ignore[arg-type]
            total = float(np.sum(found.values))
            assert found.word_sums is not None
            assert float(found.word_sums.sum()) == total
            assert float(found.word_sums[::-1].sum()) == total
            for parts in (found.patches, found.visual_words):
                assert sum(part.sum for part in parts) == total
                assert sum(part.patches for part in parts) == found.grid.patches
                for part in parts:
                    assert part.contribution == part.sum / found.grid.patches
                    assert part.share == part.sum / total
            for part in found.visual_words:
                if part.word is not None:
                    assert part.patches == len(found.cells_of(part.word))
            assert found.total == total / found.grid.patches
            assert abs(found.rounding) < 1e-2


def test_the_model_says_the_same(planted_words: Index) -> None:
    every = recomputed(planted_words)
    for image in range(0, 48, 7):
        found = planted_words.why(image, vs="fish,seam")
        names = [each.name for each in planted_words.classes]
        expected = every[image][:, names.index("fish")] - every[image][:, names.index("seam")]
        np.testing.assert_allclose(found.values.ravel(), expected, atol=0.1)
        assert found.total + found.rounding == pytest.approx(expected.mean(), abs=1e-3)


def test_a_file_is_computed_and_has_no_words(planted_words: Index, tmp_path: Path) -> None:
    file = tmp_path / "plain.png"
    Image.new("RGB", (200, 300), "olive").save(file)
    found = planted_words.why(file)
    assert found.visual_words == ()
    assert "not in the index" in found.words
    assert found.patches[0].patch_id is None
    assert sum(part.sum for part in found.patches) == found.sum
    assert found._repr_png_()


def test_without_words_it_says_so(planted_index: Index) -> None:
    found = planted_index.why(0)
    assert found.visual_words == ()
    assert "`bagindex words --again --model bagnet33` makes them" in found.words


def test_a_summary_is_computed_again(tmp_path: Path) -> None:
    with one(tmp_path / "full") as full:
        expected = full.why(0).values
    assert expected.shape == (3, 2)
    bare = worded_index(tmp_path / "bare", np.array([ROWS]), ["cat"], pixels=False)
    with bare:
        assert bare.why(0).pixels is None
        assert bare.why(0)._repr_png_()
        with pytest.raises(QueryError, match="--pixels"):
            bare.why(0).picture(80, coarse=True)


def test_a_tie_within_the_rounding_is_said(tmp_path: Path) -> None:
    # In float16 all are 2048; in float32 dog is ahead.
    table = np.tile([2048.0, 2048.9, 0.0], (1, 6, 1))
    with worded_index(tmp_path / "i", table, ["cat"]) as index:
        found = index.why(0)
        assert (found.predicted.name, found.recorded.name) == ("cat", "dog")
        assert "The model predicted dog: the two tie within the rounding." in found.words
        assert "The model predicted dog" in index.flip(0).words
        assert index.why(0, class_="dog").rounding == pytest.approx(0.9, abs=1e-3)


def test_a_single_class(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", np.array([ROWS])[..., :1], [None], WORDS, classes=["cat"]) as index:
        assert index.why(0).total == 1


def test_questions_that_make_no_sense(planted_words: Index) -> None:
    for asked, words in (
        ({"vs": "fish,fish"}, "both are 'fish'"),
        ({"vs": "fish,tree", "class_": "fish"}, "not for both"),
        ({"k": 0}, "1 to 25"),
        ({"k": 26}, "1 to 25"),
        ({"vs": "fish"}, "two classes with a comma"),
    ):
        with pytest.raises(QueryError, match=words):
            planted_words.why(0, **asked)  # type: ignore[arg-type]
    with pytest.raises(UnknownClassError):
        planted_words.why(0, class_="teer")
    with pytest.raises(OutputError, match="one of"):
        planted_words.why(0).save("why.bmp")


def test_hostile_names(tmp_path: Path) -> None:
    names = ("$x_1$ <b>\x1b[31m", "猫" * 40, "a,b")
    with worded_index(tmp_path / "i", np.array([ROWS]), [names[0]], WORDS, classes=names) as index:
        found = index.why(0)
        assert "\x1b" not in str(found)
        assert b"\x1b" not in found.render("svg")
        assert found._repr_png_()
        assert found.picture(60, coarse=True).width <= 600
        assert index.flip(0)._repr_png_()


def test_the_command(planted_words: Index, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    asked = ["why", "0", "-i", planted_words.path]
    found = planted_words.why(0)
    table = run(*asked)
    assert table.status == 0
    assert "other words" in table.out
    assert found.words in table.out
    (record,) = json.loads(run(*asked, "--format", "json").out)
    assert record["total"] == found.total
    assert sum(part["sum"] for part in record["parts"] if "patch" in part["what"]) == found.sum
    rows = list(csv.DictReader(io.StringIO(run(*asked, "--format", "csv").out)))
    assert [row["what"] for row in rows] == [row["what"] for row in found.table_rows()]
    for ending in ("png", "svg", "pdf", "json", "csv", "parquet"):
        assert run(*asked, "-o", tmp_path / f"why.{ending}").status == 0
        assert (tmp_path / f"why.{ending}").stat().st_size > 500
    assert pq.read_table(tmp_path / "why.parquet").num_rows == len(rows)
    assert json.loads((tmp_path / "why.json").read_text()) == [record]
    assert run(*asked, "--vs", "fish,tree", "--class", "fish").status == 2
    shown = run(*asked, "--show")
    assert shown.out == table.out
    assert "the output is no terminal" in shown.err
    assert found.picture(700).width <= 700
