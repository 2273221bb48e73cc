"""What can be asked about likeness, and the index that answers it fast."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import TYPE_CHECKING, SupportsIndex

from bagindex.errors import QueryError, SettingsError, UnknownPatchError
from bagindex.opened import Opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bagindex.choosing import Met
    from bagindex.maps import ImageEvidence, ImageLike
    from bagindex.similarity.ann import Neighbours
    from bagindex.similarity.results import AskedPatch, SimilarPatches
    from bagindex_schemas.derived import AnnRecord, Metric
    from bagindex_schemas.records import ModelRecord


class SimilarityQuestions(Opened):
    """Questions about likeness."""

    def similar(
        self,
        patch: SupportsIndex | None = None,
        *,
        image: ImageLike | None = None,
        box: tuple[float, float, float, float] | None = None,
        at: tuple[float, float] | None = None,
        k: int = 10,
        other_images: bool = False,
        overlap: bool = False,
        per_image: int | None = None,
        class_: str | int | None = None,
        wrong_class: bool = False,
        where: str | Met | None = None,
        metric: str = "cosine",
        exact: bool = False,
        model: str | None = None,
        device: str = "auto",
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> SimilarPatches:
        """The patches whose features are most like one's.

        Args:
            patch: the id of a patch of the index.
            image: instead of `patch`: id or path of an image of the index, or a picture file, with `box` or `at`.
            box: `(x0, y0, x1, y1)` in pixels of the picture (after EXIF rotation): the patch that shares most with it.
            at: `(x, y)` likewise: the patch around that point.
            k: how many patches.
            other_images: none of the same image.
            overlap: let patches of one image share pixels; the patch itself is never in the answer.
            per_image: how many of one image at most.
            class_: only images of this class.
            wrong_class: only labelled images of other classes: than `class_`, else than the image's label.
            where: as for `top_patches`.
            metric: `cosine`, or `l2` for the Euclidean distance.
            exact: look at all patches, even where there is an index that answers faster.
            model: which model; may be left out where there is one.
            device: where the model runs, when it must; as for `build`.
            progress: hears how many of how many images were looked at, where all are.

        Raises:
            QueryError: there is no such patch, image, class or model, the index keeps no features, or options that
                contradict each other.
        """
        from bagindex.described import describe
        from bagindex.similarity import search
        from bagindex.similarity.results import SimilarPatch, SimilarPatches

        kind: Metric = "l2" if metric == "l2" else "cosine"
        if metric not in ("cosine", "l2"):
            raise SettingsError(f"--metric is cosine or l2, not {metric!r}")
        search.check(k, per_image)
        record = self._model(model)
        features = self._stored_features(record)
        asked, feature, label = self._asked(record, patch, image, box, at, device)
        words, places = self._filter(record, asked, label, class_, wrong_class, where, other_images)
        index, stale = self._neighbours(record, kind)
        wanted = search.Wanted(
            k=k,
            metric=kind,
            overlap=overlap,
            per_image=per_image,
            own_image=asked.image_id,
            own_box=asked.box,
            other_images=other_images,
            places=places,
            exact=exact,
        )
        found = search.find(features, index, feature, wanted, stale, progress)
        described = describe(self._catalog, record, found.patch_ids.tolist())
        numbers = zip(described, found.cosines.tolist(), found.distances.tolist(), strict=True)
        patches = tuple(
            SimilarPatch(rank=rank, cosine=cosine, distance=distance, **fields)
            for rank, (fields, cosine, distance) in enumerate(numbers, start=1)
        )
        what = f"patch {asked.patch_id}" if asked.patch_id is not None else f"row {asked.row}, col {asked.col}"
        question = f"most like {what} of {asked.image}{words} ({record.name}, {'cosine' if kind == 'cosine' else 'L2'})"
        return SimilarPatches(question, patches, self._crops, asked, kind, found.exact, found.how)

    def _asked(
        self,
        record: ModelRecord,
        patch: SupportsIndex | None,
        image: ImageLike | None,
        box: tuple[float, float, float, float] | None,
        at: tuple[float, float] | None,
        device: str,
    ) -> tuple[AskedPatch, NDArray[np.float16], int | None]:
        """The patch asked about, its feature, float16 [D], and its image's label."""
        import numpy as np

        from bagindex.geometry import locate, patch_box, to_source
        from bagindex.similarity.results import AskedPatch

        if (patch is None) == (image is None) or (image is None) != (box is None and at is None):
            raise QueryError("give the id of a patch, or an image and a box or a point in it (--image, --box or --at)")
        if box is not None and at is not None:
            raise QueryError("--box and --at exclude each other")
        grid = record.grid
        if patch is not None:
            patch_id = operator.index(patch)
            known = self._stored_features(record).image_ids
            image_id, row, col = locate(grid, patch_id)
            if not len(known) or image_id not in known:
                last = f"they go up to {(int(known[-1]) + 1) * grid.patches - 1}" if len(known) else "it has none"
                raise UnknownPatchError(f"{record.name} has no patch {patch_id} in this index: {last}")
            evidence = self._evidence_of(image_id, record.name, device)
        else:
            evidence = self._evidence_of(image, record.name, device)  # type: ignore[arg-type]  # one of them is given
            row, col = _cell(evidence, box, at)
        subject = evidence.subject
        seen = patch_box(grid, row, col)
        asked = AskedPatch(
            image=subject.name,
            image_id=subject.image_id,
            patch_id=None if subject.image_id is None else subject.image_id * grid.patches + row * grid.cols + col,
            label_name=None if subject.label is None else subject.label.name,
            predicted_name=evidence.predicted.name,
            row=row,
            col=col,
            box=seen,
            source_box=to_source(seen, subject.placement),
            _grid=grid,
            _pixels=lambda: evidence.pixels,
        )
        stored = (
            None if asked.patch_id is None else self._stored_features(record).of_patches(np.array([asked.patch_id]))
        )
        feature = evidence.feature(row, col) if stored is None else stored[0]
        return asked, feature, None if subject.label is None else subject.label.class_id

    def _filter(
        self,
        record: ModelRecord,
        asked: AskedPatch,
        label: int | None,
        class_: str | int | None,
        wrong_class: bool,
        where: str | Met | None,
        other_images: bool,
    ) -> tuple[str, NDArray[np.int64] | None]:
        """The filters in words, and places of the images that they leave; None: of all."""
        import numpy as np

        from bagindex.choosing import images_of, rows

        words = ", other images" if other_images else ""
        conditions = []
        if class_ is not None or wrong_class:
            if class_ is None and label is None:
                raise QueryError(f"{asked.image} has no label, so no class is wrong: say which, with --class")
            meant = self.classes[label] if class_ is None and label is not None else self.find_class(class_ or 0)
            conditions.append(f"label {'<>' if wrong_class else '='} {meant.class_id}")
            words += f", images {'not ' if wrong_class else ''}of {meant.name}"
        if where:
            words += f", where {where}"
        if not conditions and not where:
            return words, None
        sql = images_of(self._catalog, record, conditions, where, predictions=False)
        ids = np.array(sorted(row[0] for row in rows(self._catalog, sql, {})), np.int64)
        return words, self._stored_features(record).places(ids)

    def _neighbours(
        self, record: ModelRecord, metric: Metric
    ) -> tuple[tuple[Neighbours | None, AnnRecord] | None, bool]:
        """The FAISS index for a metric, and whether it is of an older state than the shards."""
        from bagindex.derived import features_digest
        from bagindex.similarity.ann import open_neighbours

        key = (record.name, metric)
        if key not in self._indexes:
            found = open_neighbours(self._directory, record, metric)
            with self._catalog.reading():
                digest = features_digest(self._directory, record, self._catalog.shards)
            stale = found is not None and found[1].features_sha256 != digest
            self._indexes[key] = found, stale
        return self._indexes[key]


def _cell(
    evidence: ImageEvidence, box: tuple[float, float, float, float] | None, at: tuple[float, float] | None
) -> tuple[int, int]:
    """Row and column of the patch that is meant by a box or a point in the picture."""
    from bagindex.geometry import cell_at, from_source, patch_box, to_source

    grid, placement = evidence.record.grid, evidence.subject.placement
    meant = box if box is not None else (*at, *at) if at is not None else None
    if meant is None or len(meant) != 4 or not (meant[0] <= meant[2] and meant[1] <= meant[3]):
        raise QueryError("a box is x0,y0,x1,y1 with x0 < x1 and y0 < y1, a point x,y; in pixels of the picture")
    found = cell_at(grid, from_source(meant, placement))
    if found is None:
        first, last = patch_box(grid, 0, 0), patch_box(grid, grid.rows - 1, grid.cols - 1)
        x0, y0, x1, y1 = to_source((first[0], first[1], last[2], last[3]), placement)
        raise QueryError(
            f"that lies outside of what {evidence.record.name} sees of the picture ({placement.width} × "
            f"{placement.height} pixels): x from {x0:.0f} to {x1:.0f}, y from {y0:.0f} to {y1:.0f}"
        )
    return found
