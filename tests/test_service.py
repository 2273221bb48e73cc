"""The service's answers are the index's."""

from __future__ import annotations

import asyncio
import io
import json
import shutil
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partialmethod
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from bagindex import Index, choosing, output, prepare
from bagindex.build import BuildSettings, build
from bagindex.choosing import Met
from bagindex.compute import BagNetCompute
from bagindex.computing import PICTURES, Computing
from bagindex.errors import SettingsError
from bagindex.grow import update
from bagindex.maps import PictureBytes
from bagindex.sandbox.pool import Limits, SqlPool
from bagindex.service import pictures, work
from bagindex.service.answers import PARQUET, accepted
from bagindex.service.asking import Service
from bagindex.service.problems import Problem, Texts
from bagindex.service.settings import Settings
from bagindex.service.strangers import Strangers
from bagindex.service.work import Workers
from bagindex.sources import Entry
from bagindex.store import IndexDirectory
from fakes import LinearCompute, MemorySource, number_png
from serving import API, Running, check_problem, running
from wordy import worded_index

PNG, PDF = b"\x89PNG\r\n\x1a\n", b"%PDF"


@pytest.fixture(scope="module")
def service(planted_words: Index) -> Iterator[Running]:
    """The planted pictures, with words."""
    with running([planted_words]) as found:
        yield found


@pytest.fixture(scope="module")
def index(planted_words: Index) -> Iterator[Index]:
    """The index that is served, opened beside."""
    with Index.open(planted_words.path) as found:
        yield found


def plain(value: Any) -> Any:
    """A value as it comes out of JSON."""
    return json.loads(output.to_json_value(value))


def unlike(array: np.ndarray, data: bytes) -> int:
    """How many pixels of a PNG file are others than an array's."""
    return int((np.asarray(Image.open(io.BytesIO(data))) != array).any(axis=-1).sum())


TOP: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"images": "wrong_class", "k": 3}, {"wrong_class": True, "k": 3}),
    ({"images": "any", "per_image": 3, "overlap": True}, {"any_class": True, "per_image": 3, "overlap": True}),
    ({"images": "wrong_class", "misclassified": True}, {"wrong_class": True, "misclassified": True}),
    (
        {"images": "any", "label": "tree", "k": 3, "offset": 2},
        {"any_class": True, "label": "tree", "k": 3, "offset": 2},
    ),
    ({"images": "any", "predicted_as": "tree"}, {"any_class": True, "predicted_as": "tree"}),
    ({"where": "probability < 0.9", "model": "bagnet33"}, {"where": "probability < 0.9", "model": "bagnet33"}),
]


@pytest.mark.parametrize(("asked", "same"), TOP)
def test_top_patches(service: Running, index: Index, asked: dict[str, Any], same: dict[str, Any]) -> None:
    expected = index.top_patches("fish", **same)
    found = service.json("/top-patches", **{"class": "fish"}, **asked)
    assert found == {"question": expected.question, "patches": plain(expected.to_dicts())}
    assert service.arrow("/top-patches", **{"class": "fish"}, **asked).equals(expected.to_arrow())


_BOTH: list[dict[str, Any]] = [
    {"patch": 1000},
    {"patch": 1000, "other_images": True, "k": 3, "metric": "l2"},
    {"patch": 5, "wrong_class": True, "per_image": 1, "overlap": True},
]
SIMILAR: list[tuple[dict[str, Any], dict[str, Any]]] = [
    *((each, each) for each in _BOTH),
    ({"image": 3, "at": "60,60.5", "exact": True}, {"image": 3, "at": (60, 60.5), "exact": True}),
    ({"image": 3, "box": "10,10,40,40", "class": "fish"}, {"image": 3, "box": (10, 10, 40, 40), "class_": "fish"}),
]


@pytest.mark.parametrize(("asked", "same"), SIMILAR)
def test_similar(service: Running, index: Index, asked: dict[str, Any], same: dict[str, Any]) -> None:
    expected = index.similar(**same)
    assert service.json("/similar", **asked) == plain(expected.to_dict())
    table = service.arrow("/similar", **asked)
    assert table.equals(expected.to_arrow(), check_metadata=True)


def test_a_patch(service: Running, index: Index) -> None:
    assert service.json("/patches/1000") == plain(index.patch(1000))
    found = service.json("/patches/1000", k=2, model="bagnet33", **{"class": ["fish", "tree"]})
    assert found == plain(index.patch(1000, ["fish", "tree"], k=2))


def test_heatmap_and_explanation(service: Running, index: Index) -> None:
    found = service.json("/heatmap", image=17, **{"class": ["fish", "tree"]})
    expected = index.heatmap(17, classes=["fish", "tree"])
    assert found["maps"] == plain(expected.to_dicts())
    assert found["grid"] == {**expected.grid.model_dump(), "offset": 0}
    assert service.json("/explain", image=17, vs="fish,tree") == plain(index.explain(17, vs="fish,tree").to_dict())


def test_images_that_are_confused_are_explained(tmp_path: Path) -> None:
    table = np.random.default_rng(3).normal([0, 3, 0], size=(3, 6, 3))
    words = np.zeros((3, 6), int)
    with worded_index(tmp_path / "i", table, ["cat"] * 3, words) as index, running([index]) as service:
        found = service.json("/explain/confused", label="cat", predicted="dog", k=2)
        assert found["explanations"] == plain(index.explain_confused("cat", "dog", k=2).to_dicts())
        assert service.json("/explain/confused", label="cat", predicted="dog", k=2, offset=1) == {
            "explanations": plain(index.explain_confused("cat", "dog", k=2, offset=1).to_dicts())
        }
        service.problem("/explain/confused.png", 422, "cannot-answer", label="cat", predicted="dog", offset=99)
        service.problem("/explain/confused", 422, "cannot-answer", label="dog", predicted="cat")
        for path in ("/explain/confused.svg?label=cat&predicted=dog", "/confusions.svg"):
            assert service.get(path).content.startswith(b"<?xml")


def test_words_and_accounts(service: Running, index: Index) -> None:
    words = index.words("fish", k=5)
    found = service.json("/words", **{"class": "fish", "k": 5})
    assert found["words"] == plain(words.to_dicts())
    assert (found["right_logit"], found["wrong_logit"]) == (words.right_logit, words.wrong_logit)
    assert service.arrow("/words", **{"class": "fish", "k": 5}).equals(words.to_arrow())
    one = index.word(7, "fish", k=5, offset=2)
    assert service.json("/words/7", k=5, offset=2, **{"class": "fish"}) == plain(one.to_dict())
    assert service.json("/words/7") == plain(index.word(7).to_dict())
    assert service.arrow("/words/7", k=5, offset=2, **{"class": "fish"}).equals(one.to_arrow())
    assert service.json("/why", image=17, vs="fish,tree", k=2) == plain(index.why(17, vs="fish,tree", k=2).to_dict())
    assert service.json("/why", image=17, **{"class": 1}) == plain(index.why(17, class_=1).to_dict())
    assert service.json("/flip", image=17) == plain(index.flip(17).to_dict())
    assert service.json("/without", word=[3, 4]) == plain(index.without([3, 4]).to_dict())
    assert service.json("/shortcuts", **{"class": "fish"})["shortcuts"] == plain(index.shortcuts("fish").to_dicts())
    assert service.json("/confusion-matrix", k=3) == plain(index.confusion_matrix(k=3).to_dict())
    assert service.json("/confusion-matrix", **{"class": 2}) == plain(index.confusion_matrix(2).to_dict())
    assert service.json("/confusions")["confusions"] == plain(index.confusions().to_dicts())
    assert service.json("/label-errors", k=3)["label_errors"] == plain(index.label_errors(k=3).to_dicts())
    for path, asked, account in (
        ("/why", {"image": 17}, index.why(17)),
        ("/flip", {"image": 17}, index.flip(17)),
        ("/without", {"word": 3}, index.without(3)),
        ("/shortcuts", {}, index.shortcuts()),
        ("/confusions", {}, index.confusions()),
        ("/label-errors", {}, index.label_errors()),
        ("/confusion-matrix", {}, index.confusion_matrix()),
    ):
        assert service.arrow(path, **asked).equals(account.to_arrow()), path


def test_lists(service: Running, index: Index) -> None:
    (served,) = service.json("/indexes")["indexes"]
    assert (served["name"], served["models"], served["images"]) == (index.path.name, ["bagnet33"], 48)
    assert served["version"] == index.version
    info = service.json("/info")
    assert "path" not in info
    assert info["images"] == 48
    assert served["sql"] is True
    (model,) = service.json("/models")["models"]
    assert (model["words"], model["correct"], model["labelled"]) == (64, *index.right_images())
    assert service.arrow("/models").num_rows == 1
    found = service.json("/classes", search="IS")
    assert [each["name"] for each in found["classes"]] == [c.name for c in index.classes if "is" in c.name]
    assert service.json("/classes", offset=4, limit=1)["classes"][0]["class_id"] == 4
    assert service.arrow("/classes").num_rows == 6
    for order in ("id", "name", "images", "predicted", "correct", "accuracy"):
        for descending in (False, True):
            page = index.browse_classes("e", order=order, descending=descending, offset=1, limit=3)
            found = service.json("/classes", search="e", order=order, descending=descending, offset=1, limit=3)
            assert found == {"classes": page.rows, "total": page.total, "offset": 1}
    for asked, condition in (
        ({}, "true"),
        ({"label": "fish"}, "label_name = 'fish'"),
        ({"predicted": "fish", "correct": False}, "predicted_name = 'fish' AND NOT correct"),
        ({"class": 1}, "(label = 1 OR predicted = 1)"),
        ({"correct": True, "where": "probability < 0.99"}, "correct AND probability < 0.99"),
        ({"labelled": False}, "label IS NULL"),
    ):
        ids = [row["image_id"] for row in index.sql(f"SELECT image_id FROM predictions WHERE {condition} ORDER BY 1")]
        found = service.json("/images", limit=5, offset=1, **asked)
        assert found["total"] == len(ids)
        assert [row["image_id"] for row in found["images"]] == ids[1:6]
        assert service.arrow("/images", limit=5, **asked).num_rows == len(ids[:5])
    image = service.json("/images/17")
    assert image == plain(index.image(17))
    assert len(image["top"]) == 5
    assert {key: image[key] for key in ("path", "label_name", "probability", "correct")} == plain(
        index.sql("SELECT path, label_name, probability, correct FROM predictions WHERE image_id = 17").to_dicts()[0]
    )


def test_pictures_of_patches_and_images(service: Running, index: Index) -> None:
    patch = index.top_patches("fish")[0]
    answer = service.get(f"/patches/{patch.patch_id}.png")
    assert answer.headers["content-type"] == "image/png"
    assert unlike(index.top_patches("fish").crops()[0], answer.content) == 0
    whole = service.get(f"/images/{patch.image_id}.png")
    assert unlike(index.pixels(patch.image_id), whole.content) == 0
    for asked in ({"patch": patch.patch_id}, {"box": ",".join(map(str, patch.box))}):
        framed = service.get(f"/images/{patch.image_id}.png", **asked).content
        x0, y0, x1, y1 = patch.box
        pixels = np.asarray(Image.open(io.BytesIO(framed)))
        np.testing.assert_array_equal(pixels[y0:y1, x0:x1], index.pixels(patch.image_id)[y0:y1, x0:x1])
        assert 0 < unlike(index.pixels(patch.image_id), framed) < 4 * 2 * 40


def test_a_picture_that_is_known_is_not_sent_again(service: Running, index: Index) -> None:
    inside = index.top_patches("fish")[0]
    framed = f"/images/{inside.image_id}.png?patch={inside.patch_id}"
    for path in ("/patches/1000.png", "/images/3.png", "/images/3.png?box=1,2,30,40", framed):
        first = service.get(path)
        assert first.headers["cache-control"] == "private, no-cache"
        etag = first.headers["etag"]
        for header in (etag, f'"other", W/{etag}', "*"):
            again = service.client.get(API + path, headers={"If-None-Match": header})
            assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", etag)
        assert service.client.get(API + path, headers={"If-None-Match": '"other"'}).content == first.content
        kept = service.get(path + ("&" if "?" in path else "?") + f"v={index.version}")
        assert kept.headers["cache-control"] == "private, max-age=31536000, immutable"
        assert kept.headers["etag"] == etag
    assert service.get("/patches/1000.png").headers["etag"] != service.get("/patches/1001.png").headers["etag"]


FIGURES = [
    ("/top-patches.png?class=fish", PNG),
    ("/similar.png?patch=1000", PNG),
    ("/heatmap.png?image=17", PNG),
    ("/heatmap.svg?image=17&beneath=none&alpha=0.5", b"<?xml"),
    ("/explain.png?image=17", PNG),
    ("/explain.pdf?image=17", PDF),
    ("/words.png?k=2", PNG),
    ("/words.html?class=fish&k=2", b"<!"),
    ("/why.png?image=17", PNG),
    ("/flip.png?image=17", PNG),
    ("/shortcuts.png?class=fish&k=2", PNG),
    ("/figure3.png?class=fish&k=2", PNG),
    ("/figure3.svg?class=fish&class=tree&k=2", b"<?xml"),
    ("/figure3.html?class=fish&model=bagnet33", b"<!"),
    ("/report.html?class=fish&k=2", b"<!"),
]


@pytest.mark.parametrize(("path", "begins"), FIGURES)
def test_figures(service: Running, path: str, begins: bytes) -> None:
    answer = service.get(path)
    assert answer.status_code == 200, answer.text
    assert answer.content[: len(begins)].lower() == begins.lower()
    if begins[:1] == b"<":
        assert "sandbox" in answer.headers["content-security-policy"]


def test_the_form_is_what_is_accepted(service: Running) -> None:
    def kind(accept: str, path: str = "/heatmap?image=17") -> str:
        answer = service.client.get(API + path, headers={"Accept": accept})
        return str(answer.status_code) if answer.status_code != 200 else answer.headers["content-type"]

    assert kind("image/png") == "image/png"
    assert kind("application/json;q=0.5, image/svg+xml") == "image/svg+xml"
    assert kind("text/html, */*;q=0.1") == "application/json"
    assert kind("text/csv") == "406"
    assert kind("text/html", "/figure3?class=fish&k=1").startswith("text/html")
    assert kind("*/*", "/figure3?class=fish&k=1") == "image/png"


def test_accept() -> None:
    def chosen(header: str, *offers: str) -> str:
        from starlette.requests import Request

        return accepted(Request({"type": "http", "headers": [(b"accept", header.encode())]}), offers)

    assert chosen("", "a/b", "c/d") == "a/b"
    assert chosen("c/*", "a/b", "c/d") == "c/d"
    assert chosen("a/b;q=0, */*", "a/b", "c/d") == "c/d"
    assert chosen("a/b;q=0.2,c/d;q=0.3", "a/b", "c/d") == "c/d"
    with pytest.raises(Problem):
        chosen("a/b;q=nonsense", "a/b")


@pytest.mark.parametrize(
    ("path", "asked", "status", "code"),
    [
        ("/top-patches", {"class": "nothing"}, 404, "unknown-class"),
        ("/top-patches", {"class": "fish", "model": "x"}, 404, "unknown-model"),
        ("/top-patches", {"class": "fish", "index": "x"}, 404, "unknown-index"),
        ("/top-patches", {"class": "fish", "index": "../x"}, 404, "unknown-index"),
        ("/top-patches", {"class": "fish", "k": 1001}, 422, "bad-parameters"),
        ("/top-patches", {"class": "fish", "k": 0}, 422, "bad-parameters"),
        ("/top-patches", {"class": "fish", "label": "nothing"}, 404, "unknown-class"),
        ("/top-patches", {"class": "fish", "offset": 10**9}, 422, "cannot-answer"),
        ("/top-patches", {"class": "fish", "offset": 9_994, "per_image": 2}, 422, "bad-parameters"),
        ("/top-patches", {"class": "fish", "images": "some"}, 422, "bad-parameters"),
        ("/top-patches", {}, 422, "bad-parameters"),
        ("/top-patches", {"class": "fish", "where": "nonsense ="}, 422, None),
        ("/top-patches", {"class": "fish", "where": "(SELECT count(*) FROM images) > 1"}, 422, "refused"),
        ("/top-patches", {"class": "fish", "where": "missing_column > 1"}, 422, None),
        ("/images", {"where": "(SELECT true)"}, 422, "refused"),
        ("/images/48", {}, 404, "unknown-image"),
        ("/images/48.png", {}, 404, "unknown-image"),
        ("/images/9223372036854775807", {}, 422, "bad-parameters"),
        ("/images/4611686018427387904", {}, 404, "unknown-image"),
        ("/images/x.png", {}, 422, "bad-parameters"),
        ("/images/3.png", {"box": "1,2,3"}, 422, "bad-parameters"),
        ("/images/3.png", {"box": "1,2,nan,4"}, 422, "bad-parameters"),
        ("/images/3.png", {"patch": 1}, 422, "bad-parameters"),
        ("/patches/9999999.png", {}, 404, "unknown-patch"),
        ("/patches/9999999", {}, 404, "unknown-patch"),
        ("/patches/3", {"class": "nothing"}, 404, "unknown-class"),
        ("/patches/x", {}, 422, "bad-parameters"),
        ("/classes", {"order": "colour"}, 422, "bad-parameters"),
        ("/similar", {"patch": 9999999}, 404, "unknown-patch"),
        ("/similar", {}, 422, "cannot-answer"),
        ("/similar", {"image": 3, "at": "100000,5"}, 422, "cannot-answer"),
        ("/heatmap", {"image": "/etc/passwd"}, 422, "bad-parameters"),
        ("/heatmap", {"image": "fish/0001.jpg"}, 422, "bad-parameters"),
        ("/explain", {"image": 3, "vs": "fish"}, 422, None),
        ("/explain", {"image": 3, "vs": "fish,fish"}, 422, "cannot-answer"),
        ("/why", {"image": 3, "vs": "fish,tree", "class": "fish"}, 422, "cannot-answer"),
        ("/words", {"wrong_class": True}, 422, "cannot-answer"),
        ("/words/64", {}, 422, "cannot-answer"),
        ("/words/x", {}, 422, "bad-parameters"),
        ("/words/3", {"class": "nothing"}, 404, "unknown-class"),
        ("/confusion-matrix", {"k": 1}, 422, "bad-parameters"),
        ("/without", {"word": 64}, 422, "cannot-answer"),
        ("/without", {}, 422, "bad-parameters"),
        ("/heatmap.gif", {"image": 3}, 404, "no-such-route"),
        ("/nothing", {}, 404, "no-such-route"),
        ("/sql", {}, 405, "method-not-allowed"),
    ],
)
def test_problems(service: Running, path: str, asked: dict[str, Any], status: int, code: str | None) -> None:
    answer = service.get(path, **asked)
    found = check_problem(answer, status, code or answer.json()["code"])
    assert str(service.service.pools[next(iter(service.service.pools))].path.parent) not in answer.text
    assert found["detail"]
    assert "--" not in found["detail"]


def test_a_bug_tells_nothing(
    service: Running, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("/home/someone/secret")

    monkeypatch.setattr(Index, "flip", broken)
    found = service.problem("/flip", 500, "internal", image=3)
    assert "secret" not in str(found)
    assert "secret" in caplog.text
    assert found["request_id"] in caplog.text
    monkeypatch.undo()
    assert service.json("/flip", image=3)


def test_texts_are_cleaned(tmp_path: Path) -> None:
    texts = Texts({"photos": tmp_path})
    assert texts.clean(f"{tmp_path}/images/x cannot be read") == "photos/images/x cannot be read"
    assert texts.clean("see /etc/passwd or fish/0001.jpg, 3 / 4") == "see … or fish/0001.jpg, 3 / 4"
    assert (
        texts.clean("ask with --any or --per-image 1, -k 3, not --k-ak")
        == "ask with images=any or per_image 1, k 3, not --k-ak"
    )
    # A command is one for the command line.
    assert texts.clean("`bagindex words --model a` makes them for --model a") == (
        "`bagindex words --model a` makes them for model a"
    )


# Pictures that are sent.


def send(service: Running, path: str, data: bytes, name: str = "a.png", **parameters: Any) -> httpx.Response:
    return service.client.post(API + path, params=parameters, files={"picture": (name, data, "image/png")})


def test_a_picture_that_is_sent(service: Running, index: Index) -> None:
    data = io.BytesIO()
    Image.new("RGB", (300, 280), "teal").save(data, "PNG")
    picture = PictureBytes("a.png", data.getvalue())
    for path, asked, expected in (
        ("/why", {"class": "fish"}, index.why(picture, class_="fish").to_dict()),
        ("/flip", {}, index.flip(picture).to_dict()),
        ("/explain", {}, index.explain(picture).to_dict()),
        ("/similar", {"at": "150,140", "k": 3}, index.similar(image=picture, at=(150, 140), k=3).to_dict()),
    ):
        answer = send(service, path, picture.data, **asked)
        assert answer.status_code == 200, answer.text
        assert answer.json() == plain(expected)
    maps = send(service, "/heatmap", picture.data).json()
    assert maps["image_id"] is None
    assert maps["maps"] == plain(index.heatmap(picture).to_dicts())
    drawn = service.client.post(
        API + "/heatmap", files={"picture": ("a.png", picture.data)}, headers={"Accept": "image/png"}
    )
    assert drawn.content.startswith(PNG)


def test_what_the_model_sees_of_a_picture(service: Running, index: Index, planted_folder: Path) -> None:
    data = (planted_folder / "pictures" / service.json("/images/3")["path"]).read_bytes()
    wide = io.BytesIO()
    Image.effect_noise((300, 200), 40).save(wide, "PNG")
    for sent in (data, wide.getvalue()):
        answer = send(service, "/input.png", sent)
        assert answer.headers["content-type"] == "image/png"
        assert unlike(index.input_of(PictureBytes("a.png", sent)), answer.content) == 0
    assert unlike(index.pixels(3), send(service, "/input.png", data).content) == 0
    assert unlike(index.input_of(3), send(service, "/input.png", data).content) == 0
    check_problem(send(service, "/input.png", b"no picture"), 422, "cannot-answer")
    check_problem(send(service, "/input.png", data, model="nothing"), 404, "unknown-model")


def test_four_questions_about_a_picture_compute_once(planted_words: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[str] = []
    load, run = prepare.open_stored_models, BagNetCompute.run

    def counted_load(*arguments: Any, **options: Any) -> Any:
        done.append("load")
        return load(*arguments, **options)

    def counted_run(*arguments: Any) -> Any:
        done.append("run")
        return run(*arguments)

    monkeypatch.setattr(prepare, "open_stored_models", counted_load)
    monkeypatch.setattr(BagNetCompute, "run", counted_run)
    with running([planted_words]) as service, ThreadPoolExecutor(4) as pool:
        for number in range(2):
            data = io.BytesIO()
            Image.effect_noise((300, 280), 30 + number).save(data, "PNG")
            asked: list[tuple[str, dict[str, Any]]] = [
                *((path, {}) for path in ("/heatmap", "/why", "/explain", "/flip")),
                ("/similar", {"at": "150,140"}),
            ]
            answers = list(pool.map(lambda each: send(service, each[0], data.getvalue(), **each[1]), asked))  # noqa: B023
            assert [each.status_code for each in answers] == [200] * 5
        assert sorted(done) == ["load", "run", "run"]


def test_few_models_and_pictures_are_kept(planted_words: Index, planted_folder: Path) -> None:
    computing = Computing()
    with Index.open(planted_words.path) as index:
        (record,) = index.model_records()
        alone = index._directory, index._manifest, record
        shape = index.pixels(0).shape
        inputs = [np.full(shape, 40 * number, np.uint8) for number in range(PICTURES + 1)]
        first = computing.evidence(*alone, inputs[0])
        assert computing.evidence(*alone, inputs[0].copy()) is first
        for each in inputs[1:]:
            computing.evidence(*alone, each)
        again = computing.evidence(*alone, inputs[0])
        assert again is not first
        np.testing.assert_array_equal(again.evidence, first.evidence)
        other = record.model_copy(update={"weights_sha256": "0" * 64})
        assert computing.evidence(index._directory, index._manifest, other, inputs[0]) is not again
        computing.close()
        assert computing.evidence(*alone, inputs[0]) is not again


def test_a_picture_of_the_index_is_recognised(service: Running, planted_folder: Path) -> None:
    path = service.json("/images/3")["path"]
    answer = send(service, "/why", (planted_folder / "pictures" / path).read_bytes())
    assert answer.json() == service.json("/why", image=3)


def test_what_is_sent_may_be_hostile(service: Running) -> None:
    found = check_problem(send(service, "/why", b"no picture", "../../etc/<img src=x>"), 422, "cannot-answer")
    assert found["detail"].startswith("<img src=x> is no picture")
    check_problem(send(service, "/why", b""), 422, "cannot-answer")
    bomb = io.BytesIO()
    Image.new("1", (14_000, 14_000)).save(bomb, "PNG")
    assert "pixels" in check_problem(send(service, "/flip", bomb.getvalue()), 413, "too-large")["detail"]
    check_problem(send(service, "/heatmap", bytes(20_000_001)), 413, "too-large")
    check_problem(
        service.client.post(API + "/heatmap", content=b"x", headers={"Content-Type": "image/png"}),
        415,
        "unsupported-type",
    )
    check_problem(service.client.post(API + "/heatmap", files={"other": b"x"}), 422, "bad-parameters")
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    check_problem(service.client.post(API + "/heatmap", content=b"--y\r\nnonsense", headers=broken), 400, "bad-request")


def test_a_body_of_no_stated_length_is_limited(service: Running) -> None:
    def chunks() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="picture"; filename="a"\r\n\r\n'
        for _ in range(250):
            yield bytes(100_000)

    answer = service.client.post(
        API + "/flip", content=chunks(), headers={"Content-Type": "multipart/form-data; boundary=x"}
    )
    check_problem(answer, 413, "too-large")


# SQL.


def test_sql(service: Running) -> None:
    def ask(sql: str, **more: Any) -> httpx.Response:
        return service.client.post(API + "/sql", json={"sql": sql, **more})

    found = ask("SELECT image_id, image_id AS again, path FROM images ORDER BY 1 LIMIT 2").json()
    assert [column["name"] for column in found["columns"]] == ["image_id", "again", "path"]
    assert [row[:2] for row in found["rows"]] == [[0, 0], [1, 1]]
    assert found["truncated"] is False
    assert ask("SELECT 1", explain=True).status_code == 200
    check_problem(ask("FROM read_csv('/etc/passwd')"), 422, "refused")
    check_problem(ask("SELEC"), 422, "cannot-answer")
    check_problem(ask("DROP TABLE images"), 422, ask("DROP TABLE images").json()["code"])
    check_problem(ask(""), 422, "bad-parameters")
    check_problem(service.client.post(API + "/sql", json={"sql": "SELECT 1", "more": 1}), 422, "bad-parameters")
    check_problem(
        service.client.post(API + "/sql", content=b"{", headers={"Content-Type": "application/json"}),
        422,
        "bad-parameters",
    )
    check_problem(
        service.client.post(API + "/sql", content=b"{}", headers={"Content-Type": "text/plain"}),
        415,
        "unsupported-type",
    )
    check_problem(ask("x" * 300_000), 413, "too-large")
    assert ask("SELECT '😀<img>' AS a").json()["rows"] == [["😀<img>"]]


def test_sql_in_arrow(service: Running, index: Index) -> None:
    import pyarrow as pa

    accept = {"Accept": "application/vnd.apache.arrow.stream"}
    query = "SELECT image_id, path FROM images ORDER BY 1"
    answer = service.client.post(API + "/sql", json={"sql": query}, headers=accept)
    assert answer.headers["x-bagindex-truncated"] == "false"
    assert pa.ipc.open_stream(answer.content).read_all().to_pydict() == index.sql(query).to_arrow().to_pydict()


def test_sql_in_files(service: Running, index: Index) -> None:
    query = "SELECT image_id, path, [1, NULL] AS list, {'a': 'é'} AS both, NULL AS nothing FROM images ORDER BY 1"
    expected = index.sql(query)
    for kind in ("text/csv", "application/vnd.apache.parquet"):
        answer = service.client.post(API + "/sql", json={"sql": query}, headers={"Accept": kind})
        assert answer.status_code == 200, answer.text
        assert answer.headers["content-type"].split(";")[0] == kind
        assert answer.headers["x-bagindex-truncated"] == "false"
        assert float(answer.headers["x-bagindex-milliseconds"]) >= 0
        if kind == "text/csv":
            assert answer.content.decode() == output.to_csv(expected.columns, expected.to_dicts())
            assert "\n0,chain/" in answer.text
            assert '"[1, null]","{""a"": ""é""}",\n' in answer.text
        else:
            assert pq.read_table(io.BytesIO(answer.content)).to_pylist() == expected.to_dicts()
    answer = service.client.post(API + "/sql", json={"sql": query}, headers={"Accept": "image/png"})
    check_problem(answer, 406, "not-acceptable")


def test_tables(service: Running, index: Index) -> None:
    assert service.json("/tables") == index.tables()


def test_sql_that_takes_too_long_or_finds_no_room(planted_index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    limits = Limits(seconds=1)
    monkeypatch.setattr(SqlPool, "__init__", partialmethod(SqlPool.__init__, limits=limits))
    with running([planted_index], Settings(sql_workers=1, sql_queue=1)) as service, ThreadPoolExecutor(2) as threads:

        def ask(sql: str) -> httpx.Response:
            return service.client.post(API + "/sql", json={"sql": sql})

        def until(running: int) -> None:
            while f"bagindex_sql_in_flight {running}.0" not in service.client.get("/metrics").text:
                time.sleep(0.01)

        assert ask("SELECT 1").status_code == 200
        began = time.monotonic()
        slow = threads.submit(ask, "SELECT count(*) FROM range(10000000) AS a, range(10000000) AS b")
        until(1)
        waiting = threads.submit(ask, "SELECT 1")
        until(2)
        crowd = ask("SELECT 1")
        check_problem(crowd, 503, "busy")
        assert int(crowd.headers["retry-after"]) >= 1
        check_problem(slow.result(), 422, "time-limit")
        assert limits.seconds <= time.monotonic() - began < limits.seconds + 0.5
        assert waiting.result().status_code == 200
        assert 'bagindex_sql_queries_total{outcome="time-limit"} 1.0' in service.client.get("/metrics").text


def test_a_condition_is_not_run_by_the_index(service: Running, index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it is once it may not be the next time, and the index's own connection has no bounds."""
    ids = [
        [each["image_id"] for each in service.json("/images", where="random() < 0.5", limit=limit)["images"]]
        for limit in (1000, 999, 998)
    ]
    assert ids[0] == ids[1] == ids[2]
    assert 0 < len(ids[0]) < index.image_count

    def refuse(*_: object) -> None:
        raise AssertionError("the text of a condition came to the index")

    monkeypatch.setattr(choosing, "_check_condition", refuse)
    for path, asked in (("/images", {}), ("/top-patches", {"class": "fish"}), ("/similar", {"patch": 0})):
        assert service.get(path, where="label_name = 'fish'", **asked).status_code == 200
        service.problem(path, 422, "cannot-answer", where="label_name::INTEGER = 1", **asked)
        service.problem(path, 404, "unknown-model", where="true", model="nothing", **asked)


def test_without_sql(planted_index: Index) -> None:
    with running([planted_index], Settings(sql=False)) as service:
        assert service.json("/indexes")["indexes"][0]["sql"] is False
        check_problem(service.client.post(API + "/sql", json={"sql": "SELECT 1"}), 403, "sql-off")
        service.problem("/images", 403, "sql-off", where="width > 1")


# Indexes of other kinds.


def test_hostile_names_of_classes(tmp_path: Path) -> None:
    classes = ["<img src=x onerror=alert(1)>", "a/b\r\nSet-Cookie: x", "fish"]
    table = np.random.default_rng(1).normal(size=(6, 6, 3))
    words = np.arange(36).reshape(6, 6) % 4
    worded_index(tmp_path / "i", table, [classes[0]] * 3 + [classes[1]] * 3, words, classes=classes).close()
    with running([tmp_path / "i"]) as service:
        for name in classes[:2]:
            answer = service.get("/top-patches", **{"class": name})
            assert answer.json()["patches"][0]["class"] == name
            assert answer.headers["content-type"] == "application/json"
            for path in ("/report.html", "/figure3.html", "/figure3.svg", "/words.html"):
                page = service.get(path, **{"class": name})
                assert page.status_code == 200, page.text
                assert "<img src=x" not in page.text
                assert "default-src 'none'" in page.headers["content-security-policy"]
            assert "set-cookie" not in answer.headers
        found = service.problem("/top-patches", 404, "unknown-class", **{"class": "<script>"})
        assert "<script>" in found["detail"]  # JSON, and no page


def test_an_index_without_labels(tmp_path: Path) -> None:
    table = np.random.default_rng(2).normal(size=(3, 6, 3))
    worded_index(tmp_path / "i", table, [None] * 3, np.zeros((3, 6), int)).close()
    with running([tmp_path / "i"]) as service:
        assert service.json("/indexes")["indexes"][0]["labelled"] is False
        assert (service.json("/models")["models"][0]["correct"], service.json("/models")["models"][0]["labelled"]) == (
            None,
            0,
        )
        assert service.json("/top-patches", **{"class": "cat"})["patches"] == []
        assert len(service.json("/top-patches", **{"class": "cat", "images": "any"})["patches"]) == 3
        assert [each["correct"] for each in service.json("/classes")["classes"]] == [0, 0, 0]
        assert service.json("/images", labelled=True)["total"] == 0
        assert service.json("/images/0")["correct"] is None
        assert service.json("/why", image=0)["label"] is None
        assert "--" not in service.problem("/shortcuts", 422, "cannot-answer")["detail"]
        service.problem("/confusions", 422, "cannot-answer")
        service.problem("/confusion-matrix", 422, "cannot-answer")
        service.problem("/label-errors", 422, "cannot-answer")
        assert service.json("/words/0")["labels"] == []
        assert service.json("/without", word=0)["labelled"] == 0


@pytest.mark.parametrize("pixels", [True, False])
def test_an_index_of_summaries(planted_folder: Path, tmp_path: Path, pixels: bool) -> None:
    Index.build(
        planted_folder / "pictures",
        weights=planted_folder / "bagnet33.safetensors",
        out=tmp_path / "i",
        keep="summary",
        pixels=pixels,
        limit=6,
    ).close()
    with running([tmp_path / "i"]) as service:
        assert len(service.json("/top-patches", **{"class": "fish", "images": "any"})["patches"]) == 6
        service.problem("/top-patches", 409, "not-kept", **{"class": "fish", "per_image": 2})
        service.problem("/similar", 409, "not-kept", patch=1)
        service.problem("/words", 409, "not-kept")
        service.problem("/words/0", 409, "not-kept")
        assert service.json("/confusion-matrix")["classes"]
        assert "label_errors" in service.json("/label-errors")
        assert service.json("/patches/5")["word"] is None
        service.problem("/shortcuts", 409, "not-kept")
        if pixels:
            assert service.json("/heatmap", image=0)["maps"]
            assert service.get("/patches/5.png").content.startswith(PNG)
        else:
            service.problem("/heatmap", 409, "not-kept", image=0)
            service.problem("/patches/5.png", 409, "not-kept")
            service.problem("/images/0.png", 409, "not-kept")
            service.problem("/figure3.png", 409, "not-kept", **{"class": "fish"})
            # Of an image of the index that is sent there is something to compute from.
            data = (planted_folder / "pictures" / service.json("/images/0")["path"]).read_bytes()
            assert send(service, "/heatmap", data).json()["image_id"] == 0
            assert send(service, "/input.png", data).content.startswith(PNG)
            assert service.get("/report.html", **{"class": "fish"}).status_code == 200


def test_several_indexes(planted_words: Index, tmp_path: Path) -> None:
    worded_index(tmp_path / "other", np.zeros((3, 6, 3)), ["cat"] * 3).close()
    with running([planted_words, tmp_path / "other"]) as service:
        assert [each["name"] for each in service.json("/indexes")["indexes"]] == ["index", "other"]
        assert "other" in service.problem("/classes", 422, "which-index")["detail"]
        assert [each["name"] for each in service.json("/classes", index="other")["classes"]] == ["cat", "dog", "fish"]
        assert service.json("/classes", index="index")["total"] == 6
        patches = [service.get("/patches/7.png", index=name) for name in ("index", "other")]
        assert patches[0].headers["etag"] != patches[1].headers["etag"]
        assert patches[0].content != patches[1].content
    with pytest.raises(SettingsError, match="two indexes are called"):
        Service([planted_words.path, planted_words.path], Settings())


# Many at a time.


def test_many_threads_get_the_same_answers(service: Running, index: Index) -> None:
    def expected(number: int) -> Any:
        name = index.classes[number % 6].name
        return [
            plain(index.top_patches(name, any_class=True, k=5).to_dicts()),
            plain(index.why(number).to_dict()),
            plain(index.similar(number * 100, k=3).to_dicts()),
        ]

    wanted = [expected(number) for number in range(16)]

    def ask(number: int) -> list[Any]:
        with httpx.Client(base_url=service.address + API, timeout=60) as client:
            found = []
            for _ in range(3):
                name = index.classes[number % 6].name
                parameters: dict[str, Any] = {"class": name, "images": "any", "k": 5}
                found = [
                    client.get("/top-patches", params=parameters).json()["patches"],
                    client.get("/why", params={"image": number}).json(),
                    client.get("/similar", params={"patch": number * 100, "k": 3}).json()["patches"],
                ]
                picture = client.get(f"/patches/{number * 100}.png").content
                assert picture.startswith(PNG)
                assert found == wanted[number]
            return found

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(16))) == wanted


def test_a_catalog_that_is_replaced_is_noticed(planted_words: Index, tmp_path: Path) -> None:
    shutil.copytree(planted_words.path, tmp_path / "i")
    with running([tmp_path / "i"]) as service, Index.open(tmp_path / "i") as index:
        path = service.json("/images/3")["path"]
        failed: list[str] = []
        done = threading.Event()

        def load(number: int) -> None:
            with httpx.Client(base_url=service.address + API, timeout=60) as client:
                while not done.is_set():
                    for each in ("/images/3", "/top-patches?class=fish", "/words?class=fish&k=2", "/patches/7.png"):
                        answer = client.get(each)
                        if answer.status_code != 200:
                            failed.append(answer.text)

        threads = [threading.Thread(target=load, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        try:
            for label in ("fish", "tree", "", "fish"):
                (tmp_path / "labels.csv").write_text(f"path,label\n{path},{label}\n")
                index.relabel(tmp_path / "labels.csv")
                assert service.json("/images/3")["label_name"] == (label or None)
                if label == "tree":
                    assert service.get("/label-errors.png?k=1").content.startswith(PNG)
            index.make_words(16)
            assert service.json("/models")["models"][0]["words"] == 16
            assert len(service.json("/words")["words"]) <= 17
        finally:
            done.set()
            for thread in threads:
                thread.join()
        assert failed == []
        shutil.rmtree(tmp_path / "i")
        assert service.client.get("/readyz").status_code == 503
        assert service.client.get("/healthz").status_code == 200
        service.problem("/images/3", 404, "unknown-index")


def test_pictures_of_an_index_that_is_begun_anew_are_others(tmp_path: Path) -> None:
    """Two indexes of one plan: what came later differs, under the same ids."""
    directory, compute = IndexDirectory(tmp_path / "i"), LinearCompute("ab")
    settings = BuildSettings(shard_size=4, workers=1)
    first, later = MemorySource(["a"] * 4), MemorySource(["a"] * 5)

    class Others(MemorySource):
        def read(self, entry: Entry) -> bytes:
            return number_png(entry.size + 9 * (entry.size == 4), self.side)

    build(directory, first, {"a": 0}, compute, settings)
    update(directory, later, {"a": 0}, {"linear": compute}, settings)
    with running([tmp_path / "i"]) as service:
        address = f"/patches/16.png?v={service.json('/indexes')['indexes'][0]['version']}"
        before = service.get(address)
        assert "immutable" in before.headers["cache-control"]
        build(directory, first, {"a": 0}, compute, replace(settings, restart=True))
        service.problem(address, 404, "unknown-patch")
        update(directory, Others(["a"] * 5), {"a": 0}, {"linear": compute}, settings)
        after = service.get(address)
        with Index.open(tmp_path / "i") as index:
            assert after.content == pictures.encode(index.patch_pixels(16)) != before.content
        assert after.headers["etag"] != before.headers["etag"]
        assert "immutable" not in after.headers["cache-control"]


def test_a_condition_is_of_the_state_that_is_asked(
    planted_words: Index, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between finding the images of which it holds and asking about them, they get other labels."""
    shutil.copytree(planted_words.path, tmp_path / "i")
    with running([tmp_path / "i"]) as service, Index.open(tmp_path / "i") as index:
        path = service.json("/images/3")["path"]
        found = []
        finding = Strangers.images_where

        def find(strangers: Strangers, *asked: Any) -> Met:
            met = finding(strangers, *asked)
            found.append(met.catalog)
            if len(found) == 1:
                (tmp_path / "labels.csv").write_text(f"path,label\n{path},tree\n")
                index.relabel(tmp_path / "labels.csv")
            return met

        monkeypatch.setattr(Strangers, "images_where", find)
        for route in ("/images", "/top-patches"):
            found.clear()
            parameters: dict[str, Any] = {"where": "label_name = 'tree'", "class": "tree"}
            if route == "/top-patches":
                parameters |= {"images": "any", "k": 1000}
            rows = service.json(route, **parameters)["images" if route == "/images" else "patches"]
            assert {row["label_name"] for row in rows} == {"tree"}
            assert 3 in {row["image_id"] for row in rows}
            assert len(set(found)) == 2
            index.relabel(None)


def test_work_that_waits_is_bounded() -> None:
    import asyncio

    async def run() -> None:
        workers = Workers("test", 1, 1)
        gate = threading.Event()
        tasks = [asyncio.create_task(workers.run(gate.wait)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert workers.taken == 2
        with pytest.raises(Problem) as refused:
            await workers.run(gate.wait)
        assert refused.value.status == 503
        assert "Retry-After" in (refused.value.headers or {})
        tasks[0].cancel()  # the client has gone; its work is still done
        await asyncio.sleep(0.05)
        assert workers.taken == 2
        gate.set()
        assert await tasks[1]
        assert workers.taken == 0
        workers.close()
        with pytest.raises(Problem):
            await workers.run(gate.wait)

    asyncio.run(run())


def test_work_that_has_waited_too_long_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(work, "_PATIENCE", 0.2)
    begun: list[str] = []

    async def main() -> None:
        workers = Workers("test", 1, 5)
        go_on = threading.Event()
        first = asyncio.create_task(workers.run(lambda: (begun.append("first"), go_on.wait(20))))
        await asyncio.sleep(0.05)
        with pytest.raises(Problem, match="more to do than it can in time"):
            await workers.run(lambda: begun.append("second"))
        assert workers.taken == 1
        go_on.set()
        await first
        await workers.run(lambda: begun.append("third"))
        workers.close()

    asyncio.run(main())
    assert begun == ["first", "third"]


def test_a_picture_of_very_many_pixels_is_refused(service: Running) -> None:
    data = io.BytesIO()
    Image.new("1", (8000, 6000)).save(data, "PNG")
    answer = service.client.post(API + "/explain", files={"picture": ("a.png", data.getvalue())})
    check_problem(answer, 413, "too-large")
    assert "8000 x 6000 is over 40,000,000 pixels" in answer.json()["detail"]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT 170141183460469231731687303715884105727::HUGEINT",
        "SELECT date 'infinity'",
        "SELECT timestamp '10000-01-01'",
        "SELECT time '24:00:00'",
        "SELECT date '0001-01-01 (BC)'",
        "SELECT 340282366920938463463374607431768211455::UHUGEINT",
        "SELECT '101'::BIT",
    ],
)
def test_values_that_no_answer_can_hold(service: Running, query: str) -> None:
    for accept in ("application/json", "application/vnd.apache.arrow.stream", "text/csv", PARQUET):
        answer = service.client.post(API + "/sql", json={"sql": query}, headers={"Accept": accept})
        allowed = (422,) if accept in ("application/json", "text/csv") else (200, 422)
        assert answer.status_code in allowed, answer.text


def test_what_is_kept_is_bounded() -> None:
    kept: pictures.Kept[bytes] = pictures.Kept(100, len)
    for number in range(5):
        kept.put(number, bytes(30))
    assert kept.get(0) is None
    assert kept.get(2) == bytes(30)
    kept.put(9, bytes(30))
    assert kept.get(3) is None
    assert kept.get(2) is not None
    kept.put(2, bytes(10))
    assert kept.bytes == 70
    kept.put(1, bytes(1000))
    assert kept.bytes == 0


# What watches over it.


def test_health_and_numbers(service: Running) -> None:
    assert service.client.get("/healthz").json() == {"status": "ok"}
    assert service.client.get("/readyz").json()["indexes"] == {"index": True}
    service.get("/top-patches", **{"class": "fish"})
    service.get("/nothing")
    text = service.client.get("/metrics").text
    assert 'bagindex_requests_total{method="GET",route="/api/v1/top-patches",status="200"}' in text
    assert 'route="none",status="404"' in text
    assert 'bagindex_request_seconds_bucket{le="0.01",route="/api/v1/top-patches"}' in text
    assert "bagindex_requests_in_flight 1.0" in text
    for name in ("bagindex_sql_in_flight", "bagindex_questions_waiting", "bagindex_pictures_bytes"):
        assert name in text


def test_the_first_page_says_where_the_rest_is(service: Running) -> None:
    page = service.client.get("/")
    assert "/api/v1" in page.text
    assert service.client.get("/openapi.json").json()["openapi"].startswith("3.")
    for path in ("/docs", "/redoc"):  # they would come from another site
        assert service.client.get(path).status_code == 404


def test_head_is_get_without_its_body(service: Running) -> None:
    for path in (API + "/patches/7.png", API + "/classes", "/healthz"):
        head, get = service.client.head(path), service.client.get(path)
        assert (head.status_code, head.content) == (200, b"")
        assert head.headers["content-length"] == get.headers["content-length"]
