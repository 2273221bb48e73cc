"""An index changes with its source: new images come at the end, ids stay; what changed or went is noticed."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from bagindex import catalog, plan
from bagindex.build import BuildReport, BuildSettings, committed, finish
from bagindex.computation import Computation
from bagindex.compute import Compute
from bagindex.engines.local import LocalEngine
from bagindex.errors import SettingsError
from bagindex.images import Rejected
from bagindex.listing import Known, known_files, new_entries
from bagindex.observer import BuildObserver
from bagindex.sources import Entry, Source, describe
from bagindex.space import check_space
from bagindex.store import IMAGES, IndexDirectory
from bagindex.text import path_text
from bagindex_schemas.records import MODEL_NAME, Growth, IndexManifest, ShardRange

_KINDS = {
    "folders": "folders by class",
    "flat": "pictures without labels (--layout flat)",
    "csv": "pictures with a list of labels (--labels)",
    "parquet": "Parquet files",
    "arrow": "a saved data set",
    "webdataset": "tar archives",
    "crops": "boxes of pictures",
    "items": "what a program gave",
}


@dataclass(frozen=True)
class UpdateReport:
    """What an update found: so many new files, and paths that changed or are gone; these keep their evidence."""

    build: BuildReport
    new: int
    changed: tuple[str, ...]
    missing: tuple[str, ...]


def update(
    directory: IndexDirectory,
    source: Source,
    class_ids: Mapping[str, int | None],
    computes: Mapping[str, Compute],
    settings: BuildSettings,
    *,
    retry_rejects: bool = False,
    contents: bool = True,
    accept_missing: bool = False,
    observer: BuildObserver | None = None,
) -> UpdateReport:
    """Add the files of the source that the index has not dealt with, for all of its models.

    Args:
        directory: the index.
        source: the source as it is now.
        class_ids: the class of each of the source's labels.
        computes: the index's models at work, by name.
        settings: how; the keep levels are the index's own.
        retry_rejects: try files again that were rejected for a reason that may have passed.
        accept_missing: go on although most of the files that are indexed are not at the source.
        contents: read all known files to see whether they have changed; otherwise only their sizes are compared.
        observer: hears of the progress.

    Raises:
        SettingsError: the build has not finished, was of a part of the source, or of another source; or `computes` are
            not the index's models.
        LockedError, SpaceError, TooManyRejectsError, EvidenceRangeError: as for `bagindex.build.build`.
    """
    observer = observer or BuildObserver()
    directory.say_to(observer.note)
    with directory.writing():
        manifest = _trimmed(directory.manifest(), directory.committed(IMAGES))
        _check(directory, manifest, source, class_ids)
        _check_models(manifest, computes)
        known = known_files(directory, directory.committed(IMAGES))
        here = {entry.path for entry in source.entries}
        missing = [path for path, found in known.items() if found.code is None and path not in here]
        changed = list(_changed(source, known, contents, settings.threads))
        new = list(new_entries(source, known, retry_rejects))
        indexed = sum(found.code is None for found in known.values())
        if new and 2 * len(missing) > indexed and not accept_missing:
            raise SettingsError(
                f"only {indexed - len(missing):,} of the {indexed:,} files that are indexed are here, and {len(new):,} "
                "others: is this the source of this index? If it is, give --accept-missing"
            )
        if new:
            manifest = manifest.model_copy(
                update={"growths": (*manifest.growths, _growth(manifest, source, class_ids, new, retry_rejects))}
            )
        work = plan.owed(manifest, list(manifest.models), committed(directory, manifest))
        check_space(directory, manifest, work, source, settings.decoder, observer)
        if manifest != directory.manifest():
            directory.write_manifest(manifest)
        with Computation(directory, source, computes, settings, observer, work, LocalEngine()) as computation:
            computation.run(manifest)
        report = finish(directory, computation, list(computes))
    gone = tuple(sorted(map(path_text, missing)))
    return UpdateReport(report, len(new), tuple(changed), gone)


def remove_model(directory: IndexDirectory, name: str) -> None:
    """Remove a model from an index, or go on with that.

    Raises:
        SettingsError: the index has no such model, or no other.
    """
    with directory.writing():
        manifest = directory.manifest()
        if name not in manifest.models and not _left(directory, name):
            raise SettingsError(f"this index has no model {name!r}: it has {', '.join(manifest.models)}")
        if [*manifest.models] == [name]:
            raise SettingsError(f"{name} is this index's only model: remove the index")
        models = {key: record for key, record in manifest.models.items() if key != name}
        directory.write_manifest(manifest.model_copy(update={"models": models}))
        catalog.update(directory)
        directory.remove_series(name)


def _left(directory: IndexDirectory, name: str) -> bool:
    """Whether a removal of a model was cut off, after index.json had forgotten it."""
    return name != IMAGES and re.fullmatch(MODEL_NAME, name) is not None and directory.holds_series(name)


def remove_index(directory: IndexDirectory) -> None:
    """Remove an index, and its folder where nothing else is in it."""
    directory.manifest()
    with directory.writing():
        directory.clear()
        directory.remove_folder()


def _trimmed(manifest: IndexManifest, images: Sequence[int]) -> IndexManifest:
    """Without the last shards of an interrupted update, which no images were committed for: nobody saw their ids."""
    growths = []
    shard, last = len(manifest.plan.shards), max(images, default=-1)
    for growth in manifest.growths:
        kept = growth.shards[: max(0, last + 1 - shard)]
        shard += len(growth.shards)
        if kept:
            growths.append(growth.model_copy(update={"shards": kept}))
    return manifest.model_copy(update={"growths": tuple(growths)})


def _check(
    directory: IndexDirectory, manifest: IndexManifest, source: Source, class_ids: Mapping[str, int | None]
) -> None:
    shards = set(range(len(manifest.plan.shards)))
    done = committed(directory, manifest)
    lost = set(range(len(manifest.shards))) - set(done[IMAGES])
    if lost or not manifest.models or not all(shards <= set(done[series]) for series in done):
        raise SettingsError("the build of this index has not finished: run the same `bagindex build` command first")
    if manifest.source.files != manifest.source.listed:
        raise SettingsError("this index was built with --limit, of a part of its source: build it anew without")
    if source.kind != manifest.source.kind:
        had, has = (_KINDS.get(kind, kind) for kind in (manifest.source.kind, source.kind))
        raise SettingsError(
            f"this index was built from {had}, and this is {has}: give the options that `build` had "
            "(`bagindex relabel` gives other labels)"
        )
    for label, class_id in class_ids.items():
        if label in manifest.labels and manifest.labels[label] != class_id:
            raise SettingsError(f"the label {label!r} meant another class when the index was built (--class-map)")


def _check_models(manifest: IndexManifest, computes: Mapping[str, Compute]) -> None:
    """Another process may have changed the models after they were opened here."""
    for name, record in manifest.models.items():
        # As they were given, or as the index keeps them, which is another file.
        if name not in computes or computes[name].weights_sha256 not in (record.weights_sha256, record.file_sha256):
            raise SettingsError(f"the model {name} came to this index a moment ago: run the same command again")


def _growth(
    manifest: IndexManifest,
    source: Source,
    class_ids: Mapping[str, int | None],
    new: Sequence[Entry],
    retried: bool,
) -> Growth:
    last = manifest.shards[-1]
    first = last.first + last.count
    spans = plan.cut(len(new), plan.shard_size(len(new)))
    return Growth(
        source=describe(source),
        retried=retried,
        labels={label: class_id for label, class_id in class_ids.items() if label not in manifest.labels},
        shards=tuple(ShardRange(first=first + span.first, count=span.count) for span in spans),
    )


def _changed(source: Source, known: Mapping[bytes, Known], contents: bool, workers: int) -> Iterator[str]:
    def differs(entry: Entry) -> bool:
        found = known[entry.path]
        if entry.size not in (None, found.bytes):
            return True
        if not contents:
            return False
        try:
            return hashlib.sha256(source.read(entry)).hexdigest() != found.sha256
        except Rejected:
            return True

    indexed = [e for e in source.entries if e.path in known and known[e.path].code is None]
    with ThreadPoolExecutor(workers) as pool:
        for entry, changed in zip(indexed, pool.map(differs, indexed), strict=True):
            if changed:
                yield entry.text
