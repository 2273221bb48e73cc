"""An index as files that other tools open."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sqlite3
import zipfile
from pathlib import Path

import duckdb
import numpy as np
import polars
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bagindex import Index
from bagindex.errors import DamagedIndexError, NotKeptError, OutputError, QueryError, SettingsError
from bagindex.exports import rows, sampled
from bagindex_cli import main


def read(path: Path) -> list[dict[str, object]]:
    """The rows of a file."""
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix == ".arrow":
        with pa.ipc.open_file(path) as file:
            return list(file.read_all().to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return [{key: int(value) for key, value in row.items()} for row in csv.DictReader(file)]


@pytest.fixture(scope="module")
def without_pixels(planted_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Index:
    """An index of a few pictures that keeps none of their pixels."""
    return Index.build(
        planted_folder / "pictures",
        weights=planted_folder / "bagnet33.safetensors",
        out=tmp_path_factory.mktemp("bare") / "index",
        pixels=False,
        limit=6,
    )


@pytest.mark.parametrize("ending", [".parquet", ".arrow", ".csv", ".jsonl"])
def test_the_rows_of_a_query_are_written_as_they_come(
    planted_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    monkeypatch.setattr(rows, "BATCH", 2048)
    query = 'SELECT patch_id, "row", patch_id FROM evidence WHERE class_id = 1 ORDER BY patch_id DESC'
    heard: list[int] = []
    count = planted_index.export_query(query, tmp_path / f"x{ending}", progress=heard.append)
    expected = planted_index.sql(query).to_dicts()
    assert len(heard) > 3
    assert heard[-1] == count == len(expected)
    assert read(tmp_path / f"x{ending}") == expected
    assert list(expected[0]) == ["patch_id", "row", "patch_id_2"]


def test_a_query_that_fails_leaves_the_file_that_was_there(planted_index: Index, tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("mine")
    for query in ("SELECT error('no') FROM images", "DELETE FROM images", "SELECT 1; SELECT 2", "FROMM images"):
        with pytest.raises(QueryError):
            planted_index.export_query(query, path)
    with pytest.raises(OutputError, match=r"one of \.parquet, \.arrow, \.csv, \.jsonl"):
        planted_index.export_query("FROM images", tmp_path / "x.xls")
    assert [each.name for each in tmp_path.iterdir()] == ["x.csv"]
    assert path.read_text() == "mine"


def test_results_go_to_data_frames_without_copies(planted_index: Index, tmp_path: Path) -> None:
    found = planted_index.sql("SELECT image_id, path, probability FROM predictions ORDER BY image_id")
    frame = found.to_polars()
    assert isinstance(frame, polars.DataFrame)
    assert frame.to_dicts() == found.to_dicts()
    assert str(found.to_pandas(arrow=True).dtypes["probability"]) == "float[pyarrow]"
    address = found.to_arrow()["probability"].chunk(0).buffers()[1].address
    assert pa.array(found.to_pandas(arrow=True)["probability"].array).buffers()[1].address == address
    # Whoever speaks the PyCapsule protocol takes the result itself.
    assert pa.table(found).equals(found.to_arrow())
    assert polars.DataFrame(found).equals(frame)
    patches = planted_index.top_patches("fish")
    assert polars.DataFrame(patches)["patch_id"].to_list() == [patch.patch_id for patch in patches]
    patches.save(tmp_path / "x.arrow")
    assert read(tmp_path / "x.arrow") == patches.to_arrow().to_pylist()


def test_a_query_is_a_relation_to_go_on_with(planted_index: Index) -> None:
    relation = planted_index.relation("SELECT class, patch_id, logit FROM evidence WHERE correct")
    assert isinstance(relation, duckdb.DuckDBPyRelation)
    top = relation.filter("class = 'fish'").order("logit DESC, patch_id").limit(1).fetchall()
    assert top == [("fish", planted_index.top_patches("fish")[0].patch_id, planted_index.top_patches("fish")[0].logit)]
    for query in ("DROP TABLE images", "SELECT 1; SELECT 2", "FROM nowhere"):
        with pytest.raises(QueryError):
            planted_index.relation(query)


def test_an_archive_of_summaries_answers_as_the_index_does(planted_index: Index, tmp_path: Path) -> None:
    path = tmp_path / "clothes.zip"
    size = planted_index.export_summary(path)
    assert size == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
    assert not [name for name in names if "features" in name or "pixels" in name or "LOCK" in name or "tmp" in name]
    for wrong in (False, True):
        with Index.open(path) as opened:
            found = opened.top_patches("fish", wrong_class=wrong)
        assert found.to_dicts() == planted_index.top_patches("fish", wrong_class=wrong).to_dicts()
    with Index.open(path) as opened:
        assert opened.place == str(path)
        assert opened.name == "clothes"
        assert opened.verify().ok
        query = "SELECT * FROM image_evidence ORDER BY class_id, image_id"
        assert opened.sql(query).to_arrow().equals(planted_index.sql(query).to_arrow())
        assert opened.sql(query, safe=True).to_arrow().equals(planted_index.sql(query).to_arrow())
        with pytest.raises(NotKeptError, match="pixels"):
            opened.top_patches("fish").crops()
        with pytest.raises(SettingsError, match="is an archive, which is only read: unpack it"):
            opened.relabel(None)
    # Unpacked, it is an index like any other, and so it is by its place in the cache.
    unpacked = tmp_path / "unpacked"
    with zipfile.ZipFile(path) as archive:
        archive.extractall(unpacked)
    with Index.open(unpacked) as opened:
        opened.relabel(None)
    with Index.open(opened.path) as again:
        assert len(again.top_patches("fish")) == 7


def test_an_archive_that_was_replaced_is_opened_anew(planted_index: Index, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    planted_index.export_summary(path)
    with Index.open(path) as opened:
        before = opened.path
    shutil.copy(path, tmp_path / "y.zip")
    os.utime(tmp_path / "y.zip", ns=(1, 1))
    os.replace(tmp_path / "y.zip", path)
    with Index.open(path) as opened:
        assert len(opened.top_patches("fish")) == 7
        assert opened.path != before
    assert not before.exists()


def test_what_is_no_archive_of_an_index_is_refused(planted_index: Index, tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    planted_index.export_summary(path)
    data = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        (place,) = (each.header_offset for each in archive.infolist() if each.filename == "index.json")
    flipped = bytearray(data)
    flipped[place + 200] ^= 1
    others = io.BytesIO()
    with zipfile.ZipFile(others, "w") as archive:
        archive.writestr("readme.txt", "nothing")
    leading = io.BytesIO()
    with zipfile.ZipFile(leading, "w") as archive:
        archive.writestr("index.json", "{}")
        archive.writestr("../../outside.txt", "nothing")
    for content in (b"", b"no archive", data[: len(data) // 2], bytes(flipped), others.getvalue(), leading.getvalue()):
        path.write_bytes(content)
        with pytest.raises(DamagedIndexError, match=r"cannot be unpacked|no archive of an index"):
            Index.open(path)
    assert not list(tmp_path.parent.rglob("outside.txt"))


def test_a_sqlite_database_has_the_summaries(planted_index: Index, tmp_path: Path) -> None:
    path = tmp_path / "x.db"
    counts = planted_index.export_sqlite(path, top=3)
    with sqlite3.connect(path) as database:
        assert database.execute("PRAGMA foreign_key_check").fetchall() == []
        assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        for table, count in counts.items():
            assert database.execute(f"SELECT count(*) FROM {table}").fetchall() == [(count,)]
            if table != "top_patches":
                assert planted_index.sql(f"SELECT count(*) FROM {table}").to_dicts()[0]["count_star()"] == count
        stored = database.execute(
            "SELECT patch_id, logit, picture FROM top_patches WHERE class_id = 1 AND right_class = 0 ORDER BY rank"
        ).fetchall()
        accuracy = database.execute("SELECT avg(correct) FROM predictions").fetchall()
        evidence = database.execute("SELECT sum(max_logit), min(patch_id) FROM image_evidence").fetchall()
    found = planted_index.top_patches(1, wrong_class=True, k=3)
    assert [row[:2] for row in stored] == [(patch.patch_id, patch.logit) for patch in found]
    for (_, _, picture), crop in zip(stored, found.crops(), strict=True):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(picture))), crop)
    assert accuracy == list(map(tuple, planted_index.relation("SELECT avg(correct::INT) FROM predictions").fetchall()))
    expected = planted_index.relation("SELECT sum(max_logit), min(patch_id) FROM image_evidence").fetchall()
    assert evidence[0] == pytest.approx(expected[0])
    assert "image_evidence" not in planted_index.export_sqlite(tmp_path / "y.sqlite", top=0, image_evidence=False)


def test_what_somebody_else_wrote_is_not_replaced(planted_index: Index, tmp_path: Path) -> None:
    for name in ("x.db", "x.zip"):
        (tmp_path / name).write_bytes(b"mine" * 100)
    with sqlite3.connect(tmp_path / "mine.db") as database:
        database.execute("CREATE TABLE mine (a)")
    with zipfile.ZipFile(tmp_path / "mine.zip", "w") as archive:
        archive.writestr("mine.txt", "mine")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for name in ("x.db", "mine.db"):
        with pytest.raises(OutputError, match="no database that bagindex exported"):
            planted_index.export_sqlite(tmp_path / name)
    for name in ("x.zip", "mine.zip"):
        with pytest.raises(OutputError, match="no archive of an index"):
            planted_index.export_summary(tmp_path / name)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
    for _ in range(2):  # its own is
        planted_index.export_sqlite(tmp_path / "ours.db", top=0, image_evidence=False)
        planted_index.export_summary(tmp_path / "ours.zip")


def test_fiftyone_has_the_strongest_patches_as_detections(
    planted_index: Index, planted_folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "labels.csv").write_text(f"path,label\n{planted_index._catalog.rows('FROM images')[0][1]},tree\n")
    shutil.copytree(planted_index.path, tmp_path / "index")
    with Index.open(tmp_path / "index") as index:
        index.relabel(tmp_path / "labels.csv")
        count = index.export_fiftyone(tmp_path / "fo", patches=2)
    samples = json.loads((tmp_path / "fo" / "samples.json").read_text())["samples"]
    assert len(samples) == count == 48
    inputs = planted_index._pixels([sample["image_id"] for sample in samples])
    for sample in samples[:8]:
        pixels = np.asarray(Image.open(tmp_path / "fo" / sample["filepath"]))
        assert np.array_equal(pixels, inputs[sample["image_id"]])
        for detection in sample["evidence"]["detections"]:
            x0, y0, x1, y1, logit = planted_index.relation(
                f"SELECT x0, y0, x1, y1, logit FROM evidence_of('{detection['label']}') "
                f"WHERE patch_id = {detection['patch_id']}"
            ).fetchall()[0]
            size = pixels.shape[1], pixels.shape[0]
            box = [x0 / size[0], y0 / size[1], (x1 - x0) / size[0], (y1 - y0) / size[1]]
            assert detection["bounding_box"] == pytest.approx(box)
            assert detection["logit"] == logit
    roles = [[each["role"] for each in sample["evidence"]["detections"]] for sample in samples[:2]]
    assert roles == [["predicted", "predicted", "label", "label"], ["both", "both"]]
    first = samples[0]
    strongest = planted_index.sql(
        f"SELECT max(logit) AS logit FROM evidence WHERE image_id = {first['image_id']} "
        f"AND class = '{first['prediction']['label']}'"
    ).to_dicts()[0]["logit"]
    assert max(each["logit"] for each in first["evidence"]["detections"] if each["role"] != "label") == strongest
    with pytest.raises(OutputError, match="there is something"):
        planted_index.export_fiftyone(tmp_path / "fo")
    # On the original files, boxes are where the patches are there.
    planted_index.export_fiftyone(tmp_path / "originals", where="image_id < 2", source=planted_folder / "pictures")
    (sample, _) = json.loads((tmp_path / "originals" / "samples.json").read_text())["samples"]
    detection = sample["evidence"]["detections"][0]
    patch = next(
        each
        for each in planted_index.top_patches(detection["label"], any_class=True, k=10_000, per_image=100, overlap=True)
        if each.patch_id == detection["patch_id"]
    )
    with Image.open(sample["filepath"]) as picture:
        width, height = picture.size
    x0, y0, x1, y1 = patch.source_box
    assert detection["bounding_box"] == pytest.approx([x0 / width, y0 / height, (x1 - x0) / width, (y1 - y0) / height])
    with pytest.raises(SettingsError, match="is not a folder"):
        planted_index.export_fiftyone(tmp_path / "none", source=tmp_path / "nowhere")
    with pytest.raises(QueryError, match="there is no image to export: no image meets 'false'"):
        planted_index.export_fiftyone(tmp_path / "none", where="false")
    assert not (tmp_path / "none").exists()


def test_fiftyone_without_pixels_shows_the_original_files(
    without_pixels: Index, planted_folder: Path, tmp_path: Path
) -> None:
    with pytest.raises(NotKeptError, match="keeps no pixels"):
        without_pixels.export_fiftyone(tmp_path / "fo")
    assert not list(tmp_path.iterdir())
    assert without_pixels.export_fiftyone(tmp_path / "fo", source=planted_folder / "pictures") == 6


def test_the_atlas_gets_features_pictures_and_the_strongest_class(planted_index: Index, tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    assert planted_index.export_features(path, sample=700) == 700
    table = pq.read_table(path).to_pylist()
    ids = np.array([row["patch_id"] for row in table])
    assert (np.diff(ids) > 0).all()
    features = planted_index._stored_features(planted_index._model(None)).of_patches(ids)
    assert np.array_equal(np.array([row["feature"] for row in table], np.float32), features.astype(np.float32))
    some = ", ".join(map(str, ids[:50]))
    expected = planted_index.sql(
        f"SELECT patch_id, arg_max(class, (logit, -class_id)) AS class, max(logit) AS logit FROM evidence "
        f"WHERE patch_id IN ({some}) GROUP BY 1 ORDER BY 1"
    ).to_dicts()
    assert [{name: row[name] for name in ("patch_id", "class", "logit")} for row in table[:50]] == expected
    crops = planted_index._crops_of(planted_index._model(None), [int(ids[5])])
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(table[5]["patch"]["bytes"]))), crops[0])
    # The same draw again, evidence for one class, and only some images.
    planted_index.export_features(tmp_path / "y.parquet", sample=700, class_="fish")
    again = pq.read_table(tmp_path / "y.parquet").to_pylist()
    assert [row["patch_id"] for row in again] == ids.tolist()
    assert {row["class"] for row in again} == {"fish"}
    per_image = planted_index._model(None).grid.patches
    assert planted_index.export_features(tmp_path / "z.parquet", sample=10**6, where="image_id < 2") == 2 * per_image
    with pytest.raises(QueryError, match="no image meets"):
        planted_index.export_features(tmp_path / "z.parquet", where="image_id < 0")


def test_features_without_pixels_have_no_pictures(without_pixels: Index, tmp_path: Path) -> None:
    without_pixels.export_features(tmp_path / "x.parquet", sample=20)
    assert "patch" not in pq.read_schema(tmp_path / "x.parquet").names
    without_pixels.export_features(tmp_path / "x", tool="projector", sample=20)
    assert not (tmp_path / "x" / "sprite.png").exists()
    assert "sprite" not in (tmp_path / "x" / "projector_config.pbtxt").read_text()


def test_the_projector_gets_exact_features_and_a_sprite(
    planted_index: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sampled, "_BATCH", 32)
    folder = tmp_path / "x"
    assert planted_index.export_features(folder, tool="projector", sample=100) == 100
    header, *lines = (folder / "metadata.tsv").read_text().splitlines()
    place = header.split("\t").index("patch_id")
    ids = [int(line.split("\t")[place]) for line in lines]
    record = planted_index._model(None)
    features = planted_index._stored_features(record).of_patches(np.array(ids))
    assert np.array_equal(np.loadtxt(folder / "features.tsv", delimiter="\t").astype(np.float16), features)
    sprite = np.asarray(Image.open(folder / "sprite.png"))
    crops = planted_index._crops_of(record, ids)
    assert sprite.shape == (330, 330, 3)
    assert np.array_equal(sprite[33 * 4 : 33 * 5, 33 * 7 : 33 * 8], crops[47])
    assert f"tensor_shape: {record.feature_size}" in (folder / "projector_config.pbtxt").read_text()
    with pytest.raises(SettingsError, match="embedding-atlas or projector"):
        planted_index.export_features(folder, tool="excel")


def test_the_commands_say_what_they_wrote(
    planted_index: Index, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for arguments, said in (
        (("query", "FROM classes", "-o", "c.parquet"), "wrote 6 rows to c.parquet"),
        (("summary", "-o", "s.zip"), "to s.zip; `-i s.zip` opens it"),
        (("sqlite", "-o", "s.db", "--top", "1", "--no-image-evidence"), "6 classes, 1 models, 48 images"),
        (("fiftyone", "-o", "fo", "--where", "image_id < 3"), "wrote 3 images to fo"),
        (("embedding-atlas", "-o", "a.parquet", "--sample", "9"), "wrote 9 patches to a.parquet"),
        (("projector", "-o", "p", "--sample", "9"), "wrote 9 patches to p: tensorboard --logdir p"),
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr("sys.argv", ["bagindex", "export", *arguments, "-i", str(planted_index.path)])
        with pytest.raises(SystemExit) as left:
            main()
        assert left.value.code == 0
        assert said in capsys.readouterr().err
