"""What is different between two models, by hand and against all evidence at once."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import spearmanr

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.diff import evidence
from bagindex.diff.evidence import Agreement
from bagindex.diff.vocabularies import contingency
from bagindex.errors import IndexNotFoundError, QueryError
from bagindex.sources import Entry
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Keep
from fakes import LinearCompute, MemorySource
from wordy import write_words

PATCHES = 6
CLASSES = ("cat", "dog", "fish")
OTHERS = ("fish", "cat", "bird", "dog")


class Numbered(MemorySource):
    """Pictures by their numbers: a path, and what is in the picture."""

    def __init__(self, pictures: Sequence[tuple[str, int]], labels: Sequence[str | None]) -> None:
        super().__init__(labels, side=24)
        self.pictures = pictures

    @property
    def entries(self) -> Sequence[Entry]:
        """In the order of their paths, as a listing is."""
        rows = zip(self.pictures, self.labels, strict=True)
        return [Entry(path.encode(), number, label) for (path, number), label in rows]


def indexed(
    folder: Path,
    pictures: Sequence[tuple[str, int]],
    labels: Sequence[str | None],
    tables: dict[str, np.ndarray],
    classes: Sequence[str] = CLASSES,
    **settings: object,
) -> Index:
    """An index of pictures with a table of evidence [numbers, patches, classes] for each model."""
    build(
        IndexDirectory(folder),
        Numbered(pictures, labels),
        {name: i for i, name in enumerate(classes)},
        [
            LinearCompute(classes, side=(24, 16), table=table.astype(np.float32), name=name)
            for name, table in tables.items()
        ],
        BuildSettings(shard_size=2, workers=1, **settings),  # type: ignore[arg-type]
    )
    return Index.open(folder)


def table(seed: int, classes: int = 3) -> np.ndarray:
    """Evidence of ten pictures, as float16 holds it."""
    return np.random.default_rng(seed).normal(0, 3, (10, PATCHES, classes)).astype(np.float16)


LABELS = ("cat", "dog", "fish", None, "cat")
FIRST = (("a.png", 0), ("b.png", 1), ("c.png", 2), ("d.png", 3), ("e.png", 4))
# c.png has another content now, the content of a.png is called z.png, and e.png is new in another place.
SECOND = (("b.png", 1), ("c.png", 7), ("d.png", 3), ("f.png", 9), ("z.png", 0))
PAIRS = ((0, 4), (1, 0), (2, 1), (3, 2))
"""Ids of the images that are the same."""


@pytest.fixture
def two(tmp_path: Path) -> tuple[Index, Index]:
    """An index, and one of other pictures, classes and evidence."""
    first = indexed(tmp_path / "first", FIRST, LABELS, {"linear": table(1)})
    labels = ("dog", "fish", None, "cat", "dog")
    second = indexed(tmp_path / "second", SECOND, labels, {"linear": table(2, 4)}, OTHERS)
    return first, second


def both(two: tuple[Index, Index], name: str) -> tuple[np.ndarray, np.ndarray]:
    """A class's evidence in the matched images, float64 [4, P] of each."""
    found = []
    for side, index in enumerate(two):
        rows = index.sql(f"SELECT image_id, logit FROM evidence WHERE class = '{name}' ORDER BY patch_id").to_dicts()
        values = np.array([row["logit"] for row in rows], np.float64).reshape(5, PATCHES)
        found.append(values[[pair[side] for pair in PAIRS]])
    return found[0], found[1]


def test_images_and_classes_that_both_have(two: tuple[Index, Index]) -> None:
    found = two[0].diff(two[1])
    assert (found.images, found.by_path, found.only_a, found.only_b) == (4, 1, 1, 1)
    assert (found.classes, found.classes_a, found.classes_b) == (3, (), ("bird",))
    assert found.relabelled == 1  # z.png is a dog, and was a cat as a.png
    assert found.evidence["class"].to_pylist() == ["cat", "dog", "fish"]
    assert "1 images have another content and the same path" in found.words
    assert "has the classes 'bird'" in found.words
    names = {row["setting"] for row in found.settings.to_pylist()}
    assert {"classes", "source's fingerprint"} <= names
    assert not names & {"resize, crop", "precision", "keep"}
    # The other one may be opened, or said.
    assert two[0].diff(two[1].path).evidence.equals(found.evidence)
    with pytest.raises(IndexNotFoundError):
        two[0].diff("nowhere")


def test_evidence_is_compared_patch_by_patch(two: tuple[Index, Index], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "BLOCK", 3)
    found = two[0].diff(two[1], k=2)
    for row in found.evidence.to_pylist():
        a, b = both(two, row["class"])
        assert row["correlation"] == pytest.approx(np.corrcoef(a.ravel(), b.ravel())[0, 1])
        assert row["relative_l2"] == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a))
        assert row["mean_change"] == pytest.approx((b - a).mean())
        place, cell = np.unravel_index(np.abs(b - a).argmax(), a.shape)
        assert row["largest_change"] == (b - a)[place, cell]
        assert (row["image_id_a"], row["cell"]) == (PAIRS[place][0], cell)
        assert row["rank_correlation"] == pytest.approx(spearmanr(a.max(axis=1), b.max(axis=1)).statistic)
        strongest = [{(i, int(each[i].argmax())) for i in np.argsort(-each.max(axis=1))[:2]} for each in (a, b)]
        assert (row["top"], row["shared"]) == (2, len(strongest[0] & strongest[1]))
    every = [np.concatenate([both(two, name)[side].ravel() for name in CLASSES]) for side in (0, 1)]
    assert found.whole["evidence, correlation"] == pytest.approx(np.corrcoef(*every)[0, 1])
    assert found.patches == ""


def test_accuracy_and_images_that_flip(two: tuple[Index, Index]) -> None:
    found = two[0].diff(two[1])
    rows = [{row["image_id"]: row for row in index.sql("SELECT * FROM predictions").to_dicts()} for index in two]
    pairs = [(rows[0][a], rows[1][b]) for a, b in PAIRS]
    labelled = [(a, b) for a, b in pairs if a["label"] is not None and b["label"] is not None]
    assert found.top1 is not None
    assert (found.top1.images, len(labelled)) == (3, 3)
    assert found.top1.right_a == sum(a["correct"] for a, _ in labelled)
    assert found.top1.right_b == sum(b["correct"] for _, b in labelled)
    assert found.top1.won == sum(b["correct"] and not a["correct"] for a, b in labelled)
    flips = {row["image_id_a"]: row for row in found.flips.to_pylist()}
    changed = {a["image_id"]: (a, b) for a, b in pairs if a["predicted_name"] != b["predicted_name"]}
    assert flips.keys() == changed.keys() != set()
    for image_id, (a, b) in changed.items():
        row = flips[image_id]
        assert (row["predicted_a"], row["predicted_b"]) == (a["predicted_name"], b["predicted_name"])
        assert (row["label_a"], row["image_id_b"]) == (a["label_name"], b["image_id"])
        kinds = {(True, False): "right to wrong", (False, True): "wrong to right"}
        assert row["kind"] == kinds.get((bool(a["correct"]), bool(b["correct"])), "otherwise")
    order = [row["kind"] for row in found.flips.to_pylist()]
    assert order == sorted(order, key=("right to wrong", "wrong to right", "otherwise").index)


def test_what_keeps_no_evidence_is_compared_by_images(tmp_path: Path) -> None:
    first = indexed(tmp_path / "a", FIRST, LABELS, {"linear": table(1)})
    second = indexed(tmp_path / "b", FIRST, LABELS, {"linear": table(2)}, keep=Keep.SUMMARY)
    found = first.diff(second)
    assert found.patches == "b:linear keeps no evidence of its patches"
    a, b = (
        np.array(
            [
                row["mean_logit"]
                for row in index.sql(
                    "SELECT mean_logit FROM image_evidence WHERE class = 'dog' ORDER BY image_id"
                ).to_dicts()
            ]
        )
        for index in (first, second)
    )
    row = found.evidence.to_pylist()[1]
    assert row["correlation"] == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert (row["image_id_a"], row["cell"]) == (int(np.abs(a - b).argmax()), None)
    assert "Evidence is compared by images' mean logits, for b:linear keeps no evidence" in found.words


def test_two_models_of_one_index(tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    index = indexed(tmp_path / "i", FIRST, LABELS, {"linear": table(1), "other": table(2)})
    found = index.diff(model="linear", other_model="other")
    assert (found.a, found.b, found.images, found.only_a) == ("i:linear", "i:other", 5, 0)
    with pytest.raises(QueryError, match="i:linear would be compared with itself"):
        index.diff(model="linear", other_model="linear")
    printed = run("diff", f"{index.path}:linear", f"{index.path}:other")
    assert printed.status == 0
    assert "i:linear (a) and i:other (b), on 5 images" in printed.out
    assert f"of {len(found)} images that flip" in printed.out
    assert run("diff", f"{index.path}:linear", f"{index.path}:nope").err == (
        "bagindex: this index has no model 'nope': it has linear, other\n"
    )
    assert "there is no index nowhere" in run("diff", f"{index.path}:linear", "nowhere:linear").err


def test_a_comparison_as_files(two: tuple[Index, Index], tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    a, b = (index.path for index in two)
    found = two[0].diff(two[1])
    for name in ("d.html", "d.png", "d.json", "d.csv", "d.parquet"):
        result = run("diff", a, b, "-o", tmp_path / name)
        assert (result.status, result.err) == (0, f"bagindex: wrote {tmp_path / name}\n")
    record = json.loads((tmp_path / "d.json").read_text())
    assert record["flips"] == found.to_dicts()
    assert record["summary"] == json.loads(json.dumps(found.table_rows()))
    assert json.loads(run("diff", a, b, "--format", "json").out) == record
    assert run("diff", a, b, "--format", "csv").out == (tmp_path / "d.csv").read_text()
    assert len(list(csv.DictReader((tmp_path / "d.csv").read_text().splitlines()))) == len(found)
    page = (tmp_path / "d.html").read_text()
    assert "<script" not in page
    assert page.count("<img ") == 3 * len(found)
    assert f"<h1>{found.title}</h1>" in page


def test_the_same_again_differs_in_nothing(tmp_path: Path) -> None:
    first, second = (indexed(tmp_path / name, FIRST, LABELS, {"linear": table(1)}) for name in "ab")
    found = first.diff(second)
    assert (len(found), len(found.settings), found.whole["evidence, largest change"]) == (0, 0, 0)
    assert found.whole["evidence, correlation"] == pytest.approx(1)
    assert set(found.evidence["overlap"].to_pylist()) == {1.0}
    with pytest.raises(QueryError, match="no image is predicted otherwise by b:linear"):
        found.figure()


def test_words_of_the_same_features(tmp_path: Path) -> None:
    first, second = (indexed(tmp_path / name, FIRST, LABELS, {"linear": table(1)}) for name in "ab")
    assert "Visual words are not compared: a:linear has none of all its images" in first.diff(second).words
    words = np.arange(5 * PATCHES).reshape(5, PATCHES) % 3
    other = np.where(words == 2, 0, words + 1)  # called otherwise
    other[0, 0] = 0 if other[0, 0] else 1
    write_words(first, 3, words)
    write_words(second, 3, other)
    with Index.open(tmp_path / "a") as one, Index.open(tmp_path / "b") as two:
        found = one.diff(two)
    assert found.words_compared.same == pytest.approx(29 / 30)
    assert "Visual words, 3 and 3: 96.7 % of the patches are the same word" in found.words


def test_words_of_other_features_are_not_compared(tmp_path: Path) -> None:
    first, second = (indexed(tmp_path / name, FIRST, LABELS, {"linear": table(i)}) for i, name in enumerate("ab"))
    for index in (first, second):
        write_words(index, 2, np.arange(5 * PATCHES).reshape(5, PATCHES) % 2)
    with Index.open(tmp_path / "a") as one, Index.open(tmp_path / "b") as two:
        assert "not compared: they are made of other features" in one.diff(two).words


def test_nothing_in_common(tmp_path: Path) -> None:
    first = indexed(tmp_path / "a", FIRST[:2], LABELS[:2], {"linear": table(1)})
    second = indexed(tmp_path / "b", (("x.png", 5),), ("cat",), {"linear": table(1)})
    with pytest.raises(QueryError, match="a:linear and b:linear have no image in common"):
        first.diff(second)


def test_copies_are_matched_one_by_one(tmp_path: Path) -> None:
    """Of three files with one content, two have their like in the other index."""
    pictures = (("a.png", 0), ("b.png", 0), ("c.png", 0))
    first = indexed(tmp_path / "a", pictures, ("cat",) * 3, {"linear": table(1)})
    second = indexed(tmp_path / "b", pictures[:2], ("cat",) * 2, {"linear": table(1)})
    found = first.diff(second)
    assert (found.images, found.only_a, found.only_b) == (2, 1, 0)


def test_agreement_of_numbers_in_parts() -> None:
    generator = np.random.default_rng(3)
    a = generator.normal(2, 1, 1000)
    b = a + generator.normal(0, 0.5, 1000)
    parts, other = Agreement(), Agreement()
    for start in range(0, 600, 70):
        parts.add(a[start : min(start + 70, 600)], b[start : min(start + 70, 600)])
    other.add(a[600:], b[600:])
    parts.merge(other)
    assert parts.correlation == pytest.approx(np.corrcoef(a, b)[0, 1])
    assert parts.relative == pytest.approx(np.linalg.norm(b - a) / np.linalg.norm(a))
    assert parts.place == np.abs(b - a).argmax()
    assert parts.largest == (b - a)[parts.place]
    constant = Agreement()
    constant.add(np.full(5, 0.1), a[:5])
    assert constant.correlation is None


def test_words_beside_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bagindex.diff.vocabularies._BLOCK", 2)
    a, b = (np.random.default_rng(seed).integers(0, 3, (5, 4)).astype(np.int32) for seed in (0, 1))
    table = contingency(a, b, 3, 4)
    assert table.shape == (3, 4)
    assert all(table[i, j] == ((a == i) & (b == j)).sum() for i in range(3) for j in range(4))
