"""What a catalog stands on: the shards that are whole, the models that can be asked, the words of all their images."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from bagindex.errors import DamagedIndexError
from bagindex.store import EVIDENCE, IMAGES, IndexDirectory
from bagindex.views import sql_digest
from bagindex_schemas.records import IndexManifest, Keep, ModelRecord


@dataclass(frozen=True)
class Standing:
    """What there is in an index that questions can be answered from, all of it together.

    Attributes:
        directory, manifest: the index.
        shards: those that its images and all models have. An update that was cut off may have committed the images of
            a shard and not what the models make of them: nobody is told of these yet.
        models: those that have all of these shards, up to the keep level that is filled in.
    """

    directory: IndexDirectory
    manifest: IndexManifest
    shards: Sequence[int]
    models: Sequence[ModelRecord]

    @classmethod
    def of(cls, directory: IndexDirectory, manifest: IndexManifest, known: Collection[str] = ()) -> Standing:
        """What there is now.

        Args:
            directory, manifest: the index.
            known: the models that the catalog in force knows. Others are being added, and may lack shards; they wait.
        """
        plan = set(range(len(manifest.plan.shards)))
        has = {
            record.name: [set(directory.committed(series)) for series in record.series]
            for record in manifest.models.values()
        }
        able = [name for name, levels in has.items() if plan <= levels[0]]
        whole = set(directory.committed(IMAGES)).intersection(
            *(has[name][0] for name in [name for name in able if name in known] or able)
        )
        models = []
        for record in (manifest.models[name] for name in able if whole <= has[name][0]):
            filled = zip(record.levels, has[record.name], strict=True)
            models.append(up_to(record, [level for level, shards in filled if whole <= shards][-1]))
        return cls(directory, manifest, sorted(whole), models)

    def words(self) -> Mapping[str, str]:
        """The folder of the visual words of each model that has some of all its images, relative to the index."""
        # A question needs none of this, and is to be quick: derived brings pyarrow with it.
        from bagindex import derived
        from bagindex_schemas.derived import WordsRecord

        found = {}
        for record in (each for each in self.models if "features" in each.keep.tables):
            with suppress(DamagedIndexError):  # what can be made again must not stop a build
                opened = derived.open_newest(self.directory, record.name, derived.WORDS, WordsRecord)
                if opened is None:
                    continue
                digest = derived.features_digest(self.directory, record, self.shards)
                if opened[1].features_sha256 == digest:
                    found[record.name] = opened[0].relative_to(self.directory.root).as_posix()
        return found

    def files(self, words: Mapping[str, str]) -> dict[str, int]:
        """The files that the tables and views of a catalog stand on, relative to the index, and their bytes."""
        from bagindex.merged import MergedEvidence

        found = {}
        for series in self._series:
            merged = MergedEvidence(self.directory, series)
            for shard in self.shards:
                folder = self.directory.shard_path(series, shard)
                manifest = self.directory.shard_manifest(series, shard)
                paths = {name: folder / name for name in manifest.files}
                sizes = {name: record.bytes for name, record in manifest.files.items()}
                if EVIDENCE in paths and (part := merged.part(shard, manifest)):
                    paths[EVIDENCE] = part.folder / EVIDENCE
                    sizes[EVIDENCE] = paths[EVIDENCE].stat().st_size
                found.update({self._name(path): sizes[name] for name, path in paths.items()})
        for place in words.values():
            for path in self.directory.inside(place).glob("*.parquet"):
                found[f"{place}/{path.name}"] = path.stat().st_size
        return found

    def digest(self, words: Mapping[str, str]) -> str:
        """A digest of everything that a catalog is made from."""
        digest = hashlib.sha256(f"{sql_digest()}\n{self.manifest.model_dump_json()}".encode())
        for folder in words.values():
            digest.update(f"{folder}\n".encode() + (self.directory.root / folder / "words.json").read_bytes())
        for series in self._series:
            for shard in self.shards:
                digest.update(f"{series}/{shard}\n".encode())
                digest.update(self.directory.shard_manifest(series, shard).model_dump_json().encode())
        for name in self.files(words):
            if "/merged-" in name:
                digest.update(f"{name}\n".encode())
        return digest.hexdigest()

    def summary_rows(self, record: ModelRecord) -> int:
        """Rows of a model's image_evidence."""
        shards = (self.directory.shard_manifest(record.name, shard) for shard in self.shards)
        return sum(shard.rows["image_evidence"] for shard in shards)

    def _name(self, path: Path) -> str:
        return path.relative_to(self.directory.root).as_posix()

    @property
    def _series(self) -> Sequence[str]:
        return [IMAGES, *(each for record in self.models for each in record.series)]


def up_to(record: ModelRecord, keep: Keep) -> ModelRecord:
    """A model with the keep levels up to one."""
    return record.model_copy(update={"levels": record.levels[: record.levels.index(keep) + 1]})
