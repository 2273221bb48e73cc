"""What is said of the tables is so, and the examples can be run by strangers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagindex import Index, catalog
from bagindex.build import BuildSettings, build
from bagindex.sandbox.pool import Limits, SqlPool
from bagindex.sql_names import MACROS, VIEWS
from bagindex.store import IndexDirectory
from bagindex_schemas.about import RELATIONS
from fakes import LinearCompute, MemorySource
from wordy import worded_index

HOSTILE = ("it's {a}", 'a "quoted", class', "日本語\nFROM {image}")
HELPERS = {"class_number", "model_name", "image_number"}
"""Macros that give a value."""


def test_every_column_is_described(planted_words: Index) -> None:
    found = planted_words.tables()["tables"]
    names = [each["name"] for each in found]
    assert set(names) == set(RELATIONS) == {"classes", "models", "images", "rejects", *VIEWS, *MACROS} - HELPERS
    for each in found:
        kind = "macro" if each["name"] in MACROS else "view" if each["name"] in VIEWS else "table"
        assert each["kind"] == kind
        assert ("call" in each) == (kind == "macro")
        rows = planted_words.sql(f"DESCRIBE FROM {each.get('call', each['name'])}").to_dicts()
        assert [(c["name"], c["type"]) for c in each["columns"]] == [
            (row["column_name"], row["column_type"]) for row in rows
        ]
        assert list(RELATIONS[each["name"]].columns) == [row["column_name"] for row in rows], each["name"]
        for text in (each["about"], *(column["about"] for column in each["columns"])):
            assert text[0].isupper()
            assert text.endswith(".")


def run_all(index: Index, needed: int) -> dict[str, Any]:
    """Run all examples as a stranger's; their rows by their titles."""
    examples = index.tables()["examples"]
    assert len(examples) >= needed
    found = {}
    with SqlPool(index.path, workers=1, limits=Limits(seconds=60)) as pool:
        for each in examples:
            assert each["about"].endswith(".")
            answer = pool.run(each["sql"])
            assert not answer.truncated
            columns = answer.table.column_names
            assert not {"image", "patch", "id"} & set(columns)
            for name in {"patch_id", "image_id"} & set(columns):
                for value in answer.table[name].to_pylist():
                    (index.place_of if name == "patch_id" else index.pixels)(value)
            found[each["title"]] = answer.table.to_pylist()
    return found


def test_examples_of_an_index_with_everything(demo_words: Index) -> None:
    found = run_all(demo_words, 11)
    assert len(found) <= 12
    assert all(found.values())
    accuracy = {row["name"]: (row["images"], row["correct"]) for row in demo_words.browse_classes().rows}
    assert {row["label_name"]: (row["images"], row["correct"]) for row in found["Accuracy by class"]} == accuracy
    first = demo_words.confusion_matrix().table_rows()
    confused = found["The most frequent confusions"][0]
    assert confused["images"] == max(row["images"] for row in first if row["label"] != row["predicted"])
    strongest = found["The strongest patches of a class in images of others"]
    expected = demo_words.top_patches(confused["predicted_name"], wrong_class=True, k=24)
    assert [row["patch_id"] for row in strongest] == [patch.patch_id for patch in expected]
    words = demo_words.words(confused["label_name"], k=20)
    assert [row["word"] for row in found["The words of a class"]] == [word.word for word in words]


def test_examples_of_an_index_of_summaries(planted_folder: Path, tmp_path: Path) -> None:
    with Index.build(
        planted_folder / "pictures",
        weights=planted_folder / "bagnet33.safetensors",
        out=tmp_path / "i",
        keep="summary",
    ) as index:
        assert {each["name"] for each in index.tables()["tables"]} == {
            *("classes", "models", "images", "rejects", "predictions", "image_evidence", "pixels", "confusions"),
        }
        assert "Accuracy by class" in run_all(index, 7)


@pytest.mark.parametrize("labels", [[HOSTILE[0], HOSTILE[1], None], [None] * 3])
def test_examples_about_classes_with_hostile_names(tmp_path: Path, labels: list[str | None]) -> None:
    table = np.random.default_rng(3).normal(size=(3, 6, 3))
    words = np.arange(18).reshape(3, 6) % 2
    worded_index(tmp_path / "i", table, labels, words, classes=HOSTILE).close()
    catalog.update(IndexDirectory(tmp_path / "i"))  # which has no words yet
    with Index.open(tmp_path / "i") as index:
        found = run_all(index, 6)
        assert ("Accuracy by class" in found) == any(labels)
        assert found["One decision, word by word"]


def test_examples_about_one_class_and_one_image(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", np.zeros((1, 6, 1)), ["cat"], classes=["cat"]) as index:
        assert "Patches that speak for two classes at once" not in run_all(index, 6)
        assert {each["name"] for each in index.tables()["tables"]} >= {"margin", "evidence_of"}


def test_examples_of_several_models(tmp_path: Path) -> None:
    small = Index.open(_two_models(tmp_path / "i"))
    assert len(small.models) == 2
    with SqlPool(small.path, workers=1, limits=Limits(seconds=60)) as pool:
        for each in small.tables()["examples"]:
            table = pool.run(each["sql"]).table
            assert "model = " in each["sql"]
            if {"patch_id", "image_id"} & set(table.column_names):
                assert set(table["model"].to_pylist()) <= {small.model_records()[0].name}


def _two_models(folder: Path) -> Path:
    table = np.random.default_rng(3).normal(size=(4, 6, 3)).astype(np.float32)
    names = {name: i for i, name in enumerate(("cat", "dog", "fish"))}
    computes = [LinearCompute(list(names), side=(24, 16), table=table, name=name) for name in ("one", "two")]
    source = MemorySource(["cat", "dog", "cat", None], side=24)
    build(IndexDirectory(folder), source, names, computes, BuildSettings(workers=1))
    return folder
