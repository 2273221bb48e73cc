"""The page in a browser: what is shown is in the address, and can be gone back to."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from playwright.sync_api import Page, expect

from browsing_page import OpenPage, check_view, panel, settled, texts, tiles, view, visit
from serving import Running

RIGHT = "In images of fish, bagnet33"


def _tick(page: Page) -> None:
    page.get_by_role("radio", name="Of others").check(force=True)
    page.get_by_label("only misclassified").check()


def _open_patch(page: Page) -> None:
    tiles(page, RIGHT).nth(3).click()


def _open_and_switch(page: Page) -> None:
    tiles(page, RIGHT).nth(3).click()
    panel(page).get_by_role("group", name="Show evidence for").locator("a.chip").nth(1).click()


def _open_cell(page: Page) -> None:
    page.locator(".matrix td.other a").first.click()
    expect(page.get_by_role("article").first).to_be_visible()
    page.get_by_role("article").first.get_by_role("link", name="Open").click()


def _open_word(page: Page) -> None:
    page.locator("li.card h2 a").nth(2).click()
    tiles(page, "Most typical patches").nth(1).click()


def _ask(page: Page) -> None:
    page.get_by_role("textbox", name="Query").fill("SELECT image_id, path FROM images\nORDER BY 1 LIMIT 4 -- 100 %&#")
    page.keyboard.press("Control+Enter")
    page.get_by_role("table").get_by_role("link").first.click()


STATES: dict[str, tuple[str, Callable[[Page], None]]] = {
    "order": ("/", lambda page: page.get_by_label("Order").select_option("name") and None),
    "filters": ("/class?class=fish", _tick),
    "patch": ("/class?class=fish", _open_patch),
    "another class": ("/class?class=fish", _open_and_switch),
    "confused": ("/confusions", _open_cell),
    "word": ("/words?class=fish", _open_word),
    "by": ("/words?class=fish", lambda page: page.get_by_role("radio", name="possible").check(force=True)),
    "query": ("/sql", _ask),
}


@pytest.mark.parametrize("state", STATES)
def test_the_address_shows_another_the_same(open_page: OpenPage, site: Running, state: str) -> None:
    """What is on the screen after one has clicked one's way there, and what who gets the link sees."""
    begin, act = STATES[state]
    page, other = open_page(site), open_page(site)
    visit(page, begin)
    act(page)
    settled(page)
    page.evaluate("document.activeElement.blur()")
    other.goto(page.url)
    settled(other)
    assert page.url != site.address + begin
    check_view(other, view(page))
    assert other.title() == page.title()


def glance(page: Page) -> tuple[str, str, list[str], list[str], list[str]]:
    """What tells one view from another."""
    settled(page)
    heading = page.get_by_role("heading", level=1).inner_text()
    hrefs = page.locator("main a.tile").evaluate_all("links => links.slice(0, 12).map((each) => each.dataset.patch)")
    boxes = panel(page).locator("rect.box").evaluate_all("all => all.slice(0, 1).map((each) => each.outerHTML)")
    return page.url, heading, texts(panel(page).locator("h2, .verdict, h3")), hrefs, boxes


def test_back_and_forward(page: Page) -> None:
    visit(page, "/")
    seen = [glance(page)]
    for act in (
        page.locator("li.card h3 a").nth(1).click,
        tiles(page, RIGHT).nth(0).click,
        panel(page).get_by_role("button", name="Next patch").click,
        panel(page).get_by_role("link", name="word").first.click,
        lambda: page.keyboard.press("Escape"),
        page.get_by_role("link", name="Confusions").first.click,
    ):
        act()
        seen.append(glance(page))
    assert len({each[0] for each in seen}) == len(seen)
    for expected in reversed(seen[:-1]):
        page.go_back()
        assert glance(page) == expected
    for expected in seen[1:]:
        page.go_forward()
        assert glance(page) == expected
    page.reload()
    assert glance(page) == seen[-1]


def test_one_comes_back_to_the_same_place(page: Page) -> None:
    visit(page, "/class", class_="fish", images="wrong_class")
    label = "In images of other classes, bagnet33"
    while tiles(page, label).count() < 100:
        before = tiles(page, label).count()
        page.evaluate("scrollTo(0, document.scrollingElement.scrollHeight)")
        expect(tiles(page, label).nth(before)).to_be_attached()
    settled(page)
    page.evaluate("scrollTo(0, 777)")
    page.wait_for_function("() => Math.abs(scrollY - 777) < 2")
    # By the mouse's own event: Playwright's click would scroll what stays on top "into view".
    box = page.get_by_role("navigation", name="Pages").get_by_role("link", name="SQL").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + 5, box["y"] + 5)
    expect(page.get_by_role("heading", level=1)).to_have_text("SQL")
    assert page.evaluate("scrollY") == 0
    page.go_back()
    expect(tiles(page, label).nth(99)).to_be_attached()
    page.wait_for_function("() => Math.abs(scrollY - 777) < 2")


def test_links_open_in_a_window_of_their_own_if_one_wants(page: Page) -> None:
    visit(page, "/")
    with page.context.expect_page() as opened:
        page.locator("li.card h3 a").nth(1).click(modifiers=["ControlOrMeta"])
    expect(opened.value.get_by_role("heading", level=1)).to_have_text("fish")
    expect(page.get_by_role("heading", level=1)).to_have_text("What does the model look at?")


def test_the_title_says_where_one_is(page: Page) -> None:
    for place, title in (
        ("/", "index · bagindex"),
        ("/class?class=fish", "fish · index · bagindex"),
        ("/confusions", "Confusions · index · bagindex"),
        ("/confusions?class=fish", "Confusions of fish · index · bagindex"),
        ("/confusions?label=fish&predicted=text", "fish taken for text · index · bagindex"),
        ("/words", "Words · index · bagindex"),
        ("/words?class=fish", "Words of fish · index · bagindex"),
        ("/words?word=3", "Word 3 · index · bagindex"),
        ("/sql", "SQL · index · bagindex"),
        ("/picture", "Your picture · index · bagindex"),
    ):
        page.goto(place)
        expect(page).to_have_title(title)
    settled(page)
