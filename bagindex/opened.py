"""An index that is open: its records, its catalog, and what its parts share."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from bagindex import output
from bagindex.errors import BagindexError, QueryError, UnknownModelError
from bagindex.geometry import locate, patch_pixels
from bagindex.labels import find_class
from bagindex.store import IndexDirectory
from bagindex_schemas.records import ClassRecord, Grid, ModelRecord

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bagindex.catalog import Catalog
    from bagindex.computing import Computing
    from bagindex.info import IndexInfo
    from bagindex.maps import ImageEvidence, ImageLike
    from bagindex.reading import StoredPixels
    from bagindex.results import PlacedPatch
    from bagindex.sandbox.pool import SqlPool
    from bagindex.similarity.ann import Neighbours
    from bagindex.stored import StoredEvidence, StoredFeatures
    from bagindex.words.vocabulary import Vocabulary
    from bagindex_schemas.derived import AnnRecord, Metric


class Opened:
    """An opened index: what all questions need.

    It reads only, may be used as a context manager, and answers from the state that the index was in when the first
    question was asked, whatever becomes of the index. Where something of that state is gone, questions that need it
    raise an OutdatedError: an index was removed or begun anew, or visual words were made again, twice.
    """

    def __init__(self, directory: IndexDirectory) -> None:
        self._directory = directory
        self._manifest = directory.manifest()
        self._opened: Catalog | None = None
        self._pool: SqlPool | None = None
        self._features: dict[str, StoredFeatures] = {}
        self._evidence: dict[str, StoredEvidence] = {}
        self._vocabularies: dict[str, Vocabulary] = {}
        self._inputs: StoredPixels | None = None
        self._own_computing: Computing | None = None
        self._shared_computing: Computing | None = None
        self._indexes: dict[tuple[str, Metric], tuple[tuple[Neighbours | None, AnnRecord] | None, bool]] = {}

    @property
    def path(self) -> Path:
        """The index's folder; of a remote index, the one that mirrors it."""
        return self._directory.root

    @property
    def place(self) -> str:
        """The index's folder, or the URL of a remote index."""
        return self._directory.place

    @property
    def name(self) -> str:
        """What the index is called: the last part of its place."""
        return self._directory.name

    @property
    def classes(self) -> tuple[ClassRecord, ...]:
        """The classes, in the order of the logits."""
        return self._manifest.plan.classes

    @property
    def models(self) -> tuple[str, ...]:
        """Names of the models."""
        return tuple(self._manifest.models)

    def info(self) -> IndexInfo:
        """Source, models, settings and sizes."""
        from bagindex.info import describe_index

        return describe_index(self._directory)

    def find_class(self, text: str | int) -> ClassRecord:
        """The class of that name, wnid or id; see `bagindex.labels.find_class`."""
        return find_class(self.classes, text)

    def close(self) -> None:
        """Close the catalog. The index opens it again when it is asked something."""
        if self._opened is not None:
            self._opened.close()
            self._opened = None
        if self._pool is not None:
            self._pool.close()
            self._pool = None
        self._features.clear()
        self._evidence.clear()
        self._vocabularies.clear()
        self._indexes.clear()
        if self._inputs is not None:
            self._inputs.close()
            self._inputs = None
        if self._own_computing is not None:
            self._own_computing.close()

    def _reopen(self) -> None:
        """See the state that the index is in now."""
        self.close()
        self._manifest = self._directory.manifest()

    def share(self, computing: Computing) -> None:
        """Run stored models by what other openings of the index use too, so that each is loaded once."""
        self._shared_computing = computing

    def __enter__(self) -> Self:
        """The index itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close it."""
        self.close()

    def __repr__(self) -> str:
        """Path and models."""
        return f"Index({self.place!r}, models={list(self.models)})"

    def _repr_html_(self) -> str:
        from bagindex.info import info_html

        try:
            return info_html(self.info())
        except BagindexError as error:
            return output.to_html([], [], self.name, str(error))

    @property
    def _catalog(self) -> Catalog:
        from bagindex.catalog import Catalog

        if self._opened is None:
            self._opened = Catalog(self._directory)
            self._manifest = self._opened.manifest
        self._opened.check()
        return self._opened

    @property
    def unlabelled(self) -> bool:
        """Whether no image has a label, so that no class is right or wrong."""
        return self._catalog.rows("SELECT count(label) = 0 FROM images") == [(True,)]

    @property
    def _sandbox(self) -> SqlPool:
        from bagindex.sandbox.pool import SqlPool

        if self._pool is None:
            self._pool = SqlPool(self._directory.root, workers=1)
        return self._pool

    def _model(self, name: str | None) -> ModelRecord:
        models = self._catalog.models
        if name is None and len(models) == 1:
            return next(iter(models.values()))
        if name is None:
            raise QueryError(f"this index has several models: say --model, one of {', '.join(models)}")
        if name not in models:
            raise UnknownModelError(f"this index has no model {name!r}: it has {', '.join(models)}")
        return models[name]

    def _evidence_of(self, image: ImageLike, model: str | None, device: str = "auto") -> ImageEvidence:
        from bagindex.compute import check_device
        from bagindex.maps import ImageEvidence

        check_device(device)
        record = self._model(model)
        stored = partial(self._stored_evidence, record)
        return ImageEvidence(
            self._directory, self._catalog, record, stored, self._pixels, self._computing, image, device
        )

    @property
    def _computing(self) -> Computing:
        from bagindex.computing import Computing

        if self._shared_computing is not None:
            return self._shared_computing
        if self._own_computing is None:
            self._own_computing = Computing()
        return self._own_computing

    def _stored_features(self, record: ModelRecord) -> StoredFeatures:
        from bagindex.stored import StoredFeatures

        if record.name not in self._features:
            self._features[record.name] = StoredFeatures(self._directory, self._catalog, record)
        return self._features[record.name]

    def _stored_evidence(self, record: ModelRecord) -> StoredEvidence:
        from bagindex.stored import StoredEvidence

        if record.name not in self._evidence:
            self._evidence[record.name] = StoredEvidence(self._directory, self._catalog, record)
        return self._evidence[record.name]

    def _words_of(self, record: ModelRecord) -> Vocabulary:
        from bagindex.words.vocabulary import open_vocabulary

        if record.name not in self._vocabularies:
            stored = self._stored_evidence(record)
            self._vocabularies[record.name] = open_vocabulary(self._catalog, stored, len(self.classes))
        return self._vocabularies[record.name]

    def grid_of(self, model: str) -> Grid:
        """The patch grid of a model."""
        return self._model(model).grid

    def _model_names(self, names: Sequence[str] | None) -> Sequence[str]:
        if names:
            return [self._model(name).name for name in names]
        return sorted(self._catalog.models, key=lambda name: self._catalog.models[name].grid.receptive_field)

    def _pixels(self, image_ids: Iterable[int]) -> dict[int, NDArray[np.uint8]]:
        from bagindex.reading import StoredPixels

        catalog = self._catalog
        if self._inputs is None:
            self._inputs = StoredPixels(self._directory, catalog.manifest, catalog.shards)
        with catalog.reading():
            return self._inputs.of(image_ids)

    def _crops(self, patches: Sequence[PlacedPatch]) -> Sequence[NDArray[np.uint8]]:
        pixels = self._pixels([patch.image_id for patch in patches])
        grids = {name: record.grid for name, record in self._catalog.models.items()}
        return [patch_pixels(pixels[each.image_id], grids[each.model], each.row, each.col) for each in patches]

    def _crops_of(self, record: ModelRecord, patch_ids: Sequence[int]) -> Sequence[NDArray[np.uint8]]:
        """The pixels of some patches of a model, uint8 [q, q, RGB] each."""
        places = [locate(record.grid, patch) for patch in patch_ids]
        pixels = self._pixels([image_id for image_id, _, _ in places])
        return [patch_pixels(pixels[image_id], record.grid, row, col) for image_id, row, col in places]
