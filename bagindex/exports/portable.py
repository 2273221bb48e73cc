"""An index of summaries in a single archive, to share: predictions and each image's strongest patches, without pixels
and features.

Its files are those of the index, byte by byte, but for the records, which say what is kept now, and the catalog, which
is made anew. They are compressed already, and so are stored as they are.
"""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable, Collection
from pathlib import Path

from bagindex import catalog, output
from bagindex.archived import is_index
from bagindex.errors import IncompleteIndexError, OutputError
from bagindex.locking import LOCK
from bagindex.store import IMAGES, WEIGHTS, IndexDirectory
from bagindex_schemas.records import IndexManifest, Keep

_EPOCH = (1980, 1, 1, 0, 0, 0)
"""The time of all files in an archive: the same index gives the same bytes, but for the catalog's."""


def write_portable(
    directory: IndexDirectory,
    opened: catalog.Catalog,
    path: Path,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> int:
    """Write the archive.

    Args:
        directory, opened: the index.
        path: a `.zip`.
        progress: hears how many of how many shards are copied.

    Returns:
        Its bytes.

    Raises:
        OutputError: it has another ending, or cannot be written.
        IncompleteIndexError: the index is being built.
        DamagedIndexError: a file of the index is missing or has another size.
    """
    if len(opened.shards) != len(opened.manifest.shards):
        raise IncompleteIndexError(f"{directory.place} is being built or updated: wait until that is done")
    output.check_ending(path, (".zip",))
    if path.exists() and not is_index(path):
        raise OutputError(f"{path} is no archive of an index: give another name, or remove it")
    if not path.parent.is_dir():
        raise OutputError(f"cannot write {path}: there is no folder {path.parent}")
    with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
        copy = IndexDirectory(Path(folder) / "index")
        with copy.writing():
            _fill(directory, opened, copy, progress)
            catalog.update(copy)
        output.save(path, {".zip": lambda temporary: _pack(copy.root, temporary)})
    return path.stat().st_size


def _fill(
    directory: IndexDirectory, opened: catalog.Catalog, copy: IndexDirectory, progress: Callable[[int, int], None]
) -> None:
    manifest = _reduced(opened.manifest, opened.models)
    digest = manifest.plan.digest()
    copy.write_manifest(manifest)
    if manifest.relabelling is not None:
        name = manifest.relabelling.file
        copy.write_file(name, directory.whole(directory.inside(name)).read_bytes())
    for name, model in manifest.models.items():
        copy.write_file(f"{name}/{WEIGHTS}", directory.weights_path(model).read_bytes())
    work = [(series, shard) for series in (IMAGES, *manifest.models) for shard in opened.shards]
    for done, (series, shard) in enumerate(work, start=1):
        record = directory.shard_manifest(series, shard)
        kept = {"images", "rejects"} if series == IMAGES else Keep.SUMMARY.tables
        reduced = record.model_copy(
            update={
                "plan_sha256": digest,
                "rows": {table: rows for table, rows in record.rows.items() if table in kept},
                "files": {name: each for name, each in record.files.items() if name.removesuffix(".parquet") in kept},
                "feature_offsets": None,
            }
        )
        temporary = copy.begin_shard(series, shard)
        for table in reduced.files:
            source = directory.table_path(series, shard, table.removesuffix(".parquet"))
            shutil.copyfile(directory.whole(source), temporary / table)
        copy.complete(temporary, reduced)
        copy.commit_shard(series, shard, temporary, digest)
        progress(done, len(work))


def _reduced(manifest: IndexManifest, models: Collection[str]) -> IndexManifest:
    """What `index.json` says of the same index with summaries only."""
    known = {
        name: record.model_copy(update={"levels": (Keep.SUMMARY,)})
        for name, record in manifest.models.items()
        if name in models
    }
    plan = manifest.plan.model_copy(update={"pixels": False})
    return manifest.model_copy(update={"plan": plan, "models": known})


def _pack(root: Path, path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for file in sorted(each for each in root.rglob("*") if each.is_file() and each.name != LOCK):
            member = zipfile.ZipInfo(file.relative_to(root).as_posix(), _EPOCH)
            member.external_attr = 0o644 << 16
            with file.open("rb") as source, archive.open(member, "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target, 2**20)
