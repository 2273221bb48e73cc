"""The page in a browser: the map, with the pointer, with the keyboard, and to those who do not see it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from playwright.sync_api import Page, expect

from bagindex import Index
from browsing_page import OpenPage, query_of, settled, visit
from serving import Running, running
from test_page_looks import check_with_axe


@pytest.fixture(scope="module")
def mapped(planted_words: Index, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The planted pictures with a map of 60 patches, and one of the words."""
    folder = tmp_path_factory.mktemp("mapped") / "i"
    shutil.copytree(planted_words.path, folder)
    with Index.open(folder) as index:
        index.make_map(sample=60)
        index.make_map(words=True)
    return folder


@pytest.fixture(scope="module")
def service(mapped: Path) -> Iterator[Running]:
    """A service with them."""
    with running([mapped]) as found:
        yield found


def points(page: Page) -> int:
    """How many points are drawn."""
    return page.locator(".points circle:not(.at)").count()


def test_axe_finds_nothing(open_page: OpenPage, service: Running) -> None:
    for path in ("/map", "/map?class=fish", "/map?of=words"):
        page = visit(open_page(service), path)
        page.get_by_role("application").focus()
        page.keyboard.press("ArrowDown")
        check_with_axe(page, path)


def test_from_point_to_point_with_the_keyboard(open_page: OpenPage, service: Running, mapped: Path) -> None:
    page = visit(open_page(service), "/map")
    with Index.open(mapped) as index:
        known = {each.patch_id: each for each in index.patch_map().points}
    assert points(page) == len(known) == 60
    map_, said = page.get_by_role("application"), page.get_by_label("The point").get_by_role("status")
    map_.focus()
    expect(said).to_have_text("")
    shown = []
    for key in ("ArrowRight", "ArrowRight", "ArrowUp", "ArrowLeft", "ArrowDown"):
        page.keyboard.press(key)
        settled(page)
        link = page.get_by_label("The point").get_by_role("link").first
        shown.append(int(parse_qs(urlsplit(link.get_attribute("href") or "").query)["patch"][0]))
    first, second, third, *_ = (known[each] for each in shown)
    assert second.x > first.x
    assert third.y > second.y
    last = known[shown[-1]]
    expect(said).to_contain_text(f"for {last.class_}, in an image of {last.label}")
    page.keyboard.press("Enter")
    settled(page)
    assert query_of(page)["patch"] == [str(shown[-1])]
    expect(page.locator(".inspector")).to_be_visible()


def test_the_pointer_shows_a_point_and_a_click_opens_it(open_page: OpenPage, service: Running) -> None:
    page = visit(open_page(service), "/map?class=fish")
    circle = page.locator(".points circle").nth(7)
    circle.hover()
    expect(page.get_by_label("The point").get_by_role("status")).to_contain_text("for fish, in an image of")
    expect(page.locator(".points .at")).to_have_count(1)
    circle.click()
    settled(page)
    assert query_of(page)["show"] == ["fish"]
    expect(page.locator(".inspector")).to_be_visible()


def test_words_lead_to_their_page(open_page: OpenPage, service: Running, planted_words: Index) -> None:
    page = visit(open_page(service), "/map")
    page.get_by_role("radio", name="visual words").check(force=True)
    settled(page)
    assert points(page) == len(planted_words.words().words)
    page.get_by_role("application").focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Enter")
    settled(page)
    expect(page.get_by_role("heading", level=1)).to_have_text(f"Word {query_of(page)['word'][0]}")


def test_where_there_is_no_map_it_says_how_to_make_one(open_page: OpenPage, site: Running) -> None:
    page = visit(open_page(site), "/map")
    expect(page.get_by_role("main")).to_contain_text("No map was made for bagnet33 yet: run bagindex map -i index")
