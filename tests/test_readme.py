"""README's examples are run."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from bagindex import Index
from bagindex.demo import DemoReport

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


QUERIES = [query.strip() for block in blocks("sql") for query in block.split(";") if query.strip()]


@pytest.fixture(scope="module")
def folder(demo_report: DemoReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the demo's folder, whose index has visual words."""
    folder = tmp_path_factory.mktemp("readme") / "bagindex-demo"
    shutil.copytree(demo_report.pictures.parent, folder)
    with Index.open(folder / "index") as index:
        index.make_words(64)
    return folder


@pytest.mark.parametrize("query", QUERIES)
def test_sql(folder: Path, query: str) -> None:
    assert len(Index.open(folder / "index").sql(query)) > 0


def test_there_is_sql() -> None:
    assert len(QUERIES) == 15


def test_accounts_in_sql_are_those_of_python(folder: Path) -> None:
    with Index.open(folder / "index") as index:
        accuracy, decided, needed = (index.sql(query).to_dicts() for query in QUERIES[-3:])
        assert accuracy == [{"accuracy": index.without(3).overall.accuracy_after}]
        assert [(row["class"], row["word"], row["errors"]) for row in decided] == [
            (each.class_.name, each.word, each.errors) for each in index.shortcuts(k=5).shortcuts
        ]
        found = index.flip(57)
        assert (found.before.name, found.after and found.after.name) == ("fish", "tree")
        assert needed == [{"patches": len(found)}]


def test_python(folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bagindex-demo").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python")
    exec(block, {})
    assert (tmp_path / "fish.png").stat().st_size > 1000
