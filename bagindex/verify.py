"""Is everything in an index what it was when it was written, and do its numbers agree with each other?

The hashes are the guarantee: Parquet does not notice a flipped bit. The five invariants then show that the stored
numbers are a BagNet's evidence, and not merely unchanged.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Set
from contextlib import closing, suppress
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, ParamSpec

import duckdb
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError

from bagindex import catalog, catalog_check, contents, derived, invariants
from bagindex.arrays import UNREADABLE
from bagindex.errors import BagindexError, DamagedIndexError, SettingsError, StoreError
from bagindex.geometry import alone, cut, is_whole, patch_box
from bagindex.invariants import Outcome, ShardNumbers
from bagindex.merged import RECORD, MergedEvidence, is_sound, own_files, read
from bagindex.reading import StoredPixels
from bagindex.registry import ARCHITECTURES
from bagindex.seal import read_record
from bagindex.store import COPY, EVIDENCE, IMAGES, INDEX, REMAKE, RESTORE, SHARD, WEIGHTS, IndexDirectory
from bagindex.text import first_line
from bagindex_schemas.records import IndexManifest, ModelRecord, Relabelling, ShardRange

if TYPE_CHECKING:
    from bagindex.compute import Compute

IMAGES_RUN_AGAIN = 8
PATCHES_RUN_AGAIN = 4
"""In each shard, so many patches of so many images are run through the model again; a seeded sample."""


_READING = (BagindexError, *UNREADABLE, duckdb.Error, SafetensorError)
"""What reading damaged data may raise."""
_MISSING = "is missing or not built yet"
_Arguments = ParamSpec("_Arguments")


class Status(StrEnum):
    """Outcome of a check."""

    OK = "ok"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass
class Check:
    """One thing that is checked: how many of what, what is wrong, and what could not be checked here, with why."""

    name: str
    unit: str
    checked: int = 0
    problems: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)

    @property
    def status(self) -> Status:
        """Failed where there are problems, skipped where there was nothing to check."""
        if self.problems:
            return Status.FAILED
        return Status.OK if self.checked else Status.SKIPPED

    def run(
        self, what: str, look: Callable[_Arguments, Outcome], *args: _Arguments.args, **kwargs: _Arguments.kwargs
    ) -> list[str]:
        """Take in what `look` finds wrong, and say it; what goes wrong on the way is a finding too."""
        try:
            checked, problems = look(*args, **kwargs)
        except StoreError:  # says nothing of what is there
            raise
        except BagindexError as error:  # names the file
            checked, problems = 0, [str(error)]
        except _READING as error:
            checked, problems = 0, [f"{what}: {first_line(error)}"]
        self.checked += checked
        self.problems += problems
        return problems


@dataclass
class Damage:
    """What of an index is not what it was, by what makes it again.

    Attributes:
        copy: whether the copy of index.json is.
        shards: as (series, shard); those that are not there are not among them.
        weights: models whose `model.safetensors` is.
        merged: folders of merged evidence, as (series, name).
        derived: as (model, kind).
        catalog: whether the catalog in force is.
        beyond: what only a person can mend, each with how.
    """

    copy: bool = False
    shards: set[tuple[str, int]] = field(default_factory=set)
    weights: set[str] = field(default_factory=set)
    merged: set[tuple[str, str]] = field(default_factory=set)
    derived: set[tuple[str, str]] = field(default_factory=set)
    catalog: bool = False
    beyond: list[str] = field(default_factory=list)


@dataclass
class _Checks:
    records: Check = field(default_factory=lambda: Check("records", "records"))
    hashes: Check = field(default_factory=lambda: Check("hashes", "files"))
    means: Check = field(default_factory=lambda: Check("1. the mean of patch logits is the image's", "logits"))
    linear: Check = field(default_factory=lambda: Check("2. feature · W + b is the evidence", "logits"))
    maxima: Check = field(default_factory=lambda: Check("3. image_evidence is the maximum of evidence", "maxima"))
    alone: Check = field(default_factory=lambda: Check("4. a patch run alone gives its feature", "patches"))
    coverage: Check = field(default_factory=lambda: Check("5. every file is an image or a reject", "files"))
    derived: Check = field(default_factory=lambda: Check("what is derived is as it was made", "files"))
    agreement: Check = field(default_factory=lambda: Check("the catalog agrees with the shards", "rows"))


@dataclass(frozen=True)
class VerifyReport:
    """All checks of an index; `shards` of its `of` shards were looked into."""

    path: str
    checks: tuple[Check, ...]
    shards: int
    of: int
    damage: Damage

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    @property
    def unfinished(self) -> bool:
        """Whether all that is wrong is that shards are not there: a build has not ended, or they were lost."""
        said = (_MISSING, catalog.UNFINISHED)
        return bool(self.problems) and all(any(each in problem for each in said) for problem in self.problems)

    @property
    def problems(self) -> list[str]:
        """Everything that is wrong."""
        return [problem for check in self.checks for problem in check.problems]

    @property
    def left_out(self) -> list[str]:
        """Everything that could not be checked here, each with why; it is no damage."""
        return [why for check in self.checks for why in check.left_out]


def verify(
    directory: IndexDirectory,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
    *,
    data: bool = False,
    sample: float = 1.0,
) -> VerifyReport:
    """Check an index. What is wrong is reported, not raised; numbers of a damaged shard are not looked at.

    Args:
        directory: the index.
        progress: hears how many of how many steps are done.
        data: only whether all bytes are what was written; that their numbers are a BagNet's is left out.
        sample: the share of the shards to look into, at least one, drawn anew each time; of all others the records and
            the sizes of the files are checked.

    Raises:
        SettingsError: the sample is no share.
        IndexNotFoundError: there is no index.
        DamagedIndexError: `index.json` cannot be read, so that nothing can be said.
        StoreError: the object store of a remote index cannot be read.
    """
    if not 0 < sample <= 1:
        raise SettingsError("--sample is more than 0 and at most 100 percent")
    checks, damage = _Checks(), Damage()
    manifest = directory.manifest()
    count = len(manifest.shards)
    chosen = frozenset(random.sample(range(count), max(1, round(sample * count))))
    steps = _Steps(count * (1 + len(manifest.series)) + len(chosen) * len(manifest.models), progress)
    damage.copy = bool(checks.records.run(COPY, _check_copy, directory, manifest))
    sound = _check_files(directory, manifest, chosen, checks, damage, steps)
    merged = _check_merged(directory, manifest, chosen, checks, damage)
    sound -= damage.shards
    if manifest.relabelling is not None:
        damage.beyond += checks.hashes.run("labels", _check_labels, directory, manifest.relabelling)
    for record in manifest.models.values():
        if checks.hashes.run(record.name, _check_weights, directory, record):
            damage.weights.add(record.name)
        for kind in derived.RECORDS:
            if checks.derived.run(f"{record.name}/{kind}", derived.check, directory, record.name, kind):
                damage.derived.add((record.name, kind))
    problems = checks.derived.run("catalog", catalog.check_current, directory)
    damage.catalog = any(catalog.UNFINISHED not in problem for problem in problems)
    if not data:
        for record, name in merged:
            where = f"{record.series_of('evidence')}/{name}"
            if checks.maxima.run(where, contents.check_merged, directory, manifest, record, name):
                _lose(directory, record.series_of("evidence"), name, damage)
        sound -= damage.shards
        _check_meaning(directory, manifest, sound, checks, damage, steps)
    return VerifyReport(directory.place, tuple(vars(checks).values()), len(chosen), count, damage)


def _check_meaning(
    directory: IndexDirectory,
    manifest: IndexManifest,
    sound: set[tuple[str, int]],
    checks: _Checks,
    damage: Damage,
    steps: _Steps,
) -> None:
    """See whether the numbers of sound files are what they should be."""
    for _, shard in sorted(each for each in sound if each[0] == IMAGES):
        series = [each for each in manifest.series if (each, shard) in sound]
        for each in (IMAGES, *series):
            where = f"{each}/shard-{shard:05d}"
            problems = checks.records.run(where, contents.check_rows, directory, each, shard)
            problems += checks.coverage.run(where, contents.check_images, directory, manifest, shard, each)
            if problems:
                damage.shards.add((each, shard))
    for record in manifest.models.values():
        if record.name not in damage.weights:
            model = _Model(directory, manifest, record)
            for shard in range(len(manifest.shards)):
                if all((series, shard) in sound for series in record.series):
                    if _check_numbers(model, shard, (IMAGES, shard) in sound, checks):
                        damage.shards.update((series, shard) for series in record.series)
                    steps.step()
            checks.alone.left_out += model.left_out
    whole = len(sound) == len(manifest.shards) * (1 + len(manifest.series))
    if whole and not damage.catalog:
        damage.catalog = bool(checks.agreement.run("catalog", _check_catalog, directory, checks, damage))


def _check_catalog(directory: IndexDirectory, checks: _Checks, damage: Damage) -> Outcome:
    """See whether the catalog agrees with the shards, and if so, whether what is derived can be used by it; what has
    another hash than it had need not be tried.
    """
    with closing(catalog.Catalog(directory)) as opened:
        rows, problems = catalog_check.check(opened)
        for record in opened.models.values() if not problems else ():
            for kind in derived.RECORDS:
                if (record.name, kind) not in damage.derived and checks.derived.run(
                    f"{record.name}/{kind}", contents.check_derived, opened, record, kind
                ):
                    damage.derived.add((record.name, kind))
        return rows, problems


class _Steps:
    def __init__(self, total: int, progress: Callable[[int, int], None]) -> None:
        self._done, self._total, self._progress = 0, total, progress

    def step(self) -> None:
        self._done += 1
        self._progress(self._done, self._total)


def _check_files(
    directory: IndexDirectory,
    manifest: IndexManifest,
    chosen: Set[int],
    checks: _Checks,
    damage: Damage,
    steps: _Steps,
) -> set[tuple[str, int]]:
    """Look at the records of all shards and at the hashes of some; those that are sound of them, as (series, shard)."""
    digest = manifest.plan.digest()
    sound = set()
    for series in (IMAGES, *manifest.series):
        for shard, span in enumerate(manifest.shards):
            where = f"{series}/shard-{shard:05d}"
            problems = checks.records.run(where, _check_record, directory, series, shard, span, digest)
            if not problems and shard in chosen:
                problems = checks.hashes.run(where, _check_hashes, directory, series, shard)
                damage.beyond += checks.hashes.run(where, _check_strangers, directory, series, shard)
                if not problems:
                    sound.add((series, shard))
            if problems and directory.shard_path(series, shard).exists():
                damage.shards.add((series, shard))
            steps.step()
    return sound


def _check_merged(
    directory: IndexDirectory, manifest: IndexManifest, chosen: Set[int], checks: _Checks, damage: Damage
) -> list[tuple[ModelRecord, str]]:
    """Look at the hashes of what some shards share; the folders that are sound, with their models.

    Where one is damaged, so are the shards whose part of it is.
    """
    sound = []
    for record in (each for each in manifest.models.values() if "evidence" in each.keep.tables):
        series, names = record.series_of("evidence"), []
        with suppress(DamagedIndexError):  # a link in its place: each shard says so
            names = directory.merged_names(series)
        merged = MergedEvidence(directory, series)
        for name in names:
            try:
                held = merged.live(name)
            except DamagedIndexError as error:
                checks.records.problems.append(str(error))
                damage.merged.add((series, name))
                continue
            if held.keys() & chosen:
                damage.beyond += checks.hashes.run(name, _check_merged_strangers, directory, series, name)
                if checks.hashes.run(f"{series}/{name}", _check_merged_hash, directory, series, name):
                    damage.merged.add((series, name))
                    damage.shards |= {(series, shard) for shard, part in held.items() if not is_sound(directory, part)}
                else:
                    sound.append((record, name))
    return sound


def _lose(directory: IndexDirectory, series: str, name: str, damage: Damage) -> None:
    damage.merged.add((series, name))
    damage.shards |= {(series, shard) for shard in MergedEvidence(directory, series).live(name)}


def _check_numbers(model: _Model, shard: int, has_images: bool, checks: _Checks) -> list[str]:
    where = f"{model.record.name}/shard-{shard:05d}"
    try:
        numbers = invariants.load(model.directory, model.record, shard, len(model.manifest.plan.classes))
    except StoreError:
        raise
    except _READING as error:
        problems = [f"{where}: {first_line(error)}"]
        checks.maxima.problems += problems
        return problems
    problems = checks.means.run(where, invariants.check_means, numbers)
    problems += checks.linear.run(where, model.check_linear, numbers)
    problems += checks.maxima.run(where, invariants.check_maxima, numbers)
    if has_images and model.manifest.plan.pixels:
        problems += checks.alone.run(where, model.check_alone, numbers, shard)
    return problems


def _check_copy(directory: IndexDirectory, manifest: IndexManifest) -> Outcome:
    path = directory.root / COPY
    if manifest.format == 1 and not path.exists():
        return 0, []  # versions before format 2 made none
    if path.exists():
        directory.whole(path)
    if read_record(path, IndexManifest, RESTORE) != manifest:
        return 1, [f"{path} is not what {INDEX} is: {RESTORE}"]
    return 2, []


def _check_record(directory: IndexDirectory, series: str, shard: int, span: ShardRange, plan_digest: str) -> Outcome:
    where = f"{series}/shard-{shard:05d}"
    if not directory.shard_path(series, shard).is_dir():
        return 1, [f"{where} {_MISSING}: run the same `bagindex build` or `bagindex update` command again"]
    manifest = directory.shard_manifest(series, shard)
    own_files(directory, series, shard)
    problems = []
    if manifest.plan_sha256 != plan_digest or manifest.span != span:
        problems.append(f"{where} was made for another plan than that of index.json")
    return 1, problems


def _check_hashes(directory: IndexDirectory, series: str, shard: int) -> Outcome:
    recorded = own_files(directory, series, shard)
    folder = directory.shard_path(series, shard)
    return len(recorded), [
        f"{series}/{folder.name}/{name} is damaged, its SHA-256 is not the recorded one: {REMAKE}"
        for name, record in recorded.items()
        if directory.sha256(folder / name) != record.sha256
    ]


def _check_strangers(directory: IndexDirectory, series: str, shard: int) -> Outcome:
    folder = directory.shard_path(series, shard)
    known = {SHARD, *directory.shard_manifest(series, shard).files}
    strangers = sorted({path.name for path in folder.iterdir()} - known)
    return 0, [f"{series}/{folder.name}/{name} does not belong to the index: remove it" for name in strangers]


def _check_merged_hash(directory: IndexDirectory, series: str, name: str) -> Outcome:
    path = directory.inside(series, name) / EVIDENCE
    if directory.sha256(path) != read(directory, path.parent).files[EVIDENCE].sha256:
        return 1, [f"{series}/{name}/{EVIDENCE} is damaged, its SHA-256 is not the recorded one: {REMAKE}"]
    return 1, []


def _check_merged_strangers(directory: IndexDirectory, series: str, name: str) -> Outcome:
    strangers = sorted({path.name for path in directory.inside(series, name).iterdir()} - {EVIDENCE, RECORD})
    return 0, [f"{series}/{name}/{each} does not belong to the index: remove it" for each in strangers]


def _check_labels(directory: IndexDirectory, given: Relabelling) -> Outcome:
    catalog.check_labels(directory, given)
    return 1, []


def _check_weights(directory: IndexDirectory, record: ModelRecord) -> Outcome:
    directory.weights_path(record)
    return 1, []


class _Model:
    """The stored weights of a model; the network itself is loaded when a patch is to be run."""

    def __init__(self, directory: IndexDirectory, manifest: IndexManifest, record: ModelRecord) -> None:
        self.directory = directory
        self._pixels = StoredPixels(directory, manifest, range(len(manifest.shards)))
        self.manifest = manifest
        self.record = record
        self.left_out: list[str] = []
        self._path = directory.root / record.name / WEIGHTS

    def check_linear(self, numbers: ShardNumbers) -> Outcome:
        return invariants.check_linear(numbers, *self._linear)

    def check_alone(self, numbers: ShardNumbers, shard: int) -> Outcome:
        runs = self.record.architecture in ARCHITECTURES or self.record.plugin is not None
        if numbers.features is None or not runs or self.left_out:
            return 0, []
        series = self.record.series_of("features")
        environment = self.directory.shard_manifest(series, shard).environment
        tolerance = None
        if environment is not None and environment.precision != "fp32":
            tolerance = self.record.feature_tolerance(environment.precision)
            if tolerance is None:
                return 0, []
        grid = self.record.grid
        rng = np.random.default_rng(shard)
        images = rng.permutation(len(numbers.image_ids))[:IMAGES_RUN_AGAIN]
        chosen = {int(numbers.image_ids[image]): int(image) for image in images}
        pixels = self._pixels.of(chosen)
        checked, problems = 0, []
        for image_id, image in sorted(chosen.items()):
            # Patches that reach beyond the input are made of its padding, too, and have no pixels of their own for it.
            whole = [cell for cell in range(grid.patches) if is_whole(grid, *divmod(cell, grid.cols))]
            cells = np.sort(rng.permutation(np.array(whole, np.int64))[:PATCHES_RUN_AGAIN])
            if not len(cells):
                continue
            try:
                features = self._alone(pixels[image_id], cells)
            except Exception as error:  # a package's own code raises whatever it likes
                if self.record.plugin is None or isinstance(error, StoreError):
                    raise
                # Says nothing of what is stored: its hashes are right.
                known = isinstance(error, BagindexError)
                why = str(error) if known else f"{type(error).__name__}: {first_line(error)}"
                self.left_out = [f"{self.record.name} was not run again: {why}"]
                return 0, []
            count, found = invariants.check_alone(numbers, image, cells, features, tolerance)
            checked += count
            problems += found
        return checked, problems

    def _alone(self, pixels: NDArray[np.uint8], cells: NDArray[np.int64]) -> NDArray[np.float16]:
        """The features of patches run alone, float16 [cells, D]: of a BagNet in inputs that are no larger than they
        must be; of other models, which may want inputs of one size, in inputs that are otherwise of one colour.
        """
        grid = self.record.grid
        boxes = [patch_box(grid, *divmod(int(cell), grid.cols)) for cell in cells]
        colour = (0, 0, 0) if grid.padding is None else grid.padding.colour
        if self.record.plugin is None:
            place, cell, cols = alone(grid)
            side = place + grid.receptive_field
            inputs = np.full((len(boxes), side, side, 3), colour, np.uint8)
            for each, box in zip(inputs, boxes, strict=True):
                each[place:, place:] = cut(pixels, box)
            return self._compute.run(inputs).features[:, cell * cols + cell]
        found = []
        for cell, (x0, y0, x1, y1) in zip(cells.tolist(), boxes, strict=True):
            blank = np.full_like(pixels, colour)
            blank[y0:y1, x0:x1] = pixels[y0:y1, x0:x1]
            found.append(self._compute.run(blank[None]).features[0, cell])
        return np.stack(found)

    @cached_property
    def _linear(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Weight float32 [C, D] and bias float32 [C] of the linear layer."""
        from safetensors import safe_open

        with safe_open(str(self._path), framework="np") as file:
            weight, bias = (file.get_tensor(name).astype(np.float32) for name in ("fc.weight", "fc.bias"))
        return weight, bias

    @cached_property
    def _compute(self) -> Compute:
        from bagindex.prepare import open_stored_models

        only = self.manifest.model_copy(update={"models": {self.record.name: self.record}})
        return open_stored_models(self.directory, only, device="cpu")[self.record.name]
