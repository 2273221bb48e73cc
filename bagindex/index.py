"""`Index`: build one, open one, ask it. The command line and the service call this and nothing else."""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from bagindex import home
from bagindex.accounts.questions import AccountQuestions
from bagindex.browsing import BrowseQuestions
from bagindex.diff.questions import DiffQuestions
from bagindex.errors import SettingsError, SourceError
from bagindex.evaluation.questions import AttributionQuestions
from bagindex.exports.questions import ExportQuestions
from bagindex.looking import LookQuestions
from bagindex.observer import BuildObserver
from bagindex.patch_maps.questions import PatchMapQuestions
from bagindex.similarity.questions import SimilarityQuestions
from bagindex.store import IndexDirectory
from bagindex.words.questions import WordQuestions
from bagindex_schemas.records import Keep

if TYPE_CHECKING:
    from bagindex.build import BuildReport
    from bagindex.compact import Compacted
    from bagindex.compute import Compute
    from bagindex.costs import Means
    from bagindex.grow import UpdateReport
    from bagindex.info import IndexSummary
    from bagindex.planning import Planned
    from bagindex.repair import RepairReport
    from bagindex.sources import Source
    from bagindex.sources.opening import ItemStream
    from bagindex_schemas.derived import AnnRecord

PathLike = str | os.PathLike[str]


class Index(
    BrowseQuestions,
    LookQuestions,
    AttributionQuestions,
    ExportQuestions,
    SimilarityQuestions,
    WordQuestions,
    AccountQuestions,
    DiffQuestions,
    PatchMapQuestions,
):
    """An index of patches and their evidence.

    Make one with `Index.build`, open one with `Index.open`. It reads only, may be used as a context manager, and
    answers from the state that the index was in when the first question was asked; where something of that state is
    gone since, it says so (OutdatedError), and is to be opened again.
    """

    def __init__(self, directory: IndexDirectory, *, remark: str | None = None) -> None:
        super().__init__(directory)
        self.remark = remark
        """Which index was taken, where that was not said."""
        self.build_report: BuildReport | None = None
        """What the build did, where this index comes from `Index.build`."""

    @classmethod
    def open(cls, which: PathLike | None = None) -> Index:
        """Open an index by name or path.

        Args:
            which: None means `BAGINDEX_INDEX`, else the only index there is, else the latest built.

        Raises:
            IndexNotFoundError: there is no such index.
            DamagedIndexError: its `index.json` cannot be read.
        """
        directory, remark = home.find(which)
        return cls(directory, remark=remark)

    @classmethod
    def list(cls) -> Sequence[IndexSummary]:
        """All indexes that have a name, finished or not, damaged ones too."""
        from bagindex.info import summarise_index

        return [summarise_index(directory) for directory in home.all_indexes()]

    @classmethod
    def names(cls) -> Sequence[str]:
        """Names of all indexes that have one. Nothing of them is read."""
        return [directory.name for directory in home.all_indexes()]

    @classmethod
    def repair(
        cls,
        which: PathLike | None = None,
        *,
        agree: Callable[[Sequence[str]], bool] = lambda _damaged: True,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> RepairReport:
        """Drop what is damaged of an index, so that the same build makes it again, and make again what is derived.
        What is sound is not touched.

        Args:
            which: as for `open`.
            agree: is told what would be dropped, and says whether it may be.
            progress: hears how many of how many steps of the search are done.

        Raises:
            IndexNotFoundError: there is no such index.
            DamagedIndexError: neither its `index.json` nor the copy of it can be read.
            LockedError: another process is writing it.
        """
        from bagindex.repair import repair

        directory, _ = home.find(which)
        report, again = repair(directory, agree, progress)
        if not (again.ann or again.words or again.maps):
            return report
        with cls(directory) as index:
            for model, factory, metric in again.ann:
                index.make_ann(factory, model=model, metric=metric)
                report.remade.append(f"{model}: the index for similar patches ({metric})")
            for model, count in again.words:
                index.make_words(count, model=model)
                report.remade.append(f"{model}: the visual words")
            for model, of_words, sample, seed in again.maps:
                try:
                    index.make_map(words=of_words, sample=sample, seed=seed, model=model)
                except SettingsError as error:  # what makes it is not installed here
                    report.left.append(f"{model}: the map is gone ({error})")
                else:
                    report.remade.append(f"{model}: the map of {'words' if of_words else 'patches'}")
        return report

    @classmethod
    def build(
        cls,
        source: PathLike | Sequence[PathLike] | Source | ItemStream,
        *,
        model: str | Sequence[str] | None = None,
        weights: PathLike | Sequence[PathLike] | None = None,
        allow_hash: str | None = None,
        classes: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        data: PathLike | None = None,
        split: str | None = None,
        layout: str = "auto",
        labels: PathLike | None = None,
        class_map: PathLike | None = None,
        follow_symlinks: bool = False,
        source_kind: str = "auto",
        image_column: str | None = None,
        label_column: str | None = None,
        label_ids: bool = False,
        name: str | None = None,
        out: PathLike | None = None,
        keep: str = "features",
        pixels: bool = True,
        limit: int | None = None,
        strict: bool = False,
        max_errors: int | None = None,
        restart: bool = False,
        device: str = "auto",
        precision: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
        engine: str = "local",
        address: str | None = None,
        gpus_per_worker: float | None = None,
        decoder_timeout: float = 60.0,
        ann: str | None = None,
        ann_memory: int | None = None,
        observer: BuildObserver | None = None,
        compute: Compute | Sequence[Compute] | None = None,
    ) -> Index:
        """Index a folder of images, or go on with an index that was begun; what is committed is not computed again.

        Args:
            source: a folder, a file, several files or a pattern of them, or the name of a data set (see
                `bagindex.sources`); or what a program gives: (name, picture, label) one after the other, which are
                written down under `BAGINDEX_CACHE` until the build has finished, or `bagindex.Items`, which it gives
                again by name.
            model: a BagNet's name, or that of a model of your own (see `bagindex.register_model`), or several of them;
                by default what the weights are, or `bagnet33` for ImageNet.
            weights: a `.safetensors`, `.pth`, `.pth.tar` or `.h5` checkpoint, or one for each model; by default the
                official weights, which are fetched when they are not there, or what your model brings.
            allow_hash: a SHA-256 that official weights may have instead of their own.
            classes: a file that names the classes in the order of the logits, or `imagenet`; by default the
                checkpoint's own.
            image_size: side of the model's input in pixels, or (height, width); by default the checkpoint's own.
            data: where a named data set is; by default `BAGINDEX_IMAGENET` or the config file says.
            split: `val` or `train` of a named data set.
            layout: `folders` (labels from the folders' names), `flat` (no labels) or `auto`.
            labels: a CSV or Parquet file with the columns `path` and `label`.
            class_map: a CSV file with the columns `source` and `class`, for labels that are not class names.
            follow_symlinks: index what symbolic links point to.
            source_kind: how the source holds pictures, where it may be read in several ways: `folder`,
                `parquet`, `arrow`, `webdataset` or `crops`.
            image_column, label_column: the columns of a table's pictures and labels, where it has several.
            label_ids: labels are numbers, and the model's own class ids.
            name: the index's name; by default made from the source's path.
            out: the index's folder, instead of a name.
            keep: `features`, `evidence` or `summary`; see `bagindex_schemas.records.Keep`.
            pixels: keep the model's inputs, without which patches cannot be shown.
            limit: index only so many images, evenly spread over the source.
            strict: stop at the first file that cannot be indexed.
            max_errors: stop when more files than this cannot be indexed.
            restart: begin anew, dropping what is there.
            device: `auto`, `cpu`, `cuda` or `cuda:N`.
            precision: `fp32`, `tf32`, `bf16`, `fp16`, or `auto`: float32, unless a faster one gives the same evidence
                on a sample of the images; see `bagindex.precision`.
            batch_size: images that the model takes at a time; by default what suits the device.
            workers: threads that decode; by default one per core, at most 16. With Ray: its workers, by default as many
                as there is memory for, and GPUs.
            engine: where shards are computed: `local`, in this process, or `ray`; see `bagindex.engines`.
            address: of a running Ray cluster; by default `RAY_ADDRESS`, else Ray is started on this machine.
            gpus_per_worker: the part of a GPU that a worker of Ray's takes, 0 to 1; by default 1 where there are any.
            decoder_timeout: seconds after which a picture that is still being decoded is rejected.
            ann, ann_memory: the index for similar patches, where features are kept; see `make_ann`.
            observer: hears of the progress.
            compute: a model of your own, or several, instead of `model`, `weights`, `classes` and `image_size`.

        Returns:
            The index, opened; `build_report` says what was done.

        Raises:
            SourceError: nothing could be indexed; the index is there, with the rejects.
            BagindexError: see `bagindex.build.build`, `bagindex.prepare` and `bagindex.sources.folders.open_folder`.
        """
        from bagindex.build import BuildSettings, build
        from bagindex.engines.options import EngineKind, EngineOptions
        from bagindex.enums import choice
        from bagindex.precision import parse as parse_precision
        from bagindex.prepare import ModelOptions, prepare
        from bagindex.similarity.making import AnnSettings
        from bagindex.sources.items import until_done
        from bagindex.sources.opening import SourceOptions

        observer = observer or BuildObserver()
        asked = EngineOptions(choice(EngineKind, engine, "--engine"), address, workers, gpus_per_worker, device)
        settings = BuildSettings(
            keep=choice(Keep, keep, "--keep"),
            pixels=pixels,
            limit=limit,
            max_rejects=0 if strict else max_errors,
            restart=restart,
            workers=asked.decoders,
            decoder_timeout=decoder_timeout,
            precision=parse_precision(precision),
        )
        checked = AnnSettings.of(ann or "auto", ann_memory)
        place = asked.open(observer.note)
        found = prepare(
            SourceOptions(
                *(source, data, split, layout, labels, class_map, follow_symlinks),
                *(source_kind, image_column, label_column, label_ids),
                anew=restart,
            ),
            _several(model),
            _several(weights),
            ModelOptions(classes, _pair(image_size), asked.device, batch_size, allow_hash, asked.elsewhere),
            name,
            out,
            observer,
            compute,
            to_write=True,
        )
        with until_done(found.source):
            report = build(found.directory, found.source, found.class_ids, found.computes, settings, observer, place)
        index = cls(found.directory)
        index.build_report = report
        if not report.images:
            with index:
                index._refuse_empty(sum(report.rejects.values()))
        index._relate(ann, checked.memory, observer)
        return index

    @classmethod
    def plan(
        cls,
        source: PathLike | Sequence[PathLike] | Source | ItemStream,
        *,
        model: str | Sequence[str] | None = None,
        weights: PathLike | Sequence[PathLike] | None = None,
        allow_hash: str | None = None,
        classes: str | None = None,
        image_size: int | tuple[int, int] | None = None,
        data: PathLike | None = None,
        split: str | None = None,
        layout: str = "auto",
        labels: PathLike | None = None,
        class_map: PathLike | None = None,
        follow_symlinks: bool = False,
        source_kind: str = "auto",
        image_column: str | None = None,
        label_column: str | None = None,
        label_ids: bool = False,
        name: str | None = None,
        out: PathLike | None = None,
        keep: str | Sequence[str] | None = None,
        pixels: bool = True,
        limit: int | None = None,
        device: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
        means: Means | None = None,
        observer: BuildObserver | None = None,
        compute: Compute | Sequence[Compute] | None = None,
    ) -> Planned:
        """See what `build` would write and how long it would take. Files are counted, some are decoded, and the models
        run on a few; nothing stays written.

        Args:
            keep: one level, or several; by default all.
            means: with what it would be made, and what that costs; by default one such device.
            source and the others: as for `build`.

        Raises:
            BagindexError: as for `build`, as far as it can be known before.
        """
        from bagindex.build import BuildSettings
        from bagindex.costs import Means
        from bagindex.enums import choice
        from bagindex.planning import make
        from bagindex.prepare import ModelOptions, prepare
        from bagindex.sources.items import until_done
        from bagindex.sources.opening import SourceOptions

        observer = observer or BuildObserver()
        levels = [choice(Keep, each, "--keep") for each in _several(keep)] or list(Keep)
        found = prepare(
            SourceOptions(
                *(source, data, split, layout, labels, class_map, follow_symlinks),
                *(source_kind, image_column, label_column, label_ids),
            ),
            _several(model),
            _several(weights),
            ModelOptions(classes, _pair(image_size), device, batch_size, allow_hash),
            name,
            out,
            observer,
            compute,
        )
        settings = BuildSettings(pixels=pixels, limit=limit, workers=workers)
        with until_done(found.source):
            return make(
                found.directory,
                found.source,
                found.class_ids,
                found.computes,
                levels,
                means or Means(),
                settings,
                observer,
            )

    def update(
        self,
        source: PathLike | Sequence[PathLike] | Source | ItemStream,
        *,
        data: PathLike | None = None,
        split: str | None = None,
        layout: str = "auto",
        labels: PathLike | None = None,
        class_map: PathLike | None = None,
        follow_symlinks: bool = False,
        source_kind: str = "auto",
        image_column: str | None = None,
        label_column: str | None = None,
        label_ids: bool = False,
        retry_rejects: bool = False,
        contents: bool = True,
        accept_missing: bool = False,
        strict: bool = False,
        max_errors: int | None = None,
        device: str = "auto",
        batch_size: int | None = None,
        workers: int | None = None,
        decoder_timeout: float = 60.0,
        observer: BuildObserver | None = None,
    ) -> UpdateReport:
        """Add the source's new files, for all models of the index, and notice which have changed or are gone.

        Args:
            source: the source that the index was built from, wherever it is now; the options that say how it is read
                as for `build`.
            retry_rejects: try files again that were rejected for a reason that may have passed.
            contents: read all files to see whether they have changed; otherwise only their sizes are compared.
            accept_missing: go on although most of the files that are indexed are not at the source.
            strict, max_errors, device, batch_size, workers, decoder_timeout, observer: as for `build`.

        Raises:
            BagindexError: see `bagindex.grow.update`.
        """
        from bagindex.build import BuildSettings
        from bagindex.grow import update
        from bagindex.prepare import class_ids, open_stored_models
        from bagindex.sources.items import spool_path, until_done
        from bagindex.sources.opening import SourceOptions, open_source

        observer = observer or BuildObserver()
        settings = BuildSettings(
            max_rejects=0 if strict else max_errors, workers=workers, decoder_timeout=decoder_timeout
        )
        asked = SourceOptions(
            *(source, data, split, layout, labels, class_map, follow_symlinks),
            *(source_kind, image_column, label_column, label_ids),
            spool=spool_path(self._directory.place),
        )
        opened = open_source(asked, observer)
        with until_done(opened):
            report = update(
                self._directory,
                opened,
                class_ids(opened, self.classes, asked, self._directory.manifest().labels),
                open_stored_models(self._directory, self._manifest, device, batch_size),
                settings,
                retry_rejects=retry_rejects,
                contents=contents,
                accept_missing=accept_missing,
                observer=observer,
            )
        self._reopen()
        self._relate(None, None, observer)
        return report

    def compact(
        self,
        model: str | None = None,
        *,
        dry_run: bool = False,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Compacted:
        """Merge the evidence of shards into fewer files, so that questions about it have fewer row groups to look
        through. What is answered stays the same.

        Args:
            model: only this one's; by default all models'.
            dry_run: only say what would be merged.
            progress: hears how many of how many bytes are merged.

        Raises:
            BagindexError: see `bagindex.compact.compact`.
        """
        from bagindex.compact import compact

        found = compact(self._directory, model, dry_run=dry_run, progress=progress)
        if not dry_run:
            self._reopen()
        return found

    def make_ann(
        self,
        ann: str = "auto",
        *,
        memory: int | None = None,
        metric: str = "cosine",
        model: str | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> AnnRecord:
        """Make the FAISS index that answers `similar` fast, in place of the one that is there.

        Args:
            ann: `auto`: none up to 30,000 patches, whose answers are exact without, else inverted lists of RaBitQ
                codes; `none`; or a factory string of FAISS.
            memory: bytes that making it may take; by default 2 GB.
            metric: `cosine`, or `l2` for one beside it.
            model: which model; may be left out where there is one.
            progress: hears how many of how many parts of the features are in the index.

        Returns:
            What was made, and its recall.

        Raises:
            SettingsError: an argument is none.
            QueryError: the index keeps no features, or has no such model.
            LockedError, SpaceError: as for `build`.
        """
        from bagindex.similarity.making import AnnSettings, make

        settings = AnnSettings.of(ann, memory, metric)
        with self._directory.writing():
            self._reopen()  # images may have come since the index was opened
            made = make(self._directory, self._stored_features(self._model(model)), settings, progress)
        self._reopen()
        return made

    def _relate(self, ann: str | None, memory: int | None, observer: BuildObserver) -> None:
        """Make the index for similar patches of each model whose features are kept, unless it is there."""
        from bagindex.derived import asked_before
        from bagindex.similarity.making import AnnSettings, up_to_date

        for name, record in self._catalog.models.items():
            if "features" not in record.keep.tables:
                continue
            factory = ann or asked_before(self._directory, name) or "auto"
            if not up_to_date(self._directory, record, self._catalog.shards, AnnSettings.of(factory, memory)):
                self.make_ann(factory, memory=memory, model=name, progress=partial(observer.related, name))

    @property
    def relabelled(self) -> int:
        """How many images have a label that was given later; see `relabel`."""
        given = self._directory.manifest().relabelling
        return 0 if given is None else given.images

    def relabel(
        self,
        labels: PathLike | Mapping[str, str | None] | None,
        *,
        class_map: PathLike | None = None,
        add: bool = False,
        note: Callable[[str], None] = lambda _text: None,
    ) -> int:
        """Give images other labels, kept beside the original ones; nothing is computed again.

        Args:
            labels: a CSV or Parquet file with the columns `path` and `label`, or labels by path; None goes back to the
                original labels.
            class_map: as for `build`.
            add: images that are not named keep what they were given before; otherwise they get back their original
                labels.
            note: hears how many labels that were given before are gone.

        Returns:
            How many images are named.

        Raises:
            LabelError: none is, or some that the index has not, or labels that are no classes.
        """
        from bagindex.labels import read_class_map
        from bagindex.relabel import relabel, restore_labels

        named = 0
        if labels is None:
            restore_labels(self._directory)
        else:
            given = labels if isinstance(labels, Mapping) else Path(labels)
            meant = read_class_map(Path(class_map)) if class_map else None
            named = relabel(self._directory, given, meant, add=add, note=note)
        self._reopen()
        return named

    def make_words(
        self,
        count: int = 256,
        *,
        model: str | None = None,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> None:
        """Find visual words in a model's features and store them, in place of those that there are.

        Args:
            count: how many; those that no patch is are left out.
            model: which model; may be left out where there is one.
            progress: hears how many of how many steps are done.

        Raises:
            QueryError: there are fewer patches than that, or the index does not keep features.
            LockedError: another process is writing the index.
        """
        from bagindex import catalog
        from bagindex.words.making import make

        with self._directory.writing():
            self._reopen()  # images may have come since the index was opened
            record = self._model(model)
            features, evidence = self._stored_features(record), self._stored_evidence(record)
            make(self._directory, self._catalog, features, evidence, count, progress)
            catalog.update(self._directory)
        self._reopen()

    def _refuse_empty(self, rejects: int) -> None:
        """Say that there are rejects alone, which stay to be read."""
        first = self.sql("SELECT path, code, message FROM rejects ORDER BY image_id LIMIT 1").to_dicts()[0]
        why = f"{first['code']}: {first['message']}"
        raise SourceError(
            f"none of the {rejects:,} files could be indexed, {first['path']} ({why}) first: mend them and give "
            f"--restart; `bagindex sql -i {shlex.quote(self.place)} 'FROM rejects'` says which and why"
        )

    def remove(self, model: str | None = None) -> None:
        """Remove a model, or the whole index.

        Raises:
            SettingsError: there is no such model, or it is the only one.
        """
        from bagindex.grow import remove_index, remove_model

        self.close()
        if model is None:
            remove_index(self._directory)
        else:
            remove_model(self._directory, model)
            self._reopen()


def _several(given: PathLike | Sequence[PathLike] | None) -> list[str]:
    if given is None:
        return []
    return [os.fspath(each) for each in ([given] if isinstance(given, str | os.PathLike) else given)]


def _pair(size: int | tuple[int, int] | None) -> tuple[int, int] | None:
    return (size, size) if isinstance(size, int) else size
