"""Images whose evidence speaks against their label: by hand, and wrong labels that were planted."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from bagindex import Index
from bagindex.errors import QueryError
from bagindex_schemas.records import Keep
from wordy import worded_index

PATCHES = 6
LABELS = ("cat", "dog", "cat", None, "dog", "cat")


def table() -> np.ndarray:
    """Evidence of six images for cat, dog and fish: the first and the last are right, the fourth has no label."""
    found = np.zeros((6, PATCHES, 3), np.float32)
    found[0, :, 0] = 2
    found[1, :, 0] = 1  # a dog, rather a cat: by 1
    found[2, :5, 2], found[2, 5, 0] = -1, -3  # a cat, rather a dog (of equal logits none is the larger): by 0.5
    found[3, :, 0] = 5
    found[4, 0, 2], found[4, 1, 1] = 18, 3  # a dog, rather a fish: by 2.5, by one patch of six
    found[5, :, 0] = 1
    return found


def test_by_hand(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", table(), LABELS) as index:
        found = index.label_errors()
        only = index.label_errors("cat")
        first = index.label_errors(k=1)
    assert [(each.image_id, each.labelled.name, each.suggested.name) for each in found.errors] == [
        (4, "dog", "fish"),
        (1, "dog", "cat"),
        (2, "cat", "dog"),
    ]
    assert [each.margin for each in found.errors] == [2.5, 1, 0.5]
    assert [each.share for each in found.errors] == [1 / 6, 1, 1 / 6]
    patches = [(each.patch_for, each.patch_against) for each in found.errors]
    assert patches == [(4 * PATCHES, 4 * PATCHES + 1), (PATCHES, PATCHES), (2 * PATCHES, 2 * PATCHES)]
    error = found[1]
    assert error.probability == pytest.approx(np.e / (np.e + 2))
    assert error.label_probability == pytest.approx(1 / (np.e + 2))
    assert (found.candidates, found.labelled) == (3, 5)
    assert [each.image_id for each in only.errors] == [2]
    assert [each.image_id for each in first.errors] == [4]
    assert (first.candidates, first.labelled) == (3, 5)


def test_confident_is_as_probable_as_usual(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", table(), LABELS) as index:
        found = index.label_errors()
        rows = index.sql("SELECT label, logits FROM predictions WHERE label IS NOT NULL").to_dicts()
    own: dict[int, list[float]] = {0: [], 1: []}
    for row in rows:
        likely = np.exp(row["logits"]) / np.exp(row["logits"]).sum()
        own[row["label"]].append(likely[row["label"]])
    for each in found.errors:
        usual = own.get(each.suggested.class_id)
        assert each.confident == (usual is not None and each.probability >= np.mean(usual))
    assert found.confident == sum(each.confident for each in found.errors)
    assert {each.confident for each in found.errors} == {True, False}


def test_an_index_of_summaries_has_no_shares(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", table(), LABELS, keep=Keep.SUMMARY) as index:
        found = index.label_errors()
    assert (found[0].image_id, found[0].share, found[0].patch_for) == (4, None, 24)


def test_without_labels_none_is_wrong(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", table(), [None] * 6) as index:
        with pytest.raises(QueryError, match="no image of this index has a label"):
            index.label_errors()
        with pytest.raises(QueryError, match="-k starts at 1"):
            index.label_errors(k=0)


def test_labels_that_are_right(tmp_path: Path) -> None:
    with worded_index(tmp_path / "i", table()[[0, 5]], ["cat", "cat"]) as index:
        found = index.label_errors()
        assert (len(found), found.candidates) == (0, 0)
        assert "takes no such image for another class" in str(found)
        with pytest.raises(QueryError, match="there is nothing to draw"):
            found.figure()


@pytest.fixture(scope="module")
def spoiled(planted_index: Index, tmp_path_factory: pytest.TempPathFactory) -> tuple[Index, dict[str, str]]:
    """The planted pictures with six labels made wrong, each into the next class; the right ones of these."""
    folder = tmp_path_factory.mktemp("spoiled")
    shutil.copytree(planted_index.path, folder / "index")
    names = [record.name for record in planted_index.classes]
    right = planted_index.sql("SELECT path, label_name FROM predictions WHERE correct ORDER BY image_id").to_dicts()
    chosen = {row["path"]: row["label_name"] for row in right[2::7][:6]}
    rows = [f"{path},{names[(names.index(name) + 1) % len(names)]}\n" for path, name in chosen.items()]
    (folder / "wrong.csv").write_text("path,label\n" + "".join(rows))
    index = Index.open(folder / "index")
    index.relabel(folder / "wrong.csv")
    return Index.open(folder / "index"), chosen


def test_wrong_labels_that_were_planted_are_found(spoiled: tuple[Index, dict[str, str]]) -> None:
    index, chosen = spoiled
    found = index.label_errors(k=len(chosen))
    hits = [each for each in found.errors if each.path in chosen]
    assert len(hits) >= 5
    assert all(each.suggested.name == chosen[each.path] for each in hits)


def test_what_is_exported_relabels(spoiled: tuple[Index, dict[str, str]], tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    index, chosen = spoiled
    for ending in ("csv", "parquet", "png"):
        file = tmp_path / f"errors.{ending}"
        result = run("label-errors", "-i", index.path, "-k", len(chosen), "-o", file)
        assert (result.status, result.err) == (0, f"bagindex: wrote {file}\n")
    rows = list(csv.DictReader((tmp_path / "errors.csv").read_text().splitlines()))
    for ending in ("csv", "parquet"):
        shutil.copytree(index.path, tmp_path / ending)
        result = run("relabel", "-i", tmp_path / ending, "--labels", tmp_path / f"errors.{ending}")
        assert result.out.startswith(f"{len(chosen)} images have the labels of")
        with Index.open(tmp_path / ending) as other:
            labels = {
                row["path"]: row["label_name"] for row in other.sql("SELECT path, label_name FROM images").to_dicts()
            }
        assert {row["path"]: row["label"] for row in rows}.items() <= labels.items()


def test_the_command(spoiled: tuple[Index, dict[str, str]], run) -> None:  # type: ignore[no-untyped-def]
    index, _ = spoiled
    printed = run("label-errors", "-i", index.path, "--all")
    assert "look before you relabel" in printed.out
    found = index.label_errors(k=None)
    assert len(found) == found.candidates
    assert len(run("label-errors", "-i", index.path, "--all", "--format", "csv").out.splitlines()) == 1 + len(found)
    assert run("label-errors", "nothing", "-i", index.path).status == 1
    assert "give -k or --all, not both" in run("label-errors", "-i", index.path, "--all", "-k", 3).err
