"""Mending an index: what is damaged is dropped, so that a build makes it again; what is sound is not touched.

A damaged shard cannot be mended, only computed again, from the source or from stored pixels. `index.json` has a copy.
What is derived (catalog, FAISS index, visual words, maps) is made again from the shards, where these are whole.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from bagindex import catalog, compact, derived
from bagindex.errors import DamagedIndexError
from bagindex.seal import read_record
from bagindex.store import COPY, INDEX, LOST, WEIGHTS, IndexDirectory
from bagindex.verify import Damage, verify
from bagindex_schemas.derived import AnnRecord, MapRecord, WordsRecord
from bagindex_schemas.records import IndexManifest

_WORDS = 256
"""So many visual words are made where it cannot be read how many there were, as where it is not said."""


@dataclass
class RepairReport:
    """What was found in an index, and what was done.

    Attributes:
        path: the index's folder, or its URL.
        found: what is damaged, and is dropped by a repair; relative to the index.
        agreed: whether it was dropped.
        restored: records that were put back from their copy, or whose copy was made again.
        remade: what was made again.
        left: what is wrong and can only be mended by a person, each with what to do.
        owed: shards that are not there, and that the same build makes.
    """

    path: str
    found: list[str] = field(default_factory=list)
    agreed: bool = True
    restored: list[str] = field(default_factory=list)
    remade: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    owed: int = 0

    @property
    def ok(self) -> bool:
        """Whether all is mended, or will be by a build."""
        return self.agreed and not self.left


@dataclass(frozen=True)
class Again:
    """What an index is to derive again from its sound shards.

    Attributes:
        ann: indexes for similar patches, as (model, factory, metric).
        words: visual words, as (model, number).
        maps: maps, as (model, whether of words, patches, seed).
    """

    ann: tuple[tuple[str, str, str], ...] = ()
    words: tuple[tuple[str, int], ...] = ()
    maps: tuple[tuple[str, bool, int | None, int], ...] = ()


def repair(
    directory: IndexDirectory, agree: Callable[[Sequence[str]], bool], progress: Callable[[int, int], None]
) -> tuple[RepairReport, Again]:
    """Drop what is damaged, and make records and the catalog again.

    Args:
        directory: the index.
        agree: is told what would be dropped, and says whether it may be.
        progress: hears how many of how many steps of the search are done.

    Returns:
        What was done, and what is still to be made again.

    Raises:
        IndexNotFoundError: there is no index.
        DamagedIndexError: neither `index.json` nor its copy can be read.
        LockedError: another process is writing.
    """
    report = RepairReport(directory.place)
    with directory.writing():
        if not _restore(directory, agree, report):
            return report, Again()
        damage = verify(directory, progress).damage
        report.found = _listed(damage)
        report.left += damage.beyond
        report.agreed = not report.found or agree(report.found)
        again = _mend(directory, damage, report) if report.agreed else Again()
        report.owed = directory.missing(directory.manifest())
    return report, again


def _restore(directory: IndexDirectory, agree: Callable[[Sequence[str]], bool], report: RepairReport) -> bool:
    """See to `index.json`: whether there is one, that the rest can be looked at by."""
    try:
        directory.manifest()
    except DamagedIndexError:
        path = directory.root / COPY
        if not path.exists():
            raise
        read_record(path, IndexManifest, LOST)
        report.found = [f"{INDEX}, of which there is a sound copy; what else is damaged is seen by it"]
        report.agreed = agree(report.found)
        if not report.agreed:
            return False
        directory.write_file(INDEX, directory.whole(path).read_bytes())
        report.restored.append(INDEX)
    return True


def _listed(damage: Damage) -> list[str]:
    names = [f"{series}/shard-{shard:05d}" for series, shard in sorted(damage.shards)]
    names += [f"{series}/{name}" for series, name in sorted(damage.merged)]
    names += [f"{model}/{WEIGHTS}" for model in sorted(damage.weights)]
    names += [f"{model}/derived/{kind}" for model, kind in sorted(damage.derived)]
    return names + ["the catalog"] * damage.catalog


def _mend(directory: IndexDirectory, damage: Damage, report: RepairReport) -> Again:
    manifest = directory.manifest()
    ann, words, maps = [], [], []
    for model, kind in sorted(damage.derived):
        found = derived.sound(directory, model, kind, derived.RECORDS[kind])
        record = found[1] if found else None
        if kind == derived.WORDS:
            words.append((model, record.asked if isinstance(record, WordsRecord) else _WORDS))
        elif kind in (derived.MAP, derived.WORD_MAP):
            how = (record.asked, record.seed) if isinstance(record, MapRecord) else (None, 0)
            maps.append((model, kind == derived.WORD_MAP, *how))
        else:
            factory = record.asked if isinstance(record, AnnRecord) else "auto"
            ann.append((model, factory, "cosine" if kind == derived.ANN else "l2"))
        derived.drop(directory, model, kind)
    # What is sound of merged evidence is merged anew before anything of it is made again, and taken for what it was.
    for series, name in sorted(damage.merged):
        lost = {shard for each, shard in damage.shards if each == series}
        compact.keep_sound(directory, manifest, series, name, lost)
    for series, shard in sorted(damage.shards):
        directory.drop(directory.shard_path(series, shard))
    for model in sorted(damage.weights):
        directory.drop(directory.root / model / WEIGHTS)
    if damage.copy:
        directory.write_manifest(manifest)
        report.restored.append(COPY)
    if directory.missing(manifest):
        # The catalog waits for the build; the one in force, if it is sound, still answers what it can.
        if damage.catalog:
            catalog.drop(directory)
        report.left += [
            f"the visual words of {model} are gone: `bagindex words --again` after it" for model, _ in words
        ]
        report.left += [f"the map of {model} is gone: `bagindex map --again` after it" for model, *_ in maps]
        return Again()
    if damage.catalog or damage.derived or damage.merged:
        try:
            catalog.update(directory, anew=damage.catalog)
            report.remade.append("the catalog")
        except DamagedIndexError as error:
            if damage.catalog:
                catalog.drop(directory)
            report.left.append(str(error))
            return Again()
    return Again(tuple(ann), tuple(words), tuple(maps))
