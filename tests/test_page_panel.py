"""The page in a browser: the panel of a patch and its image."""

from __future__ import annotations

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from bagindex import Index
from browsing_page import (
    OpenPage,
    Watch,
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
from serving import Running

RIGHT = "In images of fish, bagnet33"


def check_box(page: Page, box: tuple[int, int, int, int], side: int = 160) -> None:
    """The frame in the panel's picture stands at a box of the model's input, which is `side` pixels wide."""
    frame = panel(page).locator("svg rect.box").first
    found = [float(frame.get_attribute(name) or "nan") for name in ("x", "y", "width", "height")]
    x0, y0, x1, y1 = box
    assert found == [x0, y0, x1 - x0, y1 - y0]
    # And on the screen, too: the drawing lies over the picture as it is.
    on_screen, picture = frame.bounding_box(), panel(page).locator(".picture img").first.bounding_box()
    assert on_screen is not None
    assert picture is not None
    scale = picture["width"] / side
    middle = [on_screen["x"] + on_screen["width"] / 2 - picture["x"], on_screen["y"] + on_screen["height"] / 2]
    np.testing.assert_allclose(middle[0] / scale, (x0 + x1) / 2, atol=0.6)
    np.testing.assert_allclose((middle[1] - picture["y"]) / scale, (y0 + y1) / 2, atol=0.6)


def test_a_patch_opens_its_image_with_a_box_and_its_evidence(page: Page, asked: Index) -> None:
    visit(page, "/class", class_="fish")
    patch = asked.top_patches("fish", k=3)[2]
    tiles(page, RIGHT).nth(2).click()
    settled(page)
    assert query_of(page) == {"class": ["fish"], "patch": [str(patch.patch_id)]}
    expect(tiles(page, RIGHT).nth(2)).to_have_attribute("aria-current", "true")
    image, box = asked.place_of(patch.patch_id)
    about = asked.image(image)
    source = panel(page).locator(".picture img").first.get_attribute("src") or ""
    assert source.startswith(f"/api/v1/images/{image}.png")
    expect(panel(page).get_by_role("heading", level=2)).to_have_text(about["path"].rsplit("/", 1)[-1])
    expect(panel(page).locator(".verdict")).to_contain_text(f"label {about['label_name']}")
    expect(panel(page).locator(".verdict")).to_contain_text(
        f"predicted {about['predicted_name']} {percent(about['probability'])}"
    )
    check_box(page, box)
    check_heatmap(panel(page).locator(".picture canvas").first, asked, image, "fish")
    limit = float(asked.heatmap(image, classes=["fish"]).limits[0])
    expect(panel(page).locator(".scale").first).to_have_text(f"≤ −{limit:.1f} ≥ +{limit:.1f}")


def test_what_the_patch_says_is_what_the_index_answers(page: Page, asked: Index) -> None:
    for patch in (asked.top_patches("fish")[0], asked.top_patches("tree", wrong_class=True)[5]):
        visit(page, "/class", class_="fish", patch=patch.patch_id)
        about = asked.patch(patch.patch_id, "fish")
        rows = panel(page).get_by_role("table", name="Its largest logits").get_by_role("row")
        expect(rows).to_have_count(len(about["logits"]))
        names = rows.get_by_role("rowheader").all_inner_texts()
        assert names == [each["class"] for each in about["logits"]]
        assert rows.locator("td.number").all_inner_texts() == [shown(each["logit"]) for each in about["logits"]]
        x0, y0, x1, y1 = about["box"]
        said = panel(page).get_by_text(f"row {about['row']}, column {about['col']}")
        expect(said).to_contain_text(f"it sees pixels {x0}–{x1 - 1} across and {y0}–{y1 - 1} down")
        expect(said).to_contain_text(f"word {about['word']}")
        # Its word shows the same patch still.
        said.get_by_role("link", name=f"word {about['word']}").click()
        expect(page.get_by_role("heading", level=1)).to_have_text(f"Word {about['word']}")
        assert query_of(page) == {"word": [str(about["word"])], "patch": [str(patch.patch_id)]}


def test_its_neighbours(page: Page, asked: Index) -> None:
    patch = asked.top_patches("fish")[0].patch_id
    visit(page, "/class", class_="fish", patch=patch)
    section = panel(page).locator("section", has_text="What else looks like this to the model?")
    section.scroll_into_view_if_needed()
    found = asked.similar(patch, k=12, other_images=True)
    expect(tiles(page, "Similar patches")).to_have_count(12)
    assert patches(page, "Similar patches") == [each.patch_id for each in found]
    cosines = tiles(page, "Similar patches").locator(".number").all_inner_texts()
    np.testing.assert_allclose([float(each) for each in cosines], [each.cosine for each in found], atol=0.00051)
    section.get_by_role("button", name="More").click()
    expect(tiles(page, "Similar patches")).to_have_count(24)
    section.get_by_label("in other images only").uncheck()
    settled(page)
    found = asked.similar(patch, k=24)
    assert patches(page, "Similar patches") == [each.patch_id for each in found]
    tiles(page, "Similar patches").first.click()
    settled(page)
    assert query_of(page)["patch"] == [str(found[0].patch_id)]


def test_why_it_is_predicted(page: Page, asked: Index) -> None:
    wrong = asked.browse_images(correct=False).rows[0]
    image, label, predicted = wrong["image_id"], wrong["label_name"], wrong["predicted_name"]
    visit(page, "/confusions", image=image)
    panel(page).get_by_role("heading", name=f"Why {predicted} and not {label}?").scroll_into_view_if_needed()
    settled(page)
    why = asked.why(image, vs=f"{predicted},{label}", k=4)
    said = why.to_dict()
    expect(panel(page).get_by_text(said["said"])).to_be_visible()
    for side, name in (("for", predicted), ("against", label)):
        parts = [each for each in said["parts"] if each["side"] == side and each["what"] == "patch"]
        assert patches(page, f"Patches for {name}") == [each["patch_id"] for each in parts]
        numbers = tiles(page, f"Patches for {name}").locator(".number").all_inner_texts()
        assert numbers == [shown(each["contribution"], 3, sign=True) for each in parts]
    expect(panel(page).get_by_text(asked.flip(image).to_dict()["said"])).to_be_visible()


def test_another_class_can_be_shown(page: Page, asked: Index) -> None:
    patch = asked.top_patches("fish")[0].patch_id
    image, _ = asked.place_of(patch)
    visit(page, "/class", class_="fish", patch=patch)
    chips = panel(page).get_by_role("group", name="Show evidence for")
    expect(chips.locator("[aria-current=true]")).to_contain_text("fish")
    for each in asked.image(image)["top"]:
        chip = chips.locator("a.chip", has_text=each["class"])
        expect(chip).to_contain_text(percent(each["probability"]))
        expect(chip).to_have_attribute("title", f"logit {shown(each['logit'])}")
    other = asked.image(image)["top"][1]["class"]
    chips.locator("a.chip", has_text=other).click()
    settled(page)
    assert query_of(page)["show"] == [other]
    check_heatmap(panel(page).locator(".picture canvas").first, asked, image, other)
    field = chips.get_by_role("combobox", name="Another class")
    field.fill("roo")
    field.press("Enter")
    expect(chips.locator("[aria-current=true]")).to_contain_text("roof")
    settled(page)
    check_heatmap(panel(page).locator(".picture canvas").first, asked, image, "roof")


def test_the_evidence_can_be_hidden(page: Page, asked: Index) -> None:
    visit(page, "/class", class_="fish", patch=asked.top_patches("fish")[0].patch_id)
    canvas, switch = panel(page).locator(".picture canvas"), panel(page).get_by_role("checkbox", name="evidence for")
    expect(canvas).to_have_count(1)
    switch.uncheck()
    expect(canvas).to_have_count(0)
    page.keyboard.press("h")
    expect(canvas).to_have_count(1)
    expect(switch).to_be_checked()
    page.keyboard.press("h")
    expect(canvas).to_have_count(0)


def test_a_click_on_the_picture_opens_the_patch_there(page: Page, asked: Index) -> None:
    visit(page, "/class", class_="fish", image=7)
    expect(panel(page).get_by_text("Click on the picture to open the patch there.")).to_be_visible()
    grid = asked.model_records()[0].grid
    picture = panel(page).locator(".picture.live")
    box = picture.bounding_box()
    assert box is not None
    scale = box["width"] / 160
    for row, col in ((0, 0), (3, 9), (grid.rows - 1, grid.cols - 1)):
        middle = [(each * grid.stride + grid.receptive_field / 2) * scale for each in (col, row)]
        picture.click(position={"x": middle[0], "y": middle[1]})
        patch = 7 * grid.patches + row * grid.cols + col
        expect(panel(page).get_by_text(f"row {row}, column {col};")).to_be_visible()
        assert query_of(page)["patch"] == [str(patch)]
        check_box(page, asked.place_of(patch)[1])
    picture.click(position={"x": 1, "y": box["height"] - 2})  # the corner that no patch is the middle of
    expect(panel(page).get_by_text(f"row {grid.rows - 1}, column 0;")).to_be_visible()


def test_next_and_previous_go_along_the_list(page: Page, asked: Index) -> None:
    ids = [str(patch.patch_id) for patch in asked.top_patches("fish", k=4)]
    visit(page, "/class", class_="fish")
    tiles(page, RIGHT).nth(1).click()
    expect(panel(page)).to_be_visible()
    for step, place in (("n", 2), ("n", 3), ("p", 2), ("Next patch", 3), ("Previous patch", 2), ("p", 1), ("p", 0)):
        if len(step) == 1:
            page.keyboard.press(step)
        else:
            panel(page).get_by_role("button", name=step).click()
        expect(tiles(page, RIGHT).nth(place)).to_have_attribute("aria-current", "true")
        assert query_of(page)["patch"] == [ids[place]]
    page.keyboard.press("p")  # there is none before the first
    assert query_of(page)["patch"] == [ids[0]]


def test_next_and_previous_after_a_link(page: Page, asked: Index) -> None:
    ids = [patch.patch_id for patch in asked.top_patches("fish", wrong_class=True, k=3)]
    visit(page, "/class", class_="fish", patch=ids[1])
    page.keyboard.press("n")
    expect(tiles(page, "In images of other classes, bagnet33").nth(2)).to_have_attribute("aria-current", "true")
    visit(page, "/sql", q=f"SELECT unnest([{ids[0]}, {ids[1]}]) AS patch_id")
    rows = page.locator("table.rows a.tile")
    rows.nth(0).click()
    page.keyboard.press("n")
    expect(rows.nth(1)).to_have_attribute("aria-current", "true")


def test_arrow_keys_move_the_box(page: Page, asked: Index) -> None:
    patch = asked.top_patches("fish")[0]
    grid = asked.model_records()[0].grid
    visit(page, "/class", class_="fish", patch=patch.patch_id)
    panel(page).get_by_role("group", name="arrow keys").focus()
    down, right = (1 if patch.row < grid.rows - 1 else -1), (1 if patch.col < grid.cols - 1 else -1)
    page.keyboard.press("ArrowDown" if down > 0 else "ArrowUp")
    expect(panel(page)).to_contain_text(f"row {patch.row + down}, column {patch.col}")
    page.keyboard.press("ArrowRight" if right > 0 else "ArrowLeft")
    expect(panel(page)).to_contain_text(f"row {patch.row + down}, column {patch.col + right}")
    assert query_of(page)["patch"] == [str(patch.patch_id + down * grid.cols + right)]


def test_what_a_removal_takes_is_shown(page: Page, asked: Index) -> None:
    patch = asked.top_patches("fish")[0]
    flip = asked.flip(patch.image_id)
    visit(page, "/class", class_="fish", patch=patch.patch_id)
    panel(page).evaluate("(each) => each.scrollTo(0, each.scrollHeight)")
    panel(page).get_by_role("button", name="Show them in the picture").click()
    marks = panel(page).locator(".picture.live rect.mark")
    expect(marks).to_have_count(len(flip.patches))
    drawn = [
        [float(mark.get_attribute(name) or "nan") for name in ("x", "y", "width", "height")] for mark in marks.all()
    ]
    assert drawn == [[x0, y0, x1 - x0, y1 - y0] for x0, y0, x1, y1 in (each.box for each in flip.patches)]
    panel(page).get_by_role("button", name="Do not show them").click()
    expect(marks).to_have_count(0)


def test_closing_goes_back_to_the_patch(page: Page) -> None:
    visit(page, "/class", class_="fish")
    for close in (lambda: page.keyboard.press("Escape"), panel(page).get_by_role("button", name="Close").click):
        tiles(page, RIGHT).nth(2).click()
        expect(panel(page)).to_be_visible()
        close()
        expect(panel(page)).to_have_count(0)
        expect(tiles(page, RIGHT).nth(2)).to_be_focused()
        assert query_of(page) == {"class": ["fish"]}


@pytest.mark.parametrize("allowed", [True, False])
def test_the_link_is_copied_or_shown(open_page: OpenPage, site: Running, asked: Index, allowed: bool) -> None:
    page = open_page(site, permissions=["clipboard-read", "clipboard-write"])
    if not allowed:
        page.add_init_script("navigator.clipboard.writeText = () => Promise.reject(new Error('refused'));")
    visit(page, "/class", class_="fish", patch=asked.top_patches("fish")[0].patch_id)
    panel(page).get_by_role("button", name="Copy link").click()
    if allowed:
        expect(panel(page).get_by_role("button", name="Copied")).to_be_visible()
        assert page.evaluate("navigator.clipboard.readText()") == page.url
        page.evaluate("navigator.clipboard.writeText('')")
        page.keyboard.press("c")
        page.wait_for_function("async () => (await navigator.clipboard.readText()) === location.href")
    else:
        shown_link = page.get_by_role("dialog", name="Link to this view")
        expect(shown_link.get_by_label("Link to this view")).to_have_value(page.url)
        shown_link.get_by_role("button", name="Close").click()
        expect(shown_link).to_have_count(0)


def test_a_patch_or_image_that_there_is_not_says_so(page: Page, watch: Watch) -> None:
    watch.expects(404)
    for values in ({"patch": 99999999}, {"image": 99999999}):
        visit(page, "/class", class_="fish", **values)
        expect(panel(page).get_by_role("alert")).to_contain_text("9999")
        page.keyboard.press("Escape")
        expect(panel(page)).to_have_count(0)
    visit(page, "/class", class_="fish", patch="-1", image="x")  # no numbers: nothing is opened
    expect(panel(page)).to_have_count(0)


def test_on_a_narrow_screen_the_panel_is_all_there_is(open_page: OpenPage, site: Running) -> None:
    page = open_page(site, viewport={"width": 390, "height": 800})
    visit(page, "/class", class_="fish", image=3)
    box = panel(page).bounding_box()
    assert box is not None
    assert (box["x"], box["y"]) == (0, 0)
    assert box["width"] >= 370  # beside it is room for a scrollbar
    assert page.evaluate("document.getElementById('main').inert")
    page.keyboard.press("Escape")
    assert page.evaluate("document.getElementById('main').inert") is False
