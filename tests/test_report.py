"""A report on a class: its numbers against ones counted by hand, and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from bagindex import Index
from bagindex.build import BuildSettings, build
from bagindex.errors import OutputError, QueryError, UnknownClassError
from bagindex.report import Report
from bagindex.store import IndexDirectory
from bagindex_schemas.records import Keep
from fakes import LinearCompute, MemorySource
from pages import Page

CLASSES = ("<b>'a'</b> & \"so\" on", "Größe 中文", "c")
LABELS = [CLASSES[i % 3] for i in range(20)] + [None]
TABLE = np.random.default_rng(11).normal(0, 3, (21, 4, 3)).astype(np.float16).astype(np.float32)


def make(folder: Path, keep: Keep = Keep.EVIDENCE, labels: list[str | None] = LABELS, pixels: bool = True) -> Index:
    """An index of one-coloured pictures whose evidence is `TABLE`."""
    settings = BuildSettings(keep=keep, pixels=pixels, workers=1, shard_size=8)
    ids = {name: i for i, name in enumerate(CLASSES)}
    build(IndexDirectory(folder), MemorySource(labels), ids, LinearCompute(CLASSES, table=TABLE), settings)
    return Index.open(folder)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    return make(tmp_path_factory.mktemp("report") / "index").report(0)


def test_numbers(report: Report) -> None:
    (model,) = report.models
    means = TABLE.mean(axis=1)[:20]
    truth, predicted = np.arange(20) % 3, means.argmax(axis=1)
    assert (report.images, report.labelled) == (21, 20)
    assert model.images == 7
    assert model.recognised == np.sum((truth == 0) & (predicted == 0))
    assert model.predicted == np.sum(predicted == 0)
    for found, condition, classes in (
        (model.taken_for, (truth == 0) & (predicted != 0), predicted),
        (model.mistaken, (truth != 0) & (predicted == 0), truth),
    ):
        counts = {CLASSES[c]: int(np.sum(condition & (classes == c))) for c in range(3)}
        assert {each.class_name: each.images for each in found} == {name: n for name, n in counts.items() if n}
        assert [each.images for each in found] == sorted((each.images for each in found), reverse=True)


def test_distributions(report: Report) -> None:
    (model,) = report.models
    truth = np.arange(20) % 3
    assert model.patches is not None
    assert model.logits is not None
    for found, values in ((model.patches, TABLE[:20, :, 0]), (model.logits, TABLE[:20, :, 0].mean(axis=1))):
        assert found.edges[0] == pytest.approx(values.min())
        assert found.edges[-1] == pytest.approx(values.max())
        for counts, chosen in ((found.right, values[truth == 0]), (found.wrong, values[truth != 0])):
            assert counts.sum() == chosen.size
            # A number on an edge may fall to either side.
            expected = np.histogram(chosen, found.edges)[0]
            assert np.abs(np.cumsum(counts) - np.cumsum(expected)).max() <= 1


def test_images(report: Report) -> None:
    (model,) = report.models
    means = TABLE.mean(axis=1)[:20, 0]
    right = sorted(range(0, 20, 3), key=lambda i: -means[i])
    wrong = sorted((i for i in range(20) if i % 3), key=lambda i: -means[i])
    assert [each.image_id for each in model.typical] == right[:6]
    assert [each.image_id for each in model.untypical] == right[::-1][:6]
    assert [each.image_id for each in model.wrong] == wrong[:6]
    for each in model.shown:
        assert each.evidence is not None
        assert np.array_equal(each.evidence, TABLE[each.image_id, :, 0].reshape(2, 2))
        assert each.logit == pytest.approx(float(means[each.image_id]), abs=1e-5)
        assert each.label_name == LABELS[each.image_id]


def test_page(report: Report) -> None:
    text = report.to_html()
    page = Page(text)
    words = "".join(page.text)
    (model,) = report.models
    assert CLASSES[0] in words
    assert page.tags["b"] > 0  # ours
    assert "<b>'a'" not in text
    assert page.tags["script"] == 0
    assert page.tags["svg"] >= 2 + 14
    assert f"{100 * model.recognised / model.images:.1f} %" in words
    for each in model.shown:
        assert f"{each.image_id} · {each.path}" in words
    inputs = {patch.image_id for row in report.figure3 for patch in row.patches}
    assert sum("jpeg" in uri for uri in page.images) == 2 * len(model.shown) + len(inputs)
    assert report.to_html() == text
    assert report._repr_html_().startswith("<iframe srcdoc=")


def test_real_index(planted_index: Index, tmp_path: Path) -> None:
    report = planted_index.report("tree")
    page = Page(report.to_html())
    assert page.tags["section"] >= 15
    assert report.save(tmp_path / "a.html") == tmp_path / "a.html"
    assert report.save(tmp_path) == tmp_path / "report.html"
    assert report.save(tmp_path / "new" / "folder") == tmp_path / "new" / "folder" / "report.html"
    assert (tmp_path / "new" / "folder" / "report.html").read_bytes() == (tmp_path / "a.html").read_bytes()
    with pytest.raises(OutputError, match=r"one of \.html"):
        report.save(tmp_path / "a.pdf")
    with pytest.raises(OutputError, match="cannot write"):
        report.save(tmp_path / "a.html" / "below")
    with pytest.raises(UnknownClassError):
        planted_index.report("teer")
    with pytest.raises(QueryError, match="no model"):
        planted_index.report("tree", models=["bagnet9"])


def test_summary_says_what_is_missing(tmp_path: Path) -> None:
    with make(tmp_path / "index", Keep.SUMMARY) as index:
        report = index.report("c")
    assert report.models[0].patches is None
    assert report.models[0].logits is not None
    text = "".join(Page(report.to_html()).text)
    assert text.count("--keep evidence") == 2


def test_without_pixels_it_has_the_numbers(tmp_path: Path) -> None:
    with make(tmp_path / "index", pixels=False) as index:
        page = Page(index.report("c").to_html())
    text = "".join(page.text)
    assert "--no-pixels" in text
    assert "recognised" in text
    assert not page.images


def test_without_labels_it_says_so(tmp_path: Path) -> None:
    with make(tmp_path / "index", labels=[None] * 4) as index:
        text = "".join(Page(index.report("c").to_html()).text)
    assert "no image has a label" in text
    assert "bagindex relabel" in text


@pytest.mark.parametrize("labels", [["c"] * 4, [CLASSES[0]] * 4, ["c", CLASSES[0]]])
def test_one_side_empty(tmp_path: Path, labels: list[str | None]) -> None:
    with make(tmp_path / "index", labels=labels) as index:
        Page(index.report("c").to_html())


def test_command(planted_index: Index, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    done = run("report", "tree", "-i", planted_index.path, "-o", tmp_path / "pages")
    assert (done.status, done.out) == (0, "")
    assert f"wrote {tmp_path / 'pages' / 'report.html'}" in done.err
    wrong = run("report", "tree", "-i", planted_index.path, "-o", tmp_path / "a.png")
    assert wrong.status == 1
    assert ".html" in wrong.err
