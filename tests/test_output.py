"""Tables, JSON, CSV and pictures of every kind of value."""

from __future__ import annotations

import csv
import datetime
import decimal
import io
import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagindex import Index, output, render
from bagindex.errors import OutputError

ROWS = [
    {
        "text": 'a "quoted", text\nof two lines',
        "float": float("nan"),
        "decimal": decimal.Decimal("12345678901234567890"),
        "date": datetime.date(2019, 5, 6),
        "bytes": b"\xff\x00",
        "list": [1.5, None],
        "none": None,
        "flag": True,
    }
]
COLUMNS = list(ROWS[0])


def test_json_is_json() -> None:
    assert json.loads(output.to_json(ROWS)) == [
        {
            "text": 'a "quoted", text\nof two lines',
            "float": None,
            "decimal": 12345678901234567890,
            "date": "2019-05-06",
            "bytes": "ff00",
            "list": [1.5, None],
            "none": None,
            "flag": True,
        }
    ]
    assert json.loads(output.to_json([])) == []


def test_csv_is_read_back() -> None:
    (row,) = csv.DictReader(io.StringIO(output.to_csv(COLUMNS, ROWS)))
    assert row["text"] == ROWS[0]["text"]
    assert json.loads(row["list"]) == [1.5, None]
    assert (row["none"], row["float"], row["flag"]) == ("", "", "True")


def test_table_is_whole_and_harmless() -> None:
    long = "x" * 500
    text = output.table_text(["a", "b"], [{"a": long, "b": "\x1b[31mred"}, {"a": "[bold]", "b": 0.1 + 0.2}])
    assert long in text
    assert "\x1b" not in text
    assert "\\x1b[31mred" in text
    assert "[bold]" in text
    assert "0.3" in text


def test_emoji_codes_and_markup_are_text() -> None:
    assert ":smile: a:x:b [red]" in output.table_text([":x:"], [{":x:": ":smile: a:x:b [red]"}])


def test_long_values_are_cut_in_tables_only() -> None:
    rows = [{"list": list(range(2048)), "bytes": bytes(5000)}]
    text = output.table_text(["list", "bytes"], rows)
    assert "[0, 1, 2, 3, … (2,048 values)]" in text
    assert "(5,000 bytes)" in text
    assert len(json.loads(output.to_json(rows))[0]["list"]) == 2048


class Terminal(io.StringIO):
    """A terminal of 60 columns."""

    def isatty(self) -> bool:
        return True


def test_a_table_too_wide_for_the_terminal_has_a_line_for_each_cell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    narrow, wide = Terminal(), Terminal()
    output.print_table(["a", "b"], [{"a": 1.25, "b": "x"}], narrow, "title")
    assert "1.25" in narrow.getvalue()
    assert "── 1 ──" not in narrow.getvalue()
    rows = [{"a": -0.666999, "b": "x" * 70, "c": [1] * 30}, {"a": 2, "b": "y", "c": []}]
    output.print_table(["a", "b", "c"], rows, wide, "title")
    assert wide.getvalue().splitlines() == [
        "title",
        "── 1 ──",
        "a  -0.666999",
        "b  " + "x" * 70,
        "c  " + str([1] * 30),
        "── 2 ──",
        "a  2",
        "b  y",
        "c  []",
    ]


def test_a_table_is_made_to_fit_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer digits, then with long words cut in the middle; titles are not wrapped at the table's width."""
    monkeypatch.setenv("COLUMNS", "60")
    monkeypatch.setenv("TERM", "xterm")
    digits, cut = Terminal(), Terminal()
    numbers = dict.fromkeys("abcdefg", 1.23456789)
    output.print_table(list(numbers), [numbers], digits, "a title that is longer than the table")
    assert "1.235   1.235" in digits.getvalue()
    assert "a title that is longer than the table\n" in digits.getvalue()
    output.print_table(["n", "path"], [{"n": 5, "path": "folder/" + "x" * 70 + "/17.jpg"}], cut)
    (line,) = [line for line in cut.getvalue().splitlines() if "folder" in line]
    assert len(line) <= 60
    assert line.startswith(" 5   folder/x")
    assert line.endswith("x/17.jpg")
    assert "…" in line


def test_save_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("before")

    def fail(target: Path) -> None:
        target.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match="No space left"):
        output.save(path, {".json": fail})
    assert path.read_text() == "before"
    assert os.listdir(tmp_path) == ["a.json"]
    with pytest.raises(OutputError, match=r"one of \.json"):
        output.save(tmp_path / "a.jpeg", {".json": fail})


@pytest.mark.parametrize("count", [0, 1, 7, 25])
def test_patch_sheet(count: int) -> None:
    rng = np.random.default_rng(count)
    crops = [rng.integers(0, 256, (33, 33, 3), dtype=np.uint8) for _ in range(count)]
    labels = ["a very long label that does not fit", "", None, "日本語"]
    captions = [render.Caption(str(i + 1), "1.50", labels[i % 4], "other", 1234) for i in range(count)]
    sheet = render.patch_sheet(crops, captions, "title")
    pixels = np.asarray(sheet)
    assert pixels.shape[2] == 3
    for crop in crops:
        # Every pixel of every patch stands in the sheet, enlarged and unchanged.
        block = crop.repeat(5, axis=0).repeat(5, axis=1)
        places = np.argwhere((pixels[: -block.shape[0], : -block.shape[1]] == block[0, 0]).all(axis=2))
        assert any(
            np.array_equal(pixels[y : y + block.shape[0], x : x + block.shape[1]], block) for y, x in places.tolist()
        )


def test_picture_of_nothing_says_so() -> None:
    with Image.open(io.BytesIO(render.to_png(render.patch_sheet([], [], "nothing")))) as picture:
        assert picture.width > 50
        assert len(set(picture.convert("L").get_flattened_data())) > 2


def test_notebook_shows_pictures(planted_index: Index) -> None:
    data = planted_index.top_patches("tree")._repr_png_()
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.format == "PNG"
    rows = planted_index.sql("SELECT '<b>' AS x FROM range(101)")
    text = rows._repr_html_()
    assert "&lt;b&gt;" in text
    assert "100 of 101 rows" in text


def test_crops_are_the_inputs_pixels(planted_index: Index, planted_folder: Path) -> None:
    from bagindex.images import read_picture

    transform = planted_index.info().transform
    result = planted_index.top_patches("fish", any_class=True, k=20)
    for patch, crop in zip(result, result.crops(), strict=True):
        picture = read_picture((planted_folder / "pictures" / patch.path).read_bytes(), transform)
        x0, y0, x1, y1 = patch.box
        np.testing.assert_array_equal(crop, picture.pixels[y0:y1, x0:x1])
