"""What can be asked of an index: patches, figures, explanations, SQL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bagindex.errors import QueryError
from bagindex.opened import Opened

if TYPE_CHECKING:
    import duckdb

    from bagindex.choosing import Met
    from bagindex.explanations import Explanation, Explanations
    from bagindex.figure3 import Figure3
    from bagindex.heatmaps import Heatmap
    from bagindex.maps import ImageLike
    from bagindex.report import Report
    from bagindex.results import QueryResult, TopPatches
    from bagindex.verify import VerifyReport

MOST_CLASSES = 20
"""Figure 3 has all classes by itself where there are not more."""


class Questions(Opened):
    """What can be asked of an opened index."""

    def verify(
        self,
        progress: Callable[[int, int], None] = lambda _done, _total: None,
        *,
        data: bool = False,
        sample: float = 1.0,
    ) -> VerifyReport:
        """Check every file's hash, and that the stored numbers are the models' evidence.

        Args:
            progress: hears how many of how many steps are done.
            data: only whether all bytes are what was written, not what their numbers mean.
            sample: the share of the shards that is looked into, drawn anew each time.

        Raises:
            SettingsError: `sample` is no share.
        """
        from bagindex.verify import verify

        return verify(self._directory, progress, data=data, sample=sample)

    def top_patches(
        self,
        class_: str | int,
        *,
        right_class: bool = False,
        wrong_class: bool = False,
        any_class: bool = False,
        k: int = 7,
        per_image: int = 1,
        overlap: bool = False,
        label: str | int | None = None,
        predicted_as: str | int | None = None,
        misclassified: bool = False,
        where: str | Met | None = None,
        offset: int = 0,
        model: str | None = None,
    ) -> TopPatches:
        """The patches with most evidence for a class: the paper's Figure 3.

        Args:
            class_: name, wnid or id of the class.
            right_class: look in images of the class: the default.
            wrong_class: look in images of other classes.
            any_class: look in all images, unlabelled ones too.
            k: how many patches.
            per_image: how many of one image at most; more than one do not overlap, unless `overlap` allows it.
            overlap: see `per_image`.
            label: only images with that label: a class by name, wnid or id.
            predicted_as: only images that the model predicts as this class.
            misclassified: only labelled images that the model predicts as another class.
            where: an SQL condition on the columns of `images`, `predicted`, `predicted_name` and `probability`; of a
                stranger's, what `SqlPool.images_where` found.
            offset: how many of the strongest to pass over; ranks go on after them.
            model: which model; may be left out where there is one.

        Raises:
            UnknownClassError: no such class.
            QueryError: options that contradict each other, or that the index cannot answer.
        """
        from bagindex.results import TopPatches
        from bagindex.top_patches import Images, Question, answer

        if right_class + wrong_class + any_class > 1:
            raise QueryError("ask for the right class, for the wrong one or for any")
        question = Question(
            class_=self.find_class(class_),
            images=Images.WRONG_CLASS if wrong_class else Images.ANY if any_class else Images.RIGHT_CLASS,
            k=k,
            offset=offset,
            per_image=per_image,
            overlap=overlap,
            label=None if label is None else self.find_class(label),
            predicted_as=None if predicted_as is None else self.find_class(predicted_as),
            misclassified=misclassified,
            where=where,
        )
        record = self._model(model)
        return TopPatches(f"{question} ({record.name})", answer(self._catalog, record, question), self._crops)

    def figure3(
        self, classes: str | int | Sequence[str | int] | None = None, *, models: Sequence[str] | None = None, k: int = 7
    ) -> Figure3:
        """The paper's Figure 3: the patches with most evidence, by class and model, in right and in wrong images.

        Args:
            classes: names, wnids or ids; by default all, where there are at most 20.
            models: by default all, from the smallest patches to the largest.
            k: how many patches in each subrow, each of another image.

        Raises:
            UnknownClassError: no such class.
            QueryError: no such model, no `classes` where there are many, or a `k` out of range.
        """
        from bagindex.figure3 import make

        if isinstance(classes, str | int):
            classes = [classes]
        if not classes:
            classes = None
        if classes is None and len(self.classes) > MOST_CLASSES:
            raise QueryError(f"this index has {len(self.classes):,} classes: name those that the figure is to show")
        records = self.classes if classes is None else [self.find_class(each) for each in classes]
        return make(self, records, self._model_names(models), k, self._pixels)

    def report(self, class_: str | int, *, models: Sequence[str] | None = None, k: int = 7) -> Report:
        """A page about a class: its rows of Figure 3, accuracy, confusions, where its evidence lies, its images.

        Args:
            class_, models, k: as for `figure3`.

        Raises:
            UnknownClassError: no such class.
            QueryError: no such model, or a `k` out of range.
        """
        from bagindex.report import make

        return make(self, self.find_class(class_), self._model_names(models), k, self._pixels, self._evidence_of)

    def heatmap(
        self,
        image: ImageLike,
        *,
        classes: str | int | Sequence[str | int] = (),
        dense: bool = False,
        shared_scale: bool = False,
        beneath: str | None = None,
        alpha: float = 1.0,
        model: str | None = None,
        device: str = "auto",
        progress: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Heatmap:
        """Where in an image the evidence for some classes is: the paper's Figure 2.

        Args:
            image: id or path of an image of the index, or a picture file. Of a file that is not in the index, and
                where no evidence is kept, the stored model computes it.
            classes: names, wnids or ids; by default the predicted class, and the label where it is another.
            dense: evidence of the patch around every pixel, computed by the stored model from the stored pixels.
            shared_scale: one colour scale for all classes.
            beneath: what is seen beneath the colours: `edges` (the default, where there are pixels), `image`, `none`.
            alpha: strength of the colours, 0 to 1.
            model: which model; may be left out where there is one.
            device: where the model runs, when it must; as for `build`.
            progress: hears how many of how many parts of a dense map are done.

        Raises:
            QueryError: there is no such image, class or model, or evidence must be computed and no pixels are kept.
            SettingsError: `beneath`, `alpha` or `device` is none.
        """
        from bagindex.heatmaps import make_heatmap

        asked = [classes] if isinstance(classes, str | int) else classes
        return make_heatmap(
            self._evidence_of(image, model, device),
            [self.find_class(each) for each in asked],
            dense=dense,
            shared_scale=shared_scale,
            beneath=beneath,
            alpha=alpha,
            progress=progress,
        )

    def explain(
        self,
        image: ImageLike,
        *,
        vs: str | tuple[str | int, str | int] | None = None,
        patches: int = 3,
        overlap: bool = False,
        beneath: str | None = None,
        alpha: float = 1.0,
        model: str | None = None,
        device: str = "auto",
    ) -> Explanation:
        """What in an image speaks for its label and for its predicted class, and what decides between them: the
        paper's Figure 4.

        Args:
            image: as for `heatmap`.
            vs: two other classes, or their names in one text with a comma between. By default the label and the
                predicted class; where these are one, or the image has no label, the predicted class and the one that
                comes next.
            patches: how many to show for each class, and of those that decide.
            overlap: whether these may share pixels.
            beneath, alpha, model, device: as for `heatmap`.

        Raises:
            QueryError, SettingsError: as for `heatmap`; or the two classes are one.
        """
        from bagindex.explain import make_explanation, two_classes

        pair = None if vs is None else two_classes(self.find_class, vs)
        evidence = self._evidence_of(image, model, device)
        return make_explanation(evidence, pair, patches=patches, overlap=overlap, beneath=beneath, alpha=alpha)

    def explain_confused(
        self,
        label: str | int,
        predicted: str | int,
        *,
        k: int = 3,
        offset: int = 0,
        patches: int = 3,
        overlap: bool = False,
        beneath: str | None = None,
        alpha: float = 1.0,
        model: str | None = None,
        device: str = "auto",
    ) -> Explanations:
        """Explain images of one class that the model takes for another, those of which it is most sure first.

        Args:
            label: the images' class.
            predicted: what the model takes them for.
            k: how many images at most.
            offset: how many to pass over.
            patches, overlap, beneath, alpha, model, device: as for `explain`.

        Raises:
            QueryError: no image is confused so; or as for `explain`.
        """
        from bagindex.explain import make_explanation
        from bagindex.explanations import Explanations
        from bagindex.maps import confused

        pair = self.find_class(label), self.find_class(predicted)
        images = confused(self._catalog, self._model(model), *pair, k, offset)
        drawn = {"patches": patches, "overlap": overlap, "beneath": beneath, "alpha": alpha}
        return Explanations(
            tuple(make_explanation(self._evidence_of(each, model, device), pair, **drawn) for each in images)  # type: ignore[arg-type]
        )

    def sql(self, query: str, *, safe: bool = False, explain: bool = False) -> QueryResult:
        """Run one query that reads: tables `classes`, `models`, `images`, `rejects`; views `evidence`,
        `image_evidence`, `predictions`, `features`, `pixels`, `words`, `word_evidence`, `patch_words`; macros
        `evidence_of(class)`, `margin(a, b)`, `words_of(class)`, `image_words(image_id)`, `confusions()`.

        Args:
            query: the SQL.
            safe: the query is a stranger's: only harmless functions, at most 3 seconds, 10,000 rows and 8 MiB, in a
                process of its own that can write nothing, and read nothing but the index. See `bagindex.sandbox`.
            explain: say how the query would be run, and do not run it.

        Raises:
            QueryError: it is no SQL, more than one statement, or would write; `safe`, it is not allowed or
                takes too long (TimeLimitError).
        """
        from bagindex.query import run
        from bagindex.results import QueryResult

        if safe:
            answer = self._sandbox.run(query, explain=explain)
            return QueryResult(answer.table, answer.truncated)
        return run(self._catalog, f"EXPLAIN {query}" if explain else query)

    def relation(self, query: str) -> duckdb.DuckDBPyRelation:
        """A query as a relation of DuckDB's, to go on with in Python: it is run when its rows are asked for, and can be
        filtered, joined and aggregated before. It is of this index's own connection, and ends with it.

        Args:
            query: as for `sql`.

        Raises:
            QueryError: as for `sql`; what fails only when it is run raises an error of DuckDB's then.
        """
        from bagindex.query import relation

        return relation(self._catalog, query)

    def tables(self) -> dict[str, Any]:
        """What there is to ask in SQL.

        Returns:
            `tables`: of each table, view and macro its name, kind, what it is about, and its columns, each with a name,
            a type and what it is about; of a macro also a `call`. `examples`: queries that this index can answer, each
            with a title, what it is about, and its `sql`; a column of patches is called patch_id, one of images
            image_id.
        """
        from bagindex.examples import tables

        return tables(self._catalog)
