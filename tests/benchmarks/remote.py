"""What questions to an index in an object store read: bytes, requests and time, from an empty cache and again.

    python tests/benchmarks/remote.py FOLDER [INDEX ...]

puts the index of `generated.py` (ImageNet-val's size; FOLDER/index, made where it is not there yet) and other indexes
into moto's server on this machine, prints a table for each and writes FOLDER/remote.json. Before each question the
cache is empty, and opening is part of it; then the same is asked again by a new opening. Times say little: moto reads a
whole object for each range of it, and there is no network.
"""

from __future__ import annotations

import argparse
import gc
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import fsspec

import moto_server
from bagindex import Index
from bagindex.errors import BagindexError
from bagindex.remote.mirror import mirror_at
from bagindex.remote.objects import Traffic
from common import Row, machine, print_table, write_json
from generated import generate

Ask = Callable[[Index], object]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("index", type=Path, nargs="*")
    options = parser.parse_args()
    generate(options.folder / "index")
    found: dict[str, object] = {"machine": machine()}
    with moto_server.running() as address, tempfile.TemporaryDirectory() as cache:
        os.environ |= {**moto_server.ENVIRONMENT, "AWS_ENDPOINT_URL": address}
        store = fsspec.filesystem("s3")
        for number, folder in enumerate([options.folder / "index", *options.index]):
            bucket = f"bucket{number}"
            store.mkdir(bucket)
            paths = [path for path in folder.rglob("*") if path.is_file() and path.name != "LOCK"]
            size = sum(path.stat().st_size for path in paths)
            print(f"\n{folder}: {size / 1e6:,.0f} MB, {len(paths)} objects", flush=True)
            for path in paths:
                store.put_file(str(path), f"{bucket}/index/{path.relative_to(folder).as_posix()}")
            rows = list(ask(f"s3://{bucket}/index", Path(cache)))
            print_table(rows)
            found[str(folder)] = {"bytes": size, "objects": len(paths), "questions": rows}
    write_json(options.folder / "remote.json", found)


def questions(index: Index) -> dict[str, Ask]:
    """The questions that the index can be asked, by what they are."""
    tables = index.model_records()[0].keep.tables
    class_id, other = (index.classes[place].class_id for place in (0, len(index.classes) // 2))
    name = index.classes[0].name.replace("'", "''")
    by_row = f"SELECT \"row\", avg(logit) FROM evidence WHERE class = '{name}' AND correct GROUP BY 1"
    asked: dict[str, Ask] = {
        "open": lambda index: index.model_records(),
        "top_patches (Figure 3), right class": lambda index: index.top_patches(class_id),
        "top_patches, both subrows": lambda index: (
            index.top_patches(class_id),
            index.top_patches(class_id, wrong_class=True),
        ),
        "top_patches, both subrows of two classes": lambda index: [
            index.top_patches(each, wrong_class=wrong) for each in (class_id, other) for wrong in (False, True)
        ],
        "SQL: accuracy by class": lambda index: index.sql(
            "SELECT label_name, avg(correct::INTEGER) FROM predictions GROUP BY 1"
        ),
        "info": lambda index: index.info(),
    }
    if "evidence" in tables:
        asked["top_patches, per_image=3: a class's evidence"] = lambda index: index.top_patches(class_id, per_image=3)
        asked["SQL: a class's evidence by row"] = lambda index: index.sql(by_row)
    if index.keeps_pixels:
        asked["top_patches, both subrows, as pictures"] = lambda index: [
            index.top_patches(class_id, wrong_class=wrong).picture(640) for wrong in (False, True)
        ]
        asked["the pixels of one image"] = lambda index: index.pixels(0)
    if "features" in tables:
        asked["explain an image"] = lambda index: index.explain(0)
        asked["similar, by the FAISS index"] = lambda index: index.similar(0)
        asked["similar in a class, exact"] = lambda index: index.similar(0, class_=class_id)
    return asked


def ask(url: str, cache: Path) -> list[Row]:
    """A row for each question."""
    os.environ["BAGINDEX_CACHE"] = str(cache / "first")
    with Index.open(url) as index:
        asked = questions(index)
    rows = []
    for what, question in asked.items():
        folder = cache / what.replace("/", " ")
        os.environ["BAGINDEX_CACHE"] = str(folder)
        try:
            cold, cold_seconds = _once(url, question)
            warm, warm_seconds = _once(url, question)
        except BagindexError as error:
            print(f"{what}: {error}", file=sys.stderr)
            continue
        rows.append(
            {
                "what": what,
                "kB": round(cold.read / 1000),
                "requests": cold.requests,
                "s": round(cold_seconds, 2),
                "kB again": round(warm.read / 1000),
                "requests again": warm.requests,
                "s again": round(warm_seconds, 2),
            }
        )
        shutil.rmtree(folder)
    return rows


def _once(url: str, question: Ask) -> tuple[Traffic, float]:
    began = time.perf_counter()
    gc.collect()  # the mirror of the opening before, which counts
    with Index.open(url) as index:
        mirror = mirror_at(index.path)
        if mirror is None:
            raise RuntimeError(f"{url} has no mirror")
        question(index)
        seconds = time.perf_counter() - began
        return mirror.store.traffic, seconds


if __name__ == "__main__":
    main()
