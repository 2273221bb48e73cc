"""The shapes of visual words and accounts in JSON; see `bagindex.service.shapes`."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field, create_model

from bagindex.service.shapes import PatchShape, Shape


class SayingShape(Shape):
    """A class that a word speaks for."""

    class_: str = Field(alias="class")
    class_id: int
    evidence: float


class WordShape(BaseModel):
    """A visual word; the last may be all others together, without a number."""

    word: int | None
    patches: int
    images: int | None
    similarity: float | None
    typical: list[int]
    says: list[SayingShape]


class WordListShape(Shape):
    """Visual words."""

    question: str
    model: str
    class_: str | None = Field(alias="class")
    right_logit: float | None
    wrong_logit: float | None
    words: list[WordShape]


class WordLabelShape(Shape):
    """A word in the images of a class."""

    class_: str = Field(alias="class")
    class_id: int
    images: int
    patches: int


class WordPatchesShape(Shape):
    """A visual word, and the patches that say most for a class, each of another image."""

    question: str
    model: str
    word: int
    patches: int
    images: int
    similarity: float
    typical: list[int]
    says: list[SayingShape]
    class_: str = Field(alias="class")
    class_id: int
    labels: list[WordLabelShape]
    found: list[PatchShape]
    total: int = Field(description="Images that have the word.")


class PartShape(Shape):
    """A term of a sum."""

    what: str
    side: str
    rank: int | None
    word: int | None
    row: int | None
    col: int | None
    box: list[int] | None
    patch_id: int | None
    patches: int
    sum: float
    contribution: float
    share: float | None


class WhyShape(Shape):
    """What a logit or a margin is the sum of."""

    image_id: int | None
    image: str
    model: str
    label: str | None
    predicted: str
    recorded: str
    class_: str = Field(alias="class")
    against: str | None
    total: float
    logit: float
    rounding: float
    patches_in_all: int
    said: str
    parts: list[PartShape]
    values: list[list[float]]
    words: list[list[int]] | None


class FlipShape(Shape):
    """The fewest patches whose removal changes a prediction."""

    image_id: int | None
    image: str
    model: str
    label: str | None
    before: str
    after: str | None
    recorded: str
    removed: int
    patches_in_all: int
    margin: float | None
    margin_without: float | None
    rounding: float | None
    needed: dict[str, int | None]
    said: str
    patches: list[dict[str, Any]]


class WithoutShape(Shape):
    """What becomes of accuracy without some words."""

    words: list[int]
    model: str
    images: int
    labelled: int
    touched: int
    patches: int
    emptied: int
    differing: int
    said: str
    classes: list[dict[str, Any]]
    changed: list[dict[str, Any]]


class MatrixClassShape(Shape):
    """A class: `images` have it as their label, of which `correct` are predicted as it."""

    class_: str = Field(alias="class")
    class_id: int
    images: int
    correct: int


class MatrixShape(Shape):
    """How often each class is taken for each other."""

    title: str
    model: str
    classes: list[MatrixClassShape]
    counts: list[list[int]] = Field(description="Rows are labels, columns predictions, in the order of the classes.")
    others: list[int] = Field(description="By row: images that are predicted as a class that is not shown.")
    wrong: int = Field(description="All wrong images of the index.")
    shown: int = Field(description="Wrong images in the matrix's cells.")


class MapShape(Shape):
    """A map of patches, or of visual words; its columns are as long as it has points."""

    title: str
    model: str
    class_: str | None = Field(alias="class", description="Whose evidence `logit` is; null: what each speaks most for.")
    words: list[int] | None = Field(description="The visual words; null of a map of patches.")
    patches: list[int] = Field(description="Patches, by their ids; of words each one's most typical.")
    x: list[float]
    y: list[float]
    classes: list[str] = Field(description="The class that each speaks most for, or `class`.")
    logits: list[float] = Field(description="Its evidence for that class; of words the mean of their patches'.")
    labels: list[str | None]
    colours_end: float = Field(description="The logit at which colours end, on both sides of zero.")
    said: str


def _account(name: str, rows: str, about: str) -> type[Shape]:
    """A table with words below it."""
    fields: dict[str, Any] = {"title": (str, ...), "said": (str, ...), rows: (list[dict[str, Any]], ...)}
    return create_model(name, __base__=Shape, __doc__=about, **fields)


ShortcutList = _account("ShortcutList", "shortcuts", "Words that speak for classes in images of others.")
ConfusionList = _account("ConfusionList", "confusions", "What is taken for what.")
LabelErrorList = _account("LabelErrorList", "label_errors", "Images whose evidence speaks against their label.")
