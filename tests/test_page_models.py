"""The page in a browser: two models side by side."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from bagindex import Index
from browsing_page import (
    BrowserThread,
    OpenPage,
    check_heatmap,
    panel,
    patches,
    percent,
    query_of,
    settled,
    shown,
    tiles,
    visit,
)
from serving import Running, running

MODELS = ("bagnet33", "bagnet9")


@pytest.fixture(scope="module")
def served(two_models: Path) -> Iterator[Running]:
    """An index of two models."""
    with running([two_models]) as service:
        yield service


@pytest.fixture(scope="module")
def index(two_models: Path) -> Iterator[Index]:
    """It, opened beside."""
    with Index.open(two_models) as found:
        yield found


@pytest.fixture
def compared(browser: BrowserThread, open_page: OpenPage, served: Running) -> Page:
    """An empty page of it."""
    return browser.run(lambda: open_page(served, viewport={"width": 1360, "height": 900}))


def test_the_model_is_chosen_for_all_pages(compared: Page, index: Index) -> None:
    page = visit(compared, "/class", class_="fish", images="any")
    for model in (MODELS[0], MODELS[1], MODELS[0]):
        page.get_by_label("Model").select_option(model)
        expect(tiles(page, f"In all images, {model}")).not_to_have_count(0)
        settled(page)
        assert query_of(page)["model"] == [model]
        expected = [patch.patch_id for patch in index.top_patches("fish", any_class=True, k=24, model=model)]
        assert patches(page, f"In all images, {model}")[:24] == expected
    page.get_by_label("Model").select_option(MODELS[1])
    page.get_by_role("link", name="Confusions").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What is taken for what")
    settled(page)
    matrix = index.confusion_matrix(k=20, model=MODELS[1])
    counts = [int(text) if text != "·" else 0 for text in page.locator(".matrix td").all_inner_texts()]
    assert counts == [count for row in matrix.counts for count in row]


def test_both_models_subrows_stand_beside_each_other(compared: Page, index: Index) -> None:
    page = visit(compared, "/class", class_="tree")
    page.get_by_label("beside bagnet9").check()
    expect(page.locator(".side-of")).to_have_count(4)
    settled(page)
    assert query_of(page) == {"class": ["tree"], "with": ["bagnet9"]}
    for model in MODELS:
        for side, wrong in ((f"In images of tree, {model}", False), (f"In images of other classes, {model}", True)):
            found = index.top_patches("tree", right_class=not wrong, wrong_class=wrong, k=24, model=model)
            assert patches(page, side)[:24] == [patch.patch_id for patch in found]
            sources = tiles(page, side).locator("img").evaluate_all("images => images.map((each) => each.src)")
            assert all(f"model={model}" in each for each in sources)
    # A patch of the other model opens with that model.
    tiles(page, "In images of tree, bagnet9").nth(1).click()
    settled(page)
    patch = index.top_patches("tree", k=2, model="bagnet9")[1]
    assert query_of(page)["patch"] == [str(patch.patch_id)]
    assert query_of(page)["model"] == ["bagnet9"]
    frame = panel(page).locator("rect.box").first
    x0, y0, x1, _ = index.place_of(patch.patch_id, model="bagnet9")[1]
    expect(frame).to_have_attribute("x", str(x0))
    expect(frame).to_have_attribute("y", str(y0))
    expect(frame).to_have_attribute("width", str(x1 - x0))


def test_an_image_is_seen_through_both_models_eyes(compared: Page, index: Index) -> None:
    patch = index.top_patches("fish", model="bagnet33")[0]
    page = visit(compared, "/class", class_="fish", patch=patch.patch_id)
    figures = panel(page).get_by_role("figure")
    expect(figures).to_have_count(2)
    figures.first.scroll_into_view_if_needed()
    settled(page)
    for figure, model in zip(figures.all(), MODELS, strict=True):
        check_heatmap(figure.locator("canvas"), index, patch.image_id, "fish", model)
        about = index.image(patch.image_id, model=model)
        expect(figure).to_contain_text(f"{about['predicted_name']} {percent(about['probability'])}")
        logit = float(index.heatmap(patch.image_id, classes=["fish"], model=model).logits[0])
        expect(figure).to_contain_text(f"fish: {shown(logit)}")
    # A patch's number means another patch to another model: its image stays open.
    figures.nth(1).get_by_role("link", name="bagnet9").click()
    settled(page)
    assert query_of(page) == {"class": ["fish"], "image": [str(patch.image_id)], "model": ["bagnet9"]}
    visit(page, "/class", class_="fish", patch=patch.patch_id)
    page.get_by_label("Model").select_option("bagnet9")
    settled(page)
    assert query_of(page) == {"class": ["fish"], "image": [str(patch.image_id)], "model": ["bagnet9"]}


def test_a_model_or_an_index_that_there_is_not_says_so(compared: Page) -> None:
    page = visit(compared, "/", model="no-such-model")
    expect(page.get_by_role("alert")).to_contain_text("no-such-model")
    page.get_by_role("link", name="Start anew").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("What does the model look at?")
    visit(page, "/", index="no-such-index")
    expect(page.get_by_role("alert")).to_contain_text("no-such-index")


def test_several_indexes_can_be_chosen_from(
    open_page: OpenPage, planted_index: Index, two_models: Path, unlabelled: Path
) -> None:
    with running([planted_index, two_models, unlabelled]) as service:
        page = visit(open_page(service), "/class", index="two", model="bagnet9", class_="fish")
        choice = page.get_by_role("combobox", name="Index")
        expect(choice).to_have_value("two")
        choice.select_option("i")
        expect(page.get_by_text("i: 3 images, 3 classes; without labels.")).to_be_visible()
        settled(page)
        assert query_of(page) == {"index": ["i"]}
        page.get_by_role("link", name="cat", exact=True).click()
        expect(page.get_by_role("heading", level=1)).to_have_text("cat")
        assert query_of(page) == {"index": ["i"], "class": ["cat"]}
