"""`top_patches` against a brute-force answer in plain numpy, over random small indexes."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.catalog import current
from bagindex.choosing import Met
from bagindex.errors import OutdatedError, QueryError, UnknownClassError
from bagindex.results import Patch
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Keep
from fakes import LinearCompute, MemorySource

CLASSES = ("tench", 'it\'s "quoted" & spaced', "Größe 中文")
SIDE = (24, 18)
CELLS = 6

indexes = st.integers(1, 9).flatmap(
    lambda images: st.tuples(
        # Few different values make many ties.
        hnp.arrays(np.float32, (images, CELLS, 3), elements=st.sampled_from([-2.0, 0.0, 0.1, 0.5, 0.5001, 3.0])),
        st.lists(st.sampled_from([*CLASSES, None]), min_size=images, max_size=images),
        st.frozensets(st.integers(0, images - 1), max_size=2),
        st.integers(1, 4),
    )
)
questions = st.fixed_dictionaries(
    {
        "class_id": st.integers(0, 2),
        "images": st.sampled_from(["right", "wrong", "any"]),
        "k": st.integers(1, 12),
        "per_image": st.integers(1, 4),
        "overlap": st.booleans(),
        "predicted_as": st.none() | st.integers(0, 2),
        "misclassified": st.booleans(),
        "least_id": st.none() | st.integers(0, 9),
        "label": st.none() | st.integers(0, 2),
        "offset": st.integers(0, 9),
    }
)


def make(folder: Path, table: np.ndarray, labels: list[str | None], broken: frozenset[int], size: int) -> Index:
    source = MemorySource(labels, broken, side=24)
    build(
        IndexDirectory(folder),
        source,
        {name: i for i, name in enumerate(CLASSES)},
        _Compute(table),
        BuildSettings(shard_size=size, workers=1),
    )
    return Index.open(folder)


class _Compute(LinearCompute):
    """Patches of 12 × 12 pixels, 6 apart, in a 24 × 18 input: neighbours overlap."""

    def __init__(self, table: np.ndarray) -> None:
        super().__init__(CLASSES, side=SIDE, table=table)
        self.grid = self.grid.model_copy(update={"receptive_field": 12, "stride": 6, "rows": 3, "cols": 2})


def brute_force(
    table: np.ndarray, labels: list[str | None], broken: frozenset[int], question: dict[str, Any]
) -> list[tuple[int, float]]:
    rounded = table.astype(np.float16)
    c = question["class_id"]
    candidates = []
    for image, label in enumerate(labels):
        if image in broken:
            continue
        truth = None if label is None else CLASSES.index(label)
        means = table[image].mean(axis=0, dtype=np.float64).astype(np.float32)
        predicted = int(np.flatnonzero(means == means.max())[0])
        if question["images"] == "right" and truth != c:
            continue
        if question["images"] == "wrong" and truth in (c, None):
            continue
        if question["predicted_as"] is not None and predicted != question["predicted_as"]:
            continue
        if question["misclassified"] and truth in (predicted, None):
            continue
        if question["label"] is not None and truth != question["label"]:
            continue
        if question["least_id"] is not None and image < question["least_id"]:
            continue
        candidates += [(-float(rounded[image, cell, c]), image * CELLS + cell) for cell in range(CELLS)]
    chosen: list[tuple[int, float]] = []
    for negative, patch_id in sorted(candidates):
        image, cell = divmod(patch_id, CELLS)
        same = [other % CELLS for other, _ in chosen if other // CELLS == image]
        if len(same) == question["per_image"]:
            continue
        near = any(abs(cell // 2 - o // 2) * 6 < 12 and abs(cell % 2 - o % 2) * 6 < 12 for o in same)
        if near and not question["overlap"]:
            continue
        chosen.append((patch_id, -negative))
    return chosen[question["offset"] :][: question["k"]]


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(made=indexes, asked=st.lists(questions, min_size=12, max_size=12))
def test_against_brute_force(made: tuple[Any, ...], asked: list[dict[str, Any]]) -> None:
    table, labels, broken, size = made
    with tempfile.TemporaryDirectory() as folder, make(Path(folder) / "index", table, labels, broken, size) as index:
        for question in asked:
            predicted_as = question["predicted_as"]
            least = question["least_id"]
            found = index.top_patches(
                CLASSES[question["class_id"]],
                wrong_class=question["images"] == "wrong",
                any_class=question["images"] == "any",
                k=question["k"],
                per_image=question["per_image"],
                overlap=question["overlap"],
                predicted_as=None if predicted_as is None else CLASSES[predicted_as],
                misclassified=question["misclassified"],
                label=None if question["label"] is None else CLASSES[question["label"]],
                offset=question["offset"],
                where=None if least is None else f"image_id >= {least} -- or not",
            )
            expected = brute_force(table, labels, broken, question)
            assert [(patch.patch_id, patch.logit) for patch in found] == expected
            assert [patch.rank for patch in found] == [question["offset"] + i for i in range(1, len(expected) + 1)]
            assert [patch.label_name for patch in found] == [labels[patch.image_id] for patch in found]


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Index:
    rng = np.random.default_rng(5)
    table = rng.normal(0, 1, (12, CELLS, 3)).astype(np.float32)
    labels = [CLASSES[i % 3] for i in range(10)] + [None, None]
    return make(tmp_path_factory.mktemp("top") / "index", table, labels, frozenset(), 5)


def test_what_was_found_of_a_condition_is_not_looked_for_again(index: Index) -> None:
    every, catalog = range(12), current(IndexDirectory(index.path)).name
    for least in every:
        text = f"image_id >= {least} AND image_id <> 7 -- or not"
        met = Met.of(text, np.array([i for i in every if i >= least and i != 7], np.int32), catalog)
        for asked in ({"any_class": True}, {"wrong_class": True, "per_image": 2, "predicted_as": CLASSES[1]}):
            expected = index.top_patches("tench", where=text, k=99, **asked)
            found = index.top_patches("tench", where=met, k=99, **asked)
            assert (found.question, found.patches) == (expected.question, expected.patches)
    # It is not run.
    first = index.top_patches("tench", any_class=True, where=Met.of("no SQL", np.array([0, 2]), catalog), k=99)
    assert {patch.image_id for patch in first} == {0, 2}
    assert not index.top_patches("tench", any_class=True, where=Met.of("true", np.array([], np.int64), catalog)).patches
    with pytest.raises(OutdatedError, match="ask again"):
        index.top_patches("tench", any_class=True, where=Met.of("true", np.array(every), "catalog-1.duckdb"))


def test_unlabelled_images_are_neither_right_nor_wrong(index: Index) -> None:
    right = {patch.image_id for patch in index.top_patches("tench", k=99)}
    wrong = {patch.image_id for patch in index.top_patches("tench", wrong_class=True, k=99)}
    every = {patch.image_id for patch in index.top_patches("tench", any_class=True, k=99)}
    assert not right & wrong
    assert every - right - wrong == {10, 11}


def test_sql_gives_the_same(index: Index) -> None:
    rows = index.sql(
        "SELECT patch_id, max_logit, x0, y0, x1, y1 FROM image_evidence "
        "WHERE class = 'tench' AND NOT correct ORDER BY max_logit DESC, patch_id LIMIT 4"
    )
    found = index.top_patches("tench", wrong_class=True, k=4)
    assert [tuple(row.values()) for row in rows] == [(p.patch_id, p.logit, *p.box) for p in found]


@pytest.mark.parametrize("text", ["GRÖSSE 中文", "größe 中文", "2"])
def test_class_by_any_case_or_id(index: Index, text: str) -> None:
    assert index.find_class(text).class_id == 2


def test_near_miss_is_suggested(index: Index) -> None:
    with pytest.raises(UnknownClassError, match="did you mean 'tench'"):
        index.top_patches("tnech")


@pytest.mark.parametrize(
    "where",
    [
        "width >",
        "1; DROP TABLE images",
        "width > 5 LIMIT 1",
        "nonsense = 3",
        "max_logit > 0",
        "1 FROM images",
        "1, 2",
        "'abc'",
        "width > 5 AND 'abc'",
    ],
)
def test_condition_that_is_none(index: Index, where: str) -> None:
    with pytest.raises(QueryError):
        index.top_patches("tench", where=where)


def test_condition_that_closes_our_parenthesis_stays_a_condition(index: Index) -> None:
    every = index.top_patches("tench", k=99)
    assert index.top_patches("tench", k=99, where="1 = 0) OR (1 = 1").patches == every.patches
    assert len(every) < len(index.top_patches("tench", k=99, any_class=True))


@pytest.mark.parametrize("per_image", [1, 3])
def test_pages_are_parts_of_the_whole(index: Index, per_image: int) -> None:
    def asked(k: int, offset: int) -> list[Patch]:
        found = index.top_patches("tench", any_class=True, per_image=per_image, overlap=True, k=k, offset=offset)
        return list(found)

    whole = asked(10_000, 0)
    assert len(whole) == 12 * per_image
    assert [patch for offset in range(0, len(whole), 5) for patch in asked(5, offset)] == whole
    assert asked(5, len(whole)) == []
    assert "labelled tench" in index.top_patches("tench", any_class=True, label="tench").question


def test_the_command_pages_too(index: Index, run) -> None:  # type: ignore[no-untyped-def]
    asked = ("top-patches", "tench", "--any", "--label", "2", "-k", 2, "--format", "json", "-i", index.path)
    found = json.loads(run(*asked, "--offset", 1).out)
    assert found == json.loads(run(*asked, "-k", 3).out)[1:]
    assert [row["rank"] for row in found] == [2, 3]
    assert {row["label"] for row in found} == {2}


def test_options_out_of_range(index: Index) -> None:
    for options in ({"offset": -1}, {"offset": 10**9}):
        with pytest.raises(QueryError, match="--offset"):
            index.top_patches("tench", **options)
    for options in ({"k": 0}, {"per_image": 0}, {"wrong_class": True, "any_class": True}, {"model": "vgg16"}):
        with pytest.raises(QueryError):
            index.top_patches("tench", **options)  # type: ignore[arg-type]


def test_several_of_an_image_need_evidence(tmp_path: Path) -> None:
    source = MemorySource(["tench", "tench"], side=24)
    table = np.zeros((2, CELLS, 3), np.float32)
    class_ids = {name: i for i, name in enumerate(CLASSES)}
    settings = BuildSettings(keep=Keep.SUMMARY, workers=1)
    build(IndexDirectory(tmp_path / "i"), source, class_ids, _Compute(table), settings)
    with Index.open(tmp_path / "i") as index:
        assert len(index.top_patches("tench")) == 2
        with pytest.raises(QueryError, match="--keep evidence"):
            index.top_patches("tench", per_image=2)
        with pytest.raises(QueryError, match="does not keep evidence"):
            index.sql("SELECT * FROM evidence")


def test_result_converts(index: Index, tmp_path: Path) -> None:
    result = index.top_patches("tench", any_class=True, k=5)
    assert result.to_arrow().num_rows == 5
    assert result.to_pandas()["logit"].tolist() == [patch.logit for patch in result]
    fields = "rank model class class_id patch_id image_id path label label_name predicted predicted_name row col"
    assert all(list(row) == [*fields.split(), "box", "source_box", "logit"] for row in result.to_dicts())
    assert "tench: most evidence, any image" in str(result)
    assert result[0].patch_id == result.patches[0].patch_id
