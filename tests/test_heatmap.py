"""Heatmaps: their numbers, their colours, their files."""

from __future__ import annotations

import csv
import io
import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from bagindex import Index
from bagindex.errors import OutputError, SettingsError, UnknownClassError
from bagindex.figures import maps
from bagindex.figures.heatmap import Overlay, Panel, heatmap_figure
from bagindex.figures.style import style, to_bytes
from test_maps import table_index


def test_by_default_what_is_predicted_and_the_label(planted_index: Index) -> None:
    for row in planted_index.sql("SELECT image_id, label_name, predicted_name, probability FROM predictions"):
        found = planted_index.heatmap(row["image_id"])
        names = [record.name for record in found.classes]
        assert names == list(dict.fromkeys([row["predicted_name"], row["label_name"]]))
        assert found.probabilities[0] == pytest.approx(row["probability"], rel=1e-5)
        np.testing.assert_allclose(found.values.mean(axis=(1, 2)), found.logits, atol=2e-3, rtol=2e-3)


def test_dense_holds_the_grid_and_its_boxes(planted_index: Index) -> None:
    grid = planted_index.heatmap(5, classes=["fish", "tree"])
    heard: list[tuple[int, int]] = []
    dense = planted_index.heatmap(5, classes=["fish", "tree"], dense=True, progress=lambda *steps: heard.append(steps))
    assert dense.values.shape == (2, *dense.shape)
    assert heard[-1][0] == heard[-1][1]
    rows, cols = grid.values.shape[1:]
    places = slice(16, 16 + 8 * rows, 8), slice(16, 16 + 8 * cols, 8)
    np.testing.assert_allclose(dense.values[:, *places], grid.values, rtol=2e-3, atol=2e-3)
    np.testing.assert_array_equal(dense.boxes()[places], grid.boxes())
    assert grid.boxes()[1, 2].tolist() == [16, 8, 49, 41]
    assert Image.open(io.BytesIO(dense.render(dpi=40))).size[0] > 100


def test_colours_end_at_the_99th_percentile() -> None:
    values = np.concatenate([np.linspace(-1, 1, 201), [50]]).astype(np.float32).reshape(1, 1, -1)
    both = np.concatenate([values, 3 * values])
    one, other = maps.colour_limits(both)
    assert one == pytest.approx(np.percentile(np.abs(values), 99))
    assert other == pytest.approx(3 * one)
    shared = maps.colour_limits(both, shared=True)
    assert shared[0] == shared[1] == pytest.approx(np.percentile(np.abs(both), 99))
    assert maps.colour_limits(np.zeros((2, 3, 3), np.float32)).tolist() == [1, 1]
    lonely = np.zeros((1, 40, 40), np.float32)
    lonely[0, 3, 3] = -2
    assert maps.colour_limits(lonely).tolist() == [2]


def test_overlay_is_symmetric_and_lies_on_the_patches_middles() -> None:
    values = np.array([[1.0, -1.0, 0.0]], np.float32)
    picture = maps.overlay(values, 1.0, (41, 57), (12.5, 12.5), 8)
    assert picture.shape == (82, 114, 3)
    red, blue, zero = (picture[25 + 8, 25 + 16 * i + 8].astype(int) for i in range(3))
    assert red[0] > red[2] + 60
    assert blue[2] > blue[0] + 60
    assert zero.min() > 240
    assert (picture[:25] == 255).all()
    assert (picture[41:] == 255).all()
    assert (picture[25:41, :25] == 255).all()
    assert (picture[25:41, 25:41] == red).all()
    paler = maps.overlay(values, 1.0, (41, 57), (12.5, 12.5), 8, alpha=0.5)[33, 33].astype(int)
    assert (paler > red).all()
    assert (maps.overlay(values, 1.0, (41, 57), (12.5, 12.5), 8, alpha=0.0) == 255).all()


def test_what_is_beneath_shows() -> None:
    pixels = np.zeros((32, 32, 3), np.uint8)
    pixels[:, 16:] = 255
    values = np.zeros((4, 4), np.float32)
    image = maps.overlay(values, 1.0, (32, 32), (0, 0), 8, pixels, "image")
    assert image[32, 8].max() < 140
    assert image[32, 56].min() > 240
    edges = maps.overlay(values, 1.0, (32, 32), (0, 0), 8, pixels, "edges")
    assert edges[32, 32].max() < 160
    assert edges[32, [4, 60]].min() > 240
    flat = maps.overlay(values, 1.0, (32, 32), (0, 0), 8, np.full((32, 32, 3), 7, np.uint8), "edges")
    assert flat.min() > 240


@pytest.mark.parametrize("limit", [0.0013, 0.99, 1.0, 1.2, 4.015, 5.0, 7.3, 9.99, 10, 65504])
def test_ticks_are_round_and_have_room(limit: float) -> None:
    tick = maps.round_below(limit)
    assert 0.4 * limit < tick <= 0.85 * limit
    assert len(f"{tick:e}".split("e")[0].rstrip("0").rstrip(".")) == 1


@pytest.mark.parametrize("shape", [(64, 64), (48, 200), (200, 48)])
@pytest.mark.parametrize("count", [1, 4, 11])
@pytest.mark.parametrize("shared", [True, False])
def test_figures_of_any_shape_without_a_warning(shape: tuple[int, int], count: int, shared: bool) -> None:
    rng = np.random.default_rng(0)
    names = [
        "t-shirt",
        "a name that is far too long for the panel that it stands above",
        "Größe 中文 ไทย 🧦",
        "$5_{x}$",
    ]
    rows, cols = (shape[0] - 33) // 8 + 1, (shape[1] - 33) // 8 + 1
    panels = [
        Panel(names[i % 4], "+0.10 · 3.4 %", rng.normal(size=(rows, cols)).astype(np.float32), 2.0)
        for i in range(count)
    ]
    pixels = rng.integers(0, 256, (*shape, 3), np.uint8)
    with warnings.catch_warnings(), style():
        overlay = Overlay(shape, (12.5, 12.5), 8, pixels, "edges", 1.0)
        figure = heatmap_figure(panels, overlay, "header " * 60, ("labelled " + names[1], "predicted"), shared)
        assert to_bytes(figure, "png", 50)
        figure.set_dpi(150)
        renderer = FigureCanvasAgg(figure).get_renderer()
        width, height = figure.get_size_inches() * figure.dpi
        for text in [*figure.texts, *(tick for axes in figure.axes for tick in axes.get_xticklabels())]:
            box = text.get_window_extent(renderer)
            if text.get_text():
                assert -1 <= box.x0 <= box.x1 <= width + 1, text
                assert -1 <= box.y0 <= box.y1 <= height + 1, text


def test_files_hold_the_numbers(planted_index: Index, tmp_path: Path) -> None:
    found = planted_index.heatmap(2, classes=["fish", "tree"])
    for ending in ("png", "svg", "pdf", "npz", "json", "csv"):
        found.save(tmp_path / f"h.{ending}")
    with np.load(tmp_path / "h.npz") as arrays:
        np.testing.assert_array_equal(arrays["values"], found.values)
        np.testing.assert_array_equal(arrays["pixels"], found.pixels)
        assert arrays["classes"].tolist() == ["fish", "tree"]
        assert arrays["boxes"].shape == (*found.values.shape[1:], 4)
    read = json.loads((tmp_path / "h.json").read_text())
    np.testing.assert_array_equal(np.array([row["values"] for row in read], np.float32), found.values)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "h.csv").read_text())))
    assert len(rows) == found.values.size
    cells = planted_index.sql(
        "SELECT logit::FLOAT AS logit FROM evidence WHERE image_id = 2 AND class = 'tree' ORDER BY patch_id"
    )
    assert [float(row["logit"]) for row in rows if row["class"] == "tree"] == [row["logit"] for row in cells]
    assert (tmp_path / "h.pdf").read_bytes().startswith(b"%PDF")
    assert b"fish" in (tmp_path / "h.svg").read_bytes()
    assert found._repr_png_().startswith(b"\x89PNG")
    assert "fish" in str(found)
    with pytest.raises(OutputError, match=r"\.npz"):
        found.save(tmp_path / "h.txt")


def test_an_index_without_pixels_has_heatmaps_all_the_same(planted_folder: Path, tmp_path: Path) -> None:
    index = Index.build(
        planted_folder / "pictures",
        weights=planted_folder / "bagnet33.safetensors",
        out=tmp_path / "index",
        keep="evidence",
        pixels=False,
        limit=3,
    )
    image = index.sql("SELECT min(image_id) AS first FROM images").to_dicts()[0]["first"]
    found = index.heatmap(image)
    assert (found.pixels, found.beneath) == (None, "none")
    assert Image.open(io.BytesIO(found._repr_png_())).size[1] > 100
    with pytest.raises(SettingsError, match="no pixels to show"):
        index.heatmap(image, beneath="image")
    with pytest.raises(BaseException, match="a dense heatmap must be computed"):
        index.heatmap(image, dense=True)


def test_options_that_are_none(tmp_path: Path) -> None:
    with table_index(tmp_path / "i", np.zeros((1, 6, 3), np.float32)) as index:
        for options in ({"alpha": 1.5}, {"alpha": float("nan")}, {"beneath": "water"}):
            with pytest.raises(SettingsError):
                index.heatmap(0, **options)  # type: ignore[arg-type]
        with pytest.raises(UnknownClassError, match="did you mean 'fish'"):
            index.heatmap(0, classes="fsh")
        assert [record.name for record in index.heatmap(0, classes=["dog", "1", "DOG"]).classes] == ["dog"]
        assert index.heatmap(0)._repr_png_()


def test_more_classes_than_a_picture_shows(planted_index: Index, tmp_path: Path) -> None:
    from dataclasses import replace

    found = planted_index.heatmap(0, classes=range(6))
    many = replace(found, classes=found.classes * 11)
    with pytest.raises(OutputError, match="up to 60 classes"):
        many.save(tmp_path / "h.png")


def test_command(planted_index: Index, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    file = tmp_path / "heatmap.png"
    options = ["--class", "fish", "--class", "tree", "--shared-scale", "--beneath", "image", "--alpha", "0.8"]
    done = run("heatmap", 4, *options, "-i", planted_index.path, "-o", file)
    assert done.status == 0, done.err
    assert f"wrote {file}" in done.err
    assert Image.open(io.BytesIO(file.read_bytes())).width > 500
    table = run("heatmap", 4, "-i", planted_index.path).out
    assert "probability" in table
    printed = run("heatmap", 4, "--class", "fish", "--format", "json", "-i", planted_index.path)
    assert np.shape(json.loads(printed.out)[0]["values"]) == planted_index.heatmap(4).values.shape[1:]
    cells = run("heatmap", 4, "--class", "fish", "--format", "csv", "-i", planted_index.path).out
    assert len(cells.splitlines()) == 1 + planted_index.heatmap(4).values[0].size
    wrong = run("heatmap", "nowhere.png", "-i", planted_index.path)
    assert (wrong.status, wrong.out) == (1, "")
    assert "no image of this index" in wrong.err
