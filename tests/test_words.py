"""Visual words: how they are made, that they decompose logits exactly; in Python, SQL, pictures, commands."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from bagindex import Index, derived
from bagindex.build import BuildSettings, build
from bagindex.catalog import current
from bagindex.errors import LockedError, OutputError, QueryError, UnknownClassError
from bagindex.evidence import rounding_error
from bagindex.figures import words as figure
from bagindex.geometry import patch_ids
from bagindex.seal import read_record
from bagindex.store import IndexDirectory
from bagindex.words import making
from bagindex.words.making import word_sums
from bagindex.words.results import PICTURED, Part, Word, WordList
from bagindex.words.vocabulary import TYPICAL, Vocabulary, open_vocabulary
from bagindex_schemas import tables
from bagindex_schemas.derived import WordsRecord
from bagindex_schemas.records import Keep
from fakes import LinearCompute, MemorySource
from pages import Page
from test_build import contents
from test_grow import Growing
from wordy import worded_index

COUNT = 24
HOSTILE = ('it\'s "quoted", $and', "日本語 class\nwith a line", "<b>; DROP TABLE images --")


@pytest.fixture(scope="module")
def folder(planted_index: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted pictures' index with visual words. Not to be changed."""
    folder = tmp_path_factory.mktemp("words") / "index"
    shutil.copytree(planted_index.path, folder)
    with Index.open(folder) as index:
        heard: list[tuple[int, int]] = []
        index.make_words(COUNT, progress=lambda done, total: heard.append((done, total)))
        assert len(heard) > 50
        assert heard == sorted(heard)
        assert heard[-1] == (100, 100)
    return folder


@pytest.fixture
def index(folder: Path) -> Index:
    return Index.open(folder)


def small(folder: Path, labels: list[str | None], classes: tuple[str, ...] = HOSTILE, **settings: Any) -> Index:
    """An index of one-coloured pictures of four patches each, with a feature for each class."""
    table = np.random.default_rng(4).normal(0, 3, (len(labels), 4, len(classes))).astype(np.float32)
    ids = {name: i for i, name in enumerate(classes)}
    compute = LinearCompute(classes, table=table)
    build(IndexDirectory(folder), MemorySource(labels), ids, compute, BuildSettings(**{"workers": 1, **settings}))
    return Index.open(folder)


@dataclasses.dataclass(frozen=True)
class Stored:
    """Everything of an index as arrays: features [N, P, D], evidence [C, N, P], labels [N] (-1 for none)."""

    vocabulary: Vocabulary
    features: NDArray[np.float32]
    evidence: NDArray[np.float16]
    labels: NDArray[np.int64]
    image_ids: NDArray[np.int64]
    centroids: NDArray[np.float32]


def stored(index: Index) -> Stored:
    record = index._model(None)
    features, evidence = index._stored_features(record), index._stored_evidence(record)
    found = derived.open_newest(IndexDirectory(index.path), record.name, derived.WORDS, WordsRecord)
    assert found is not None
    words = pq.read_table(found[0] / "words.parquet")
    labels = [row["label"] for row in index.sql("SELECT label FROM images ORDER BY image_id")]
    return Stored(
        open_vocabulary(index._catalog, evidence, len(index.classes)),
        np.stack([features.of_image(place) for place in range(len(features.image_ids))]).astype(np.float32),
        np.stack([evidence.of_class(class_id) for class_id in range(len(index.classes))]),
        np.array([-1 if label is None else label for label in labels]),
        features.image_ids,
        np.array(words["centroid"].to_pylist(), np.float32),
    )


def test_every_patch_is_the_word_whose_direction_is_nearest(index: Index) -> None:
    it = stored(index)
    assert 2 <= it.vocabulary.count <= COUNT
    assert np.allclose(np.linalg.norm(it.centroids, axis=1), 1, atol=1e-5)
    flat = it.features.reshape(-1, it.features.shape[-1]).astype(np.float64)
    cosines = flat @ it.centroids.T.astype(np.float64) / np.linalg.norm(flat, axis=1)[:, None]
    words = it.vocabulary.of_patches.reshape(-1)
    chosen = cosines[np.arange(len(words)), words]
    # float32 may take another of two that are the same to seven digits.
    assert (chosen >= cosines.max(axis=1) - 1e-6).all()
    assert (words == cosines.argmax(axis=1)).mean() > 0.999
    for word in range(it.vocabulary.count):
        members = words == word
        assert members.sum() == it.vocabulary.patches[word]
        assert len(np.unique(np.nonzero(members)[0] // it.vocabulary.of_patches.shape[1])) == it.vocabulary.images[word]
        assert abs(chosen[members].mean() - it.vocabulary.similarity[word]) < 1e-5
    assert (np.diff(it.vocabulary.patches) <= 0).all()


def test_typical_patches_are_the_nearest_each_of_another_image(index: Index) -> None:
    it = stored(index)
    per_image = it.vocabulary.of_patches.shape[1]
    flat = it.features.reshape(-1, it.features.shape[-1])
    unit = flat / np.linalg.norm(flat, axis=1)[:, None]
    words = it.vocabulary.of_patches.reshape(-1)
    place = {int(patch): i for i, patch in enumerate(patch_ids(index._model(None).grid, it.image_ids))}
    for word, typical in enumerate(it.vocabulary.typical):
        members = np.nonzero(words == word)[0]
        cosines = unit[members] @ it.centroids[word]
        images = members // per_image
        best = sorted((float(cosines[images == image].max()) for image in np.unique(images)), reverse=True)[:TYPICAL]
        places = [place[patch] for patch in typical]
        assert len({each // per_image for each in places}) == len(typical) == len(best)
        assert (words[places] == word).all()
        assert np.allclose(unit[places] @ it.centroids[word], best, atol=1e-5)


def test_words_decompose_the_evidence_exactly(index: Index) -> None:
    it = stored(index)
    whole = it.evidence.astype(np.float64)
    flat = it.vocabulary.of_patches.reshape(-1)
    for class_id, record in enumerate(index.classes):
        sums = word_sums(it.evidence[class_id].reshape(-1), flat, it.vocabulary.count)
        assert sums.sum() == whole[class_id].sum()
        assert np.array_equal(it.vocabulary.means[class_id], sums / it.vocabulary.patches)
        found = index.words(record.class_id)
        for logit, side, images in (
            (found.right_logit, "right", it.labels == class_id),
            (found.wrong_logit, "wrong", (it.labels != class_id) & (it.labels >= 0)),
        ):
            parts: list[Part] = [getattr(word, side) for word in found]
            assert logit == whole[class_id][images].sum() / images.sum() / whole.shape[2]
            assert sum(part.contribution for part in parts) == pytest.approx(logit, abs=1e-12)
            assert sum(part.patches for part in parts) == images.sum() * whole.shape[2]
            for part in parts:
                assert part.contribution == pytest.approx(part.share * (part.mean or 0), abs=1e-12)
            rows = index.sql("SELECT image_id, logits FROM predictions ORDER BY image_id").to_dicts()
            logits = np.array([row["logits"][class_id] for row in rows])[images]
            bound = rounding_error(it.evidence[class_id][images]).mean() + 1e-6 * np.abs(logits).max()
            assert abs(logit - logits.mean()) <= bound


def test_lists_are_ordered_and_shortened(index: Index) -> None:
    plain = index.words()
    assert [word.word for word in plain] == list(range(len(plain)))
    assert plain.right_logit is None
    assert plain[0].right is None
    for wrong in (False, True):
        found = index.words("fish", wrong_class=wrong)
        contributions = [(word.wrong if wrong else word.right).contribution for word in found]  # type: ignore[union-attr]
        assert contributions == sorted(contributions, reverse=True)
        short = index.words("fish", wrong_class=wrong, k=3)
        assert short.words == found.words[:3]
        assert short.others is not None
        for side, logit in (("right", found.right_logit), ("wrong", found.wrong_logit)):
            shown = [*short, short.others]
            assert sum(getattr(word, side).contribution for word in shown) == pytest.approx(logit, abs=1e-12)
            assert sum(getattr(word, side).share for word in shown) == pytest.approx(1)
        assert sum(word.patches for word in (*short, short.others)) == sum(word.patches for word in plain)
        assert short.first(3) == short
        assert short.first(2).others.patches == short.others.patches + short[2].patches  # type: ignore[union-attr]
    with pytest.raises(QueryError, match="name one"):
        index.words(wrong_class=True)
    with pytest.raises(QueryError, match="one word or more"):
        index.words(k=0)
    with pytest.raises(UnknownClassError):
        index.words("no class at all")


def test_what_a_word_says(index: Index) -> None:
    it = stored(index)
    overall = it.evidence.astype(np.float64).mean(axis=(1, 2))
    for word in index.words():
        assert word.word is not None
        relative = it.vocabulary.means[:, word.word] - overall
        best = np.argsort(-relative)[:3]
        assert [each.class_id for each in word.says] == best.tolist()
        assert [each.evidence for each in word.says] == pytest.approx(relative[best], abs=1e-9)
        assert [each.class_ for each in word.says] == [index.classes[i].name for i in best]


def test_one_word(index: Index) -> None:
    it = stored(index)
    per_image = it.vocabulary.of_patches.shape[1]
    for number in (0, it.vocabulary.count - 1):
        listed = next(each for each in index.words() if each.word == number)
        for class_ in (None, 2):
            found = index.word(number, class_, k=10_000)
            class_id = listed.says[0].class_id if class_ is None else class_
            assert (found.word, found.class_.class_id, found.total) == (listed, class_id, listed.images)
            expected = []
            labels: dict[int, list[int]] = {}
            for place, image_id in enumerate(it.image_ids.tolist()):
                cells = np.flatnonzero(it.vocabulary.of_patches[place] == number)
                if not len(cells):
                    continue
                logits = it.evidence[class_id, place, cells]
                expected.append((-float(logits.max()), image_id * per_image + int(cells[logits.argmax()])))
                labels.setdefault(int(it.labels[place]), []).append(len(cells))
            assert [(-each.logit, each.patch_id) for each in found] == sorted(expected)
            assert [each.rank for each in found] == list(range(1, len(expected) + 1))
            assert {each.class_.class_id: (each.images, each.patches) for each in found.labels} == {
                label: (len(counts), sum(counts)) for label, counts in labels.items() if label >= 0
            }
            sizes = [each.patches for each in found.labels]
            assert sizes == sorted(sizes, reverse=True)
            pages = [index.word(number, class_, k=7, offset=offset) for offset in range(0, len(expected) + 7, 7)]
            assert [each for page in pages for each in page] == list(found)
    for options in ({"k": 0}, {"offset": -1}, {"word": it.vocabulary.count}, {"word": -1}):
        with pytest.raises(QueryError):
            index.word(**{"word": 0, **options})
    with pytest.raises(UnknownClassError):
        index.word(0, "nothing")


def test_a_word_of_unlabelled_images(tmp_path: Path) -> None:
    words = np.array([[0, 0, 1, 1, 1, 1], [0, 1, 1, 1, 1, 1], [1, 1, 1, 1, 1, 1]])
    table = np.random.default_rng(2).normal(size=(3, 6, 3))
    with worded_index(tmp_path / "i", table, [None] * 3, words) as index:
        found = index.word(0, "cat")
        assert (found.labels, found.total) == ((), 2)
        assert found.to_arrow().num_rows == 2
        assert index.word(0, "cat", offset=2).to_dicts() == []


def test_two_makes_give_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "i")
    places = [tmp_path / "i" / "bagnet33" / "derived" / f"words-{number}" for number in (1, 2, 3)]
    with Index.open(tmp_path / "i") as index:
        before = index.words("fish").to_dicts()
        index.make_words(COUNT)
        for name in ("words.parquet", "patch_words.parquet", "word_evidence.parquet"):
            assert (places[0] / name).read_bytes() == (places[1] / name).read_bytes()
        assert index.words("fish").to_dicts() == before
        index.make_words(5)
        assert len(index.words()) == len(index.sql("FROM words")) == 5
        assert index.words_made() == 5
        assert [place.is_dir() for place in places] == [False, True, True]
        assert index.verify().ok
    assert not list((tmp_path / "i").rglob("*.tmp-*"))


@pytest.mark.parametrize("when", [3, 40, 80, 99])
def test_stopping_leaves_the_words_that_were(tmp_path: Path, when: int) -> None:
    with small(tmp_path / "i", [*HOSTILE, None] * 3) as index:
        index.make_words(4)
        before = index.words().to_dicts(), contents(tmp_path / "i")

        def stop(done: int, _total: int) -> None:
            if done >= when:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            index.make_words(6, progress=stop)
        assert (index.words().to_dicts(), contents(tmp_path / "i")) == before
        with IndexDirectory(tmp_path / "i").writing(), pytest.raises(LockedError):
            index.make_words(6)
        assert len(index.sql("FROM words")) == len(before[0])


def test_files_and_record(folder: Path) -> None:
    place = folder / "bagnet33" / "derived" / "words-1"
    record = read_record(place / "words.json", WordsRecord, "")
    assert set(record.files) == {"words.parquet", "patch_words.parquet", "word_evidence.parquet"}
    assert (record.asked, record.patches, record.iterations) == (COUNT, 48 * 256, making.ITERATIONS)
    assert record.sampled == COUNT * making.PER_WORD
    assert record.words == pq.read_metadata(place / "words.parquet").num_rows
    for name, schema in {
        "words": tables.words(512),
        "patch_words": tables.PATCH_WORDS,
        "word_evidence": tables.WORD_EVIDENCE,
    }.items():
        assert pq.read_schema(place / f"{name}.parquet").equals(schema)
        assert pq.read_metadata(place / f"{name}.parquet").row_group(0).column(0).compression == "ZSTD"


def test_little_is_in_memory_at_once(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(folder, tmp_path / "i")
    sizes: list[int] = []
    blocks = making.StoredFeatures.blocks

    def watched(self: Any, *args: Any, **options: Any) -> Any:
        for ids, values in blocks(self, *args, **options):
            sizes.append(len(ids))
            yield ids, values

    monkeypatch.setattr(making.StoredFeatures, "blocks", watched)
    monkeypatch.setattr(making, "_SAMPLE_BYTES", 4 * 512 * 700)
    monkeypatch.setattr(making, "_SUMMED", 1000)
    monkeypatch.setattr(making, "_ROWS", 2000)
    with Index.open(tmp_path / "i") as index:
        index.make_words(COUNT)
        it = stored(index)
        assert it.vocabulary.patches.sum() == sum(sizes) == 48 * 256
        words, values = it.vocabulary.of_patches.reshape(-1), it.evidence[0].reshape(-1)
        assert np.array_equal(
            word_sums(values, words, it.vocabulary.count), np.bincount(words, values.astype(np.float64))
        )
    assert max(sizes) <= making._BLOCK
    place = tmp_path / "i" / "bagnet33" / "derived" / "words-2"
    assert read_record(place / "words.json", WordsRecord, "").sampled == 700
    assert pq.read_metadata(place / "patch_words.parquet").num_row_groups == 7


def test_patches_without_a_direction_and_all_alike(tmp_path: Path) -> None:
    table = np.zeros((6, 4, 3), np.float32)
    table[1:3] = 1.5
    compute = LinearCompute(HOSTILE, table=table)
    ids = {name: i for i, name in enumerate(HOSTILE)}
    build(IndexDirectory(tmp_path / "i"), MemorySource([HOSTILE[0]] * 6), ids, compute, BuildSettings(workers=1))
    with Index.open(tmp_path / "i") as index:
        index.make_words(4)
        found = index.words()
        assert sum(word.patches for word in found) == 24
        assert all(np.isfinite([word.similarity, *(each.evidence for each in word.says)]).all() for word in found)
        assert index.words_made() == 4
        assert len(found) <= 4


def test_images_and_their_ids_need_not_be_dense(tmp_path: Path) -> None:
    labels: list[str | None] = ["a", "b"] * 300
    source = MemorySource(labels, frozenset(range(2, 590)))
    build(IndexDirectory(tmp_path / "i"), source, {"a": 0, "b": 1}, LinearCompute("ab"), BuildSettings(workers=1))
    with Index.open(tmp_path / "i") as index:
        index.make_words(3)
        it = stored(index)
        assert it.vocabulary.patches.sum() == 48
        for word, images in enumerate(it.vocabulary.images):
            assert (it.vocabulary.of_patches == word).any(axis=1).sum() == images
        assert index.words()


@pytest.mark.parametrize("count", [-1, 0, 1, 13])
def test_counts_that_cannot_be(tmp_path: Path, count: int) -> None:
    with small(tmp_path / "i", ["a"] * 0 + [None] * 3) as index:
        with pytest.raises(QueryError, match="ask for 2 to 12"):
            index.make_words(count)
        with pytest.raises(QueryError, match=r"no visual words: .*`bagindex words --again --model linear`"):
            index.words()
        assert index.words_made() is None
        index.make_words(12)


def test_features_must_be_kept(tmp_path: Path) -> None:
    with small(tmp_path / "i", [None] * 3, keep=Keep.EVIDENCE) as index:
        with pytest.raises(QueryError, match="--keep features"):
            index.make_words(2)
        with pytest.raises(QueryError, match=r"visual words were not made yet.*`bagindex words --again`"):
            index.sql("FROM words")


def test_sql_without_words_says_how_to_get_them(planted_index: Index) -> None:
    for query in ("FROM words", 'SELECT * FROM "Patch_Words"', "FROM word_evidence", "FROM words_of('fish')"):
        with pytest.raises(QueryError, match=r"`bagindex words --again` makes them"):
            planted_index.sql(query)
    assert len(planted_index.sql("FROM evidence_of('fish') LIMIT 3")) == 3
    assert planted_index.sql("FROM confusions()").columns[-1] == "share_of_wrong"


def test_tables(index: Index) -> None:
    for view, columns in {
        "words": "model word patches images similarity typical",
        "word_evidence": "model word class class_id mean_logit",
        "patch_words": "model patch_id image_id row col x0 y0 x1 y1 label label_name predicted word",
    }.items():
        assert index.sql(f"FROM {view} LIMIT 0").columns == columns.split()
    it = stored(index)
    rows = index.sql("FROM words ORDER BY word").to_dicts()
    assert [row["typical"] for row in rows] == [list(each) for each in it.vocabulary.typical]
    assert [row["patches"] for row in rows] == it.vocabulary.patches.tolist()
    rows = index.sql("SELECT word, patch_id, image_id FROM patch_words ORDER BY patch_id").to_dicts()
    assert [row["word"] for row in rows] == it.vocabulary.of_patches.reshape(-1).tolist()
    rows = index.sql("SELECT mean_logit FROM word_evidence ORDER BY class_id, word").to_dicts()
    assert [row["mean_logit"] for row in rows] == it.vocabulary.means.reshape(-1).tolist()


def test_evidence_of(index: Index) -> None:
    expected = index.sql("FROM evidence WHERE class = 'fish' ORDER BY ALL").to_arrow()
    class_id = index.find_class("fish").class_id
    for argument in ("'fish'", str(class_id), f"'{class_id}'", "'fish', model := 'bagnet33'"):
        assert index.sql(f"FROM evidence_of({argument}) ORDER BY ALL").to_arrow().equals(expected)
    with pytest.raises(QueryError, match="no class is called fisch"):
        index.sql("FROM evidence_of('fisch')")


def test_a_class_is_read_alone(index: Index) -> None:
    shards = len(list((index.path / "bagnet33").glob("shard-*")))
    for query, groups in (("evidence_of('fish')", shards), ("margin('fish', 'tree')", shards)):
        plan = index.sql(f"EXPLAIN ANALYZE SELECT count(*) FROM {query}").to_dicts()[0]["explain_value"]
        assert f"Row Groups Scanned: {groups} / {groups * len(index.classes)} " in plan


def test_margin(index: Index) -> None:
    it = stored(index)
    fish, tree = (index.find_class(name).class_id for name in ("fish", "tree"))
    margins = it.evidence[fish].astype(np.float64) - it.evidence[tree]
    rows = index.sql("FROM margin('fish', 'tree') ORDER BY patch_id").to_dicts()
    assert [row["margin"] for row in rows] == margins.reshape(-1).tolist()
    assert [row["logit_a"] for row in rows] == it.evidence[fish].astype(np.float64).reshape(-1).tolist()
    shares = np.array([row["share"] for row in rows]).reshape(margins.shape)
    assert shares == pytest.approx(margins / margins.sum(axis=1, keepdims=True), rel=1e-9)
    assert {"model", "image_id", "row", "col", "x0", "y0", "x1", "y1", "label_name", "predicted"} <= set(rows[0])


def test_words_of(index: Index) -> None:
    found = {word.word: word for word in index.words("tree")}
    rows = index.sql("FROM words_of('tree')").to_dicts()
    assert {row["word"] for row in rows} == set(found)
    for row in rows:
        word = found[row["word"]]
        assert (row["patches"], row["images"]) == (word.patches, word.images)
        for side, part in (("right", word.right), ("wrong", word.wrong)):
            assert part is not None
            assert row[f"{side}_patches"] == part.patches
            assert (row[f"{side}_mean"] or 0) == pytest.approx(part.mean or 0, abs=1e-12)
            assert row[f"{side}_share"] == pytest.approx(part.share, abs=1e-15)
            assert row[f"{side}_contribution"] == pytest.approx(part.contribution, abs=1e-15)
    (sums,) = index.sql("SELECT sum(right_contribution) AS r, sum(wrong_contribution) AS w FROM words_of('tree')")
    again = index.words("tree")
    assert (sums["r"], sums["w"]) == pytest.approx((again.right_logit, again.wrong_logit), abs=1e-12)


def test_image_words(index: Index) -> None:
    it = stored(index)
    place = 7
    rows = index.sql(f"FROM image_words({it.image_ids[place]})").to_dicts()
    for class_id in range(len(index.classes)):
        mine = [row for row in rows if row["class_id"] == class_id]
        values = it.evidence[class_id, place].astype(np.float64)
        assert sum(row["contribution"] for row in mine) == pytest.approx(values.mean(), abs=1e-12)
        assert {row["word"]: row["patches"] for row in mine} == Counter(it.vocabulary.of_patches[place].tolist())
        for row in mine:
            of_word = values[it.vocabulary.of_patches[place] == row["word"]]
            assert row["mean_logit"] == pytest.approx(of_word.mean(), abs=1e-12)


def test_confusions(tmp_path: Path) -> None:
    index = small(tmp_path / "i", [*HOSTILE, None] * 9)
    rows = index.sql("SELECT label_name, predicted_name FROM predictions").to_dicts()
    wrong = Counter((r["label_name"], r["predicted_name"]) for r in rows if r["label_name"] != r["predicted_name"])
    labels = Counter(r["label_name"] for r in rows)
    wrong = Counter({names: count for names, count in wrong.items() if names[0] is not None})
    assert len(wrong) > 3
    found = index.sql("FROM confusions()").to_dicts()
    assert {(r["label_name"], r["predicted_name"]): r["images"] for r in found} == wrong
    assert [r["images"] for r in found] == sorted(wrong.values(), reverse=True)
    for row in found:
        assert row["share_of_label"] == row["images"] / labels[row["label_name"]]
        assert row["share_of_wrong"] == row["images"] / sum(wrong.values())


MACROS = ("evidence_of('fish')", "margin('fish', 'tree')", "words_of('fish')", "image_words(3)", "confusions()")


def test_moved_and_read_with_plain_duckdb(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index.open(folder) as index:
        expected = {macro: index.sql(f"FROM {macro} ORDER BY ALL").to_arrow() for macro in MACROS}
        words = index.words("fish")
    target = tmp_path / "it's, [moved]"
    shutil.copytree(folder, target)
    with Index.open(target) as index:
        for macro in MACROS:
            assert index.sql(f"FROM {macro} ORDER BY ALL").to_arrow().equals(expected[macro])
        assert index.words("fish") == words
    monkeypatch.chdir(target)
    with duckdb.connect(current(IndexDirectory(target)), read_only=True) as connection:
        for macro in MACROS:
            found = connection.execute(f"SELECT count(*) FROM {macro}").fetchall()
            assert found == [(expected[macro].num_rows,)]
        for view in ("words", "word_evidence", "patch_words"):
            assert connection.execute(f"SELECT count(*) FROM {view}").fetchall() > [(10,)]


def test_new_images_make_words_stale(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "i")
    with Index.open(tmp_path / "i") as index:
        for model in index.models:
            index.make_words(5, model=model)
        assert {row["model"] for row in index.sql("FROM words_of('a')")} == set(index.models)
        one = index.sql("FROM words_of('a', model := 'two')")
        assert {row["model"] for row in one} == {"two"}
        assert len(one) == len(index.words("a", model="two"))
    growing.labels |= {70: "b", 71: "a"}
    growing.update()
    with Index.open(tmp_path / "i") as index:
        with pytest.raises(QueryError, match=r"images have come since; `bagindex words --again --model two`"):
            index.words(model="two")
        with pytest.raises(QueryError, match=r"images have come since; `bagindex words --again`"):
            index.sql("FROM patch_words")
        index.make_words(5, model="two")
        assert {row["model"] for row in index.sql("FROM words")} == {"two"}
        assert index.words("a", model="two").right_logit is not None
        assert index.verify().ok


def test_labels_given_later_change_what_is_right(tmp_path: Path) -> None:
    with small(tmp_path / "i", [HOSTILE[0]] * 3 + [HOSTILE[1]] * 3 + [None] * 2) as index:
        index.make_words(3)
        before = index.words(0)
        assert before == index.words(HOSTILE[0])
        assert sum(part.patches for word in before if (part := word.right)) == 12
        none = index.words(2)
        assert none.right_logit is None
        assert all(word.right is None for word in none)
        lines = [f'{index.sql("FROM images").to_dicts()[place]["path"]},"{HOSTILE[2]}"' for place in (0, 7)]
        (tmp_path / "labels.csv").write_text("\n".join(["path,label", *lines]))
        index.relabel(tmp_path / "labels.csv")
        found = index.words(2)
        assert sum(part.patches for word in found if (part := word.right)) == 8
        assert index.words(0).right_logit != before.right_logit
        (row,) = index.sql("SELECT sum(right_contribution) AS logit FROM words_of('2')").to_dicts()
        assert row["logit"] == pytest.approx(found.right_logit, abs=1e-12)


def test_hostile_names(tmp_path: Path) -> None:
    with small(tmp_path / "i", [HOSTILE[0], HOSTILE[1], HOSTILE[2], None]) as index:
        index.make_words(3)
        for name in HOSTILE:
            quoted = name.replace("'", "''")
            (row,) = index.sql(f"SELECT sum(right_contribution) AS logit FROM words_of('{quoted}')").to_dicts()
            assert row["logit"] == pytest.approx(index.words(name).right_logit, abs=1e-12)
            assert len(index.sql(f"FROM evidence_of('{quoted}')")) == 16
            assert index.words(name).to_png().startswith(b"\x89PNG")
            Page(index.words(name).to_html())
            assert "\n" not in index.words(name).table_rows()[0]["says"].replace(HOSTILE[1], "")


def test_a_list_is_saved_in_every_form(index: Index, tmp_path: Path) -> None:
    for found in (index.words(), index.words("fish", k=4)):
        rows = found.to_dicts()
        found.save(tmp_path / "w.json")
        assert json.loads((tmp_path / "w.json").read_text()) == rows
        found.save(tmp_path / "w.parquet")
        assert pq.read_table(tmp_path / "w.parquet").to_pylist() == found.to_arrow().to_pylist()
        assert [row["patches"] for row in found.to_arrow().to_pylist()] == [row["patches"] for row in rows]
        found.save(tmp_path / "w.csv")
        assert (tmp_path / "w.csv").read_text().splitlines()[0] == ",".join(rows[0])
        assert len(found.to_pandas()) == len(rows)
        found.save(tmp_path / "w.html")
        page = Page((tmp_path / "w.html").read_text())
        assert page.tags["section"] == min(len(rows), PICTURED + 1)
        assert "word 0" in "".join(page.text) or found.class_ is not None
        with pytest.raises(OutputError, match=r"\.png, \.html, \.json, \.csv, \.parquet"):
            found.save(tmp_path / "w.txt")
        text = str(found)
        assert all(column in text for column in found.columns)
        assert found._repr_png_() is not None
        assert found._repr_html_() is None


def test_the_picture_shows_the_patches_own_pixels(index: Index) -> None:
    found = index.words("fish", k=3)
    with Image.open(io.BytesIO(found.to_png())) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    layout = figure._Layout.of(found._rows())
    top = None
    for word in found:
        crops = found.crops(word)
        assert len(crops) == min(8, len(word.typical))
        record = index._model(None)
        for place, (patch, crop) in enumerate(zip(word.typical, crops, strict=False)):
            image, cell = divmod(patch, record.grid.patches)
            row, col = divmod(cell, record.grid.cols)
            own = index._pixels({image})[image][8 * row : 8 * row + 33, 8 * col : 8 * col + 33]
            assert np.array_equal(own, crop)
            large = crop.repeat(4, 0).repeat(4, 1)
            left = layout.strip + place * (layout.side + figure._GAP) + figure._BORDER
            column = pixels[:, left : left + 132]
            tops = [top] if top is not None else range(len(column) - 132)
            places = [y for y in tops if np.array_equal(column[y : y + 132], large)]
            assert len(places) == 1
            top = places[0]
        top += layout.height(found._rows()[0])  # type: ignore[operator]
    assert found.picture(900).width <= 900
    assert found.picture(80, coarse=True).width <= 80


def test_without_pixels_there_is_a_table(tmp_path: Path) -> None:
    with small(tmp_path / "i", [HOSTILE[0], HOSTILE[1]] * 2, pixels=False) as index:
        index.make_words(2)
        found = index.words()
        with pytest.raises(QueryError, match="keeps no pixels"):
            found.save(tmp_path / "w.png")
        assert found._repr_png_() is None
        assert "no pictures" in str(found._repr_html_())
        assert isinstance(found, WordList)
        assert isinstance(found[0], Word)
        assert found[:1] == found.words[:1]


def test_damaged_words_say_how_to_mend_them(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "i")
    place = tmp_path / "i" / "bagnet33" / "derived" / "words-1"
    data = (place / "words.parquet").read_bytes()
    (place / "words.parquet").write_bytes(data[:100] + bytes(len(data) - 100))
    with Index.open(tmp_path / "i") as index:
        with pytest.raises(Exception, match=r"make it again with `bagindex words --again`"):
            index.words()
        index.make_words(3)
        assert len(index.words()) == 3


def test_a_catalog_of_an_earlier_version(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "i")
    catalog = current(IndexDirectory(tmp_path / "i"))
    (tmp_path / "i" / "CURRENT").write_text(f"{catalog.name}\n")  # as versions before format 2 wrote it
    with duckdb.connect(catalog) as connection:
        for statement in (
            "DROP MACRO TABLE evidence_of",
            "DROP VIEW words",
            "DROP TABLE stored.words",
            "UPDATE stored.state SET digest = 'another'",
        ):
            connection.execute(statement)
    with Index.open(tmp_path / "i") as index:
        assert len(index.sql("FROM evidence LIMIT 1")) == 1
        with pytest.raises(QueryError, match="an earlier bagindex made this index, without evidence_of: run the same"):
            index.sql("FROM evidence_of('fish')")
        with pytest.raises(QueryError, match="`bagindex words --again` makes them"):
            index.sql("FROM words")
        index.make_words(3)
        assert len(index.sql("FROM words")) == 3
        assert len(index.sql("FROM evidence_of('fish') LIMIT 2")) == 2


def test_damaged_words_are_made_again(planted_index: Index, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(planted_index.path, tmp_path / "i")
    where = ("-i", tmp_path / "i")
    assert run("words", "-n", 4, *where).status == 0
    (tmp_path / "i" / "bagnet33" / "derived" / "words-1" / "words.json").write_text("{")
    assert "`bagindex words --again`" in run("shortcuts", *where).err
    assert "No words are shown" in run("why", 3, *where).out
    assert "words.json is damaged" in run("info", *where).out
    assert run("verify", *where).status == 1
    again = run("words", "--again", "-n", 4, *where)
    assert (again.status, "making 4 visual words" in again.err) == (0, True)
    assert run("verify", *where).status == 0
    (tmp_path / "i" / "bagnet33" / "derived" / "words-2" / "patch_words.parquet").write_bytes(b"")
    assert "`bagindex words --again`" in run("sql", "FROM words_of('fish')", *where).err


def test_nothing_is_made_for_what_cannot_be_given(planted_index: Index, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(planted_index.path, tmp_path / "i")
    where = ("-i", tmp_path / "i")
    assert "the ending says what to write" in run("words", "-n", 4, "-o", tmp_path / "x.foo", *where).err
    assert "making" not in run("words", "-n", 10**6, *where).err
    assert not (tmp_path / "i" / "bagnet33" / "derived" / "words-1").exists()
    assert "in place of" not in run("words", "-n", 4, *where).err
    assert "in place of the 4 there are" in run("words", "-n", 5, *where).err


def test_macros_know_models_and_images(planted_words: Index) -> None:
    for query, message in {
        "FROM words_of('fish', model := 'x')": "no model x",
        "FROM margin('fish', 'tree', model := 'x')": "no model x",
        "FROM evidence_of('fish', model := 'x')": "no model x",
        "FROM image_words(99999)": "no image 99999",
        "FROM words_of(NULL)": "no class is called NULL",
    }.items():
        with pytest.raises(QueryError, match=message):
            planted_words.sql(query)


def test_pictures_have_what_was_asked(planted_words: Index) -> None:
    few, many = planted_words.words(), planted_words.words(k=30)
    assert few.to_html().count("<h2>") == 21  # 20 words and the others
    assert many.to_html().count("<h2>") == 31
    assert planted_words.words(k=64).to_html().count("<h2>") == 64


def test_command(planted_index: Index, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(planted_index.path, tmp_path / "i")
    where = ("-i", tmp_path / "i")
    wrong = run("words", "fisch", *where)
    assert (wrong.status, wrong.out) == (1, "")
    assert "did you mean 'fish'" in wrong.err
    assert not (tmp_path / "i" / "bagnet33" / "derived" / "words-1").exists()
    assert "fewer" not in wrong.err
    too_many = run("words", "-n", 10**6, *where)
    assert too_many.status == 1
    assert "ask for 2 to 12288" in too_many.err
    assert "Traceback" not in too_many.err
    first = run("words", "-n", 30, *where)
    assert first.status == 0
    assert "making 30 visual words" in first.err
    assert "20 of 30 words" in first.err
    assert "other words" in first.out
    again = run("words", "-n", 30, "fish", "-k", 2, *where)
    assert "making" not in again.err
    assert len([line for line in again.out.splitlines() if line.strip()]) >= 5
    for arguments, count in ((("-n", 6), 6), ((), 6), (("--again",), 6)):
        found = run("words", "fish", *arguments, "--format", "json", *where)
        assert len(json.loads(found.out)) == count
        assert ("making" in found.err) == bool(arguments)
    assert run("words", "fish", "--wrong-class", "--format", "csv", "-k", 2, *where).out.count("\n") == 4
    for ending in ("png", "html", "parquet"):
        done = run("words", "fish", "-o", tmp_path / f"w.{ending}", *where)
        assert (done.status, done.out) == (0, "")
        assert (tmp_path / f"w.{ending}").stat().st_size > 1000
    assert run("words", "--wrong-class", *where).status == 2
    one = run("words", "--word", 3, "fish", "-k", 2, "--offset", 1, *where)
    assert one.out.startswith("word 3, most evidence for fish in each image (bagnet33): ")
    assert "2 of " in one.err
    with Index.open(tmp_path / "i") as opened:
        assert json.loads(run("words", "--word", 3, "--format", "json", *where).out) == opened.word(3).to_dicts()
    for ending in ("png", "csv", "json", "parquet"):
        assert run("words", "--word", 3, "-o", tmp_path / f"o.{ending}", *where).status == 0
        assert (tmp_path / f"o.{ending}").stat().st_size > 1000
    assert json.loads((tmp_path / "o.json").read_text())["word"] == 3
    assert run("words", "--word", 3, "-n", 5, *where).status == 2
    assert run("words", "--offset", 3, *where).status == 2
    assert "they go from 0 to 5" in run("words", "--word", 6, *where).err
    assert run("words", "--model", "other", *where).status == 1
