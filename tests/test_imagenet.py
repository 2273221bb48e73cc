"""Replicas of ImageNet in every layout that people have, and archives that mean harm."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from importlib.resources import as_file, files
from pathlib import Path

import numpy as np
import platformdirs
import pytest
from PIL import Image
from scipy.io import savemat

from bagindex.errors import LabelError, SourceError
from bagindex.images import Rejected, read_picture
from bagindex.labels import map_labels, read_classes
from bagindex.sources import Source, archives, describe
from bagindex.sources.archives import TarSource
from bagindex.sources.imagenet import DEVKIT, KAGGLE_LABELS, META, TRUTH, find_data, open_imagenet
from bagindex_schemas.records import Transform
from bagindex_schemas.rejects import RejectCode

ILSVRC_IDS = {"n01440764": 3, "n01443537": 4, "n01484850": 1, "n01491361": 2}
"""Neither these classes' ids (0, 1, 2, 3) nor those and one."""
LABELS = ("n01484850", "n01440764", "n01491361", "n01443537", "n01484850", "n01440764")
"""Of validation pictures 1 to 6."""
VAL_TAR = "ILSVRC2012_img_val.tar"


def name(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@cache
def jpeg(number: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12 + number, 16), (40 * number, 99, 200)).save(buffer, "JPEG")
    return buffer.getvalue()


@cache
@cache
def meta_mat(**changes: int) -> bytes:
    """A `meta.mat` as the devkit has it: the classes, and two families of classes; `changes` are other ILSVRC ids."""
    kind = [(field, object) for field in ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children")]
    leaves = [(changes.get(w, i), w, "a fish", "it swims", 0, np.zeros((1, 0))) for w, i in ILSVRC_IDS.items()]
    families = [(5, "n01439121", "fishes", "", 2, np.array([1, 3])), (6, "n01482330", "sharks", "", 1, np.array([2]))]
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": np.array([*leaves, *families], dtype=kind).reshape(-1, 1)})
    return buffer.getvalue()


def truth(labels: tuple[str, ...] = LABELS) -> bytes:
    return b"".join(b"%d\n" % ILSVRC_IDS[wnid] for wnid in labels)


def tar(path: Path, members: dict[str, bytes], mode: str = "w") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for member, data in members.items():
            info = tarfile.TarInfo(member)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def devkit_members() -> dict[str, bytes]:
    readme = {f"{DEVKIT}/readme.txt": b"x" * 5000, f"{DEVKIT}/data/ILSVRC2012_test.txt": b"1\n"}
    return readme | {f"{DEVKIT}/data/{META}": meta_mat(), f"{DEVKIT}/data/{TRUTH}": truth()}


def add_devkit(root: Path) -> None:
    tar(root / f"{DEVKIT}.tar.gz", devkit_members(), "w:gz")


def add_pictures(folder: Path) -> None:
    for number in range(1, 7):
        write(folder / name(number), jpeg(number))


def as_tar(root: Path) -> Path:
    tar(root / VAL_TAR, {name(number): jpeg(number) for number in (4, 2, 6, 1, 3, 5)})
    add_devkit(root)
    return root


def as_tar_itself(root: Path) -> Path:
    return as_tar(root) / VAL_TAR


def as_flat_with_archive(root: Path) -> Path:
    add_pictures(root / "val")
    add_devkit(root)
    return root


def as_flat_with_folder(root: Path) -> Path:
    add_pictures(root)
    for member, data in devkit_members().items():
        write(root / member, data)
    return root


def as_flat_with_two_files(root: Path) -> Path:
    add_pictures(root / "ILSVRC2012_img_val")
    write(root / "ILSVRC2012_img_val" / META, meta_mat())
    write(root / "ILSVRC2012_img_val" / TRUTH, truth())
    return root


def as_flat_itself(root: Path) -> Path:
    return as_flat_with_archive(root) / "val"


def as_folders(root: Path) -> Path:
    for number, wnid in enumerate(LABELS, start=1):
        write(root / "val" / wnid / name(number), jpeg(number))
    for wnid in ILSVRC_IDS:
        write(root / "train" / wnid / f"{wnid}_10026.JPEG", jpeg(1))
    return root


def as_folders_itself(root: Path) -> Path:
    return as_folders(root) / "val"


def as_folders_beside_the_devkit(root: Path) -> Path:
    for number, wnid in enumerate(LABELS, start=1):
        write(root / wnid / name(number), jpeg(number))
    for member, data in devkit_members().items():
        write(root / member, data)
    return root


def as_kaggle(root: Path) -> Path:
    pictures = root / "ILSVRC/Data/CLS-LOC"
    add_pictures(pictures / "val")
    for wnid in ILSVRC_IDS:
        write(pictures / "train" / wnid / f"{wnid}_10026.JPEG", jpeg(1))
    rows = [f"{name(n)[:-5]},{LABELS[n - 1]} 85 1 499 272 {LABELS[n - 1]} 1 2 3 4 \n" for n in (3, 1, 2, 6, 5, 4)]
    write(root / KAGGLE_LABELS, "".join(["ImageId,PredictionString\n", *rows]).encode())
    return root


def as_kaggle_itself(root: Path) -> Path:
    return as_kaggle(root) / "ILSVRC/Data/CLS-LOC/val"


LAYOUTS: list[tuple[str, Callable[[Path], Path]]] = [
    *(("tar", as_tar), ("tar", as_tar_itself)),
    *(("flat", as_flat_with_archive), ("flat", as_flat_with_folder)),
    *(("flat", as_flat_with_two_files), ("flat", as_flat_itself)),
    *(("folders", as_folders), ("folders", as_folders_itself), ("folders", as_folders_beside_the_devkit)),
    *(("kaggle", as_kaggle), ("kaggle", as_kaggle_itself)),
]


def rejects(source: Source) -> dict[bytes, RejectCode]:
    return {entry.path: entry.rejected.code for entry in source.entries if entry.rejected}


def names(source: Source) -> list[str]:
    return [entry.text for entry in source.entries]


def snapshot(*roots: Path) -> list[tuple[str, int, int]]:
    """Every path below the roots, with its size and time of change."""
    paths = [path for root in roots for path in (root, *root.rglob("*"))]
    return sorted((str(path), path.lstat().st_size, path.lstat().st_mtime_ns) for path in paths)


@pytest.fixture(autouse=True)
def _settings(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings of the person who runs the tests."""
    settings = tmp_path_factory.mktemp("settings")
    monkeypatch.setattr(platformdirs, "user_config_path", lambda _: settings)
    for variable in ("BAGINDEX_IMAGENET", "BAGINDEX_CONFIG"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.parametrize(("kind", "make"), LAYOUTS, ids=lambda value: getattr(value, "__name__", value))
def test_all_layouts_say_the_same(tmp_path: Path, kind: str, make: Callable[[Path], Path]) -> None:
    data = make(tmp_path / "imagenet")
    elsewhere = Path(os.environ["BAGINDEX_HOME"])
    before = snapshot(tmp_path, elsewhere)
    source = open_imagenet(data, "val")
    assert (source.kind, source.name) == (kind, "imagenet-val")
    assert {os.path.basename(entry.text): entry.label for entry in source.entries} == {
        name(number): wnid for number, wnid in enumerate(LABELS, start=1)
    }
    assert not rejects(source)
    assert [entry.path for entry in source.entries] == sorted(entry.path for entry in source.entries)
    for entry in source.entries:
        data_of_picture = jpeg(int(entry.text[-13:-5]))
        assert (source.read(entry), entry.size) == (data_of_picture, len(data_of_picture))
    assert snapshot(tmp_path, elsewhere) == before
    assert describe(source) == describe(open_imagenet(data, "val"))


def test_nothing_is_extracted_to_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("temporary", "here"):
        (tmp_path / folder).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.chdir(tmp_path / "here")
    as_tar(tmp_path / "imagenet")
    before = snapshot(tmp_path)
    source = open_imagenet(Path("../imagenet"), "val")
    for entry in source.entries:
        read_picture(source.read(entry), Transform(resize=8, crop_height=8, crop_width=8))
    assert snapshot(tmp_path) == before


def test_ilsvrc_ids_are_not_class_ids(tmp_path: Path) -> None:
    with as_file(files("bagindex_schemas") / "imagenet_classes.csv") as path:
        classes = read_classes(path)
    by_wnid = {record.wnid: record.class_id for record in classes}
    assert all(by_wnid[wnid] not in (number, number - 1) for wnid, number in ILSVRC_IDS.items())
    source = open_imagenet(as_tar(tmp_path), "val")
    labels = [entry.label for entry in source.entries if entry.label]
    class_ids = map_labels(labels, classes)
    assert [class_ids[label] for label in labels] == [2, 0, 3, 1, 2, 0]  # great white, tench, tiger shark, goldfish
    # The same list with ids in the order of the wnids: what a program that ignores meta.mat would say.
    tar(
        tmp_path / f"{DEVKIT}.tar.gz",
        devkit_members() | {f"{DEVKIT}/data/{META}": meta_mat(n01440764=1, n01443537=2, n01484850=3, n01491361=4)},
        "w:gz",
    )
    assert [entry.label for entry in open_imagenet(tmp_path, "val").entries] != labels


@pytest.mark.parametrize("make", [as_folders, as_kaggle])
def test_train(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    source = open_imagenet(make(tmp_path), "train")
    assert (source.kind, source.name) == ("folders", "imagenet-train")
    assert {entry.text: entry.label for entry in source.entries} == {f"{w}/{w}_10026.JPEG": w for w in ILSVRC_IDS}


def test_a_part_of_the_pictures_is_enough(tmp_path: Path) -> None:
    as_flat_with_archive(tmp_path)
    for number in (1, 2, 5):
        (tmp_path / "val" / name(number)).unlink()
    assert [entry.label for entry in open_imagenet(tmp_path, "val").entries] == [LABELS[2], LABELS[3], LABELS[5]]


def test_what_stands_beside_flat_pictures_is_left_out(tmp_path: Path) -> None:
    as_flat_with_folder(tmp_path)
    write(tmp_path / "train/n01440764" / name(2), jpeg(2))
    write(tmp_path / "notes.jpg", jpeg(1))
    assert names(open_imagenet(tmp_path, "val")) == [name(number) for number in range(1, 7)]


def test_links_to_pictures(tmp_path: Path) -> None:
    as_flat_with_archive(tmp_path / "real")
    for number in (1, 2):
        (tmp_path / "val").mkdir(exist_ok=True)
        (tmp_path / "val" / name(number)).symlink_to(tmp_path / "real/val" / name(number))
    add_devkit(tmp_path)
    assert rejects(open_imagenet(tmp_path, "val")) == dict.fromkeys(
        (name(1).encode(), name(2).encode()), RejectCode.SYMLINK
    )
    source = open_imagenet(tmp_path, "val", follow_symlinks=True)
    assert [source.read(entry) for entry in source.entries] == [jpeg(1), jpeg(2)]


def test_the_split_folder_may_be_a_link(tmp_path: Path) -> None:
    add_pictures(tmp_path / "large disk/pictures")
    add_devkit(tmp_path / "imagenet")
    (tmp_path / "imagenet/val").symlink_to(tmp_path / "large disk/pictures")
    assert [entry.label for entry in open_imagenet(tmp_path / "imagenet", "val").entries] == list(LABELS)


def test_an_archive_without_devkit_gives_way_to_folders(tmp_path: Path) -> None:
    as_folders(tmp_path)
    tar(tmp_path / VAL_TAR, {name(1): jpeg(1)})
    assert open_imagenet(tmp_path, "val").kind == "folders"
    add_devkit(tmp_path)
    assert open_imagenet(tmp_path, "val").kind == "tar"


def test_the_same_place_is_the_same_source(tmp_path: Path) -> None:
    here, there = as_tar(tmp_path / "a"), as_tar(tmp_path / "b")
    assert open_imagenet(here, "val").location == open_imagenet(here / VAL_TAR, "val").location
    assert open_imagenet(here, "val").location != open_imagenet(there, "val").location
    assert describe(open_imagenet(here, "val")).fingerprint == describe(open_imagenet(there, "val")).fingerprint


# What is missing or wrong.


def refused(data: Path, split: str = "val") -> str:
    with pytest.raises(SourceError) as caught:
        open_imagenet(data, split)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_pieces(tmp_path: Path) -> None:
    assert "nowhere does not exist: give ImageNet's folder with --data" in refused(tmp_path / "nowhere")
    assert f"or with {VAL_TAR} and {DEVKIT}.tar.gz" in refused(tmp_path)
    assert refused(tmp_path, "train").endswith("give --data the folder with train/n01440764/ and so on")
    assert refused(tmp_path, "test") == "ImageNet has no split 'test': --split takes val or train"
    add_pictures(tmp_path / "val")
    assert f"put {DEVKIT}.tar.gz (or {TRUTH} and meta.mat) there" in refused(tmp_path)
    assert "no train pictures" in refused(tmp_path, "train")
    write(tmp_path / "val" / TRUTH, truth())
    assert f"{TRUTH} is there, but meta.mat is not, which says what its ids mean" in refused(tmp_path)


def test_an_archive_alone(tmp_path: Path) -> None:
    tar(tmp_path / VAL_TAR, {name(1): jpeg(1)})
    for data in (tmp_path, tmp_path / VAL_TAR):
        assert refused(data).startswith(f"{VAL_TAR} is there, but {DEVKIT}.tar.gz is not: put it beside it")
    tar(tmp_path / "ILSVRC2012_img_train.tar", {"n01440764.tar": b""})
    assert "is an archive of archives: unpack it to train/n01440764/" in refused(tmp_path, "train")


def test_the_other_split(tmp_path: Path) -> None:
    as_folders(tmp_path)
    assert "is not of the train split: choose the other with --split" in refused(tmp_path / "val", "train")
    assert "is not of the val split: choose the other with --split" in refused(tmp_path / "train")


def test_folders_and_loose_pictures(tmp_path: Path) -> None:
    as_folders(tmp_path)
    add_pictures(tmp_path / "val")
    assert "holds both folders by wnid and loose pictures" in refused(tmp_path)


@pytest.mark.parametrize("folder", ["n99999999", "n01439121", "tench"])
def test_unknown_folders(tmp_path: Path, folder: str) -> None:
    as_folders(tmp_path)
    write(tmp_path / "val" / folder / "1.JPEG", jpeg(1))
    assert f"has '{folder}': not among the wnids of ImageNet's 1000 classes" in refused(tmp_path)


@pytest.mark.parametrize("make", [as_tar, as_flat_with_archive])
def test_a_ground_truth_list_that_is_too_short(tmp_path: Path, make: Callable[[Path], Path]) -> None:
    make(tmp_path)
    tar(tmp_path / f"{DEVKIT}.tar.gz", devkit_members() | {f"{DEVKIT}/data/{TRUTH}": truth(LABELS[:4])}, "w:gz")
    assert f"2 of 6 pictures in {tmp_path}" in refused(tmp_path)
    assert "(the first is number 5) are not among the 4 that" in refused(tmp_path)


def test_a_picture_number_zero(tmp_path: Path) -> None:
    as_flat_with_archive(tmp_path)
    write(tmp_path / "val" / name(0), jpeg(1))
    assert "1 of 7 pictures" in refused(tmp_path)


@pytest.mark.parametrize(
    ("text", "line", "word"),
    [
        (b"4\n3\n\n2\n1\n4\n", 3, ""),  # a blank line must not shift the labels below it
        (b"4\n3\n7\n1\n4\n3\n", 3, "7"),
        (b"4\n3\n5\n1\n4\n3\n", 3, "5"),  # a family of classes
        (b"4\n3\n0\n1\n4\n3\n", 3, "0"),
        (b"4\n-3\n2\n1\n4\n3\n", 2, "-3"),
        (b"n01440764\n", 1, "n01440764"),
        (b"4 3 2 1 4 3\n", 1, "4 3 2 1 4 3"),
        (b"\xff\xfe4\x00\n", 1, "\\\\xff\\\\xfe4\\x00"),
        (b"9" * 9999, 1, "9" * 20),
        (b"", 1, ""),
    ],
)
def test_damaged_ground_truth(tmp_path: Path, text: bytes, line: int, word: str) -> None:
    as_flat_with_two_files(tmp_path)
    (tmp_path / "ILSVRC2012_img_val" / TRUTH).write_bytes(text)
    assert f"{TRUTH}, line {line}: '{word}' is the ILSVRC id of no class in" in refused(tmp_path)


def test_ground_truth_with_other_line_ends(tmp_path: Path) -> None:
    as_flat_with_two_files(tmp_path)
    (tmp_path / "ILSVRC2012_img_val" / TRUTH).write_bytes(truth().replace(b"\n", b" \r\n") + b"\r\n")
    assert [entry.label for entry in open_imagenet(tmp_path, "val").entries] == list(LABELS)


def mat(**variables: object) -> bytes:
    buffer = io.BytesIO()
    savemat(buffer, variables)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is not ImageNet's meta.mat"),
        (b"no MATLAB file" * 99, "is not ImageNet's meta.mat"),
        (meta_mat()[:-300], "is not ImageNet's meta.mat"),
        (mat(other=1), "is not ImageNet's meta.mat"),
        (mat(synsets=np.arange(3)), "is not ImageNet's meta.mat"),
        (meta_mat(n01440764=1), "does not give each class one ILSVRC id and one wnid"),
        (
            mat(synsets={"ILSVRC2012_ID": 1, "WNID": "n00000001", "num_children": 0}),
            "has 'n00000001': not among the wnids",
        ),
    ],
)
def test_damaged_meta(tmp_path: Path, data: bytes, message: str) -> None:
    as_flat_with_two_files(tmp_path)
    (tmp_path / "ILSVRC2012_img_val" / META).write_bytes(data)
    assert message in refused(tmp_path)


def test_damaged_devkit(tmp_path: Path) -> None:
    as_tar(tmp_path)
    devkit = tmp_path / f"{DEVKIT}.tar.gz"
    whole = devkit.read_bytes()
    for damaged in (whole[:-100], whole[:50] + b"?" * 50 + whole[100:], b"<html>Please log in</html>", b""):
        devkit.write_bytes(damaged)
        assert f"{DEVKIT}.tar.gz" in refused(tmp_path)
        assert "fetch it again" in refused(tmp_path)
    devkit.write_bytes(gzip.compress(b"<html>" * 999))
    assert "is no tar archive" in refused(tmp_path)
    tar(devkit, {f"{DEVKIT}/data/{META}": meta_mat()}, "w:gz")
    assert f"holds no {DEVKIT}/data/{TRUTH}: fetch it again" in refused(tmp_path)


def test_a_devkit_with_links_is_not_followed(tmp_path: Path) -> None:
    as_tar(tmp_path)
    write(tmp_path / "secret", truth())
    with tarfile.open(tmp_path / f"{DEVKIT}.tar.gz", "w:gz") as archive:
        link = tarfile.TarInfo(f"{DEVKIT}/data/{TRUTH}")
        link.type, link.linkname = tarfile.SYMTYPE, str(tmp_path / "secret")
        archive.addfile(link)
    assert "holds no" in refused(tmp_path)


def test_damaged_kaggle_labels(tmp_path: Path) -> None:
    as_kaggle(tmp_path)
    table = tmp_path / KAGGLE_LABELS
    whole = table.read_text()
    table.write_text("".join(whole.splitlines(keepends=True)[:4]))
    assert "3 of 6 pictures" in refused(tmp_path)
    table.write_text(whole.replace("n01440764 ", "n01439121 "))
    assert "has 'n01439121': not among the wnids" in refused(tmp_path)
    table.write_text(whole.replace("n01440764", ""))
    assert "has '85': not among the wnids" in refused(tmp_path)
    table.write_text(whole.replace("ILSVRC2012_val_00000002", "picture 2"))
    assert "line 4: 'picture 2' is no ILSVRC2012_val_00000001" in refused(tmp_path)
    table.write_text("Id,Label\n")
    with pytest.raises(LabelError, match="needs a first line with the columns imageid,predictionstring"):
        open_imagenet(tmp_path, "val")


# Where ImageNet is.


def test_order_of_the_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for folder in ("given", "variable", "configured", "own"):
        (tmp_path / folder).mkdir()
    default = platformdirs.user_config_path("bagindex") / "config.toml"
    with pytest.raises(
        SourceError, match=r"--data /path.*BAGINDEX_IMAGENET=/path.*\[data\].*imagenet = .*config\.toml"
    ):
        find_data(None)
    default.write_text(f"[data]\nimagenet = '{tmp_path / 'own'}'\n")
    assert find_data(None) == tmp_path / "own"
    (tmp_path / "mine.toml").write_text("[data]\nimagenet = 'configured'  # from where this file is\n")
    monkeypatch.setenv("BAGINDEX_CONFIG", str(tmp_path / "mine.toml"))
    assert find_data(None) == tmp_path / "configured"
    monkeypatch.setenv("BAGINDEX_IMAGENET", str(tmp_path / "variable"))
    assert find_data(None) == tmp_path / "variable"
    assert find_data(tmp_path / "given") == tmp_path / "given"
    monkeypatch.setenv("BAGINDEX_IMAGENET", "")
    assert find_data(None) == tmp_path / "configured"


def test_a_place_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SourceError, match="--data says that ImageNet is in /nowhere, which does not exist"):
        find_data(Path("/nowhere"))
    monkeypatch.setenv("BAGINDEX_CONFIG", str(tmp_path / "none.toml"))
    with pytest.raises(SourceError, match=r"BAGINDEX_CONFIG says .*none\.toml, which does not exist"):
        find_data(None)
    monkeypatch.setenv("BAGINDEX_IMAGENET", "/nowhere")
    with pytest.raises(SourceError, match="BAGINDEX_IMAGENET says that ImageNet is in /nowhere"):
        find_data(None)


def test_home_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "imagenet/file", b"")
    write(platformdirs.user_config_path("bagindex") / "config.toml", b"[data]\nimagenet = '~/imagenet'")
    assert find_data(None) == find_data(Path("~/imagenet")) == tmp_path / "imagenet"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"[data", "is not a TOML file"),
        (b"\xff", "is not a TOML file"),
        (b"", "where is ImageNet"),
        (b"[data]\npets = '/pets'", "where is ImageNet"),
        (b"[data]\nimagenet = 3", "write .data. and below it"),
        (b"[data]\nimagenet = ''", "write .data. and below it"),
        (b"data = '/imagenet'", "write .data. and below it"),
        (b"data = 7", "write .data. and below it"),
        (b"[data]\nimagenet = '/nowhere'", r"config\.toml says that ImageNet is in /nowhere, which does not exist"),
    ],
)
def test_bad_settings(text: bytes, message: str) -> None:
    (platformdirs.user_config_path("bagindex") / "config.toml").write_bytes(text)
    with pytest.raises(SourceError, match=message):
        find_data(None)


# Archives.


@pytest.fixture
def archive(tmp_path: Path) -> Iterator[tarfile.TarFile]:
    with tarfile.open(tmp_path / "pictures.tar", "w") as file:
        yield file


def add(archive: tarfile.TarFile, path: str, data: bytes = b"", **changes: object) -> None:
    info = tarfile.TarInfo(path)
    info.size = len(data)
    for key, value in changes.items():
        setattr(info, key, value)
    archive.addfile(info, io.BytesIO(data))


def opened(archive: tarfile.TarFile) -> TarSource:
    archive.close()
    return TarSource(Path(str(archive.name)))


def test_hostile_members(archive: tarfile.TarFile) -> None:
    kinds = tarfile
    add(archive, "good.jpg", b"good")
    add(archive, "/etc/absolute", b"1")
    add(archive, "../outside", b"2")
    add(archive, "a/../../outside", b"3")
    add(archive, "folder", type=kinds.DIRTYPE)
    add(archive, "/folder", type=kinds.DIRTYPE)
    add(archive, "../up", type=kinds.SYMTYPE, linkname="/etc")
    add(archive, "soft", type=kinds.SYMTYPE, linkname="/etc/passwd")
    add(archive, "hard", type=kinds.LNKTYPE, linkname="good.jpg")
    add(archive, "disk", type=kinds.BLKTYPE, devmajor=8)
    add(archive, "null", type=kinds.CHRTYPE, devmajor=1, devminor=3)
    add(archive, "pipe", type=kinds.FIFOTYPE)
    add(archive, "label", type=b"V")
    add(archive, "./.hidden/x.jpg", b"4")
    add(archive, "a/._x.jpg", b"5")
    add(archive, "./a//b/./c.jpg", b"c")
    add(archive, ".", b"6")
    source = opened(archive)
    assert rejects(source) == {
        b".": RejectCode.NOT_REGULAR,
        b"../outside": RejectCode.NOT_REGULAR,
        b"../up": RejectCode.NOT_REGULAR,
        b"/etc/absolute": RejectCode.NOT_REGULAR,
        b"a/../../outside": RejectCode.NOT_REGULAR,
        b"disk": RejectCode.NOT_REGULAR,
        b"hard": RejectCode.SYMLINK,
        b"label": RejectCode.NOT_REGULAR,
        b"null": RejectCode.NOT_REGULAR,
        b"pipe": RejectCode.NOT_REGULAR,
        b"soft": RejectCode.SYMLINK,
    }
    assert {e.path: source.read(e) for e in source.entries if not e.rejected} == {
        b"a/b/c.jpg": b"c",
        b"good.jpg": b"good",
    }
    assert [e.path for e in source.entries] == sorted(e.path for e in source.entries)
    for entry in source.entries:
        if entry.rejected:
            with pytest.raises(Rejected):
                source.read(entry)


def test_hostile_members_beside_imagenet(tmp_path: Path) -> None:
    as_tar(tmp_path)
    with tarfile.open(tmp_path / VAL_TAR, "a") as archive:
        add(archive, "/" + name(1), jpeg(6))
        add(archive, name(2), type=tarfile.SYMTYPE, linkname="/etc/passwd")
        add(archive, "notes.txt", b"no picture")
    source = open_imagenet(tmp_path, "val")
    assert rejects(source) == {b"/" + name(1).encode(): RejectCode.NOT_REGULAR, name(2).encode(): RejectCode.SYMLINK}
    assert {entry.text: entry.label for entry in source.entries}["notes.txt"] is None
    assert source.read(source.entries[1]) == jpeg(1)


def test_the_later_of_two_members_counts(archive: tarfile.TarFile) -> None:
    add(archive, "a.jpg", b"first")
    add(archive, "b.jpg", b"b")
    add(archive, "./a.jpg", b"second")
    add(archive, "b.jpg", type=tarfile.SYMTYPE, linkname="a.jpg")
    source = opened(archive)
    assert (names(source), rejects(source)) == (["a.jpg", "b.jpg"], {b"b.jpg": RejectCode.SYMLINK})
    assert source.read(source.entries[0]) == b"second"


ODD_NAMES = (
    *(b"x" * 99 + b".jpg", b"long/" * 60 + b"1.jpg", "\u00e9/\u4e2d.jpg".encode(), b"\xff\xfe.jpg", b"new\nline.jpg"),
    *(b"long/" * 60 + b"\xff.jpg", b" .jpg", b"=.jpg", b"a" * 100, b"back\\slash.jpg"),
)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_odd_names(tmp_path: Path, form: int) -> None:
    odd = sorted(n for n in ODD_NAMES if form != tarfile.USTAR_FORMAT or len(n) <= 100)
    with tarfile.open(tmp_path / "odd.tar", "w", format=form, errors="surrogateescape", pax_headers={"g": "1"}) as file:
        for path in reversed(odd):
            add(file, os.fsdecode(path), path)
    source = TarSource(tmp_path / "odd.tar")
    assert [entry.path for entry in source.entries] == odd
    assert [source.read(entry) for entry in source.entries] == odd
    assert describe(source).files == len(odd)


def test_sparse_members(tmp_path: Path) -> None:
    header = {
        "GNU.sparse.major": "1",
        "GNU.sparse.minor": "0",
        "GNU.sparse.name": "hole",
        "GNU.sparse.realsize": "9999",
    }
    with tarfile.open(tmp_path / "sparse.tar", "w", format=tarfile.PAX_FORMAT) as file:
        add(file, "GNUSparseFile.0/hole", b"1\n0\n3\n".ljust(512, b"\0") + b"abc", pax_headers=header)
        add(file, "whole.jpg", b"whole")
    source = TarSource(tmp_path / "sparse.tar")
    assert rejects(source) == {b"hole": RejectCode.UNSUPPORTED}
    assert source.read(source.entries[1]) == b"whole"


def test_a_member_too_large_for_a_picture(archive: tarfile.TarFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archives, "MAX_BYTES", 4)
    add(archive, "huge.jpg", b"12345")
    add(archive, "small.jpg", b"1234")
    assert rejects(opened(archive)) == {b"huge.jpg": RejectCode.TOO_LARGE}


def test_every_length_of_a_truncated_archive(tmp_path: Path) -> None:
    whole = tar(tmp_path / "whole.tar", {"1.jpg": b"a" * 600, "2.jpg": b"b" * 100, "3.jpg": b""}).read_bytes()
    marked = 512 + 1024 + 512 + 512 + 512  # where the end mark begins
    path = tmp_path / "cut.tar"
    for length in (*range(0, marked + 600, 37), 512, 1536, 2048, 2148, 2560, marked, marked + 512, len(whole)):
        path.write_bytes(whole[:length])
        in_header = any(begin < length < begin + 512 for begin in (0, 1536, 2560))
        if length == 0 or in_header:
            with pytest.raises(
                SourceError, match=r"cut\.tar (is damaged or cut short at byte|is no tar archive)|no files in"
            ):
                TarSource(path)
            continue
        source = TarSource(path)
        assert source.complete == (length > marked)
        ends = {b"1.jpg": 512 + 600, b"2.jpg": 2048 + 100, b"3.jpg": 3072}
        assert rejects(source) == {e.path: RejectCode.TRUNCATED for e in source.entries if length < ends[e.path]}
        assert len(source.entries) == sum(length > begin for begin in (0, 1536, 2560))


def test_a_download_that_was_broken_off(tmp_path: Path) -> None:
    as_tar(tmp_path)
    path = tmp_path / VAL_TAR
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        members = archive.getmembers()
    path.write_bytes(whole[: members[3].offset_data + 100])
    assert "is cut short: 4 of 6 pictures are there; fetch it again" in refused(tmp_path)
    path.write_bytes(whole[: members[4].offset])
    assert "is cut short: 4 of 6 pictures are there" in refused(tmp_path)
    path.write_bytes(whole[: members[5].offset_data + 100])  # all are known, one cannot be read
    assert rejects(open_imagenet(tmp_path, "val")) == {members[5].name.encode(): RejectCode.TRUNCATED}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"<html>Please log in</html>" * 99, "is no tar archive"),
        (jpeg(1), "is no tar archive"),
        (b"\0" * 10240, "no files in"),
        (b"", "no files in|is no tar archive"),
    ],
)
def test_no_archive(tmp_path: Path, data: bytes, message: str) -> None:
    (tmp_path / "x.tar").write_bytes(data)
    with pytest.raises(SourceError, match=message):
        TarSource(tmp_path / "x.tar")


def test_a_compressed_archive(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="is no tar archive"):
        TarSource(tar(tmp_path / "x.tar", {"a": b"a"}, "w:gz"))


def test_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    open_files = len(os.listdir("/dev/fd"))
    for path, message in (
        (tmp_path, "is not a file"),
        (tmp_path / "pipe", "is not a file"),
        (tmp_path / "no", "No such"),
    ):
        with pytest.raises(SourceError, match=message):
            TarSource(path)
    assert len(os.listdir("/dev/fd")) == open_files


def test_the_descriptor_is_given_back(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"a": b"a"})
    open_files = len(os.listdir("/dev/fd"))
    source = TarSource(path)
    assert len(os.listdir("/dev/fd")) == open_files + 1
    del source
    assert len(os.listdir("/dev/fd")) == open_files


def sign(block: bytearray) -> bytes:
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


@pytest.mark.parametrize("kind", [b"0", b"x", b"L", b"S", b"2"])
@pytest.mark.parametrize("size", [b"\xff" * 10 + b"\xfc\x00", b"\x80" + b"\x7f" * 11, b"77777777777\0"])
def test_sizes_that_lie(tmp_path: Path, kind: bytes, size: bytes) -> None:
    whole = tar(tmp_path / "x.tar", {"1.jpg": b"a", "2.jpg": b"b", "3.jpg": b"c"}).read_bytes()
    block = bytearray(whole[1024:1536])
    block[124:136], block[156:157] = size, kind
    (tmp_path / "x.tar").write_bytes(whole[:1024] + sign(block) + whole[1536:])
    begin = time.monotonic()
    try:
        source = TarSource(tmp_path / "x.tar")
    except SourceError:
        pass
    else:
        assert source.read(source.entries[0]) == b"a"
        assert b"2.jpg" in rejects(source)
    assert time.monotonic() - begin < 2


def test_headers_upon_headers(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as file:
        add(file, "1.jpg", b"a")
        for _ in range(3000):
            add(file, "long", b"name\0", type=tarfile.GNUTYPE_LONGNAME)
    with pytest.raises(SourceError, match="is damaged or cut short at byte 1,024"):
        TarSource(tmp_path / "x.tar")


def test_threads_read_the_right_bytes(archive: tarfile.TarFile) -> None:
    contents = {f"{n:04d}.jpg": hashlib.sha256(b"%d" % n).digest() * (1 + n % 40) for n in range(400)}
    for path, data in contents.items():
        add(archive, path, data)
    source = opened(archive)
    with ThreadPoolExecutor(8) as pool:
        read = list(pool.map(source.read, [*source.entries, *reversed(source.entries)] * 3))
    assert read == [*contents.values(), *reversed(contents.values())] * 3


def test_short_reads(archive: tarfile.TarFile, monkeypatch: pytest.MonkeyPatch) -> None:
    add(archive, "a.jpg", b"abcdefghij" * 9)
    source = opened(archive)
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda descriptor, n, offset: real(descriptor, min(n, 7), offset))
    assert source.read(source.entries[0]) == b"abcdefghij" * 9


def test_an_archive_that_changes_after_the_listing(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"a.jpg": b"a" * 900, "b.jpg": b"b" * 900})
    source = TarSource(path)
    assert source.read(source.entries[0]) == b"a" * 900
    whole = path.read_bytes()
    for change in (whole[:700], whole + bytes(512), whole.replace(b"a", b"c")):
        path.write_bytes(change)
        for entry in source.entries:
            with pytest.raises(SourceError, match=r"x\.tar has changed since it was listed: put it back"):
                source.read(entry)


def test_an_archive_that_is_replaced_is_read_as_it_was(tmp_path: Path) -> None:
    path = tar(tmp_path / "x.tar", {"a.jpg": b"a" * 900})
    source = TarSource(path)
    tar(tmp_path / "y.tar", {"a.jpg": b"b" * 900}).replace(path)
    assert source.read(source.entries[0]) == b"a" * 900


def test_reading_fails(archive: tarfile.TarFile, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> bytes:
        raise OSError(5, "Input/output error")

    add(archive, "a.jpg", b"a")
    source = opened(archive)
    monkeypatch.setattr(os, "pread", fail)
    with pytest.raises(Rejected) as caught:
        source.read(source.entries[0])
    assert (caught.value.code, caught.value.message) == (RejectCode.IO_ERROR, "Input/output error")
    with pytest.raises(SourceError, match=r"cannot read .*pictures\.tar: Input/output error"):
        TarSource(Path(str(archive.name)))


def test_as_many_members_as_imagenet_has(tmp_path: Path) -> None:
    block = bytearray(tarfile.TarInfo("ILSVRC2012_val_00000000.JPEG").tobuf(tarfile.USTAR_FORMAT))
    with (tmp_path / "x.tar").open("wb") as file:
        for number in range(20_000):
            block[15:23] = b"%08d" % number
            file.write(sign(block))
        file.write(bytes(1024))
    begin = time.process_time()
    source = TarSource(tmp_path / "x.tar")
    assert (len(source.entries), source.complete) == (20_000, True)
    assert time.process_time() - begin < 8
