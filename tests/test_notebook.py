"""A notebook, run as Jupyter runs it: what results and indexes look like there."""

from __future__ import annotations

import asyncio
import base64
import io
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from bagindex import Index, output
from bagindex.build import BuildSettings, build
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource

HOSTILE = ("<script>alert(1)</script>", 'a "quoted" & </td>', "日本語")
CELLS = {
    "index": "index = Index.open(planted)\nindex",
    "patches": "index.top_patches('fish', wrong_class=True, k=3)",
    "rows": "index.sql('SELECT label_name, avg(probability) AS p, list(image_id) AS ids FROM predictions GROUP BY 1')",
    "nothing": "index.top_patches('fish', where='false')",
    "no rows": "index.sql('SELECT path FROM images WHERE false')",
    "hostile index": "other = Index.open(hostile)\nother",
    "without pixels": "other.top_patches('2', any_class=True, k=2)",
    "hostile rows": "other.sql('SELECT name, 1 AS \"<b>\" FROM classes')",
}


class _Table(HTMLParser):
    """The elements of some HTML, and its text as it is shown."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.cell = False
        self.elements: list[str] = []
        self.cells: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append(tag)
        self.cell = tag in ("td", "th")
        if self.cell:
            self.cells.append("")

    def handle_data(self, data: str) -> None:
        if self.cell:
            self.cells[-1] += data

    def handle_endtag(self, tag: str) -> None:
        self.cell = False


@pytest.fixture(scope="module")
def hostile_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index without pixels, whose classes' names would do harm."""
    folder = tmp_path_factory.mktemp("<i>hostile") / "index"
    labels = [HOSTILE[i % 3] for i in range(6)]
    ids = {name: i for i, name in enumerate(HOSTILE)}
    build(IndexDirectory(folder), MemorySource(labels), ids, LinearCompute(HOSTILE), BuildSettings(pixels=False))
    return folder


@pytest.fixture(scope="module")
def shown(
    planted_index: Index, hostile_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, dict[str, Any]]]:
    """What each cell of the notebook shows, by MIME type."""
    with warnings.catch_warnings():
        # Of the libraries that run notebooks.
        warnings.simplefilter("ignore")
        import nbformat
        from nbclient import NotebookClient

        first = (
            f"import sys; sys.path[:0] = {sys.path!r}\n"
            "from bagindex import Index\n"
            f"planted, hostile = {os.fspath(planted_index.path)!r}, {os.fspath(hostile_path)!r}"
        )
        notebook = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(code) for code in (first, *CELLS.values())]
        )
        folder = tmp_path_factory.mktemp("notebook")
        environment = {"IPYTHONDIR": str(folder / "ipython"), "JUPYTER_RUNTIME_DIR": str(folder / "runtime")}
        with pytest.MonkeyPatch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            client = NotebookClient(notebook, timeout=120, kernel_name="python3")
            asyncio.run(client.async_execute())
        found = {}
        for name, cell in zip(CELLS, notebook.cells[1:], strict=True):
            assert [output.output_type for output in cell.outputs] == ["execute_result"], cell.outputs
            found[name] = dict(cell.outputs[0].data)
        yield found


def test_patches_are_pictures(shown: dict[str, dict[str, Any]]) -> None:
    data = shown["patches"]
    # A notebook that is given a table too shows that instead.
    assert set(data) == {"image/png", "text/plain"}
    with Image.open(io.BytesIO(base64.b64decode(data["image/png"]))) as picture:
        assert picture.width > 500
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 100


def test_rows_are_a_table(shown: dict[str, dict[str, Any]]) -> None:
    table = _Table(shown["rows"]["text/html"])
    assert table.cells[:3] == ["label_name", "p", "ids"]
    assert len(table.cells) == 3 * 7
    assert "fish" in table.cells
    assert all(re.fullmatch(r"\d(\.\d{1,6})?|\d\.\d+e-\d\d", cell) for cell in table.cells[4::3])


def test_where_there_is_nothing_it_says_so(shown: dict[str, dict[str, Any]]) -> None:
    assert set(shown["nothing"]) == {"text/html", "text/plain"}
    assert "fish: most evidence" in shown["nothing"]["text/html"]
    assert "no patch answers this" in shown["nothing"]["text/html"]
    assert "no rows" in shown["no rows"]["text/html"]


def test_an_index_says_what_it_holds(shown: dict[str, dict[str, Any]]) -> None:
    text = shown["index"]["text/html"]
    for said in (
        "48 images of",
        "6 classes",
        "with pixels",
        "complete",
        "bagnet33",
        "16 × 16",
        "features",
        "fp32",
        "MB",
    ):
        assert said in text, said
    assert "without pixels" in shown["hostile index"]["text/html"]


def test_without_pixels_patches_are_a_table(shown: dict[str, dict[str, Any]]) -> None:
    data = shown["without pixels"]
    assert set(data) == {"text/html", "text/plain"}
    assert _Table(data["text/html"]).cells[:2] == ["rank", "logit"]
    assert "build it anew with --pixels --restart" in data["text/html"]


def test_an_index_that_is_gone_says_so(hostile_path: Path, tmp_path: Path) -> None:
    shutil.copytree(hostile_path, tmp_path / "index")
    index = Index.open(tmp_path / "index")
    found = index.top_patches("2", any_class=True)
    shutil.rmtree(tmp_path / "index")
    assert "index" in index._repr_html_()
    assert found._repr_png_() is None
    assert "no pictures" in str(found._repr_html_())


def test_names_are_text(shown: dict[str, dict[str, Any]]) -> None:
    for name in ("hostile rows", "without pixels", "hostile index"):
        table = _Table(shown[name]["text/html"])
        assert set(table.elements) <= {"table", "thead", "tbody", "tr", "th", "td", "p", "b"}, name
    assert _Table(shown["hostile rows"]["text/html"]).cells[:8:2] == ["name", *HOSTILE]


def test_cells_of_every_kind_are_readable() -> None:
    row = {"long": "x" * 5000 + "<", "float": 1 / 3, "list": [0.5] * 2048, "none": None, "bytes": b"\xff", "\x1b": True}
    table = _Table(output.to_html(list(row), [row], "t<i>tle", "note"))
    assert set(table.elements) == {"p", "b", "table", "thead", "tbody", "tr", "th", "td"}
    long, number, many, none, raw, flag = table.cells[6:12]
    assert len(long) < 400
    assert (number, none, raw, flag) == ("0.333333", "", "ff", "True")
    assert "2,048 values" in many
    assert table.cells[5] == "\\x1b"
    assert output.to_html([], []) == ""
