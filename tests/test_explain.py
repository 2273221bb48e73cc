"""Explanations: what decides between two classes, in numbers, words and pictures."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from bagindex import Index
from bagindex.errors import QueryError, UnknownClassError
from bagindex.explain import patches_for, two_classes
from bagindex.figures.style import style
from bagindex.geometry import make_grid, patch_box
from bagindex.labels import find_class
from fakes import class_records
from test_maps import table_index


@given(hnp.arrays(np.float64, st.integers(1, 30), elements=st.integers(-8, 8).map(float)), st.sampled_from([0.5, 1.0]))
def test_how_few_patches(difference: np.ndarray, part: float) -> None:
    count = patches_for(difference, part)
    if difference.sum() <= 0:
        assert count is None
        return
    assert count is not None
    ranked = sorted(difference, reverse=True)
    assert sum(ranked[:count]) >= part * difference.sum() > sum(ranked[: count - 1])


def one_image(*rows: tuple[float, float, float]) -> np.ndarray:
    return np.array([rows], np.float32)


def test_numbers_and_words(tmp_path: Path) -> None:
    # cat - dog: 8, 2, -1, -1, 0, 4; mean 2. The first is two thirds of it; with the last it is all.
    rows = ((8, 0, 0), (3, 1, 0), (0, 1, 0), (1, 2, 0), (1, 1, 0), (5, 1, 0))
    with table_index(tmp_path / "i", one_image(*rows)) as index:
        found = index.explain(0)
    assert [record.name for record in found.classes] == ["cat", "dog"]  # right: the next one
    assert found.logits == (3, 1)
    assert (found.winner, found.margin, found.half, found.whole) == (0, 2, 1, 2)
    assert found.for_winner == pytest.approx(14 / 6)
    assert found.for_loser == pytest.approx(2 / 6)
    assert [(p.row, p.col) for p in found.speaking[0]] == [(0, 0), (2, 1), (0, 1)]
    assert [(p.row, p.col) for p in found.speaking[1]] == [(1, 1), (0, 1), (1, 0)]
    assert [(p.row, p.col, p.share) for p in found.deciding] == [
        (0, 0, pytest.approx(8 / 12)),
        (2, 1, pytest.approx(4 / 12)),
        (0, 1, pytest.approx(2 / 12)),
    ]
    assert found.deciding[0].patch_id == 0
    assert found.deciding[1].box == (8, 16, 16, 24)
    assert "labelled cat and predicted cat" in found.words
    assert "cat leads by 2.00, the mean over 6 patches" in found.words
    assert "In 3 of them cat has the larger logit, which adds 2.33; in 2 dog has, which takes away 0.33." in found.words
    assert "The patch with the largest difference (16.7 % of all) adds up to half of the margin" in found.words
    assert "the 2 largest to all of it" in found.words


def test_a_wrong_image_sets_its_label_beside_the_prediction(planted_index: Index) -> None:
    rows = planted_index.sql("SELECT image_id, label_name, predicted_name, logits FROM predictions").to_dicts()
    for row in rows:
        found = planted_index.explain(row["image_id"])
        names = [record.name for record in found.classes]
        if row["label_name"] != row["predicted_name"]:
            assert names == [row["label_name"], row["predicted_name"]]
            assert found.winner == 1
        else:
            ranked = sorted(range(6), key=lambda class_id: -row["logits"][class_id])
            assert [record.class_id for record in found.classes] == ranked[:2]
            assert found.winner == 0
        # The mean over patches of the difference of logits is the difference of the image's logits.
        gap = found.logits[found.winner] - found.logits[found.loser]
        assert found.margin == pytest.approx(gap, abs=5e-3)
        assert found.margin == pytest.approx(found.difference.mean(dtype=np.float64), rel=1e-9)
        assert found.margin == pytest.approx(found.for_winner - found.for_loser)


def test_other_classes_on_request(planted_index: Index) -> None:
    found = planted_index.explain(0, vs="fish,tree")
    assert [record.name for record in found.classes] == ["fish", "tree"]
    other = planted_index.explain(0, vs=("tree", "fish"))
    assert other.margin == found.margin
    assert other.words.split(". ")[-2:] == found.words.split(". ")[-2:]
    for which, words in (
        ("fish", "two classes with a comma"),
        ("fish,fish", "both are 'fish'"),
        (("fish",), "not 1"),
        ("a,b,c", "no pairs"),
    ):
        with pytest.raises(QueryError, match=words):
            planted_index.explain(0, vs=which)
    with pytest.raises(UnknownClassError):
        planted_index.explain(0, vs="fish,teer")


def test_names_with_commas() -> None:
    classes = class_records(["crane", "crane, bird", "bird", "a,b"])
    found = two_classes(lambda text: find_class(classes, text), "crane, bird,a,b")
    assert [record.name for record in found] == ["crane, bird", "a,b"]
    with pytest.raises(QueryError, match="2 pairs"):
        two_classes(lambda text: find_class(class_records(["a", "b,a", "a,b"]), text), "a,b,a")


def test_a_tie_has_no_margin(tmp_path: Path) -> None:
    with table_index(tmp_path / "i", one_image(*[(1, 1, 0)] * 6)) as index:
        found = index.explain(0)
        assert (found.margin, found.half, found.whole) == (0, None, None)
        assert all(patch.share is None for patch in found.patches)
        assert "Neither leads" in found.words
        assert found._repr_png_()


def test_an_unlabelled_file(planted_index: Index, tmp_path: Path) -> None:
    file = tmp_path / "plain.png"
    Image.new("RGB", (200, 300), "olive").save(file)
    found = planted_index.explain(file)
    assert "unlabelled" in found.words
    assert found.patches[0].patch_id is None
    assert found.classes[0] == found.predicted
    assert found._repr_png_()


def test_confused_images(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    # All are labelled cat; 1, 3 and 4 are taken for dogs, 3 with the largest logit.
    means = np.array([[2, 1, 0], [0, 1, 0], [0, 0, 1], [0, 5, 0], [0, 1, 0]], np.float32)
    table = means[:, None] + np.random.default_rng(0).permuted(np.tile([-1, -0.5, 0, 0, 0.5, 1], (3, 1)), axis=1).T
    with table_index(tmp_path / "i", table.astype(np.float32)) as index:
        found = index.explain_confused("cat", "dog", k=2)
        assert [each.image.image_id for each in found] == [3, 1]
        assert all([record.name for record in each.classes] == ["cat", "dog"] for each in found)
        assert [each.margin for each in found] == [pytest.approx(5), pytest.approx(1)]
        assert [each.image.image_id for each in index.explain_confused("cat", "dog", k=2, offset=1)] == [1, 4]
        assert index.explain_confused("cat", "dog", offset=3).to_dicts() == []
        for options in ({"offset": -1}, {"k": 0}):
            with pytest.raises(QueryError, match="starts at"):
                index.explain_confused("cat", "dog", **options)
        with pytest.raises(QueryError, match="nothing to draw"):
            index.explain_confused("cat", "dog", offset=3).render()
        with pytest.raises(QueryError, match="is not confused"):
            index.explain_confused("cat", "cat")
        for offset in (0, 1):
            with pytest.raises(
                QueryError, match=r"no image labelled 'dog' is predicted 'cat'.* what is taken for what"
            ):
                index.explain_confused("dog", "cat", offset=offset)
    file = tmp_path / "confused.svg"
    asked = ["explain", "--confused", "cat", "dog", "-i", tmp_path / "i"]
    assert run(*asked, "-k", 2, "-o", file).status == 0
    assert file.read_bytes().count(b">predicted dog<") == 2
    assert [each["image_id"] for each in json.loads(run(*asked, "--format", "json").out)] == [3, 1, 4]
    assert run(*asked).out.count("leads by") == 3
    assert run(*asked, "--offset", 2).out.count("leads by") == 1
    beyond = run(*asked, "--offset", 3, "--format", "json")
    assert (beyond.out, "no more images" in beyond.err) == ("[]\n", True)


def test_patches_that_are_shown(planted_index: Index) -> None:
    apart = planted_index.explain(1, patches=4)
    assert len(apart.deciding) == 4
    together = planted_index.explain(1, patches=4, overlap=True)
    assert together.deciding[0] == apart.deciding[0]
    for bad in (0, 26):
        with pytest.raises(QueryError, match="1 to 25"):
            planted_index.explain(1, patches=bad)


def test_command_and_files(planted_index: Index, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    found = planted_index.explain(4)
    printed = run("explain", 4, "-i", planted_index.path)
    assert found.words in printed.out
    assert "share" in printed.out
    rows = run("explain", 4, "--format", "csv", "-i", planted_index.path).out.splitlines()
    assert len(rows) == 1 + len(found.patches)
    for ending in ("png", "svg", "pdf", "json", "csv"):
        assert run("explain", 4, "-i", planted_index.path, "-o", tmp_path / f"e.{ending}").status == 0
    assert (tmp_path / "e.csv").read_text().splitlines() == rows
    read = json.loads((tmp_path / "e.json").read_text())[0]
    assert read["words"] == found.words
    assert np.array(read["values"], np.float32).shape == found.values.shape
    assert Image.open(io.BytesIO((tmp_path / "e.png").read_bytes())).width == 2061
    for wrong in (
        ("explain",),
        ("explain", 4, "--confused", "a", "b"),
        ("explain", "--vs", "a,b", "--confused", "a", "b"),
    ):
        assert run(*wrong, "-i", planted_index.path).status == 2


@pytest.mark.parametrize("size", [(40, 40), (48, 200), (200, 48)])
@pytest.mark.parametrize("pictured", [True, False])
def test_figures_of_any_shape(planted_index: Index, size: tuple[int, int], pictured: bool) -> None:
    rng = np.random.default_rng(0)
    found = planted_index.explain(0)
    grid = make_grid(33, 8, *size)
    long = tuple(
        record.model_copy(update={"name": name})
        for record, name in zip(found.classes, ("a long name, " * 9, "Größe 中文 $5_{x}$"), strict=True)
    )
    pixels = rng.integers(0, 256, (*size, 3), np.uint8) if pictured else None
    values = rng.normal(size=(2, grid.rows, grid.cols)).astype(np.float32)
    shown = tuple(replace(patch, row=0, col=0, box=patch_box(grid, 0, 0)) for patch in found.deciding)
    found = replace(found, classes=long, grid=grid, values=values, pixels=pixels, shape=size, deciding=shown)
    found = replace(found, speaking=(shown, shown), beneath="edges" if pictured else "none")
    with style():
        figure = found.figure()
        figure.set_dpi(150)
        renderer = FigureCanvasAgg(figure).get_renderer()
        width, height = figure.get_size_inches() * figure.dpi
        boxes = [text.get_window_extent(renderer) for text in figure.texts if text.get_text()]
        assert all(-1 <= box.x0 <= box.x1 <= width + 1 and -1 <= box.y0 <= box.y1 <= height + 1 for box in boxes)
        crossing = [
            (a, b)
            for i, a in enumerate(boxes)
            for b in boxes[:i]
            if min(a.x1, b.x1) - max(a.x0, b.x0) > 2 and min(a.y1, b.y1) - max(a.y0, b.y0) > 0.3 * a.height
        ]
        assert not crossing


def test_a_picture_as_wide_as_asked(planted_index: Index, tmp_path: Path) -> None:
    found = planted_index.explain(0)
    assert found.picture().width > found.picture(700).width <= 700
    coarse = found.picture(80, coarse=True)
    assert coarse.width <= 80
    with table_index(tmp_path / "i", one_image(*((8, 0, 0),) * 6), pixels=False) as index:
        bare = index.explain(0)
        assert bare.picture(500).width <= 500
        with pytest.raises(QueryError, match="--pixels"):
            bare.picture(80, coarse=True)


def test_show_says_where_it_cannot(planted_index: Index, run) -> None:  # type: ignore[no-untyped-def]
    plain = run("explain", "0", "-i", planted_index.path)
    shown = run("explain", "0", "--show", "-i", planted_index.path)
    assert shown.out == plain.out
    assert "no pictures with --show: the output is no terminal" in shown.err
