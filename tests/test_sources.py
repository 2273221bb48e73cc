"""Folders as they are found on disks: odd names, links, pipes, files that cannot be read."""

from __future__ import annotations

import errno
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bagindex.errors import LabelError, SourceError
from bagindex.images import Rejected
from bagindex.sources import MAX_BYTES, Entry, describe
from bagindex.sources.folders import FolderSource, Layout, open_folder
from bagindex_schemas.rejects import RejectCode


def write(root: Path, *names: str | bytes) -> None:
    """A file at each path below `root`, which holds its own path."""
    for name in map(os.fsencode, names):
        path = os.path.join(os.fsencode(root), name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(name)


def labels(source: FolderSource) -> dict[str, str | None]:
    return {entry.text: entry.label for entry in source.entries}


def rejects(source: FolderSource) -> dict[str, RejectCode]:
    return {entry.text: entry.rejected.code for entry in source.entries if entry.rejected}


def code_of_reading(source: FolderSource, entry: Entry) -> RejectCode:
    with pytest.raises(Rejected) as caught:
        source.read(entry)
    return caught.value.code


@pytest.fixture
def listing(tmp_path: Path) -> Path:
    """A place for a CSV file of labels, outside the pictures' folder `pictures`."""
    write(tmp_path / "pictures", "a.jpg", "b.jpg", "deep/c.jpg")
    return tmp_path / "labels.csv"


def by_csv(listing: Path, text: str | bytes) -> FolderSource:
    listing.write_bytes(text if isinstance(text, bytes) else text.encode())
    return open_folder(listing.parent / "pictures", labels=listing)


def test_folders_by_class(tmp_path: Path) -> None:
    write(tmp_path, "tench/2.jpg", "tench/deeper/1.jpg", "eel/1.png", "README.txt")
    source = open_folder(tmp_path)
    assert source.kind == "folders"
    assert labels(source) == {"eel/1.png": "eel", "tench/2.jpg": "tench", "tench/deeper/1.jpg": "tench"}
    assert [source.read(entry) for entry in source.entries] == [entry.path for entry in source.entries]
    assert [entry.size for entry in source.entries] == [len(entry.path) for entry in source.entries]


def test_flat(tmp_path: Path) -> None:
    write(tmp_path, "b.jpg", "a.jpg")
    assert (open_folder(tmp_path).kind, labels(open_folder(tmp_path))) == ("flat", {"a.jpg": None, "b.jpg": None})


def test_flat_may_be_deep(tmp_path: Path) -> None:
    write(tmp_path, "monday/a.jpg", "b.jpg")
    assert labels(open_folder(tmp_path, layout=Layout.FLAT)) == {"b.jpg": None, "monday/a.jpg": None}


def test_pictures_beside_folders_are_ambiguous(tmp_path: Path) -> None:
    write(tmp_path, "tench/1.jpg", "loose.JPEG")
    with pytest.raises(SourceError, match=r"--layout folders .* or --layout flat"):
        open_folder(tmp_path)
    assert labels(open_folder(tmp_path, layout=Layout.FOLDERS)) == {"tench/1.jpg": "tench"}


def test_no_pictures(tmp_path: Path) -> None:
    write(tmp_path, "file", "empty/.hidden", "loose/picture.jpg")
    with pytest.raises(SourceError, match="no files in"):
        open_folder(tmp_path / "empty")
    with pytest.raises(SourceError, match="its 1 files lie flat, give --layout flat"):
        open_folder(tmp_path / "loose", layout=Layout.FOLDERS)
    with pytest.raises(SourceError, match="nowhere does not exist: give a folder of pictures"):
        open_folder(tmp_path / "nowhere")
    with pytest.raises(SourceError, match="file is not a folder: give a folder of pictures"):
        open_folder(tmp_path / "file")


def test_clutter_is_left_out(tmp_path: Path) -> None:
    write(tmp_path, ".DS_Store", ".git/a.jpg", "tench/._1.jpg", "tench/Thumbs.db", "tench/desktop.ini", "tench/1.jpg")
    assert labels(open_folder(tmp_path)) == {"tench/1.jpg": "tench"}


def test_order_is_that_of_the_bytes(tmp_path: Path) -> None:
    names = [b"a/1", b"a/10", b"a/2", b"a-b/1", b"B/1", "\u00e9/1".encode(), b"z/1", b"\xff/1", b"a.b/1"]
    write(tmp_path, *names)
    assert [entry.path for entry in open_folder(tmp_path).entries] == sorted(names)


def test_odd_names(tmp_path: Path) -> None:
    names = [b"new\nline/a\n.jpg", b"quo\"te's/,.jpg", b" sp ace /a b.jpg", b"\xff\xfe/\x80.jpg", b"a/\\.jpg"]
    write(tmp_path, *names)
    source = open_folder(tmp_path)
    assert {entry.path: entry.label for entry in source.entries} == {
        names[0]: "new\nline",
        names[1]: "quo\"te's",
        names[2]: " sp ace ",
        names[3]: "\\xff\\xfe",
        names[4]: "a",
    }
    assert [source.read(entry) for entry in source.entries] == sorted(names)
    assert describe(source).files == len(names)


def test_a_source_whose_own_name_is_not_utf_8(tmp_path: Path) -> None:
    write(tmp_path, b"\xff/a.jpg")
    assert describe(open_folder(Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff")))).name == "\\xff"


def test_links_are_rejected_unless_followed(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    write(tmp_path, "elsewhere/1.jpg", "pictures/tench/1.jpg")
    (root / "eel").symlink_to(tmp_path / "elsewhere")
    (root / "tench/2.jpg").symlink_to(root / "tench/1.jpg")
    (root / "tench/dangling.jpg").symlink_to("nowhere.jpg")
    (root / "tench/loop.jpg").symlink_to("loop.jpg")
    (root / "tench/up").symlink_to(root)

    source = open_folder(root)
    links = ("eel", "tench/2.jpg", "tench/dangling.jpg", "tench/loop.jpg", "tench/up")
    assert rejects(source) == dict.fromkeys(links, RejectCode.SYMLINK)
    assert labels(source) == {"eel": None, "tench/1.jpg": "tench", **dict.fromkeys(links[1:], "tench")}

    followed = open_folder(root, follow_symlinks=True)
    assert labels(followed) == {"eel/1.jpg": "eel", "tench/1.jpg": "tench", **dict.fromkeys(links[1:], "tench")}
    assert rejects(followed) == {
        "tench/dangling.jpg": RejectCode.MISSING,
        "tench/loop.jpg": RejectCode.SYMLINK,
        "tench/up": RejectCode.SYMLINK,
    }
    read = {entry.text: followed.read(entry) for entry in followed.entries if not entry.rejected}
    assert read == {
        "eel/1.jpg": b"elsewhere/1.jpg",
        "tench/1.jpg": b"pictures/tench/1.jpg",
        "tench/2.jpg": b"pictures/tench/1.jpg",
    }


def test_pipes_and_sockets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "tench/1.jpg")
    os.mkfifo(tmp_path / "tench/pipe.jpg")
    monkeypatch.chdir(tmp_path / "tench")  # a socket's path may have 107 bytes
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        listener.bind("socket.jpg")
        assert rejects(open_folder(tmp_path)) == {
            "tench/pipe.jpg": RejectCode.NOT_REGULAR,
            "tench/socket.jpg": RejectCode.NOT_REGULAR,
        }


@pytest.mark.parametrize(
    ("what", "code"),
    [
        ("pipe", RejectCode.NOT_REGULAR),
        ("socket", RejectCode.NOT_REGULAR),
        ("folder", RejectCode.NOT_REGULAR),
        ("link", RejectCode.SYMLINK),
        ("nothing", RejectCode.MISSING),
    ],
)
def test_a_file_that_is_replaced_after_the_listing(
    tmp_path: Path, what: str, code: RejectCode, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "1.jpg", "2.jpg")
    source = open_folder(tmp_path)
    path = tmp_path / "1.jpg"
    path.unlink()
    monkeypatch.chdir(tmp_path)
    with closing(socket.socket(socket.AF_UNIX)) as listener:
        if what == "pipe":
            os.mkfifo(path)
        elif what == "socket":
            listener.bind("1.jpg")
        elif what == "folder":
            path.mkdir()
        elif what == "link":
            path.symlink_to("2.jpg")
        open_files = len(os.listdir("/dev/fd"))
        assert code_of_reading(source, source.entries[0]) is code
        assert len(os.listdir("/dev/fd")) == open_files


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (PermissionError(errno.EACCES, "Permission denied"), RejectCode.PERMISSION, "may not be read"),
        (OSError(errno.EIO, "Input/output error"), RejectCode.IO_ERROR, "Input/output error"),
        (OSError(errno.ESTALE, "Stale file handle"), RejectCode.IO_ERROR, "Stale file handle"),
    ],
)
def test_a_file_that_cannot_be_read(
    tmp_path: Path, error: OSError, code: RejectCode, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise error

    write(tmp_path, "1.jpg")
    source = open_folder(tmp_path)
    monkeypatch.setattr(os, "open", fail)
    with pytest.raises(Rejected) as caught:
        source.read(source.entries[0])
    assert (caught.value.code, caught.value.message) == (code, message)


def test_a_folder_that_cannot_be_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.scandir
    closed = os.fsencode(tmp_path / "eel")

    def scandir(path: bytes) -> Iterator[os.DirEntry[bytes]]:
        if path.rstrip(b"/") == closed:
            raise PermissionError(errno.EACCES, "Permission denied")
        return real(path)

    write(tmp_path, "tench/1.jpg", "eel/1.jpg")
    monkeypatch.setattr(os, "scandir", scandir)
    assert rejects(open_folder(tmp_path)) == {"eel": RejectCode.PERMISSION}
    closed = os.fsencode(tmp_path)
    with pytest.raises(SourceError, match=r"cannot list .*: Permission denied"):
        open_folder(tmp_path)


def test_labels_of_a_csv(listing: Path) -> None:
    text = '\ufeffLabel , path ,note\r\n tench ,  a.jpg , x\r\n\r\n"great, white",./deep/../deep/c.jpg,"a\r\nb"\r\n'
    source = by_csv(listing, text)
    assert source.kind == "csv"
    assert labels(source) == {"a.jpg": "tench", "b.jpg": None, "deep/c.jpg": "great, white"}


def test_a_csv_that_lists_what_is_not_there(listing: Path) -> None:
    source = by_csv(listing, "path,label\naa.jpg,tench\ndeep,eel\nb.jpg,\n")
    assert rejects(source) == {"aa.jpg": RejectCode.MISSING, "deep": RejectCode.MISSING}
    assert labels(source) == {"a.jpg": None, "aa.jpg": "tench", "b.jpg": None, "deep": "eel", "deep/c.jpg": None}
    assert [entry.path for entry in source.entries] == sorted(entry.path for entry in source.entries)


def test_a_csv_in_the_folder_is_no_picture(tmp_path: Path) -> None:
    write(tmp_path, "a.jpg")
    (tmp_path / "labels.csv").write_text("path,label\na.jpg,tench\n")
    assert labels(open_folder(tmp_path, labels=tmp_path / "labels.csv")) == {"a.jpg": "tench"}


def test_a_csv_names_odd_files(tmp_path: Path) -> None:
    write(tmp_path / "pictures", "new\nline\u2028.jpg", b"\xff.jpg", b"\\xff.jpg", "\u00e9.jpg")
    source = by_csv(tmp_path / "labels.csv", 'path,label\n"new\nline\u2028.jpg",tench\n\u00e9.jpg,eel\n')
    assert {entry.path: entry.label for entry in source.entries} == {
        "new\nline\u2028.jpg".encode(): "tench",
        "\u00e9.jpg".encode(): "eel",
        b"\xff.jpg": None,
        b"\\xff.jpg": None,
    }
    by_escape = by_csv(tmp_path / "labels.csv", "path,label\n\\xff.jpg,tench\n")
    assert {entry.path for entry in by_escape.entries} == {entry.path for entry in source.entries}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,label\na.jpg,tench\nb.jpg,eel\n./a.jpg,eel\n", r"line 4: 'a.jpg' is listed twice"),
        ("path,label\n../pictures/../a.jpg,tench\n", r"line 2: '../pictures/../a.jpg' is not below"),
        ("path,label\n/etc/passwd,tench\n", r"line 2: '/etc/passwd' is not below"),
        ("path,label\n,tench\n", r"line 2: '' is not below"),
        ("path,label\na.jpg,tench,eel\n", r"line 2: 3 cells where the header has 2"),
        ("path;label\na.jpg;tench\n", r"columns path,label; path,label is not there \(it has path;label\)"),
        ("file,label\na.jpg,tench\n", r"columns path,label; path is not there \(it has file,label\)"),
        ("path,label,label\na.jpg,tench,eel\n", r"two columns called label"),
        ("", r"it has nothing"),
        ('path,label\n"a.jpg,tench\n', r"is not a CSV file"),
        ("path,label\na.jpg,\u00e9\n".encode("latin-1"), r"is not UTF-8 text: save it as UTF-8"),
        ("path,label\na.jpg,tench\n".encode("utf-16"), r"is not UTF-8 text: save it as UTF-8"),
    ],
)
def test_bad_csv(listing: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(LabelError, match=message):
        by_csv(listing, text)


def test_a_csv_that_cannot_be_read(listing: Path) -> None:
    with pytest.raises(LabelError, match=r"cannot read .*labels\.csv: No such file"):
        open_folder(listing.parent / "pictures", labels=listing)
    with pytest.raises(LabelError, match="Is a directory"):
        open_folder(listing.parent / "pictures", labels=listing.parent)


def test_labels_come_from_one_place(listing: Path) -> None:
    with pytest.raises(SourceError, match="give one of the two"):
        open_folder(listing.parent / "pictures", layout=Layout.FOLDERS, labels=listing)


def test_fingerprint(tmp_path: Path) -> None:
    root = tmp_path / "fish"
    write(root, "tench/1.jpg", "eel/1.jpg")
    first = describe(open_folder(root))
    assert describe(open_folder(root)) == first

    shutil.copytree(root, tmp_path / "copy/fish")
    moved = describe(open_folder(tmp_path / "copy/fish"))
    assert (moved.fingerprint, moved.name) == (first.fingerprint, first.name)
    assert moved.location != first.location

    seen = {first.fingerprint, describe(open_folder(root, layout=Layout.FLAT)).fingerprint}
    (root / "eel/1.jpg").write_bytes(b"longer than it was")
    seen.add(describe(open_folder(root)).fingerprint)
    (root / "eel/1.jpg").rename(root / "eel/2.jpg")
    seen.add(describe(open_folder(root)).fingerprint)
    (root / "eel/2.jpg").rename(root / "tench/2.jpg")
    seen.add(describe(open_folder(root)).fingerprint)
    (root / "tench/2.jpg").unlink()
    seen.add(describe(open_folder(root)).fingerprint)
    assert len(seen) == 6


def test_fingerprint_of_other_labels(listing: Path) -> None:
    texts = (
        "path,label\na.jpg,tench\n",
        "path,label\na.jpg,eel\n",
        "path,label\nb.jpg,tench\n",
        "path,label\na.jpg,\n",
    )
    assert len({describe(by_csv(listing, text)).fingerprint for text in texts}) == len(texts)


@pytest.mark.parametrize(
    ("place", "name"),
    [("pets", "pets"), ("imagenet/val", "imagenet-val"), ("pets/Images", "pets-Images"), ("val/pets", "pets")],
)
def test_name_of_a_source(tmp_path: Path, place: str, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / place, "1.jpg")
    monkeypatch.chdir(tmp_path / place)
    assert (open_folder(tmp_path / place).name, open_folder(Path(".")).name) == (name, name)


def test_a_file_too_large_for_a_picture_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, "huge.png")
    source = open_folder(tmp_path)
    with (tmp_path / "huge.png").open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    assert code_of_reading(source, source.entries[0]) is RejectCode.TOO_LARGE


@pytest.mark.parametrize("content", [b"", b"1", b"a longer one"])
def test_a_file_of_another_size_than_was_listed_is_not_taken(tmp_path: Path, content: bytes) -> None:
    write(tmp_path, "a.png")
    source = open_folder(tmp_path)
    size = source.entries[0].size
    (tmp_path / "a.png").write_bytes(content * (size + 1))
    with pytest.raises(Rejected) as caught:
        source.read(source.entries[0])
    assert caught.value.code is RejectCode.CHANGED
    now = len(content) * (size + 1)
    assert caught.value.message == (
        f"has changed since it was listed ({size} bytes then, {now} now): `bagindex update` takes it up"
    )


def test_a_file_that_grows_while_it_is_read_is_not_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, "a.png")
    source = open_folder(tmp_path)
    real = os.fstat

    def grown(descriptor: int) -> os.stat_result:
        info = real(descriptor)
        with (tmp_path / "a.png").open("ab") as file:
            file.write(b"more")
        return info

    monkeypatch.setattr(os, "fstat", grown)
    assert code_of_reading(source, source.entries[0]) is RejectCode.CHANGED


def test_labels_of_a_parquet_file(tmp_path: Path) -> None:
    write(tmp_path / "pictures", "a.jpg", "b.jpg", "c.jpg")
    table = pa.table({"path": ["b.jpg", "a.jpg"], "label": ["eel", None], "more": [1, 2]})
    pq.write_table(table, tmp_path / "l.parquet")
    assert labels(open_folder(tmp_path / "pictures", labels=tmp_path / "l.parquet")) == {
        "a.jpg": None,
        "b.jpg": "eel",
        "c.jpg": None,
    }
    pq.write_table(table.drop_columns(["label"]), tmp_path / "l.parquet")
    with pytest.raises(LabelError, match="label is not there"):
        open_folder(tmp_path / "pictures", labels=tmp_path / "l.parquet")
    (tmp_path / "l.parquet").write_text("path,label")
    with pytest.raises(LabelError, match="cannot read"):
        open_folder(tmp_path / "pictures", labels=tmp_path / "l.parquet")
