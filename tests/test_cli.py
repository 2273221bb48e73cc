"""The command line as a person meets it."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from safetensors import safe_open
from safetensors.numpy import save_file

from bagindex import Index


@pytest.fixture
def index_path(planted_folder: Path, planted_index: Index) -> Path:
    """The planted pictures' index."""
    return planted_index.path


def test_the_main_job(run, planted_folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    built = run(
        "build", planted_folder / "pictures", "--weights", planted_folder / "bagnet33.safetensors", "--name", "ex"
    )
    assert built.status == 0
    assert "48 images, 12,288 patches of bagnet33" in built.out
    assert "images/s" in built.out
    assert "features" in built.out
    assert "are free" in built.err

    top = run("top-patches", "fish")
    assert top.status == 0
    assert top.out.count("fish/0") == 7
    right = json.loads(run("top-patches", "fish", "--right-class", "--format", "json").out)
    assert [row["rank"] for row in right] == list(range(1, 8))
    assert {row["label_name"] for row in right} == {"fish"}
    assert all(len(row["box"]) == len(row["source_box"]) == 4 for row in right)
    wrong = json.loads(run("top-patches", "fish", "--wrong-class", "--format", "json").out)
    assert "fish" not in {row["label_name"] for row in wrong}

    rows = list(csv.DictReader(io.StringIO(run("top-patches", "fish", "--format", "csv").out)))
    assert [int(row["patch_id"]) for row in rows] == [row["patch_id"] for row in right]
    for ending in ("png", "json", "csv", "parquet"):
        written = run("top-patches", "fish", "-o", tmp_path / f"fish.{ending}")
        assert (written.status, written.out) == (0, "")
    assert json.loads((tmp_path / "fish.json").read_text()) == right
    assert pq.read_table(tmp_path / "fish.parquet")["patch_id"].to_pylist() == [row["patch_id"] for row in right]
    with Image.open(tmp_path / "fish.png") as picture:
        assert picture.width > 1000

    asked = (
        "SELECT label_name, max(logit) AS most FROM evidence WHERE class = 'fish' AND NOT correct GROUP BY 1 ORDER BY 2"
    )
    answer = json.loads(run("sql", asked, "--format", "json").out)
    assert {row["label_name"] for row in answer} == {"chain", "roof", "seam", "text", "tree"}
    assert answer[-1]["most"] == wrong[0]["logit"]

    assert "complete" in run("info").out
    info = json.loads(run("info", "--format", "json").out)
    assert info["models"][0]["patches"] == 12288
    assert [row["name"] for row in json.loads(run("list", "--format", "json").out)] == ["ex"]
    verified = run("verify")
    assert verified.status == 0
    assert "sound" in verified.out


def test_default_name_comes_from_the_source(run, planted_folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for parent in ("one", "two"):
        shutil.copytree(planted_folder / "pictures" / "fish", tmp_path / parent / "birds" / "val" / "fish")
        weights = ("--weights", planted_folder / "bagnet33.safetensors", "--limit", 2)
        assert run("build", tmp_path / parent / "birds" / "val", *weights).status == 0
    assert run("build", tmp_path / "one" / "birds" / "val", *weights).status == 0
    names = [row["name"] for row in json.loads(run("list", "--format", "json").out)]
    assert names == ["birds-val", "birds-val-2"]


def test_which_index(run, index_path: Path, home_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    assert "make one with `bagindex build" in run("info").err
    for age, name in ((2_000_000_000, "new"), (1_000_000_000, "old")):
        shutil.copytree(index_path, home_folder / name)
        os.utime(home_folder / name / "CURRENT", (age, age))
    latest = run("sql", "SELECT 1")
    assert "using the latest index, new" in latest.err
    assert "name" not in run("info", "-i", "old").err
    monkeypatch.setenv("BAGINDEX_INDEX", "old")
    assert run("info").out.splitlines()[0].split() == ["index", "old"]
    assert run("info", "-i", str(index_path)).status == 0
    missing = run("info", "-i", "other")
    assert missing.status == 1
    assert missing.err == "bagindex: there is no index other; by name there are: 'new', 'old'\n"
    (home_folder / "new" / "index.json").write_text("{")
    states = {row["name"]: row["state"] for row in json.loads(run("list", "--format", "json").out)}
    assert states == {"new": "damaged", "old": "complete"}
    assert "index.json is damaged" in run("info", "-i", "new").err


@pytest.mark.parametrize(
    ("args", "status", "message"),
    [
        (("top-patches", "fsih"), 1, "did you mean 'fish'?"),
        (("top-patches", "fish", "--wrong-class", "--any"), 2, "exclude each other"),
        (("top-patches", "fish", "-k", "0"), 2, "Invalid value"),
        (("top-patches", "fish", "--where", "width >"), 1, "is no SQL condition"),
        (("top-patches", "fish", "--model", "bagnet9"), 1, "it has bagnet33"),
        (("top-patches", "fish", "-o", "fish.gif"), 1, "one of .png, .json, .csv, .parquet"),
        (("top-patches", "fish", "-o", "/nowhere/fish.png"), 1, "cannot write /nowhere/fish.png"),
        (("sql", "DELETE FROM images"), 1, "only one statement that reads"),
        (("sql", "SELECT * FROM evidenc"), 1, 'Did you mean "evidence"'),
        (("sql", "SELECT 1", "-o", "x.png"), 1, "one of .json, .csv, .parquet"),
        (("nonsense",), 2, "No such command"),
        (("build",), 2, "Missing argument"),
        (("build", "/nowhere"), 1, "/nowhere does not exist"),
        (("build", "PICTURES"), 1, "Give --weights FILE, or --model"),
        (("build", "PICTURES", "--weights", "/nowhere.safetensors"), 1, "no weights at /nowhere.safetensors"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--model", "bagnet9"), 1, "are those of a bagnet33"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--model", "vgg"), 1, "choose from bagnet9, bagnet17, bagnet33"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--device", "cuda:99"), 1, "use --device cpu"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--device", "tpu"), 1, "auto, cpu, cuda or cuda:N"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--image-size", "4"), 1, "smaller than one patch"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--image-size", "axb"), 2, "HEIGHTxWIDTH"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--image-size", "20000"), 1, "up to 4096"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--name", "n" * 200), 1, "up to 100 letters"),
        (("top-patches", "fish", "-k", "1" * 30), 1, "go from 1 to"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--layout", "heap"), 1, "auto, folders, flat"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--name", "a/b"), 1, "cannot be called 'a/b'"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--name", "a", "--out", "b"), 1, "not both"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--workers", "0"), 2, "Invalid value"),
        (("build", "PICTURES", "--weights", "WEIGHTS", "--classes", "imagenet"), 1, "names 1000 classes"),
        (("build", "PICTURES/fish", "--weights", "WEIGHTS", "--layout", "folders"), 1, "give --layout flat"),
    ],
)
def test_errors_are_one_line_that_helps(
    run,  # type: ignore[no-untyped-def]
    planted_folder: Path,
    index_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    args: tuple[str, ...],
    status: int,
    message: str,
) -> None:
    monkeypatch.setenv("BAGINDEX_INDEX", str(index_path))
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)
    places = {"PICTURES": planted_folder / "pictures", "WEIGHTS": planted_folder / "bagnet33.safetensors"}
    places["PICTURES/fish"] = planted_folder / "pictures" / "fish"
    result = run(*(places.get(arg, arg) for arg in args))
    assert result.status == status
    assert message in result.err
    assert "Traceback" not in result.err
    if status == 1:
        assert result.err.startswith("bagindex: ")
        assert result.out == ""
    assert not os.listdir(tmp_path)


def test_debug_shows_where(run, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setenv("BAGINDEX_DEBUG", "")
    result = run("--debug", "info", "-i", "other")
    assert "Traceback" in result.err
    assert result.status == 1


def test_rejects_and_max_errors(run, planted_folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    pictures = tmp_path / "pictures"
    shutil.copytree(planted_folder / "pictures" / "fish", pictures / "fish")
    for number in range(3):
        (pictures / "fish" / f"bad{number}.png").write_text("no picture")
    common = (
        "build",
        pictures,
        "--weights",
        planted_folder / "bagnet33.safetensors",
        "--name",
        "bad",
        "--keep",
        "summary",
    )
    assert run(*common, "--strict").status == 1
    limited = run(*common, "--max-errors", 2)
    assert "no more than 2 such files are allowed" in limited.err
    assert run(*common, "--max-errors", 3).status == 0
    assert "3 files could not be indexed: 3 not_an_image" in run(*common).out
    rows = json.loads(run("sql", "SELECT path, code FROM rejects", "--format", "json").out)
    assert rows[0] == {"path": "fish/bad0.png", "code": "not_an_image"}


def test_other_input_size(run, planted_folder: Path) -> None:  # type: ignore[no-untyped-def]
    weights = ("--weights", planted_folder / "bagnet33.safetensors")
    assert run("build", planted_folder / "pictures", *weights, "--image-size", "40x64", "--limit", 6).status == 0
    info = json.loads(run("info", "--format", "json").out)
    assert (info["transform"]["crop_height"], info["transform"]["crop_width"]) == (40, 64)
    assert (info["models"][0]["grid"]["rows"], info["models"][0]["grid"]["cols"]) == (1, 4)
    assert run("verify").status == 0
    labels = json.loads(run("sql", "SELECT DISTINCT label_name AS l FROM images ORDER BY 1", "--format", "json").out)
    assert [row["l"] for row in labels] == ["chain", "fish", "roof", "seam", "text", "tree"]


def test_unlabelled_pictures_are_asked_with_any(run, planted_folder: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    weights = ("--weights", planted_folder / "bagnet33.safetensors")
    assert (
        run("build", planted_folder / "pictures" / "fish", "--layout", "flat", *weights, "--name", "flat").status == 0
    )
    assert "no image of this index has a label: ask with --any" in run("top-patches", "fish").err
    assert run("top-patches", "fish", "--any").out.count("jpg") == 7
    (tmp_path / "l.csv").write_text("path,label\n0000.jpg,fish\n")
    few = run("build", planted_folder / "pictures" / "fish", "--labels", tmp_path / "l.csv", *weights, "--name", "few")
    assert "7 of 8 files have no label in" in few.err


def test_growing_from_the_command_line(  # type: ignore[no-untyped-def]
    run, planted_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = tmp_path / "pictures"
    shutil.copytree(planted_folder / "pictures", pictures)
    (pictures / "fish" / "0000.jpg").rename(tmp_path / "later.png")
    # The index keeps a model in a file of its own, with another hash than that of the file that was given.
    with safe_open(planted_folder / "bagnet33.safetensors", "np") as file:
        tensors, metadata = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(tensors, tmp_path / "bagnet33.safetensors", {**metadata, "note": "another file"})
    build = ("build", pictures, "--weights", tmp_path / "bagnet33.safetensors", "--name", "ex")
    assert run(*build, "--keep", "summary").status == 0
    assert run(*build, "--keep", "features").status == 0
    shutil.move(tmp_path / "later.png", pictures / "fish" / "0000.jpg")
    assert "`bagindex update` adds new ones" in run(*build).err
    updated = run("update", pictures, "-i", "ex")
    assert "1 new files, 0 changed, 0 missing" in updated.out
    assert json.loads(run("sql", "SELECT count(*) AS n FROM evidence", "--format", "json").out) == [{"n": 48 * 256 * 6}]
    (tmp_path / "l.csv").write_text("path,label\nfish/0001.jpg,tree\n")
    assert "1 images have the labels of" in run("relabel", "--labels", tmp_path / "l.csv").out
    assert "fish/0001.jpg" in run("top-patches", "fish", "--wrong-class", "-k", 99).out
    assert run("relabel").status == 2
    assert "original labels are back" in run("relabel", "--original").out
    assert run("verify").status == 0
    assert "only model" in run("remove", "-i", "ex", "--model", "bagnet33", "--yes").err
    for answer in ("n\n", ""):
        monkeypatch.setattr(sys, "stdin", io.StringIO(answer))
        assert "nothing was removed" in run("remove", "-i", "ex").err
    assert run("remove", "-i", "ex", "--yes").status == 0
    assert "no indexes yet" in run("list").out


def test_query_from_stdin(run, index_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.setattr(sys, "stdin", io.StringIO("SELECT count(*) AS n FROM images"))
    assert json.loads(run("sql", "-", "-i", index_path, "--format", "json").out) == [{"n": 48}]


def test_verify_tells_damage_by_its_status(run, index_path: Path, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    shutil.copytree(index_path, tmp_path / "i")
    path = tmp_path / "i" / "bagnet33" / "shard-00000" / "features.parquet"
    data = bytearray(path.read_bytes())
    data[1000] ^= 1
    path.write_bytes(data)
    result = run("verify", "-i", tmp_path / "i")
    assert result.status == 1
    assert "features.parquet is damaged" in result.out
    found = json.loads(run("verify", "-i", tmp_path / "i", "--format", "json").out)
    assert [row["result"] for row in found if row["check"] == "hashes"] == ["failed"]


def test_whole_process(planted_folder: Path, index_path: Path) -> None:
    """In a process of its own: entry point, closed pipes, and what is imported."""
    command = f"{sys.executable} -m bagindex_cli sql 'SELECT patch_id FROM evidence' -i '{index_path}' --format csv"
    piped = subprocess.run(f"{command} | head -n 2", shell=True, capture_output=True, text=True, check=True)
    assert piped.stdout.splitlines()[0] == "patch_id"
    assert piped.stderr == ""
    code = (
        "import sys; sys.argv = ['bagindex', '--help']\n"
        "from bagindex_cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'torch', 'pyarrow', 'duckdb', 'numpy', 'PIL', 'faiss'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    query = (
        "import sys\nfrom bagindex import Index\n"
        f"Index.open({str(index_path)!r}).top_patches('fish')\n"
        "assert not {'torch', 'pyarrow', 'numpy'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", query], check=True)
