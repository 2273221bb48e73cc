"""`bagindex compact`: fewer files of evidence, the same answers, and nothing lost whatever comes between."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq
import pytest

from bagindex import Index, catalog, compact
from bagindex.array_file import ArrayFile
from bagindex.build import BuildSettings, build
from bagindex.catalog import Catalog
from bagindex.errors import (
    DamagedIndexError,
    LockedError,
    NotKeptError,
    QueryError,
    SettingsError,
    SpaceError,
    UnknownModelError,
)
from bagindex.remote.objects import ObjectStore
from bagindex.remote.places import parse
from bagindex.sandbox.process import Answer, Process
from bagindex.store import EVIDENCE, IndexDirectory
from bagindex.tables import EVIDENCE_ENCODINGS
from bagindex_schemas import tables
from bagindex_schemas.records import Keep
from conftest import Result
from fakes import LinearCompute, MemorySource
from faults import states
from faults.steps import kept_files

SERIES = "linear"
SQL = "SELECT class_id, patch_id, logit, label, predicted FROM evidence ORDER BY ALL"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index of four shards, with a FAISS index and words."""
    folder = tmp_path_factory.mktemp("compact") / "index"
    states.begin(folder)
    for step in (states.Step("ann", 1), states.Step("words", 5)):
        step.take(folder)
    return folder


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "index"))


@pytest.fixture(params=[1000, 40], ids=["one group", "two groups"])
def groups(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    """Shards are merged all four, or in two and two."""
    monkeypatch.setattr(compact, "ROWS", request.param)
    return 1 if request.param == 1000 else 2


def answers(folder: Path) -> dict[str, object]:
    with Index.open(folder) as index:
        return asked(index)


def asked(index: Index, questions: Collection[str] = ("counts", "words in SQL", "why")) -> dict[str, object]:
    found: dict[str, object] = {question: states.told(index, question) for question in questions}
    found["rows"] = index.sql(SQL).to_dicts()
    found["several of an image"] = index.top_patches("a", any_class=True, k=50, per_image=3).to_dicts()
    found["heatmap"] = index.heatmap(9, classes="a").values.tolist()
    return found


def own(folder: Path) -> list[str]:
    """Shards that have a file of evidence of their own."""
    return sorted(path.parent.name for path in folder.glob(f"{SERIES}/shard-*/{EVIDENCE}"))


def merged(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / SERIES).glob("merged-*"))


def flip(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 16
    path.write_bytes(data)


def test_answers_stay_the_same(folder: Path, groups: int) -> None:
    files = kept_files(folder)
    with Index.open(folder) as index:
        before = asked(index, states.QUESTIONS)
        found = index.compact()
        assert asked(index, states.QUESTIONS) == before
        assert index.verify().problems == []
    assert (found.files_before, found.files_after, found.row_groups_before, found.row_groups_after) == (
        *(4, groups, 8),
        2 * groups,
    )
    assert own(folder) == []
    changed = {name for name, _ in files.items() ^ kept_files(folder).items()}
    assert {Path(name).name for name in changed} <= {EVIDENCE, "merged.json"}
    assert compact.compact(IndexDirectory(folder)).groups == ()


def test_what_is_merged_is_what_was_there_in_the_same_order(folder: Path, tmp_path: Path) -> None:
    tables_before = [pq.read_table(folder / SERIES / f"shard-{n:05d}" / EVIDENCE) for n in range(4)]
    Index.open(folder).compact()
    path = folder / SERIES / "merged-00000-00003-1" / EVIDENCE
    file = pq.ParquetFile(path)
    assert file.num_row_groups == 2
    for class_id in range(2):
        group = file.read_row_group(class_id)
        expected = [each.slice(class_id * each.num_rows // 2, each.num_rows // 2) for each in tables_before]
        for column in ("class_id", "patch_id", "logit"):
            values = np.concatenate([each[column].to_numpy() for each in expected])
            np.testing.assert_array_equal(group[column].to_numpy(), values)
    statistics = file.metadata.row_group(1).column(0).statistics
    assert (statistics.min, statistics.max) == (1, 1)


def test_a_shards_own_file_can_be_written_again_from_it(folder: Path, tmp_path: Path) -> None:
    directory = IndexDirectory(folder)
    Index.open(folder).compact()
    with Index.open(folder) as index:
        evidence = index._stored_evidence(index._model(None))
        for shard in range(4):
            ids = evidence.image_ids[evidence._firsts[shard] : evidence._firsts[shard + 1]]
            patches = (ids[:, None] * evidence.patches + np.arange(evidence.patches)).ravel()
            with ArrayFile(tmp_path / "again", tables.EVIDENCE, EVIDENCE_ENCODINGS) as file:
                for class_id in range(2):
                    chunks = [
                        file.encode_constant("class_id", class_id, len(patches)),
                        file.encode("patch_id", patches),
                    ]
                    file.append(chunks, evidence._map(shard)[class_id].ravel())
                written = file.finish()
            assert written.record == directory.shard_manifest(SERIES, shard).files[EVIDENCE]


def test_an_index_grows_and_is_compacted_again(folder: Path, groups: int, tmp_path: Path) -> None:
    plain = Path(shutil.copytree(folder, tmp_path / "plain"))
    for number, files in enumerate((states.FIRST + 5, states.FIRST + 7)):
        Index.open(folder).compact()
        for each in (plain, folder):
            states.Step("grow", files).take(each)
        alone = groups == 2 and number == 1  # the first to come has nothing to be merged with
        assert own(folder) == ["shard-00004", "shard-00005"][0 if alone else number : number + 1]
        expected = answers(plain)
        assert answers(folder) == expected
        Index.open(folder).compact()
        assert answers(folder) == expected
        assert Index.open(folder).verify().problems == []
    assert (own(folder), merged(folder)) == {
        1: ([], ["merged-00000-00005-3"]),
        2: ([], ["merged-00000-00001-1", "merged-00002-00003-2", "merged-00004-00005-3"]),
    }[groups]


def again(folder: Path, compute: LinearCompute = states._COMPUTE) -> None:
    settings = BuildSettings(shard_size=states.SHARD, workers=1)
    build(IndexDirectory(folder), states.source(states.FIRST), states.CLASS_IDS, compute, settings)


def test_a_lost_shard_is_made_again(folder: Path) -> None:
    before = answers(folder)
    Index.open(folder).compact()
    files = kept_files(folder)
    shutil.rmtree(folder / SERIES / "shard-00001")
    assert Index.open(folder).verify().unfinished
    with Index.open(folder) as index:  # evidence is still there
        assert index.sql(SQL).to_dicts() == before["rows"]
    again(folder)
    assert own(folder) == ["shard-00001"]
    assert answers(folder) == before
    assert Index.open(folder).verify().problems == []
    Index.open(folder).compact()
    assert kept_files(folder) == files


class _Other(LinearCompute):
    """The same to look at, and what it computes is a little more."""

    def output(self, pixels):  # type: ignore[no-untyped-def]
        self.bias = np.full(2, 0.25, np.float32)
        return super().output(pixels)


def test_a_shard_that_is_made_otherwise_counts_and_not_what_was_merged_of_it(folder: Path) -> None:
    with Index.open(folder) as index:
        before = {(row["class_id"], row["patch_id"]): row["logit"] for row in index.sql(SQL).to_dicts()}
    Index.open(folder).compact()
    shutil.rmtree(folder / SERIES / "shard-00001")
    again(folder, _Other("ab", side=(16, 16), dimensions=16))
    found: list[list[dict[str, object]]] = []
    for _ in range(2):
        with Index.open(folder) as index:
            rows = index.sql(SQL).to_dicts()
            stored = index._stored_evidence(index._model(None)).of_class(1)
            assert stored.ravel().tolist() == [row["logit"] for row in rows if row["class_id"] == 1]
        found.append(rows)
        assert len(rows) == len(before)
        changed = {
            row["patch_id"] // 4 // states.SHARD
            for row in rows
            if row["logit"] != before[row["class_id"], row["patch_id"]]
        }
        assert changed == {1}
        Index.open(folder).compact()
    assert found[0] == found[1]
    assert (own(folder), merged(folder)) == ([], ["merged-00000-00003-2"])


def test_a_flipped_bit_costs_the_shard_that_it_is_in(folder: Path) -> None:
    before = answers(folder)
    Index.open(folder).compact()
    name = f"{SERIES}/merged-00000-00003-1"
    with Index.open(folder) as index:
        offset = index._stored_evidence(index._model(None))._map(2)._offsets[1]
    flip(folder / name / EVIDENCE, offset + 1)
    with pytest.raises(DamagedIndexError, match="its SHA-256 is not the recorded one"):
        compact.merge(
            IndexDirectory(folder),
            IndexDirectory(folder).manifest(),
            compact.Group(SERIES, SERIES, (1, 2), 0),
        )
    (problem,) = Index.open(folder).verify().problems
    assert problem.startswith(f"{name}/{EVIDENCE} is damaged, its SHA-256 is not the recorded one")
    report = Index.repair(folder)
    assert (report.found, report.owed) == ([f"{SERIES}/shard-00002", name], 1)
    assert merged(folder) == ["merged-00000-00003-2"]
    assert Index.open(folder).verify().unfinished
    again(folder)
    assert answers(folder) == before
    assert Index.open(folder).verify().problems == []
    Index.open(folder).compact()
    assert answers(folder) == before
    assert (own(folder), merged(folder)) == ([], ["merged-00000-00003-3"])


def test_a_flipped_bit_beside_the_logits_costs_nothing(folder: Path) -> None:
    before = answers(folder)
    Index.open(folder).compact()
    flip(folder / SERIES / "merged-00000-00003-1" / EVIDENCE, -20)
    assert not Index.open(folder).verify().ok
    report = Index.repair(folder)
    assert (report.ok, report.found, report.owed) == (True, [f"{SERIES}/merged-00000-00003-1"], 0)
    assert answers(folder) == before
    assert Index.open(folder).verify().problems == []


@pytest.mark.parametrize("how", ["record", "record gone", "evidence short", "folder gone"])
def test_merged_evidence_that_is_lost_is_made_again(folder: Path, how: str) -> None:
    before = answers(folder)
    Index.open(folder).compact()
    place = folder / SERIES / "merged-00000-00003-1"
    match how:
        case "record":
            flip(place / "merged.json", 300)
        case "record gone":
            (place / "merged.json").unlink()
        case "evidence short":
            os.truncate(place / EVIDENCE, 100)
        case "folder gone":
            shutil.rmtree(place)
    with Index.open(folder) as index, pytest.raises(DamagedIndexError, match="run `bagindex"):
        index.heatmap(9, classes="a")
    assert any("run `bagindex repair`" in problem for problem in Index.open(folder).verify().problems)
    assert Index.repair(folder).owed == 4
    again(folder)
    assert answers(folder) == before
    assert Index.open(folder).verify().problems == []


def test_numbers_that_were_exchanged_are_found(folder: Path) -> None:
    from sealing import change_record

    Index.open(folder).compact()
    place = folder / SERIES / "merged-00000-00003-1"
    change_record(place / "merged.json", lambda record: record["offsets"].reverse())
    assert any("is not what its record says" in problem for problem in Index.open(folder).verify().problems)


def test_readers_go_on(folder: Path, groups: int) -> None:
    before = answers(folder)
    with Index.open(folder) as early, Index.open(folder) as late:
        assert early.sql(SQL).to_dicts() == early.sql(SQL, safe=True).to_dicts() == before["rows"]
        early.heatmap(9, classes="a")
        assert late.sql("SELECT count(*) AS n FROM images").to_dicts() == [{"n": 13}]
        Index.open(folder).compact()
        assert early.sql(SQL, safe=True).to_dicts() == before["rows"]
        assert asked(early) == before
        assert asked(late) == before


def in_readings(monkeypatch: pytest.MonkeyPatch, act: Callable[[int, pytest.MonkeyPatch], None]) -> list[int]:
    """Have something done in the middle of each reading of a catalog but its own: it is told which one that is, and
    what it patches is undone. The numbers of the readings so far.
    """
    reading = Catalog.reading
    begun: list[int] = []

    @contextmanager
    def acting(self: Catalog) -> Iterator[None]:
        with reading(self):
            begun.append(len(begun) + 1)
            with monkeypatch.context() as quiet:
                quiet.setattr(Catalog, "reading", reading)
                act(len(begun), quiet)
            yield

    monkeypatch.setattr(Catalog, "reading", acting)
    return begun


@pytest.mark.parametrize(
    ("question", "moment"),
    [*product(["sql", "several of an image", "heatmap"], [1, 2, 3]), *product(["macro"], [3, 4, 5])],
)
def test_a_question_in_whose_middle_evidence_is_merged_is_answered(
    folder: Path, question: str, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask: Callable[[Index], object] = {
        "sql": lambda index: index.sql(SQL).to_dicts(),
        "macro": lambda index: index.sql("FROM evidence_of('a') ORDER BY ALL").to_dicts(),
        "several of an image": lambda index: index.top_patches("a", any_class=True, k=50, per_image=3).to_dicts(),
        "heatmap": lambda index: index.heatmap(9, classes="a").values.tolist(),
    }[question]

    def merge(begun: int, _quiet: pytest.MonkeyPatch) -> None:
        if begun == moment:
            Index.open(folder).compact()

    with Index.open(folder) as index:
        before = ask(index)
    with Index.open(folder) as index:
        begun = in_readings(monkeypatch, merge)
        assert [ask(index), ask(index)] == [before] * 2
        assert len(begun) >= moment
    assert not (folder / SERIES / "shard-00000" / EVIDENCE).exists()


def test_a_view_that_is_made_before_what_it_reads_goes_elsewhere_is_made_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def merge(begun: int, quiet: pytest.MonkeyPatch) -> None:
        if begun == 1:  # the view is made: evidence is in both places, and the catalog is the new one
            quiet.setattr(compact, "_settle", catalog.update)
        if begun <= 2:
            Index.open(folder).compact()

    with Index.open(folder) as index:
        before = index.sql(SQL).to_dicts()
    with Index.open(folder) as index:
        index.sql("SELECT 1")
        begun = in_readings(monkeypatch, merge)
        assert index.sql(SQL).to_dicts() == before
    assert len(begun) >= 2
    assert not (folder / SERIES / "shard-00000" / EVIDENCE).exists()


def test_a_strangers_query_in_whose_middle_evidence_is_merged_is_answered(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asking, begun = Process.ask, 0

    def merging(self: Process, request: dict[str, object]) -> Answer:
        nonlocal begun
        begun += 1
        if begun == 1:
            Index.open(folder).compact()
        return asking(self, request)

    with Index.open(folder) as index:
        before = index.sql(SQL).to_dicts()
        monkeypatch.setattr(Process, "ask", merging)
        assert index.sql(SQL, safe=True).to_dicts() == before
        assert begun == 2
        with pytest.raises(QueryError, match="division"):
            index.sql("SELECT error('division')", safe=True)


def test_readers_of_an_older_state_see_no_images_that_came_later(folder: Path) -> None:
    before = answers(folder)
    with Index.open(folder) as index:
        assert index.sql(SQL).to_dicts() == before["rows"]
        states.Step("grow", states.FIRST + 5).take(folder)
        Index.open(folder).compact()
        assert index.sql(SQL).to_dicts() == before["rows"]
        assert index.top_patches("a", any_class=True, k=50, per_image=3).to_dicts() == before["several of an image"]
        assert index.heatmap(9, classes="a").values.tolist() == before["heatmap"]


def test_damaged_evidence_is_not_merged(folder: Path) -> None:
    path = folder / SERIES / "shard-00002" / EVIDENCE
    with Index.open(folder) as index:
        flip(path, index._stored_evidence(index._model(None))._map(2)._offsets[1])
    files = kept_files(folder)
    with pytest.raises(DamagedIndexError, match=r"shard-00002/evidence\.parquet is damaged \(its SHA-256"):
        Index.open(folder).compact()
    assert kept_files(folder) == files


def test_little_room(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = answers(folder)
    monkeypatch.setattr(compact, "ROWS", 40)
    size = max(group.bytes for group in compact.compact(IndexDirectory(folder), dry_run=True).groups)
    monkeypatch.setattr(IndexDirectory, "free_bytes", lambda self: size - 1)
    with pytest.raises(SpaceError, match=r"merging shards 0 to 1 of linear takes .* make room"):
        Index.open(folder).compact()
    # There is room for one group at a time: what it stands for goes before the next.
    free = 2 * size - 1
    monkeypatch.setattr(IndexDirectory, "free_bytes", lambda self: free - sizes(folder) + taken)
    taken = sizes(folder)
    Index.open(folder).compact()
    assert (own(folder), len(merged(folder))) == ([], 2)
    assert answers(folder) == before


def sizes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob(EVIDENCE))


def test_errors(folder: Path, tmp_path: Path, run: Callable[..., Result]) -> None:
    with pytest.raises(UnknownModelError, match="no model 'other'"):
        Index.open(folder).compact("other")
    with IndexDirectory(folder).writing(), pytest.raises(LockedError):
        Index.open(folder).compact()
    shutil.rmtree(folder / SERIES / "shard-00001")
    with pytest.raises(SettingsError, match="has not finished: run the same"):
        Index.open(folder).compact()
    settings = BuildSettings(keep=Keep.SUMMARY, shard_size=2, workers=1)
    summary = tmp_path / "summary"
    build(IndexDirectory(summary), MemorySource(["a", "b", "a"]), {"a": 0, "b": 1}, LinearCompute("ab"), settings)
    with pytest.raises(NotKeptError, match=r"keeps no evidence.*--keep evidence"):
        Index.open(summary).compact()
    refused = run("compact", "-i", summary)
    assert (refused.status, refused.err.count("\n")) == (1, 1)


def test_it_is_asked_in_an_object_store_but_not_merged_there(folder: Path, memory: str) -> None:
    Index.open(folder).compact()
    expected = answers(folder)
    store = ObjectStore(parse(memory))
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != "LOCK":
            store.put(path.relative_to(folder).as_posix(), path.read_bytes())
    with Index.open(memory) as index:
        assert index.verify().problems == []
        assert index.sql(SQL).to_dicts() == expected["rows"]
        assert index.heatmap(9, classes="a").values.tolist() == expected["heatmap"]
        with pytest.raises(SettingsError, match="is in an object store, where evidence is not merged"):
            index.compact()


def test_the_command(folder: Path, run: Callable[..., Result]) -> None:
    files = kept_files(folder)
    dry = run("compact", "-i", folder, "--dry-run")
    assert dry.status == 0
    assert "linear: shards 0 to 3 would be merged" in dry.out
    assert "1 files of evidence, 2 row groups instead of 4 and 8" in dry.out
    assert kept_files(folder) == files
    done = run("compact", "-i", folder)
    assert (done.status, "linear: shards 0 to 3 merged" in done.out) == (0, True)
    assert "nothing to merge: 1 files of evidence, 2 row groups" in run("compact", "-i", folder).out


def test_shards_are_cut_into_groups_of_bounded_size() -> None:
    assert compact.cut([], 10) == []
    assert compact.cut([4, 4, 4, 4, 12, 1, 0, 9], 10) == [range(0, 2), range(2, 4), range(4, 5), range(5, 8)]
    rng = np.random.default_rng(0)
    for _ in range(50):
        rows = rng.integers(0, 12, rng.integers(1, 20)).tolist()
        cut = compact.cut(rows, 10)
        assert [shard for group in cut for shard in group] == list(range(len(rows)))
        assert all(sum(rows[shard] for shard in group) <= 10 or len(group) == 1 for group in cut)
        # What comes later changes no group but the last.
        assert compact.cut(rows[:-1], 10)[:-1] == cut[: len(compact.cut(rows[:-1], 10)) - 1]


def test_duckdb_alone_reads_it(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with Index.open(folder) as index:
        expected = len(index.sql(SQL))
        index.compact()
    monkeypatch.chdir(folder)
    with duckdb.connect(catalog.current(IndexDirectory(folder)).name, read_only=True) as connection:
        assert connection.execute("SELECT count(*) FROM evidence").fetchall() == [(expected,)]
