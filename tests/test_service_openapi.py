"""The OpenAPI document says what the service does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import schemathesis

import bagindex.service as service_package
from bagindex import Index
from bagindex.accounts.questions import AccountQuestions
from bagindex.browsing import BrowseQuestions
from bagindex.looking import LookQuestions
from bagindex.questions import Questions
from bagindex.service import account_shapes, shapes
from bagindex.service.app import create_app, openapi
from bagindex.service.routes.adding import examples
from bagindex.similarity.questions import SimilarityQuestions
from bagindex.words.questions import WordQuestions
from make_openapi import text
from serving import API, Running, running

SCHEMAS = Path(__file__).resolve().parent.parent / "schemas"
DOCUMENT: dict[str, Any] = json.loads((SCHEMAS / "openapi.json").read_text())
SCHEMA = schemathesis.openapi.from_dict(DOCUMENT)
# Of every value at every bound there are thousands, of which a figure each takes minutes.
SCHEMA.config.phases.coverage.enabled = False
FAST = SCHEMA.exclude(
    path_regex=r"\.(svg|pdf|html)$|/figure3|/report|/(explain|map|shortcuts|confusions|label-errors|words).*png$"
)
SHAPES = {
    "indexes": shapes.Indexes,
    "info": shapes.Info,
    "models": shapes.ModelList,
    "classes": shapes.ClassList,
    "images": shapes.ImageList,
    "image": shapes.ImageShape,
    "top_patches": shapes.TopPatchList,
    "patch": shapes.PatchAccount,
    "similar": shapes.SimilarList,
    "similar_of_picture": shapes.SimilarList,
    "heatmap": shapes.HeatmapShape,
    "heatmap_of_picture": shapes.HeatmapShape,
    "explain": shapes.ExplanationShape,
    "explain_picture": shapes.ExplanationShape,
    "explain_confused": shapes.ExplanationList,
    "patch_map": account_shapes.MapShape,
    "words": account_shapes.WordListShape,
    "word": account_shapes.WordPatchesShape,
    "why": account_shapes.WhyShape,
    "why_of_picture": account_shapes.WhyShape,
    "flip": account_shapes.FlipShape,
    "flip_of_picture": account_shapes.FlipShape,
    "without": account_shapes.WithoutShape,
    "shortcuts": account_shapes.ShortcutList,
    "confusions": account_shapes.ConfusionList,
    "label_errors": account_shapes.LabelErrorList,
    "confusion_matrix": account_shapes.MatrixShape,
    "tables": shapes.Tables,
    "sql": shapes.SqlAnswer,
}


@pytest.fixture(scope="module")
def service(planted_words: Index) -> Iterator[Running]:
    """The planted pictures, with words."""
    with running([planted_words]) as found:
        yield found


def test_the_file_is_what_the_code_says(service: Running) -> None:
    written = (SCHEMAS / "openapi.json").read_text(encoding="utf-8")
    assert written == text(openapi(create_app(service.service))), "run `python tests/make_openapi.py INDEX`"
    assert service.client.get("/openapi.json").json() == DOCUMENT


def test_every_answer_in_json_has_an_example() -> None:
    assert examples().keys() == SHAPES.keys()
    for name, shape in SHAPES.items():
        shape.model_validate(examples()[name])
    for path, operations in DOCUMENT["paths"].items():
        for operation in operations.values():
            assert operation["summary"], path
            content = operation["responses"].get("200", {"content": {}})["content"].get("application/json")
            if content is not None and path.startswith(API):
                assert content["example"], path
                assert content["schema"]["$ref"], path


def test_every_question_of_an_index_is_asked_by_a_route() -> None:
    questions = {
        name
        for kind in (BrowseQuestions, LookQuestions, Questions, SimilarityQuestions, WordQuestions, AccountQuestions)
        for name, member in vars(kind).items()
        if callable(member) and not name.startswith("_")
    }
    # `verify` reads all files of an index; SQL goes to the sandbox, and an index's patch is cut out of kept pixels. A
    # relation is of this process.
    questions -= {"verify", "sql", "relation", "patch_pixels"}
    source = "".join(path.read_text() for path in Path(service_package.__path__[0]).rglob("*.py"))
    assert len(questions) > 20
    assert {name for name in questions if f".{name}(" not in source} == set()


def test_every_question_has_its_route() -> None:
    paths = {path.removeprefix(API) for path in DOCUMENT["paths"]}
    for name in ("top-patches", "figure3", "report.html", "heatmap", "explain", "explain/confused", "similar", "words",
                 "why", "flip", "without", "shortcuts", "confusions", "label-errors", "info", "models", "classes",
                 "images", "sql", "indexes", "patches/{id_}.png", "images/{id_}.png", "images/{id_}", "heatmap.png",
                 "patches/{id_}", "words/{word}", "confusion-matrix", "map", "tables", "session",
                 "input.png"):  # fmt: skip
        assert f"/{name}" in paths, name
    sent = {path for path, operations in DOCUMENT["paths"].items() if "post" in operations}
    wanted = ("explain", "similar", "heatmap", "why", "flip", "sql", "input.png", "session")
    assert sent == {f"{API}/{name}" for name in wanted}


def test_documents_refer_to_what_is_there() -> None:
    def references(value: Any) -> Iterator[str]:
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for each in value.values():
                yield from references(each)
        elif isinstance(value, list):
            for each in value:
                yield from references(each)

    for reference in references(DOCUMENT):
        found: Any = DOCUMENT
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
    assert "cdn" not in json.dumps(DOCUMENT)


# What these look for is tested elsewhere, or is not so: a request with a strange class is right, and answered with 404.
_OTHERS = [
    check
    for check in schemathesis.checks.CHECKS.get_all()
    if check.__name__
    not in ("not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance")
]


# By `FAST.parametrize` all would have one name, of which only one is run where files are shared out.
@pytest.mark.parametrize("operation", [found.ok() for found in FAST.get_all_operations()], ids=lambda each: each.label)
def test_whatever_is_asked(operation: Any, service: Running) -> None:
    @hypothesis.given(operation.as_strategy())
    @hypothesis.settings(
        max_examples=8,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(hypothesis.HealthCheck),
        database=None,
    )
    def ask(case: Any) -> None:
        answer = case.call(base_url=service.address)
        assert answer.status_code < 500, answer.text
        case.validate_response(answer, excluded_checks=_OTHERS)

    ask()
