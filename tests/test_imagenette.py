"""Imagenette: fetched from a local server, decompressed once, read where it lies."""

from __future__ import annotations

import gzip
import hashlib
import io
import pickle
import tarfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from bagindex import Index, fetching
from bagindex.errors import DiskError, SettingsError, SourceError
from bagindex.observer import BuildObserver
from bagindex.sources import imagenette
from bagindex.sources.opening import SourceOptions, open_source
from fakes import LinearCompute, number_png
from test_official import Server, answer, cut
from test_source_kinds import opened

WNIDS = ("n01440764", "n02102040")
STEM = "imagenette2-320"


def packed() -> bytes:
    """The archive: four pictures to validate and two to train."""
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as tar:
        members = {f"{STEM}/noisy_imagenette.csv": b"path", f"{STEM}/.DS_Store": b""}
        for split, count in (("val", 2), ("train", 1)):
            for wnid in WNIDS:
                for number in range(count):
                    members[f"{STEM}/{split}/{wnid}/{split}_{number}.JPEG"] = number_png(number, 16)
        for name, content in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(content)
            tar.addfile(header, io.BytesIO(content))
    return gzip.compress(data.getvalue(), mtime=0)


PACKED = packed()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setitem(imagenette.ARCHIVES, "imagenette", imagenette._Archive(STEM, hashlib.md5(PACKED).hexdigest()))
    monkeypatch.setattr(fetching, "_BACK_OFF", (0, 0))
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        server.data = PACKED
        monkeypatch.setenv("BAGINDEX_DATASETS_URL", f"{server.url}/mirror")
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Heard(BuildObserver):
    def __init__(self) -> None:
        self.progress: list[tuple[str, int, int | None]] = []
        self.notes: list[str] = []

    def fetched(self, what: str, done: int, total: int | None) -> None:
        self.progress.append((what, done, total))

    def note(self, text: str) -> None:
        self.notes.append(text)


def kept(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")


def test_it_is_fetched_once_and_labelled_with_wnids(server: Server, tmp_path: Path) -> None:
    heard = Heard()
    source = open_source(SourceOptions("imagenette", data=tmp_path), heard)
    assert [path for path, _ in server.requests] == [f"/mirror/{STEM}.tgz"]
    assert heard.progress[-1] == (f"{STEM}.tgz", len(PACKED), len(PACKED))
    assert (source.kind, source.name) == ("imagenette", "imagenette-val")
    assert [(entry.text, entry.label) for entry in source.entries] == [
        (f"{wnid}/val_{number}.JPEG", wnid) for wnid in WNIDS for number in (0, 1)
    ]
    assert [source.read(entry) for entry in source.entries] == [number_png(n, 16) for n in (0, 1, 0, 1)]
    again = pickle.loads(pickle.dumps(source.reader()))
    assert again.read(source.entries[1]) == number_png(1, 16)
    assert kept(tmp_path) == [f"{STEM}.tar"]
    assert len(opened("imagenette", data=tmp_path, split="train").entries) == 2
    assert len(server.requests) == 1


def test_a_download_that_broke_goes_on(server: Server, tmp_path: Path) -> None:
    server.script = [cut]
    heard = Heard()
    open_source(SourceOptions("imagenette", data=tmp_path), heard)
    assert server.sent("Range") == [None, f"bytes={len(PACKED) // 2}-"]
    assert heard.notes[0].startswith("the connection broke after")


def test_without_a_network_it_is_said_what_to_bring(server: Server, tmp_path: Path) -> None:
    server.script = [answer(404)]
    md5 = hashlib.md5(PACKED).hexdigest()
    said = rf"cannot fetch {STEM}\.tgz: HTTP 404 .*; bring {STEM}\.tgz \(its MD5 is {md5}\) from .* and put it at .*tgz"
    with pytest.raises(SourceError, match=said):
        opened("imagenette", data=tmp_path)
    (tmp_path / f"{STEM}.tgz").write_bytes(PACKED)
    assert len(opened("imagenette", data=tmp_path).entries) == 4
    assert kept(tmp_path) == [f"{STEM}.tar", f"{STEM}.tgz"]  # what a person brought stays
    assert len(server.requests) == 1


def test_another_archive_is_refused(server: Server, tmp_path: Path) -> None:
    server.data = PACKED + b"x"
    with pytest.raises(SourceError, match=r"what .* gives is refused: its MD5 is [0-9a-f]{32}; bring"):
        opened("imagenette", data=tmp_path)
    assert kept(tmp_path) == []
    (tmp_path / f"{STEM}.tgz").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"imagenette2-320\.tgz has the MD5 .*: fetch it again"):
        opened("imagenette", data=tmp_path)


def test_a_decompression_that_was_cut_off_is_done_again(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(imagenette.shutil, "copyfileobj", killed)
        with pytest.raises(KeyboardInterrupt):
            opened("imagenette", data=tmp_path)
    assert kept(tmp_path) == [f"{STEM}.tgz"]
    assert len(opened("imagenette", data=tmp_path).entries) == 4
    assert len(server.requests) == 1


def test_a_misspelt_name_is_recognised() -> None:
    with pytest.raises(SourceError, match="the source imagenete does not exist: did you mean 'imagenette' or"):
        opened("imagenete")


def test_what_cannot_be(server: Server, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="imagenette has no split 'test': --split takes val or train"):
        opened("imagenette", split="test")
    with pytest.raises(SettingsError, match="leave out --labels: imagenette takes --data, --split"):
        opened("imagenette", labels="x.csv")
    (tmp_path / "file").touch()
    with pytest.raises(DiskError, match=r"cannot keep data sets in .*file: .*BAGINDEX_DATASETS"):
        opened("imagenette", data=tmp_path / "file")
    assert server.requests == []


def test_an_index_of_it(server: Server, tmp_path: Path) -> None:
    compute = LinearCompute(("tench", "springer"))
    compute.classes = tuple(
        each.model_copy(update={"wnid": wnid}) for each, wnid in zip(compute.classes, WNIDS, strict=True)
    )
    index = Index.build("imagenette", compute=compute, ann="none")
    assert (index.path.name, index.info().images) == ("imagenette-val", 4)
    assert [row["label_name"] for row in index.sql("SELECT label_name FROM images ORDER BY image_id").to_dicts()] == [
        *["tench"] * 2,
        *["springer"] * 2,
    ]
