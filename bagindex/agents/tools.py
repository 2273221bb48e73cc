"""The tools that agents have: each puts one question to an index, and answers with text and pictures."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field

from bagindex import Index, output
from bagindex.agents.asking import Asking, Said, said, shown

_MOST_ROWS = 1000

IndexName = Annotated[str | None, Field(description="Which index; may be left out where there is one.")]
ModelName = Annotated[str | None, Field(description="Which of the index's models; may be left out where there is one.")]
ClassName = Annotated[str, Field(description="A class, by its name, wnid or id.")]
SomeClass = Annotated[str | None, Field(description="A class, by its name, wnid or id.")]
ImageId = Annotated[int, Field(ge=0, description="An image's id, as answers have it.")]
PatchId = Annotated[int, Field(ge=0, description="A patch's id, as answers have it.")]
Count = Annotated[int, Field(ge=1, le=100, description="How many.")]
Offset = Annotated[int, Field(ge=0, description="How many of the first to pass over.")]
Pictures = Annotated[bool, Field(description="Answer with a picture, too.")]
Images = Literal["right_class", "wrong_class", "any"]


class Tools:
    """The tools, over some indexes."""

    def __init__(self, asking: Asking) -> None:
        self._asking = asking

    def all(self) -> tuple[Any, ...]:
        """Every tool, a method each: its name, its docstring and its parameters are what agents are told."""
        return (
            *(self.info, self.classes, self.tables, self.sql, self.top_patches, self.similar, self.explain),
            *(self.heatmap, self.why, self.flip, self.words, self.shortcuts, self.confusions, self.patch),
        )

    def info(self, index: IndexName = None) -> str:
        """What an index holds: source, models, number of images, what is kept, sizes. Without `index`, of each one."""
        names = [index] if index is not None else list(self._asking.pools)
        return output.to_json([self._asking.ask(name, lambda opened: opened.info().to_dict()) for name in names])

    def classes(
        self,
        search: Annotated[str, Field(description="Stands in the name or wnid.", max_length=200)] = "",
        order: Annotated[
            Literal["id", "name", "images", "predicted", "correct", "accuracy"],
            Field(description="What they are sorted by."),
        ] = "id",
        descending: bool = False,
        limit: Count = 50,
        offset: Offset = 0,
        model: ModelName = None,
        index: IndexName = None,
    ) -> str:
        """The classes, each with how many images have it as label, as prediction, and as both."""

        def ask(opened: Index) -> str:
            found = opened.browse_classes(
                search, order=order, descending=descending, offset=offset, limit=limit, model=model
            )
            return said(f"classes, {len(found)} of {found.total}", found.to_dicts())

        return self._asking.ask(index, ask)

    def tables(self, index: IndexName = None) -> str:
        """What `sql` can ask: each table, view and macro with its columns, and examples. Look here before `sql`."""
        return output.to_json_value(self._asking.ask(index, lambda opened: opened.tables()))

    def sql(
        self,
        query: Annotated[str, Field(description="One statement that reads, in DuckDB's SQL.")],
        rows: Annotated[int, Field(ge=1, le=_MOST_ROWS, description="So many rows at most.")] = 100,
        index: IndexName = None,
    ) -> str:
        """Ask anything in SQL: accuracy, counts, joins, evidence by place. It reads only, for three seconds at most."""

        def ask(opened: Index) -> str:
            found = opened.sql(query, safe=True)
            listed = found.to_dicts()[:rows]
            more = len(found) > len(listed) or found.truncated
            left = f"the first {len(listed)} rows; aggregate, or use LIMIT and OFFSET, for others" if more else ""
            return said(f"columns: {', '.join(found.columns)}", listed, left)

        return self._asking.ask(index, ask)

    def top_patches(
        self,
        class_name: ClassName,
        images: Annotated[
            Images, Field(description="In images of the class, of another class (labelled otherwise), or in any.")
        ] = "right_class",
        k: Count = 7,
        per_image: Annotated[int, Field(ge=1, le=100, description="How many of one image at most.")] = 1,
        label: SomeClass = None,
        predicted_as: SomeClass = None,
        misclassified: Annotated[bool, Field(description="Only images that the model gets wrong.")] = False,
        offset: Offset = 0,
        pictures: Pictures = True,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Said:
        """The patches with most evidence for a class, and their picture.

        In images of the class they are what the model knows it by; in images of other classes, what it takes for it.
        """

        def ask(opened: Index) -> Said:
            found = opened.top_patches(
                class_name,
                wrong_class=images == "wrong_class",
                any_class=images == "any",
                k=k,
                per_image=per_image,
                label=label,
                predicted_as=predicted_as,
                misclassified=misclassified,
                offset=offset,
                model=model,
            )
            return [
                said(found.title, found.to_dicts(), "" if found else "no patch answers this"),
                *shown(found, pictures),
            ]

        return self._asking.ask(index, ask)

    def similar(
        self,
        patch_id: PatchId,
        k: Count = 10,
        other_images: Annotated[bool, Field(description="None of the same image.")] = False,
        class_name: SomeClass = None,
        wrong_class: Annotated[bool, Field(description="Only images of other classes than that, or its own.")] = False,
        pictures: Pictures = True,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Said:
        """The patches that are most like one, to the model, and their picture."""

        def ask(opened: Index) -> Said:
            found = opened.similar(
                patch_id, k=k, other_images=other_images, class_=class_name, wrong_class=wrong_class, model=model
            )
            return [said(found.title, found.to_dicts()), *shown(found, pictures)]

        return self._asking.ask(index, ask)

    def explain(
        self,
        image_id: ImageId,
        versus: Annotated[str | None, Field(description="Two classes with a comma between: A,B.")] = None,
        pictures: Pictures = True,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Said:
        """What in an image speaks for its label and for what is predicted, and what decides between them."""

        def ask(opened: Index) -> Said:
            found = opened.explain(image_id, vs=versus, model=model)
            return [said("", found.table_rows(), found.words), *shown(found, pictures)]

        return self._asking.ask(index, ask)

    def heatmap(
        self,
        image_id: ImageId,
        classes: Annotated[list[str], Field(max_length=10, description="By default the predicted one, and the label.")]
        | None = None,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Said:
        """Where in an image the evidence for some classes is: red for a class, blue against it."""

        def ask(opened: Index) -> Said:
            found = opened.heatmap(image_id, classes=classes or (), model=model)
            return [said(found.title, found.table_rows()), *shown(found, True)]

        return self._asking.ask(index, ask)

    def why(
        self,
        image_id: ImageId,
        class_name: SomeClass = None,
        versus: Annotated[str | None, Field(description="Two classes with a comma between: A,B.")] = None,
        k: Count = 5,
        pictures: Pictures = True,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Said:
        """What an image's logit is made of, or the margin between two classes: an exact sum over patches and words."""

        def ask(opened: Index) -> Said:
            found = opened.why(image_id, class_=class_name, vs=versus, k=k, model=model)
            return [said(found.title, found.table_rows(), found.words), *shown(found, pictures)]

        return self._asking.ask(index, ask)

    def flip(
        self, image_id: ImageId, pictures: Pictures = True, model: ModelName = None, index: IndexName = None
    ) -> Said:
        """The fewest patches whose removal changes what is predicted of an image."""

        def ask(opened: Index) -> Said:
            found = opened.flip(image_id, model=model)
            return [said(found.title, found.table_rows(), found.words), *shown(found, pictures)]

        return self._asking.ask(index, ask)

    def words(
        self,
        class_name: SomeClass = None,
        wrong_class: Annotated[bool, Field(description="By what they contribute in images of other classes.")] = False,
        k: Count = 10,
        pictures: Pictures = True,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Said:
        """The visual words: kinds of patches that come again. With a class, those that carry its evidence."""

        def ask(opened: Index) -> Said:
            found = opened.words(class_name, wrong_class=wrong_class, k=k, model=model)
            return [said(found.title, found.to_dicts()), *shown(found, pictures)]

        return self._asking.ask(index, ask)

    def shortcuts(
        self,
        class_name: SomeClass = None,
        k: Count = 10,
        pictures: Pictures = True,
        model: ModelName = None,
        index: IndexName = None,
    ) -> Said:
        """Visual words that decide errors for a class in images of other classes; look at their patches, and judge."""

        def ask(opened: Index) -> Said:
            found = opened.shortcuts(class_name, k=k, model=model)
            return [said(found.title, found.table_rows(), found.words), *shown(found, pictures)]

        return self._asking.ask(index, ask)

    def confusions(
        self, k: Count = 10, pictures: Pictures = True, model: ModelName = None, index: IndexName = None
    ) -> Said:
        """What the model takes for what, the most frequent first, with the visual words that decide most of it."""

        def ask(opened: Index) -> Said:
            found = opened.confusions(k=k, model=model)
            return [said(found.title, found.table_rows(), found.words), *shown(found, pictures)]

        return self._asking.ask(index, ask)

    def patch(self, patch_id: PatchId, k: Count = 5, model: ModelName = None, index: IndexName = None) -> str:
        """What a patch says: its image, its place, its visual word, and its largest logits."""
        return output.to_json_value(self._asking.ask(index, lambda opened: opened.patch(patch_id, k=k, model=model)))
