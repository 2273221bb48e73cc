"""The tour, a notebook, run as Jupyter runs it."""

from __future__ import annotations

import asyncio
import sys
import warnings
from pathlib import Path

import pytest

from bagindex import Index

TOUR = Path(__file__).with_name("tour.ipynb")


@pytest.fixture(scope="module")
def cells(planted_words: Index, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, object]]:
    """What each of its cells of code shows, by the cell's first line and MIME type."""
    folder = tmp_path_factory.mktemp("tour")
    (folder / "bagindex-demo").mkdir()
    (folder / "bagindex-demo" / "index").symlink_to(planted_words.path)
    with pytest.MonkeyPatch.context() as patch, warnings.catch_warnings():
        # Of the libraries that run notebooks.
        warnings.simplefilter("ignore")
        import nbformat
        from nbclient import NotebookClient

        patch.setenv("IPYTHONDIR", str(folder / "ipython"))
        patch.setenv("JUPYTER_RUNTIME_DIR", str(folder / "runtime"))
        patch.setenv("PYTHONPATH", ":".join(sys.path))
        notebook = nbformat.read(TOUR, as_version=4)
        client = NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        )
        asyncio.run(client.async_execute())
    assert (folder / "fish.parquet").stat().st_size > 1000
    return {
        cell.source.splitlines()[-1]: {kind: data for output in cell.outputs for kind, data in output.data.items()}
        for cell in notebook.cells
        if cell.cell_type == "code"
    }


def test_it_shows_pictures_and_tables(cells: dict[str, dict[str, object]]) -> None:
    for line in (
        'index.top_patches("fish")',
        'index.top_patches("fish", wrong_class=True)',
        'index.heatmap(0, classes=["fish"])',
        "index.explain(0)",
        "index.similar(strongest.patch_id, other_images=True)",
        'index.words("fish", k=5)',
        '""").to_pandas().plot(x="row", y="strongest")',
    ):
        assert "image/png" in cells[line], line
    assert "6 classes" in str(cells["index"]["text/html"])
    assert "accuracy" in str(cells['""")']["text/html"])
    assert "strongest" in str(next(shown for line, shown in cells.items() if line.startswith("relation"))["text/plain"])


def test_it_is_kept_without_what_it_showed() -> None:
    import json

    notebook = json.loads(TOUR.read_text())
    assert all(not cell.get("outputs") for cell in notebook["cells"])
    assert "/home" not in TOUR.read_text()
