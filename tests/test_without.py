"""Without: accuracy when words' patches are taken away, by hand and against the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bagindex import Index
from bagindex.accounts.without import without
from bagindex.errors import QueryError
from wordy import recomputed, worded_index

# Two patches of word 0, two of word 1, two of word 2.
WORDS = np.array([[0, 0, 1, 1, 2, 2]] * 5)
WORDS[4] = 1
TABLE = np.zeros((5, 6, 3))
TABLE[0, :2, 0], TABLE[0, 2:4, 1] = 5, 4  # cat by word 0; dog without it
TABLE[1, :2, 0], TABLE[1, 2:4, 1] = 4, 5  # dog by word 1; cat without it
TABLE[2, 2:4, 1], TABLE[2, 4:, 2] = 5, 4  # dog by word 1; fish without it
TABLE[3, 4:, 2] = 3  # fish, whatever word 1 is
TABLE[4, :, 0] = 1  # cat, of word 1 alone
LABELS = ["cat", "cat", "cat", None, "cat"]


@pytest.fixture
def index(tmp_path: Path) -> Index:
    return worded_index(tmp_path / "i", TABLE, LABELS, WORDS)


def test_by_hand(index: Index) -> None:
    found = index.without(1)
    assert (found.images, found.labelled, found.touched, found.patches) == (5, 4, 5, 14)
    assert (found.overall.before, found.overall.after, found.overall.images) == (2, 2, 4)
    assert (found.overall.made_right, found.overall.made_wrong, found.overall.wrong_otherwise) == (1, 1, 1)
    assert (found.emptied, found.differing) == (1, 0)
    assert [(c.image_id, c.label, c.before, c.after, c.removed) for c in found.changed] == [
        (1, "cat", "dog", "cat", 2),
        (2, "cat", "dog", "fish", 2),
        (4, "cat", "cat", None, 6),
    ]
    assert found.changed[0].path == "0001.png"
    assert "accuracy is 50.0 % instead of 50.0 %" in found.words
    assert "which have no prediction and count as wrong: 1." in found.words
    cat, dog, _ = found.classes
    assert (cat.accuracy_before, dog.accuracy_before) == (0.5, None)
    assert [row["class"] for row in found.table_rows()] == ["cat", "all"]
    every = index.without([0, 1, 2])
    assert every.emptied == 5
    assert every.overall.after == 0
    assert index.without([2, 2]) == index.without(2)
    index.close()


def test_in_parts_it_is_the_same(index: Index) -> None:
    record = index._model(None)
    evidence, words = index._stored_evidence(record), index._words_of(record)
    assert without(index._catalog, evidence, words, [1], room=1) == index.without(1)
    index.close()


def test_the_model_without_the_patches(planted_words: Index) -> None:
    every = recomputed(planted_words)
    of_patches = planted_words._words_of(planted_words._model(None)).of_patches
    rows = planted_words.sql("SELECT image_id, label FROM predictions ORDER BY 1").to_dicts()
    labels = np.array([row["label"] for row in rows])
    changes = 0
    for chosen in ([0], [3, 17], [20, 21, 22, 23, 24, 25], range(12, 40)):
        gone = np.isin(of_patches, chosen)
        assert not gone.all(axis=1).any()
        before = every.sum(axis=1)
        kept = np.where(gone[..., None], 0.0, every).sum(axis=1)
        for sums in (before, kept):
            top = np.sort(sums, axis=1)
            assert (top[:, -1] - top[:, -2]).min() > 1e-2  # no tie hangs on the last bit
        found = planted_words.without(list(chosen))
        assert found.overall.before == (before.argmax(axis=1) == labels).sum()
        assert found.overall.after == (kept.argmax(axis=1) == labels).sum()
        changed = np.flatnonzero(before.argmax(axis=1) != kept.argmax(axis=1))
        assert [each.image_id for each in found.changed] == changed.tolist()
        changes += len(changed)
        for each in found.changed:
            assert each.after == planted_words.classes[kept[each.image_id].argmax()].name
        assert sum(row.images for row in found.classes) == found.overall.images == 48
        assert sum(row.after for row in found.classes) == found.overall.after
    assert changes


def test_a_tie_within_the_rounding_is_said(tmp_path: Path) -> None:
    table = np.tile([2048.0, 2048.9, 0.0], (1, 6, 1))
    with worded_index(tmp_path / "i", table, ["cat"], WORDS[:1]) as index:
        found = index.without(0)
        assert (found.differing, found.overall.before, found.changed) == (1, 1, ())
        assert "Images that tie within the rounding, of which the model predicted the other class: 1." in found.words


def test_no_labels(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", TABLE, [None] * 5, WORDS) as index:
        found = index.without(1)
        assert found.overall.accuracy_before is None
        assert "No image has a label" in found.words
        assert [each.image_id for each in found.changed] == [1, 2, 4]
        assert [row["class"] for row in found.table_rows()] == ["all"]


def test_a_single_class(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", TABLE[..., :1], ["cat"] * 5, WORDS, classes=["cat"]) as index:
        assert index.without(0).overall.after == 5


def test_what_cannot_be_answered(
    index: Index, planted_folder: Path, planted_index: Index, tmp_path: Path, run: Any
) -> None:
    for words in (3, -1):
        with pytest.raises(QueryError, match=f"no word {words}: they go from 0 to 2"):
            index.without(words)
    with pytest.raises(QueryError, match="which words"):
        index.without([])
    with pytest.raises(QueryError, match="makes them"):
        planted_index.without(0)
    weights = planted_folder / "bagnet33.safetensors"
    bare = Index.build(planted_folder / "pictures", weights=weights, out=tmp_path / "b", keep="summary", limit=2)
    for ask in (lambda: bare.without(0), bare.shortcuts, bare.confusions):
        with pytest.raises(QueryError, match="run the same build with --keep evidence"):
            ask()
    assert bare.flip(0).patches is not None
    assert "No words are shown" in bare.why(0).words
    assert run("without", "99", "-i", index.path).status == 1
    index.close()


def test_the_command(index: Index, run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    index.close()
    asked = ["without", "1", "-i", index.path]
    table = run(*asked)
    assert "made_right" in table.out
    assert "Predictions that change: 3." in table.out
    changed = run(*asked, "--changed")
    assert "0002.png" in changed.out
    assert run(*asked, "--changed", "--format", "csv").out.splitlines()[1] == "1,cat,dog,cat,2,0001.png"
    (record,) = json.loads(run(*asked, "--format", "json").out)
    assert [each["image_id"] for each in record["changed"]] == [1, 2, 4]
    for ending in ("json", "csv", "parquet"):
        assert run(*asked, "-o", tmp_path / f"w.{ending}").status == 0
        assert (tmp_path / f"w.{ending}").stat().st_size > 50
    assert run("without", "0", "2", "-i", index.path).status == 0
    assert run(*asked, "-o", tmp_path / "w.png").status == 1
