"""The page in a browser: searching for a class, and a class's patches."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from bagindex import Index
from browsing_page import Watch, patches, percent, pictured, query_of, settled, shown, tiles, visit
from serving import Running

RIGHT, WRONG, ALL = "In images of {}", "In images of other classes", "In all images"
MODEL = ", bagnet33"
SIZE = 24
"""Patches that the page asks for at a time."""


def test_the_first_page_shows_all_classes_and_their_strongest_patches(page: Page, asked: Index) -> None:
    visit(page, "/")
    expect(page.get_by_role("heading", level=1)).to_have_text("What does the model look at?")
    names = [each.name for each in asked.classes]
    cards = page.locator("li.card")
    expect(cards).to_have_count(len(names))
    assert cards.locator("h3").all_inner_texts() == names
    for card, row in zip(cards.all(), asked.browse_classes().rows, strict=True):
        expect(card).to_contain_text(f"{row['images']} images, {percent(row['correct'] / row['images'])} right")
    settled(page)
    for name in names[:4]:
        ids = [patch.patch_id for patch in asked.top_patches(name, k=6)]
        assert patches(page, f"Strongest patches for {name}") == pictured(page, f"Strongest patches for {name}") == ids
    right, labelled = asked.right_images()
    expect(page.locator(".hero")).to_contain_text(
        f"{labelled} images, 6 classes; {percent(right / labelled)} of them are classified right"
    )


@pytest.mark.parametrize("order", ["name", "accuracy", "-accuracy", "-images"])
def test_classes_are_ordered_as_one_likes(page: Page, asked: Index, order: str) -> None:
    visit(page, "/")
    page.get_by_label("Order").select_option(order)
    expected = asked.browse_classes(order=order.removeprefix("-"), descending=order.startswith("-")).rows
    expect(page.locator("li.card h3")).to_have_text([row["name"] for row in expected])
    assert query_of(page) == {"order": [order]}


def test_search_suggests_classes_and_opens_the_one_that_is_chosen(page: Page, asked: Index) -> None:
    visit(page, "/")
    field = page.get_by_role("main").get_by_role("combobox", name="Search for a class")
    field.click()
    options = page.locator(".hero").get_by_role("option")
    expect(options).to_have_count(6)
    field.press_sequentially("s")
    names = [row["name"] for row in asked.browse_classes("s").rows]
    expect(options.locator("span:first-child")).to_have_text(names)
    assert names[0] == "seam"  # what begins with it comes first
    field.press("ArrowDown")
    expect(options.nth(1)).to_have_attribute("aria-selected", "true")
    expect(field).to_have_attribute("aria-activedescendant", options.nth(1).get_attribute("id") or "")
    field.press("ArrowUp")
    field.press("ArrowUp")  # from the first to the last
    expect(options.last).to_have_attribute("aria-selected", "true")
    field.press("Escape")
    expect(options).to_have_count(0)
    expect(field).to_have_value("")
    field.fill("fis")
    expect(options).to_have_count(1)
    options.first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("fish")
    assert query_of(page) == {"class": ["fish"]}


def test_what_is_typed_decides_even_before_it_is_suggested(page: Page) -> None:
    visit(page, "/")
    page.get_by_role("main").get_by_role("combobox", name="Search for a class").focus()
    page.keyboard.insert_text("tree")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("tree")
    field = page.get_by_role("banner").get_by_role("combobox", name="Search for a class")
    field.fill("no such class")
    expect(page.get_by_role("banner").get_by_text("No class has that in its name.").first).to_be_attached()
    field.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("tree")


def test_both_subrows_are_those_of_figure_3(page: Page, asked: Index) -> None:
    for name in ("fish", "tree"):
        visit(page, "/class", class_=name)
        expect(page).to_have_title(f"{name} · {asked.path.name} · bagindex")
        for side, wrong in ((RIGHT.format(name) + MODEL, False), (WRONG + MODEL, True)):
            found = asked.top_patches(name, right_class=not wrong, wrong_class=wrong, k=SIZE)
            ids = [patch.patch_id for patch in found]
            assert patches(page, side)[:SIZE] == pictured(page, side)[:SIZE] == ids
            logits = tiles(page, side).locator(".number").all_inner_texts()[:SIZE]
            assert logits == [shown(patch.logit) for patch in found]
            labels = tiles(page, side).all_inner_texts()[:SIZE]
            for text, patch in zip(labels, found, strict=True):
                lines = text.split("\n")
                assert patch.label_name in lines
                assert (f"→ {patch.predicted_name}" in lines) is (patch.predicted_name != patch.label_name)


def test_the_head_of_a_class_says_how_often_the_model_is_right(page: Page, asked: Index) -> None:
    matrix = asked.confusion_matrix("fish")
    place = [each.class_.name for each in matrix.classes].index("fish")
    visit(page, "/class", class_="fish")
    (row,) = [each for each in asked.browse_classes("fish").rows if each["name"] == "fish"]
    share = percent(row["correct"] / row["images"])
    text = f"{row['images']} images; the model recognises {row['correct']} ({share})."
    head = page.locator(".class-head")
    expect(head).to_contain_text(text)
    taken = {each.class_.name: matrix.counts[place][at] for at, each in enumerate(matrix.classes) if at != place}
    most = sorted((count for count in taken.values() if count), reverse=True)[:5]
    found = head.locator("p", has_text="fish taken for").locator("a")
    assert [int(text.split()[-1]) for text in found.all_inner_texts()] == most
    for text in found.all_inner_texts():
        name, images = text.rsplit(maxsplit=1)
        assert taken[name] == int(images)


FILTERS = [
    ({"misclassified": "true"}, {"misclassified": True}),
    ({"predicted_as": "tree"}, {"predicted_as": "tree"}),
    ({"label": "roof"}, {"label": "roof"}),
    ({"per_image": "3"}, {"per_image": 3}),
    ({"per_image": "3", "overlap": "true"}, {"per_image": 3, "overlap": True}),
    ({"where": "probability < 0.9 AND width > 300"}, {"where": "probability < 0.9 AND width > 300"}),
]


@pytest.mark.parametrize(("values", "same"), FILTERS)
def test_filters_in_an_address(page: Page, asked: Index, values: dict[str, str], same: dict[str, object]) -> None:
    visit(page, "/class", class_="fish", images="any", **values)
    found = asked.top_patches("fish", any_class=True, k=SIZE, **same)  # type: ignore[arg-type]
    assert patches(page, ALL + MODEL)[:SIZE] == [patch.patch_id for patch in found]


def test_filters_by_hand(page: Page, asked: Index) -> None:
    visit(page, "/class", class_="fish")
    sides = {"Of the class": [RIGHT.format("fish")], "Of others": [WRONG], "All": [ALL]}
    for label, lists in sides.items():
        page.get_by_role("radio", name=label, exact=True).check(force=True)
        expect(page.locator(".side-of h2")).to_have_text(lists)
    page.get_by_label("only misclassified").check()
    page.get_by_text("More", exact=True).click()
    page.get_by_label("Patches of one image, at most").select_option("2")
    page.get_by_label("SQL condition on the images").fill("width >= 300")
    page.get_by_role("button", name="Apply").click()
    predicted = page.get_by_role("combobox", name="Predicted as")
    predicted.fill("fish")
    page.get_by_role("listbox", name="Predicted as").get_by_role("option").first.click()
    settled(page)
    assert query_of(page) == {
        "class": ["fish"],
        "images": ["any"],
        "misclassified": ["true"],
        "per_image": ["2"],
        "where": ["width >= 300"],
        "predicted_as": ["fish"],
    }
    found = asked.top_patches(
        "fish", any_class=True, misclassified=True, per_image=2, where="width >= 300", predicted_as="fish", k=SIZE
    )
    assert patches(page, ALL + MODEL) == [patch.patch_id for patch in found]
    predicted.fill("")
    predicted.press("Enter")
    page.get_by_label("only misclassified").uncheck()
    settled(page)
    assert set(query_of(page)) == {"class", "images", "per_image", "where"}
    found = asked.top_patches("fish", any_class=True, per_image=2, where="width >= 300", k=SIZE)
    assert patches(page, ALL + MODEL)[:SIZE] == [patch.patch_id for patch in found]


def test_a_filter_that_nothing_fits_says_so(page: Page, watch: Watch) -> None:
    visit(page, "/class", class_="fish", where="width < 0")
    expect(page.locator(".side-of").get_by_text("No image fits.")).to_have_count(2)
    watch.expects(422)
    visit(page, "/class", class_="fish", where="no_such_column > 1")
    expect(page.get_by_role("alert").first).to_contain_text("no_such_column")


def test_a_class_that_there_is_not_says_so(page: Page, watch: Watch) -> None:
    watch.expects(404)
    visit(page, "/class", class_="no such class")
    expect(page.get_by_role("alert").first).to_contain_text("no such class")


def test_the_lists_go_on_as_one_scrolls(page: Page, asked: Index) -> None:
    visit(page, "/class", class_="fish", images="wrong_class")
    ids = [patch.patch_id for patch in asked.top_patches("fish", wrong_class=True, k=1000)]
    assert SIZE <= len(patches(page, WRONG + MODEL)) < len(ids)
    while (before := tiles(page, WRONG + MODEL).count()) < len(ids):
        page.evaluate("scrollTo(0, document.scrollingElement.scrollHeight)")
        expect(tiles(page, WRONG + MODEL).nth(before)).to_be_attached()
    assert patches(page, WRONG + MODEL) == ids
    expect(page.get_by_text("That is all.")).to_be_visible()


def test_figures_and_the_report_of_a_class_can_be_had(page: Page, site: Running) -> None:
    visit(page, "/class", class_="fish")
    for kind, begins in (("PNG", b"\x89PNG"), ("SVG", b"<?xml"), ("PDF", b"%PDF")):
        with page.expect_download() as coming:
            page.get_by_role("link", name=kind, exact=True).click()
        assert coming.value.suggested_filename == f"fish-index.{kind.lower()}"
        assert coming.value.path().read_bytes()[: len(begins)] == begins
    with page.expect_popup() as opened:
        page.get_by_role("link", name="report").click()
    expect(opened.value).to_have_url(f"{site.address}/api/v1/report.html?index=index&class=fish")
    expect(opened.value.get_by_role("heading").first).to_contain_text("fish")


def test_capitals_and_numbers_mean_the_class_too(page: Page) -> None:
    for name in ("FISH", "1"):
        visit(page, "/class", class_=name)
        expect(page.get_by_role("heading", level=1)).to_have_text("fish")
        expect(page.get_by_role("main")).to_contain_text("the model recognises")
