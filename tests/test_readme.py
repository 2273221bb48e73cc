"""README's examples are run."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bagindex import Index

README = (Path(__file__).resolve().parent.parent / "README.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


QUERIES = [query.strip() for block in blocks("sql") for query in block.split(";") if query.strip()]


@pytest.mark.parametrize("query", QUERIES)
def test_sql(example_index: Index, query: str) -> None:
    result = example_index.sql(query)
    # The example's model makes no mistake, so that the last question has no answer.
    assert len(result) > 0 or "predicted_name" in query


def test_there_is_sql() -> None:
    assert len(QUERIES) == 5


def test_python(example_index: Index, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "example").mkdir()
    (tmp_path / "example" / "index").symlink_to(example_index.path)
    monkeypatch.chdir(tmp_path)
    (block,) = blocks("python")
    exec(block, {})
    assert (tmp_path / "ring.png").stat().st_size > 1000
