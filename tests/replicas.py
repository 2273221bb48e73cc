"""Small replicas of data sets as they are published, of pictures that say their numbers."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from bagindex import Index
from bagindex.build import BuildReport
from bagindex.evidence import Evidence
from fakes import LinearCompute, number_png

CLASSES = ("apple", "bear")


@dataclass(frozen=True)
class Item:
    """A picture of a data set."""

    name: str
    data: bytes | None
    label: int


def items(count: int, first: int = 0) -> list[Item]:
    """So many pictures, of two classes in turn."""
    return [Item(f"{n:03d}.png", number_png(n, 16), n % 2) for n in range(first, first + count)]


def features(*, image: str = "image", label: str = "label") -> dict[bytes, bytes]:
    """What Hugging Face writes into a schema's metadata."""
    told = {image: {"_type": "Image"}, label: {"names": list(CLASSES), "_type": "ClassLabel"}}
    return {b"huggingface": json.dumps({"info": {"features": told}}).encode()}


def table(pictures: Sequence[Item], *, image: str = "image", label: str = "label", named: bool = True) -> pa.Table:
    """The rows as Hugging Face has them."""
    kind = pa.struct({"bytes": pa.binary(), "path": pa.string()})
    files = [{"bytes": each.data, "path": each.name if named else None} for each in pictures]
    columns = {image: pa.array(files, kind), label: pa.array([each.label for each in pictures], pa.int64())}
    return pa.table(columns).replace_schema_metadata(features(image=image, label=label))


def as_parquet(folder: Path, pictures: Sequence[Item], split: str = "train", files: int = 2) -> Path:
    """`data/train-00000-of-00002.parquet` and so on, in row groups of seven."""
    (folder / "data").mkdir(parents=True, exist_ok=True)
    size = -(-len(pictures) // files)
    for number in range(files):
        part = table(pictures[number * size : (number + 1) * size])
        pq.write_table(part, folder / f"data/{split}-{number:05d}-of-{files:05d}.parquet", row_group_size=7)
    return folder


def as_arrow(folder: Path, pictures: Sequence[Item], files: int = 2) -> Path:
    """A data set as `save_to_disk` leaves it, in batches of seven."""
    folder.mkdir(parents=True)
    size = -(-len(pictures) // files)
    names = [f"data-{number:05d}-of-{files:05d}.arrow" for number in range(files)]
    for number, name in enumerate(names):
        part = table(pictures[number * size : (number + 1) * size])
        with pa.ipc.new_stream(folder / name, part.schema) as stream:
            stream.write_table(part, max_chunksize=7)
    (folder / "dataset_info.json").write_text("{}")
    (folder / "state.json").write_text(json.dumps({"_data_files": [{"filename": name} for name in names]}))
    return folder


def as_tars(folder: Path, pictures: Sequence[Item], files: int = 2) -> Path:
    """WebDataset's shards, `shard-000000.tar` and so on, with a label beside each picture."""
    folder.mkdir(parents=True)
    size = -(-len(pictures) // files)
    for number in range(files):
        members: dict[str, bytes] = {}
        for each in pictures[number * size : (number + 1) * size]:
            members[each.name] = each.data or b""
            members[f"{Path(each.name).stem}.cls"] = CLASSES[each.label].encode()
        pack(folder / f"shard-{number:06d}.tar", members)
    return folder


def pack(path: Path, members: Mapping[str, bytes]) -> Path:
    """A tar archive."""
    with tarfile.open(path, "w") as tar:
        for name, data in members.items():
            header = tarfile.TarInfo(name)
            header.size = len(data)
            tar.addfile(header, io.BytesIO(data))
    return path


def as_crops(folder: Path, pictures: Sequence[Item]) -> Path:
    """`boxes.csv` of pictures that lie side by side, ten to a file."""
    folder.mkdir(parents=True)
    lines = ["path,x0,y0,x1,y1,label"]
    for first in range(0, len(pictures), 10):
        sheet = Image.new("RGB", (260, 20))
        for place, each in enumerate(pictures[first : first + 10]):
            left = 100 + 16 * place  # of three digits, so that their texts are in the order of the numbers
            sheet.paste(Image.open(io.BytesIO(each.data or b"")), (left, 2))
            lines.append(f"{1000 + first}.png,{left},2,{left + 16},18,{CLASSES[each.label]}")
        sheet.save(folder / f"{1000 + first}.png")
    (folder / "boxes.csv").write_text("\n".join(lines))
    return folder / "boxes.csv"


def as_splits(folder: Path, pictures: Sequence[Item], split: str) -> Path:
    """A saved data set of several splits, with one more."""
    as_arrow(folder / split, pictures)
    listing = folder / "dataset_dict.json"
    known = json.loads(listing.read_text())["splits"] if listing.exists() else []
    listing.write_text(json.dumps({"splits": [*known, split]}))
    return folder


class Stopped(BaseException):
    """A build is cut off."""


class Stopping(LinearCompute):
    """A model that is cut off at its `last` batch."""

    last = 30

    def run(self, pixels):  # type: ignore[no-untyped-def]
        """Compute, or stop."""
        self.last -= 1
        if self.last < 0:
            raise Stopped
        found: Evidence = super().run(pixels)
        return found


def model() -> LinearCompute:
    """A small model of the two classes."""
    return LinearCompute(CLASSES)


def built(source: object, out: Path, **options: object) -> BuildReport:
    """What building an index of a source does."""
    with Index.build(source, out=out, compute=model(), ann="none", **options) as index:  # type: ignore[arg-type]
        assert index.build_report is not None
        return index.build_report


def indexed(out: Path) -> Iterator[tuple[str, str | None]]:
    """The paths and labels of an index's images, in order."""
    with Index.open(out) as index:
        for row in index.sql("SELECT path, label_name FROM images ORDER BY image_id").to_dicts():
            yield str(row["path"]), row["label_name"]


def rejected(out: Path) -> dict[str, str]:
    """The codes of the files of an index that could not be indexed."""
    with Index.open(out) as index:
        return {str(row["path"]): str(row["code"]) for row in index.sql("SELECT path, code FROM rejects").to_dicts()}
