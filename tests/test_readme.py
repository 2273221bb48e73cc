"""README's examples are run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bagindex.demo import DemoReport

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


QUERIES = [query.strip() for block in blocks("sql") for query in block.split(";") if query.strip()]


@pytest.mark.parametrize("query", QUERIES)
def test_sql(demo_report: DemoReport, query: str) -> None:
    assert len(demo_report.index.sql(query)) > 0


def test_there_is_sql() -> None:
    assert len(QUERIES) == 5


def test_python(demo_report: DemoReport, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bagindex-demo").symlink_to(demo_report.pictures.parent)
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python")
    exec(block, {})
    assert (tmp_path / "fish.png").stat().st_size > 1000
