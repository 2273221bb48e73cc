"""The page in a browser: names of classes that no one would wish for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from bagindex import Index
from browsing_page import BrowserThread, OpenPage, panel, patches, query_of, settled, tiles, view, visit
from serving import Running, running
from sites import HOSTILE


@pytest.fixture(scope="module")
def served(hostile: Path) -> Iterator[Running]:
    """An index of such names."""
    with running([hostile]) as service:
        yield service


@pytest.fixture(scope="module")
def index(hostile: Path) -> Iterator[Index]:
    """It, opened beside."""
    with Index.open(hostile) as found:
        yield found


@pytest.fixture
def strange(browser: BrowserThread, open_page: OpenPage, served: Running) -> Page:
    """An empty page of it."""
    return browser.run(lambda: open_page(served))


def check_unharmed(page: Page) -> None:
    """No name was taken for more than a text."""
    assert page.title() != "taken"
    elements = "main b, main script, main img:not([src^='/api/']), aside script, aside img:not([src^='/api/'])"
    found = page.locator(elements).evaluate_all("all => all.map((each) => each.outerHTML)")
    assert [each for each in found if "x onerror" in each or "<script" in each or "bold" in each] == []


def test_all_names_stand_whole_on_the_first_page_and_lead_to_their_class(strange: Page) -> None:
    page = visit(strange, "/", order="name")
    visit(page, "/")
    links = page.locator("li.card h3 a")
    expect(links).to_have_count(len(HOSTILE))
    assert links.evaluate_all("links => links.map((each) => each.textContent)") == HOSTILE
    check_unharmed(page)
    for place, name in enumerate(HOSTILE):
        links.nth(place).click()
        expect(page).to_have_url(re.compile("class="))
        assert page.locator("h1").evaluate("each => each.textContent") == name
        assert query_of(page) == {"class": [name]}
        page.go_back()
        expect(links).to_have_count(len(HOSTILE))


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_every_page_of_a_class(strange: Page, index: Index, place: int) -> None:
    name = HOSTILE[place]
    page = visit(strange, "/class", class_=name)
    assert page.locator("h1").evaluate("each => each.textContent") == name
    right = index.top_patches(name, k=24)
    wrong = index.top_patches(name, wrong_class=True, k=24)
    found = page.locator(".side-of ul.tiles").evaluate_all(
        "lists => lists.map((list) => [...list.querySelectorAll('a')].map("
        "(each) => Number(new URL(each.href).searchParams.get('patch'))))"
    )
    assert [ids[:24] for ids in found] == [[patch.patch_id for patch in side] for side in (right, wrong)]
    # A patch of it, with the evidence for it, and its neighbours.
    page.locator(".side-of ul.tiles a").first.click()
    expect(panel(page).locator("canvas").first).to_be_attached()
    chosen = panel(page).get_by_role("group", name="Show evidence for").locator("[aria-current=true]")
    assert name in chosen.evaluate("each => each.textContent")
    other = HOSTILE[(place + 1) % len(HOSTILE)]
    panel(page).get_by_role("group", name="Show evidence for").locator("a.chip").nth(1).click()
    settled(page)
    assert "show" in query_of(page)
    assert query_of(page)["show"][0] in HOSTILE
    check_unharmed(page)
    page.keyboard.press("Escape")
    # Its words, and what it is taken for.
    page.get_by_role("link", name="Words", exact=True).last.click()
    expect(page.get_by_role("group", name="Ranked by what they add")).to_be_visible()
    assert page.locator("h1").evaluate("each => each.textContent") == name
    words = [each["word"] for each in index.words(name, k=24).to_dicts() if each["word"] is not None]
    expect(page.locator("li.card h2")).to_have_text([f"Word {word}" for word in words])
    page.get_by_role("link", name="Confusions", exact=True).last.click()
    expect(page.get_by_role("table")).to_be_visible()
    assert page.locator("h1").evaluate("each => each.textContent") == name
    settled(page)
    check_unharmed(page)
    rows = page.locator(".matrix tbody tr")
    names = rows.locator("th a").evaluate_all("all => all.map((each) => each.textContent)")
    row, column = names.index(name), names.index(other)
    rows.nth(row).locator("td").nth(column).get_by_role("link").click()
    expect(page.get_by_role("article")).to_have_count(1)
    assert query_of(page) == {"label": [name], "predicted": [other]}
    assert page.locator("h1 a").evaluate_all("all => all.map((each) => each.textContent)") == [name, other]
    page.get_by_role("article").get_by_role("link", name="Open").click()
    expect(panel(page)).to_be_visible()
    view(page)
    assert page.locator(".inspector .verdict b").first.evaluate("each => each.textContent") == name
    expect(panel(page).get_by_role("alert")).to_have_count(0)
    expect(page.get_by_role("alert")).to_have_count(0)
    check_unharmed(page)


def test_search_finds_them(strange: Page) -> None:
    field = strange.get_by_role("banner").get_by_role("combobox")
    options = strange.get_by_role("banner").get_by_role("option")
    page = visit(strange, "/confusions")
    for name in (name for name in HOSTILE if name.strip() and "\n" not in name):
        field.fill(name)
        expect(options.first).to_be_visible()
        expect(field).to_have_attribute("aria-expanded", "true")
        settled(page)
        names = options.locator("span:first-child").evaluate_all("all => all.map((each) => each.textContent)")
        assert name in names
        options.nth(names.index(name)).click()
        expect(page.locator(".class-head")).to_be_visible()
        assert query_of(page) == {"class": [name]}
        page.go_back()
        expect(page.get_by_role("table")).to_be_visible()


def test_filters_and_sql_with_such_names(strange: Page, index: Index) -> None:
    page = strange
    for place in (0, 3, 4, 5, 12, 14):
        name = HOSTILE[place]
        visit(page, "/class", class_=name, images="any", label=name, predicted_as=name)
        found = index.top_patches(name, any_class=True, label=name, predicted_as=name)
        assert len(found) == 1
        assert patches(page, f"In all images, {index.models[0]}") == [patch.patch_id for patch in found]
        expect(page.get_by_role("combobox", name="Predicted as")).to_have_value(name)
    visit(page, "/sql", q="SELECT class_id, name FROM classes ORDER BY 1")
    cells = page.locator("table.rows td:nth-child(2)").evaluate_all("all => all.map((each) => each.textContent)")
    assert [cell.strip(" ") for cell in cells] == HOSTILE
    check_unharmed(page)
    assert tiles(page, "nothing").count() == 0
