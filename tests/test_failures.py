"""What goes wrong for a newcomer is said on one line that is enough to go on with."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from bagindex.build import BuildSettings, build
from bagindex.catalog import current
from bagindex.locking import last_writer
from bagindex.output import save
from bagindex.store import IndexDirectory
from bagindex.text import near
from bagindex_cli.failing import words
from fakes import LinearCompute, MemorySource


@pytest.fixture
def photos(home_folder: Path) -> Path:
    """An index by the name of photos."""
    settings = BuildSettings(shard_size=2, workers=1)
    build(
        IndexDirectory(home_folder / "photos"),
        MemorySource(["a", "b"]),
        {"a": 0, "b": 1},
        LinearCompute("ab"),
        settings,
    )
    return home_folder / "photos"


def one_line(error: str) -> str:
    (line,) = error.splitlines()
    assert line.startswith("bagindex: ")
    return line.removeprefix("bagindex: ")


def test_the_nearest_name_is_asked_for(photos: Path, run) -> None:  # type: ignore[no-untyped-def]
    asked = one_line(run("top-patches", "a", "-i", "phtos").err)
    assert asked == "there is no index phtos: did you mean 'photos'?"
    asked = one_line(run("reproduce", "acuracy", "-o", "x").err)
    assert asked == "there is no experiment 'acuracy': did you mean 'accuracy'?"
    assert "it is one of accuracy, correlation" in one_line(run("reproduce", "zzz", "-o", "x").err)
    assert near("TSHIRT", ["t-shirt", "dress", "shirt"]) == ["t-shirt", "shirt"]


def test_what_is_no_index_is_said(photos: Path, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    (tmp_path / "note.txt").write_text("")
    (tmp_path / "pictures").mkdir()
    file, folder = tmp_path / "note.txt", tmp_path / "pictures"
    said = one_line(run("info", "-i", file).err)
    assert said == f"{file} is a file, and an index a folder; by name there are: 'photos'"
    said = one_line(run("info", "-i", folder).err)
    assert said.startswith(f"{folder} holds no index: `bagindex build {folder} --weights FILE` makes one of pictures")


def test_the_environment_is_named_where_it_is_wrong(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("BAGINDEX_INDEX", "zzz")
    assert one_line(run("info").err) == "there is no index zzz; by name there are: 'photos' (BAGINDEX_INDEX names it)"
    assert run("info", "-i", "photos").status == 0
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("BAGINDEX_HOME", str(tmp_path / "file"))
    monkeypatch.delenv("BAGINDEX_INDEX")
    for command in (("list",), ("info",), ("info", "-i", "photos")):
        assert "which is a file: name another, or unset it" in one_line(run(*command).err)


@pytest.mark.parametrize("command", ["explain 0", "heatmap 0", "why 0", "flip 0", "reproduce accuracy -o results"])
def test_a_gpu_that_there_is_not_is_said_although_nothing_would_run_on_it(
    command: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run
) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(tmp_path)
    said = one_line(run(*command.split(), "--device", "cuda:99").err)
    assert said.startswith("there is no GPU cuda:99: ")
    assert said.endswith("use --device cpu")
    assert "--device takes auto, cpu, cuda or cuda:N" in one_line(run(*command.split(), "--device", "gpu").err)
    assert not list(tmp_path.iterdir())


def test_a_place_that_cannot_be_written_says_what_to_do(photos: Path, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    target = tmp_path / "none" / "x.json"
    said = one_line(run("top-patches", "a", "-i", "photos", "-o", target).err)
    assert said == f"cannot write {target}: No such file or directory; make the folder {tmp_path / 'none'} first"
    for number, advice in (
        (errno.ENOSPC, "make room, or give a place on another disk"),
        (errno.EACCES, "give a place that you may write to"),
        (errno.EROFS, "give a place that you may write to"),
    ):

        def fail(_: Path, number: int = number) -> None:
            raise OSError(number, os.strerror(number))

        with pytest.raises(Exception, match=f"cannot write .*{os.strerror(number)}; {advice}"):
            save(tmp_path / "x.json", {".json": fail})


def test_a_read_only_disk_is_said_though_nothing_can_be_removed_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(*_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(Path, "unlink", read_only)
    with pytest.raises(Exception, match=r"cannot write .*Read-only file system; give a place"):
        save(tmp_path / "x.json", {".json": read_only})


def test_files_of_others_are_not_taken_for_damaged(photos: Path) -> None:
    """A process without the right to all files, which root has, is told so; repairing would not help it."""
    drop = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and nothing here takes that right away")
    prefix = drop if os.geteuid() == 0 else []
    for file in (photos / "index.json", current(IndexDirectory(photos))):
        file.chmod(0)
        command = [*prefix, sys.executable, "-m", "bagindex_cli", "top-patches", "a", "-i", str(photos)]
        said = one_line(subprocess.run(command, capture_output=True, text=True).stderr)
        file.chmod(0o644)
        assert said == (
            f"cannot read {file} (Permission denied): have yourself given the right to read it, it may be whole"
        )


def test_who_builds_is_named_while_it_builds(photos: Path, run) -> None:  # type: ignore[no-untyped-def]
    (photos / "CURRENT").unlink()
    shutil.rmtree(photos / "linear" / "shard-00000")
    assert "has not finished: run the same `bagindex build` command again" in one_line(run("words", "-i", "photos").err)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as other:
        (photos / "LOCK").write_text(f"{other.pid}\n")
        assert last_writer(photos) == str(other.pid)
        said = one_line(run("top-patches", "a", "-i", "photos").err)
        assert f"has not finished: process {other.pid} seems to be at it, wait until it ends, or run the same" in said
        other.communicate(b"\n")
    for text in (f"{other.pid}", f"{os.getpid()}", "0", "-1", "x", "", "9" * 30):
        (photos / "LOCK").write_text(text)
        assert last_writer(photos) == ""


def test_a_port_that_is_taken_is_said(photos: Path, run) -> None:  # type: ignore[no-untyped-def]
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        said = one_line(run("mcp", "-i", photos, "--http", place).err)
    assert "another program may have it; give another --http" in said


def test_weights_that_are_cut_off(photos: Path, tmp_path: Path, planted_folder: Path, run) -> None:  # type: ignore[no-untyped-def]
    data = (planted_folder / "bagnet33.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(data[:100_000])
    ended = run("build", planted_folder / "pictures", "--weights", tmp_path / "cut.safetensors", "--name", "x")
    assert ended.status == 1
    assert "it may be cut off, fetch or copy it again" in ended.err.splitlines()[-1]


def test_errors_of_the_system_and_of_the_installation() -> None:
    denied = PermissionError(errno.EACCES, "Permission denied", "/root/x")
    assert words(denied) == "Permission denied (/root/x): have yourself given the right to it, or give another place"
    assert "make room there" in words(OSError(errno.ENOSPC, "No space left on device", "x"))
    missing = ModuleNotFoundError("No module named 'faiss'", name="faiss")
    assert words(missing) == (
        "faiss cannot be imported (No module named 'faiss'): install bagindex again, with all it requires"
    )
    ours = ModuleNotFoundError("No module named 'bagindex.x'", name="bagindex.x")
    assert "this is a bug" in words(ours)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_terminal_that_lacks_characters_is_no_error(encoding: str, tmp_path: Path) -> None:
    names = ["hütte", "大", "🐟"]
    settings = BuildSettings(shard_size=3, workers=1)
    ids = dict(zip(names, range(3), strict=True))
    build(IndexDirectory(tmp_path / "i"), MemorySource(names), ids, LinearCompute(names), settings)
    command = [sys.executable, "-m", "bagindex_cli", "sql", "FROM classes", "-i", str(tmp_path / "i")]
    environment = os.environ | {"PYTHONIOENCODING": encoding}
    for how in ("json", "table", "csv"):
        done = subprocess.run([*command, "--format", how], env=environment, capture_output=True)
        assert (done.returncode, done.stderr) == (0, b"")
        text = done.stdout.decode(encoding)
        if how == "json":
            assert [row["name"] for row in json.loads(text)] == names
        lacking = {"ascii": r"h\u00fctte", "latin-1": "hütte", "utf-8": "大"}[encoding]
        assert lacking in text
