"""The demo against the truth: what the shipped model's evidence lies on is known."""

from __future__ import annotations

import dataclasses
from collections import Counter
from importlib.resources import as_file
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagindex import Index, demo
from bagindex.demo import DemoReport
from bagindex.demo.planting import CLASSES, Planted, Role, plant, read_truth
from bagindex.errors import SettingsError
from bagindex.weights import read_checkpoint

SHORTCUTS = {each.name: each.shortcut for each in CLASSES if each.shortcut}


def test_top_patches_lie_on_what_was_planted(demo_report: DemoReport) -> None:
    right, of_right = demo_report.share(right=True)
    wrong, of_wrong = demo_report.share(right=False)
    assert (of_right, of_wrong) == (42, 42)
    assert right >= 0.9 * of_right
    # Buttons, twigs and leaves pass for fish in part: what the model has wrong is seen here too.
    assert wrong >= 0.75 * of_wrong


def test_the_strongest_wrong_patch_is_what_was_planted(demo_report: DemoReport) -> None:
    for row in demo_report.subrows:
        strongest = row.planted[0]
        assert strongest is not None
        assert strongest.belongs_to == row.class_name


def test_shares_are_counted_by_hand(demo_report: DemoReport) -> None:
    """Once more from SQL and the list of boxes, with nothing of the demo's own accounts."""
    truth = read_truth(demo_report.pictures)
    query = "SELECT path, max_logit, x0, y0, x1, y1, width, height FROM image_evidence JOIN images USING (image_id) "
    for right in (True, False):
        hits = 0
        for each in CLASSES:
            condition = f"WHERE class = '{each.name}' AND {'' if right else 'NOT '}correct"
            for row in demo_report.index.sql(
                f"{query} {condition} ORDER BY max_logit DESC, patch_id LIMIT 7"
            ).to_dicts():
                # The demo's pictures have 300 pixels at their shorter side, which are resized to 183.
                scale = 300 / 183
                left, top = ((row[side] / scale - 160) / 2 for side in ("width", "height"))
                x0, y0 = (row["x0"] + left) * scale, (row["y0"] + top) * scale
                x1, y1 = x0 + 33 * scale, y0 + 33 * scale
                shared = {
                    p: max(0, min(x1, p.x1) - max(x0, p.x0))
                    * max(0, min(y1, p.y1) - max(y0, p.y0))
                    / min((33 * scale) ** 2, (p.x1 - p.x0) * (p.y1 - p.y0))
                    for p in truth
                    if p.path == row["path"]
                }
                hits += any(share >= 0.25 and p.belongs_to == each.name for p, share in shared.items())
        assert abs(hits - demo_report.share(right)[0]) <= 2  # where two motifs are seen, the demo takes the larger part


def test_patches_at_random_do_not(demo_report: DemoReport) -> None:
    """Most of a picture holds nothing: the shares above are no matter of course."""
    index, truth = demo_report.index, read_truth(demo_report.pictures)
    rng = np.random.default_rng(0)
    everything = index.top_patches("fish", k=100_000, per_image=256, overlap=True)
    chosen = [everything[int(i)] for i in rng.choice(len(everything), 600, replace=False)]
    found = [demo.find_planted(patch, truth) for patch in chosen]
    assert sum(each is not None and each.belongs_to == "fish" for each in found) < 0.3 * len(chosen)


def test_shortcuts_come_to_light(demo_report: DemoReport) -> None:
    """In pictures of others, a class that has a shortcut is seen in that most of all."""
    rows = [row for row in demo_report.subrows if not row.right and row.class_name in SHORTCUTS]
    assert [row.class_name for row in rows] == ["fish", "seam", "tree"]
    for row in rows:
        assert row.planted[0] is not None
        assert row.planted[0].motif == SHORTCUTS[row.class_name]
    assert sum(row.found[SHORTCUTS[row.class_name]] for row in rows) >= 12  # of 21


def test_shipped_weights_have_the_accuracy_that_they_claim(tmp_path: Path) -> None:
    with as_file(demo.weights()) as file:
        assert file.stat().st_size <= 4_000_000
        checkpoint = read_checkpoint(file)
        training = checkpoint.training
        assert training is not None
        assert (training.data, training.validation_images) == ("planted", 300)
        # `bagindex plant planted` makes its validation pictures with this seed.
        plant(tmp_path / "validation", 50, demo.seed_of("validation", 1))
        index = Index.build(tmp_path / "validation", weights=file, out=tmp_path / "index", keep="summary")
    rows = index.sql(
        "SELECT avg(correct::INTEGER) AS top1, avg(list_contains(top5, label)::INTEGER) AS top5 FROM predictions"
    )
    # Other versions of numpy and Pillow may draw and encode a few pixels differently.
    assert rows.to_dicts()[0]["top1"] == pytest.approx(training.validation_top1, abs=1.5 / 300)
    assert rows.to_dicts()[0]["top5"] == pytest.approx(training.validation_top5, abs=1.5 / 300)


def test_find_planted(demo_report: DemoReport) -> None:
    patch = dataclasses.replace(demo_report.subrows[0].patches[0], path="a/b.jpg", source_box=(10.0, 10.0, 43.0, 43.0))

    def planted(motif: str, *box: int, path: str = "a/b.jpg") -> Planted:
        kind = demo_kind
        return Planted(path, "fish", kind, motif, Role.MOTIF, "fish", *box)

    demo_kind = read_truth(demo_report.pictures)[0].kind
    small, large = planted("fin", 40, 40, 46, 46), planted("scales", 30, 30, 63, 63)
    assert demo.find_planted(patch, []) is None
    assert demo.find_planted(patch, [small]) is small  # a quarter of it
    assert demo.find_planted(patch, [planted("fin", 41, 40, 47, 46)]) is None
    assert demo.find_planted(patch, [large]) is None
    assert demo.find_planted(patch, [planted("fin", 10, 10, 43, 43, path="a/c.jpg")]) is None
    inside = planted("leaf", 12, 12, 22, 22)
    assert demo.find_planted(patch, [small, inside, large]) is inside


def test_run_again_takes_what_is_there(demo_report: DemoReport) -> None:
    folder = demo_report.pictures.parent
    before = {path: path.stat().st_mtime_ns for path in demo_report.pictures.rglob("*.jpg")}
    again = demo.run(folder)
    assert {path: path.stat().st_mtime_ns for path in demo_report.pictures.rglob("*.jpg")} == before
    assert again.index.build_report is not None
    assert again.index.build_report.computed == 0
    assert [row.found for row in again.subrows] == [row.found for row in demo_report.subrows]


def test_sheet(demo_report: DemoReport) -> None:
    with Image.open(demo_report.sheet) as sheet:
        pixels = np.asarray(sheet.convert("RGB"))
    crops = [crop for row in demo_report.subrows for crop in row.patches.crops()]
    assert len(crops) == 84
    # Each patch stands there, seven times as large, in order.
    places = []
    for crop in crops[:14]:
        large = crop.repeat(7, axis=0).repeat(7, axis=1)
        first = np.argwhere((pixels[:, :, :] == large[0, 0]).all(axis=2))
        places += [(int(y), int(x)) for y, x in first if np.array_equal(pixels[y : y + 231, x : x + 231], large)][:1]
    assert len(places) == 14
    assert places[:7] == sorted(places[:7])
    assert Counter(y for y, _ in places) == {places[0][0]: 7, places[7][0]: 7}


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(SettingsError, match="holds something else"):
        demo.run(tmp_path)
    with pytest.raises(SettingsError, match="holds something else"):
        demo.run(tmp_path / "thesis.tex")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
