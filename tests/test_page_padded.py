"""The page in a browser: a model that pads its input, whose first patches begin before the picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Page, expect

from bagindex import Index
from browsing_page import BrowserThread, OpenPage, panel, query_of, visit
from serving import Running, running
from test_page_panel import check_box


@pytest.fixture(scope="module")
def served(padded: Path) -> Iterator[Running]:
    """An index of a BagNet v2."""
    with running([padded]) as service:
        yield service


@pytest.fixture
def beyond(browser: BrowserThread, open_page: OpenPage, served: Running) -> Page:
    """An empty page of it."""
    return browser.run(lambda: open_page(served))


def test_clicks_and_keys_reach_the_patches_at_the_border(beyond: Page, padded: Path) -> None:
    page = visit(beyond, "/class", class_="fish", image=3)
    with Index.open(padded) as index:
        grid = index.model_records()[0].grid
        picture = panel(page).locator(".picture.live")
        box = picture.bounding_box()
        assert box is not None
        scale = box["width"] / 112
        for row, col in ((11, 13), (0, 1), (1, 0)):
            # A patch's middle is at a multiple of the stride.
            picture.click(position={"x": (8 * col + 1) * scale, "y": (8 * row + 1) * scale})
            expect(panel(page).get_by_text(f"row {row}, column {col};")).to_be_visible()
            patch = 3 * grid.patches + row * grid.cols + col
            assert query_of(page)["patch"] == [str(patch)]
            check_box(page, index.place_of(patch)[1], 112)
    panel(page).get_by_role("group", name="arrow keys").focus()
    for key, place in (("ArrowUp", "row 0, column 0"), ("ArrowRight", "row 0, column 1"), ("ArrowDown", "row 1, col")):
        page.keyboard.press(key)
        expect(panel(page)).to_contain_text(place)
