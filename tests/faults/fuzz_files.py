"""Files that people or other programs write: class lists, labels, settings, records, ImageNet's devkit, and frames."""

from __future__ import annotations

import gzip
import io
import json
import os
import tarfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st
from scipy.io import savemat

from bagindex import labels, seal, text, thrift
from bagindex.errors import DamagedIndexError, LabelError, SourceError, UnknownClassError
from bagindex.processes import frames
from bagindex.sources import imagenet
from bagindex_schemas.derived import AnnRecord, WordsRecord
from bagindex_schemas.records import (
    CatalogRecord,
    ClassRecord,
    FileRecord,
    Grid,
    IndexManifest,
    ModelRecord,
    Plan,
    ShardManifest,
    ShardRange,
    SourceRecord,
    Transform,
)
from fakes import ENVIRONMENT, class_records
from faults.fuzz_target import Target, mutated, parsing

_CLASSES = class_records(["cat", "dog", "Ångström", "a,b"])
_TEXT = st.text(st.characters(), max_size=200)
_CELLS = st.text(st.sampled_from('abc,;"\n\r\t \0\ufeffé\u0301/.0123'), max_size=120)
_JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda each: st.lists(each, max_size=4) | st.dictionaries(st.text(max_size=10), each, max_size=4),
    max_leaves=10,
)


def _file(read: Callable[[Path], object], name: str) -> Callable[[Path, bytes], object]:
    def parse(folder: Path, data: bytes) -> object:
        path = folder / name
        path.write_bytes(data)
        return read(path)

    return parse


def _text_files(*lines: str) -> st.SearchStrategy[bytes]:
    sound = "\n".join(lines).encode()
    return st.one_of(
        st.binary(max_size=300),
        _TEXT.map(lambda found: found.encode("utf-8", "surrogatepass")),
        _CELLS.map(lambda found: (lines[0] + "\n" + found).encode()),
        mutated([sound, sound.replace(b"\n", b"\r\n"), b"\xef\xbb\xbf" + sound]),
    )


def _parquet() -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.table({"path": ["a/1.png", "b.png"], "label": ["cat", None]}), data)
    return data.getvalue()


def _footer() -> bytes:
    data = io.BytesIO()
    pq.write_table(pa.table({"a": [1, 2], "b": [["x"], None]}), data)
    file = data.getvalue()
    return file[-8 - int.from_bytes(file[-8:-4], "little") : -8]


def _thrift(_folder: Path, data: bytes) -> None:
    tree = thrift.parse(data)
    assert thrift.parse(thrift.emit(tree)) == tree or b"\x07" in data  # a double may be no number


def _records() -> Mapping[type, bytes]:
    source = SourceRecord(kind="folder", name="x", location="l", fingerprint="f", files=5, listed=5)
    transform = Transform(resize=24, crop_height=24, crop_width=24)
    plan = Plan(
        source=source,
        transform=transform,
        classes=_CLASSES,
        labels={"cat": 0, "other": None},
        pixels=True,
        shards=(ShardRange(first=0, count=5),),
    )
    model = ModelRecord(
        name="linear",
        architecture="linear",
        width=1.0,
        parameters=3,
        feature_size=6,
        grid=Grid(receptive_field=8, stride=8, rows=3, cols=3),
        levels=("features",),  # type: ignore[arg-type]  # pydantic makes it one
        weights_sha256="0" * 64,
        file_bytes=1,
        file_sha256="0" * 64,
        environment=ENVIRONMENT,
    )
    file = FileRecord(bytes=3, sha256="0" * 64)
    records = (
        IndexManifest(plan=plan, models={"linear": model}),
        ShardManifest(
            kind="model",
            shard=0,
            plan_sha256=plan.digest(),
            span=plan.shards[0],
            images_sha256="x",
            rows={"evidence": 3},
            files={"evidence.parquet": file},
            feature_offsets=(4, 400),
        ),
        CatalogRecord(catalog="catalog-1.duckdb", file=file),
        AnnRecord(
            features_sha256="x", files={"patches.faiss": file}, metric="l2", asked="auto", factory=None, patches=3
        ),
        WordsRecord(
            features_sha256="x",
            files={},
            words=2,
            asked=3,
            patches=3,
            sampled=3,
            iterations=3,
            seed=0,
            seconds=0.1,
            versions={},
        ),
    )
    return {type(record): seal.sealed(record) for record in records}


_SOUND = _records()


def _record(folder: Path, given: tuple[type, bytes]) -> object:
    kind, data = given
    (folder / "record.json").write_bytes(data)
    return seal.read_record(folder / "record.json", kind, "make it again")


def _replaced(data: bytes, path: list[int], value: Any) -> bytes:
    """A record without its seal, and another value somewhere in it."""
    record = json.loads(data)
    record.pop("record_sha256")
    place: Any = record
    for step in path:
        keys = list(place) if isinstance(place, dict) else range(len(place))
        if not keys:
            break
        key = list(keys)[step % len(keys)]
        if step == path[-1] or not isinstance(place[key], dict | list):
            place[key] = value
            break
        place = place[key]
    return json.dumps(record).encode()


def _record_inputs() -> st.SearchStrategy[tuple[type, bytes]]:
    kinds = st.sampled_from(list(_SOUND))
    steps = st.lists(st.integers(0, 20), min_size=1, max_size=5)
    return st.one_of(
        kinds.flatmap(lambda kind: st.tuples(st.just(kind), mutated([_SOUND[kind]]))),
        kinds.flatmap(lambda kind: st.tuples(st.just(kind), st.builds(_replaced, st.just(_SOUND[kind]), steps, _JSON))),
        st.tuples(kinds, _JSON.map(lambda value: json.dumps(value).encode())),
        st.tuples(kinds, st.binary(max_size=200)),
    )


def _settings(folder: Path, data: bytes) -> object:
    (folder / "config.toml").write_bytes(data)
    with mock.patch.dict(os.environ, {"BAGINDEX_CONFIG": str(folder / "config.toml"), "BAGINDEX_IMAGENET": ""}):
        return imagenet.find_data(None)


def _frame(_folder: Path, data: bytes) -> object:
    read, write = os.pipe()
    try:
        os.write(write, data)
        os.close(write)
        return frames.receive_json(read, 1000, time.monotonic() + 10)
    finally:
        os.close(read)


def _meta() -> bytes:
    """A `meta.mat` of two classes and a family of them."""
    kind = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(1, "n01440764", "tench", 0), (2, "n01443537", "goldfish", 0), (3, "n00001740", "entity", 2)]
    data = io.BytesIO()
    savemat(data, {"synsets": np.array(rows, dtype=kind).reshape(-1, 1)})
    return data.getvalue()


def _devkit() -> bytes:
    data = io.BytesIO()
    with tarfile.open(fileobj=data, mode="w") as archive:
        for name, content in ((imagenet.TRUTH, b"1\n2\n"), (imagenet.META, _meta())):
            member = tarfile.TarInfo(f"{imagenet.DEVKIT}/data/{name}")
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return data.getvalue()


_TAR = _devkit()


def _archive(folder: Path, data: bytes) -> object:
    path = folder / f"{imagenet.DEVKIT}.tar.gz"
    path.write_bytes(data)
    return imagenet._unpack(path)


def _kaggle(folder: Path, data: bytes) -> object:
    (folder / imagenet.KAGGLE_LABELS).write_bytes(data)
    return imagenet._read_kaggle(folder)


def _class(_folder: Path, wanted: str) -> ClassRecord:
    return labels.find_class(_CLASSES, wanted)


def _mapping(_folder: Path, given: tuple[list[str], dict[str, str | None]]) -> object:
    return labels.map_labels(given[0], _CLASSES, given[1])


_NAMES = st.sampled_from([record.name for record in _CLASSES]) | _TEXT
_TRUTHS = mutated([b"1\n2\n1\n", b"1\r\n2\r\n"]) | st.binary(max_size=50)
TARGETS: Mapping[str, Target] = {
    "Thrift": Target(st.binary(max_size=200) | mutated([_footer()]), parsing(_thrift, thrift.ThriftError), 2),
    "class lists": Target(
        _text_files("name,wnid,class_id", "cat,n1,0", '"a,b",n2,1'),
        parsing(_file(labels.read_classes, "classes.csv"), LabelError),
    ),
    "class maps": Target(
        _text_files("source,class", "katze,cat", "hund,"), parsing(_file(labels.read_class_map, "map.csv"), LabelError)
    ),
    "labels": Target(
        _text_files("path,label", "a/1.png,cat", '"b\nc.png",'), parsing(_file(labels.read_labels, "l.csv"), LabelError)
    ),
    "labels in Parquet": Target(
        mutated([_parquet()]) | st.binary(max_size=100), parsing(_file(labels.read_labels, "l.parquet"), LabelError)
    ),
    "classes by name": Target(_NAMES, parsing(_class, UnknownClassError)),
    "labels to classes": Target(
        st.tuples(st.lists(_NAMES, max_size=5), st.dictionaries(_NAMES, st.none() | _NAMES, max_size=3)),
        parsing(_mapping, LabelError),
    ),
    "settings": Target(
        _text_files("[data]", 'imagenet = "/nowhere"', "x = [1, {y = 2}]"), parsing(_settings, SourceError)
    ),
    "records": Target(_record_inputs(), parsing(_record, DamagedIndexError), 3),
    "frames": Target(
        st.binary(max_size=100) | mutated([b"\x01" + (13).to_bytes(4, "little") + b'{"a": [1, 2]}']),
        parsing(_frame, EOFError),
    ),
    "sizes": Target(
        _TEXT | st.from_regex(r"[0-9.]{0,400} ?[kmgtKMGT]?[bB]?"), parsing(lambda _, given: text.parse_bytes(given))
    ),
    "ImageNet's classes": Target(
        mutated([_meta()]), parsing(lambda _, data: imagenet._read_meta(data, Path("meta.mat")), SourceError), 0.05
    ),
    "ImageNet's truth": Target(
        _TRUTHS,
        parsing(lambda _, data: imagenet._map_ids(data, _meta(), Path("truth.txt"), Path("meta.mat")), SourceError),
        0.05,
    ),
    "ImageNet's devkit": Target(
        st.one_of(
            mutated([_TAR]).map(lambda data: gzip.compress(data, 1)),
            mutated([gzip.compress(_TAR)]),
        ),
        parsing(_archive, SourceError),
        0.1,
    ),
    "Kaggle's labels": Target(
        _text_files("ImageId,PredictionString", "ILSVRC2012_val_00000001,n01440764 1 2 3 4"),
        parsing(_kaggle, SourceError, LabelError),
    ),
}
