"""The page in a browser: with the keyboard alone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from bagindex import Index
from browsing_page import OpenPage, panel, patches, query_of, settled, tiles, visit
from serving import Running

RIGHT = "In images of fish, bagnet33"
# What has the focus is marked by a line around it, or around what stands for it, and is on the screen.
_MARKED = """() => {
  const focused = document.activeElement;
  const lined = (each) => {
    const style = each && getComputedStyle(each);
    return style && style.opacity !== "0" && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 1;
  };
  const standing = [focused, focused.nextElementSibling, focused.closest("label")].find(lined);
  const box = standing?.getBoundingClientRect();
  const name = `${focused.localName} ${focused.className} ${focused.getAttribute("aria-label") ?? focused.textContent}`;
  if (focused === document.body) return null;
  if (!standing) return `no mark: ${name}`;
  if (box.bottom <= 0 || box.top >= innerHeight || !box.width || !box.height) return `out of sight: ${name}`;
  const within = (value, end) => Math.max(1, Math.min(end - 1, value));
  const there = document.elementFromPoint(
    within(box.left + box.width / 2, innerWidth), within(box.top + box.height / 2, innerHeight));
  if (there && !standing.contains(there) && !there.contains(standing)) return `covered: ${name}`;
  return "";
}"""
_FOCUSED = "document.activeElement"


def press(page: Page, key: str) -> None:
    """Press a key; the focus must then be seen."""
    page.keyboard.press(key)
    assert page.evaluate(_MARKED) == ""


def tab_to(page: Page, selector: str, most: int = 60) -> None:
    """Go to an element with Tab."""
    for _ in range(most):
        press(page, "Tab")
        if page.evaluate(f"(wanted) => {_FOCUSED}.matches(wanted)", selector):
            return
    raise AssertionError(f"{selector} is not reached")


def test_from_opening_the_page_to_a_shared_link(open_page: OpenPage, site: Running, asked: Index) -> None:
    page = open_page(site, permissions=["clipboard-read", "clipboard-write"])
    visit(page, "/")
    press(page, "Tab")
    assert page.evaluate(f"{_FOCUSED}.textContent") == "Skip to content"
    press(page, "/")
    assert page.evaluate(f"{_FOCUSED}.id") == "search"
    page.keyboard.type("fi")
    expect(page.get_by_role("main").get_by_role("listbox").get_by_role("option")).to_have_text(["fish50 images"])
    press(page, "ArrowDown")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()  # where a screen reader goes on
    expect(page.get_by_role("heading", level=1)).to_have_text("fish")
    settled(page)
    tab_to(page, "ul.tiles a")
    ids = patches(page, RIGHT)
    expect(tiles(page, RIGHT).first).to_be_focused()
    for key, place in (("ArrowRight", 1), ("ArrowRight", 2), ("ArrowLeft", 1), ("End", len(ids) - 1), ("Home", 0)):
        press(page, key)
        expect(tiles(page, RIGHT).nth(place)).to_be_focused()
    press(page, "ArrowDown")
    row = int(page.evaluate(f"[...{_FOCUSED}.closest('ul').querySelectorAll('a')].indexOf({_FOCUSED})"))
    tops = tiles(page, RIGHT).evaluate_all("links => links.map((link) => link.getBoundingClientRect().top)")
    assert row == next(place for place, top in enumerate(tops) if top > tops[0])  # straight below
    press(page, "ArrowUp")
    press(page, "ArrowRight")
    page.keyboard.press("Enter")
    expect(panel(page)).to_be_focused()
    assert query_of(page)["patch"] == [str(ids[1])]
    page.keyboard.press("n")
    expect(tiles(page, RIGHT).nth(2)).to_have_attribute("aria-current", "true")
    settled(page)
    for name in ("‹", "›", "Copy link"):
        press(page, "Tab")
        assert page.evaluate(f"{_FOCUSED}.textContent") == name
    page.keyboard.press("Enter")
    expect(panel(page).get_by_role("button", name="Copied")).to_be_visible()
    link = page.evaluate("navigator.clipboard.readText()")
    assert link == page.url == f"{site.address}/class?class=fish&patch={ids[2]}"
    page.keyboard.press("Escape")
    expect(tiles(page, RIGHT).nth(2)).to_be_focused()
    assert query_of(page) == {"class": ["fish"]}
    # Whoever gets the link sees the patch.
    other = open_page(site)
    other.goto(link)
    settled(other)
    expect(panel(other).locator("rect.box")).to_be_visible()
    expect(tiles(other, RIGHT).nth(2)).to_have_attribute("aria-current", "true")


@pytest.mark.parametrize(
    "place",
    [
        "/",
        "/class?class=fish&per_image=2",
        "/class?class=fish&patch=1892",
        "/confusions",
        "/words?word=3",
        "/sql?q=SELECT patch_id, image_id FROM image_evidence LIMIT 3",
        "/picture",
    ],
)
def test_every_stop_of_the_keyboard_is_seen_and_none_is_a_trap(page: Page, place: str) -> None:
    visit(page, place)
    if "patch=" in place:
        page.evaluate("document.activeElement.blur()")
    stops = 0
    for _ in range(250):
        page.keyboard.press("Tab")
        found = page.evaluate(_MARKED)
        if found:  # what comes into view may still be moved by what is loaded
            settled(page)
            found = page.evaluate(_MARKED)
        if found is None:
            break  # through, and out of the page
        assert found == ""
        stops += 1
    else:
        raise AssertionError("the end of the page is not reached")
    assert stops > 8


def test_help_opens_and_closes_and_keys_can_be_switched_off(page: Page) -> None:
    visit(page, "/")
    page.keyboard.press("?")
    dialog = page.get_by_role("dialog", name="What is shown here")
    expect(dialog).to_be_visible()
    page.keyboard.press("/")  # no key reaches what lies beneath
    expect(dialog).to_be_visible()
    dialog.get_by_label("single keys").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    expect(dialog).to_have_count(0)
    page.keyboard.press("/")
    assert page.evaluate(f"{_FOCUSED}.id") != "search"
    page.reload()
    settled(page)
    page.keyboard.press("?")
    expect(dialog).to_have_count(0)
    page.get_by_role("button", name="Help").focus()
    page.keyboard.press("Enter")
    dialog.get_by_label("single keys").focus()
    page.keyboard.press("Space")
    page.keyboard.press("Escape")
    expect(page.get_by_role("button", name="Help")).to_be_focused()
    page.keyboard.press("/")
    assert page.evaluate(f"{_FOCUSED}.id") == "search"
    page.keyboard.type("n?h")  # in a field they are letters
    expect(page.locator("#search")).to_have_value("n?h")


def test_skipping_to_the_content(page: Page) -> None:
    visit(page, "/confusions")
    press(page, "Tab")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_be_focused()


def test_colours_are_chosen_and_stay(page: Page) -> None:
    visit(page, "/")
    button = page.get_by_role("button", name="Colours")
    for theme, scheme in (("dark", "dark"), ("light", "light"), ("system", "light dark")):
        button.focus()
        page.keyboard.press("Enter")
        expect(button).to_have_attribute("title", f"Colours: {theme}")
        page.reload()
        settled(page)
        expect(button).to_have_attribute("title", f"Colours: {theme}")
        assert page.evaluate("getComputedStyle(document.documentElement).colorScheme") == scheme
