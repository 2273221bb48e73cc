"""The page in a browser: it fits all widths, and axe finds nothing against it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from PIL import Image
from playwright.sync_api import Page, expect

from browsing_page import OpenPage, Watch, settled, visit
from serving import Running, running
from sites import HOSTILE

IMAGE, PATCHES = 7, 256
"""An image of the demo, and how many patches each has."""
PLACES = {
    "classes": "/",
    "class": "/class?class=fish&per_image=2&where=width>0",
    "patch": f"/class?class=fish&patch={PATCHES * IMAGE + 100}",
    "image": f"/words?class=fish&image={IMAGE}",
    "confusions": "/confusions",
    "confusions of a class": "/confusions?class=fish",
    "pair": "/confusions?label=fish&predicted=text",
    "words": "/words",
    "shortcuts": "/words?class=fish&by=shortcuts",
    "word": "/words?word=3",
    "query": "/sql?q=SELECT * FROM image_evidence LIMIT 5",
    "picture": "/picture",
}
WIDE, NARROW = {"width": 1360, "height": 900}, {"width": 390, "height": 800}
# What is behind letters takes axe longer than all else: of tiles that look alike, it looks at the first six of a list.
_AXE = """async () => {
  const colours = "color-contrast", resultTypes = ["violations"];
  const alike = "ul.tiles > li:nth-child(n + 7):not(:has([aria-current]))";
  const found = [
    await axe.run(document, { resultTypes, rules: { [colours]: { enabled: false } } }),
    await axe.run({ exclude: [[alike]] }, { resultTypes, runOnly: { type: "rule", values: [colours] } }),
  ];
  return found.flatMap((each) => each.violations);
}"""


def check_with_axe(page: Page, where: str) -> None:
    """axe finds nothing, in light on a wide screen and in dark on a narrow one, and the page is not too wide."""
    page.evaluate(Axe().axe_script)
    for size, colours in ((WIDE, "light"), (NARROW, "dark")):
        page.set_viewport_size(size)  # type: ignore[arg-type]
        page.emulate_media(color_scheme=colours, reduced_motion="reduce")  # type: ignore[arg-type]
        settled(page)
        found: list[dict[str, Any]] = page.evaluate(_AXE)
        said = [
            f"{where}, {colours}: {each['impact']} {each['id']}: {[node['html'][:120] for node in each['nodes'][:3]]}"
            for each in found
        ]
        assert said == []
    check_widths(page, where)


def check_widths(page: Page, where: str) -> None:
    """Nothing makes the page scroll sideways."""
    for width in (1360, 820, 390):
        page.set_viewport_size({"width": width, "height": 900})
        settled(page)
        found = page.evaluate("() => document.scrollingElement.scrollWidth - innerWidth")
        assert found <= 0, f"{where} at {width} pixels is {found} too wide"


@pytest.mark.parametrize("name", PLACES)
def test_every_page(page: Page, name: str) -> None:
    check_with_axe(visit(page, PLACES[name]), name)


def test_help_and_suggestions(page: Page) -> None:
    visit(page, "/")
    page.get_by_role("button", name="Help").click()
    expect(page.get_by_role("dialog")).to_be_visible()
    check_with_axe(page, "help")
    page.keyboard.press("Escape")
    page.locator("#search").focus()
    expect(page.get_by_role("main").get_by_role("listbox").get_by_role("option")).not_to_have_count(0)
    check_with_axe(page, "suggestions")


def test_a_picture_that_is_looked_at(page: Page, tmp_path: Path) -> None:
    Image.effect_noise((300, 260), 60).save(tmp_path / "a.png")
    visit(page, "/picture")
    page.get_by_label("Choose a picture").set_input_files(tmp_path / "a.png")
    expect(page.get_by_role("group", name="Show evidence for")).to_be_visible()
    page.locator(".picture.live").click()
    expect(page.get_by_role("list", name="Similar patches")).to_be_visible()
    check_with_axe(page, "a picture")


def test_two_models(open_page: OpenPage, two_models: Path) -> None:
    with running([two_models]) as service:
        page = visit(open_page(service), "/class", class_="fish", with_="bagnet9")
        check_with_axe(page, "two models")
        check_with_axe(visit(page, "/class", class_="fish", image=3), "an image and two models")


def test_signing_in_and_problems(open_page: OpenPage, watch: Watch, guarded: Running, site: Running) -> None:
    watch.expects(401, 404, 422)
    page = open_page(guarded)
    page.goto("/")
    page.get_by_label("Token").fill("no token of this service")
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_be_visible()
    check_with_axe(page, "signing in")
    page = open_page(site)
    for place in (
        "/?index=nothing",
        "/class?class=nothing",
        "/sql?q=SELECT nothing",
        "/class?class=fish&patch=9999999",
    ):
        check_with_axe(visit(page, place), place)


def test_long_and_strange_names_fit(open_page: OpenPage, hostile: Path) -> None:
    with running([hostile]) as service:
        page = open_page(service)
        longest = max(HOSTILE, key=len)
        for place in ("/", "/confusions", "/words"):
            check_widths(visit(page, place), place)
        for place in ("/class", "/words", "/confusions"):
            check_widths(visit(page, place, class_=longest), place)
        check_widths(visit(page, "/class", class_=longest, image=2 * HOSTILE.index(longest)), "panel")
        check_widths(visit(page, "/sql", q="SELECT name FROM classes"), "query")


def test_what_lies_beneath_the_panel_can_be_used_once_there_is_room(page: Page) -> None:
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    visit(page, "/class", class_="fish", image=IMAGE)
    page.wait_for_function("() => document.getElementById('main').inert")
    page.set_viewport_size(WIDE)  # type: ignore[arg-type]
    page.wait_for_function("() => !document.getElementById('main').inert")
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    page.wait_for_function("() => document.getElementById('main').inert")
