"""Files of our own making are those that pyarrow writes, byte by byte."""

from __future__ import annotations

import hashlib
import itertools
import os
import resource
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from bagindex import array_file
from bagindex.array_file import ArrayFile, Encoding, WrittenFile
from bagindex.arrays import ONE_PAGE, MappedArrays, array_offsets
from bagindex_schemas import tables

FEATURE_OPTIONS = {
    "compression": "none",
    "use_dictionary": False,
    "column_encoding": {"patch_id": "DELTA_BINARY_PACKED", "feature.list.element": "PLAIN"},
    "write_statistics": ["patch_id"],
}
EVIDENCE_OPTIONS = {
    "compression": {"class_id": "zstd", "patch_id": "zstd", "logit": "none"},
    "use_dictionary": ["class_id"],
    "column_encoding": {"patch_id": "DELTA_BINARY_PACKED", "logit": "PLAIN"},
    "write_statistics": ["class_id", "patch_id"],
}
EVIDENCE_ENCODINGS = {
    "class_id": Encoding("DICTIONARY", compression="zstd"),
    "patch_id": Encoding("DELTA_BINARY_PACKED", compression="zstd"),
}
FEATURE_ENCODINGS = {"patch_id": Encoding("DELTA_BINARY_PACKED")}
IMAGES = [[], [0], [0, 1, 2], [7, 8, 4000, 4001], [4096], [50_000_000_000]]


def by_pyarrow(path: Path, schema: pa.Schema, groups: Sequence[Sequence[pa.Array]], options: dict[str, Any]) -> None:
    with pq.ParquetWriter(path, schema, **options, **ONE_PAGE) as writer:
        for columns in groups:
            writer.write_table(pa.Table.from_arrays(columns, schema=schema), row_group_size=max(1, len(columns[0])))


def half_floats(shape: tuple[int, ...]) -> NDArray[np.float16]:
    """Every kind of float16: zeros of both signs, subnormals, infinities, NaNs."""
    return np.random.default_rng(1).integers(0, 2**16, shape, np.uint16).view(np.float16)


def patches(image_ids: Sequence[int], per_image: int) -> NDArray[np.int64]:
    return (np.array(image_ids, np.int64)[:, None] * per_image + np.arange(per_image)).ravel()


def write_features(path: Path, groups: Sequence[tuple[NDArray[np.int64], NDArray[np.float16]]]) -> WrittenFile:
    size = groups[0][1].shape[1] if groups else 8
    with ArrayFile(path, tables.features(size), FEATURE_ENCODINGS) as file:
        for ids, values in groups:
            file.append([file.encode("patch_id", ids)], values)
        return file.finish()


def write_evidence(path: Path, ids: NDArray[np.int64], logits: NDArray[np.float16]) -> WrittenFile:
    with ArrayFile(path, tables.EVIDENCE, EVIDENCE_ENCODINGS) as file:
        chunk = file.encode("patch_id", ids)
        for class_id, values in enumerate(logits):
            file.append([file.encode_constant("class_id", class_id, len(ids)), chunk], values)
        return file.finish()


def check(path: Path, other: Path, written: WrittenFile, column: int, arrays: Sequence[NDArray[np.float16]]) -> None:
    """`path` is `other`, byte by byte, and what `finish` says of it is so."""
    data = path.read_bytes()
    assert data == other.read_bytes()
    assert pq.read_metadata(path).to_dict() == pq.read_metadata(other).to_dict()
    assert pq.read_table(path).schema == pq.read_table(other).schema
    assert written.record.bytes == len(data)
    assert written.record.sha256 == hashlib.sha256(data).hexdigest()
    assert len(written.offsets) == len(arrays)
    for offset, values in zip(written.offsets, arrays, strict=True):
        assert data[offset : offset + values.nbytes] == values.tobytes()
    row_bytes = arrays[0].nbytes // max(1, len(arrays[0])) if arrays else 0
    if all(len(values) for values in arrays):
        assert array_offsets(path, column, row_bytes) == written.offsets


@pytest.mark.parametrize("image_ids", IMAGES)
@pytest.mark.parametrize(("per_image", "size"), [(1, 1), (1, 8), (36, 5), (576, 64)])
def test_features_as_pyarrow_writes_them(tmp_path: Path, image_ids: list[int], per_image: int, size: int) -> None:
    groups = [(patches([image_id], per_image), half_floats((per_image, size))) for image_id in image_ids]
    schema = tables.features(size if groups else 8)
    lists = [
        [pa.array(ids), pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), type=schema.field("feature").type)]
        for ids, values in groups
    ]
    by_pyarrow(tmp_path / "other", schema, lists, FEATURE_OPTIONS)
    written = write_features(tmp_path / "file", groups)
    check(tmp_path / "file", tmp_path / "other", written, 1, [values for _, values in groups])


@pytest.mark.parametrize("image_ids", IMAGES)
@pytest.mark.parametrize(("per_image", "classes"), [(1, 1), (4, 2), (49, 10), (9, 300)])
def test_evidence_as_pyarrow_writes_it(tmp_path: Path, image_ids: list[int], per_image: int, classes: int) -> None:
    ids = patches(image_ids, per_image)
    logits = half_floats((classes, len(ids)))
    groups = [
        [pa.array(np.full(len(ids), class_id, np.int32)), pa.array(ids), pa.array(values)]
        for class_id, values in enumerate(logits)
    ]
    by_pyarrow(tmp_path / "other", tables.EVIDENCE, groups, EVIDENCE_OPTIONS)
    written = write_evidence(tmp_path / "file", ids, logits)
    check(tmp_path / "file", tmp_path / "other", written, 2, list(logits))


def test_row_groups_of_different_sizes(tmp_path: Path) -> None:
    groups = [(patches([image_id], rows), half_floats((rows, 5))) for image_id, rows in enumerate([3, 1, 3, 200, 1])]
    written = write_features(tmp_path / "file", groups)
    table = pq.read_table(tmp_path / "file")
    assert np.array_equal(table["patch_id"].to_numpy(), np.concatenate([ids for ids, _ in groups]))
    stored = table["feature"].combine_chunks().flatten().to_numpy().view(np.uint16)
    assert np.array_equal(stored, np.concatenate([values.ravel() for _, values in groups]).view(np.uint16))
    assert array_offsets(tmp_path / "file", 1, 10) == written.offsets


def test_more_rows_than_pyarrow_encodes_at_once(tmp_path: Path) -> None:
    ids, logits = patches(range(0, 3000, 2), 200), half_floats((3, 300_000))
    groups = [
        [pa.array(np.full(len(ids), class_id, np.int32)), pa.array(ids), pa.array(values)]
        for class_id, values in enumerate(logits)
    ]
    by_pyarrow(tmp_path / "other", tables.EVIDENCE, groups, EVIDENCE_OPTIONS)
    check(tmp_path / "file", tmp_path / "other", write_evidence(tmp_path / "file", ids, logits), 2, list(logits))


@pytest.mark.parametrize("values", [[5, 5, 5], [-(2**31), 2**31 - 1]])
@pytest.mark.parametrize("statistics", [True, False])
@pytest.mark.parametrize("name", ["DICTIONARY", "PLAIN", "DELTA_BINARY_PACKED"])
@pytest.mark.parametrize("compression", ["none", "zstd", "snappy"])
def test_a_constant_column_is_encoded_like_any(
    tmp_path: Path, values: list[int], statistics: bool, name: str, compression: str
) -> None:
    encodings = {"class_id": Encoding(name, compression, statistics)}
    schema = pa.schema([tables.EVIDENCE.field("class_id"), tables.EVIDENCE.field("logit")])
    with ArrayFile(tmp_path / "file", schema, encodings) as file:
        for rows in (0, 1, 2, 9, 1000):
            for value in values:
                assert file.encode_constant("class_id", value, rows) == file.encode("class_id", np.full(rows, value))


def test_duckdb_reads_it_and_knows_the_classes_of_each_row_group(tmp_path: Path) -> None:
    ids, logits = patches([3, 5], 50), np.arange(300).reshape(3, 100).astype(np.float16)
    path = tmp_path / "evidence.parquet"
    write_evidence(path, ids, logits)
    with duckdb.connect() as connection:
        rows = connection.execute(
            "SELECT patch_id, logit FROM read_parquet(?) WHERE class_id = 1", [str(path)]
        ).fetchall()
        assert rows == list(zip(ids.tolist(), logits[1].tolist(), strict=True))
        query = """SELECT row_group_id, stats_min_value::BIGINT, stats_max_value::BIGINT
                   FROM parquet_metadata(?) WHERE path_in_schema = ? ORDER BY 1"""
        assert connection.execute(query, [str(path), "class_id"]).fetchall() == [(0, 0, 0), (1, 1, 1), (2, 2, 2)]
        assert connection.execute(query, [str(path), "patch_id"]).fetchall() == [(n, 150, 299) for n in range(3)]
        write_features(path, [(patches([n], 4), half_floats((4, 8))) for n in (2, 9)])
        assert connection.execute(query, [str(path), "patch_id"]).fetchall() == [(0, 8, 11), (1, 36, 39)]
        assert connection.execute("SELECT count(feature) FROM read_parquet(?)", [str(path)]).fetchall() == [(8,)]


def test_a_file_without_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "features.parquet"
    assert write_features(path, []).offsets == ()
    table = pq.read_table(path)
    assert table.num_rows == 0
    assert table.schema == tables.features(8)
    assert duckdb.sql(f"SELECT count(*) FROM '{path}'").fetchall() == [(0,)]


def test_mapped_without_decoding(tmp_path: Path) -> None:
    groups = [(patches([n], 4), half_floats((4, 8))) for n in range(3)]
    written = write_features(tmp_path / "file", groups)
    mapped = MappedArrays(tmp_path / "file", written.offsets, (4, 8))
    assert all(mapped[n].tobytes() == values.tobytes() for n, (_, values) in enumerate(groups))


def test_writes_that_take_only_some_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [(patches([n], 4), half_floats((4, 8))) for n in range(3)]
    written = write_features(tmp_path / "whole", groups)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:7]))
    assert write_features(tmp_path / "parts", groups) == written
    assert (tmp_path / "parts").read_bytes() == (tmp_path / "whole").read_bytes()


def test_bytes_go_to_the_disk_on_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synchronised = []
    monkeypatch.setattr(array_file, "SYNC_EVERY", 1000)
    monkeypatch.setattr(
        array_file, "_synchronise", lambda descriptor: synchronised.append(os.fstat(descriptor).st_size)
    )
    write_features(tmp_path / "file", [(patches([n], 4), half_floats((4, 64))) for n in range(6)])
    assert len(synchronised) >= 3
    assert all(1000 <= after - before < 1700 for before, after in itertools.pairwise(synchronised))


def test_other_shapes_and_types_are_refused(tmp_path: Path) -> None:
    schema = tables.features(8)
    with ArrayFile(tmp_path / "file", schema, FEATURE_ENCODINGS) as file:
        ids = file.encode("patch_id", np.arange(4))
        for values in (half_floats((4, 7)), half_floats((4,)), np.zeros((4, 8), np.float32), np.zeros((4, 8), ">f2")):
            with pytest.raises(ValueError, match=r"is not float16 \(4, 8\)"):
                file.append([ids], values)
        for chunks, rows in (([], 4), ([ids, ids], 4), ([ids], 3)):
            with pytest.raises(ValueError, match="a row group is"):
                file.append(chunks, half_floats((rows, 8)))
        file.append([ids], half_floats((8, 4)).T)
        written = file.finish()
        with pytest.raises(ValueError, match="closed"):
            file.append([ids], half_floats((4, 8)))
    data = (tmp_path / "file").read_bytes()
    assert written.record.bytes == len(data)
    assert data[written.offsets[0] :][:64] == half_floats((8, 4)).T.tobytes()
    for fields, encodings in ((schema, {}), (schema, EVIDENCE_ENCODINGS), (pa.schema([("a", pa.float16())]), {})):
        with pytest.raises(ValueError, match="an encoding for each column but the last"):
            ArrayFile(tmp_path / "other", fields, encodings)


def test_a_layout_that_is_not_known_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(array_file, "_ARRAY", Encoding("BYTE_STREAM_SPLIT", statistics=False))
    with pytest.raises(RuntimeError, match="lays out the column feature in a way bagindex does not know"):
        write_features(tmp_path / "file", [(patches([0], 4), half_floats((4, 8)))])


def test_a_full_disk_is_an_os_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    monkeypatch.setattr(array_file, "_synchronise", lambda _: None)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_features(tmp_path / "file", [(patches([n], 36), half_floats((36, 64))) for n in range(6)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
