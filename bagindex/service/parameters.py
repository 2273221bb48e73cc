"""Parameters that several routes take, and what OpenAPI says of their answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import File, Path, Query, UploadFile
from pydantic import Field

from bagindex.maps import PictureBytes
from bagindex.service.access import UPLOAD, UPLOAD_PIXELS, UPLOAD_SECONDS, too_large
from bagindex.service.answers import JSON, PICTURES
from bagindex.service.problems import MEDIA_TYPE, Problem

MOST = 1_000
"""Patches, words and rows that one request may ask for."""
_LONG = 2**62

IndexName = Annotated[
    str | None, Query(alias="index", description="Which index; may be left out where one is served.", max_length=200)
]
ModelName = Annotated[
    str | None, Query(alias="model", description="Which model; may be left out where there is one.", max_length=200)
]
ClassName = Annotated[
    str | None, Query(alias="class", description="A class: name, wnid or id.", max_length=500, examples=["fish"])
]
NeededClass = Annotated[
    str, Query(alias="class", description="A class: name, wnid or id.", max_length=500, examples=["fish"])
]
ImageId = Annotated[
    int, Query(alias="image", description="Id of an image of the index.", ge=0, le=_LONG, examples=[17])
]
PathId = Annotated[int, Path(description="The id.", ge=0, le=_LONG, examples=[17])]
Count = Annotated[int, Query(description="How many.", ge=1, le=MOST)]
Offset = Annotated[int, Query(description="How many to pass over.", ge=0, le=_LONG)]
Where = Annotated[
    str | None,
    Query(
        description="An SQL condition on the columns of `images`, `predicted`, `predicted_name` and `probability`.",
        max_length=4_000,
        examples=["probability < 0.5"],
    ),
]
Version = Annotated[
    str | None,
    Query(
        alias="v",
        description="The index's `version`: under an address that has it, a picture may be kept for ever.",
        max_length=64,
    ),
]
Classes = Annotated[
    list[str], Query(alias="class", description="Classes: names, wnids or ids.", max_length=50, examples=[["fish"]])
]
Models = Annotated[list[str], Query(alias="model", description="Models; by default all.", max_length=20)]
Alpha = Annotated[float, Query(description="Strength of the colours.", ge=0, le=1, allow_inf_nan=False)]
Pair = Annotated[
    list[Annotated[str, Field(max_length=1_000)]] | None,
    Query(description="Two classes with a comma between; or twice, a class each time.", examples=[["fish,tree"]]),
]
Numbers = Annotated[
    str | None, Query(description="Numbers with commas between.", max_length=200, examples=["10,10,40,40"])
]
Picture = Annotated[UploadFile, File(description="A picture file of at most 20 MB.")]


def numbers(text: str | None, count: int, name: str) -> tuple[float, ...] | None:
    """So many numbers from a text.

    Raises:
        Problem: they are not.
    """
    if text is None:
        return None
    try:
        found = tuple(float(each) for each in text.split(","))
    except ValueError:
        found = ()
    if len(found) != count or not all(abs(each) < 1e9 for each in found):
        raise Problem(422, "bad-parameters", f"{name} is {count} numbers with commas between")
    return found


async def read_upload(picture: UploadFile) -> PictureBytes:
    """A picture that was sent. How many pixels it has is seen where it is decoded, in a process of its own.

    Raises:
        Problem: it has too many bytes.
    """
    data = await picture.read(UPLOAD + 1)
    if len(data) > UPLOAD:
        raise too_large(UPLOAD)
    # The name is shown, never opened.
    name = (picture.filename or "").replace("\\", "/").rsplit("/", 1)[-1]
    return PictureBytes(name[:200] or "picture", data, UPLOAD_PIXELS, UPLOAD_SECONDS)


_PROBLEM = {"schema": {"$ref": "#/components/schemas/Problem"}}


def described(
    *kinds: str, example: Any = None, types: Sequence[str] = (), json: bool = True, failures: tuple[int, ...] = ()
) -> dict[int | str, dict[str, Any]]:
    """OpenAPI's words for a route's answers.

    Args:
        kinds: pictures that it gives, by the endings of their files.
        example: of the JSON.
        types: media types of the tables that it gives beside JSON.
        json: whether it gives JSON.
        failures: what may go wrong here, beyond what may go wrong anywhere.
    """
    content: dict[str, Any] = {}
    if json and example is not None:
        content[JSON] = {"example": example}
    for kind in (*types, *(PICTURES[each] for each in kinds)):
        content[kind.split(";")[0]] = {"schema": {"type": "string", "format": "binary"}}
    found: dict[int | str, dict[str, Any]] = {200: {"description": "The answer.", "content": content}}
    for status in sorted({400, 401, 403, 404, 406, 409, 421, 422, 503, *failures}):
        found[status] = {"description": _MEANS[status]}
        if status >= 400:
            found[status]["content"] = {MEDIA_TYPE: _PROBLEM}
    return found


_MEANS = {
    304: "The client has it already.",
    400: "The request is none.",
    401: "The token is missing or wrong.",
    403: "Another site's page asks, or SQL is off.",
    404: "There is no such index, model, class, image or patch.",
    406: "The answer is given in other media types only.",
    408: "The body did not come.",
    409: "The index keeps too little to answer that.",
    413: "The body or the picture is too large.",
    415: "The body has another type.",
    421: "The service does not go by that name.",
    422: "The parameters are wrong, or the question cannot be answered.",
    503: "Too much is asked at a time.",
}


def pair(given: Sequence[str] | None) -> str | tuple[str, str] | None:
    """Two classes, as `Index.explain` and `Index.why` take them: a name may have a comma in it.

    Raises:
        Problem: there are more.
    """
    if not given:
        return None
    if len(given) == 1:
        return given[0]
    if len(given) > 2:
        raise Problem(422, "bad-parameters", "vs is given twice at most: two classes are compared")
    return given[0], given[1]
