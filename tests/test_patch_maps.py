"""Maps of patches: what is alike lies together, and what they were made of is known."""

from __future__ import annotations

import io
import json
import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bagindex import Index, derived
from bagindex.errors import NotKeptError, QueryError, SettingsError
from bagindex.patch_maps.embedding import components, embed
from bagindex.store import IndexDirectory
from bagindex_schemas.derived import MapRecord
from bagindex_schemas.records import Keep
from browsing_page import BrowserThread
from serving import running
from wordy import worded_index, write_words

PATCHES = 6
LABELS = ("cat", "dog", "fish", None, "cat", "dog")


def groups(images: int = 6) -> np.ndarray:
    """Evidence of images whose patches speak for cat, dog and fish in turn, each a little otherwise."""
    table = np.random.default_rng(0).normal(0, 0.05, (images, PATCHES, 3))
    for patch in range(PATCHES):
        table[:, patch, patch % 3] += 4
    return table.astype(np.float32)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An index with both maps, of all its 36 patches and of six words. Not to be changed."""
    folder = tmp_path_factory.mktemp("map") / "i"
    words = np.tile(np.arange(PATCHES), (6, 1))
    with worded_index(folder, groups(), LABELS, words) as index:
        index.make_map(sample=100)
        index.make_map(words=True, seed=3)
    return folder


@pytest.fixture
def copied(made: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(made, tmp_path / "i")
    return tmp_path / "i"


def test_components_are_those_of_the_covariance() -> None:
    generator = np.random.default_rng(2)
    vectors = (generator.normal(0, 1, (40, 5)) * [5, 3, 1, 0.5, 0.1] + 7).astype(np.float32)
    found = components(vectors, 3)
    centred = vectors.astype(np.float64) - vectors.mean(axis=0, dtype=np.float64)
    _, sizes, axes = np.linalg.svd(centred, full_matrices=False)
    np.testing.assert_allclose(np.abs(found), np.abs(centred @ axes[:3].T), atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(found, axis=0), sizes[:3])


def test_what_is_alike_lies_together() -> None:
    generator = np.random.default_rng(1)
    of = np.repeat(np.arange(3), 15)
    vectors = (np.eye(3, 8)[of] * 5 + generator.normal(0, 0.1, (45, 8))).astype(np.float32)
    seen: list[tuple[int, int]] = []
    places = embed(vectors, 10, 0, lambda *steps: seen.append(steps))
    assert (places.shape, places.dtype) == ((45, 2), np.float32)
    far = np.linalg.norm(places[:, None] - places[None], axis=2) + np.diag(np.full(45, np.inf))
    assert (of[far.argmin(axis=1)] == of).all()
    inside = max(float(np.ptp(places[of == each], axis=0).max()) for each in range(3))
    between = min(
        float(np.linalg.norm(places[of == one].mean(axis=0) - places[of == other].mean(axis=0)))
        for one, other in ((0, 1), (0, 2), (1, 2))
    )
    assert between > inside
    np.testing.assert_allclose(places.mean(axis=0), 0, atol=1e-4)
    assert (seen[-1], [done for done, _ in seen]) == ((750, 750), sorted(done for done, _ in seen))
    np.testing.assert_array_equal(embed(vectors, 10, 0), places)


def test_a_map_of_all_patches(made: Path) -> None:
    with Index.open(made) as index:
        found = index.patch_map()
        rows = index.sql(
            "SELECT patch_id, class, logit FROM evidence QUALIFY row_number() OVER "
            "(PARTITION BY patch_id ORDER BY logit DESC, class_id) = 1 ORDER BY patch_id"
        ).to_dicts()
    assert [(each.patch_id, each.class_, each.logit) for each in found.points] == [
        (row["patch_id"], row["class"], row["logit"]) for row in rows
    ]
    assert [each.label for each in found.points[::PATCHES]] == list(LABELS)
    assert {each.word for each in found.points} == {None}
    assert (found.record.points, found.record.asked, found.record.seed) == (36, 100, 0)
    places = np.array([[each.x, each.y] for each in found.points])
    far = np.linalg.norm(places[:, None] - places[None], axis=2) + np.diag(np.full(36, np.inf))
    assert all(found.points[place].class_ == found.points[near].class_ for place, near in enumerate(far.argmin(axis=1)))


def test_the_evidence_for_a_class(made: Path) -> None:
    with Index.open(made) as index:
        plain, found = index.patch_map(), index.patch_map("dog")
        logits = index.sql("SELECT logit FROM evidence WHERE class = 'dog' ORDER BY patch_id").to_dicts()
        of_words, words = index.patch_map("dog", words=True), index.words()
        means = index.sql("SELECT mean_logit FROM word_evidence WHERE class = 'dog' ORDER BY word").to_dicts()
    assert [each.logit for each in found.points] == [row["logit"] for row in logits]
    assert [(each.x, each.y) for each in found.points] == [(each.x, each.y) for each in plain.points]
    assert {each.class_ for each in found.points} == {"dog"}
    assert [each.logit for each in of_words.points] == pytest.approx([row["mean_logit"] for row in means], rel=1e-5)
    assert [each.word for each in of_words.points] == list(range(PATCHES))
    assert [each.patch_id for each in of_words.points] == [
        next(word.typical[0] for word in words.words if word.word == number) for number in range(PATCHES)
    ]
    assert of_words.record.seed == 3


def test_a_sample_is_drawn_by_its_seed(copied: Path) -> None:
    def drawn(seed: int) -> list[int]:
        with Index.open(copied) as index:
            index.make_map(sample=9, seed=seed)
            return [each.patch_id for each in index.patch_map().points]

    first, other = drawn(1), drawn(2)
    assert (len(first), len(set(first)), sorted(first)) == (9, 9, first)
    assert other != first == drawn(1)


def test_a_map_as_files(made: Path, tmp_path: Path, run) -> None:  # type: ignore[no-untyped-def]
    for name in ("m.html", "m.png", "m.pdf", "m.json", "m.csv", "m.parquet"):
        result = run("map", "-i", made, "-o", tmp_path / name)
        assert (result.status, result.err) == (0, f"bagindex: wrote {tmp_path / name}\n")
    page = (tmp_path / "m.html").read_text()
    assert page.count("<circle ") == 36
    points = json.loads(re.search(r'id="points">(.*?)</script>', page)[1])  # type: ignore[index]
    assert points[0]["said"].startswith("cat ")
    assert "labelled cat" in points[0]["said"]
    assert 'src="data:image/jpeg;base64,' in page
    assert not re.findall(r'https?://(?!www\.w3\.org)|src="(?!data:)', page)
    assert len(json.loads((tmp_path / "m.json").read_text())) == 36
    assert run("map", "dog", "--words", "-i", made, "-o", tmp_path / "w.png").status == 0
    assert "t-SNE of the features' directions" in run("map", "-i", made).out
    assert run("map", "cow", "-i", made).status == 1
    assert run("map", "--words", "--sample", "9", "-i", made).status == 2


def test_the_page_shows_a_patch_once_a_point_is_pointed_at(made: Path, tmp_path: Path, browser: BrowserThread) -> None:
    with Index.open(made) as index:
        (tmp_path / "m.html").write_text(index.patch_map().to_html(), encoding="utf-8")
    assert browser.browser is not None
    with browser.browser.new_page() as page:
        page.goto((tmp_path / "m.html").as_uri())
        patch, said = page.locator("#patch"), page.locator("#said")
        assert said.inner_text() == "Point at one of the points."
        blank = Image.open(io.BytesIO(patch.screenshot()))
        assert len(blank.getcolors() or ()) == 1
        page.locator("#map circle").last.hover()
        assert said.inner_text().startswith(("cat ", "dog ", "fish "))
        assert Image.open(io.BytesIO(patch.screenshot())).tobytes() != blank.tobytes()


def test_names_stay_text_on_the_page(tmp_path: Path) -> None:
    names = ("</script><b>cat</b>", "<img src=x>", "a & b")
    with worded_index(tmp_path / "i", groups(2), [names[0], None], classes=names) as index:
        index.make_map()
        for page in (index.patch_map().to_html(), index.patch_map("a & b").to_html()):
            assert page.count("</script>") == page.count("<script") == 2
            assert "<b>cat" not in page
            assert "<img src=x" not in page
        assert json.loads(re.search(r'id="points">(.*?)</script>', page)[1])[0]["said"].startswith("a & b ")  # type: ignore[index]


def test_a_map_is_made_once_and_again_when_another_is_asked_for(copied: Path, run) -> None:  # type: ignore[no-untyped-def]
    def number() -> int:
        return int(derived.newest(IndexDirectory(copied), "linear", derived.MAP).name.removeprefix("map-"))  # type: ignore[union-attr]

    first = number()
    for arguments, more in (((), 0), (("--sample", 20), 1), (("--sample", 20, "--seed", 0), 1), (("--again",), 2)):
        assert run("map", "-i", copied, *arguments, "--format", "csv").status == 0
        assert number() == first + more, arguments
    with Index.open(copied) as index:
        assert len(index.patch_map()) == 20


def test_words_that_were_made_again_need_another_map(copied: Path) -> None:
    with Index.open(copied) as index:
        write_words(index, 5, np.tile(np.arange(PATCHES) % 5, (6, 1)))
    with Index.open(copied) as index:
        with pytest.raises(NotKeptError, match="another state of the index: `bagindex map --words --again"):
            index.patch_map(words=True)
        assert index.map_made(words=True) is None
        assert index.map_made() is not None


def test_what_cannot_be_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with worded_index(tmp_path / "i", groups(1), ["cat"], np.arange(PATCHES)[None] % 4) as index:
        with pytest.raises(NotKeptError, match="has no such map: `bagindex map --model linear` makes one"):
            index.patch_map()
        with pytest.raises(QueryError, match="there are 4 visual words, and a map needs 5"):
            index.make_map(words=True)
        with pytest.raises(QueryError, match="ask for so many with --sample"):
            index.make_map(sample=4)
        monkeypatch.setitem(sys.modules, "openTSNE", None)
        with pytest.raises(SettingsError, match=r"pip install 'bagindex\[maps\]'"):
            index.make_map()
    with (
        worded_index(tmp_path / "s", groups(1), ["cat"], keep=Keep.SUMMARY) as index,
        pytest.raises(NotKeptError, match="--keep features"),
    ):
        index.make_map()


def test_damage_is_found_and_repaired(copied: Path) -> None:
    folder = derived.newest(IndexDirectory(copied), "linear", derived.MAP)
    assert folder is not None
    before = (folder / "map.parquet").read_bytes()
    (folder / "map.parquet").write_bytes(before[:-40] + bytes([before[-40] ^ 1]) + before[-39:])
    with Index.open(copied) as index:
        report = index.verify()
        assert not report.ok
        assert "make it again with `bagindex map --again`" in str(report)
    repaired = Index.repair(copied)
    assert repaired.ok
    assert "linear: the map of patches" in repaired.remade
    with Index.open(copied) as index:
        assert index.verify().ok
        assert len(index.patch_map()) == 36
    made = derived.newest(IndexDirectory(copied), "linear", derived.MAP)
    assert made is not None
    assert (made / "map.parquet").read_bytes() == before
    assert "map of 36 patches" in str(derived.read(made, derived.MAP, MapRecord))


def test_the_service_gives_maps(made: Path) -> None:
    with running([made]) as service, Index.open(made) as index:
        assert service.json("/models")["models"][0]["maps"] == ["patches", "words"]
        for asked, found in (
            ({}, index.patch_map()),
            ({"class": "dog"}, index.patch_map("dog")),
            ({"words": True}, index.patch_map(words=True)),
        ):
            assert service.json("/map", **asked) == found.to_dict()
            assert service.arrow("/map", **asked).equals(found.to_arrow())
        assert service.get("/map.png").content.startswith(b"\x89PNG")


def test_the_service_says_that_there_is_none(tmp_path: Path) -> None:
    worded_index(tmp_path / "i", groups(1), ["cat"]).close()
    with running([tmp_path / "i"]) as service:
        assert service.json("/models")["models"][0]["maps"] == []
        assert "bagindex map" in service.problem("/map", 409, "not-kept")["detail"]
