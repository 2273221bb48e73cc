"""The page in a browser: indexes that lack something, services that want a token, and one that stops."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Page, expect

from bagindex import Index
from bagindex.service.settings import Settings
from browsing_page import OpenPage, Watch, panel, patches, query_of, settled, tiles, view, visit
from serving import Running, running
from sites import TOKEN


def test_an_index_without_labels(open_page: OpenPage, watch: Watch, unlabelled: Path) -> None:
    with running([unlabelled]) as service, Index.open(unlabelled) as index:
        page = visit(open_page(service), "/")
        expect(page.locator(".hero")).to_contain_text("3 images, 3 classes; without labels.")
        assert page.get_by_role("navigation", name="Pages").get_by_role("link").all_inner_texts() == [
            *("Classes", "Words", "Map", "Picture", "SQL")
        ]
        expect(page.get_by_label("Order").locator("option")).to_have_text(["as in the model", "by name"])
        page.locator("li.card h3 a").first.click()
        settled(page)
        found = index.top_patches("cat", any_class=True)
        assert patches(page, f"In all images, {index.models[0]}") == [patch.patch_id for patch in found]
        expect(page.get_by_label("only misclassified")).to_have_count(0)
        tiles(page, f"In all images, {index.models[0]}").first.click()
        settled(page)
        expect(panel(page).locator(".verdict")).not_to_contain_text("label")
        view(page)
        page.get_by_role("link", name="word 0").first.click()
        expect(page.get_by_role("heading", level=1)).to_have_text("Word 0")
        visit(page, "/words")
        expect(page.locator("li.card")).to_have_count(1)
        expect(page.get_by_role("alert")).to_have_count(0)
        for each in service.json("/tables")["examples"]:
            visit(page, "/sql", q=each["sql"])
            expect(page.get_by_role("table")).to_be_visible()
        watch.expects(422)
        for place in ("/confusions", "/words?class=cat"):  # by an old link
            visit(page, place)
            expect(page.get_by_role("alert")).to_contain_text("no image of this index has a label")


def test_an_index_without_pixels(open_page: OpenPage, watch: Watch, without_pixels: Path, tmp_path: Path) -> None:
    with running([without_pixels]) as service, Index.open(without_pixels) as index:
        page = visit(open_page(service), "/class", class_="fish", images="any")
        ids = [patch.patch_id for patch in index.top_patches("fish", any_class=True, k=24)]
        assert patches(page, "In all images, bagnet33") == ids
        tiles(page, "In all images, bagnet33").first.click()
        settled(page)
        expect(panel(page).locator("canvas")).to_have_count(1)  # evidence there is
        expect(panel(page).locator(".picture").get_by_role("img")).to_be_visible()
        view(page)
        expect(panel(page).get_by_role("list", name="Similar patches").get_by_role("listitem")).not_to_have_count(0)
        visit(page, "/confusions")
        visit(page, "/words")
        expect(page.get_by_text("No words were made for bagnet33 yet")).to_be_visible()
        visit(page, "/sql", q="SELECT patch_id, image_id FROM image_evidence LIMIT 2")
        expect(page.get_by_role("table")).to_be_visible()
        assert page.locator("img").count() == 0  # no picture is asked for
        Image.new("RGB", (200, 200), "teal").save(tmp_path / "a.png")
        visit(page, "/picture")
        page.get_by_label("Choose a picture").set_input_files(tmp_path / "a.png")
        expect(page.locator(".seen canvas").first).to_be_visible()
        settled(page)
        expect(page.get_by_role("alert")).to_have_count(0)
        assert [each for each in watch.refused if each[0] >= 400] == []


def test_an_index_of_summaries(open_page: OpenPage, watch: Watch, summaries: Path) -> None:
    watch.expects(409)
    with running([summaries]) as service, Index.open(summaries) as index:
        page = visit(open_page(service), "/")
        expect(page.get_by_role("alert")).to_have_count(0)
        visit(page, "/class", class_="fish", images="any")
        ids = [patch.patch_id for patch in index.top_patches("fish", any_class=True, k=24)]
        assert patches(page, "In all images, bagnet33") == ids
        expect(page.get_by_role("alert")).to_have_count(0)
        tiles(page, "In all images, bagnet33").first.click()
        settled(page)
        view(page)
        expect(panel(page).locator(".verdict")).to_contain_text("predicted")
        said = panel(page).get_by_role("alert").all_inner_texts()
        assert said
        assert all("keep" in each for each in said)
        page.keyboard.press("Escape")
        visit(page, "/class", class_="fish", images="any", per_image=2)
        expect(page.get_by_role("alert")).to_contain_text("keep")
        visit(page, "/words")
        expect(page.get_by_text("No words were made for bagnet33 yet")).to_be_visible()
        visit(page, "/confusions")
        expect(page.get_by_role("table")).to_be_visible()
        for each in service.json("/tables")["examples"]:
            visit(page, "/sql", q=each["sql"])
            expect(page.get_by_role("table")).to_be_visible()


def test_a_service_without_sql(open_page: OpenPage, watch: Watch, unlabelled: Path) -> None:
    with running([unlabelled], Settings(sql=False)) as service:
        page = visit(open_page(service), "/class", class_="cat")
        expect(page.get_by_role("link", name="SQL")).to_have_count(0)
        page.get_by_text("More", exact=True).click()
        expect(page.get_by_label("SQL condition on the images")).to_have_count(0)
        watch.expects(403)
        visit(page, "/sql", q="SELECT 1")
        expect(page.get_by_role("alert").first).to_contain_text("SQL")


def test_signing_in(open_page: OpenPage, watch: Watch, guarded: Running) -> None:
    watch.expects(401)
    page = open_page(guarded)
    page.goto("/class?class=cat")
    field = page.get_by_label("Token")
    field.fill("not-the-token-at-all")
    page.get_by_role("button", name="Open").click()
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    field.fill(TOKEN)
    field.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("cat")
    settled(page)
    assert query_of(page) == {"class": ["cat"]}
    _check_pictures(page)
    page.reload()  # the cookie stays
    settled(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("cat")
    assert TOKEN not in page.evaluate("() => document.cookie + JSON.stringify(localStorage) + document.body.innerText")
    # What the browser has shown may be forgotten meanwhile.
    page.context.clear_cookies()
    page.get_by_role("link", name="Words", exact=True).first.click()
    expect(page.get_by_label("Token")).to_be_visible()
    page.get_by_label("Token").fill(TOKEN)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Visual words")
    expect(page.locator("li.card")).to_have_count(1)


def test_the_token_in_the_address_that_is_printed(open_page: OpenPage, watch: Watch, guarded: Running) -> None:
    page = open_page(guarded)
    page.goto(f"/?order=name#token={TOKEN}")
    settled(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("What does the model look at?")
    assert page.url == f"{guarded.address}/?order=name"
    assert page.evaluate("() => history.length") <= 2
    _check_pictures(page)
    watch.expects(401)
    other = open_page(guarded)
    other.goto("/#token=another-token-than-that")
    expect(other.get_by_label("Token")).to_be_visible()
    assert other.url == f"{guarded.address}/"


def _check_pictures(page: Page) -> None:
    images = page.locator(".tile img")
    assert images.count() > 0
    assert min(images.evaluate_all("all => all.map((each) => each.naturalWidth)")) > 0


def test_a_service_that_stops_is_said(open_page: OpenPage, watch: Watch, unlabelled: Path) -> None:
    with running([unlabelled]) as service:
        page = visit(open_page(service), "/")
    watch.expects_silence()
    said = "The service does not answer. Is `bagindex serve` still running?"
    page.locator("li.card h3 a").first.click()
    expect(page.get_by_role("alert").first).to_have_text(said)
    page.get_by_role("link", name="SQL").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("SQL")
    page.get_by_role("textbox", name="Query").fill("SELECT 1")
    page.keyboard.press("Control+Enter")
    expect(page.get_by_role("region", name="Query").get_by_role("alert")).to_have_text(said)


def test_a_failure_may_pass(open_page: OpenPage, watch: Watch, unlabelled: Path, monkeypatch: Any) -> None:
    watch.expects(500)
    with running([unlabelled]) as service:
        page = visit(open_page(service), "/")
        top = Index.top_patches

        def broken(*_: object, **__: object) -> None:
            raise ZeroDivisionError

        monkeypatch.setattr(Index, "top_patches", broken)
        page.locator("li.card h3 a").first.click()
        expect(page.get_by_role("alert").first).to_be_visible()
        monkeypatch.setattr(Index, "top_patches", top)
        page.go_back()
        settled(page)
        page.locator("li.card h3 a").first.click()
        expect(page.locator(".side-of .tile").first).to_be_visible()
        expect(page.get_by_role("alert")).to_have_count(0)
