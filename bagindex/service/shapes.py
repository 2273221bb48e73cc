"""The shapes of the answers in JSON, for OpenAPI and for tests. Answers are not made of these."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Shape(BaseModel):
    """An object with these fields and no others."""

    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class Wrong(Shape):
    """A parameter that is wrong."""

    where: str
    message: str


class Problem(BaseModel):
    """What went wrong (RFC 9457)."""

    type: str
    title: str
    status: int
    code: str = Field(description="For programs: the same text for the same cause.")
    detail: str = Field(description="For people: what to do.")
    request_id: str
    errors: list[Wrong] | None = None


class SizeShape(Shape):
    """The size of a picture in pixels."""

    height: int
    width: int


class ServedIndex(Shape):
    """An index that is served."""

    name: str
    models: list[str]
    classes: int
    images: int
    labelled: bool
    pixels: bool = Field(description="Whether patches and images can be shown.")
    input: SizeShape = Field(description="Of the models' input.")
    version: str = Field(description="What the pixels depend on: for the parameter `v` of pictures.")
    sql: bool = Field(description="Whether this service answers SQL.")


class Indexes(Shape):
    """All indexes."""

    indexes: list[ServedIndex]


class Info(BaseModel):
    """An index: where it came from, how far its build is, how large it is."""

    name: str
    source: str
    complete: bool
    shards: int
    images: int
    rejects: int
    classes: int
    labelled: bool
    pixels: bool
    version: str
    transform: dict[str, Any]
    table_bytes: dict[str, int]
    models: list[dict[str, Any]]
    bytes: int


class GridShape(Shape):
    """A model's patch grid, in pixels of its input."""

    receptive_field: int
    stride: int
    offset: int = Field(description="Where the first patch begins; below 0 where the model pads its input.")
    rows: int
    cols: int


class ModelShape(Shape):
    """A model."""

    name: str
    architecture: str
    width: float
    parameters: int
    feature_size: int
    grid: GridShape
    keep: str
    words: int | None = Field(description="How many visual words were asked for; null where there are none.")
    maps: list[str] = Field(description="The maps that there are: of `patches`, of `words`.")
    correct: int | None = Field(description="Images whose label it predicts; null where none has a label.")
    labelled: int = Field(description="Images that have a label.")


class ModelList(Shape):
    """The models."""

    models: list[ModelShape]


class ClassShape(Shape):
    """A class: `images` have it as their label, `predicted` as their prediction, `correct` as both."""

    class_id: int
    name: str
    wnid: str | None
    images: int
    predicted: int
    correct: int


class ClassList(Shape):
    """Some classes."""

    classes: list[ClassShape]
    total: int
    offset: int


class ImageRow(Shape):
    """An image, and what a model predicts of it; `correct` is null without a label."""

    image_id: int
    path: str
    label: int | None
    label_name: str | None
    predicted: int
    predicted_name: str
    probability: float
    correct: bool | None
    width: int
    height: int


class ImageList(Shape):
    """Some images."""

    images: list[ImageRow]
    total: int
    offset: int


class TopClass(Shape):
    """A class that a model finds probable."""

    class_: str = Field(alias="class")
    class_id: int
    logit: float
    probability: float


class ImageShape(ImageRow):
    """An image."""

    sha256: str
    bytes: int
    original_label: int | None
    model: str
    top: list[TopClass]


_Box = Field(min_length=4, max_length=4, description="x0, y0, x1, y1 in the model's input.")
_SourceBox = Field(min_length=4, max_length=4, description="The same in the file, after EXIF rotation.")


class WherePatch(Shape):
    """A patch: its image, and where in it."""

    model: str
    patch_id: int
    image_id: int
    path: str
    label: int | None
    label_name: str | None
    predicted: int
    predicted_name: str
    row: int
    col: int
    box: list[int] = _Box
    source_box: list[float] = _SourceBox


class PlacedShape(WherePatch):
    """A patch in an answer."""

    rank: int


class ClassLogit(Shape):
    """A patch's logit for a class."""

    class_: str = Field(alias="class")
    class_id: int
    logit: float


class PatchAccount(WherePatch):
    """What there is to say of a patch."""

    correct: bool | None
    word: int | None = Field(description="Its visual word; null where there are none.")
    word_patches: int | None = Field(description="How many patches of the index are that word.")
    logits: list[ClassLogit] = Field(description="The largest, then those asked for; none where too little is kept.")


class PatchShape(PlacedShape):
    """A patch and its evidence."""

    class_: str = Field(alias="class")
    class_id: int
    logit: float


class TopPatchList(Shape):
    """The most class-evident patches, the strongest first."""

    question: str
    patches: list[PatchShape]


class SimilarShape(PlacedShape):
    """A patch and how like it is."""

    cosine: float
    distance: float


class AskedShape(Shape):
    """The patch that was asked about."""

    image: str
    image_id: int | None
    patch_id: int | None
    label_name: str | None
    predicted_name: str
    row: int
    col: int
    box: list[int] = _Box
    source_box: list[float] = _SourceBox


class SimilarList(Shape):
    """The most similar patches."""

    question: str
    asked: AskedShape
    metric: str
    exact: bool
    how: str
    patches: list[SimilarShape]


class MapShape(Shape):
    """Evidence for a class in an image."""

    class_: str = Field(alias="class")
    class_id: int
    logit: float
    probability: float
    least: float
    most: float
    colours_end: float
    image_id: int | None
    image: str
    model: str
    dense: bool
    values: list[list[float]] = Field(description="Patch logits, row by row.")


class HeatmapShape(Shape):
    """Where in an image the evidence is."""

    image_id: int | None
    image: str
    model: str
    predicted: str
    top: list[TopClass]
    grid: GridShape
    source_box: list[float] = Field(
        min_length=4, max_length=4, description="What the model saw of the file, after EXIF rotation: x0, y0, x1, y1."
    )
    maps: list[MapShape]


class ExplainingShape(BaseModel):
    """A patch that speaks for a class."""

    row: int
    col: int
    patch_id: int | None
    share: float | None


class ExplanationShape(Shape):
    """What speaks for two classes, and what decides."""

    image_id: int | None
    image: str
    model: str
    label: str | None
    predicted: str
    classes: list[str]
    class_ids: list[int]
    logits: list[float]
    probabilities: list[float]
    winner: str
    margin: float
    patches_for_half: int | None
    patches_for_all: int | None
    patches_in_all: int
    for_winner: float
    for_loser: float
    words: str
    patches: list[ExplainingShape]
    values: list[list[list[float]]]


class ExplanationList(Shape):
    """Explanations of several images."""

    explanations: list[ExplanationShape]


class SqlQuestion(Shape):
    """A query that reads."""

    sql: str = Field(min_length=1, max_length=100_000, examples=["SELECT count(*) AS images FROM images"])
    explain: bool = False


class SqlColumn(Shape):
    """A column."""

    name: str
    type: str


class SqlAnswer(Shape):
    """The rows of a query; of too many, the first (`truncated`)."""

    columns: list[SqlColumn]
    rows: list[list[Any]]
    truncated: bool
    milliseconds: float


class ColumnAbout(Shape):
    """A column."""

    name: str
    type: str
    about: str


class TableAbout(Shape):
    """A table, view or macro."""

    name: str
    kind: str
    about: str
    columns: list[ColumnAbout]
    call: str | None = Field(default=None, description="How a macro is called.")


class ExampleQuery(Shape):
    """A query that this index can answer."""

    title: str
    about: str
    sql: str


class Tables(Shape):
    """What there is to ask in SQL."""

    tables: list[TableAbout]
    examples: list[ExampleQuery]


class SessionToken(Shape):
    """What the service was started with."""

    token: str = Field(max_length=1_000)


class Health(Shape):
    """The state of the service."""

    status: str = Field(examples=["ok"])
    indexes: dict[str, bool] | None = Field(None, examples=[{"photos": True}])
