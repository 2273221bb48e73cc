"""Object stores that throttle, hang up, refuse and are not there; and writers that meet in one."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bagindex import Index
from bagindex.errors import LockedError, SourceError, StoreError
from bagindex.observer import BuildObserver
from bagindex.remote import lease, objects, trouble
from bagindex.remote.directory import RemoteDirectory
from bagindex.remote.lease import LEASE, Lease
from bagindex.remote.objects import ObjectStore
from bagindex.remote.places import cache_folder, parse
from bagindex.store import IndexDirectory
from stores import Store
from test_remote import Run, contents, files, forget, kept, make, refuse

_QUICK = {"config_kwargs": {"connect_timeout": 1, "read_timeout": 1, "retries": {"total_max_attempts": 1}}}


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody waits for long."""
    monkeypatch.setattr(trouble, "_FIRST_WAIT", 0.01)
    monkeypatch.setattr(trouble, "_LONGEST_WAIT", 0.05)
    monkeypatch.setattr(objects, "_SETTINGS", {"s3": _QUICK})


@pytest.fixture
def built(tmp_path: Path) -> dict[str, bytes]:
    """What a build writes."""
    make(IndexDirectory(tmp_path / "built"))
    return files(tmp_path / "built")


def test_a_build_goes_on_through_throttling_disconnects_and_lost_answers(store: Store, built: dict[str, bytes]) -> None:
    for kind in ("slow down", "error", "refused", "lost"):
        for method in ("PUT", "GET", "HEAD"):
            store.fail(kind, 1, method)
    store.fail("lost", 1, "PUT", "shard-00001/shard.json")
    store.fail("lost", 1, "PUT", "shard-00002/features.parquet")
    store.fail("lost", 1, "PUT", LEASE)
    store.fail("hangs", 1, "PUT", "images.parquet")
    make(RemoteDirectory.at(store.url("index")))
    assert not any(fault.times for fault in store.faults)
    assert kept(store.url("index")) == built


def test_answers_that_are_cut_off_are_asked_for_again(store: Store) -> None:
    url = store.url("index")
    make(RemoteDirectory.at(url))
    with Index.open(url) as index:
        expected = index.top_patches("a").to_dicts(), index.sql("SELECT sum(logit) FROM evidence").to_dicts()
    forget()
    for kind in ("cut", "slow down", "refused", "hangs"):
        for path in (r"\.parquet", r"\.duckdb", r"\.json"):
            store.fail(kind, 1, "GET", path)
    with Index.open(url) as index:
        assert (index.top_patches("a").to_dicts(), index.sql("SELECT sum(logit) FROM evidence").to_dicts()) == expected
    assert not any(fault.times for fault in store.faults)


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("slow down", "run the same command again"),
        ("refused", "run the same command again"),
        ("hangs", "run the same command again"),
        ("denied", "refuses (Access Denied): see whether your credentials are right"),
        ("elsewhere", "is in another region"),
    ],
)
def test_a_store_that_fails_for_good_is_one_clear_line(
    store: Store, run: Run, kind: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "TRIES", 3)
    store.fail(kind, 1000)
    began = time.monotonic()
    found = run("info", "-i", store.url("index"))
    assert time.monotonic() - began < 20
    assert (found.status, found.err.count("\n")) == (1, 1)
    assert says in found.err
    assert store.bucket in found.err


def test_a_build_that_fails_half_way_keeps_what_is_committed(
    store: Store, built: dict[str, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "TRIES", 2)
    fault = store.fail("slow down", 1000, "PUT", "shard-00001/evidence")
    with pytest.raises(StoreError, match=r"cannot write linear/shard-00001/evidence.parquet .*what is committed stays"):
        make(RemoteDirectory.at(store.url("index")))
    assert {name for name in kept(store.url("index")) if name.endswith("shard.json")} == {
        *("images/shard-00000/shard.json", "images/shard-00001/shard.json", "linear/shard-00000/shard.json")
    }
    fault.times = 0
    make(RemoteDirectory.at(store.url("index")))
    assert kept(store.url("index")) == built


def test_a_store_that_fails_is_no_damage(store: Store, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    url = store.url("index")
    make(RemoteDirectory.at(url))
    before = contents(store.url("index"))
    forget()
    monkeypatch.setattr(trouble, "TRIES", 1)
    with Index.open(url) as index:
        for path, ask in (
            ("catalog", lambda: index.top_patches("a")),
            ("evidence.parquet", lambda: index.sql("SELECT sum(logit) FROM evidence")),
            ("evidence.parquet", lambda: index.explain(1)),
            ("pixels.parquet", lambda: index.pixels(1)),
            ("features.parquet", index.verify),
        ):
            fault = store.fail("slow down", 1000, "GET", path)
            with pytest.raises(StoreError, match=r"cannot read .*run the same command again"):
                ask()
            fault.times = 0
    forget()
    fault = store.fail("slow down", 1000, "GET", "features.parquet")
    assert "cannot read" in run("repair", "-i", url, "--yes").err
    fault.times = 0
    after = contents(url)
    assert LEASE in after  # it could not be given back, and is this mirror's own
    assert {name: data for name, data in after.items() if name != LEASE} == before
    assert run("repair", "-i", url, "--yes").status == 0
    assert LEASE not in contents(url)


def test_no_bucket_no_credentials_no_address_and_no_library_are_said(
    store: Store, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trouble, "TRIES", 2)
    asked = "info", "-i"
    assert "there is no bucket s3://nowhere-at-all" in run(*asked, "s3://nowhere-at-all/index").err
    assert "install 'bagindex[gs]'" in run(*asked, "gs://bucket/index").err
    with monkeypatch.context() as patched:
        patched.delenv("AWS_ACCESS_KEY_ID")
        patched.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        assert "no credentials for s3://" in (found := run(*asked, store.url("index")).err)
        assert "set AWS_ACCESS_KEY_ID" in found
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert "cannot be reached" in run(*asked, store.url("index")).err


def test_two_writers_are_one_too_many(store: Store, built: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEWED", 0.1)
    monkeypatch.setattr(lease, "_LOOK", 0.05)
    refused: list[str] = []

    class Other(BuildObserver):
        """Builds the same meanwhile, on another computer."""

        def advanced(self, files: int) -> None:
            if not refused:
                with monkeypatch.context() as patched:
                    patched.setenv("BAGINDEX_CACHE", str(cache_folder().parent / "other"))
                    with pytest.raises(LockedError) as error:
                        make(RemoteDirectory.at(store.url("index")))
                    refused.append(str(error.value))

    make(RemoteDirectory.at(store.url("index")), Other())
    assert "is writing s3://" in refused[0]
    assert kept(store.url("index")) == built


def test_a_shard_that_somebody_else_has_put_is_not_overwritten(store: Store, built: dict[str, bytes]) -> None:
    record = "linear/shard-00001/shard.json"

    class Other(BuildObserver):
        """Commits the second shard before the build does, as a writer that was taken for dead."""

        seen = 0

        def advanced(self, files: int) -> None:
            self.seen += files
            if self.seen == 5:
                store.client().pipe_file(f"{store.bucket}/index/{record}", b"another's")

    with pytest.raises(LockedError, match=r"shard-00001/shard.json was written by somebody else just now"):
        make(RemoteDirectory.at(store.url("index")), Other())
    assert contents(store.url("index"))[record] == b"another's"


@pytest.fixture
def objects_of(memory: str) -> ObjectStore:
    return ObjectStore(parse(memory))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leases last for a moment."""
    monkeypatch.setattr(lease, "LASTS", 1.0)
    monkeypatch.setattr(lease, "_RENEWED", 0.2)
    monkeypatch.setattr(lease, "_LOOK", 0.1)


def left(place: ObjectStore, mirror: str) -> None:
    """A lease of a process that was killed."""
    place.put(LEASE, b'{"token": "x", "who": "process 1 on elsewhere", "mirror": "%s"}' % mirror.encode())


@pytest.mark.usefixtures("short")
def test_the_lease_of_a_killed_writer_is_taken_over(objects_of: ObjectStore) -> None:
    left(objects_of, "there")
    began = time.monotonic()
    Lease(objects_of, "here").give_back()
    assert time.monotonic() - began >= 1
    left(objects_of, "here")  # the mirror's lock is held, so that it was this disk's own
    began = time.monotonic()
    Lease(objects_of, "here").give_back()
    assert time.monotonic() - began < 1
    assert objects_of.find(LEASE) is None


@pytest.mark.usefixtures("short")
def test_a_lease_that_is_renewed_is_not_taken_over(objects_of: ObjectStore) -> None:
    first = Lease(objects_of, "there")
    with pytest.raises(LockedError, match=r"process \d+ on .* is writing memory://"):
        Lease(objects_of, "here")
    first.check()
    first.give_back()


@pytest.mark.usefixtures("short")
def test_who_lost_the_lease_stops_writing(objects_of: ObjectStore) -> None:
    held = Lease(objects_of, "here")
    held.check()
    left(objects_of, "there")
    time.sleep(0.5)  # it was to be renewed meanwhile
    with pytest.raises(LockedError, match="is being written by somebody else"):
        held.check()
    held.give_back()
    assert objects_of.find(LEASE) is not None  # it is another's


@pytest.mark.usefixtures("short")
def test_who_cannot_renew_the_lease_stops_writing(objects_of: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    held = Lease(objects_of, "here")
    with monkeypatch.context() as patched:
        patched.setattr(ObjectStore, "put", refuse)
        time.sleep(1.1)
        with pytest.raises(LockedError, match="was not heard of"):
            held.check()
    held.give_back()


def test_only_one_of_many_has_the_lease(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lease, "_RENEWED", 0.1)
    monkeypatch.setattr(lease, "_LOOK", 0.05)
    place = ObjectStore(parse(store.url("index")))
    place.find(LEASE)  # connected: all of them come at the same moment

    def take(number: int) -> Lease | None:
        try:
            return Lease(place, str(number))
        except LockedError:
            return None

    with ThreadPoolExecutor(4) as pool:
        (held,) = [each for each in pool.map(take, range(4)) if each is not None]
    held.give_back()


def test_a_store_that_fails_costs_no_picture(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from bagindex.remote.source import open_remote

    monkeypatch.setattr(trouble, "TRIES", 2)
    client = store.client()
    for name in ("a/1.png", "a/2.png", "b/3.png", "b/.hidden", "b/Thumbs.db", "loose.txt"):
        client.pipe_file(f"{store.bucket}/photos/{name}", name.encode())
    source = open_remote(store.url("photos"))
    assert [(entry.text, entry.label) for entry in source.entries] == [
        ("a/1.png", "a"),
        ("a/2.png", "a"),
        ("b/3.png", "b"),
    ]
    assert (source.kind, source.name) == ("folders", f"{store.bucket}-photos")
    assert source.read(source.entries[1]) == b"a/2.png"
    store.fail("slow down", 1, "GET", "2.png")
    assert source.read(source.entries[1]) == b"a/2.png"
    store.fail("slow down", 100, "GET", "2.png")
    with pytest.raises(StoreError, match=r"cannot read a/2.png"):
        source.read(source.entries[1])
    client.rm_file(f"{store.bucket}/photos/a/1.png")
    client.pipe_file(f"{store.bucket}/photos/b/3.png", b"longer than it was")
    from bagindex.images import Rejected

    for entry, code in ((source.entries[0], "missing"), (source.entries[2], "changed")):
        with pytest.raises(Rejected) as rejected:
            source.read(entry)
        assert rejected.value.code == code
    with pytest.raises(SourceError, match="no files in s3://"):
        open_remote(store.url("nothing"))
