"""Indexes in object stores: what is built there is what is built on a disk, and is asked like it."""

from __future__ import annotations

import os
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bagindex import Index
from bagindex.build import BuildReport, BuildSettings, build
from bagindex.errors import IndexNotFoundError, OutdatedError, QueryError, SettingsError, StoreError
from bagindex.observer import BuildObserver
from bagindex.remote.directory import RemoteDirectory
from bagindex.remote.mirror import Mirror, mirror_of, shrink
from bagindex.remote.objects import ObjectStore
from bagindex.remote.places import cache_folder, parse
from bagindex.remote.trouble import Absent, Conflict
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Keep
from conftest import Result
from fakes import LinearCompute, MemorySource
from serving import API, check_problem, running
from stores import Store

Run = Callable[..., Result]
LABELS = ["a", "b", "a", None, "b", "a", "b", "a", "b", None]
CLASS_IDS = {"a": 0, "b": 1}


@pytest.fixture
def copied(planted_words: Index, planted_in_store: str, store: Store) -> tuple[Index, str]:
    """An index on a disk, and the URL of a copy of it. Neither is to be changed."""
    return planted_words, planted_in_store


def contents(url: str) -> dict[str, bytes]:
    """The objects below a place."""
    store = ObjectStore(parse(url))
    return {name: store.read(name, 0, each.size, each.tag) for name, each in store.listing().items()}


def put(url: str, name: str, data: bytes) -> None:
    """Put an object, whatever is there."""
    ObjectStore(parse(url)).put(name, data)


def kept(url: str) -> dict[str, bytes]:
    """What a build has put."""
    return {name: data for name, data in contents(url).items() if lasting(name)}


def make(directory: IndexDirectory, observer: BuildObserver | None = None, **settings: object) -> BuildReport:
    return build(
        directory,
        MemorySource(LABELS, frozenset({2, 9})),
        CLASS_IDS,
        LinearCompute("ab"),
        BuildSettings(**{"shard_size": 4, "workers": 1, **settings}),  # type: ignore[arg-type]
        observer,
    )


class Stopped(BuildObserver):
    """Stops a build after so many files."""

    def __init__(self, after: int) -> None:
        self._left = after

    def advanced(self, files: int) -> None:
        self._left -= files
        if self._left < 0:
            raise KeyboardInterrupt


def files(folder: Path) -> dict[str, bytes]:
    """What a build writes, but the catalog, which DuckDB lays out as it likes."""
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    return {name: path.read_bytes() for name, path in found.items() if lasting(name)}


def lasting(name: str) -> bool:
    return name not in ("LOCK", "CURRENT") and not name.startswith("catalog-")


def forget() -> None:
    """As on another computer: nothing is in the cache."""
    shutil.rmtree(cache_folder(), ignore_errors=True)


def test_a_build_that_was_stopped_goes_on_from_another_computer_to_the_same_bytes(store: Store, tmp_path: Path) -> None:
    url = store.url("index")
    make(IndexDirectory(tmp_path / "index"))
    with pytest.raises(KeyboardInterrupt):
        make(RemoteDirectory.at(url), Stopped(6))
    began = contents(url)
    assert "images/shard-00000/shard.json" in began
    assert not any(name.startswith("catalog") for name in began)
    forget()
    assert make(RemoteDirectory.at(url)).computed == 5  # of the last two shards; of the first, nothing
    assert kept(url) == files(tmp_path / "index")
    assert "LOCK" not in contents(url)
    assert make(RemoteDirectory.at(url)).computed == 0


def test_what_a_killed_writer_left_without_a_record_is_no_shard(memory: str, tmp_path: Path) -> None:
    make(IndexDirectory(tmp_path / "index"))
    with pytest.raises(KeyboardInterrupt):
        make(RemoteDirectory.at(memory), Stopped(6))
    put(memory, "images/shard-00001/images.parquet", b"half of it")
    put(memory, "linear/shard-00001/stray.parquet", b"more")
    directory = RemoteDirectory.at(memory)
    assert directory.committed("images") == [0]
    make(directory)
    assert kept(memory) == files(tmp_path / "index")


def test_a_place_that_holds_something_else_is_left_alone(memory: str) -> None:
    put(memory, "letters/mother.txt", b"dear")
    with pytest.raises(SettingsError, match=r"holds something else \(letters/mother.txt\): give --out"):
        make(RemoteDirectory.at(memory))
    assert contents(memory) == {"letters/mother.txt": b"dear"}


EVIDENCE = "SELECT image_id, max(logit) FROM evidence WHERE class = 'fish' GROUP BY 1 ORDER BY 1"
FEATURES = "SELECT sum(feature[1]) FROM features WHERE image_id = 3"
WIDE = "width > 10"
QUESTIONS: dict[str, tuple[Callable[[Index], object], int]] = {
    "top_patches": (lambda index: index.top_patches("fish").to_dicts(), 3_000),
    "the wrong class": (
        lambda index: index.top_patches("fish", wrong_class=True, where="width > 10").to_dicts(),
        3_000,
    ),
    "several of an image": (lambda index: index.top_patches("fish", per_image=3).to_dicts(), 3_000),
    "a patch's pixels": (lambda index: index.patch_pixels(1000).tolist(), 3_000),
    "evidence in SQL": (lambda index: index.sql(EVIDENCE).to_dicts(), 3_000),
    "features in SQL": (
        lambda index: index.sql("SELECT sum(feature[1]) FROM features WHERE image_id = 3").to_dicts(),
        4_000,
    ),
    "words in SQL": (lambda index: index.sql("FROM words_of('fish') ORDER BY 1, 2").to_dicts(), 4_000),
    "explain": (lambda index: [vars(each) for each in index.explain(3).patches], 3_500),
    "similar": (lambda index: index.similar(1000, exact=True).to_dicts(), 16_000),
    "words": (lambda index: index.words("fish").to_dicts(), 3_000),
    "why": (lambda index: index.why(3).to_dicts(), 4_000),
}


def test_questions_have_the_answers_that_they_have_on_a_disk_and_read_little(
    copied: tuple[Index, str], store: Store
) -> None:
    local, url = copied
    for question, (ask, most) in QUESTIONS.items():
        forget()
        before = store.sent
        with Index.open(url) as index:
            assert ask(index) == ask(local), question
            sent = store.sent - before
            assert sent <= 1000 * most, question
            assert ask(index) == ask(local), question
        with Index.open(url) as index:
            assert ask(index) == ask(local), question
        assert store.sent - before == sent, f"{question}: all of it is in the cache"


def test_a_remote_index_is_named_by_its_url(
    copied: tuple[Index, str], run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    local, url = copied
    expected = run("top-patches", "fish", "-i", local.path, "--format", "json").out
    assert run("top-patches", "fish", "-i", url, "--format", "json").out == expected
    assert run("top-patches", "fish", "-i", f"file://{local.path}", "--format", "json").out == expected
    monkeypatch.setenv("BAGINDEX_INDEX", url)
    assert run("top-patches", "fish", "--format", "json").out == expected
    assert url in run("info").out
    # The folder of the mirror has holes: whoever opens it means what it mirrors.
    with Index.open(mirror_of(parse(url)).root) as index:
        assert index.place == url


def test_a_url_that_names_nothing_is_said_to(store: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(IndexNotFoundError, match="there is no index at s3://"):
        Index.open(store.url("nothing"))
    for url in ("s3://", "s3:///x", "s3://bucket/../x", "s3://bucket/a?b"):
        found = run("info", "-i", url)
        assert (found.status, found.err.count("\n")) == (1, 1)
        assert "is no place in an object store" in found.err
    assert "give s3://, gs:// or az://" in run("info", "-i", "nosuch://bucket/index").err
    monkeypatch.setenv("BAGINDEX_HOME", store.url("home"))
    assert "BAGINDEX_HOME is a folder" in run("list").err


def test_strangers_sql_has_no_network_and_is_told_so(copied: tuple[Index, str], store: Store) -> None:
    local, url = copied
    with Index.open(url) as index:
        summary = "SELECT class, max(max_logit) FROM image_evidence GROUP BY 1 ORDER BY 1"
        assert index.sql(summary, safe=True).to_dicts() == local.sql(summary).to_dicts()
        for query in (EVIDENCE, "FROM features LIMIT 1", "FROM pixels", "FROM evidence_of('fish')"):
            with pytest.raises(QueryError, match="reads files of an object store, which a query in the sandbox cannot"):
                index.sql(query, safe=True)


def test_an_index_is_compared_with_its_copy_in_a_store(copied: tuple[Index, str]) -> None:
    local, url = copied
    with Index.open(url) as index, Index.open(local.path) as here:
        found = here.diff(index)
        assert (found.images, len(found), len(found.settings)) == (48, 0, 0)
        assert found.whole["evidence, largest change"] == 0
        assert found.words_compared.same == 1


def test_an_index_grows_and_goes_in_a_store(memory: str, run: Run, tmp_path: Path) -> None:
    make(RemoteDirectory.at(memory), keep=Keep.SUMMARY)
    make(RemoteDirectory.at(memory))  # a higher keep level
    with Index.open(memory) as index:
        index.make_words(3)
        index.make_map(sample=9)
        index.relabel(labels_file(tmp_path))
    forget()
    with Index.open(memory) as index:
        assert index.words_made() == 3
        assert len(index.patch_map()) == 9
        assert index.sql("SELECT label_name FROM images WHERE image_id = 0").to_dicts() == [{"label_name": "b"}]
        assert index.verify(data=True).ok
    assert run("remove", "-i", memory, "--yes").status == 0
    assert contents(memory) == {}
    assert "there is no index at" in run("info", "-i", memory).err


def labels_file(folder: Path) -> Path:
    path = folder / "labels.csv"
    path.write_text("path,label\n0000.png,b\n")
    return path


def test_workers_on_other_computers_commit_to_the_same_index(memory: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        make(RemoteDirectory.at(memory), Stopped(6))
    directory = RemoteDirectory.at(memory)
    there = pickle.loads(pickle.dumps(directory))
    assert (there.place, there.committed("images")) == (directory.place, [0])
    mirror = Mirror(ObjectStore(directory.mirror.store.place), tmp_path / "there" / "mirror")
    make(RemoteDirectory.of(mirror))
    assert directory.committed("images") == [0]
    directory.refresh()
    assert directory.committed("images") == [0, 1, 2]


def test_a_store_that_is_asked_in_the_general_way(memory: str, tmp_path: Path) -> None:
    make(IndexDirectory(tmp_path / "index"))
    make(RemoteDirectory.at(memory))
    assert kept(memory) == files(tmp_path / "index")
    forget()
    with Index.open(memory) as index, Index.open(tmp_path / "index") as local:
        for query in (EVIDENCE.replace("fish", "a"), "SELECT sum(feature[1]) FROM features"):
            assert index.sql(query).to_dicts() == local.sql(query).to_dicts()
        assert index.top_patches("a").to_dicts() == local.top_patches("a").to_dicts()
    store = ObjectStore(parse(memory))
    with pytest.raises(Conflict):
        store.put("index.json", b"{}", new=True)
    with pytest.raises(Conflict):
        store.put("index.json", b"{}", over="another")
    with pytest.raises(Conflict):
        store.read("index.json", 0, 10, "another")
    with pytest.raises(Absent):
        store.read("nothing", 0, 10)


def test_verify_sees_the_store_and_not_the_cache_and_repair_mends_it(memory: str, run: Run) -> None:
    make(RemoteDirectory.at(memory))
    before = contents(memory)
    assert run("verify", "-i", memory, "--data").status == 0
    for name in ("linear/shard-00001/features.parquet", "linear/model.safetensors"):
        data = bytearray(before[name])
        data[len(data) // 2] ^= 1
        put(memory, name, bytes(data))
    found = run("verify", "-i", memory, "--data")
    assert found.status == 1
    assert "shard-00001/features.parquet is damaged" in found.out
    assert "model.safetensors is damaged" in found.out
    assert run("repair", "-i", memory, "--yes").status == 0
    assert "linear/shard-00001/shard.json" not in contents(memory)
    make(RemoteDirectory.at(memory))
    assert kept(memory) == {name: data for name, data in before.items() if lasting(name)}


def test_a_changed_index_is_seen_by_who_serves_it(memory: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("bagindex.remote.mirror._FOLLOWED", 0.05)
    make(RemoteDirectory.at(memory))
    forget()
    with running([memory]) as served:
        asked = "/images/0"
        assert served.json(asked)["label_name"] == "a"
        assert served.json("/indexes")["indexes"][0]["name"] == "index"
        # As somebody on another computer does it.
        monkeypatch.setenv("BAGINDEX_CACHE", str(tmp_path / "other"))
        with Index.open(memory) as index:
            index.relabel(labels_file(tmp_path))
        until = time.monotonic() + 20
        while served.json(asked)["label_name"] != "b":
            assert time.monotonic() < until
            time.sleep(0.05)
        answer = served.client.post(f"{API}/sql", json={"sql": "FROM evidence"})
        assert "reads files of an object store" in check_problem(answer, 422, "cannot-answer")["detail"]
        monkeypatch.setattr(ObjectStore, "read", refuse)
        assert "bucket" not in str(served.problem("/images/5.png", 503, "store-unavailable"))


def refuse(store: ObjectStore, *_: object, **__: object) -> bytes:
    raise StoreError(f"{store.place} and {store.place.protocol}://{store.place.bucket} refuse")


def test_the_cache_keeps_its_bound(copied: tuple[Index, str], store: Store) -> None:
    local, url = copied
    with Index.open(url) as index:
        index.similar(1000, exact=True)
        assert held() > 10_000_000
        for sums in cache_folder().glob("*/blocks/**/*"):
            os.utime(sums, (0, 0))
        shrink(cache_folder(), 1_000_000)
        assert held() <= 1_000_000
        assert index.similar(1000, exact=True).to_dicts() == local.similar(1000, exact=True).to_dicts()


def held() -> int:
    return sum(path.stat().st_blocks * 512 for path in cache_folder().glob("*/index/**/*") if path.is_file())


def test_a_flipped_bit_in_the_cache_is_read_again(copied: tuple[Index, str], store: Store) -> None:
    local, url = copied
    expected = local.sql(EVIDENCE).to_dicts()
    with Index.open(url) as index:
        assert index.sql(EVIDENCE).to_dicts() == expected
        for path in index.path.rglob("evidence.parquet"):
            with path.open("r+b") as file:
                for place in range(0, path.stat().st_size, 1000):
                    file.seek(place)
                    byte = file.read(1)[0]
                    file.seek(place)
                    file.write(bytes([byte ^ 1]))
    with Index.open(url) as index:
        assert index.sql(EVIDENCE).to_dicts() == expected


def test_what_was_replaced_under_a_reader_is_not_mixed_with_what_was_read(memory: str) -> None:
    make(RemoteDirectory.at(memory))
    forget()
    with Index.open(memory) as index:
        index.top_patches("a")
        name = "linear/shard-00001/evidence.parquet"
        put(memory, name, contents(memory)[name][::-1])
        with pytest.raises(OutdatedError, match="has changed since the index was opened: open it again"):
            index.why(5)
