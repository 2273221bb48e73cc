"""What the tab key offers, by the shells' own protocol."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource

COMPLETING = """
import sys, bagindex_cli
sys.argv = ["bagindex"]
try:
    bagindex_cli.main()
finally:
    print([name for name in ("torch", "duckdb", "pyarrow") if name in sys.modules], file=sys.stderr)
"""


@pytest.fixture
def photos(home_folder: Path) -> Path:
    """An index by the name of photos, of classes whose names have spaces."""
    names = ["t-shirt", "great white shark", "tie"]
    settings = BuildSettings(shard_size=2, workers=1, pixels=False)
    source = MemorySource([names[0], names[1]])
    build(IndexDirectory(home_folder / "photos"), source, dict(zip(names, range(3), strict=True)), _compute(), settings)
    return home_folder / "photos"


def _compute() -> LinearCompute:
    return LinearCompute(["t-shirt", "great white shark", "tie"])


def offered(line: str, shell: str = "fish", **environment: str) -> list[str]:
    """What is offered at the end of a line; that nothing else is printed, and nothing large is imported, is seen to."""
    words = line.split(" ")
    settings = {
        "_BAGINDEX_COMPLETE": f"complete_{shell}",
        "_TYPER_COMPLETE_ARGS": line,
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "COMP_WORDS": line,
        "COMP_CWORD": str(len(words) - 1),
    }
    done = subprocess.run(
        [sys.executable, "-c", COMPLETING], env=os.environ | settings | environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    return [each.split("\t")[0] for each in done.stdout.splitlines() if each]


def test_names_of_classes_indexes_and_models(photos: Path, tmp_path: Path) -> None:
    assert offered("bagindex top-patches t") == ["t-shirt", "tie"]
    assert offered("bagindex figure3 tie ") == ["t-shirt", "great white shark", "tie"]
    assert offered("bagindex top-patches tie --predicted-as g") == ["great white shark"]
    assert offered("bagindex top-patches g", "bash") == [r"great\ white\ shark"]
    assert offered("bagindex info -i ") == ["photos"]
    assert offered("bagindex info -i x") == []
    assert offered("bagindex why 3 --model ") == ["linear"]
    # The index that is meant is the one that the line, or else the environment, names.
    settings = BuildSettings(shard_size=2, workers=1, pixels=False)
    build(IndexDirectory(tmp_path / "other"), MemorySource(["c"]), {"c": 0}, LinearCompute(["c"]), settings)
    assert offered(f"bagindex top-patches -i {tmp_path / 'other'} ") == ["c"]
    assert offered("bagindex top-patches ", BAGINDEX_INDEX=str(tmp_path / "other")) == ["c"]


def test_names_that_need_no_index() -> None:
    assert offered("bagindex reproduce a") == ["accuracy", "architecture", "all"]
    assert offered("bagindex build photos --model bagnet1") == ["bagnet17", "bagnet17v2"]
    assert offered("bagindex weights fetch bagnet3") == ["bagnet33"]
    assert "top-patches" in offered("bagindex ")


def test_where_there_is_no_index_nothing_is_offered_and_nothing_said(photos: Path) -> None:
    assert offered("bagindex top-patches -i /nowhere ") == []
    assert offered("bagindex top-patches -i s3://bucket/index ") == []
    (photos / "index.json").write_text("{")
    assert offered("bagindex top-patches ") == []
    shutil.rmtree(photos)
    assert offered("bagindex top-patches ") == []
    assert offered("bagindex info -i ") == []


def test_names_are_listed_without_reading_anything(photos: Path) -> None:
    (photos / "index.json").write_text("{")
    assert Index.names() == ["photos"]
